//! `/pvc/explain/…` **(ours)**: why something is not (yet) as desired, as its daemon last said. Absent: nothing to explain.

mod networks;

use pvc_core::model::{Explanation, NodeName, Problem, Subject, VmId};

pub use self::networks::{NetworkTroubles, read_networks, write_networks};
use crate::{CommitError, Store, StoreError};

/// The parent of the parents.
pub(super) const ROOT: &str = "/pvc/explain";

/// The parent of those about VMs.
pub const VMS: &str = "/pvc/explain/vm";
/// The parent of those about nodes.
pub const NODES: &str = "/pvc/explain/node";
/// The parent of what nodes say of the client networks.
pub const NETWORKS: &str = "/pvc/explain/network";
/// Why nobody, or not the desired node, is primary.
pub const PRIMARY: &str = "/pvc/explain/primary";

/// What is said about a VM.
pub fn vm_path(id: VmId) -> String {
    format!("{VMS}/{id}")
}

/// What is said about a node.
pub fn node_path(name: &NodeName) -> String {
    format!("{NODES}/{name}")
}

/// What a node says of the client networks.
pub fn networks_path(name: &NodeName) -> String {
    format!("{NETWORKS}/{name}")
}

/// Where it is; a node has one key, which its own daemon and whoever fences it write.
fn path(subject: &Subject) -> Option<String> {
    match subject {
        Subject::Vm(id) => Some(vm_path(*id)),
        Subject::Node(name) | Subject::Fence(name) => Some(node_path(name)),
        Subject::Primary => Some(PRIMARY.to_owned()),
        Subject::Keepalive(_) | Subject::Network(_) | Subject::Task(_) | Subject::Cluster => None,
    }
}

/// Publishes why a subject is not as desired, or that there is nothing to explain.
///
/// # Errors
/// As every write.
pub async fn write(
    store: &dyn Store,
    subject: &Subject,
    explanation: Option<&Explanation>,
) -> Result<(), CommitError> {
    let Some(path) = path(subject) else { return Ok(()) };
    let Some(explanation) = explanation else {
        return crate::put::remove_if_present(store, &path).await;
    };
    // A struct of text and numbers always has a JSON form.
    crate::put::put(store, &path, serde_json::to_vec(explanation).unwrap_or_default()).await
}

/// Reads what is said about a subject: `Ok(None)` if there is nothing to explain.
///
/// # Errors
/// As every read.
pub async fn read(
    store: &dyn Store,
    subject: &Subject,
) -> Result<Option<Result<Explanation, Problem>>, StoreError> {
    let Some(key) = path(subject) else { return Ok(None) };
    Ok(store.get(&key).await?.map(|value| {
        serde_json::from_slice(&value.data)
            .map_err(|e| Problem { key, what: format!("not an explanation: {e}") })
    }))
}
