//! 11. An acknowledged DHCP lease survives the hand-over; no address is leased twice.
//!
//! A guest has an address from when it is told so until it ends. What it was told has to be in the state tree then, and to stay there; and nobody else is told the same.
//! Whose lease is over is a matter of wall clocks: where two are set so far apart that one of them has lived a lease's time, nothing is judged any more.

use std::{collections::BTreeMap, net::Ipv4Addr};

use pvc_core::model::{NodeName, VmId};

use crate::{
    checkers::Checker,
    event::{Event, Guest, Machine, Stamped},
    tree::Tree,
    truth::Truth,
};

/// Less than a lease and the time for which an address rests, by so much as a guest may wait before it asks again.
const CLOCKS_APART_S: i64 = 40 * 3600;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// Who believes that it has an address of a network, and where its lease is.
    told: BTreeMap<(usize, Ipv4Addr), (VmId, String)>,
    /// By how much wall clocks are wrong.
    clocks: BTreeMap<NodeName, i64>,
    /// The farthest that any was behind, and ahead.
    wrong: (i64, i64),
}

impl Checker for Leases {
    fn invariant(&self) -> u8 {
        11
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Machine { node, what: Machine::ClockJumped(by) } => {
                let clock = self.clocks.entry(node.clone()).or_default();
                *clock += by;
                self.wrong = (self.wrong.0.min(*clock), self.wrong.1.max(*clock));
            }
            _ if self.wrong.1 - self.wrong.0 >= CLOCKS_APART_S => {}
            Event::Guest { vm, what: Guest::Gone, .. } if !truth.guests.contains_key(vm) => {
                self.told.retain(|_, (other, _)| other != vm);
            }
            Event::GivenUp { vm } => self.told.retain(|_, (other, _)| other != vm),
            Event::Machine { what: Machine::Off, .. } => {
                self.told.retain(|_, (vm, _)| truth.guests.contains_key(vm));
            }
            Event::Leased { by, vm, network, card, address } => {
                let path = format!("/networks/{network}/dhcp4_leases/{card}/ipaddr");
                if tree.text(&path) != Some(&address.to_string()) {
                    return Err(format!("{by} tells {vm} that it has {address}, and no lease says so"));
                }
                if let Some((other, _)) = self.told.get(&(*network, *address))
                    && other != vm
                {
                    return Err(format!("{by} tells {vm} that it has {address}, which {other} has"));
                }
                self.told.retain(|_, (other, _)| other != vm);
                self.told.insert((*network, *address), (*vm, path));
            }
            Event::Commit(commit) if commit.daemon().is_some() => {
                for change in &commit.changes {
                    let of = |(_, (_, path)): &(_, &(VmId, String))| *path == change.path;
                    if let Some(((_, address), (vm, _))) = self.told.iter().find(of)
                        && change.is() != address.to_string()
                    {
                        return Err(format!(
                            "the lease of {vm}, which has {address}, is lost: {:?}",
                            change.is()
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{History, daemon, node, vm},
        keys::card,
    };

    fn lease(n: usize) -> String {
        format!("/networks/100/dhcp4_leases/{}/ipaddr", card(n))
    }

    fn told(n: u8, address: &str) -> Event {
        let (by, card) = (node("a"), card(n.into()));
        Event::Leased { by, vm: vm(n), network: 100, card, address: address.parse().unwrap() }
    }

    fn executes(n: u8, what: Guest) -> Event {
        Event::Guest { vm: vm(n), node: node("a"), what }
    }

    fn history() -> History {
        let mut history = History::new(Leases::default());
        history.on("a", 1).on("b", 1).happens(executes(1, Guest::Executes));
        history.happens(executes(2, Guest::Executes));
        history.daemon_writes("a", &[(&lease(1), "10.0.0.5")]).happens(told(1, "10.0.0.5"));
        history
    }

    #[test]
    fn what_a_guest_is_told_is_written_before() {
        history().violated_by(told(2, "10.0.0.6"), "no lease says so");
    }

    #[test]
    fn no_two_guests_have_an_address_but_one_after_the_other_they_may() {
        let mut history = history();
        history.daemon_writes("b", &[(&lease(2), "10.0.0.5")]);
        history.happens(executes(1, Guest::Gone)).happens(told(2, "10.0.0.5"));
        history.happens(executes(1, Guest::Executes));
        history.violated_by(told(1, "10.0.0.5"), "which 11111111-0000-4000-8000-000000000002 has");
    }

    #[test]
    fn the_lease_of_a_guest_that_has_its_address_stays() {
        let mut history = history();
        history.daemon_writes("b", &[(&lease(2), "10.0.0.6")]).happens(told(2, "10.0.0.6"));
        history.happens(Event::GivenUp { vm: vm(2) });
        let given_up = history.deletion(daemon("b"), &lease(2));
        history.happens(given_up).happens(told(1, "10.0.0.5"));
        let removed = history.deletion(daemon("b"), &lease(1));
        history.violated_by(removed, "is lost");
    }

    #[test]
    fn what_clocks_say_that_were_set_days_apart_is_not_judged() {
        let mut history = history();
        let jumps = |name: &str, by| Event::Machine { node: node(name), what: Machine::ClockJumped(by) };
        history.happens(jumps("a", 86_400)).happens(jumps("b", -86_400));
        let removed = history.deletion(daemon("b"), &lease(1));
        history.happens(removed);
    }
}
