//! What is the case, whatever anybody believes: the network, ZooKeeper's servers, Ceph. [`crate::machine`] stands on it.

pub mod ceph;
pub mod ensemble;
pub mod guest;
pub mod network;
pub mod wires;
