//! `pvc vm explain`: why a VM is as it is, on one screen: what is asked, what is seen, what the daemon says, a conclusion.
//! Works also, and above all, when something is broken: whatever can be read is shown.

mod conclusion;
mod undefined;

use pvc_core::{
    command::node::step_words,
    model::{
        Claim, ClusterView, DaemonState, DomainDetails, DomainSpec, DomainState, Entry, Explanation, Fence,
        Field, FlushProgress, Halt, MigrationMethod, NodeName, Problem, Vm, VmId, VmState,
    },
    plan::{placement::Unfit, vm::last_words},
};
use pvc_store::schema::vm;
use serde::Serialize;

use self::conclusion::conclude;
use super::list::{asked, wished_node};
use crate::{
    cmd::explain::{self, Said},
    connect::{self, Connection},
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look},
    },
    read::{Nodes, Runners, silent},
};

/// Everything a conclusion is drawn from.
#[derive(Debug)]
struct Facts {
    name: String,
    id: VmId,
    entry: Entry<Vm>,
    /// The nodes that may have a part in it: `node` and the claimants.
    nodes: Vec<Daemon>,
    /// Who reports to run it, and whose last word is that.
    running: Runners,
    /// Who may be executing it by its last word, which no claim has answered: nobody else starts it.
    last_words: Vec<NodeName>,
    /// What the daemon says about it.
    said: Said,
    /// What is wrong with its definition.
    definition: Result<(), String>,
    console_log: Option<String>,
    maintenance: bool,
    /// Which node would take it now if it had to go, or why none does; `None`: it is not to run.
    could_go_to: Option<Result<NodeName, String>>,
}

/// What is known of a node's daemon.
#[derive(Debug)]
struct Daemon {
    node: NodeName,
    /// `None`: there is no such node.
    state: Option<DaemonState>,
    /// Why it can start no VMs, as it says.
    cannot_start: Option<String>,
    /// For how long it has been silent, if that is suspicious.
    silent_s: Option<u64>,
    /// How far its fence has come, in words, if it is being fenced.
    fence: Option<String>,
    /// How far its flush or unflush has come, in words, if there is one.
    flush: Option<String>,
}

pub(super) async fn explain(cluster: &Connection, out: &Out, reference: &str) -> Result<(), Failure> {
    let roster = cluster.roster().await?;
    let id = match (roster.find(reference), reference.parse()) {
        (Ok(id), _) => id,
        (Err(refusal), Ok(id)) => return undefined::explain(cluster, out, id, refusal).await,
        (Err(refusal), Err(_)) => return Err(refusal.into()),
    };
    let name = roster.name(id).unwrap_or_default().to_owned();
    let entry = cluster.entry(id).await?;
    let xml = cluster.xml(id).await?;
    let said = vm::read_explanation(&*cluster.store, id).await?;
    let view = cluster.view().await?;
    let flushes = cluster.flushes(&view).await?;
    let mut facts = facts(name, id, entry, xml.as_deref(), &view, said);
    for daemon in &mut facts.nodes {
        daemon.fence = view.fences.get(&daemon.node).map(fence_words);
        daemon.flush = flush_words(&view, &daemon.node, flushes.get(&daemon.node));
    }
    facts.could_go_to = could_go_to(cluster, &view, &facts.entry).await?;
    if out.is_json() { out.json(&json(&facts)) } else { out.write(&people(&facts, out.colour())) }
}

