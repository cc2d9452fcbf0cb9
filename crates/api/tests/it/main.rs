//! The API over HTTP: what old clients are owed, who may, and what a stranger can do to it.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod events;
mod limits;
mod old_api;
mod openapi;
mod page;
mod strangers;
mod support;
mod tls;
mod v2;
mod zookeeper;
