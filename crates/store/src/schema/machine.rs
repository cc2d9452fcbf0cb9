//! `/pvc/machine/<node>` **(ours)**: which machine has the node's name. Persistent: it outlives that machine's session, and so says
//! whose guests the node's claims are about.
//!
//! Every daemon that takes the name writes it anew, in the same transaction as its owner key. Its version is the daemon's title to the
//! name: whatever the daemon writes later checks it. Never decides who may have the name; see `pvc_core::plan::machine`.

use std::collections::BTreeMap;

use pvc_core::{
    model::{MachineRecord, NodeName},
    plan::machine::Recorded,
};

use super::owner;
use crate::{Check, Store, StoreError, Transaction, Value};

/// The parent of all records.
pub const ROOT: &str = "/pvc/machine";

/// What is recorded about a name, and in which version; `None`: the key is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which machine has it.
    pub recorded: Recorded,
    /// The key's version.
    pub version: Option<i32>,
}

impl Seen {
    /// From the key's value.
    pub fn of(value: Option<&Value>) -> Self {
        let machine = value.map(|v| serde_json::from_slice(&v.data));
        let recorded = match machine {
            None => Recorded::Nobody,
            Some(Ok(machine)) => Recorded::Machine(machine),
            Some(Err(_)) => Recorded::Unreadable,
        };
        Self { recorded, version: value.map(|v| v.version) }
    }

    /// The version that [`write()`] gives it.
    pub fn next_version(&self) -> i32 {
        self.version.map_or(0, |version| version.wrapping_add(1))
    }
}

/// The record of a node.
pub fn path(node: &NodeName) -> String {
    format!("{ROOT}/{node}")
}

/// Which machine has the name now.
pub async fn read(store: &dyn Store, node: &NodeName) -> Result<Seen, StoreError> {
    Ok(Seen::of(store.get(&path(node)).await?.as_ref()))
}

/// The machines that have other names, as far as their records can be read.
pub async fn others(
    store: &dyn Store,
    node: &NodeName,
) -> Result<BTreeMap<NodeName, MachineRecord>, StoreError> {
    let names = store.children(ROOT).await?.unwrap_or_default();
    let names: Vec<NodeName> =
        names.iter().filter_map(|name| name.parse().ok()).filter(|n| n != node).collect();
    let paths: Vec<String> = names.iter().map(path).collect();
    let values = store.get_many(&paths).await?;
    let machine =
        |(name, value): (NodeName, Option<Value>)| Some((name, serde_json::from_slice(&value?.data).ok()?));
    Ok(names.into_iter().zip(values).filter_map(machine).collect())
}

/// Records a machine, unless the record has moved since it was seen.
pub fn write(node: &NodeName, machine: &MachineRecord, seen: &Seen) -> Transaction {
    // A struct of text and numbers always has a JSON form.
    let data = serde_json::to_vec(machine).unwrap_or_default();
    let mut txn = Transaction::default();
    match seen.version {
        Some(version) => txn.set(path(node), data, Some(version)),
        None => txn.create(path(node), data),
    }
    txn
}

/// Records an operator's word that the machine is gone, as [`write()`] does and only while the node's daemon has no session.
pub fn replace(node: &NodeName, machine: &MachineRecord, seen: &Seen) -> Transaction {
    let mut txn = Transaction::default();
    // ZooKeeper has no check for absence; a key that can be created was absent.
    txn.create(owner::path(node), "");
    txn.delete(owner::path(node), None);
    txn.ops.extend(write(node, machine, seen).ops);
    txn
}

/// Part of another transaction: it is done only while the daemon that took the name with this version of the record has it.
pub fn expect(node: &NodeName, version: i32) -> Transaction {
    let mut txn = Transaction::default();
    txn.check(owner::path(node), Check::Exists);
    txn.check(path(node), Check::Version(version));
    txn
}

#[cfg(test)]
mod tests {
    use pvc_core::model::{MachineId, Replaced};

    use super::*;
    use crate::{CommitError, memory::MemoryTree, schema::root};

    fn machine(host: &str) -> MachineRecord {
        MachineRecord {
            id: MachineId::of(None, Some("S1"), None, None),
            boot: "b1".into(),
            host: host.into(),
            since_unix_s: 7,
            replaced: None,
        }
    }

    #[tokio::test]
    async fn a_record_is_read_as_it_was_written_and_of_two_writers_one_conflicts() {
        let store = MemoryTree::new().client();
        root::init(&*store).await.unwrap();
        let node: NodeName = "hv1".parse().unwrap();
        let nobody = read(&*store, &node).await.unwrap();
        assert_eq!(nobody, Seen { recorded: Recorded::Nobody, version: None });
        store.commit(write(&node, &machine("hv1"), &nobody)).await.unwrap();
        let seen = read(&*store, &node).await.unwrap();
        assert_eq!(
            seen,
            Seen { recorded: Recorded::Machine(machine("hv1")), version: Some(nobody.next_version()) }
        );
        let again = store.commit(write(&node, &machine("clone"), &nobody)).await;
        assert!(matches!(again, Err(CommitError::Conflict { .. })), "{again:?}");
        assert_eq!(others(&*store, &node).await.unwrap(), BTreeMap::new());
        let others = others(&*store, &"hv2".parse().unwrap()).await.unwrap();
        assert_eq!(others, BTreeMap::from([(node, machine("hv1"))]));
    }

    #[tokio::test]
    async fn nobody_is_said_to_be_gone_whose_daemon_has_a_session() {
        let store = MemoryTree::new().client();
        root::init(&*store).await.unwrap();
        let node: NodeName = "hv1".parse().unwrap();
        let mut txn = write(&node, &machine("hv1"), &Seen::of(None));
        txn.create(owner::path(&node), "{}");
        store.commit(txn).await.unwrap();
        let seen = read(&*store, &node).await.unwrap();
        let word = Replaced { by: "an operator".into(), at_unix_s: 8 };
        let gone = MachineRecord { replaced: Some(word), ..machine("hv1") };
        let outcome = store.commit(replace(&node, &gone, &seen)).await;
        assert!(matches!(outcome, Err(CommitError::Conflict { .. })), "{outcome:?}");
        let mut ends = Transaction::default();
        ends.delete(owner::path(&node), None);
        store.commit(ends).await.unwrap();
        store.commit(replace(&node, &gone, &seen)).await.unwrap();
        assert_eq!(read(&*store, &node).await.unwrap().recorded, Recorded::Machine(gone));
        assert_eq!(store.get(&owner::path(&node)).await.unwrap(), None);
    }

    #[test]
    fn what_is_not_understood_is_no_machine() {
        for text in ["", "gone", "{}", "{\"boot\":1}", "[1]"] {
            let value = Value { data: text.into(), version: 3, mzxid: 1, children: 0 };
            assert_eq!(
                Seen::of(Some(&value)),
                Seen { recorded: Recorded::Unreadable, version: Some(3) },
                "{text}"
            );
        }
    }
}
