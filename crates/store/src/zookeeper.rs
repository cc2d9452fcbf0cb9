//! The real store.

use std::{sync::Arc, time::Duration};

/// How to reach ZooKeeper.
#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port,host:port…`, optionally with `/chroot` at the end.
    pub connect: String,
    /// The session time-out to ask for; the server may grant another.
    pub session_timeout: Duration,
    /// The deadline of each call, waiting for a connection included.
    pub request_timeout: Duration,
}

impl Options {
    /// The usual deadlines for these servers.
    pub fn new(connect: impl Into<String>) -> Self {
        Self { connect: connect.into(), session_timeout: Duration::from_secs(10), request_timeout: Duration::from_secs(10) }
    }
}

/// A ZooKeeper client.
#[derive(Debug)]
pub struct ZooKeeperStore {}

impl ZooKeeperStore {
    /// Starts connecting in the background; returns at once.
    pub fn start(options: Options) -> Arc<Self> {
        let _ = options;
        unimplemented!()
    }
}
