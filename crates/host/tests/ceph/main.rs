//! One contract for every Ceph, so that the fake cannot lie; then what only the real one can be put through.
//!
//! The tests on the real one need a monitor, a manager, OSDs and QEMU's rbd driver (packages ceph-mon, ceph-mgr, ceph-osd, ceph-common,
//! qemu-block-extra, qemu-utils), and fail without them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod contract;
mod copies;
mod faults;
mod fence;
mod osds;
mod rig;
