//! Where tasks run: beside all others, or on a thread of their own that no other task can hold up.

use std::{io, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinHandle,
};

use crate::process;

/// A runtime that tasks can be started in from anywhere. What a task starts itself runs where the task does. Clones are the same place.
#[derive(Debug, Clone)]
pub struct Place(Handle);

impl Place {
    /// Where the caller runs.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn here() -> Self {
        Self(Handle::current())
    }

    /// As [`crate::spawn`], in this place.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let task = self.0.spawn(process::own(future));
        process::adopt(|| task.abort_handle());
        task
    }

    /// Has what `begin` starts run in this place.
    pub fn run<T>(&self, begin: impl FnOnce() -> T) -> T {
        let _inside = self.0.enter();
        begin()
    }
}

/// A thread with a runtime of its own, which ends when this is dropped, with whatever runs there.
#[derive(Debug)]
pub struct OwnThread {
    place: Place,
    /// Dropping it ends the thread.
    _end: oneshot::Sender<()>,
}

impl OwnThread {
    /// Starts it.
    ///
    /// # Errors
    /// If no thread can be started, or no runtime.
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(4)
            .thread_stack_size(512 * 1024)
            .thread_name(format!("{name}-blocking"))
            .enable_all()
            .build()?;
        let place = Place(runtime.handle().clone());
        let (end, ended) = oneshot::channel::<()>();
        thread::Builder::new().name(name.to_owned()).stack_size(1024 * 1024).spawn(move || {
            let _ = runtime.block_on(ended);
            // Whatever is stuck there, a look-up of a name for instance, holds up nobody.
            runtime.shutdown_background();
        })?;
        Ok(Self { place, _end: end })
    }

    /// The place to start tasks in.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn a_task_that_never_waits_holds_up_nothing_in_another_place() {
        let own = OwnThread::start("own").unwrap();
        let (sender, mut ticks) = tokio::sync::mpsc::unbounded_channel();
        let began = Instant::now();
        let beside = own.place().spawn(async move {
            // What it starts runs there, too.
            crate::spawn(async move {
                while sender.send(thread::current().name().map(str::to_owned)).is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        });
        while began.elapsed() < Duration::from_millis(300) {}
        beside.await.unwrap();
        assert!(ticks.len() > 5, "{} ticks while this task was busy", ticks.len());
        assert_eq!(ticks.recv().await.unwrap().as_deref(), Some("own"));
        drop(own);
        while ticks.recv().await.is_some() {}
    }
}
