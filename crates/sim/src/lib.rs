//! A whole cluster in one process: real daemons over simulated machines, one seed, one thread, one paused clock.
//!
//! Physics is kept apart from belief: the simulator owns the truth, [`checkers`] look at it and at the state tree, never at what a
//! daemon thinks. Never part of what is shipped.

pub mod campaign;
pub mod checkers;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod event;
pub mod faults;
pub mod journal;
mod keys;
pub mod log;
pub mod machine;
pub mod minimise;
#[cfg(feature = "sabotage")]
pub mod mutants;
pub mod options;
pub mod parts;
pub mod physics;
pub mod report;
pub mod rng;
pub mod run;
pub mod schedule;
pub mod tree;
pub mod truth;
pub mod workload;
