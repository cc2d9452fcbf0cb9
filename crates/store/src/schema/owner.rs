//! `/pvc/daemon/<node>` **(ours)**: which process is the node's daemon now. Ephemeral: it ends with that process' session.

use pvc_core::model::NodeName;
use serde::{Deserialize, Serialize};

use crate::{Check, CreateMode, Op, Store, StoreError, Transaction};

/// The parent of all owner keys.
pub const ROOT: &str = "/pvc/daemon";

/// A process, told so exactly that another one on the same machine can see whether it still lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The host name of its machine: for people.
    pub host: String,
    /// The boot of its kernel or container (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The namespace in which `pid` means something (`/proc/self/ns/pid`).
    pub pid_namespace: String,
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since that boot: process ids are used again.
    pub started: u64,
    /// Unlike that of any other run of a daemon.
    pub instance: String,
    /// The program's version: for people. `None`: an older one, which does not say.
    #[serde(default)]
    pub version: Option<String>,
}

/// Who holds a node's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The holder; `None` if the key's content says nothing that is understood.
    pub by: Option<Owner>,
    /// The key's version, to replace exactly this holder.
    pub version: i32,
}

/// The key of a node.
pub fn path(node: &NodeName) -> String {
    format!("{ROOT}/{node}")
}

/// Who holds the key now.
pub async fn read(store: &dyn Store, node: &NodeName) -> Result<Option<Held>, StoreError> {
    let value = store.get(&path(node)).await?;
    Ok(value.map(|v| Held { by: serde_json::from_slice(&v.data).ok(), version: v.version }))
}

/// Requires that somebody holds the key: the node's daemon has a session.
pub fn expect(node: &NodeName) -> Transaction {
    let mut txn = Transaction::default();
    txn.check(path(node), Check::Exists);
    txn
}

/// Takes the key with this session: if nobody holds it, or from the holder that `replacing` names.
pub fn take(node: &NodeName, owner: &Owner, replacing: Option<&Held>) -> Transaction {
    let path = path(node);
    // A struct of text and numbers always has a JSON form.
    let data = serde_json::to_vec(owner).unwrap_or_default();
    let mut txn = Transaction::default();
    if let Some(held) = replacing {
        txn.delete(path.as_str(), Some(held.version));
    }
    txn.ops.push(Op::Create { path, data, mode: CreateMode::Ephemeral });
    txn
}
