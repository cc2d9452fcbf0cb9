//! The fake store.

use std::{sync::Arc, time::Duration};

use crate::Store;

/// A state tree in memory that several clients share, as ZooKeeper's servers do.
#[derive(Debug, Clone, Default)]
pub struct MemoryTree {}

impl MemoryTree {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new client with a healthy session of its own.
    pub fn client(&self) -> Arc<MemoryStore> {
        unimplemented!()
    }
}

/// One client of a [`MemoryTree`].
#[derive(Debug)]
pub struct MemoryStore {}

impl MemoryStore {
    /// As a [`Store`].
    pub fn as_store(self: &Arc<Self>) -> Arc<dyn Store> {
        unimplemented!()
    }

    /// Cuts the connection: calls wait for it until their deadline, the session lives on.
    pub fn suspend(&self) {
        unimplemented!()
    }

    /// Heals the connection; if the session was expired meanwhile, a new one is opened.
    pub fn resume(&self) {
        unimplemented!()
    }

    /// Ends the session on the servers: its ephemeral keys are gone. The client learns of it at once, or at [`Self::resume`].
    pub fn expire(&self) {
        unimplemented!()
    }

    /// Each call takes this long from now on.
    pub fn delay(&self, by: Duration) {
        let _ = by;
    }

    /// The next `count` commits are applied, but their answers are lost.
    pub fn lose_answers(&self, count: u32) {
        let _ = count;
    }

    /// The next `count` calls are refused.
    pub fn refuse(&self, count: u32) {
        let _ = count;
    }

    /// From now on this client reads from a server that hears of no changes, except its own.
    pub fn fall_behind(&self) {}

    /// The server behind this client catches up.
    pub fn catch_up(&self) {}
}
