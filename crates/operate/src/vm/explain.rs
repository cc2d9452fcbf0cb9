//! Why a VM is as it is: what is asked, what is seen, what the daemon says, a conclusion. Works also, and above all, when something is
//! broken: whatever can be read is told.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

mod conclusion;
mod undefined;

pub use undefined::Undefined;

use std::collections::BTreeSet;

use pvc_core::{
    command::node::step_words,
    model::{
        ClusterView, DaemonState, DomainDetails, DomainSpec, DomainState, Entry, Explanation, Fence,
        FlushProgress, MigrationMethod, NodeName, Problem, Vm, VmId, VmKey, VmState,
    },
    plan::placement::{Selector, Unfit},
};
use pvc_store::schema::vm;
use serde::{Deserialize, Serialize};

use crate::{
    Cluster, Failure, Nodes, Runners,
    explain::{Said, told},
    read::said_last,
};

/// What is known of a VM, or of a UUID that is none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Explained {
    Vm(Box<VmExplanation>),
    Undefined(Box<Undefined>),
}

/// Everything that is known of a VM, with the words of the API.
#[derive(Debug, Serialize, Deserialize)]
pub struct VmExplanation {
    /// Its name; its UUID, if what its key holds cannot be a name.
    pub name: String,
    pub uuid: VmId,
    /// `None` here and below: its keys cannot be read.
    pub state: Option<VmState>,
    pub node: Option<String>,
    /// Keys that do not hold what is shown of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unreadable: BTreeSet<VmKey>,
    pub claim: Vec<NodeName>,
    #[serde(flatten)]
    pub running: Runners,
    /// Who may be executing it by its last word, which no claim has answered: nobody else starts it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_run_on: Vec<NodeName>,
    pub failed_reason: String,
    pub last_node: Option<NodeName>,
    pub migration_method: Option<MigrationMethod>,
    pub maintenance: bool,
    /// Which node would take it now if it had to go; absent with the next: it is not to run.
    pub could_go_to: Option<NodeName>,
    /// Why none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cannot_go_because: Option<String>,
    pub daemons: Vec<Daemon>,
    pub explanation: Option<Explanation>,
    pub console_log: Option<String>,
    /// What cannot be read of its keys, its definition and what its daemon says.
    pub problems: Vec<String>,
    pub conclusion: String,
}

/// Everything that is known of a VM.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Its name; its UUID, if what its key holds cannot be a name.
    pub name: String,
    pub id: VmId,
    pub entry: Entry<Vm>,
    pub nodes: Vec<Daemon>,
    pub running: Runners,
    /// Who may be executing it by its last word, which no claim has answered: nobody else starts it.
    pub last_words: Vec<NodeName>,
    pub said: Said,
    pub definition: Result<(), String>,
    pub console_log: Option<String>,
    pub maintenance: bool,
    /// Which node would take it now if it had to go, or why none does; `None`: it is not to run.
    pub could_go_to: Option<Result<NodeName, String>>,
}

/// What is known of a node's daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct Daemon {
    #[serde(deserialize_with = "NodeName::told")]
    pub node: NodeName,
    /// `None`: there is no such node.
    #[serde(rename = "daemon_state")]
    pub state: Option<DaemonState>,
    #[serde(skip)]
    pub(crate) cannot_start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush: Option<String>,
}

/// Explains a VM. `selector`: how a node would be chosen for it.
pub async fn explain(
    cluster: &Cluster,
    reference: &str,
    selector: Selector,
    now_unix_s: u64,
) -> Result<Explained, Failure> {
    let roster = cluster.roster().await?;
    let id = match (roster.find(reference), reference.parse()) {
        (Ok(id), _) => id,
        (Err(refusal), Ok(id)) => {
            let undefined = undefined::explain(cluster, id, refusal, now_unix_s).await?;
            return Ok(Explained::Undefined(Box::new(undefined)));
        }
        (Err(refusal), Err(_)) => return Err(refusal.into()),
    };
    let entry = cluster.entry(id).await?;
    let xml = cluster.xml(id).await?;
    let said = vm::read_explanation(&*cluster.store, id).await?;
    let view = cluster.view().await?;
    let flushes = cluster.flushes(&view).await?;
    let nodes = Nodes::of(&view);
    let mut running = nodes.runners().remove(&id).unwrap_or_default();
    let mut last_words = Vec::new();
    let mut concerned: Vec<NodeName> = Vec::new();
    let mut definition = Ok(());
    if let Entry::Good(vm) = &entry {
        let others = |node: &&NodeName| **node != vm.node.value;
        running = running.unanswered(&view, id, &vm.claim);
        last_words = said_last(&view, id, &vm.claim);
        concerned.push(vm.node.value.clone());
        concerned.extend(vm.claim.value.iter().filter(others).cloned());
        concerned.extend(last_words.iter().filter(others).cloned());
        definition = match &xml {
            None => Err("it is missing".to_owned()),
            Some(xml) => DomainSpec::parse_as(xml, id, &vm.name).map(drop).map_err(|e| e.to_string()),
        };
    }
    let daemon = |node: NodeName| {
        let flush = flush_words(&view, &node, flushes.get(&node));
        Daemon { flush, ..Daemon::of(&view, &nodes, node, now_unix_s) }
    };
    Ok(Explained::Vm(Box::new(VmExplanation::from(Facts {
        name: roster.name(id).unwrap_or_default().to_owned(),
        id,
        nodes: concerned.into_iter().map(daemon).collect(),
        running,
        last_words,
        said,
        definition,
        console_log: xml.and_then(|xml| DomainDetails::parse(&xml).ok()?.console_log),
        maintenance: nodes.maintenance,
        could_go_to: could_go_to(cluster, &view, &entry, selector).await?,
        entry,
    }))))
}

