//! `/domains/<uuid>/arrival` **(ours)**: whether the node that a VM is to migrate to could start it, as its daemon has found out. Read on demand, by
//! the VM's source, before it ends the guest for the move.
//!
//! `/domains/<uuid>/refused_by` **(ours)**: the nodes that could not start it under its present desired state, separated by spaces. Written together with
//! `state`; so a list that is older than `state` is about an earlier desired state.

use pvc_core::model::{NodeName, Vm, VmId};
use serde::{Deserialize, Serialize};

use super::path;
use crate::{CommitError, Store, StoreError, Transaction};

/// What the target says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Who says it.
    pub by: String,
    /// The desired state that it is about: the version of the VM's `state`.
    pub desired: i32,
    /// Why the VM could not be started there; `None`: it could.
    pub cannot: Option<String>,
}

/// The key.
pub fn arrival_path(id: VmId) -> String {
    format!("{}/arrival", path(id))
}

/// The key of the nodes that have refused it.
pub fn refused_by_path(id: VmId) -> String {
    format!("{}/refused_by", path(id))
}

/// Says whether a VM could be started.
pub async fn say_arrival(store: &dyn Store, id: VmId, arrival: &Arrival) -> Result<(), CommitError> {
    // A struct of text and numbers always has a JSON form.
    crate::put::put(store, &arrival_path(id), serde_json::to_vec(arrival).unwrap_or_default()).await
}

/// What that node has said about a VM's present desired state; `None`: nothing, or nothing that can be read.
pub async fn read_arrival(
    store: &dyn Store,
    vm: &Vm,
    by: &NodeName,
) -> Result<Option<Result<(), String>>, StoreError> {
    let value = store.get(&arrival_path(vm.id)).await?;
    let said = value.and_then(|value| serde_json::from_slice::<Arrival>(&value.data).ok());
    let said = said.filter(|said| said.by == by.as_str() && Some(said.desired) == vm.state.version);
    Ok(said.map(|said| said.cannot.map_or(Ok(()), Err)))
}

/// The nodes that could not start a VM under its present desired state.
pub async fn read_refused_by(store: &dyn Store, vm: &Vm) -> Result<Vec<NodeName>, StoreError> {
    let value = store.get(&refused_by_path(vm.id)).await?.filter(|value| value.mzxid >= vm.state.zxid);
    let text = value.map(|value| String::from_utf8_lossy(&value.data).into_owned()).unwrap_or_default();
    Ok(text.split_ascii_whitespace().filter_map(|name| name.parse().ok()).collect())
}

/// Part of the transaction that gives a VM away, which writes `state`.
pub fn refused_by<'a>(id: VmId, nodes: impl IntoIterator<Item = &'a NodeName>) -> Transaction {
    let mut txn = Transaction::default();
    let names: Vec<&str> = nodes.into_iter().map(NodeName::as_str).collect();
    txn.set(refused_by_path(id), names.join(" "), None);
    txn
}
