//! Shuts a dead node out of the storage, before anything it had open is opened elsewhere: its Ceph clients are blocklisted, then
//! its locks on the images are broken. Breaking a lock without the blocklist leaves a writer alive.

use async_trait::async_trait;
use pvc_core::model::NodeName;

/// Why a node is not shut out.
#[derive(Debug, thiserror::Error)]
#[error("could not shut {node} out of the storage: {why}")]
pub struct StorageFenceError {
    /// The node.
    pub node: NodeName,
    /// Why not.
    pub why: String,
}

/// The storage's side of a fence. Idempotent: what is shut out already is success.
#[async_trait]
pub trait StorageFence: Send + Sync + 'static {
    /// Whether this node can do it at all; without, VMs with RBD images are not recovered by it.
    fn is_available(&self) -> bool;

    /// Shuts a node out, and frees these images (`pool/image`). When it returns, nothing that the node still sends is written.
    async fn shut_out(&self, node: &NodeName, images: &[String]) -> Result<(), StorageFenceError>;
}

/// A node without Ceph: it can shut nobody out.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoStorage;

#[async_trait]
impl StorageFence for NoStorage {
    fn is_available(&self) -> bool {
        false
    }

    async fn shut_out(&self, node: &NodeName, _images: &[String]) -> Result<(), StorageFenceError> {
        Err(StorageFenceError { node: node.clone(), why: "this node has no Ceph".to_owned() })
    }
}
