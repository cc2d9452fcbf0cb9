//! What the service has seen since it began: figures of the nodes and of ZooKeeper over some hours, and the course of the last fences. Kept in
//! memory and bounded; the service of the next primary begins anew.

mod failovers;
mod figures;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pvc_core::model::{ClusterView, NodeName};
use pvc_operate::node::Listed;

pub(crate) use failovers::Failover;
use failovers::Failovers;
use figures::Figures;
pub(crate) use figures::History;

/// What was seen.
#[derive(Default)]
pub(crate) struct Past(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    figures: Figures,
    failovers: Failovers,
}

impl Past {
    fn with<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All samples.
    pub(crate) fn history(&self) -> History {
        self.with(|seen| seen.figures.history())
    }

    /// The last fences, the newest first.
    pub(crate) fn failovers(&self) -> Vec<Failover> {
        self.with(|seen| seen.failovers.newest_first())
    }

    /// Takes note of figures; `took`: in how much time ZooKeeper answered, if it did.
    pub(crate) fn sampled(&self, now_unix_s: u64, took: Option<Duration>, nodes: &[Listed]) {
        self.with(|seen| seen.figures.add(now_unix_s, took, nodes));
    }

    /// Takes note of a view. `silence`: how long ago a node's last keepalive was heard.
    pub(crate) fn saw(
        &self,
        now_unix_ms: u64,
        view: &ClusterView,
        silence: impl Fn(&NodeName) -> Option<Duration>,
    ) {
        self.with(|seen| seen.failovers.see(now_unix_ms, view, silence));
    }
}
