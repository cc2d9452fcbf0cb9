//! Who executes what, by what the nodes report.

use std::collections::{BTreeMap, BTreeSet};

use pvc_core::{
    model::{Claim, ClusterView, DaemonState, Field, Halt, Node, NodeName, VmId},
    plan::vm::last_words,
};
use serde::{Deserialize, Serialize};

use super::Nodes;

/// Who reports to be running a VM.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Told", from = "Told")]
pub struct Runners {
    /// Nodes whose daemons work.
    pub now: Vec<NodeName>,
    /// Nodes whose daemons said so before they stopped.
    pub before: Vec<NodeName>,
    /// Why it does not execute on one of the first, if so.
    pub halted: Option<(NodeName, Halt)>,
}

/// The same with the words of the API.
#[derive(Serialize, Deserialize)]
struct Told {
    running_on: Vec<NodeName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ran_on: Vec<NodeName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_executing: Option<Halt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_executing_on: Option<NodeName>,
}

impl From<Runners> for Told {
    fn from(runners: Runners) -> Self {
        let Runners { now: running_on, before: ran_on, halted } = runners;
        let (not_executing_on, not_executing) = halted.unzip();
        Self { running_on, ran_on, not_executing, not_executing_on }
    }
}

impl From<Told> for Runners {
    fn from(told: Told) -> Self {
        let halted = told.not_executing_on.zip(told.not_executing);
        Self { now: told.running_on, before: told.ran_on, halted }
    }
}

impl Runners {
    /// Names for people: those that are only remembered with a question mark, nobody as `-`.
    pub fn words(&self) -> String {
        let now = self.now.iter().map(|node| match &self.halted {
            Some((on, halt)) if on == node => format!("{node} ({halt})"),
            _ => node.to_string(),
        });
        let names: Vec<String> = now.chain(self.before.iter().map(|node| format!("{node}?"))).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(",") }
    }

    /// The same, without what a claim has answered since: who said before that it runs it was proven dead, or has released it.
    pub(crate) fn unanswered(mut self, view: &ClusterView, id: VmId, claim: &Field<Claim>) -> Self {
        let stands = |node: &NodeName| {
            claim.value.names(node) || last_words(view, id, claim).any(|other| other == node)
        };
        self.before.retain(stands);
        self
    }
}

impl Nodes {
    /// Who runs what, as far as the nodes report it.
    pub fn runners(&self) -> BTreeMap<VmId, Runners> {
        runners(self.all.iter())
    }
}

/// The same of these nodes.
pub(crate) fn runners<'a>(nodes: impl Iterator<Item = &'a Node>) -> BTreeMap<VmId, Runners> {
    let mut all: BTreeMap<VmId, Runners> = BTreeMap::new();
    for node in nodes {
        for id in node.report.running.iter().collect::<BTreeSet<_>>() {
            let runners = all.entry(*id).or_default();
            match node.daemon_state.value {
                DaemonState::Run => {
                    runners.now.push(node.name.clone());
                    let halt = node.report.halt(*id).map(|halt| (node.name.clone(), halt));
                    runners.halted = runners.halted.take().or(halt);
                }
                // Guests go on without the daemon.
                DaemonState::Init | DaemonState::Shutdown | DaemonState::Stop => {
                    runners.before.push(node.name.clone());
                }
                // They ended with the node.
                DaemonState::Dead => {}
            }
        }
    }
    all
}

/// Those whose last word is that they execute a VM, if no claim has answered that.
pub(crate) fn said_last(view: &ClusterView, id: VmId, claim: &Field<Claim>) -> Vec<NodeName> {
    let says = |name: &&NodeName| view.node(name).is_some_and(|node| node.report.running.contains(&id));
    last_words(view, id, claim).filter(says).cloned().collect()
}
