//! Serial consoles: what a guest prints and what is typed on it, on this node or another.
//!
//! For clients: no daemon opens one. A console has a connection, a thread and buffers of its own, all bounded: a guest that floods, one that reads nothing
//! and a client that is slow harm nobody but that console. Never keeps what was printed: that is the console log's business.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::model::VmId;
use tokio::sync::Notify;

use super::{Peer, Transport};

/// So much that was printed waits for its reader, bytes. Of more the oldest is lost, and told to be.
pub const MOST_PRINTED: usize = 256 * 1024;
/// So much that was typed waits for the guest, bytes.
pub const MOST_TYPED: usize = 64 * 1024;

/// Whose libvirt is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// This machine's.
    Here,
    /// Another node's.
    Peer(Peer),
}

/// What becomes of somebody else who has the console open: libvirt lets one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Keeps it.
    IfFree,
    /// Loses it.
    Take,
}

/// Why a console is not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsoleError {
    /// That libvirt cannot be reached.
    #[error("libvirt of {at} cannot be reached: {why}; {todo}")]
    Unreachable {
        /// Where it should be.
        at: Place,
        /// What was met.
        why: String,
        /// What to configure or look at.
        todo: String,
    },
    /// No answer in time.
    #[error("libvirt of {at} did not answer within {after:?}")]
    Late {
        /// Whose.
        at: Place,
        /// The deadline.
        after: Duration,
    },
    /// The guest is not active there, or its process is only being made.
    #[error("it is not active at {0}")]
    NotActive(Place),
    /// Somebody else has it open.
    #[error("somebody has this console open, and libvirt lets one at a time")]
    Taken,
    /// Its definition has no console that can be typed on: what it lacks, and what to write.
    #[error("{0}")]
    Lacking(String),
    /// libvirt says no, in its words.
    #[error("libvirt of {at}: {why}")]
    Refused {
        /// Whose.
        at: Place,
        /// Its words.
        why: String,
    },
}

/// What a console tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The guest has printed this.
    Printed(Vec<u8>),
    /// So many bytes that it has printed before what comes next were not read in time, and are lost.
    Lost(u64),
    /// That is all.
    Ended(End),
}

/// Why a console has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// libvirt has closed it: the guest has ended or moved, or somebody has taken the console.
    Closed,
    /// The way to it was lost; why.
    Lost(String),
}

/// Opens consoles.
#[async_trait]
pub trait Consoles: Send + Sync + 'static {
    /// The serial console of a guest that is active at that place; soon, or an error.
    async fn open(&self, at: &Place, id: VmId, hold: Hold) -> Result<Console, ConsoleError>;
}

impl ConsoleError {
    pub(super) fn unreachable(at: &Place, why: String) -> Self {
        let todo = match at {
            Place::Here => "is libvirtd running, and are you root?".to_owned(),
            Place::Peer(Peer { transport: Transport::Tcp, .. }) => {
                "libvirtd there must listen on the cluster network as for migrations: listen_tcp = 1 in libvirtd.conf, port 16509 (where it has TLS \
                 only, put libvirt's client certificate on this machine)"
                    .to_owned()
            }
            Place::Peer(Peer { transport: Transport::Tls, .. }) => {
                "libvirtd there must listen on the cluster network as for migrations: listen_tls = 1 in libvirtd.conf, port 16514, with a certificate \
                 for that name"
                    .to_owned()
            }
            Place::Peer(Peer { transport: Transport::Socket(_), .. }) => "is it running?".to_owned(),
        };
        Self::Unreachable { at: at.clone(), why, todo }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("this machine"),
            Self::Peer(peer) => peer.fmt(f),
        }
    }
}

/// An open console. Dropping it closes it.
pub struct Console(Arc<Pipe>);

impl Console {
    /// What it tells next. Nothing is lost when this future is dropped; after the end there is nothing but that.
    pub async fn next(&mut self) -> Heard {
        loop {
            let told = self.0.told.notified();
            if let Some(heard) = self.0.flow().take() {
                return heard;
            }
            told.await;
        }
    }

    /// Types this. `false`: the guest has not taken what was typed before, there is no room, and nothing was typed.
    #[must_use]
    pub fn write(&mut self, typed: &[u8]) -> bool {
        let mut flow = self.0.flow();
        if flow.typed.len() + typed.len() > MOST_TYPED {
            return false;
        }
        flow.typed.extend(typed);
        drop(flow);
        self.0.work.notify_one();
        true
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.0.flow().left = true;
        self.0.work.notify_one();
    }
}

/// A console's two ends.
pub(super) fn pair() -> (Console, GuestEnd) {
    let pipe = Arc::new(Pipe { flow: Mutex::default(), work: Condvar::new(), told: Notify::new() });
    (Console(Arc::clone(&pipe)), GuestEnd(pipe))
}

struct Pipe {
    flow: Mutex<Flow>,
    /// The thread at the guest's end has something to do.
    work: Condvar,
    /// The client has something to read.
    told: Notify,
}