/// Which node would take a VM that is to run, if it had to leave its own.
async fn could_go_to(
    cluster: &Cluster,
    view: &ClusterView,
    entry: &Entry<Vm>,
    selector: Selector,
) -> Result<Option<Result<NodeName, String>>, Failure> {
    let Some(vm) = entry.good().filter(|vm| !matches!(vm.state.value, VmState::Stop | VmState::Delete))
    else {
        return Ok(None);
    };
    let ground = cluster.capacity(view).await?;
    // Without a readable definition there is a better reason than this one.
    let Ok(size) = cluster.size(&ground, vm).await else { return Ok(None) };
    let own =
        |node: &NodeName| (*node == vm.node.value || vm.claim.value.names(node)).then_some(Unfit::Excluded);
    let chosen = ground.capacity.choose(vm.id, size, selector, own);
    Ok(Some(chosen.map_err(|none| none.to_string())))
}

fn fence_words(fence: &Entry<Fence>) -> String {
    match fence {
        Entry::Good(fence) => {
            let nobody = if fence.fencer.is_none() { "; no coordinator works on it" } else { "" };
            format!("{}{nobody}", step_words(&fence.job))
        }
        Entry::Bad(_) => "the record of its fence cannot be read".to_owned(),
    }
}

fn flush_words(view: &ClusterView, node: &NodeName, progress: Option<&FlushProgress>) -> Option<String> {
    let doing = match view.node(node)?.domain_state.value {
        DomainState::Flush => "sends its VMs away",
        DomainState::Unflush => "takes its VMs back",
        DomainState::Ready | DomainState::Flushed => return None,
    };
    let left = progress.map(|p| format!(": {} of {} left, {} moving", p.left, p.total, p.moving));
    Some(format!("{doing}{}", left.unwrap_or_default()))
}

impl Daemon {
    fn of(view: &ClusterView, nodes: &Nodes, node: NodeName, now_unix_s: u64) -> Self {
        Self {
            state: nodes.get(&node).map(|n| n.daemon_state.value),
            cannot_start: nodes.get(&node).and_then(|n| n.report.cannot_start.clone()),
            silent_s: nodes.silent_s(&node, now_unix_s),
            fence: view.fences.get(&node).map(fence_words),
            flush: None,
            node,
        }
    }
}

impl From<Facts> for VmExplanation {
    fn from(facts: Facts) -> Self {
        let conclusion = conclusion::conclude(&facts);
        let mut problems: Vec<String> = facts.entry.problems().iter().map(Problem::to_string).collect();
        problems.extend(facts.definition.err().map(|e| format!("definition: {e}")));
        let (explanation, unreadable) = told(facts.said);
        problems.extend(unreadable);
        let vm = facts.entry.good();
        let (could_go_to, cannot_go_because) = match facts.could_go_to {
            Some(Ok(node)) => (Some(node), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        Self {
            name: facts.name,
            uuid: facts.id,
            state: vm.map(|vm| vm.state.value),
            node: vm.map(|vm| vm.node.value.to_string()),
            unreadable: vm.map(|vm| vm.unread.clone()).unwrap_or_default(),
            claim: vm.into_iter().flat_map(|vm| vm.claim.value.iter()).cloned().collect(),
            running: facts.running,
            may_run_on: facts.last_words,
            failed_reason: vm.map(|vm| vm.failed_reason.value.clone()).unwrap_or_default(),
            last_node: vm.and_then(|vm| vm.last_node.value.clone()),
            migration_method: vm.map(|vm| vm.migration_method),
            maintenance: facts.maintenance,
            could_go_to,
            cannot_go_because,
            daemons: facts.nodes,
            explanation,
            console_log: facts.console_log,
            problems,
            conclusion,
        }
    }
}
