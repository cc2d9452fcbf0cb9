//! 11. An acknowledged DHCP lease survives the hand-over; no address is leased twice.
//!
//! This has no subject yet: client networks are not built, and no daemon serves DHCP. What is checked is that this stays true: the first
//! lease that a daemon writes is a violation, whose cure is to write this checker.

use crate::{
    checkers::Checker,
    event::{Event, Stamped},
    tree::Tree,
    truth::Truth,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Leases;

impl Checker for Leases {
    fn invariant(&self) -> u8 {
        11
    }

    fn step(&mut self, _truth: &Truth, _tree: &Tree, event: &Stamped) -> Result<(), String> {
        let Event::Commit(commit) = &event.event else { return Ok(()) };
        let is_lease = |path: &str| path.starts_with("/networks/") && path.contains("/dhcp4_leases/");
        match commit.changes.iter().find(|change| commit.daemon().is_some() && is_lease(&change.path)) {
            Some(change) => {
                Err(format!("{}: there are leases now, and nothing that checks them", change.path))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::testing::{History, daemon};

    #[test]
    fn the_first_lease_asks_for_a_checker() {
        let mut history = History::new(Leases);
        history.daemon_writes("a", &[("/networks/100", "clients"), ("/networks/100/dhcp4_flag", "True")]);
        let lease = history.commit(daemon("a"), &[("/networks/100/dhcp4_leases/52:54:00:00:00:01", "")]);
        history.violated_by(lease, "nothing that checks them");
    }
}
