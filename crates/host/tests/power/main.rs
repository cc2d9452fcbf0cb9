//! One contract for every BMC, so that the fake cannot lie; then what only the real program can be put through.
//!
//! The tests on a real BMC need ipmitool and ipmi_sim (package openipmi), and fail without them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod faults;
mod real;
