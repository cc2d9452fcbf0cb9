//! The servers of the DNS database, of which one takes writes: Patroni, as it runs on coordinators.
//!
//! Never decides which of them should lead; see `pvc_core::plan::database_leader`.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod patroni;

use std::{io, time::Duration};

use async_trait::async_trait;
use pvc_core::plan::database_leader::Servers;

pub use patroni::{PORT, Patroni};

/// The deadline of a question.
pub const ASK_WITHIN: Duration = Duration::from_secs(3);

/// The deadline of a change of the leader: Patroni answers when it is done, or when it has given up.
pub const MOVE_WITHIN: Duration = Duration::from_secs(45);

/// Why nothing is known, or it is not known whether the leader has changed.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseClusterError {
    /// Nobody listens where it is looked for.
    #[error("Patroni does not run here: nobody listens at {0}")]
    Absent(String),
    /// It could not be asked, or its answer was lost.
    #[error("Patroni at {at} could not {doing}")]
    Failed {
        /// Where.
        at: String,
        /// What was asked of it.
        doing: &'static str,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// It took longer than it may.
    #[error("Patroni at {at} did not {doing} within {} s", within.as_secs())]
    Late {
        /// Where.
        at: String,
        /// What was asked of it.
        doing: &'static str,
        /// The deadline.
        within: Duration,
    },
    /// It said what nobody understands, or more than anybody reads.
    #[error("Patroni at {at} has not said what it is asked: {why}")]
    Rubbish {
        /// Where.
        at: String,
        /// What is wrong with it.
        why: String,
    },
    /// It said no, and has done nothing.
    #[error("Patroni at {at} refused to {doing}: {why}")]
    Refused {
        /// Where.
        at: String,
        /// What was asked of it.
        doing: &'static str,
        /// Its reason, on one line.
        why: String,
    },
}

/// The database's servers.
#[async_trait]
pub trait DatabaseCluster: Send + Sync + 'static {
    /// All of them.
    async fn servers(&self) -> Result<Servers, DatabaseClusterError>;

    /// Has `candidate` lead in the place of `leader`. Refused if that does not lead any more; what fails otherwise may have been done.
    async fn lead(&self, leader: &str, candidate: &str) -> Result<(), DatabaseClusterError>;
}
