//! Typed changes of a VM → transactions.

use pvc_core::model::{VmChange, VmId, VmKey, VmSet};

use super::{console_log_path, key_path, path, xml_path};
use crate::schema::explain;
use crate::{
    Check, Clash, CommitError, Committed, Op, Store, Transaction,
    put::{self, Subtree},
};

/// How often a change is tried again when only its own idea of which keys exist was wrong.
const ATTEMPTS: usize = 4;

/// Does a change, all or nothing. A [`CommitError::Conflict`] means that a key it was decided from has moved: look again.
/// Removing a VM that is not there is success.
pub async fn apply(store: &dyn Store, change: &VmChange) -> Result<Committed, CommitError> {
    if let VmChange::Remove { id, expect } = change {
        return remove(store, *id, expect).await;
    }
    apply_with(store, change, Transaction::default()).await
}

/// Does a definition or an update together with other writes, all or nothing: those come last.
pub async fn apply_with(
    store: &dyn Store,
    change: &VmChange,
    others: Transaction,
) -> Result<Committed, CommitError> {
    let mut txn = transaction(change);
    txn.ops.extend(others.ops);
    for _ in 1..ATTEMPTS {
        match store.commit(txn.clone()).await {
            // Keys that older clients leave out are created when they are first written.
            Err(CommitError::Conflict { op, .. }) if put::set_or_create(&mut txn, op) => {}
            outcome => return outcome,
        }
    }
    store.commit(txn).await
}

/// The writes of a definition or an update. A removal depends on what is there: see [`apply`]; here it is only its checks.
pub fn transaction(change: &VmChange) -> Transaction {
    let mut txn = Transaction::default();
    match change {
        VmChange::Define { id, name, node, xml, rbd_images } => {
            txn.create(path(*id), name.as_str());
            txn.create(key_path(*id, VmKey::State), "stop");
            txn.create(key_path(*id, VmKey::Node), node.as_str());
            txn.create(key_path(*id, VmKey::LastNode), "");
            txn.create(key_path(*id, VmKey::FailedReason), "");
            txn.create(console_log_path(*id), "");
            txn.create(rbd_list_path(*id), rbd_images.join(","));
            txn.create(xml_path(*id), xml.as_str());
        }
        VmChange::Update { id, expect, set } => {
            let written: Vec<VmKey> = set.iter().filter_map(decided_key).collect();
            for (key, version) in expect.iter().filter(|(key, _)| !written.contains(key)) {
                check(&mut txn, *id, *key, *version);
            }
            for value in set {
                let (path, data) = write(*id, value);
                let expected = decided_key(value).and_then(|k| expect.iter().find(|(key, _)| *key == k));
                match expected {
                    Some((_, Some(version))) => txn.set(path, data, Some(*version)),
                    Some((_, None)) => txn.create(path, data),
                    None => txn.set(path, data, None),
                }
            }
        }
        VmChange::Orphan { id, version, left } => {
            let (vm, claim) = (path(*id), key_path(*id, VmKey::Claim));
            txn.create(vm.clone(), "");
            txn.delete(vm, None);
            if left.is_empty() {
                txn.delete(claim, *version);
            } else {
                txn.set(claim, left.to_string(), *version);
            }
        }
        VmChange::Remove { id, expect } => {
            for (key, version) in expect {
                check(&mut txn, *id, *key, *version);
            }
        }
    }
    txn
}

fn rbd_list_path(id: VmId) -> String {
    format!("{}/rbdlist", path(id))
}

fn check(txn: &mut Transaction, id: VmId, key: VmKey, version: Option<i32>) {
    let path = key_path(id, key);
    if let Some(version) = version {
        txn.check(path, Check::Version(version));
    } else {
        // ZooKeeper has no check for absence; a key that can be created was absent.
        txn.create(path.clone(), "");
        txn.delete(path, None);
    }
}

fn decided_key(set: &VmSet) -> Option<VmKey> {
    match set {
        VmSet::State(_) => Some(VmKey::State),
        VmSet::Node(_) => Some(VmKey::Node),
        VmSet::LastNode(_) => Some(VmKey::LastNode),
        VmSet::FailedReason(_) => Some(VmKey::FailedReason),
        VmSet::Claim(_) => Some(VmKey::Claim),
        VmSet::Xml(_) => Some(VmKey::Xml),
        VmSet::Name(_) | VmSet::RbdImages(_) => None,
    }
}

fn write(id: VmId, set: &VmSet) -> (String, String) {
    match set {
        VmSet::Name(name) => (path(id), name.to_string()),
        VmSet::State(state) => (key_path(id, VmKey::State), state.to_string()),
        VmSet::Node(node) => (key_path(id, VmKey::Node), node.to_string()),
        VmSet::LastNode(node) => {
            (key_path(id, VmKey::LastNode), node.as_ref().map(ToString::to_string).unwrap_or_default())
        }
        VmSet::FailedReason(reason) => (key_path(id, VmKey::FailedReason), reason.clone()),
        VmSet::Claim(claim) => (key_path(id, VmKey::Claim), claim.to_string()),
        VmSet::Xml(xml) => (xml_path(id), xml.clone()),
        VmSet::RbdImages(images) => (rbd_list_path(id), images.join(",")),
    }
}

async fn remove(
    store: &dyn Store,
    id: VmId,
    expect: &[(VmKey, Option<i32>)],
) -> Result<Committed, CommitError> {
    let subtree = put::subtree(store, &path(id)).await.map_err(CommitError::Failed)?;
    let Some(Subtree { leaves_first }) = subtree else {
        return match expect.iter().find(|(_, version)| version.is_some()) {
            Some((key, _)) => {
                Err(CommitError::Conflict { op: 0, path: key_path(id, *key), clash: Clash::Missing })
            }
            None => Ok(Committed { zxid: 0, created: Vec::new() }),
        };
    };
    let mut txn = Transaction::default();
    for (key, version) in expect {
        check(&mut txn, id, *key, *version);
    }
    txn.ops.extend(leaves_first.into_iter().map(|path| Op::Delete { path, version: None }));
    let besides = [explain::vm_path(id), key_path(id, VmKey::Claim)];
    let found = store.get_many(&besides).await.map_err(CommitError::Failed)?;
    let [explanation, claim] = besides;
    if found[0].is_some() {
        txn.delete(explanation, None);
    }
    // One that names somebody outlives the VM's keys.
    if let Some(nobody) = found[1].as_ref().filter(|claim| claim.data.is_empty()) {
        txn.delete(claim, Some(nobody.version));
    }
    store.commit(txn).await
}
