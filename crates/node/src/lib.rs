//! The node daemon.

pub mod log;
