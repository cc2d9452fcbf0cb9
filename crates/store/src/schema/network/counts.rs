//! `/pvc/acl/<vni>` **(ours)**: what the primary's firewall has counted for each rule of a network, as JSON.

use std::collections::BTreeMap;

use pvc_core::model::{Vni, rule::Direction};
use serde::{Deserialize, Serialize};

use crate::{CommitError, Store, StoreError, put};

/// The parent of all.
pub(in crate::schema) const ROOT: &str = "/pvc/acl";

/// What a rule has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hits {
    /// Packets that it matched.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Of a network: by direction and name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    #[serde(default, rename = "in")]
    inward: BTreeMap<String, Hits>,
    #[serde(default, rename = "out")]
    outward: BTreeMap<String, Hits>,
}

impl Counts {
    /// Those of a direction.
    pub fn of(&self, direction: Direction) -> &BTreeMap<String, Hits> {
        match direction {
            Direction::In => &self.inward,
            Direction::Out => &self.outward,
        }
    }

    /// The same, to fill.
    pub fn of_mut(&mut self, direction: Direction) -> &mut BTreeMap<String, Hits> {
        match direction {
            Direction::In => &mut self.inward,
            Direction::Out => &mut self.outward,
        }
    }
}

fn path(vni: Vni) -> String {
    format!("{ROOT}/{vni}")
}

/// Publishes them.
///
/// # Errors
/// As every write.
pub async fn write(store: &dyn Store, vni: Vni, counts: &Counts) -> Result<(), CommitError> {
    // A struct of text and numbers always has a JSON form.
    put::put(store, &path(vni), serde_json::to_vec(counts).unwrap_or_default()).await
}

/// Reads them; `None`: nothing has been counted, or it cannot be read.
///
/// # Errors
/// As every read.
pub async fn read(store: &dyn Store, vni: Vni) -> Result<Option<Counts>, StoreError> {
    let value = store.get(&path(vni)).await?;
    Ok(value.and_then(|value| serde_json::from_slice(&value.data).ok()))
}

/// Removes those of networks that there are not.
///
/// # Errors
/// As every write.
pub async fn sweep(store: &dyn Store, is_there: impl Fn(Vni) -> bool) -> Result<(), CommitError> {
    for name in store.children(ROOT).await.map_err(CommitError::Failed)?.unwrap_or_default() {
        if !name.parse().is_ok_and(&is_there) {
            put::remove_if_present(store, &format!("{ROOT}/{name}")).await?;
        }
    }
    Ok(())
}
