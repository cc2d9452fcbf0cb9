//! The one sentence an operator came for. Pure; the first cause that suffices is the answer.

#[cfg(test)]
mod tests;

use pvc_core::{
    model::{DaemonState, Entry, NodeName, Vm, VmKey, VmState},
    plan::flush::GIVES_AWAY_AFTER,
};

use super::{Daemon, Facts};
use crate::{Runners, explain::sentence, silence_words};

/// Why the VM is as it is, and what to do if something is to be done.
pub(super) fn conclude(facts: &Facts) -> String {
    let vm = match &facts.entry {
        Entry::Good(vm) => vm,
        Entry::Bad(_) => {
            return "Nothing is done with this VM until the broken keys above are put right.".to_owned();
        }
    };
    if facts.running.now.len() > 1 {
        return format!(
            "It is reported by more than one node ({}): look at them at once.",
            list(&facts.running.now)
        );
    }
    if vm.cannot_read(VmKey::Claim) {
        return "Who may be executing it is not known, since its claim cannot be read: it neither starts nor is it moved until \
                that names the node that runs it, or nothing if none does."
            .to_owned();
    }
    if let Some(doubt) = doubt(facts, vm) {
        return doubt;
    }
    if vm.is_half_deleted() {
        let name = &vm.name;
        return format!(
            "It is half deleted: its key state is gone. `pvc vm undefine {name}` ends that, `pvc vm start {name}` keeps it."
        );
    }
    if vm.cannot_read(VmKey::State) {
        return format!(
            "What is asked of it cannot be read, so it stays as it is: `pvc vm start {}` or `stop` says it anew.",
            vm.name
        );
    }
    match vm.state.value {
        VmState::Start | VmState::Restart | VmState::Migrate => to_run(facts, vm),
        VmState::Stop | VmState::Shutdown | VmState::Delete => to_be_off(facts, vm),
        VmState::Failed => format!(
            "It failed: {}. Nothing is tried again until you ask: `pvc vm start {}`.",
            if vm.failed_reason.value.is_empty() {
                "no reason is given"
            } else {
                vm.failed_reason.value.trim_end_matches('.')
            },
            vm.name
        ),
    }
}

/// Another node's last word is that it executes it, and that has not been answered: nothing is well then, whatever else is.
fn doubt(facts: &Facts, vm: &Vm) -> Option<String> {
    let is_in_doubt = |other: &&NodeName| {
        **other != vm.node.value
            || vm.state.value == VmState::Stop
            || daemon_trouble(&facts.nodes, other).is_some()
    };
    let other = facts.last_words.iter().find(is_in_doubt)?;
    let said = format!("{other} said last that it runs it");
    let Some(trouble) = daemon_trouble(&facts.nodes, other) else {
        return Some(format!(
            "{said}, and does not claim it: that should end within seconds. If it stays so, see the log of pvcd on {other}."
        ));
    };
    let way_out = way_out(&facts.nodes, other);
    let running = facts.running.now.iter().find(|node| *node != other);
    Some(match (vm.state.value, running) {
        (_, Some(node)) => {
            format!(
                "It runs on {node}, but {said}, too, and {trouble}. It may run twice: look at {other} at once.{way_out}"
            )
        }
        (VmState::Start | VmState::Restart | VmState::Migrate, None) if *other != vm.node.value => format!(
            "{} does not start it: {said}, and {trouble}. It waits until {other} says otherwise or is proven dead.{way_out}",
            vm.node.value
        ),
        _ => format!("{said}, and {trouble}: it may still run there.{way_out}"),
    })
}

/// What an operator can do about a node that may be executing a VM and does not answer, besides mending it.
pub(super) fn way_out(daemons: &[Daemon], node: &NodeName) -> String {
    let Some(daemon) = daemons.iter().find(|daemon| daemon.node == *node) else { return String::new() };
    match daemon.state {
        // Its fence says what is to be done.
        Some(_) if daemon.fence.is_some() => format!(" See `pvc node explain {node}`."),
        Some(state) if state != DaemonState::Dead => {
            format!(" If {node} is off for certain: `pvc node confirm-dead {node}`.")
        }
        _ => String::new(),
    }
}

fn to_run(facts: &Facts, vm: &Vm) -> String {
    let node = &vm.node.value;
    let settled = vm.state.value == VmState::Start
        && facts.running.now == [node.clone()]
        && vm.claim.value.is_only(node);
    if let Some(out_of_order) = daemon_trouble(&facts.nodes, node) {
        let running = if facts.running == Runners::default() { "is to run" } else { "was last seen running" };
        return format!("It {running} on {node}, but {out_of_order}.{}", storage(facts, vm));
    }
    if let Some((on, halt)) = facts.running.halted.as_ref().filter(|(on, _)| on == node) {
        let broken =
            facts.definition.as_ref().err().map(|problem| {
                format!(" It could not be started again: its definition is refused: {problem}.")
            });
        let (what, way_out) = (halt.what(), halt.way_out(&vm.name, on));
        return format!(
            "It is on {on} and does not execute: {what}. To go on: {way_out}.{}",
            broken.unwrap_or_default()
        );
    }
    if let Err(problem) = &facts.definition {
        // A guest that runs needs no definition until its node fails.
        let runs = facts.running.now.first();
        return match runs {
            Some(node) => format!(
                "It runs on {node}, but it could not be started again: its definition is refused: {problem}. Write it again before its node fails."
            ),
            None => format!("It cannot be started: its definition is refused: {problem}."),
        };
    }
    if let Some(why) = unable(facts, vm) {
        return why;
    }
    if settled && facts.said.is_none() {
        return format!("All is well: it runs on {node}, as asked.");
    }
    let others: Vec<NodeName> = vm.claim.value.iter().filter(|claimant| *claimant != node).cloned().collect();
    let absent = absent(facts, &others);
    // What helps is more than what its daemon says, which waits.
    if absent.is_empty()
        && let Some(said) = said(facts)
    {
        return said;
    }
    if vm.state.value == VmState::Migrate && !others.is_empty() && absent.is_empty() {
        return format!("It is migrating from {} to {node}.", list(&others));
    }
    if !others.is_empty() {
        return format!(
            "{node} waits until {} no longer may be executing it.{absent}{}",
            list(&others),
            storage(facts, vm)
        );
    }
    if settled {
        return format!("All is well: it runs on {node}, as asked.");
    }
    if vm.claim.value.names(node) {
        return format!("{node} has claimed it and is about to {} it.", vm.state.value);
    }
    format!(
        "{node} has not taken it up yet. That takes less than a second; if it stays so, see the log of pvcd on {node}."
    )
}

