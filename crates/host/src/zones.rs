//! The DNS aggregator's database: zones and records as PowerDNS serves them.
//!
//! Never decides what is in them; see `pvc_core::plan::dns`. Beside ours it has records of administrators and of other programs, which are shown and never
//! touched.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod pdns;
mod postgres;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use pvc_core::model::dns::{SeenZone, ZoneChange};

pub use postgres::{Address, Postgres};

/// The deadline of one look or one change, a new connection included.
pub const WITHIN: Duration = Duration::from_secs(10);

/// Why nothing was done, or it is not known whether it was.
#[derive(Debug, thiserror::Error)]
pub enum ZonesError {
    /// The database did not answer, or said no. A change may have been made if its answer was lost.
    #[error("the DNS database could not {doing}")]
    Failed {
        /// What was asked of it.
        doing: &'static str,
        /// Why not.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took longer than [`WITHIN`].
    #[error("the DNS database did not {doing} within {} s", WITHIN.as_secs())]
    Late {
        /// What was asked of it.
        doing: &'static str,
    },
    /// The zone is another one than the change was decided from. Nothing was done.
    #[error("the zone {0} has changed meanwhile")]
    Conflict(String),
}

/// The database.
#[async_trait]
pub trait ZoneDatabase: Send + Sync + 'static {
    /// Logs on, and changes nothing.
    async fn answers(&self) -> Result<(), ZonesError>;

    /// All zones. Makes the database's tables if they are missing.
    async fn observe(&self) -> Result<BTreeMap<String, SeenZone>, ZonesError>;

    /// Makes a change as a whole, or not at all.
    async fn apply(&self, change: &ZoneChange) -> Result<(), ZonesError>;
}
