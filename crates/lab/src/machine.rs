//! What a node's machine is made of here: its files and layers, its control groups, its boot, and the mark on what the lab has made.

pub mod boot;
pub mod cgroup;
pub(crate) mod cpio;
pub mod layer;
pub mod marker;
pub(crate) mod network;
