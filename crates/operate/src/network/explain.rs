//! Why a network is not as desired: what nodes say of it, grouped by what they say, and what of its keys cannot be read.

use std::collections::{BTreeMap, BTreeSet};

use pvc_core::{
    command::network as command,
    model::{ClusterView, DaemonState, NodeName, Trouble},
    text::some,
};
use pvc_store::{Store, StoreError, schema::explain};
use serde::{Deserialize, Serialize};

use super::{NetworkRow, all};
use crate::{Cluster, Failure, Nodes};

/// What is known of a network.
#[derive(Debug, Serialize, Deserialize)]
pub struct NetworkExplanation {
    #[serde(flatten)]
    pub network: NetworkRow,
    pub troubles: Vec<Told>,
    /// Nodes that say nothing now: their daemons do not run, or are not heard of.
    pub silent: Vec<NodeName>,
    /// Nodes with more to say than they could.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut_short: Vec<NodeName>,
    pub conclusion: String,
}

/// A trouble, and who has it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    #[serde(flatten)]
    pub trouble: Trouble,
    pub nodes: Vec<NodeName>,
}

/// Explains a network.
pub async fn explain(
    cluster: &Cluster,
    reference: &str,
    now_unix_s: u64,
) -> Result<NetworkExplanation, Failure> {
    let (all, _) = all(cluster).await?;
    let network = command::find(&all, reference)?;
    let view = cluster.view().await?;
    let said = said(&*cluster.store, &view, now_unix_s).await?;
    let mut told = BTreeMap::<&Trouble, Vec<NodeName>>::new();
    for (node, said) in &said {
        let its = |trouble: &&Trouble| trouble.network.is_none_or(|vni| vni == network.vni);
        for trouble in said.troubles.iter().filter(its) {
            told.entry(trouble).or_default().push(node.clone());
        }
    }
    let troubles: Vec<Told> =
        told.into_iter().map(|(trouble, nodes)| Told { trouble: trouble.clone(), nodes }).collect();
    let speaks: BTreeSet<&NodeName> = speakers(&view, now_unix_s).collect();
    let silent: Vec<NodeName> = view.nodes.keys().filter(|node| !speaks.contains(node)).cloned().collect();
    let cut_short = said.iter().filter(|(_, said)| said.left_out > 0).map(|(node, _)| node.clone()).collect();
    let network = NetworkRow::from(network);
    let conclusion = conclude(&network, &troubles, &silent);
    Ok(NetworkExplanation { network, troubles, silent, cut_short, conclusion })
}

/// What the nodes whose word counts say.
pub(crate) async fn said(
    store: &dyn Store,
    view: &ClusterView,
    now_unix_s: u64,
) -> Result<BTreeMap<NodeName, explain::NetworkTroubles>, StoreError> {
    explain::read_networks(store, speakers(view, now_unix_s)).await
}

/// Nodes whose daemons run and are heard of: others left their last word behind.
fn speakers(view: &ClusterView, now_unix_s: u64) -> impl Iterator<Item = &NodeName> {
    let nodes = Nodes::of(view);
    let runs = view.all_nodes().filter(|node| node.daemon_state.value == DaemonState::Run);
    runs.map(|node| &node.name).filter(move |name| nodes.silent_s(name, now_unix_s).is_none())
}

/// The one sentence that an operator came for.
fn conclude(network: &NetworkRow, troubles: &[Told], silent: &[NodeName]) -> String {
    let wrong = troubles.len() + network.problems.len();
    let first = match wrong {
        0 => "No node says that anything is wrong with it.".to_owned(),
        1 => "One thing is wrong with it.".to_owned(),
        n => format!("{n} things are wrong with it."),
    };
    if silent.is_empty() {
        return first;
    }
    let names: Vec<&str> = silent.iter().map(NodeName::as_str).collect();
    format!(
        "{first} Of {} nothing is known: {}.",
        if silent.len() == 1 { "one node" } else { "some nodes" },
        some(&names)
    )
}

#[cfg(test)]
mod tests {
    use pvc_core::{
        command::network::Settings,
        model::{NetworkKind, Vni},
    };

    use super::*;
    use crate::testing::{Fake, name};

    #[tokio::test]
    async fn what_nodes_say_alike_is_told_once_and_a_dead_nodes_word_does_not_count() {
        let fake = Fake::with(&["hv1", "hv2", "hv3"]).await;
        let settings = Settings { description: Some("web".into()), ..Settings::default() };
        super::super::add(&fake.cluster, "100", NetworkKind::Managed, &settings, &[]).await.unwrap();
        let explained = async || explain(&fake.cluster, "web", 0).await.unwrap();
        assert_eq!(explained().await.conclusion, "No node says that anything is wrong with it.");

        let (vni, other): (Vni, Vni) = ("100".parse().unwrap(), "101".parse().unwrap());
        let rule = Trouble::of(vni, "a rule is refused").with_todo("write it anew");
        let say = async |node, troubles: Vec<Trouble>| {
            let said = troubles.into_iter().collect();
            explain::write_networks(&*fake.cluster.store, &name(node), &said).await.unwrap();
        };
        say("hv1", vec![rule.clone(), Trouble::of(other, "not its own")]).await;
        say("hv2", vec![rule.clone(), Trouble::of_all("the database is away")]).await;
        say("hv3", vec![Trouble::of(vni, "its last word")]).await;
        let stop = pvc_store::schema::node::set_daemon_state(&name("hv3"), DaemonState::Dead);
        fake.cluster.store.commit(stop).await.unwrap();
        let told = explained().await;
        let expected = [
            Told { trouble: Trouble::of_all("the database is away"), nodes: vec![name("hv2")] },
            Told { trouble: rule, nodes: vec![name("hv1"), name("hv2")] },
        ];
        assert_eq!(told.troubles, expected);
        assert_eq!(told.conclusion, "2 things are wrong with it. Of one node nothing is known: hv3.");
    }
}
