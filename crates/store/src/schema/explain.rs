//! `/pvc/explain/…` **(ours)**: why something is not (yet) as wished, as its daemon last said. Absent: nothing to explain.

use pvc_core::model::{Explanation, Problem};

use crate::{CommitError, Store, StoreError};

/// The parent of the parents.
pub(super) const ROOT: &str = "/pvc/explain";

/// Writes an explanation, or removes it.
pub(super) async fn write(
    store: &dyn Store,
    path: &str,
    explanation: Option<&Explanation>,
) -> Result<(), CommitError> {
    let Some(explanation) = explanation else {
        return crate::put::remove_if_present(store, path).await;
    };
    // A struct of text and numbers always has a JSON form.
    crate::put::put(store, path, serde_json::to_vec(explanation).unwrap_or_default()).await
}

/// Reads an explanation.
pub(super) async fn read(
    store: &dyn Store,
    key: String,
) -> Result<Option<Result<Explanation, Problem>>, StoreError> {
    Ok(store.get(&key).await?.map(|value| {
        serde_json::from_slice(&value.data)
            .map_err(|e| Problem { key, what: format!("not an explanation: {e}") })
    }))
}
