//! Everything that touches this machine, one folder a capability: a trait in our words, the real thing, a fake.
//! Knows nothing of the state tree.

mod blocking;
pub mod boot_note;
pub mod ceph;
pub mod certificate;
pub mod database_cluster;
pub mod dhcp;
pub mod firewall;
pub mod hypervisor;
mod library;
pub mod links;
pub mod machine;
pub mod osds;
pub mod power;
pub mod programs;
pub mod routing;
pub mod run;
pub mod services;
pub mod storage_fence;
pub mod surroundings;
#[cfg(feature = "testing")]
pub mod testing;
pub mod warrant;
pub mod watchdog;
pub mod zones;
