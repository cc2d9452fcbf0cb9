//! Programs that are to run until they are told otherwise: started again when they end, ended when this daemon does.
//!
//! Never decides which, or on which node. For programs that are run to their end see [`crate::run`].

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod leftovers;
mod log;
mod supervisor;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

pub use supervisor::Supervisor;

/// What is to run. Arguments are for all to see: secrets go in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// For logs, and to tell it from others of the same program.
    pub name: String,
    /// Its file's name, in one of the system's own directories.
    pub program: String,
    /// Its arguments, one by one.
    pub arguments: Vec<String>,
    /// What else is in its environment: names and values.
    pub environment: Vec<(String, String)>,
    /// Whom it runs as; `None`: as this daemon.
    pub identity: Option<Identity>,
}

/// An unprivileged user who may do a few things that only root may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user's name.
    pub user: &'static str,
    /// The group's name; it is in no others.
    pub group: &'static str,
    /// What it may do, in setpriv's words: `net_admin`. A program that changes its user itself would lose the kernel's promise that it ends
    /// with this daemon, so it is started as that user.
    pub capabilities: &'static [&'static str],
}

/// How it is with a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramState {
    /// It is being started for the first time.
    Starting,
    /// It runs, as far as anybody knows from outside.
    Running,
    /// It ended or could not be started, and is started again in a moment.
    Down {
        /// What happened.
        why: String,
    },
    /// It was told to stop, and has.
    Stopped,
}

/// Starts programs and keeps them running.
pub trait Programs: Send + Sync + 'static {
    /// Lets it run from now on. Returns at once.
    fn run(&self, spec: Spec) -> Kept;
}

/// A program that is kept running. When this is dropped, the program is killed.
#[derive(Debug)]
pub struct Kept {
    orders: mpsc::UnboundedSender<Order>,
    state: watch::Receiver<ProgramState>,
}

/// What can be asked of a program that runs.
#[derive(Debug)]
enum Order {
    HangUp,
    Stop { within: Duration, done: oneshot::Sender<()> },
}

impl Kept {
    /// How it is, and every change of that.
    pub fn state(&self) -> watch::Receiver<ProgramState> {
        self.state.clone()
    }

    /// Sends SIGHUP, which most servers take as the order to read their files again. Not running is fine: it reads them when it starts.
    pub fn hang_up(&self) {
        // Whoever is not there to hear has stopped.
        let _ = self.orders.send(Order::HangUp);
    }

    /// Asks it to end, waits so long for that, then kills it. Returns when it has ended.
    pub async fn stop(self, within: Duration) {
        let (done, ended) = oneshot::channel();
        if self.orders.send(Order::Stop { within, done }).is_ok() {
            // Dropped: nobody keeps it running any more, and so it does not run.
            let _ = ended.await;
        }
    }
}

/// Both ends of the line between a [`Kept`] and what keeps it.
fn line() -> (Kept, mpsc::UnboundedReceiver<Order>, watch::Sender<ProgramState>) {
    let (orders, ordered) = mpsc::unbounded_channel();
    let (tell, state) = watch::channel(ProgramState::Starting);
    (Kept { orders, state }, ordered, tell)
}
