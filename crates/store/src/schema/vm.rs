//! `/domains/<uuid>`: a virtual machine's keys; `/pvc/claim/<uuid>`: who may be executing it; and what is said about it in
//! `/pvc/explain/vm/<uuid>`.
//!
//! The claim lives outside `/domains`, because clients of the 0.5 generation delete whatever is below a VM without waiting for those
//! who execute it.
//!
//! Never writes a result without checking the versions it was decided from: a newer command is never overwritten.

mod change;
mod python;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use pvc_core::model::{
    Claim, Entry, Explanation, Field, MigrationMethod, NameError, NodeName, Problem, Vm, VmId, VmKey, VmName,
    VmState,
};

pub use self::change::{apply, apply_with, transaction};
use super::explain as published;
use super::text::{Decoder, field, present};
use crate::store::{Store, StoreError, Transaction, Value};

/// The parent of all VMs.
pub const ROOT: &str = "/domains";
/// The parent of all VMs' claims **(ours)**.
pub const CLAIM_ROOT: &str = "/pvc/claim";
/// The parent of all VMs' explanations **(ours)**.
pub const EXPLAIN_ROOT: &str = "/pvc/explain/vm";

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

/// Why the VM is not (yet) as wished **(ours)**.
pub fn explain_path(id: VmId) -> String {
    format!("{EXPLAIN_ROOT}/{id}")
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
pub(crate) fn claimed(name: &str) -> Result<VmId, NameError> {
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

/// Whether a key below a VM is among those that [`paths`] names.
pub(crate) fn is_read(key: &str) -> bool {
    matches!(key, "state" | "node" | "lastnode" | "failedreason" | "rbdlist" | "migration_method")
}

/// The number of keys that [`paths`] names.
pub(crate) const READ_KEYS: usize = 8;
/// Which of them is the claim.
const CLAIM: usize = 6;

/// The keys whose contents make a [`Vm`], in the order that [`decode`] takes them. `xml` is not among them.
pub fn paths(id: VmId) -> [String; READ_KEYS] {
    [
        path(id),
        key_path(id, VmKey::State),
        key_path(id, VmKey::Node),
        key_path(id, VmKey::LastNode),
        key_path(id, VmKey::FailedReason),
        format!("{}/rbdlist", path(id)),
        key_path(id, VmKey::Claim),
        migration_method_path(id),
    ]
}

/// The claim among the values of a VM's [`paths`]; `None` if it has no record.
pub(crate) fn decode_claim(id: VmId, values: &[Option<Value>]) -> Option<Entry<Field<Claim>>> {
    let value = values.get(CLAIM).and_then(Option::as_ref)?;
    let mut d = Decoder::default();
    let claim = claim(&mut d, &key_path(id, VmKey::Claim), Some(value));
    Some(if d.problems.is_empty() { Entry::Good(claim) } else { Entry::Bad(d.problems) })
}

fn claim(d: &mut Decoder, key: &str, value: Option<&Value>) -> Field<Claim> {
    let claim = d.text(key, value).and_then(|text| d.parse::<Claim>(key, text));
    field(claim.unwrap_or_default(), value)
}

/// A VM from the values of its [`paths`] and the version of its `xml`; `None` if there is no such VM.
pub fn decode(id: VmId, values: &[Option<Value>], xml_version: Option<i32>) -> Option<Entry<Vm>> {
    let keys = paths(id);
    let value = |i: usize| values.get(i).and_then(Option::as_ref);
    let name_value = value(0)?;
    let mut d = Decoder::default();
    let name = d.required::<VmName>(&keys[0], Some(name_value));
    let state = d.required::<VmState>(&keys[1], value(1));
    let node = d.required::<NodeName>(&keys[2], value(2));
    let last_node = d.optional::<NodeName>(&keys[3], value(3));
    let reason = value(4).map(|v| String::from_utf8_lossy(&v.data).into_owned());
    let failed_reason = field(reason.filter(|r| present(r).is_some()).unwrap_or_default(), value(4));
    let images = d.text(&keys[5], value(5)).and_then(present).unwrap_or_default();
    let rbd_images = images.split(',').map(str::trim).filter(|i| !i.is_empty()).map(str::to_owned).collect();
    let claim = claim(&mut d, &keys[CLAIM], value(CLAIM));
    let method = d.text(&keys[7], value(7)).and_then(|text| d.parse::<MigrationMethod>(&keys[7], text));
    let migration_method = method.unwrap_or_default();
    if let (Some(name), Some(state), Some(node), true) = (name, state, node, d.problems.is_empty()) {
        let name = name.value;
        return Some(Entry::Good(Vm {
            id,
            name,
            state,
            node,
            last_node,
            failed_reason,
            claim,
            migration_method,
            rbd_images,
            xml_version,
        }));
    }
    Some(Entry::Bad(d.problems))
}

/// Reads one VM as it is now.
pub async fn read(store: &dyn Store, id: VmId) -> Result<Option<Entry<Vm>>, StoreError> {
    let values = store.get_many(&paths(id)).await?;
    let xml = store.stat_many(&[xml_path(id)]).await?;
    Ok(decode(id, &values, xml.first().copied().flatten().map(|xml| xml.version)))
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

/// Publishes why a VM is not as wished, or that there is nothing to explain.
pub async fn explain(
    store: &dyn Store,
    id: VmId,
    explanation: Option<&Explanation>,
) -> Result<(), crate::CommitError> {
    published::write(store, &explain_path(id), explanation).await
}

/// Reads what is said about a VM: `Ok(None)` if there is nothing to explain.
pub async fn read_explanation(
    store: &dyn Store,
    id: VmId,
) -> Result<Option<Result<Explanation, Problem>>, StoreError> {
    published::read(store, explain_path(id)).await
}
