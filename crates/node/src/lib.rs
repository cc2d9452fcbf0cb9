//! The node daemon.

pub mod console;
pub mod log;
pub mod queue;
pub mod reconcile;
