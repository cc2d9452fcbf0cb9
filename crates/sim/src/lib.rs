//! A whole cluster in one process: real daemons over simulated machines, one seed, one thread, one paused clock.
//!
//! Physics is kept apart from belief: the simulator owns the truth, [`checkers`] look at it and at the state tree, never at what a
//! daemon thinks. Never part of what is shipped.

pub mod checkers;
pub mod event;
pub mod tree;
pub mod truth;
