//! A whole cluster of real daemons on one machine, for people (`./lab up`) and for end-to-end tests ([`Lab::up`]).
//! Never part of what is shipped, and never touches what it did not make: see `marker.rs`.
//!
//! Every node is a `systemd-nspawn --boot` over this machine's own `/`, with its own network, processes, mounts and host
//! name, ZooKeeper, libvirtd, pvcd, and a BMC that cuts its power. All of them live in one capsule of namespaces.

pub mod addresses;
pub mod bmc;
pub mod boot;
pub mod capsule;
pub mod cgroup;
pub mod cluster;
mod collect;
pub mod config;
pub mod control;
mod cpio;
pub mod drops;
pub mod guest;
pub mod lab;
pub mod layer;
pub mod layout;
pub mod marker;
pub mod network;
pub mod node;
pub mod options;
pub mod probe;
pub mod processes;
pub mod program;
pub mod scenario;
pub mod switch;
pub mod tree;
pub mod watchdog;

pub use bmc::Behaviour;
pub use capsule::Lifetime;
pub use cluster::{Cluster, PATIENCE, Vm};
pub use drops::{Dropped, Peer, Traffic, Way};
pub use guest::{Beat, beating_guest_xml, guest_xml};
pub use lab::Lab;
pub use node::Node;
pub use options::{LabOptions, Timings};
pub use probe::{Probe, Reach};
pub use processes::{Processes, Run};
pub use program::{Output, wait_until};
pub use scenario::{Scenario, play, play_unjudged};
