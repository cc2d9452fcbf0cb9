//! What is the case, whatever anybody believes: the network, ZooKeeper's servers, machines and what is on them.

pub mod ensemble;
pub mod machine;
pub mod network;
