//! Calls with deadlines on a connection whose calls may block for ever.
//!
//! libvirtd handles four requests of a client at once; with a fifth it stops reading from it, and so answers no
//! keepalives. Four slots, then, in three lanes, so that what is urgent never waits behind what may hang: a guest whose
//! process hangs holds a shutdown request until it is powered off, and powering off is what frees it.
//!
//! A call that misses its deadline keeps its thread and its slot until libvirt answers or the connection dies. The
//! supervisor replaces a connection whose lane is full of such calls, up to `MAX_LINKS`; that bounds the threads.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    super::HypervisorError,
    connection::{Connection, Fault},
    workers::Workers,
};

/// Connections that may exist at once: the one in use and those that still have calls to finish.
pub(super) const MAX_LINKS: usize = 4;

/// Which calls share slots.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lane {
    /// Answered from libvirtd's memory, fast unless libvirtd itself hangs.
    Read,
    /// Starts and shutdown requests.
    Change,
    /// Powering off.
    PowerOff,
}

/// A connection with its slots.
pub(super) struct Link {
    /// Taken when dropped only.
    connection: Option<Connection>,
    workers: Arc<Workers>,
    slots: [Arc<Semaphore>; 3],
    /// Tells the supervisor's connections apart.
    pub(super) generation: u64,
}

/// Why a call has no answer.
pub(super) enum Failure {
    Fault(Fault),
    /// Other calls held the lane until the deadline: nothing was asked.
    NotAsked,
    /// Asked, but not answered in time.
    Late,
    /// No thread could be started: nothing was asked.
    NoThread(std::io::Error),
}

impl Link {
    pub(super) fn new(connection: Connection, workers: Arc<Workers>, generation: u64) -> Self {
        let slots = [1, 2, 1].map(|slots| Arc::new(Semaphore::new(slots)));
        Self { connection: Some(connection), workers, slots, generation }
    }

    /// Whether every slot of a lane is taken: after a missed deadline, whether later calls are in danger too.
    pub(super) fn is_full(&self, lane: Lane) -> bool {
        self.slots[lane as usize].available_permits() == 0
    }

    /// Whether the transport still stands.
    pub(super) fn is_alive(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_alive)
    }

    /// Runs `ask` on a thread of its own and waits for it until the deadline.
    pub(super) async fn call<T: Send + 'static>(
        self: Arc<Self>,
        lane: Lane,
        within: Duration,
        ask: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + within;
        let slots = self.slots[lane as usize].clone();
        let Ok(Ok(slot)) = timeout_at(deadline, slots.acquire_owned()).await else {
            return Err(Failure::NotAsked);
        };
        let (answer, answered) = oneshot::channel();
        let link = self.clone();
        let job = move || {
            let result = link.connection.as_ref().map(ask);
            drop((slot, link));
            // Nobody listens after the deadline.
            let _ = result.map(|result| answer.send(result));
        };
        self.workers.run(Box::new(job)).map_err(Failure::NoThread)?;
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result.map_err(Failure::Fault),
            // The thread panicked, or the deadline passed: either way nothing is known of the outcome.
            Ok(Err(_)) | Err(_) => Err(Failure::Late),
        }
    }
}

impl Drop for Link {
    /// Closing blocks too, and the last user may be a task of the runtime.
    fn drop(&mut self) {
        let connection = self.connection.take();
        if let Err(error) = self.workers.run(Box::new(move || drop(connection))) {
            tracing::warn!(%error, "a libvirt connection was closed late: no thread for it");
        }
    }
}

impl Failure {
    /// In the words of the trait.
    pub(super) fn into_error(self, within: Duration, doing: String) -> HypervisorError {
        match self {
            Self::Fault(fault) if fault.is_connection() => HypervisorError::Unavailable(fault.message),
            Self::Fault(fault) => HypervisorError::Refused(fault.message),
            Self::NotAsked => HypervisorError::Unavailable(format!(
                "earlier requests are unanswered; gave up {doing} after {within:?} without having asked"
            )),
            Self::NoThread(error) => {
                HypervisorError::Unavailable(format!("no thread for {doing}: {error}; nothing was asked"))
            }
            Self::Late => HypervisorError::Deadline { after: within, doing },
        }
    }
}
