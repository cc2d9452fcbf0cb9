//! The devices of client networks on this machine, and the entries of their tunnels.
//!
//! Never decides anything (see `pvc_core::plan::client_network`). Ours are told from others by their group, which a device has from its
//! first moment.

use async_trait::async_trait;
use pvc_core::model::bridging::{Bridging, BridgingChange};
use tokio::sync::watch;

use super::LinksError;

/// The devices of client networks.
#[async_trait]
pub trait Bridges: Send + Sync + 'static {
    /// All devices and all tunnels' entries.
    async fn observe(&self) -> Result<Bridging, LinksError>;

    /// Makes the changes one after another, as far as each succeeds; answers for each. What is so already is success.
    async fn apply(&self, changes: &[BridgingChange]) -> Vec<Result<(), LinksError>>;

    /// Signalled whenever devices or tunnels' entries change, by whomever. Says only: look again.
    fn changes(&self) -> watch::Receiver<()>;
}
