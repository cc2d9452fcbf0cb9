//! `pvc node explain`: why a node is as it is, on one screen: its daemon, its fence, its flush, what keeps VMs from it.
//! Works also, and above all, when something is broken: whatever can be read is shown.

mod conclusion;

use pvc_core::{
    command::node::step_words,
    model::{
        ClusterView, Entry, Explanation, Fence, FlushProgress, Node, NodeName, Problem, RouterState, VmId,
        Word,
    },
    plan::placement::{Size, Unfit},
};
use pvc_store::schema::{flush, node, owner, primary};
use serde::Serialize;

use self::conclusion::conclude;
use crate::{
    cmd::explain::{self, Line, Said},
    connect::Connection,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look},
    },
    read::{Nodes, now_unix_s, silent},
};

/// Everything a conclusion is drawn from.
#[derive(Debug)]
struct Facts {
    name: NodeName,
    node: Node,
    /// For how long it has been silent, if that is suspicious.
    silent_s: Option<u64>,
    /// Whether its daemon has a session with the state store.
    connected: bool,
    maintenance: bool,
    /// Who shall be primary, and who is.
    primary: (Option<NodeName>, Option<NodeName>),
    fence: Option<Entry<Fence>>,
    flush: Option<Result<FlushProgress, Problem>>,
    /// What its daemon, or its fencer, says about it.
    said: Said,
    /// What it says about being primary.
    as_primary: Option<Explanation>,
    /// Why it takes no VMs now.
    unfit: Option<Unfit>,
    reserved_mib: u64,
    vms: Vms,
    /// This machine's clock.
    now_unix_s: u64,
}

/// VMs by name.
#[derive(Debug, Default, Serialize)]
struct Vms {
    /// Which it may be executing.
    claimed: Vec<String>,
    /// Which belong here, asked to run or not.
    belong: Vec<String>,
    /// Which are to return when it takes VMs again.
    away: Vec<String>,
}

pub(super) async fn explain(cluster: &Connection, out: &Out, reference: &str) -> Result<(), Failure> {
    let view = cluster.view().await?;
    let node = pvc_core::command::find::node_in(&view, reference)?;
    let facts = facts(cluster, &view, node.clone()).await?;
    if out.is_json() { out.json(&json(&facts)) } else { out.write(&people(&facts, out.colour())) }
}

async fn facts(cluster: &Connection, view: &ClusterView, node: Node) -> Result<Facts, Failure> {
    let name = node.name.clone();
    let store = &*cluster.store;
    let ground = cluster.rooms(view).await?;
    let named = |of: &dyn Fn(&pvc_core::model::Vm) -> bool| {
        let mut names: Vec<String> =
            view.good_vms().filter(|vm| of(vm)).map(|vm| vm.name.to_string()).collect();
        names.sort_unstable();
        names
    };
    let vms = Vms {
        claimed: named(&|vm| vm.claim.value.names(&name)),
        belong: named(&|vm| vm.node.value == name),
        away: named(&|vm| vm.last_node.value.as_ref() == Some(&name)),
    };
    Ok(Facts {
        node,
        silent_s: Nodes::of(view).silent_s(&name),
        connected: owner::read(store, &name).await?.is_some(),
        maintenance: view.maintenance,
        primary: (view.primary_node.value.clone(), view.primary_holder.clone()),
        fence: view.fences.get(&name).cloned(),
        flush: flush::read(store, &name).await?,
        said: node::read_explanation(store, &name).await?,
        as_primary: primary::read_explanation(store)
            .await?
            .and_then(Result::ok)
            .filter(|said| said.by == name.as_str()),
        unfit: ground.rooms.admits(&name, VmId::NIL, Size::default()).err(),
        reserved_mib: ground.rooms.reserved_mib(&name),
        vms,
        now_unix_s: now_unix_s(),
        name,
    })
}

fn people(facts: &Facts, colour: bool) -> String {
    let mut lines = vec![("node", Cell::from(facts.name.as_str()))];
    lines.extend(about(facts));
    lines.extend(explain::broken("broken key", &facts.node.problems));
    lines.extend(explain::maintenance(facts.maintenance));
    match &facts.fence {
        Some(Entry::Good(fence)) => lines.extend(about_fence(fence, facts.now_unix_s)),
        Some(Entry::Bad(problems)) => lines.extend(explain::broken("fence", problems)),
        None => {}
    }
    lines.extend(about_flush(facts));
    lines.extend(explain::said(&facts.said));
    if let Some(said) = &facts.as_primary {
        let words = said.error.as_ref().unwrap_or(&said.because);
        lines.push((
            "as primary",
            Cell::new(words, if said.error.is_some() { Look::Bad } else { Look::Busy }),
        ));
    }
    lines.push((
        "takes VMs",
        match &facts.unfit {
            None => Cell::new("yes", Look::Good),
            Some(unfit) => Cell::new(format!("no: it {unfit}"), Look::Busy),
        },
    ));
    lines.push(("memory kept", format!("{} MiB for VMs", facts.reserved_mib).into()));
    for (word, names) in
        [("claims VMs", &facts.vms.claimed), ("its VMs", &facts.vms.belong), ("sent away", &facts.vms.away)]
    {
        lines.push((word, if names.is_empty() { "none".into() } else { names.join(", ").into() }));
    }
    explain::screen(&lines, &conclude(facts), colour)
}

