//! A whole cluster of real daemons on one machine, for people (`./lab up`) and for end-to-end tests ([`Lab::up`]).
//! Never part of what is shipped, and never touches what it did not make: see `machine/marker.rs`.
//!
//! Every node is a `systemd-nspawn --boot` over this machine's own `/`, with its own network, processes, mounts and host
//! name, ZooKeeper, libvirtd, pvcd, and a BMC that cuts its power. All of them live in one capsule of namespaces.

pub mod capsule;
pub mod cluster;
pub mod config;
pub mod devices;
pub mod disk;
pub mod door;
pub mod emulated;
pub mod guest;
pub mod lab;
pub mod layout;
pub mod machine;
pub mod node;
pub mod observers;
pub mod options;
pub mod program;
pub mod scenario;

pub use capsule::Lifetime;
pub use cluster::{Cluster, PATIENCE, Vm};
pub use devices::{
    control::Behaviour,
    drops::{Dropped, Peer, Traffic, Way},
};
pub use emulated::Emulated;
pub use guest::{Beat, beating_guest_xml, guest_xml};
pub use lab::Lab;
pub use node::Node;
pub use observers::{
    clients::{Clients, Given},
    probe::{Probe, Reach},
    processes::{Processes, Run},
    question::Resolver,
    rack::{Rack, given_twice, not_recorded},
};
pub use options::{LabOptions, Timings};
pub use program::{Output, wait_until};
pub use scenario::{Scenario, play, play_unjudged};
