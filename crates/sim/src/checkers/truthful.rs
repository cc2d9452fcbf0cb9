//! 14. Success is reported only after it was observed; secrets are never logged or put on a command line.
//!
//! What a daemon answers is compared with what is the case: `stop` with no process anywhere, `start` with one that executes, `flushed` with
//! an empty node, `primary` with the addresses, the end of a fence with VMs that were seen running. The secrets of this cluster are the
//! BMCs' passwords: they appear in their own keys, and nowhere else.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pvc_core::model::{DomainSpec, FenceJob, FenceStep, FlushProgress, NodeName, VmId};

use crate::{
    checkers::Checker,
    event::{self, Change, Commit, Event, Stamped},
    tree::Tree,
    truth::{Run, Truth},
};

use crate::keys;

/// How long ago what is reported may have been the case.
const OBSERVED: Duration = Duration::from_secs(15);

/// How often a flush has a VM migrated before it may leave it where it is.
const ATTEMPTS: u32 = 3;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Truthful {
    /// When each VM was last known to execute on each node, where it does not now.
    executed: BTreeMap<(VmId, NodeName), Duration>,
    /// VMs that were moved from each fenced node, and when.
    moved: BTreeMap<NodeName, BTreeMap<VmId, Duration>>,
    /// Since when each node says that it runs.
    runs: BTreeMap<NodeName, Duration>,
    passwords: BTreeSet<String>,
    /// When each node dropped its last floating address.
    dropped: BTreeMap<NodeName, Duration>,
    /// How often each node has sent a VM away since it last answered or was asked for a flush.
    sent: BTreeMap<(NodeName, VmId), u32>,
}

