//! The one sentence about a node that an operator came for. Pure; the first cause that suffices is the answer.

#[cfg(test)]
mod tests;

use pvc_core::{
    command::node::step_words,
    model::{DaemonState, DomainState, Entry, Fence, FenceStep, Node},
};

use super::Facts;
use crate::{explain::sentence, silence_words};

/// Why the node is as it is, and what to do if something is to be done.
pub(super) fn conclude(facts: &Facts) -> String {
    let node = &facts.node;
    match &facts.fence {
        Some(Entry::Good(fence)) => return fenced(facts, fence),
        Some(Entry::Bad(_)) => {
            return format!(
                "The record of its fence cannot be read: `pvc node fence {} --cancel` ends it.",
                facts.node.name
            );
        }
        None => {}
    }
    let state = node.daemon_state.value;
    match (state, facts.silent_s) {
        (DaemonState::Dead, _) => dead(facts),
        (DaemonState::Run, Some(silence)) => quiet(facts, silence),
        (DaemonState::Init, _) => "Its daemon is starting.".to_owned(),
        (DaemonState::Shutdown, _) => "Its daemon is stopping in order; its VMs execute on, unless its machine is being shut down.".to_owned(),
        (DaemonState::Stop, _) => format!(
            "Its daemon is stopped: start pvcd there. {}",
            match facts.vms.claimed.len() {
                0 => "It claims no VMs.".to_owned(),
                n => format!(
                    "Its {n} VM(s) execute on without it, and nobody else may start them. If its machine was shut down they are off, and are \
                     started elsewhere once its BMC says that it is off, as the configuration of fencing says."
                ),
            }
        ),
        (DaemonState::Run, None) if !node.problems.is_empty() => {
            "It is given no VMs until the broken keys above are put right: its own daemon writes those that are its own again, the              others are for an operator."
                .to_owned()
        }
        (DaemonState::Run, None) => working(facts, node),
    }
}

fn fenced(facts: &Facts, fence: &Fence) -> String {
    let (name, words) = (&facts.node.name, step_words(&fence.job));
    let nobody = if fence.fencer.is_none() { " No coordinator works on it: see that one runs." } else { "" };
    if facts.maintenance && fence.job.step.proof().is_none() {
        return format!(
            "It is to be fenced, but maintenance is on, which suspends that: `pvc maintenance off`.{nobody}"
        );
    }
    match &fence.job.step {
        FenceStep::Failed { .. } if fence.job.confirmed_dead.is_some() => {
            format!(
                "An operator says that it is dead: its VMs are recovered once it has been silent long enough.{nobody}"
            )
        }
        FenceStep::Failed { .. } => format!(
            "It is silent and {words}. Nothing of it is touched and the attempt is repeated. If its power is off for certain: \
             `pvc node confirm-dead {name}`.{nobody}"
        ),
        _ => format!("It is being fenced: {words}.{nobody}"),
    }
}

fn dead(facts: &Facts) -> String {
    let left = facts.vms.claimed.len();
    let name = &facts.node.name;
    if left > 0 {
        return format!(
            "It is dead, and {left} VM(s) are still claimed by it: they were not recovered. `pvc vm explain` says why of each; \
             they start there when it is back."
        );
    }
    format!(
        "It was fenced, and its VMs were taken care of. Bring it back; then `pvc node ready {name}` lets it take VMs."
    )
}

fn quiet(facts: &Facts, silence_s: u64) -> String {
    let silent = silence_words(silence_s);
    let name = &facts.node.name;
    if facts.maintenance {
        return format!("Probably {silent}; it is not fenced, for maintenance is on.");
    }
    let session = if facts.connected { ", though it is connected to the state store" } else { "" };
    format!(
        "Look at it: {silent}{session}. Coordinators fence it when they miss it long enough, unless fence_intervals is 0; if \
         none does, see their logs, or `pvc node fence {name}`."
    )
}

fn working(facts: &Facts, node: &Node) -> String {
    let name = &facts.node.name;
    if let Some(Ok(said)) = &facts.said {
        return sentence(said);
    }
    if let Some(why) = &node.report.cannot_start {
        return format!(
            "It works, and can start no VMs: {why}. What runs there goes on; what is to start there and nobody claims starts elsewhere."
        );
    }
    let progress = facts.flush.as_ref().and_then(|flush| flush.as_ref().ok());
    let left = progress.map(|p| format!(" {} of {} are left.", p.left, p.total)).unwrap_or_default();
    match node.domain_state.value {
        DomainState::Ready => match &facts.unfit {
            None => "All is well: it works and takes VMs.".to_owned(),
            Some(unfit) => format!("It works, and is given no VMs: it {unfit}."),
        },
        DomainState::Flush => format!("It is sending its VMs away.{left}"),
        DomainState::Unflush => format!("It is taking its VMs back.{left}"),
        DomainState::Flushed => {
            format!("It works and takes no VMs, as asked: `pvc node ready {name}` changes that.")
        }
    }
}
