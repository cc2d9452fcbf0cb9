//! The machine's service units: ZooKeeper, libvirtd, the API and whatever else this program starts but does not replace.
//!
//! Never decides which; see `pvcd`'s start-up and the primary's services. A unit that is not installed is an answer, no error.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod systemd;

use std::time::Duration;

use async_trait::async_trait;

pub use systemd::Systemd;

/// The deadline of a question.
pub const ASK_WITHIN: Duration = Duration::from_secs(2);

/// The deadline of a start or stop: systemd's own is 90 s, which is longer than anybody here waits.
pub const CHANGE_WITHIN: Duration = Duration::from_secs(30);

/// What a unit is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitState {
    /// It is not installed, or an operator has masked it.
    Absent,
    /// It does not run.
    Inactive,
    /// It ended with a failure.
    Failed,
    /// On its way up or down.
    Changing,
    /// It runs.
    Active,
}

/// Why nothing was done or known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServicesError {
    /// There is no service manager, or it does not answer.
    #[error("systemd cannot be asked: {0}")]
    Unavailable(String),
    /// It refused.
    #[error("systemd could not {doing}: {why}")]
    Refused {
        /// What was asked of it.
        doing: String,
        /// Its reason.
        why: String,
    },
    /// It took longer than the deadline, and may still do it.
    #[error("systemd did not {doing} within {after:?}")]
    Deadline {
        /// What was asked of it.
        doing: String,
        /// The deadline.
        after: Duration,
    },
}

/// A service manager.
#[async_trait]
pub trait Services: Send + Sync + 'static {
    /// What the unit is doing.
    async fn state(&self, unit: &str) -> Result<UnitState, ServicesError>;

    /// Starts it and waits until it runs. Running already is success.
    async fn start(&self, unit: &str) -> Result<(), ServicesError>;

    /// Stops it and waits until it does not run. Not running, or not installed, is success.
    async fn stop(&self, unit: &str) -> Result<(), ServicesError>;
}
