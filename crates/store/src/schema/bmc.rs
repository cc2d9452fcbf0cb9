//! `/pvc/bmc/<node>` **(ours)**: what a node's BMC said when a coordinator asked it last.

use std::collections::BTreeMap;

use pvc_core::model::{BmcReport, NodeName};

use crate::{CommitError, Store, StoreError};

/// The parent of all reports.
pub const ROOT: &str = "/pvc/bmc";

/// The key of a node.
pub fn path(node: &NodeName) -> String {
    format!("{ROOT}/{node}")
}

/// Records a report.
pub async fn record(store: &dyn Store, node: &NodeName, report: &BmcReport) -> Result<(), CommitError> {
    // A struct of text and numbers always has a JSON form.
    crate::put::put(store, &path(node), serde_json::to_vec(report).unwrap_or_default()).await
}

/// What was recorded last of these nodes; what cannot be read counts as not recorded, and is recorded again soon.
pub async fn read_all<'a>(
    store: &dyn Store,
    nodes: impl IntoIterator<Item = &'a NodeName>,
) -> Result<BTreeMap<NodeName, BmcReport>, StoreError> {
    let nodes: Vec<&NodeName> = nodes.into_iter().collect();
    let paths: Vec<String> = nodes.iter().map(|node| path(node)).collect();
    let values = store.get_many(&paths).await?;
    let read = nodes.into_iter().zip(values);
    Ok(read.filter_map(|(node, value)| Some((node.clone(), decode(&value?.data)?))).collect())
}

/// What was recorded last of a node.
pub async fn read(store: &dyn Store, node: &NodeName) -> Result<Option<BmcReport>, StoreError> {
    Ok(store.get(&path(node)).await?.and_then(|value| decode(&value.data)))
}

fn decode(data: &[u8]) -> Option<BmcReport> {
    serde_json::from_slice(data).ok()
}
