//! What a request may cost.

use std::time::Duration;

/// What a request may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// So many connections at once.
    pub connections: usize,
    /// So many reads are answered at once; others wait.
    pub reads: usize,
    /// So many may listen to events at once.
    pub listeners: usize,
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
    /// How long an asker may take nothing of it.
    pub taken_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            reads: 32,
            listeners: 768,
            wrong_tokens: 20,
            head_within: Duration::from_secs(15),
            body_within: Duration::from_secs(15),
            body_bytes: 4 * 1024 * 1024,
            answer_within: Duration::from_mins(1),
            taken_within: Duration::from_secs(30),
        }
    }
}

/// The largest body of one request, bytes, where it is less than others'.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MostBytes(pub(crate) usize);

impl MostBytes {
    /// Of who has no token yet, and says no more than one.
    pub(crate) const OF_STRANGERS: Self = Self(4 * 1024);
    /// Where no definition is taken.
    pub(crate) const OF_VALUES: Self = Self(64 * 1024);
}