fn about(facts: &Facts) -> Vec<Line> {
    let node = &facts.node;
    let mut lines = vec![("mode", node.mode.as_str().into())];
    lines.push(("daemon", Cell::state(node.daemon_state.value.as_str())));
    if let Some(silence) = facts.silent_s {
        lines.push(("silence", Cell::new(silent(silence), Look::Bad)));
    }
    let connected = if facts.connected { "its daemon has one" } else { "its daemon has none" };
    lines.push(("session", connected.into()));
    lines.push(("domains", Cell::state(node.domain_state.value.as_str())));
    if node.router_state.value != RouterState::Client {
        let (wish, holder) = &facts.primary;
        let word =
            |who: &Option<NodeName>| who.as_ref().map_or_else(|| "nobody".to_owned(), NodeName::to_string);
        lines.push(("coordinator", Cell::state(node.router_state.value.as_str())));
        lines.push(("primary", format!("{} holds it, {} is asked", word(holder), word(wish)).into()));
    }
    lines
}

fn about_fence(fence: &Fence, now_unix_s: u64) -> Vec<Line> {
    let job = &fence.job;
    let mut lines = vec![("fence", Cell::new(step_words(&job.step), Look::Bad))];
    if let Some(proof) = job.step.proof() {
        lines.push(("proof of death", proof.to_string().into()));
    }
    let who = fence.fencer.as_ref().map_or_else(|| "nobody works on it".to_owned(), NodeName::to_string);
    lines.push(("fencer", who.into()));
    let ago = now_unix_s.saturating_sub(job.at_unix_s);
    lines.push(("recorded", format!("by {} {ago} s ago (by its clock and this machine's)", job.by).into()));
    let word = |word: &Word| {
        let ago = now_unix_s.saturating_sub(word.at_unix_s);
        format!("by {} {ago} s ago (by that clock and this machine's)", word.by)
    };
    if let Some(asked) = &job.asked {
        let words = format!("{}: of its present boot, whose signs of life do not call it off", word(asked));
        lines.push(("asked for", words.into()));
    }
    if let Some(confirmed) = &job.confirmed_dead {
        lines.push(("said to be dead", format!("{}: until it gives a sign of life", word(confirmed)).into()));
    }
    if job.word().is_some() {
        lines.push(("taken back by", format!("pvc node fence {} --cancel", fence.node).into()));
    }
    lines
}

fn about_flush(facts: &Facts) -> Vec<Line> {
    match &facts.flush {
        None => Vec::new(),
        Some(Err(problem)) => vec![("moving", Cell::new(problem.to_string(), Look::Bad))],
        Some(Ok(progress)) => {
            let words =
                format!("{} of {} VMs left, {} moving", progress.left, progress.total, progress.moving);
            let stuck = progress
                .stuck
                .iter()
                .map(|s| ("stuck", Cell::new(format!("{}: {}", s.vm, s.reason), Look::Bad)));
            std::iter::once(("moving", Cell::from(words))).chain(stuck).collect()
        }
    }
}

/// The same in JSON.
#[derive(Serialize)]
struct ExplainJson<'a> {
    name: &'a str,
    daemon_state: &'a str,
    coordinator_state: &'a str,
    domain_state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    silent_s: Option<u64>,
    connected: bool,
    maintenance: bool,
    primary_asked: Option<&'a NodeName>,
    primary: Option<&'a NodeName>,
    fence: Option<FenceJson<'a>>,
    flush: Option<&'a FlushProgress>,
    explanation: Option<&'a Explanation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_primary: Option<&'a Explanation>,
    takes_vms: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    takes_none_because: Option<String>,
    memory_reserved_mib: u64,
    vms: &'a Vms,
    problems: Vec<String>,
    conclusion: String,
}

#[derive(Serialize)]
struct FenceJson<'a> {
    #[serde(flatten)]
    job: &'a pvc_core::model::FenceJob,
    fencer: Option<&'a NodeName>,
}

fn json(facts: &Facts) -> ExplainJson<'_> {
    let node = &facts.node;
    let problems = node
        .problems
        .iter()
        .chain(facts.fence.iter().flat_map(explain::problems))
        .chain(facts.flush.iter().filter_map(|flush| flush.as_ref().err()))
        .chain(facts.said.iter().filter_map(|said| said.as_ref().err()));
    let fence = facts.fence.as_ref().and_then(Entry::good);
    ExplainJson {
        name: facts.name.as_str(),
        daemon_state: node.daemon_state.value.as_str(),
        coordinator_state: node.router_state.value.as_str(),
        domain_state: node.domain_state.value.as_str(),
        silent_s: facts.silent_s,
        connected: facts.connected,
        maintenance: facts.maintenance,
        primary_asked: facts.primary.0.as_ref(),
        primary: facts.primary.1.as_ref(),
        fence: fence.map(|fence| FenceJson { job: &fence.job, fencer: fence.fencer.as_ref() }),
        flush: facts.flush.as_ref().and_then(|flush| flush.as_ref().ok()),
        explanation: facts.said.as_ref().and_then(|said| said.as_ref().ok()),
        as_primary: facts.as_primary.as_ref(),
        takes_vms: facts.unfit.is_none(),
        takes_none_because: facts.unfit.as_ref().map(|unfit| format!("it {unfit}")),
        memory_reserved_mib: facts.reserved_mib,
        vms: &facts.vms,
        problems: problems.map(ToString::to_string).collect(),
        conclusion: conclude(facts),
    }
}
