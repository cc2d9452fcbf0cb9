//! The API over HTTP: what old clients are owed, who may, and what a stranger can do to it.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod audit;
mod console;
mod counted;
mod events;
mod limits;
mod lists;
mod old_api;
mod openapi;
mod page;
mod screen;
mod socket;
mod speed;
mod strangers;
mod support;
mod tls;
mod tokens;
mod trials;
mod v2;
mod zookeeper;
