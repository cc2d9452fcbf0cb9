//! How far a node's flush or unflush has come: published at `/pvc/flush/<node>` for clients that wait for it.

use serde::{Deserialize, Serialize};

/// A VM that does not go, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// Its UUID.
    pub vm: String,
    /// Why, in words for an operator.
    pub reason: String,
}

/// The progress of a flush or an unflush. Published while it goes on, and left with `left` = 0 at its end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FlushProgress {
    /// VMs that had to move when it began.
    pub total: u32,
    /// VMs that have not arrived.
    pub left: u32,
    /// Of these, VMs that move now.
    pub moving: u32,
    /// VMs that could not go as desired, and what was done instead.
    pub stuck: Vec<Stuck>,
    /// The node's wall clock at the last change, seconds since 1970: for people.
    pub at_unix_s: u64,
}
