//! `/domains/<uuid>`: a virtual machine's keys; `/pvc/claim/<uuid>`: who may be executing it; and what is said about it in
//! `/pvc/explain/vm/<uuid>`.
//!
//! The claim lives outside `/domains`, because clients of the 0.5 generation delete whatever is below a VM without waiting for those
//! who execute it.
//!
//! Never writes a result without checking the versions it was decided from: a newer command is never overwritten.

mod arrival;
mod change;
mod python;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use pvc_core::model::{Explanation, NameError, Problem, Subject, VmId, VmKey};

pub(crate) use self::read::{READ_KEYS, decode_claim, is_read, read_key_by_key};
pub use self::{
    arrival::{
        Arrival, arrival_path, read_arrival, read_refused_by, refused_by, refused_by_path, say_arrival,
    },
    change::{apply, apply_with, transaction},
    read::{decode, paths, read},
};
use super::explain;
use crate::store::{Store, StoreError, Transaction};

/// The parent of all VMs.
pub const ROOT: &str = "/domains";
/// The parent of all VMs' claims **(ours)**.
pub const CLAIM_ROOT: &str = "/pvc/claim";
/// A VM's own key; its value is the VM's name.
pub fn path(id: VmId) -> String {
    format!("{ROOT}/{}", id.key())
}

/// The path of one of the keys that decisions are made from.
pub fn key_path(id: VmId, key: VmKey) -> String {
    let key = match key {
        VmKey::State => "state",
        VmKey::Node => "node",
        VmKey::LastNode => "lastnode",
        VmKey::FailedReason => "failedreason",
        VmKey::Claim => return format!("{CLAIM_ROOT}/{id}"),
        VmKey::Xml => "xml",
    };
    format!("{}/{key}", path(id))
}

/// The libvirt definition. Read on demand: the mirror keeps its version only.
pub fn xml_path(id: VmId) -> String {
    key_path(id, VmKey::Xml)
}

/// The last lines of the serial console. Read on demand.
pub fn console_log_path(id: VmId) -> String {
    format!("{}/consolelog", path(id))
}

/// The VMs that keys below [`ROOT`] name, and what is wrong with the other keys. Of several that spell one UUID, one is the VM's: the
/// one that is spelled as libvirt does, if there is such a one.
pub fn ids(keys: &[String]) -> (BTreeSet<VmId>, Vec<Problem>) {
    let (mut ids, mut problems) = (BTreeSet::<VmId>::new(), Vec::new());
    let mut problem = |key: &str, what: String| problems.push(Problem { key: format!("{ROOT}/{key}"), what });
    let mut read: Vec<VmId> = Vec::new();
    for key in keys {
        match VmId::of_key(key) {
            Ok(id) => read.push(id),
            Err(why) => problem(key, why.to_string()),
        }
    }
    read.sort_by_key(|id| (!id.is_canonical(), id.key()));
    for id in read {
        match ids.get(&id) {
            None => drop(ids.insert(id)),
            Some(other) => {
                problem(&id.key(), format!("this UUID is another VM's already, {}", path(*other)));
            }
        }
    }
    problems.sort_by(|a, b| a.key.cmp(&b.key));
    (ids, problems)
}

/// The VM whose claim a key below [`CLAIM_ROOT`] is: there a UUID is spelled in one way only.
pub fn claimed(name: &str) -> Result<VmId, NameError> {
    let id = VmId::of_key(name)?;
    if id.is_canonical() {
        return Ok(id);
    }
    Err(NameError { what: "VM UUID", found: name.to_owned(), allowed: "a UUID in lower case with hyphens" })
}

/// What a migration of a VM may do **(ours)**.
pub fn migration_method_path(id: VmId) -> String {
    format!("{}/migration_method", path(id))
}

/// Reads a VM's definition and its version; `None` if it has none.
pub async fn read_xml(store: &dyn Store, id: VmId) -> Result<Option<(String, i32)>, StoreError> {
    let value = store.get(&xml_path(id)).await?;
    Ok(value.map(|v| (definition(&v.data), v.version)))
}

/// The text of a definition as it is stored. An API of the 0.5 generation stored Python's notation of it, `b'…'`.
pub fn definition(data: &[u8]) -> String {
    let text = python::bytes(data).unwrap_or_else(|| data.to_vec());
    String::from_utf8_lossy(&text).into_owned()
}

/// Replaces the published end of a VM's console.
pub fn console_log(id: VmId, text: &str) -> Transaction {
    let mut txn = Transaction::default();
    txn.set(console_log_path(id), text, None);
    txn
}

/// Reads the published end of a VM's console; empty if there is none.
pub async fn read_console_log(store: &dyn Store, id: VmId) -> Result<String, StoreError> {
    let value = store.get(&console_log_path(id)).await?;
    Ok(value.map(|v| String::from_utf8_lossy(&v.data).into_owned()).unwrap_or_default())
}

/// Reads what is said about a VM: `Ok(None)` if there is nothing to explain.
pub async fn read_explanation(
    store: &dyn Store,
    id: VmId,
) -> Result<Option<Result<Explanation, Problem>>, StoreError> {
    explain::read(store, &Subject::Vm(id)).await
}
