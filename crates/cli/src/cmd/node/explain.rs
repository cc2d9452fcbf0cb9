//! `pvc node explain`: why a node is as it is, on one screen: its daemon, its fence, its flush, what keeps VMs from it.
//! Works also, and above all, when something is broken: whatever can be read is shown.

use pvc_core::{
    command::node::step_words,
    model::{Entry, Fence, NodeName, RouterState, Word},
};
use pvc_operate::{Cluster, node, node::NodeExplanation, silence_words};

use crate::{
    cmd::{
        explain::{self, Line},
        now_unix_s,
    },
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look},
    },
};

pub(super) async fn explain(cluster: &Cluster, out: &Out, reference: &str) -> Result<(), Failure> {
    let facts = node::explain(cluster, reference, now_unix_s()).await?;
    if out.is_json() { out.json(&facts) } else { out.write(&people(&facts, out.colour())) }
}

fn people(facts: &NodeExplanation, colour: bool) -> String {
    let mut lines = vec![("node", Cell::from(facts.node.name.as_str()))];
    lines.extend(about(facts));
    lines.extend(explain::broken("broken key", &facts.node.problems));
    lines.extend(explain::maintenance(facts.maintenance));
    match &facts.fence {
        Some(Entry::Good(fence)) => lines.extend(about_fence(fence, now_unix_s())),
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
    explain::screen(&lines, &facts.conclusion(), colour)
}

fn about(facts: &NodeExplanation) -> Vec<Line> {
    let node = &facts.node;
    let mut lines = vec![("mode", node.mode.as_str().into())];
    lines.push(("daemon", Cell::state(node.daemon_state.value.as_str())));
    if let Some(silence) = facts.silent_s {
        lines.push(("silence", Cell::new(silence_words(silence), Look::Bad)));
    }
    let connected = if facts.connected { "its daemon has one" } else { "its daemon has none" };
    lines.push(("session", connected.into()));
    lines.push(("domains", Cell::state(node.domain_state.value.as_str())));
    if node.router_state.value != RouterState::Client {
        let (desired, holder) = (&facts.primary_asked, &facts.primary);
        let word =
            |who: &Option<NodeName>| who.as_ref().map_or_else(|| "nobody".to_owned(), NodeName::to_string);
        lines.push(("coordinator", Cell::state(node.router_state.value.as_str())));
        lines.push(("primary", format!("{} holds it, {} is asked", word(holder), word(desired)).into()));
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

fn about_flush(facts: &NodeExplanation) -> Vec<Line> {
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