#[derive(Default)]
struct Flow {
    printed: VecDeque<u8>,
    lost: u64,
    typed: VecDeque<u8>,
    end: Option<End>,
    /// The client is gone.
    left: bool,
    /// The guest's side may have something to say, or may take what it did not.
    stirred: bool,
}

impl Pipe {
    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    fn take(&mut self) -> Option<Heard> {
        if self.lost > 0 {
            return Some(Heard::Lost(std::mem::take(&mut self.lost)));
        }
        if !self.printed.is_empty() {
            return Some(Heard::Printed(std::mem::take(&mut self.printed).into()));
        }
        self.end.clone().map(Heard::Ended)
    }
}

/// What the thread at the guest's end is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Listen, and pass on what was typed.
    Work,
    /// Close: nobody listens any more.
    Left,
}

/// The guest's end. Blocks.
#[derive(Clone)]
pub(super) struct GuestEnd(Arc<Pipe>);

impl GuestEnd {
    /// Waits until something is to be done, or so long.
    pub(super) fn wait(&self, at_most: Duration) -> Turn {
        let idle = |flow: &mut Flow| !flow.left && !flow.stirred && flow.typed.is_empty();
        let waited = self.0.work.wait_timeout_while(self.0.flow(), at_most, idle);
        let (mut flow, _) = waited.unwrap_or_else(PoisonError::into_inner);
        flow.stirred = false;
        if flow.left { Turn::Left } else { Turn::Work }
    }

    /// Waits until the guest's side may take what it did not, or so long; what is typed meanwhile is no reason.
    pub(super) fn wait_for_guest(&self, at_most: Duration) -> Turn {
        let idle = |flow: &mut Flow| !flow.left && !flow.stirred;
        let waited = self.0.work.wait_timeout_while(self.0.flow(), at_most, idle);
        let (mut flow, _) = waited.unwrap_or_else(PoisonError::into_inner);
        flow.stirred = false;
        if flow.left { Turn::Left } else { Turn::Work }
    }

    /// Says that the guest's side may have something to say. Does not block, and keeps nothing alive: nobody knows when a library lets go of what it
    /// calls back.
    pub(super) fn stirrer(&self) -> impl Fn() + Send + Sync + 'static {
        let pipe = Arc::downgrade(&self.0);
        move || {
            if let Some(pipe) = pipe.upgrade() {
                pipe.flow().stirred = true;
                pipe.work.notify_one();
            }
        }
    }

    /// The guest has printed this. Never waits: of what nobody reads the oldest is lost.
    pub(super) fn print(&self, bytes: &[u8]) {
        let mut flow = self.0.flow();
        flow.printed.extend(bytes);
        let over = flow.printed.len().saturating_sub(MOST_PRINTED);
        if over > 0 {
            flow.printed.drain(..over);
            flow.lost += over as u64;
        }
        drop(flow);
        self.0.told.notify_one();
    }

    /// The next of what was typed, so many bytes at most; it stays until it is [`taken`](Self::taken).
    pub(super) fn typed(&self, at_most: usize) -> Vec<u8> {
        self.0.flow().typed.iter().take(at_most).copied().collect()
    }

    /// The guest has taken so many bytes of it.
    pub(super) fn taken(&self, bytes: usize) {
        let mut flow = self.0.flow();
        let bytes = bytes.min(flow.typed.len());
        flow.typed.drain(..bytes);
    }

    /// That is all.
    pub(super) fn end(&self, end: End) {
        self.0.flow().end.get_or_insert(end);
        self.0.told.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_what_nobody_reads_the_oldest_is_lost_and_that_is_told_first() {
        let (mut console, guest) = pair();
        for _ in 0..5 {
            guest.print(&vec![b'a'; MOST_PRINTED / 4]);
        }
        guest.print(b"end");
        guest.end(End::Closed);
        assert_eq!(console.next().await, Heard::Lost(MOST_PRINTED as u64 / 4 + 3));
        let Heard::Printed(printed) = console.next().await else { panic!("nothing was printed") };
        assert!(printed.len() == MOST_PRINTED && printed.ends_with(b"aend"));
        assert_eq!(console.next().await, Heard::Ended(End::Closed));
        assert_eq!(console.next().await, Heard::Ended(End::Closed), "and for ever");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_not_typed_and_who_leaves_is_noticed() {
        let (mut console, guest) = pair();
        let later = Duration::from_secs(10);
        assert!(console.write(&vec![b'x'; MOST_TYPED]));
        assert!(!console.write(b"y"), "the guest has taken nothing");
        assert_eq!((guest.wait(later), guest.typed(2).len()), (Turn::Work, 2));
        guest.taken(2);
        assert!(console.write(b"yy"));
        guest.taken(MOST_TYPED);
        assert_eq!(guest.typed(9), b"");
        drop(console);
        assert_eq!(guest.wait(later), Turn::Left);
    }
}
