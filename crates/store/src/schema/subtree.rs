//! Objects that are whole subtrees: all their keys in a few requests.

use std::collections::BTreeMap;

use crate::{Store, StoreError, Value, put};

/// Values by their path below an object's own key, which is `""`.
pub type Keys = BTreeMap<String, Value>;

/// Reads everything at and below a key; `None` if there is no such key. Keys that come or go meanwhile may be missing.
pub async fn read_keys(store: &dyn Store, root: &str) -> Result<Option<Keys>, StoreError> {
    let Some(found) = put::subtree(store, root).await? else { return Ok(None) };
    let values = store.get_many(&found.leaves_first).await?;
    let keys: Keys = found
        .leaves_first
        .iter()
        .zip(values)
        .filter_map(|(path, value)| {
            let below = path.strip_prefix(root)?;
            Some((below.strip_prefix('/').unwrap_or(below).to_owned(), value?))
        })
        .collect();
    Ok(keys.contains_key("").then_some(keys))
}
