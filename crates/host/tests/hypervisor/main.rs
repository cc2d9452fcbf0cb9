//! One contract for every hypervisor, so that the fake cannot lie; then what only the real one can be put through.
//!
//! The tests on a real libvirtd need root, libvirt-daemon-system, libvirt-clients and
//! qemu-system-x86, and fail without them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod console;
mod contract;
mod control;
mod cut;
mod fake;
mod faults;
mod halted;
mod kept;
mod migration;
mod real;
mod screen;
