//! `pvc node explain`: why a node is as it is, on one screen: its daemon, its fence, its flush, what keeps VMs from it.
//! Works also, and above all, when something is broken: whatever can be read is shown.

use pvc_core::{
    command::node::step_words,
    model::{FlushProgress, NodeName, RouterState, Word},
};
use pvc_operate::{
    node::{FenceShown, NodeExplanation},
    silence_words,
};

use crate::{
    cmd::{
        explain::{self, Line},
        now_unix_s,
    },
    door::Door,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look},
    },
};

pub(super) async fn explain(door: &Door, out: &Out, reference: &str) -> Result<(), Failure> {
    let facts = door.explain_node(reference).await?;
    if out.is_json() { out.json(&facts) } else { out.write(&people(&facts, out.colour())) }
}

fn people(facts: &NodeExplanation, colour: bool) -> String {
    let mut lines = vec![("node", Cell::from(facts.name.as_str()))];
    lines.extend(about(facts));
    lines.extend(explain::broken(&facts.problems));
    lines.extend(explain::maintenance(facts.maintenance));
    lines.extend(facts.fence.iter().flat_map(|fence| about_fence(&facts.name, fence, now_unix_s())));
    lines.extend(facts.flush.iter().flat_map(about_flush));
    lines.extend(explain::said(facts.explanation.as_ref()));
    if let Some(said) = &facts.as_primary {
        let words = said.error.as_ref().unwrap_or(&said.because);
        lines.push((
            "as primary",
            Cell::new(words, if said.error.is_some() { Look::Bad } else { Look::Busy }),
        ));
    }
    lines.push((
        "takes VMs",
        match &facts.takes_none_because {
            None => Cell::new("yes", Look::Good),
            Some(why) => Cell::new(format!("no: {why}"), Look::Busy),
        },
    ));
    lines.push(("memory kept", format!("{} MiB for VMs", facts.memory_reserved_mib).into()));
    for (word, names) in
        [("claims VMs", &facts.vms.claimed), ("its VMs", &facts.vms.belong), ("sent away", &facts.vms.away)]
    {
        lines.push((word, if names.is_empty() { "none".into() } else { names.join(", ").into() }));
    }
    explain::screen(&lines, &facts.conclusion, colour)
}

fn about(facts: &NodeExplanation) -> Vec<Line> {
    let mut lines = vec![("mode", facts.daemon_mode.as_str().into())];
    lines.push(("daemon", Cell::state(facts.daemon_state.as_str())));
    if let Some(silence) = facts.silent_s {
        lines.push(("silence", Cell::new(silence_words(silence), Look::Bad)));
    }
    let connected = if facts.connected { "its daemon has one" } else { "its daemon has none" };
    lines.push(("session", connected.into()));
    lines.push(("domains", Cell::state(facts.domain_state.as_str())));
    if facts.coordinator_state != RouterState::Client {
        let (desired, holder) = (&facts.primary_asked, &facts.primary);
        let word =
            |who: &Option<NodeName>| who.as_ref().map_or_else(|| "nobody".to_owned(), NodeName::to_string);
        lines.push(("coordinator", Cell::state(facts.coordinator_state.as_str())));
        lines.push(("primary", format!("{} holds it, {} is asked", word(holder), word(desired)).into()));
    }
    lines
}

fn about_fence(node: &NodeName, fence: &FenceShown, now_unix_s: u64) -> Vec<Line> {
    let job = &fence.job;
    let mut lines = vec![("fence", Cell::new(step_words(job), Look::Bad))];
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
        lines.push(("taken back by", format!("pvc node fence {node} --cancel").into()));
    }
    lines
}

fn about_flush(progress: &FlushProgress) -> Vec<Line> {
    let words = format!("{} of {} VMs left, {} moving", progress.left, progress.total, progress.moving);
    let stuck = progress.stuck.iter();
    let stuck = stuck.map(|s| ("stuck", Cell::new(format!("{}: {}", s.vm, s.reason), Look::Bad)));
    std::iter::once(("moving", Cell::from(words))).chain(stuck).collect()
}
