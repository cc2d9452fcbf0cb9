//! What no daemon has started, and no claim covers, executes for some seconds at most where a daemon can know that it belongs elsewhere.
//!
//! Part of number 1: nobody can prevent that libvirt or somebody starts a second instance; but a daemon that works, sees libvirt and
//! reads the tree stops it at once, whatever it waits for meanwhile. A VM that the tree does not have is its operator's own.

use std::{collections::BTreeMap, time::Duration};

use pvc_core::model::{NodeName, VmId};

use crate::keys;
use crate::{
    event::{self, Event, Stamped},
    tree::Tree,
    truth::{Daemon, Truth},
};

/// How long it may execute under a daemon that can know of it. Less than a session lasts, for which the daemon may have to wait.
const STOPPED_WITHIN: Duration = Duration::from_secs(8);

/// The same of one that nobody claims on the node that it belongs to: no other may start it meanwhile.
const ADOPTED_WITHIN: Duration = Duration::from_mins(1);

/// Faults of the store's: nobody is blamed for what takes longer while they last, and until their consequences are over.
const STORE: [&str; 10] = [
    "SlowStore",
    "FallBehind",
    "LoseAnswers",
    "Isolate",
    "CutNet",
    "CutOneWay",
    "Flap",
    "Split",
    "EndServer",
    "Expire",
];
/// `Expire` ends in the schedule when it has begun: the servers hear nothing of that node until its session is over, which is 40 s at most.
const AFTER_STORE: Duration = Duration::from_mins(1);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// Since when each node's libvirt has been as it is, or its programs have run.
    disturbed: BTreeMap<NodeName, Duration>,
    /// Since when each VM's desired state, node and claim have been as they are.
    since: BTreeMap<VmId, Duration>,
    /// Faults of the store's under way, and when one last began or ended.
    store: (u32, Option<Duration>),
}

impl Strangers {
    pub(super) fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Libvirt { node, .. }
            | Event::Machine { node, what: event::Machine::Thawed }
            | Event::Daemon { node, what: event::Daemon::Thawed } => {
                self.disturbed.insert(node.clone(), truth.now);
            }
            Event::Commit(commit) => {
                for change in &commit.changes {
                    if let Some((vm, "state" | "node" | "claim")) = keys::of_vm(&change.path) {
                        self.since.insert(vm, truth.now);
                    }
                }
            }
            Event::Leader(_) => self.store.1 = Some(truth.now),
            Event::Fault { text, begins } if STORE.iter().any(|fault| text.starts_with(fault)) => {
                let count = if *begins { self.store.0 + 1 } else { self.store.0.saturating_sub(1) };
                self.store = (count, Some(truth.now));
            }
            _ => {}
        }
        if truth.strangers.is_empty() || self.store.0 > 0 {
            return Ok(());
        }
        for ((vm, node), run) in truth.strangers.iter().filter(|(_, run)| run.executes) {
            let is_there = tree.key(&format!("/domains/{vm}")).is_some();
            let since = self.since.get(vm).copied().unwrap_or_default().max(run.began);
            let at_home = tree.claim(*vm).next().is_none() && tree.vm(*vm, "node") == node.as_str();
            let within = if at_home { ADOPTED_WITHIN } else { STOPPED_WITHIN };
            if !is_there || truth.now <= since + within || !self.is_well(truth, node, within) {
                continue;
            }
            let seconds = truth.since(run.began).as_secs();
            return Err(format!(
                "{vm} has executed on {node} for {seconds} s, where no daemon has started it, and its claim is {:?}",
                tree.vm(*vm, "claim")
            ));
        }
        Ok(())
    }

    fn is_well(&self, truth: &Truth, node: &NodeName, within: Duration) -> bool {
        let machine = truth.machine(node);
        let disturbed = self.disturbed.get(node).copied().unwrap_or_default();
        machine.works()
            && machine.daemon == Daemon::Runs
            && machine.connected == Some(true)
            && machine.libvirt == Some(event::Libvirt::Up)
            && truth.leader.is_some()
            && truth.now > machine.daemon_since.max(machine.connected_since).max(disturbed) + within
            && self.store.1.is_none_or(|at| truth.now > at + AFTER_STORE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::{
            once::Once,
            testing::{History, node, vm},
        },
        event::{Guest, Session},
    };

    /// VM 1 runs on `b`, and somebody starts it on `a`, too.
    fn history() -> History {
        let mut history = History::new(Once::default());
        history.on("a", 1).on("b", 1).happens(Event::Leader(Some(node("b"))));
        let path = |key: &str| format!("/domains/{}{key}", vm(1));
        history.writes(&[(&path(""), "web"), (&path("/state"), "start"), (&path("/node"), "b")]);
        history.happens(Event::Guest { vm: vm(1), node: node("b"), what: Guest::Executes });
        history.happens(Event::Daemon { node: node("a"), what: event::Daemon::Started { run: 1 } });
        history.happens(Event::Session { node: node("a"), what: Session::Connected { session: 1 } });
        history.happens(Event::Libvirt { node: node("a"), what: event::Libvirt::Up });
        history.at_s(100).happens(Event::Stranger { vm: vm(1), node: node("a"), claimed: false });
        history.happens(on_a(Guest::Executes));
        history
    }

    fn on_a(what: Guest) -> Event {
        Event::Guest { vm: vm(1), node: node("a"), what }
    }

    fn time_passes() -> Event {
        Event::Command { client: 1, text: String::new(), outcome: String::new(), told: None }
    }

    #[test]
    fn what_executes_on_under_a_daemon_that_can_know_is_a_violation() {
        history()
            .at_s(108)
            .happens(time_passes())
            .at_s(109)
            .violated_by(time_passes(), "has executed on a for 9 s");
        let mut at_home = history();
        at_home.writes(&[(&format!("/domains/{}/node", vm(1)), "a")]).at_s(160).happens(time_passes());
        at_home.at_s(161).violated_by(time_passes(), "has executed on a for 61 s");
        history().at_s(107).happens(on_a(Guest::Held)).at_s(200).happens(time_passes());
        history().at_s(107).happens(on_a(Guest::Gone)).at_s(200).happens(time_passes());
    }

    #[test]
    fn nobody_is_blamed_who_cannot_know() {
        for fault in [
            Event::Daemon { node: node("a"), what: event::Daemon::Killed },
            Event::Libvirt { node: node("a"), what: event::Libvirt::Down },
            Event::Leader(None),
            Event::Fault { text: "SlowStore(2000) for 9s".into(), begins: true },
        ] {
            history().at_s(101).happens(fault).at_s(120).happens(time_passes());
        }
    }
}
