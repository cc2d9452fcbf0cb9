//! `/pvc/flush/<node>` **(ours)**: how far a node's flush or unflush has come.

use pvc_core::model::{FlushProgress, NodeName, Problem};

use crate::{CommitError, Store, StoreError};

/// The parent of all nodes' progress.
pub const ROOT: &str = "/pvc/flush";

/// The key of a node.
pub fn path(node: &NodeName) -> String {
    format!("{ROOT}/{node}")
}

/// Publishes the progress.
pub async fn publish(
    store: &dyn Store,
    node: &NodeName,
    progress: &FlushProgress,
) -> Result<(), CommitError> {
    // A struct of text and numbers always has a JSON form.
    crate::put::put(store, &path(node), serde_json::to_vec(progress).unwrap_or_default()).await
}

/// Withdraws what was published; nothing published is success.
pub async fn withdraw(store: &dyn Store, node: &NodeName) -> Result<(), CommitError> {
    crate::put::remove_if_present(store, &path(node)).await
}

/// What was published last.
pub async fn read(
    store: &dyn Store,
    node: &NodeName,
) -> Result<Option<Result<FlushProgress, Problem>>, StoreError> {
    let key = path(node);
    Ok(store.get(&key).await?.map(|value| {
        serde_json::from_slice(&value.data).map_err(|e| Problem { key, what: format!("not a progress: {e}") })
    }))
}
