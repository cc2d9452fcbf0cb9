//! The invariants of docs/protocols.md, section 9: one file each.
//!
//! A checker looks at the truth, at the state tree and at the event that has just happened, never at a daemon's view. It is a plain
//! function of the history, so a history written by hand tests it.

mod addresses;
mod liveness;
mod once;
#[cfg(test)]
mod testing;

use std::fmt;

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

/// All of them, in their order.
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::<once::Once>::default(),
        Box::<addresses::Addresses>::default(),
        Box::<liveness::Liveness>::default(),
    ]
}
