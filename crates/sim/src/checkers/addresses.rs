//! 3. At most one node answers for a floating IP, a gateway, a DHCP range, the API.
//!
//! Floating addresses only: client gateways and DHCP ranges are not built yet, and the API is reached by the floating address. A
//! machine whose kernel has the address answers for it, also while its programs are frozen. One whose BMC has lied is excused: whoever takes
//! its place cannot know (decision 13, *Cost*), and what it has lapses in its kernel.

use std::net::IpAddr;

use pvc_core::model::NodeName;

use crate::{
    checkers::Checker,
    event::{Event, Stamped},
    tree::Tree,
    truth::Truth,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Addresses;

impl Checker for Addresses {
    fn invariant(&self) -> u8 {
        3
    }

    fn step(&mut self, truth: &Truth, _tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Address { address, until: Some(_), .. } => alone(truth, *address),
            _ => Ok(()),
        }
    }
}

fn alone(truth: &Truth, address: IpAddr) -> Result<(), String> {
    let believed = |node: &&NodeName| !truth.machines.get(*node).is_some_and(|machine| machine.bmc_lies);
    let holders: Vec<&str> = truth.holders(address).filter(believed).map(NodeName::as_str).collect();
    if holders.len() <= 1 { Ok(()) } else { Err(format!("{} answer for {address}", holders.join(" and "))) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        checkers::testing::{History, node},
        event::Machine,
    };

    fn address(on: &str, until_s: Option<u64>) -> Event {
        let address = [10, 0, 0, 254].into();
        Event::Address { node: node(on), address, until: until_s.map(Duration::from_secs) }
    }

    #[test]
    fn two_holders_are_a_violation() {
        let mut history = History::new(Addresses);
        history.on("a", 1).on("b", 1).at_s(1).happens(address("a", Some(9)));
        history.at_s(8).violated_by(address("b", Some(17)), "a and b answer for 10.0.0.254");
    }

    #[test]
    fn nobody_is_blamed_for_what_a_lying_bmc_said() {
        let mut history = History::new(Addresses);
        history.on("a", 1).on("b", 1).at_s(1).happens(address("a", Some(9)));
        history.happens(Event::Machine { node: node("a"), what: Machine::BmcLies(true) });
        history.at_s(8).happens(address("b", Some(17)));
    }

    #[test]
    fn one_after_the_other_is_not_whatever_ended_the_first() {
        let mut history = History::new(Addresses);
        history.on("a", 1).on("b", 1).at_s(1).happens(address("a", Some(9)));
        history.at_s(9).happens(address("b", Some(17)));
        history.happens(address("b", None)).happens(address("a", Some(18)));
        history.happens(Event::Machine { node: node("a"), what: Machine::Off });
        history.happens(address("b", Some(19)));
    }
}
