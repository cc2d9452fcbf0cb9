//! Which keepalives were heard, and whose figures have not been read since. Reading what each keepalive of each node says would cost a
//! cluster the square of its nodes in reads, and nobody looks at most of it: that a node lives is told by the event alone.

use std::collections::{BTreeMap, BTreeSet};

use pvc_core::{
    model::{Moment, NodeName},
    plan::liveness::Heard,
};
use tokio::{sync::watch, time::Instant};

/// When a keepalive of each node was last heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Noted {
    gaps: u64,
    count: u64,
    last: BTreeMap<NodeName, (u64, Instant)>,
}

impl Noted {
    /// In the time of an observer whose clock began at `origin`.
    pub(super) fn since(&self, origin: Instant) -> Heard {
        let moment = |at: Instant| Moment(at.saturating_duration_since(origin));
        let last = self.last.iter().map(|(name, (number, at))| (name.clone(), (*number, moment(*at))));
        Heard { gaps: self.gaps, last: last.collect() }
    }

    /// The number of a node's last keepalive.
    pub(super) fn number(&self, node: &NodeName) -> Option<u64> {
        self.last.get(node).map(|(number, _)| *number)
    }
}

/// The mirror's side.
#[derive(Debug)]
pub(super) struct Keepalives {
    noted: watch::Sender<Noted>,
    unread: BTreeSet<NodeName>,
}

impl Keepalives {
    pub(super) fn new(noted: watch::Sender<Noted>) -> Self {
        Self { noted, unread: BTreeSet::new() }
    }

    /// A node has spoken.
    pub(super) fn heard(&self, node: NodeName) {
        self.noted.send_modify(|noted| {
            noted.count += 1;
            noted.last.insert(node, (noted.count, Instant::now()));
        });
    }

    /// Some may have been missed.
    pub(super) fn gap(&self) {
        self.noted.send_modify(|noted| noted.gaps += 1);
    }

    /// There is no such node any more.
    pub(super) fn forget(&mut self, node: &NodeName) {
        self.unread.remove(node);
        self.noted.send_if_modified(|noted| noted.last.remove(node).is_some());
    }

    /// Its figures are others than those that were read.
    pub(super) fn is_unread(&mut self, node: NodeName) {
        self.unread.insert(node);
    }

    /// Its figures are about to be read; whether they were unread.
    pub(super) fn reads(&mut self, node: &NodeName) -> bool {
        self.unread.remove(node)
    }

    /// The nodes whose figures are unread.
    pub(super) fn unread(&self) -> &BTreeSet<NodeName> {
        &self.unread
    }
}
