//! Whether what was asked for is still to be done: the cluster goes on while Ceph does not answer. Whoever was overtaken would shut out
//! the clients of VMs that run elsewhere by then, or change an image that is another one by then.

use async_trait::async_trait;
use pvc_core::model::ceph::ClientAddress;

/// Why a warrant does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Void {
    /// What was asked for was decided from something that is not so any more.
    #[error("{0} has changed since it was decided")]
    Overtaken(String),
    /// Whether it is still so could not be found out.
    #[error("it is not known whether that is still to be done: {0}")]
    Unknown(String),
}

/// See the module's documentation.
#[async_trait]
pub trait Warrant: Send + Sync {
    /// Whether it holds at this moment, by whoever decides about it and not by what is known here.
    async fn holds(&self) -> Result<(), Void>;

    /// The same, for what this client of Ceph does next. Whoever may be asked to do it after us learns of the client in the same moment, so that it can be
    /// shut out: it may freeze right after this.
    async fn holds_for(&self, _client: &ClientAddress) -> Result<(), Void> {
        self.holds().await
    }
}
