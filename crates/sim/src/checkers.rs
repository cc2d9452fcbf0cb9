//! The invariants of docs/protocols.md, section 9: one file each.
//!
//! A checker looks at the truth, at the state tree and at the event that has just happened, never at a daemon's view. It is a plain
//! function of the history, so a history written by hand tests it.

mod addresses;
mod answers;
mod ends;
mod fences;
mod frames;
mod halted;
mod harmless;
mod healthy;
mod intent;
mod last_word;
mod leases;
mod liveness;
mod memory;
mod migration;
mod minority;
mod noticed;
mod once;
mod proof;
mod stranded;
mod strangers;
#[cfg(test)]
pub(crate) mod testing;
mod truthful;
mod writes;

use std::{fmt, time::Duration};

use pvc_core::model::NodeName;

use crate::{event::Stamped, tree::Tree, truth::Truth};

/// What must never happen has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The number in protocols.md, section 9; 0: a bug that no invariant names (a panic, a daemon that cannot start).
    pub invariant: u8,
    /// What happened, in words.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}", self.invariant, self.what)
    }
}

/// One invariant.
pub trait Checker: Send {
    /// Its number in protocols.md, section 9.
    fn invariant(&self) -> u8;

    /// Called after each event, once it is part of truth and tree; an error says what is wrong now.
    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String>;
}

/// How the cluster that is judged is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two keepalives of a node that does not say that it speaks less often.
    pub keepalive: Duration,
    /// Silence after which such a node is fenced.
    pub fence_after: Duration,
    /// The longest time-out of sessions with ZooKeeper.
    pub session: Duration,
}

impl Timing {
    /// Between two keepalives of a node, and the silence after which it is fenced. One whose word cannot be read counts as slow.
    fn of(&self, tree: &Tree, node: &NodeName) -> (Duration, Duration) {
        let slow = self.keepalive.max(Duration::from_secs(30));
        let path = format!("/nodes/{node}/keepalive_interval");
        let said = || tree.text(&path).and_then(|text| text.parse().ok()).map_or(slow, Duration::from_secs);
        let every = tree.key(&path).map_or(self.keepalive, |_| said());
        let intervals = self.fence_after.as_secs_f32() / self.keepalive.as_secs_f32();
        (every, every.mul_f32(intervals))
    }
}

/// All of them, in their order.
pub fn all(timing: Timing) -> Vec<Box<dyn Checker>> {
    vec![
        Box::<once::Once>::default(),
        Box::<proof::Proof>::default(),
        Box::<addresses::Addresses>::default(),
        Box::<answers::Answers>::default(),
        Box::<fences::Fences>::default(),
        Box::new(healthy::Healthy::new(timing)),
        Box::new(minority::Minority::new(timing)),
        Box::<memory::Memory>::default(),
        Box::<migration::Migration>::default(),
        Box::<ends::Ends>::default(),
        Box::<leases::Leases>::default(),
        Box::<harmless::Harmless>::default(),
        Box::new(liveness::Liveness::new(timing)),
        Box::<truthful::Truthful>::default(),
        Box::<intent::Intent>::default(),
        Box::<frames::Frames>::default(),
        Box::<writes::Writes>::default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_invariant_has_its_checker() {
        let numbers: Vec<u8> = all(testing::TIMING).iter().map(|checker| checker.invariant()).collect();
        assert_eq!(numbers, (1..=17).collect::<Vec<u8>>());
    }
}
