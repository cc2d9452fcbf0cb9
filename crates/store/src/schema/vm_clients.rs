//! `/pvc/vm_clients/<uuid>@<node>` **(ours)**: the Ceph clients by which a VM writes on a node.
//!
//! Written by that node after the VM's start, removed once they are known to be gone or shut out. Keys of a VM that is deleted stay
//! until then: its clients may live on.

use pvc_core::model::{
    NodeName, Problem, VmId,
    ceph::{Recorded, VmClients},
};

use super::text::Decoder;
use crate::{CommitError, Store, StoreError, Transaction};

/// The parent of all records.
pub const ROOT: &str = "/pvc/vm_clients";

/// The key of a VM on a node.
pub fn path(vm: VmId, node: &NodeName) -> String {
    format!("{ROOT}/{vm}@{node}")
}

/// The VM and the node of a key, if it is one of these.
pub fn whose(path: &str) -> Option<(VmId, NodeName)> {
    let (vm, node) = path.strip_prefix(ROOT)?.strip_prefix('/')?.split_once('@')?;
    Some((vm.parse().ok()?, node.parse().ok()?))
}

/// Records what one VM has open on a node, in place of what was read before, and only if `also` holds.
///
/// # Errors
/// [`CommitError::Conflict`] names [`path`] if the record has changed since.
pub async fn record(
    store: &dyn Store,
    vm: VmId,
    node: &NodeName,
    (clients, before): (&VmClients, Option<&Recorded>),
    also: &Transaction,
) -> Result<(), CommitError> {
    // Lists of text always have a JSON form.
    let (path, data) = (path(vm, node), serde_json::to_vec(clients).unwrap_or_default());
    let mut txn = also.clone();
    match before {
        Some(before) => txn.set(path, data, Some(before.version)),
        None => txn.create(path, data),
    }
    store.commit(txn).await.map(drop)
}

/// Removes a record, unless it has changed. Absent already is success.
pub async fn remove(store: &dyn Store, record: &Recorded) -> Result<(), CommitError> {
    let mut txn = Transaction::default();
    txn.delete(path(record.vm, &record.node), Some(record.version));
    match store.commit(txn).await {
        // Changed, or removed by somebody else: it is looked at again.
        Err(CommitError::Conflict { .. }) => Ok(()),
        done => done.map(drop),
    }
}

/// All records, and what is wrong with those that cannot be read.
pub async fn read_all(store: &dyn Store) -> Result<(Vec<Recorded>, Vec<Problem>), StoreError> {
    read(store, |_| true).await
}

/// As [`read_all`], of one VM.
pub async fn read_vm(store: &dyn Store, vm: VmId) -> Result<(Vec<Recorded>, Vec<Problem>), StoreError> {
    let prefix = format!("{vm}@");
    read(store, |name| name.starts_with(&prefix)).await
}

/// As [`read_all`], of what is, or was, on one node.
pub async fn read_node(
    store: &dyn Store,
    node: &NodeName,
) -> Result<(Vec<Recorded>, Vec<Problem>), StoreError> {
    let suffix = format!("@{node}");
    read(store, |name| name.ends_with(&suffix)).await
}

async fn read(
    store: &dyn Store,
    wanted: impl Fn(&str) -> bool,
) -> Result<(Vec<Recorded>, Vec<Problem>), StoreError> {
    let names: Vec<String> =
        store.children(ROOT).await?.unwrap_or_default().into_iter().filter(|name| wanted(name)).collect();
    let paths: Vec<String> = names.iter().map(|name| format!("{ROOT}/{name}")).collect();
    let values = store.get_many(&paths).await?;
    let (mut records, mut d) = (Vec::new(), Decoder::default());
    for (path, value) in paths.iter().zip(values) {
        let Some(value) = value else { continue };
        match (whose(path), serde_json::from_slice(&value.data)) {
            (Some((vm, node)), Ok(clients)) => {
                records.push(Recorded { vm, node, clients, version: value.version });
            }
            (None, _) => d.problem(path, "no VM and node"),
            (_, Err(error)) => d.problem(path, format_args!("not the expected JSON: {error}")),
        }
    }
    Ok((records, d.problems))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryTree;

    #[tokio::test]
    async fn records_are_read_back_removed_as_they_were_read_and_broken_ones_are_told() {
        let store = MemoryTree::new().client();
        crate::schema::root::init(&*store).await.unwrap();
        let vm = |n: u8| -> VmId { format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap() };
        let node: NodeName = "a".parse().unwrap();
        let clients = VmClients {
            clients: ["10.0.0.1:0/7".parse().unwrap()].into(),
            images: ["vms/one".parse().unwrap()].into(),
            boot: None,
        };
        let record = async |vm, before| {
            record(&*store, vm, &node, (&clients, before), &Transaction::default()).await.unwrap();
        };
        record(vm(1), None).await;
        record(vm(2), None).await;
        let mut broken = Transaction::default();
        broken.create(format!("{ROOT}/{}@b", vm(2)), r#"{"clients":["10.0.0.1:0/0"],"images":[]}"#);
        broken.create(format!("{ROOT}/nonsense"), "");
        store.commit(broken).await.unwrap();

        let (records, problems) = read_vm(&*store, vm(1)).await.unwrap();
        assert!(problems.is_empty());
        assert_eq!(
            records,
            [Recorded { vm: vm(1), node: node.clone(), clients: clients.clone(), version: 0 }]
        );
        let (_, problems) = read_vm(&*store, vm(2)).await.unwrap();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let (all, problems) = read_all(&*store).await.unwrap();
        assert_eq!((all.len(), problems.len()), (2, 2));

        record(vm(1), records.first()).await;
        remove(&*store, &records[0]).await.unwrap();
        let (changed, _) = read_vm(&*store, vm(1)).await.unwrap();
        assert_eq!(changed.len(), 1, "it has changed since it was read");
        remove(&*store, &changed[0]).await.unwrap();
        assert!(read_vm(&*store, vm(1)).await.unwrap().0.is_empty());
    }
}
