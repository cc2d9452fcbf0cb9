//! The root keys: what must exist before anything else, and the version of the tree's layout.

#[cfg(test)]
mod tests;

use pvc_core::model::{NodeName, Problem};

use super::{
    SchemaError,
    text::{Decoder, present},
};
use crate::{CommitError, Store, StoreError, Transaction, Value};

/// The layout of the keys that are ours **(ours)**.
pub const SCHEMA: &str = "/pvc/schema";
/// The layout that this program knows.
pub const SCHEMA_VERSION: u32 = 1;

/// Above all keys that are ours but what stands beside a node's or a VM's.
pub const OURS: &str = "/pvc";
/// Above what is known of storage.
pub const CEPH: &str = "/ceph";

/// Every root key with its first value, parents before children.
const KEYS: [(&str, &str); 30] = [
    (super::node::ROOT, ""),
    (super::primary::PRIMARY_NODE, "none"),
    (super::vm::ROOT, ""),
    (super::network::ROOT, ""),
    (CEPH, ""),
    ("/ceph/osds", ""),
    ("/ceph/pools", ""),
    ("/ceph/volumes", ""),
    ("/ceph/snapshots", ""),
    ("/cmd", ""),
    ("/cmd/domains", ""),
    ("/cmd/ceph", ""),
    (OURS, ""),
    (SCHEMA, "1"),
    (super::owner::ROOT, ""),
    (super::vm::CLAIM_ROOT, ""),
    (super::vm_clients::ROOT, ""),
    (super::machine::ROOT, ""),
    (super::explain::ROOT, ""),
    (super::explain::VMS, ""),
    (super::explain::NODES, ""),
    (super::explain::NETWORKS, ""),
    (super::fence::ROOT, ""),
    (super::flush::ROOT, ""),
    (super::bmc::ROOT, ""),
    (super::primary::HELD, ""),
    (super::placement::PLACEMENT, ""),
    (super::network::counts::ROOT, ""),
    (super::task::ROOT, ""),
    (super::shut_out::ROOT, ""),
];

/// How often two initialisations may cross before it is reported.
const ATTEMPTS: usize = 5;

/// Creates the root keys that are absent and leaves all others as they are. Returns those it created: none the second time.
pub async fn init(store: &dyn Store) -> Result<Vec<String>, SchemaError> {
    let paths = KEYS.map(|(path, _)| path.to_owned());
    let mut attempt = 1;
    loop {
        let present = store.get_many(&paths).await?;
        if let Some(found) = &present[KEYS.iter().position(|(path, _)| *path == SCHEMA).unwrap_or_default()] {
            check_version(&found.data)?;
        }
        let mut txn = Transaction::default();
        for ((path, data), _) in KEYS.iter().zip(&present).filter(|(_, found)| found.is_none()) {
            txn.create(*path, *data);
        }
        if txn.ops.is_empty() {
            return Ok(Vec::new());
        }
        match store.commit(txn).await {
            Ok(committed) => return Ok(committed.created),
            // Another init at the same time: see what is left to do.
            Err(CommitError::Conflict { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether all root keys of the contract exist. Ours may be absent: [`init`] adds them to a tree of the 0.5 generation.
pub async fn is_initialised(store: &dyn Store) -> Result<bool, StoreError> {
    let paths: Vec<String> =
        KEYS.iter().map(|(path, _)| (*path).to_owned()).filter(|p| !p.starts_with("/pvc")).collect();
    Ok(store.stat_many(&paths).await?.iter().all(Option::is_some))
}

/// Who is or shall be primary coordinator; absent, empty and `none` all mean nobody.
pub fn decode_primary(value: Option<&Value>) -> Result<Option<NodeName>, Problem> {
    let mut d = Decoder::default();
    let text = d.text(super::primary::PRIMARY_NODE, value).and_then(present).filter(|text| *text != "none");
    let node = text.and_then(|text| d.parse(super::primary::PRIMARY_NODE, text));
    d.problems.into_iter().next().map_or(Ok(node), Err)
}

fn check_version(found: &[u8]) -> Result<(), SchemaError> {
    let text = String::from_utf8_lossy(found);
    let what = match text.trim().parse::<u32>() {
        Ok(version) if version <= SCHEMA_VERSION => return Ok(()),
        Ok(version) => {
            format!("layout {version} is newer than this program's ({SCHEMA_VERSION}): upgrade this program")
        }
        Err(_) => format!(
            "{:?} is not a layout version: expected {SCHEMA_VERSION}",
            text.get(..80).unwrap_or(&text)
        ),
    };
    Err(SchemaError::Tree(Problem { key: SCHEMA.into(), what }))
}