impl Checker for Truthful {
    fn invariant(&self) -> u8 {
        14
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Guest { vm, node, .. } => {
                self.executed.insert((*vm, node.clone()), truth.now);
            }
            Event::Machine { node, what: event::Machine::Off | event::Machine::Frozen } => {
                let of_node = self.executed.iter_mut().filter(|((_, on), _)| on == node);
                of_node.for_each(|(_, at)| *at = truth.now);
            }
            Event::Address { node, until: None, .. } => {
                self.dropped.insert(node.clone(), truth.now);
            }
            Event::Commit(commit) => {
                for change in &commit.changes {
                    self.keeps_secrets(change)?;
                    self.notes_state(truth, change);
                }
                self.is_moved_on(commit);
                if let Some(by) = commit.daemon() {
                    let mut changes = commit.changes.iter();
                    changes.try_for_each(|change| self.answers(truth, tree, commit, by, change))?;
                }
                self.counts_attempts(commit);
            }
            Event::Log { node, text, .. }
                if self.passwords.iter().any(|password| text.contains(password)) =>
            {
                return Err(format!("{node} logs a BMC's password"));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Truthful {
    fn keeps_secrets(&mut self, change: &Change) -> Result<(), String> {
        let text = change.is();
        if let Some((_, "ipmipassword")) = keys::of_node(&change.path) {
            if !text.is_empty() {
                self.passwords.insert(text.to_owned());
            }
            return Ok(());
        }
        if self.passwords.iter().any(|password| text.contains(password)) {
            return Err(format!("{} tells a BMC's password", change.path));
        }
        Ok(())
    }

    fn notes_state(&mut self, truth: &Truth, change: &Change) {
        let Some((node, "daemonstate")) = keys::of_node(&change.path) else { return };
        if change.is() != "run" {
            self.runs.remove(&node);
        } else if change.was() != "run" {
            self.runs.insert(node, truth.now);
        }
    }

    fn answers(
        &mut self,
        truth: &Truth,
        tree: &Tree,
        commit: &Commit,
        by: &NodeName,
        change: &Change,
    ) -> Result<(), String> {
        if let Some(node) = keys::of_fence(&change.path) {
            return self.fence_ends(truth, tree, &node, change);
        }
        if let Some((vm, key)) = keys::of_vm(&change.path) {
            if key == "lastnode" && commit.is_about("/pvc/fence/") {
                self.moved(truth, change, vm);
            }
            return match (key, change.was(), change.is()) {
                ("state", was, "stop") if was != "stop" => is_off(truth, tree, by, vm),
                ("state", "migrate" | "restart", "start")
                    if !commit.is_about("/pvc/fence/") && !is_failure(commit, vm) =>
                {
                    self.runs(truth, tree, by, vm)
                }
                _ => Ok(()),
            };
        }
        match keys::of_node(&change.path) {
            Some((node, "domainstate"))
                if node == *by && change.is() == "flushed" && change.was() == "flush" =>
            {
                self.is_empty(truth, tree, by)
            }
            // What was on its way when its author's machine or process ended was true when it was sent, or nobody can tell.
            Some((node, "routerstate"))
                if node == *by && change.is() == "primary" && !truth.is_last_word(commit) =>
            {
                self.has_addresses(truth, by)
            }
            _ => Ok(()),
        }
    }

    fn runs(&self, truth: &Truth, tree: &Tree, by: &NodeName, vm: VmId) -> Result<(), String> {
        // Where nobody has it there is nothing to migrate: that is what is answered, and it is started next.
        let is_elsewhere =
            tree.vm(vm, "node") != by.as_str() || tree.claim(vm).all(|name| name != by.as_str());
        if is_elsewhere || self.executed_lately(truth, vm, by) {
            return Ok(());
        }
        Err(format!("{by} answers that {vm} runs, and it does not execute there"))
    }

    /// A write is on its way for a while: what was dropped, or lapsed in the kernel, meanwhile was there when it was sent.
    fn has_addresses(&self, truth: &Truth, node: &NodeName) -> Result<(), String> {
        if self.dropped.get(node).is_some_and(|at| truth.now <= *at + OBSERVED) {
            return Ok(());
        }
        let had = |until: &Duration| truth.now <= *until + OBSERVED;
        match truth.addresses.iter().find(|(_, holders)| !holders.get(node).is_some_and(had)) {
            Some((address, _)) => Err(format!("{node} says that it is primary, and does not have {address}")),
            None => Ok(()),
        }
    }

    fn executed_lately(&self, truth: &Truth, vm: VmId, node: &NodeName) -> bool {
        let lately = |at: &Duration| truth.now <= *at + OBSERVED;
        truth.executing(vm).any(|(on, _)| on == node)
            || self.executed.get(&(vm, node.clone())).is_some_and(lately)
    }

    fn moved(&mut self, truth: &Truth, change: &Change, vm: VmId) {
        if let Ok(from) = change.is().parse::<NodeName>() {
            self.moved.entry(from).or_default().insert(vm, truth.now);
        }
    }

    /// What an operator wants of a VM that was recovered, or a flush that sends it on, is no fence's business any more.
    fn is_moved_on(&mut self, commit: &Commit) {
        let sent_on = |change: &&Change| commit.daemon().is_none() || change.is() == "migrate";
        for (vm, _) in commit.changes.iter().filter(sent_on).filter_map(|change| keys::of_vm(&change.path)) {
            for moved in self.moved.values_mut() {
                moved.remove(&vm);
            }
        }
    }

    /// A fence is over when the VMs that were moved were seen running, or when its node is back.
    fn fence_ends(
        &mut self,
        truth: &Truth,
        tree: &Tree,
        node: &NodeName,
        change: &Change,
    ) -> Result<(), String> {
        if change.after.is_some() {
            return Ok(());
        }
        let moved = self.moved.remove(node).unwrap_or_default();
        let job = serde_json::from_str::<FenceJob>(change.was()).ok();
        let Some(job) = job else { return Ok(()) };
        let keepalive = tree.key(&format!("/nodes/{node}/keepalive")).map(|key| key.version);
        // A keepalive that was on its way when the node died counts as one of its next life.
        let is_back = tree.node(node, "daemonstate") != "dead"
            || job.keepalive_version.is_some() && job.keepalive_version != keepalive;
        if is_back || !matches!(job.step, FenceStep::Recovered { .. }) {
            return Ok(());
        }
        for (vm, since) in moved {
            let Ok(to) = tree.vm(vm, "node").parse::<NodeName>() else { continue };
            // Of one that did not work when this was decided nobody expects them.
            let works = self.runs.get(&to).is_some_and(|at| *at + OBSERVED <= truth.now);
            let expected =
                tree.vm(vm, "state") == "start" && tree.vm(vm, "lastnode") == node.as_str() && works;
            let ran = truth.executing(vm).any(|(on, _)| *on == to)
                || self.executed.get(&(vm, to.clone())).is_some_and(|at| *at >= since);
            if expected && !ran {
                return Err(format!(
                    "the fence of {node} is over, and {vm} has not run on {to} since it was moved"
                ));
            }
        }
        Ok(())
    }

    fn counts_attempts(&mut self, commit: &Commit) {
        for change in &commit.changes {
            match (keys::of_node(&change.path), keys::of_vm(&change.path), commit.daemon()) {
                (Some((node, "domainstate")), ..) => self.sent.retain(|(by, _), _| *by != node),
                (_, Some((vm, "state")), Some(by)) if change.is() == "migrate" => {
                    *self.sent.entry((by.clone(), vm)).or_default() += 1;
                }
                _ => {}
            }
        }
    }

    /// Only those may stay that may not be shut down for their move, by their migration method or because nobody could start them
    /// again from their definition (decision 75); those that no node took over (decision 116); and those of which nobody can read who may be
    /// executing them (decision 92). Of each the node says so: whoever waits for the flush reads that, and does not switch the machine off.
    fn is_empty(&self, truth: &Truth, tree: &Tree, node: &NodeName) -> Result<(), String> {
        let progress = tree.text(&format!("/pvc/flush/{node}")).map(serde_json::from_str::<FlushProgress>);
        let stuck = progress.and_then(Result::ok).map(|progress| progress.stuck).unwrap_or_default();
        let left = truth.guests.iter().filter(|(_, runs)| runs.get(node).is_some_and(|run| run.executes));
        for vm in left.map(|(vm, _)| *vm).filter(|vm| tree.key(&format!("/domains/{vm}")).is_some()) {
            let was_tried = self.sent.get(&(node.clone(), vm)).is_some_and(|times| *times >= ATTEMPTS);
            let unreadable = |path: String| truth.was_spoilt(&path, OBSERVED);
            let may_stay = tree.vm(vm, "migration_method") == "live"
                || DomainSpec::parse(tree.vm(vm, "xml")).is_err()
                || was_tried
                || unreadable(format!("/pvc/claim/{vm}"))
                || unreadable(format!("/domains/{vm}/migration_method"));
            if !may_stay {
                return Err(format!("{node} answers that it is flushed, and {vm} executes there"));
            }
            if !stuck.iter().any(|stuck| stuck.vm == vm.to_string()) {
                return Err(format!("{node} answers that it is flushed, and does not say that {vm} stays"));
            }
        }
        Ok(())
    }
}

/// Whether it says why it was not done: what was not migrated stays, and is started if it is off there.
fn is_failure(commit: &Commit, vm: VmId) -> bool {
    let is_reason =
        |change: &Change| keys::of_vm(&change.path) == Some((vm, "failedreason")) && !change.is().is_empty();
    commit.changes.iter().any(is_reason)
}

/// What a failed migration has left was never let go on, and no claim will ever name its node alone: its daemon ends it once it can.
fn is_off(truth: &Truth, tree: &Tree, by: &NodeName, vm: VmId) -> Result<(), String> {
    let mut runs = truth.guests.get(&vm).into_iter().flatten();
    let counts = |(node, run): &(&NodeName, &Run)| {
        !truth.machine(node).bmc_lies && (run.executed || tree.claim(vm).eq([node.as_str()]))
    };
    match runs.find(counts) {
        Some((node, _)) => {
            Err(format!("{by} answers that {vm} is off, and there is a process of it on {node}"))
        }
        None => Ok(()),
    }
}
