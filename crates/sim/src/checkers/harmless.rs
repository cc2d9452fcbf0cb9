//! 12. A restarted daemon adopts running VMs and repeats nothing harmful; every operation is idempotent.
//!
//! At whatever moment a daemon begins, and whatever it did before: it never ends a guest that shall run where it runs, never starts one
//! that is there, and claims within a minute what executes on its node.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pvc_core::model::{NodeName, VmId};

use crate::{
    checkers::Checker,
    event::{self, Ask, Commit, Event, Stamped},
    tree::Tree,
    truth::{Daemon, Stands, Truth},
};

use crate::keys;

/// How long what is gone may still be acted upon.
const ON_ITS_WAY: Duration = Duration::from_secs(15);

/// How long a daemon may take to see and claim what executes on its node.
const ADOPT_WITHIN: Duration = Duration::from_mins(1);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Harmless {
    /// Since when each VM's desired state, node and claim have been as they are.
    since: BTreeMap<VmId, Duration>,
    /// VMs that were claimed since they were defined: what executes under an older claim was to be removed.
    claimed: BTreeSet<VmId>,
    /// When each node's daemon was shown last all that was committed.
    synced: BTreeMap<NodeName, Duration>,
    /// Since when each node's libvirt has been as it is, or its programs have run.
    disturbed: BTreeMap<NodeName, Duration>,
}

impl Checker for Harmless {
    fn invariant(&self) -> u8 {
        12
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Libvirt { node, .. }
            | Event::Machine { node, what: event::Machine::Thawed }
            | Event::Daemon { node, what: event::Daemon::Thawed } => {
                self.disturbed.insert(node.clone(), truth.now);
            }
            Event::Synced { node } => drop(self.synced.insert(node.clone(), truth.now)),
            Event::Asked { node, vm, what: what @ (Ask::PowerOff | Ask::ShutDown) } => {
                return self.ends(truth, tree, node, *vm, what);
            }
            Event::Asked { node, vm, what: Ask::Start } => return self.starts(truth, node, *vm),
            Event::Commit(commit) => return self.commit(truth, tree, commit),
            _ => {}
        }
        Ok(())
    }
}

impl Harmless {
    fn was_disturbed(&self, truth: &Truth, node: &NodeName, within: Duration) -> bool {
        self.disturbed.get(node).is_some_and(|at| truth.now < *at + within)
    }

    fn ends(&self, truth: &Truth, tree: &Tree, node: &NodeName, vm: VmId, what: &Ask) -> Result<(), String> {
        let desired = tree.key(&format!("/domains/{vm}/state"));
        let claimed = tree.claim(vm).any(|name| name == node.as_str());
        let executes = truth.executing(vm).any(|(on, _)| on == node);
        if claimed
            && self.claimed.contains(&vm)
            && executes
            && desired.is_some_and(|desired| desired.version == 0 && desired.data == b"stop")
        {
            return Err(format!(
                "{node} asks for {what:?} of {vm}, and nobody has asked for anything since its definition"
            ));
        }
        let old = self.since.get(&vm).is_some_and(|since| truth.now > *since + ON_ITS_WAY);
        let run = truth.guests.get(&vm).and_then(|runs| runs.get(node));
        // Nobody runs there, or nobody has begun to.
        if run.is_some_and(|run| run.stands == Some(Stands::Crashed) || !run.executes && run.stands.is_none())
        {
            return Ok(());
        }
        let mine = tree.vm(vm, "node") == node.as_str() && tree.vm(vm, "claim") == node.as_str();
        if !mine || tree.vm(vm, "state") != "start" || self.was_disturbed(truth, node, ON_ITS_WAY) {
            return Ok(());
        }
        if old {
            return Err(format!("{node} asks for {what:?} of {vm}, which shall run there"));
        }
        // What has just changed may be news to who has asked the leader a moment ago, not to whoever believes a server that lags.
        if self.synced.get(node).is_none_or(|at| truth.now > *at + ON_ITS_WAY) {
            return Err(format!(
                "{node} asks for {what:?} of {vm}, which shall run there, and has not synced"
            ));
        }
        Ok(())
    }

    fn starts(&self, truth: &Truth, node: &NodeName, vm: VmId) -> Result<(), String> {
        let run = truth.guests.get(&vm).and_then(|runs| runs.get(node));
        if run.is_some_and(|run| truth.now > run.began + ON_ITS_WAY)
            && !self.was_disturbed(truth, node, ON_ITS_WAY)
        {
            return Err(format!("{node} starts {vm}, which is there"));
        }
        Ok(())
    }

    fn commit(&mut self, truth: &Truth, tree: &Tree, commit: &Commit) -> Result<(), String> {
        let mut keepalive = None;
        for change in &commit.changes {
            if let Some((vm, key @ ("state" | "node" | "claim"))) = keys::of_vm(&change.path) {
                self.since.insert(vm, truth.now);
                match (key, &change.before) {
                    ("claim", _) => drop(self.claimed.insert(vm)),
                    ("state", None) => drop(self.claimed.remove(&vm)),
                    _ => {}
                }
            } else if let Some((node, "keepalive")) = keys::of_node(&change.path) {
                keepalive = Some(node);
            }
        }
        match keepalive {
            Some(node) if commit.daemon() == Some(&node) => self.adopts(truth, tree, &node),
            _ => Ok(()),
        }
    }

