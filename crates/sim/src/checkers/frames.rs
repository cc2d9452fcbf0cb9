//! 16. When all is as desired, no frame for a guest is sent to a node that has it not.
//!
//! While a guest moves, or a daemon says nothing, an entry may be old: the other node's bridge drops what comes. So entries are judged when the cluster is calm.

use std::{collections::BTreeMap, time::Duration};

use pvc_core::model::{Mac, NodeName, VmId};

use crate::{
    checkers::Checker,
    event::{Event, Machine, Phase, Stamped},
    keys::{self, card, clone_name},
    tree::Tree,
    truth::{Daemon, Truth},
};

/// How long a node may take to follow a claim.
const FOLLOWS_WITHIN: Duration = Duration::from_mins(1);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Where each node sends frames for a card.
    entries: BTreeMap<(NodeName, Mac), NodeName>,
    /// When the claim of a VM was written last.
    claimed: BTreeMap<VmId, Duration>,
}

impl Checker for Frames {
    fn invariant(&self) -> u8 {
        16
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Forward { node, card, to: Some(to) } => {
                self.entries.insert((node.clone(), *card), to.clone());
            }
            Event::Forward { node, card, to: None } => drop(self.entries.remove(&(node.clone(), *card))),
            Event::Machine { node, what: Machine::Off } => self.entries.retain(|(on, _), _| on != node),
            Event::Commit(commit) => {
                let claims = commit.changes.iter().filter_map(|change| keys::of_vm(&change.path));
                let vms = claims.filter(|(_, key)| *key == "claim").map(|(vm, _)| (vm, truth.now));
                self.claimed.extend(vms);
            }
            Event::Phase(Phase::Settled) => {
                return self
                    .entries
                    .iter()
                    .try_for_each(|((node, card), to)| self.judge(truth, tree, node, *card, to));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Frames {
    fn judge(
        &self,
        truth: &Truth,
        tree: &Tree,
        node: &NodeName,
        of: Mac,
        to: &NodeName,
    ) -> Result<(), String> {
        let machine = truth.machine(node);
        let follows = machine.works() && machine.daemon == Daemon::Runs && machine.connected == Some(true);
        let Some(vm) = tree.vms().find(|vm| keys::number_of(*vm).map(card) == Some(of)) else {
            return if follows {
                Err(format!("{node} sends frames for {of}, which no VM has, to {to}"))
            } else {
                Ok(())
            };
        };
        let moves = self.claimed.get(&vm).is_some_and(|at| truth.since(*at) < FOLLOWS_WITHIN);
        let unreadable = truth.is_spoilt(&format!("/pvc/claim/{vm}"));
        let mut executing = truth.executing(vm).map(|(on, _)| on).peekable();
        let is_there = if executing.peek().is_some() {
            executing.any(|on| has_the_address_of(on, to))
        } else {
            tree.claim(vm).any(|on| on == to.as_str() || is_clone_of(to, on))
        };
        if !follows || moves || unreadable || is_there {
            return Ok(());
        }
        Err(format!("{node} sends frames for {of} of {vm} to {to}, which has it not"))
    }
}

/// A clone has its original's address, whichever of the two has the name: which machine a frame to it reaches no daemon can say.
fn has_the_address_of(a: &NodeName, b: &NodeName) -> bool {
    a == b || is_clone_of(a, b.as_str()) || is_clone_of(b, a.as_str())
}

fn is_clone_of(machine: &NodeName, original: &str) -> bool {
    original.parse().is_ok_and(|original| clone_name(&original).is_ok_and(|clone| clone == *machine))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{History, node, vm, vm_key},
        event::{self, Guest, Session},
    };

    fn history() -> History {
        let mut history = History::new(Frames::default());
        for name in ["a", "b", "c"] {
            history.on(name, 1);
            history.happens(Event::Daemon { node: node(name), what: event::Daemon::Started { run: 1 } });
            let what = Session::Connected { session: 1 };
            history.happens(Event::Session { node: node(name), what });
        }
        history.writes(&[(&format!("/domains/{}", vm(1)), "vm1"), (&vm_key(1, "claim"), "b")]);
        history.happens(Event::Guest { vm: vm(1), node: node("b"), what: Guest::Executes });
        history.happens(Event::Forward { node: node("a"), card: card(1), to: Some(node("b")) });
        history
    }

    #[test]
    fn an_entry_to_the_guests_node_is_right_and_one_to_where_it_was_is_not() {
        let mut history = history();
        history.at_s(100).happens(Event::Phase(Phase::Settled));
        history.happens(Event::Guest { vm: vm(1), node: node("b"), what: Guest::Gone });
        history.writes(&[(&vm_key(1, "claim"), "c")]);
        history.happens(Event::Guest { vm: vm(1), node: node("c"), what: Guest::Executes });
        history.at_s(110).happens(Event::Phase(Phase::Settled));
        history.at_s(200).violated_by(Event::Phase(Phase::Settled), "a sends frames");
    }

    #[test]
    fn a_machine_that_is_off_sends_nothing_and_a_daemon_that_is_away_is_not_asked() {
        let mut history = history();
        history.happens(Event::Forward { node: node("b"), card: card(1), to: Some(node("a")) });
        history.happens(Event::Machine { node: node("b"), what: Machine::Off });
        history.on("b", 2).at_s(100).happens(Event::Phase(Phase::Settled));
        history.happens(Event::Forward { node: node("c"), card: card(1), to: Some(node("a")) });
        history.happens(Event::Daemon { node: node("c"), what: event::Daemon::Killed });
        history.happens(Event::Phase(Phase::Settled));
    }

    #[test]
    fn an_entry_to_the_address_of_two_machines_is_right_if_one_of_them_has_the_guest() {
        let mut history = history();
        history.on("b-clone", 1);
        history.happens(Event::Forward { node: node("a"), card: card(1), to: Some(node("b-clone")) });
        history.at_s(100).happens(Event::Phase(Phase::Settled));
        history.happens(Event::Forward { node: node("a"), card: card(1), to: Some(node("c-clone")) });
        history.at_s(200).violated_by(Event::Phase(Phase::Settled), "a sends frames");
    }

    #[test]
    fn an_entry_for_a_card_that_no_vm_has_is_not_right() {
        let mut history = history();
        history.happens(Event::Forward { node: node("a"), card: card(2), to: Some(node("b")) });
        history.at_s(100).violated_by(Event::Phase(Phase::Settled), "which no VM has");
    }
}
