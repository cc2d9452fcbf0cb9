//! What the machines are connected to, and what can be broken: power, BMCs, watchdogs, cables, the switch between the nodes.

pub mod addresses;
pub mod bmc;
pub mod ceph;
pub mod control;
pub mod drops;
pub mod network;
pub mod switch;
pub mod watchdog;
