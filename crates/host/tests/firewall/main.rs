//! One contract for every packet filter, so that the fake cannot lie; then what only the real one can be put through.
//!
//! The real one runs in network namespaces made for each test. They need root, nftables and iproute2, and fail without.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod frames;
#[allow(dead_code, reason = "the tests of links need all of it")]
#[path = "../links/namespace.rs"]
mod namespace;
mod odd;
mod senders;
