//! `/pvc/placement` **(ours)**: moved by every transaction that gives a VM a node for its free memory, with the version that
//! was seen when the memory was counted. So of two placements that count the same memory one conflicts, and looks again.

use pvc_core::model::VmChange;

use super::vm;
use crate::{CommitError, Committed, Store, Transaction};

/// The key; its content says which VM was placed last, for people.
pub const PLACEMENT: &str = "/pvc/placement";

/// The part of a transaction that makes it a placement. `seen` is the view's `placement_version`.
pub fn bump(seen: Option<i32>, what: &str) -> Transaction {
    let mut txn = Transaction::default();
    match seen {
        Some(version) => txn.set(PLACEMENT, what, Some(version)),
        None => txn.create(PLACEMENT, what),
    }
    txn
}

/// Does a change of a VM that counts on memory free in the view that had this `placement_version`. A conflict means that the VM
/// has changed or another placement was faster: look again.
pub async fn apply_placed(
    store: &dyn Store,
    change: &VmChange,
    seen: Option<i32>,
) -> Result<Committed, CommitError> {
    vm::apply_with(store, change, bump(seen, &change.id().to_string())).await
}
