//! Who has changed what over the API.

use serde::{Deserialize, Serialize};

/// A change, or an attempt at one that may have changed something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Counts up from 1; 0: has none yet.
    pub id: u64,
    /// When it was answered, in seconds since 1970.
    pub at_unix_s: u64,
    /// The description of the token.
    pub by: String,
    /// The address and port that asked.
    pub from: String,
    /// Method and path, without values.
    pub what: String,
    /// The status of the answer; absent: it broke off, and may be done, in part or whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The words of the answer.
    pub said: String,
}
