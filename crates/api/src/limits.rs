//! What a request may cost.

use std::time::Duration;

pub use crate::shares::Share;

/// What a request may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// So many connections at once.
    pub connections: usize,
    /// Reads that are answered at once, from the making of an answer until its last byte is taken.
    pub reads: Share,
    /// Changes that are made at once, from before their bodies are read.
    pub changes: Share,
    /// Listeners to events at once.
    pub listeners: Share,
    /// Consoles and screens of guests at once: a console has a thread.
    pub consoles: Share,
    /// How long one may wait for a place.
    pub place_within: Duration,
    /// So many wrong tokens are taken from one address in a minute.
    pub wrong_tokens: u32,
    /// How long an asker may take to say what it wants, and a connection be idle.
    pub head_within: Duration,
    /// How long a body may take.
    pub body_within: Duration,
    /// The largest body, bytes: a definition in a form, where a byte may take three.
    pub body_bytes: usize,
    /// How long an answer may take to be made.
    pub answer_within: Duration,
    /// How long an asker may take nothing of it, and all of a small one …
    pub taken_within: Duration,
    /// … and of a large one, a second longer for each so many bytes.
    pub taken_bytes_a_second: u64,
}

impl Limits {
    /// How long an answer of so many bytes may be on its way.
    pub(crate) fn taken_within(&self, bytes: u64) -> Duration {
        self.taken_within + Duration::from_secs(bytes / self.taken_bytes_a_second)
    }
}

/// All who hold or await a place are fewer than there are connections: somebody new is always let in.
impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1536,
            // Each has a list of all VMs in memory, 12 MB while one of 8 MB is made: the unit gives 256.
            reads: Share { all: 14, token: 6, address: 4, waiting: 512 },
            changes: Share { all: 48, token: 24, address: 12, waiting: 128 },
            listeners: Share { all: 768, token: 512, address: 512, waiting: 0 },
            // The unit gives 64 threads.
            consoles: Share { all: 24, token: 12, address: 8, waiting: 0 },
            place_within: Duration::from_secs(15),
            wrong_tokens: 20,
            head_within: Duration::from_secs(15),
            body_within: Duration::from_secs(15),
            body_bytes: 4 * 1024 * 1024,
            answer_within: Duration::from_mins(1),
            taken_within: Duration::from_secs(30),
            taken_bytes_a_second: 64 * 1024,
        }
    }
}

/// The largest body of one request, bytes, where it is less than others'.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MostBytes(pub(crate) usize);

impl MostBytes {
    /// Of who has no token yet, and says no more than one.
    pub(crate) const OF_STRANGERS: Self = Self(4 * 1024);
    /// Of who only reads.
    pub(crate) const OF_READS: Self = Self(4 * 1024);
    /// Where no definition is taken.
    pub(crate) const OF_VALUES: Self = Self(64 * 1024);
}
