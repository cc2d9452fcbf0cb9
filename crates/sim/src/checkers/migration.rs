//! 9. A failed migration leaves the VM on exactly one side.
//!
//! Nor is a guest ended for a move to a node that could not start it, as that says when it is asked (decision 100).
//! None begins to a node whose daemon has no session, which may never let go on what arrives there.
//! While two nodes claim a VM that shall migrate, nobody ends the only instance that executes. A copy that a migration has brought, or
//! left, never goes on once its VM has executed elsewhere: it knows nothing of what has been written since. When all is settled there is no
//! remnant: one process at most of each VM, and exactly where the claim says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pvc_core::model::{NodeName, VmId};

use crate::{
    checkers::Checker,
    event::{Ask, Change, Commit, Event, Guest, Machine, Phase, Stamped},
    tree::Tree,
    truth::Truth,
};

use crate::keys;

/// How long a command that is gone may still be acted upon.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Migration {
    /// Since when each VM's desired state, node and claim have been as they are.
    since: BTreeMap<VmId, Duration>,
    /// When each desired state was written.
    desired: BTreeMap<VmId, Duration>,
    /// Where copies are whose VM has executed elsewhere since they came.
    old: BTreeSet<(VmId, NodeName)>,
}

impl Checker for Migration {
    fn invariant(&self) -> u8 {
        9
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Commit(commit) => {
                self.note(truth, commit);
                return commit.changes.iter().try_for_each(|change| begins(tree, commit, change));
            }
            Event::Machine { node, what: Machine::Off } => self.old.retain(|(_, on)| on != node),
            Event::Guest { vm, node, what } => return self.turns(truth, *vm, node, *what),
            Event::Asked { node, vm, what: Ask::PowerOff } => {
                self.ends(truth, tree, node, *vm)?;
                return self.ends_for_a_move(truth, tree, node, *vm);
            }
            Event::Asked { node, vm, what: Ask::ShutDown } => {
                return self.ends_for_a_move(truth, tree, node, *vm);
            }
            Event::Phase(Phase::Settled) => {
                return tree.vms().try_for_each(|vm| is_on_one_side(truth, tree, vm));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Migration {
    fn note(&mut self, truth: &Truth, commit: &Commit) {
        for change in &commit.changes {
            if let Some((vm, key @ ("state" | "node" | "claim"))) = keys::of_vm(&change.path) {
                self.since.insert(vm, truth.now);
                if key == "state" {
                    self.desired.insert(vm, truth.now);
                }
            }
        }
    }

    fn turns(&mut self, truth: &Truth, vm: VmId, node: &NodeName, what: Guest) -> Result<(), String> {
        let old = self.old.remove(&(vm, node.clone()));
        // What libvirt or somebody's hand has started is no side of a migration; see `strangers`.
        if what != Guest::Executes || truth.strangers.contains_key(&(vm, node.clone())) {
            return Ok(());
        }
        if old && !truth.machine(node).bmc_lies {
            return Err(format!("{vm} goes on at {node}, from before it executed elsewhere"));
        }
        let elsewhere = truth.guests.get(&vm).into_iter().flatten().filter(|(other, _)| *other != node);
        self.old.extend(elsewhere.map(|(other, _)| (vm, other.clone())));
        Ok(())
    }

    fn ends(&self, truth: &Truth, tree: &Tree, node: &NodeName, vm: VmId) -> Result<(), String> {
        let old = self.since.get(&vm).is_some_and(|since| truth.now > *since + ON_ITS_WAY);
        let migrates = tree.vm(vm, "state") == "migrate" && tree.claim(vm).count() == 2;
        if !old || !migrates || truth.machine(node).bmc_lies {
            return Ok(());
        }
        let executes: Vec<&NodeName> = truth.executing(vm).map(|(node, _)| node).collect();
        if executes == [node] {
            return Err(format!(
                "{node} ends {vm} in the middle of its migration, and it executes nowhere else"
            ));
        }
        Ok(())
    }
}

impl Migration {
    /// A command that came when its target lacked what a guest needs, and that lacks it now.
    fn ends_for_a_move(&self, truth: &Truth, tree: &Tree, node: &NodeName, vm: VmId) -> Result<(), String> {
        let to = tree.vm(vm, "node");
        let is_moved =
            tree.vm(vm, "state") == "migrate" && to != node.as_str() && tree.claim(vm).eq([node.as_str()]);
        let (Some(since), Some(desired), Ok(to)) = (self.since.get(&vm), self.desired.get(&vm), to.parse())
        else {
            return Ok(());
        };
        let lacked = truth.machine(&to).lacks.is_some_and(|lacks| lacks < *desired);
        if is_moved && lacked && truth.now > *since + ON_ITS_WAY {
            return Err(format!("{node} ends {vm} in order to move it to {to}, which cannot start it"));
        }
        Ok(())
    }
}

/// A daemon that takes another one in its claim begins a migration there.
fn begins(tree: &Tree, commit: &Commit, change: &Change) -> Result<(), String> {
    let (Some(by), Some((vm, "claim"))) = (commit.daemon(), keys::of_vm(&change.path)) else { return Ok(()) };
    let Some((from, to)) = change.is().split_once(' ').filter(|_| change.was() == by.as_str()) else {
        return Ok(());
    };
    if from == by.as_str() && tree.key(&format!("/pvc/daemon/{to}")).is_none() {
        return Err(format!("{by} begins to migrate {vm} to {to}, whose daemon has no session"));
    }
    Ok(())
}

fn is_on_one_side(truth: &Truth, tree: &Tree, vm: VmId) -> Result<(), String> {
    let processes: Vec<&str> =
        truth.guests.get(&vm).into_iter().flatten().map(|(node, _)| node.as_str()).collect();
    let claim: Vec<&str> = tree.claim(vm).collect();
    if processes.len() > 1 || processes != claim {
        return Err(format!(
            "{vm} has processes on {processes:?}, long after the last fault, and is claimed by {claim:?}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{History, daemon, node, vm, vm_key},
        event::Guest,
    };

    fn path(key: &str) -> String {
        vm_key(1, key)
    }

    fn guest(on: &str, what: Guest) -> Event {
        Event::Guest { vm: vm(1), node: node(on), what }
    }

    fn power_off(on: &str) -> Event {
        Event::Asked { node: node(on), vm: vm(1), what: Ask::PowerOff }
    }

    /// VM 1 migrates from `s` to `t`.
    fn history() -> History {
        let mut history = History::new(Migration::default());
        history.on("s", 1).on("t", 1).writes(&[
            (&format!("/domains/{}", vm(1)), "web"),
            (&path("state"), "migrate"),
            (&path("node"), "t"),
            (&path("claim"), "s t"),
        ]);
        history.happens(guest("s", Guest::Executes)).happens(guest("t", Guest::Held));
        history
    }

    #[test]
    fn ending_the_only_side_that_executes_is_a_violation() {
        history().at_s(20).violated_by(power_off("s"), "it executes nowhere else");
    }

    #[test]
    fn ending_what_was_left_on_the_other_side_is_none() {
        let mut failed = history();
        failed.at_s(20).happens(power_off("t"));
        let mut over = history();
        over.happens(guest("s", Guest::Held)).happens(guest("t", Guest::Executes));
        over.at_s(20).happens(power_off("s"));
        history().at_s(20).writes(&[(&path("state"), "stop")]).at_s(40).happens(power_off("s"));
    }

    #[test]
    fn a_guest_is_not_ended_for_a_move_to_a_node_that_could_not_start_it_when_that_was_desired() {
        let lacks = || Event::Lacks { node: node("t"), lacks: true };
        let asked = || Event::Asked { node: node("s"), vm: vm(1), what: Ask::ShutDown };
        let desired = |history: &mut History, at_s| {
            history.at_s(at_s).writes(&[(&path("state"), "migrate"), (&path("claim"), "s")]);
        };
        let mut before = history();
        before.at_s(10).happens(lacks());
        desired(&mut before, 20);
        before.at_s(30).happens(asked());
        before.at_s(31).violated_by(asked(), "which cannot start it");
        let mut since = history();
        desired(&mut since, 10);
        since.at_s(20).happens(lacks()).writes(&[(&path("claim"), "s")]).at_s(40).happens(asked());
    }

    #[test]
    fn a_migration_to_a_node_whose_daemon_has_no_session_is_a_violation() {
        let begin = |history: &mut History| {
            history.writes(&[(&path("claim"), "s")]);
            history.commit(daemon("s"), &[(&path("claim"), "s t")])
        };
        let mut present = history();
        present.writes(&[("/pvc/daemon/t", "{}")]);
        let begins = begin(&mut present);
        present.happens(begins);
        let mut absent = history();
        let begins = begin(&mut absent);
        absent.violated_by(begins, "whose daemon has no session");
    }

    #[test]
    fn a_copy_that_goes_on_after_its_original_has_is_a_violation() {
        let mut lost = history();
        lost.happens(guest("s", Guest::Held)).happens(guest("t", Guest::Held));
        lost.happens(guest("s", Guest::Executes)).happens(guest("s", Guest::Gone));
        lost.violated_by(guest("t", Guest::Executes), "goes on at t, from before it executed elsewhere");
        let mut left = history();
        left.happens(guest("s", Guest::Held)).happens(guest("t", Guest::Held));
        left.happens(guest("t", Guest::Executes)).happens(guest("t", Guest::Gone));
        left.violated_by(guest("s", Guest::Executes), "goes on at s");
        let mut good = history();
        good.happens(guest("s", Guest::Held)).happens(guest("t", Guest::Held));
        good.happens(guest("t", Guest::Executes)).happens(guest("s", Guest::Gone));
    }

    #[test]
    fn what_somebody_else_started_makes_no_copy_an_old_one() {
        let mut history = history();
        history.on("u", 1).happens(guest("s", Guest::Held)).happens(guest("t", Guest::Held));
        history
            .happens(Event::Stranger { vm: vm(1), node: node("u"), claimed: false })
            .happens(guest("u", Guest::Executes));
        history.happens(guest("u", Guest::Gone)).happens(guest("s", Guest::Executes));
        history.happens(guest("s", Guest::Held));
        history.violated_by(guest("t", Guest::Executes), "goes on at t");
    }

    #[test]
    fn a_remnant_is_a_violation_once_it_is_settled() {
        let mut history = history();
        history.writes(&[(&path("claim"), "s"), (&path("state"), "start"), (&path("node"), "s")]);
        history.violated_by(Event::Phase(Phase::Settled), "has processes on [\"s\", \"t\"]");
        history.happens(guest("t", Guest::Gone)).happens(Event::Phase(Phase::Settled));
        history.writes(&[(&path("claim"), "")]);
        history.violated_by(Event::Phase(Phase::Settled), "is claimed by []");
    }
}
