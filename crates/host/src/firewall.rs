//! This machine's packet filter, as far as it is ours: the tables `inet pvc` and `bridge pvc`.
//!
//! Never decides what stands in them (see `pvc_core::plan::firewall`), and never touches another table.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod files;
mod listen;
mod listing;
mod mark;
mod nft;

use std::{collections::BTreeMap, io, time::Duration};

use async_trait::async_trait;
use pvc_core::{model::rule::Body, plan::firewall::Ruleset};
use tokio::sync::watch;

pub use self::{
    files::{OwnFile, STATIC},
    listing::{Count, Listing},
    mark::Mark,
    nft::Nft,
};
use crate::run::RunError;

/// The deadline of each transaction and listing: a hundred networks with twenty rules each take 0.1 s.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// `nft` did not come to its end. What it did until then is unknown.
    #[error("could not {doing}")]
    Run {
        /// What was attempted.
        doing: &'static str,
        /// Why not.
        #[source]
        cause: RunError,
    },
    /// The kernel did not answer.
    #[error("could not {doing}")]
    Kernel {
        /// What was attempted.
        doing: &'static str,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// It refused. What stood before still stands.
    #[error("could not {doing}: {why}")]
    Refused {
        /// What was attempted.
        doing: &'static str,
        /// Its reason.
        why: String,
    },
}

/// A packet filter.
#[async_trait]
pub trait Firewall: Send + Sync + 'static {
    /// Puts a ruleset in place of whatever stands in our tables, at once.
    async fn load(&self, ruleset: &Ruleset) -> Result<(), FirewallError>;

    /// Makes one that stands into another, at once; what is the same in both is not touched. Fails if what stands is not `before`.
    async fn change(&self, before: &Ruleset, after: &Ruleset) -> Result<(), FirewallError>;

    /// Now. Costs a question to the kernel, however much stands: what is asked for with every look.
    async fn mark(&self) -> Result<Mark, FirewallError>;

    /// What stands; `None` if one of our tables is not there. Costs as much as there is.
    async fn listing(&self) -> Result<Option<Listing>, FirewallError>;

    /// Which of these bodies it would not take, and why. Touches nothing.
    async fn refused(&self, bodies: &[Body]) -> Result<BTreeMap<Body, String>, FirewallError>;

    /// The files of an operator's rules that there are now.
    fn own_files(&self) -> Vec<OwnFile>;

    /// Loads the text of one, at once or not at all.
    async fn import(&self, text: &str) -> Result<(), FirewallError>;

    /// Signalled whenever one of our tables changes, by whomever, or may have changed. Says only: look again.
    fn changes(&self) -> watch::Receiver<()>;
}
