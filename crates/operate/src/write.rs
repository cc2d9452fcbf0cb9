//! Writes that are decided anew when somebody else was faster.

use pvc_store::CommitError;

use crate::Failure;

/// How often a change of one object is decided: whoever changes it at the same time does so once or twice.
pub(crate) const ATTEMPTS: u32 = 5;

/// How often a target is chosen: other placements count, too, and they come in bursts.
pub(crate) const PLACEMENTS: u32 = 20;

/// How often something has been decided. No closure, so that the futures of commands can be sent to other threads.
pub(crate) struct Tries {
    left: u32,
}

impl Tries {
    pub(crate) fn of(attempts: u32) -> Self {
        Self { left: attempts }
    }

    /// Whether it was written; if not, it is to be decided anew.
    pub(crate) fn wrote<T>(&mut self, outcome: Result<T, CommitError>) -> Result<bool, Failure> {
        self.left = self.left.saturating_sub(1);
        match outcome {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict { .. }) if self.left > 0 => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
