//! The node daemon.

pub mod console;
pub mod log;
