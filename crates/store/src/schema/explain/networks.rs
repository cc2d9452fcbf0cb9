//! `/pvc/explain/network/<node>`: what the node cannot do of the client networks, as JSON. Absent: nothing to say.
//!
//! What it says counts while its daemon runs: a daemon that dies leaves its last word behind.

use std::collections::BTreeMap;

use pvc_core::model::{NodeName, Trouble};
use serde::{Deserialize, Serialize};

use super::networks_path;
use crate::{CommitError, Store, StoreError, put};

/// The most that one node says. Whoever has more troubles begins with these.
const MOST: usize = 200;

/// What a node says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkTroubles {
    /// By network, those of all networks first.
    pub troubles: Vec<Trouble>,
    /// So many more there are.
    #[serde(default)]
    pub left_out: usize,
}

impl FromIterator<Trouble> for NetworkTroubles {
    fn from_iter<I: IntoIterator<Item = Trouble>>(all: I) -> Self {
        let mut all = all.into_iter();
        let troubles = all.by_ref().take(MOST).collect();
        Self { troubles, left_out: all.count() }
    }
}

/// Publishes what a node says.
///
/// # Errors
/// As every write.
pub async fn write_networks(
    store: &dyn Store,
    node: &NodeName,
    said: &NetworkTroubles,
) -> Result<(), CommitError> {
    let path = networks_path(node);
    if said.troubles.is_empty() {
        return put::remove_if_present(store, &path).await;
    }
    // A struct of text and numbers always has a JSON form.
    put::put(store, &path, serde_json::to_vec(said).unwrap_or_default()).await
}

/// What nodes say. What cannot be read says nothing: its daemon writes it anew.
///
/// # Errors
/// As every read.
pub async fn read_networks<'a>(
    store: &dyn Store,
    nodes: impl IntoIterator<Item = &'a NodeName>,
) -> Result<BTreeMap<NodeName, NetworkTroubles>, StoreError> {
    let nodes: Vec<&NodeName> = nodes.into_iter().collect();
    let paths: Vec<String> = nodes.iter().map(|node| networks_path(node)).collect();
    let values = store.get_many(&paths).await?;
    let said = nodes.into_iter().zip(values).filter_map(|(node, value)| {
        let mut said: NetworkTroubles = serde_json::from_slice(&value?.data).ok()?;
        said.troubles.truncate(MOST);
        Some((node.clone(), said))
    });
    Ok(said.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory::MemoryTree, schema};

    #[tokio::test]
    async fn a_nodes_word_is_bounded_read_back_and_withdrawn() {
        let tree = MemoryTree::new();
        let store = tree.client();
        schema::root::init(&*store).await.unwrap();
        let nodes: [NodeName; 2] = ["hv1", "hv2"].map(|name| name.parse().unwrap());
        let vni = "100".parse().unwrap();
        let all = (0..MOST + 3).map(|i| Trouble::of(vni, format!("{i}")).with_todo("x"));
        let said: NetworkTroubles = all.chain([Trouble::of_all("y")]).collect();
        assert_eq!((said.troubles.len(), said.left_out), (MOST, 4));
        write_networks(&*store, &nodes[0], &said).await.unwrap();
        put::put(&*store, &networks_path(&nodes[1]), b"{\"troubles\":[{\"network\":0}]}".to_vec())
            .await
            .unwrap();
        let read = read_networks(&*store, &nodes).await.unwrap();
        assert_eq!(read, BTreeMap::from([(nodes[0].clone(), said)]));
        write_networks(&*store, &nodes[0], &NetworkTroubles::default()).await.unwrap();
        assert!(read_networks(&*store, &nodes).await.unwrap().is_empty());
    }
}
