//! One contract for the DNS database, so that the fake cannot lie; then what only a real PostgreSQL and a real PowerDNS can be put through.
//!
//! The tests on real ones need the packages postgresql, pdns-server and pdns-backend-pgsql, and fail without them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod faults;
mod resolve;