/// Which node would take a VM that is to run, if it had to leave its own.
async fn could_go_to(
    cluster: &Connection,
    view: &ClusterView,
    entry: &Entry<Vm>,
) -> Result<Option<Result<NodeName, String>>, Failure> {
    let Some(vm) = entry.good().filter(|vm| !matches!(vm.state.value, VmState::Stop | VmState::Delete))
    else {
        return Ok(None);
    };
    let ground = cluster.rooms(view).await?;
    // Without a readable definition there is a better reason than this one.
    let Ok(size) = cluster.size(&ground, vm).await else { return Ok(None) };
    let own =
        |node: &NodeName| (*node == vm.node.value || vm.claim.value.names(node)).then_some(Unfit::Excluded);
    let chosen = ground.rooms.choose(vm.id, size, connect::selector(None), own);
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

/// Those whose last word is that they execute a VM, if no claim has answered that.
pub(super) fn said_last(view: &ClusterView, id: VmId, claim: &Field<Claim>) -> Vec<NodeName> {
    let says = |name: &&NodeName| view.node(name).is_some_and(|node| node.report.running.contains(&id));
    last_words(view, id, claim).filter(says).cloned().collect()
}

fn daemon(nodes: &Nodes, node: NodeName) -> Daemon {
    Daemon {
        state: nodes.get(&node).map(|n| n.daemon_state.value),
        cannot_start: nodes.get(&node).and_then(|n| n.report.cannot_start.clone()),
        silent_s: nodes.silent_s(&node),
        fence: None,
        flush: None,
        node,
    }
}

fn facts(
    name: String,
    id: VmId,
    entry: Entry<Vm>,
    xml: Option<&str>,
    view: &ClusterView,
    said: Said,
) -> Facts {
    let nodes = Nodes::of(view);
    let mut running = nodes.runners().remove(&id).unwrap_or_default();
    let mut last_words = Vec::new();
    let mut concerned: Vec<NodeName> = Vec::new();
    let mut definition = Ok(());
    if let Entry::Good(vm) = &entry {
        concerned.push(vm.node.value.clone());
        concerned.extend(vm.claim.value.iter().filter(|node| **node != vm.node.value).cloned());
        running = running.unanswered(view, id, &vm.claim);
        last_words = said_last(view, id, &vm.claim);
        concerned.extend(last_words.iter().filter(|node| **node != vm.node.value).cloned());
        definition = match xml {
            None => Err("it is missing".to_owned()),
            Some(xml) => DomainSpec::parse_as(xml, id, &vm.name).map(drop).map_err(|e| e.to_string()),
        };
    }
    Facts {
        name,
        id,
        entry,
        nodes: concerned.into_iter().map(|node| daemon(&nodes, node)).collect(),
        running,
        last_words,
        said,
        definition,
        console_log: xml.and_then(|xml| DomainDetails::parse(xml).ok()?.console_log),
        maintenance: nodes.maintenance,
        could_go_to: None,
    }
}

fn people(facts: &Facts, colour: bool) -> String {
    let mut lines = vec![("VM", Cell::from(&facts.name)), ("uuid", facts.id.to_string().into())];
    match &facts.entry {
        Entry::Good(vm) => {
            lines.push(("asked", asked(vm)));
            lines.push(("on node", wished_node(vm)));
            lines.push(("claimed by", or_nobody(vm.claim.value.iter()).into()));
            lines.push(("seen running on", facts.running.words().into()));
            if !facts.last_words.is_empty() {
                let who = format!("{}, by the last word of its daemon", or_nobody(facts.last_words.iter()));
                lines.push(("may run on", Cell::new(who, Look::Bad)));
            }
            if let Some(last) = &vm.last_node.value {
                lines.push(("migrated from", last.as_str().into()));
            }
            if vm.migration_method != MigrationMethod::None {
                lines.push(("migration", vm.migration_method.to_string().into()));
            }
            if !vm.failed_reason.value.is_empty() {
                let word = if vm.state.value == VmState::Failed { "failed because" } else { "last trouble" };
                lines.push((word, Cell::new(&vm.failed_reason.value, Look::Bad)));
            }
        }
        Entry::Bad(_) => {}
    }
    let broken = facts.entry.problems().iter();
    lines.extend(broken.map(|problem| ("broken key", Cell::new(problem.to_string(), Look::Bad))));
    for daemon in &facts.nodes {
        lines.push(("daemon of", daemon_cell(daemon)));
        let of = |words: &String| Cell::new(format!("{}: {words}", daemon.node), Look::Busy);
        lines.extend(daemon.fence.iter().map(|words| ("fence of", of(words))));
        lines.extend(daemon.flush.iter().map(|words| ("flush of", of(words))));
    }
    lines.extend(explain::maintenance(facts.maintenance));
    match &facts.could_go_to {
        Some(Ok(node)) => lines.push(("could go to", node.as_str().into())),
        Some(Err(why)) => lines.push(("could go to", Cell::new(why, Look::Busy))),
        None => {}
    }
    lines.extend(explain::said(&facts.said));
    if let Err(problem) = &facts.definition {
        lines.push(("definition", Cell::new(problem, Look::Bad)));
    }
    lines.push(("console log", facts.console_log.as_deref().unwrap_or("none in its definition").into()));
    explain::screen(&lines, &conclude(facts), colour)
}

fn daemon_cell(Daemon { node, state, silent_s, .. }: &Daemon) -> Cell {
    match (state, silent_s) {
        (_, Some(silence)) => Cell::new(format!("{node}: {}", silent(*silence)), Look::Bad),
        (Some(DaemonState::Run), None) => Cell::new(format!("{node}: run"), Look::Good),
        (Some(state), None) => Cell::new(format!("{node}: {state}"), Look::Bad),
        (None, None) => Cell::new(format!("{node}: no such node"), Look::Bad),
    }
}

fn or_nobody<'a>(nodes: impl Iterator<Item = &'a NodeName>) -> String {
    let names: Vec<&str> = nodes.map(NodeName::as_str).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

/// The same in JSON.
#[derive(Serialize)]
struct ExplainJson<'a> {
    name: &'a str,
    uuid: VmId,
    state: Option<&'a str>,
    node: Option<&'a str>,
    claim: Vec<&'a str>,
    running_on: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_executing: Option<Halt>,
    /// By their last word, which no claim has answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    may_run_on: Vec<&'a str>,
    failed_reason: &'a str,
    last_node: Option<&'a NodeName>,
    migration_method: Option<MigrationMethod>,
    maintenance: bool,
    could_go_to: Option<&'a NodeName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cannot_go_because: Option<&'a str>,
    daemons: Vec<DaemonJson<'a>>,
    explanation: Option<&'a Explanation>,
    console_log: Option<&'a str>,
    problems: Vec<String>,
    conclusion: String,
}

