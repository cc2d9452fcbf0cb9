//! One contract for every machine's network, so that the fake cannot lie; then what only the real one can be put through.
//!
//! The real one runs in network namespaces made for each test, with veth pairs. They need root and iproute2, and fail without.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod announce;
mod bridge;
mod bridges;
mod client_networks;
mod contract;
mod dhcp6;
mod hundred;
mod moving;
mod namespace;