    /// A node that is well says so: what executes on it for a minute is its own by now.
    fn adopts(&self, truth: &Truth, tree: &Tree, node: &NodeName) -> Result<(), String> {
        let machine = truth.machine(node);
        let well = machine.works()
            && machine.daemon == Daemon::Runs
            && machine.connected == Some(true)
            && machine.libvirt == Some(event::Libvirt::Up)
            && truth.now > machine.daemon_since.max(machine.connected_since) + ADOPT_WITHIN
            && !self.was_disturbed(truth, node, ADOPT_WITHIN);
        if !well {
            return Ok(());
        }
        for (vm, runs) in &truth.guests {
            let Some(run) = runs.get(node).filter(|run| run.executes && truth.now > run.began + ADOPT_WITHIN)
            else {
                continue;
            };
            let is_there = tree.key(&format!("/domains/{vm}")).is_some();
            let since = self.since.get(vm).copied().unwrap_or_default();
            if is_there
                && truth.now > since + ADOPT_WITHIN
                && !tree.claim(*vm).any(|name| name == node.as_str())
            {
                let seconds = truth.since(run.began).as_secs();
                let claim = tree.vm(*vm, "claim");
                return Err(format!(
                    "{vm} has executed on {node} for {seconds} s, and its claim is {claim:?}"
                ));
            }
        }
        Ok(())
    }
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

    fn asked(what: Ask) -> Event {
        Event::Asked { node: node("a"), vm: vm(1), what }
    }

    /// VM 1 shall run on `a`, and does.
    fn history() -> History {
        let mut history = History::new(Harmless::default());
        history
            .on("a", 1)
            .happens(Event::Daemon { node: node("a"), what: event::Daemon::Started { run: 1 } });
        history.happens(Event::Session { node: node("a"), what: event::Session::Connected { session: 1 } });
        history.happens(Event::Libvirt { node: node("a"), what: event::Libvirt::Up });
        history.writes(&[
            (&format!("/domains/{}", vm(1)), "web"),
            (&path("state"), "start"),
            (&path("node"), "a"),
            (&path("claim"), "a"),
        ]);
        history.happens(Event::Guest { vm: vm(1), node: node("a"), what: Guest::Executes });
        history
    }

    #[test]
    fn ending_what_shall_run_is_a_violation() {
        history().at_s(100).violated_by(asked(Ask::PowerOff), "which shall run there");
        history().at_s(100).violated_by(asked(Ask::ShutDown), "which shall run there");
    }

    #[test]
    fn ending_what_ran_before_it_was_defined_is_a_violation() {
        let mut history = History::new(Harmless::default());
        history.on("a", 1).writes(&[(&path("state"), "stop"), (&path("node"), "b")]);
        history.daemon_writes("a", &[(&format!("/pvc/claim/{}", vm(1)), "a")]);
        history.happens(Event::Guest { vm: vm(1), node: node("a"), what: Guest::Executes });
        history.violated_by(asked(Ask::PowerOff), "nobody has asked for anything");
        history.writes(&[(&path("state"), "stop")]).happens(asked(Ask::PowerOff));
    }

    #[test]
    fn a_desired_state_that_is_just_gone_may_still_be_acted_upon() {
        let mut history = history();
        history.at_s(98).happens(Event::Synced { node: node("a") });
        history.at_s(100).writes(&[(&path("state"), "start")]).at_s(105).happens(asked(Ask::PowerOff));
        history.at_s(200).writes(&[(&path("state"), "stop")]).at_s(300).happens(asked(Ask::PowerOff));
    }

    #[test]
    fn what_was_not_confirmed_is_no_excuse() {
        let mut history = history();
        history.at_s(80).happens(Event::Synced { node: node("a") });
        history
            .at_s(98)
            .happens(Event::Synced { node: node("b") })
            .at_s(100)
            .writes(&[(&path("state"), "start")]);
        history.at_s(101).violated_by(asked(Ask::PowerOff), "has not synced");
    }

    #[test]
    fn starting_what_is_there_is_a_violation() {
        history().at_s(100).violated_by(asked(Ask::Start), "which is there");
        history().at_s(10).happens(asked(Ask::Start));
    }

    #[test]
    fn what_a_daemon_does_not_adopt_is_a_violation_after_a_minute() {
        let mut history = history();
        history.at_s(100).writes(&[(&path("claim"), "")]);
        history.at_s(150).daemon_writes("a", &[("/nodes/a/keepalive", "1")]);
        let late = history.commit(daemon("a"), &[("/nodes/a/keepalive", "2")]);
        history.at_s(165).violated_by(late, "its claim is \"\"");
        let mut disturbed = self::history();
        disturbed.at_s(100).writes(&[(&path("claim"), "")]);
        disturbed.at_s(160).happens(Event::Libvirt { node: node("a"), what: event::Libvirt::Up });
        disturbed.at_s(165).daemon_writes("a", &[("/nodes/a/keepalive", "2")]);
    }
}
