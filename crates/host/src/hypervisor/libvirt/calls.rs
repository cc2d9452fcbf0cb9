//! Calls with deadlines, to a libvirt whose calls may block for ever.
//!
//! A connection carries one call at a time. libvirt's client ends only one of several waiting calls when keepalives go
//! unanswered (seen in 9.0: the call that inherits the socket polls it for ever), and libvirtd stops reading from a
//! client with five requests under way. So questions take turns on the standing connection, and each change opens its
//! own: a few milliseconds, and nothing that hangs can delay anything else.
//!
//! A call that misses its deadline keeps its thread and its slot until libvirt answers or keepalives end it; the slots
//! of a lane bound how many. Lanes keep what is urgent from waiting behind what may hang: a guest whose process hangs
//! holds a shutdown request until it is powered off, and powering off is what ends it.

use std::{ffi::CString, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    super::HypervisorError,
    connection::Connection,
    library::{Fault, Libvirt},
};
use crate::blocking::{self, Slots, Workers};

/// Changes that share slots.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lane {
    Start,
    /// Starts with disks in a storage that may hang, and their processes with it: more than the starts that are asked for of some pools.
    StartOnStorage,
    /// What holds a guest until it is let go is short, and part of its start.
    Resume,
    Shutdown,
    PowerOff,
    /// For as long as each takes: more than are wise to have at once.
    Migrate,
    /// Words about migrations, which go through the guest's process.
    Migration,
    /// Looks at files, which may be on storage that hangs.
    Trial,
}

/// How many calls of each lane may be under way.
const SLOTS: [usize; 8] = [4, 16, 8, 8, 4, 16, 8, 2];

/// How libvirt is reached.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) libvirt: Libvirt,
    pub(super) uri: CString,
    /// See `Deadlines::probe`.
    pub(super) probe: Duration,
}

impl Target {
    pub(super) fn open(&self) -> Result<Connection, Fault> {
        Connection::open(self.libvirt, &self.uri, self.probe)
    }
}

/// Why libvirt has not answered, or not well.
pub(super) type Failure = blocking::Failure<Fault>;

impl Failure {
    /// In the words of the trait.
    pub(super) fn into_error(self, within: Duration, doing: String) -> HypervisorError {
        match self {
            Self::Fault(fault) if fault.is_connection() => HypervisorError::Unavailable(fault.message),
            Self::Fault(fault) if fault.is_definition() => HypervisorError::Unusable(fault.message),
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

/// Makes changes, each on a connection of its own.
pub(super) struct Changes {
    target: Target,
    workers: Arc<Workers>,
    lanes: [Slots; SLOTS.len()],
    /// One connection is opened at a time: a frozen libvirtd holds who opens one, and keepalives do not end that.
    opening: Slots,
}

impl Changes {
    pub(super) fn new(target: Target, workers: Arc<Workers>) -> Self {
        let lanes = SLOTS.map(Slots::new);
        Self { target, workers, lanes, opening: Slots::new(1) }
    }

    pub(super) async fn call<T: Send + 'static>(
        &self,
        lane: Lane,
        within: Duration,
        ask: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        let (target, deadline) = (self.target.clone(), Instant::now() + within);
        let slot = self.lanes[lane as usize].take(deadline).await?;
        let opening = self.opening.take(deadline).await?;
        let change = move || {
            let _slot = slot;
            let connection = target.open()?;
            drop(opening);
            // A libvirtd that was frozen may open after minutes, when this change has long become wrong.
            if Instant::now() >= deadline {
                return Err(Fault::ours("libvirt accepted the connection too late".into()));
            }
            ask(&connection)
        };
        self.workers.call(deadline, change).await
    }
}

/// The standing connection: events come through it, questions take turns on it.
pub(super) struct Link {
    /// Taken when dropped only.
    connection: Option<Connection>,
    workers: Arc<Workers>,
    turn: Slots,
    /// Tells the supervisor's connections apart.
    pub(super) generation: u64,
}

impl Link {
    pub(super) fn new(connection: Connection, workers: Arc<Workers>, generation: u64) -> Self {
        Self { connection: Some(connection), workers, turn: Slots::new(1), generation }
    }

    /// Whether the transport still stands.
    pub(super) fn is_alive(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_alive)
    }

    pub(super) async fn call<T: Send + 'static>(
        self: Arc<Self>,
        within: Duration,
        ask: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        let (workers, deadline) = (self.workers.clone(), Instant::now() + within);
        let turn = self.turn.take(deadline).await?;
        let question = move || {
            let _turn = turn;
            match &self.connection {
                Some(connection) => ask(connection),
                None => Err(Fault::ours("the connection is closed".into())),
            }
        };
        workers.call(deadline, question).await
    }
}

impl Drop for Link {
    /// Closing blocks too, and the last user may be a task of the runtime.
    fn drop(&mut self) {
        let connection = self.connection.take();
        if let Err(error) = self.workers.run(Box::new(move || drop(connection))) {
            tracing::warn!(%error, "no thread to close a libvirt connection; it was closed in the caller's");
        }
    }
}
