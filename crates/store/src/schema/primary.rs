//! Who is primary coordinator: `/pvc/primary` **(ours)** says who holds the addresses, `/primary_node` who shall (and, to old
//! clients, who does).
//!
//! `/pvc/primary` is ephemeral, and so is a guard of the holder's name beside it, `/pvc/primary_held/<node>`: both appear
//! and vanish together, so a release can be checked to remove this node's own tenure and never that of a successor who
//! took over when a session had ended unnoticed.

use pvc_core::model::{Explanation, Field, Node, NodeName, Problem, RouterState, Subject};

use super::node;
use crate::{Check, CreateMode, Op, Store, StoreError, Transaction, Value};

/// The desired state and fact of who is primary coordinator.
pub const PRIMARY_NODE: &str = "/primary_node";
/// Who holds the floating addresses and what goes with them; absent: nobody.
pub const HOLDER: &str = "/pvc/primary";
/// The parent of the holder's guard.
pub const HELD: &str = "/pvc/primary_held";

fn guard(me: &NodeName) -> String {
    format!("{HELD}/{me}")
}

/// Who holds it. A key that says nothing understood is held by nobody known, and still cannot be taken.
pub fn decode_holder(value: Option<&Value>) -> Option<NodeName> {
    std::str::from_utf8(&value?.data).ok()?.trim().parse().ok()
}

/// Takes the key with this session; conflicts if somebody holds it. With `again`, which is for a holder that was this node in
/// an earlier life of its daemon, replaces that tenure, and conflicts if it is not this node's.
pub fn take(me: &NodeName, again: bool) -> Transaction {
    let mut txn = Transaction::default();
    if again {
        txn.delete(guard(me), None);
        txn.delete(HOLDER, None);
    }
    for path in [HOLDER.to_owned(), guard(me)] {
        txn.ops.push(Op::Create { path, data: me.as_str().into(), mode: CreateMode::Ephemeral });
    }
    // Only a set tells its transaction, which says whether a desired state came before or after.
    txn.set(HOLDER, me.as_str(), None);
    txn
}

/// The transaction conflicts unless that node is primary.
pub(super) fn check(txn: &mut Transaction, holder: &NodeName) {
    txn.check(guard(holder), Check::Exists);
}

/// Ends a node's tenure and says `routerstate` = `secondary`: this node's own, or that of a node that is proven dead. Conflicts
/// if that node does not hold it (any more).
pub fn release(holder: &NodeName) -> Transaction {
    let mut txn = Transaction::default();
    txn.delete(guard(holder), None);
    txn.delete(HOLDER, None);
    txn.ops.extend(node::set_router_state(holder, RouterState::Secondary).ops);
    txn
}

/// Ends the tenure of a node that is proven dead. Conflicts, too, if its `daemonstate` has been written since it was read: it has
/// come back, and what it holds now is another life's.
pub fn discharge(dead: &Node) -> Transaction {
    let mut txn = Transaction::default();
    let seen = dead.daemon_state.version.map_or(Check::Exists, Check::Version);
    txn.check(format!("{}/daemonstate", node::path(&dead.name)), seen);
    txn.ops.extend(release(&dead.name).ops);
    txn
}

/// Writes who shall be primary; `None` = `none`. Conflicts if somebody asked for otherwise since `seen`.
pub fn desired(seen: &Field<Option<NodeName>>, node: Option<&NodeName>) -> Transaction {
    let data = node.map_or("none", NodeName::as_str);
    let mut txn = Transaction::default();
    match seen.version {
        Some(version) => txn.set(PRIMARY_NODE, data, Some(version)),
        None => txn.create(PRIMARY_NODE, data),
    }
    txn
}

/// Reads what is the matter with the primary: `Ok(None)` if nothing is.
pub async fn read_explanation(store: &dyn Store) -> Result<Option<Result<Explanation, Problem>>, StoreError> {
    super::explain::read(store, &Subject::Primary).await
}