/// Its node works, and can start nothing.
fn unable(facts: &Facts, vm: &Vm) -> Option<String> {
    let node = &vm.node.value;
    let why = facts.nodes.iter().find(|daemon| daemon.node == *node)?.cannot_start.as_ref()?;
    if facts.running.now.contains(node) {
        return None;
    }
    if vm.claim.value.names(node) {
        return Some(format!(
            "{node} claims it and may be executing it, which nobody can tell while it can start no VMs: {why}. It is not started elsewhere."
        ));
    }
    let elsewhere = match &facts.could_go_to {
        _ if !vm.claim.value.is_empty() => return None,
        Some(Ok(other)) => format!(
            "If that lasts for {} s, it starts on another node, such as {other}.",
            GIVES_AWAY_AFTER.as_secs()
        ),
        Some(Err(none)) => format!("It waits, since {none}."),
        None => "It waits.".to_owned(),
    };
    Some(format!("It is to run on {node}, which can start no VMs: {why}. {elsewhere}"))
}

fn to_be_off(facts: &Facts, vm: &Vm) -> String {
    let claimants: Vec<NodeName> = vm.claim.value.iter().cloned().collect();
    if let Some(node) = claimants.iter().find(|node| daemon_trouble(&facts.nodes, node).is_some()) {
        let trouble = daemon_trouble(&facts.nodes, node).unwrap_or_default();
        return format!("{node} may still be executing it, but {trouble}.{}", way_out(&facts.nodes, node));
    }
    if let Some(said) = said(facts) {
        return said;
    }
    let name = &vm.name;
    match (vm.state.value, &claimants[..], &facts.running.now[..]) {
        (VmState::Stop, [], []) => "All is well: it is off, as asked.".to_owned(),
        (VmState::Delete, [], []) => {
            format!("It is off and about to be removed. If nobody does: `pvc vm undefine {name}`.")
        }
        (_, [], []) => {
            let node = &vm.node.value;
            match daemon_trouble(&facts.nodes, node) {
                Some(trouble) => format!("It is off; {node} would say so, but {trouble}."),
                None => format!("It is off, and {node} is about to say so."),
            }
        }
        (_, [], running) => format!(
            "Nobody claims it, but {} reports to run it; that should end within seconds.",
            list(running)
        ),
        (VmState::Shutdown, claimants, _) => format!("{} waits for the guest to shut down.", list(claimants)),
        (_, claimants, _) => format!("{} is about to power it off.", list(claimants)),
    }
}

fn said(facts: &Facts) -> Option<String> {
    Some(sentence(facts.said.as_ref()?.as_ref().ok()?))
}

/// Why a node's daemon cannot do anything now.
pub(super) fn daemon_trouble(daemons: &[Daemon], node: &NodeName) -> Option<String> {
    let daemon = daemons.iter().find(|daemon| daemon.node == *node)?;
    if let Some(silence) = daemon.silent_s {
        return Some(silence_words(silence));
    }
    match daemon.state {
        None => Some("there is no such node (or its keys are broken: `pvc node list`)".to_owned()),
        Some(DaemonState::Run) => None,
        Some(DaemonState::Init) => Some("its daemon is starting".to_owned()),
        Some(DaemonState::Shutdown | DaemonState::Stop) => {
            Some("its daemon is stopped: start pvcd there".to_owned())
        }
        Some(DaemonState::Dead) => Some(match &daemon.fence {
            Some(words) => format!("the node is dead and being fenced: {words}"),
            None => "the node is dead: bring it back".to_owned(),
        }),
    }
}

/// Why a VM of a dead node is not started elsewhere, if its disks are the reason.
fn storage(facts: &Facts, vm: &Vm) -> String {
    let dead = |name: &&NodeName| {
        facts.nodes.iter().any(|daemon| daemon.node == **name && daemon.state == Some(DaemonState::Dead))
    };
    match vm.claim.value.iter().find(dead) {
        Some(node) if !vm.rbd_images.is_empty() => {
            format!(
                " It has RBD disks: it is not started elsewhere before {node} is shut out of the storage."
            )
        }
        _ => String::new(),
    }
}

fn absent(facts: &Facts, nodes: &[NodeName]) -> String {
    let trouble =
        nodes.iter().find_map(|node| daemon_trouble(&facts.nodes, node).map(|trouble| (node, trouble)));
    let told = |(node, trouble): (&NodeName, String)| {
        format!(" As for {node}, {trouble}.{}", way_out(&facts.nodes, node))
    };
    trouble.map(told).unwrap_or_default()
}

fn list(nodes: &[NodeName]) -> String {
    nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}
