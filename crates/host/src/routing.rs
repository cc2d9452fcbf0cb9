//! This machine's routing daemon, as far as overlays ask for one: FRR, a service of the machine that outlives this program.
//!
//! Never decides what it is told (see `pvc_core::plan::routing`).

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod frr;

use std::{io, time::Duration};

use async_trait::async_trait;
use pvc_core::plan::routing::{Bfd, File, Routing, Speaking};

pub use frr::Frr;

use crate::run::RunError;

/// The deadline of a question: it answers within some ten milliseconds.
pub const ASK_WITHIN: Duration = Duration::from_secs(5);

/// The deadline of telling it something: what differs is found out by a script that takes half a second.
pub const TELL_WITHIN: Duration = Duration::from_secs(30);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// Its file could not be read or written.
    #[error("could not {doing}")]
    File {
        /// What was attempted.
        doing: &'static str,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// A program of it did not come to its end. What it did until then is unknown.
    #[error("could not {doing}")]
    Run {
        /// What was attempted.
        doing: &'static str,
        /// Why not.
        #[source]
        cause: RunError,
    },
    /// The configuration is an operator's.
    #[error("FRR's configuration is an operator's, and is not written over")]
    Foreign,
    /// It refused, or said what nobody understands.
    #[error("could not {doing}: {why}")]
    Refused {
        /// What was attempted.
        doing: &'static str,
        /// Its reason.
        why: String,
    },
}

/// A routing daemon.
#[async_trait]
pub trait RoutingDaemon: Send + Sync + 'static {
    /// The file that it reads when it starts; `None`: it is not installed.
    async fn file(&self) -> Result<Option<File>, RoutingError>;

    /// What it is doing.
    async fn speaking(&self) -> Result<Speaking, RoutingError>;

    /// What its BFD does.
    async fn bfd(&self) -> Result<Bfd, RoutingError>;

    /// Puts a configuration into its file, unless an operator has written that, and tells it what differs, if it runs.
    async fn load(&self, routing: &Routing) -> Result<(), RoutingError>;
}
