//! The end of a node's keys.

use pvc_core::model::Node;

use super::{expect_silence, path};
use crate::{
    CommitError, Store, Transaction, put,
    schema::{bmc, explain, flush, machine, owner, placement},
};

/// Removes everything that the tree has of a node, all or nothing. Conflicts if the node has said anything since it was `seen`, if its daemon has
/// a session, or if a VM was placed meanwhile.
pub async fn remove(store: &dyn Store, seen: &Node, placed: Option<i32>) -> Result<(), CommitError> {
    let name = &seen.name;
    let mut txn = Transaction::default();
    // ZooKeeper has no check for absence; a key that can be created was absent.
    txn.create(owner::path(name), "");
    txn.delete(owner::path(name), None);
    txn.ops.extend(expect_silence(seen).ops);
    txn.ops.extend(placement::bump(placed, &format!("without {name}")).ops);
    let roots = [
        path(name),
        machine::path(name),
        bmc::path(name),
        flush::path(name),
        explain::node_path(name),
        explain::networks_path(name),
    ];
    for root in roots {
        let found = put::subtree(store, &root).await.map_err(CommitError::Failed)?;
        for key in found.into_iter().flat_map(|found| found.leaves_first) {
            txn.delete(key, None);
        }
    }
    store.commit(txn).await.map(drop)
}
