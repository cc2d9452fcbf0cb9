//! What is brought to agree with what is desired, a folder a kind of object. [`crate::controller`] is the engine that they share.

pub mod client_network;
pub(crate) mod client_records;
pub mod database_leader;
pub mod dns;
pub mod fence;
pub mod firewall;
pub mod flush;
pub mod gateway_services;
pub mod network;
#[cfg(test)]
pub(crate) mod network_world;
pub mod osd_tasks;
mod per_network;
pub mod primary;
pub mod routing;
pub mod storage_tasks;
pub mod vm;
