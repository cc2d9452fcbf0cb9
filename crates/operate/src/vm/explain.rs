//! Why a VM is as it is: what is asked, what is seen, what the daemon says, a conclusion. Works also, and above all, when something is
//! broken: whatever can be read is told.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

mod conclusion;
mod undefined;

pub use undefined::Undefined;

use pvc_core::{
    command::node::step_words,
    model::{
        ClusterView, DaemonState, DomainDetails, DomainSpec, DomainState, Entry, Explanation, Fence,
        FlushProgress, Halt, MigrationMethod, NodeName, Problem, Vm, VmId, VmState,
    },
    plan::placement::{Selector, Unfit},
};
use pvc_store::schema::vm;
use serde::{Serialize, Serializer};

use crate::{Cluster, Failure, Nodes, Runners, explain::Said, read::said_last};

/// What is known of a VM, or of a UUID that is none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Explained {
    Vm(Box<VmExplanation>),
    Undefined(Box<Undefined>),
}

/// Everything that is known of a VM.
#[derive(Debug)]
pub struct VmExplanation {
    /// Its name, which may be anything if it is broken.
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
#[derive(Debug, Serialize)]
pub struct Daemon {
    pub node: NodeName,
    /// `None`: there is no such node.
    #[serde(rename = "daemon_state")]
    pub state: Option<DaemonState>,
    #[serde(skip)]
    pub cannot_start: Option<String>,
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
    Ok(Explained::Vm(Box::new(VmExplanation {
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
    })))
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
            format!("{}{nobody}", step_words(&fence.job.step))
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

impl VmExplanation {
    /// The one sentence that an operator came for.
    pub fn conclusion(&self) -> String {
        conclusion::conclude(self)
    }
}

impl Serialize for VmExplanation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            name: &'a str,
            uuid: VmId,
            state: Option<VmState>,
            node: Option<&'a NodeName>,
            claim: Vec<&'a NodeName>,
            running_on: &'a [NodeName],
            #[serde(skip_serializing_if = "Option::is_none")]
            not_executing: Option<Halt>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            may_run_on: &'a [NodeName],
            failed_reason: &'a str,
            last_node: Option<&'a NodeName>,
            migration_method: Option<MigrationMethod>,
            maintenance: bool,
            could_go_to: Option<&'a NodeName>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cannot_go_because: Option<&'a str>,
            daemons: &'a [Daemon],
            explanation: Option<&'a Explanation>,
            console_log: Option<&'a str>,
            problems: Vec<String>,
            conclusion: String,
        }
        let vm = self.entry.good();
        let mut problems: Vec<String> = self.entry.problems().iter().map(Problem::to_string).collect();
        problems.extend(self.definition.as_ref().err().map(|e| format!("definition: {e}")));
        problems.extend(self.said.as_ref().and_then(|said| said.as_ref().err()).map(Problem::to_string));
        let shape = Shape {
            name: &self.name,
            uuid: self.id,
            state: vm.map(|vm| vm.state.value),
            node: vm.map(|vm| &vm.node.value),
            claim: vm.into_iter().flat_map(|vm| vm.claim.value.iter()).collect(),
            running_on: &self.running.now,
            not_executing: self.running.halted.as_ref().map(|(_, halt)| *halt),
            may_run_on: &self.last_words,
            failed_reason: vm.map(|vm| vm.failed_reason.value.as_str()).unwrap_or_default(),
            last_node: vm.and_then(|vm| vm.last_node.value.as_ref()),
            migration_method: vm.map(|vm| vm.migration_method),
            maintenance: self.maintenance,
            could_go_to: self.could_go_to.as_ref().and_then(|to| to.as_ref().ok()),
            cannot_go_because: self.could_go_to.as_ref().and_then(|to| to.as_ref().err()).map(String::as_str),
            daemons: &self.nodes,
            explanation: self.said.as_ref().and_then(|said| said.as_ref().ok()),
            console_log: self.console_log.as_deref(),
            problems,
            conclusion: self.conclusion(),
        };
        shape.serialize(serializer)
    }
}