#[derive(Serialize)]
struct DaemonJson<'a> {
    node: &'a str,
    daemon_state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    silent_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flush: Option<&'a str>,
}

fn daemon_json(daemon: &Daemon) -> DaemonJson<'_> {
    DaemonJson {
        node: daemon.node.as_str(),
        daemon_state: daemon.state.map(DaemonState::as_str),
        silent_s: daemon.silent_s,
        fence: daemon.fence.as_deref(),
        flush: daemon.flush.as_deref(),
    }
}

fn json(facts: &Facts) -> ExplainJson<'_> {
    let vm = facts.entry.good();
    let mut problems: Vec<String> = facts.entry.problems().iter().map(Problem::to_string).collect();
    problems.extend(facts.definition.as_ref().err().map(|e| format!("definition: {e}")));
    problems.extend(facts.said.as_ref().and_then(|said| said.as_ref().err()).map(Problem::to_string));
    ExplainJson {
        name: &facts.name,
        uuid: facts.id,
        state: vm.map(|vm| vm.state.value.as_str()),
        node: vm.map(|vm| vm.node.value.as_str()),
        claim: vm.into_iter().flat_map(|vm| vm.claim.value.iter()).map(NodeName::as_str).collect(),
        running_on: facts.running.now.iter().map(NodeName::as_str).collect(),
        not_executing: facts.running.halted.as_ref().map(|(_, halt)| *halt),
        may_run_on: facts.last_words.iter().map(NodeName::as_str).collect(),
        failed_reason: vm.map(|vm| vm.failed_reason.value.as_str()).unwrap_or_default(),
        last_node: vm.and_then(|vm| vm.last_node.value.as_ref()),
        migration_method: vm.map(|vm| vm.migration_method),
        maintenance: facts.maintenance,
        could_go_to: facts.could_go_to.as_ref().and_then(|to| to.as_ref().ok()),
        cannot_go_because: facts.could_go_to.as_ref().and_then(|to| to.as_ref().err()).map(String::as_str),
        daemons: facts.nodes.iter().map(daemon_json).collect(),
        explanation: facts.said.as_ref().and_then(|said| said.as_ref().ok()),
        console_log: facts.console_log.as_deref(),
        problems,
        conclusion: conclude(facts),
    }
}
