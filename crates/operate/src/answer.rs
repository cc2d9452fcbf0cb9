//! What came of a command, in words and for programs.

use serde::{Deserialize, Serialize};

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Answer {
    /// One sentence: `VM web1 runs on hv1`.
    pub message: String,
    /// What to know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Answer {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), notes: Vec::new() }
    }
}
