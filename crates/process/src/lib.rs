//! The tasks of a daemon, started here and nowhere else, so that a simulator which runs many daemons in one real process can freeze
//! and kill each as a whole, as `kill -STOP` and `kill -9` do.
//!
//! Without the feature `simulated` this is tokio, and nothing more: no wrapper, no bookkeeping. Never knows what a task does.

mod place;
#[cfg(feature = "simulated")]
mod process;
#[cfg(feature = "simulated")]
mod scheduler;
#[cfg(not(feature = "simulated"))]
mod process {
    //! The process that the kernel knows.

    /// A future as a task of this process.
    pub(crate) fn own<F: Future>(future: F) -> F {
        future
    }

    pub(crate) fn adopt(_: impl FnOnce() -> tokio::task::AbortHandle) {}
}
#[cfg(all(test, feature = "simulated"))]
mod tests;

use std::ops::{Deref, DerefMut};

use tokio::task::{AbortHandle, JoinHandle};

pub use place::{OwnThread, Place};
#[cfg(feature = "simulated")]
pub use process::Process;
#[cfg(feature = "simulated")]
pub use scheduler::Scheduler;

/// Starts a detached task of this process, as `tokio::spawn`.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let task = tokio::spawn(process::own(future));
    process::adopt(|| task.abort_handle());
    task
}

/// Tasks of this process that end with their owner, as tokio's.
#[derive(Debug, Default)]
pub struct JoinSet<T>(tokio::task::JoinSet<T>);

impl<T: Send + 'static> JoinSet<T> {
    /// No tasks.
    pub fn new() -> Self {
        Self(tokio::task::JoinSet::new())
    }

    /// Starts one more.
    pub fn spawn<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.0.spawn(process::own(future))
    }
}

impl<T> Deref for JoinSet<T> {
    type Target = tokio::task::JoinSet<T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for JoinSet<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
