//! 1. A VM executes on at most one node at any instant.
//!
//! A guest whose machine has no power, or is frozen as a whole, does not execute. Two machines are excused if the BMC of one of them
//! has lied about it: then nothing in the cluster can know (decision 13, *Cost*); the moment it is known, it has to end. What no daemon
//! has started is judged by how long it executes; see `strangers`.

use crate::{
    checkers::{Checker, strangers::Strangers},
    event::{Event, Guest, Machine, Stamped},
    tree::Tree,
    truth::Truth,
};
use pvc_core::model::VmId;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Once {
    strangers: Strangers,
}

impl Checker for Once {
    fn invariant(&self) -> u8 {
        1
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        self.strangers.step(truth, tree, event)?;
        match &event.event {
            Event::Guest { vm, what: Guest::Executes, .. } => alone(truth, *vm),
            // All that it has executes again.
            Event::Machine { node, what: Machine::Thawed } => {
                let here = truth.guests.iter().filter(|(_, runs)| runs.contains_key(node));
                here.map(|(vm, _)| *vm).try_for_each(|vm| alone(truth, vm))
            }
            _ => Ok(()),
        }
    }
}

fn alone(truth: &Truth, vm: VmId) -> Result<(), String> {
    let believed = |node| !truth.machines.get(node).is_some_and(|machine| machine.bmc_lies);
    let nodes: Vec<String> =
        truth.executing(vm).filter(|(node, _)| believed(*node)).map(|(node, _)| node.to_string()).collect();
    if nodes.len() <= 1 { Ok(()) } else { Err(format!("{vm} executes on {}", nodes.join(" and "))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::testing::{History, node, vm};

    fn history() -> History {
        let mut history = History::new(Once::default());
        history.on("a", 1).on("b", 1);
        history
    }

    fn guest(on: &str, what: Guest) -> Event {
        Event::Guest { vm: vm(1), node: node(on), what }
    }

    #[test]
    fn a_guest_on_two_machines_is_a_violation() {
        let mut history = history();
        history.happens(guest("a", Guest::Executes)).happens(guest("b", Guest::Held));
        history.violated_by(guest("b", Guest::Executes), "executes on a and b");
    }

    #[test]
    fn a_migration_that_hands_over_is_not() {
        let mut history = history();
        history.happens(guest("a", Guest::Executes)).happens(guest("b", Guest::Held));
        history.happens(guest("a", Guest::Held)).happens(guest("b", Guest::Executes));
        history.happens(guest("a", Guest::Gone));
    }

    #[test]
    fn power_off_ends_guests_and_a_frozen_machine_only_stops_them() {
        let mut history = history();
        history.happens(guest("a", Guest::Executes));
        history.happens(Event::Machine { node: node("a"), what: Machine::Off });
        history.happens(guest("b", Guest::Executes));
        history.happens(Event::Machine { node: node("b"), what: Machine::Frozen });
        history.on("a", 2).happens(guest("a", Guest::Executes));
        history.violated_by(Event::Machine { node: node("b"), what: Machine::Thawed }, "executes on a and b");
    }

    #[test]
    fn nobody_is_blamed_for_what_a_lying_bmc_said() {
        let mut history = history();
        history.happens(guest("a", Guest::Executes));
        history.happens(Event::Machine { node: node("a"), what: Machine::BmcLies(true) });
        history.happens(guest("b", Guest::Executes));
    }
}
