//! Why a subject is not (yet) as desired, in words for an operator: what `explain` shows.

use serde::{Deserialize, Serialize};

/// The last word of a reconciler about a subject that is not settled. Published at `/pvc/explain/vm/<uuid>` as JSON when it
/// changes, removed when the subject is settled: nothing published means nothing to explain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The node whose daemon says this.
    pub by: String,
    /// When it was said: that node's wall clock, seconds since 1970.
    pub at_unix_s: u64,
    /// What it is doing or waiting for, e.g. `waiting for the guest to shut down`.
    pub doing: String,
    /// Why, e.g. `desired is shutdown; asked 2 times; power off in 61 s`.
    pub because: String,
    /// The last error, if the last attempt failed.
    pub error: Option<String>,
}
