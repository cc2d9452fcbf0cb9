//! What handlers work with.

use std::sync::{Arc, OnceLock};

use pvc_operate::Cluster;
use pvc_store::mirror::Mirror;

use crate::{
    audit::Audit, differences::Differences, gate::Gate, limits::Limits, readings::Readings, shares::Shares,
};

/// The cluster, who may command it, and what a request may cost.
pub struct Api {
    /// The cluster.
    pub cluster: Cluster,
    /// Who may.
    pub gate: Gate,
    /// What a request may cost.
    pub limits: Limits,
    /// Made for the first who listens to events.
    mirror: OnceLock<Mirror>,
    /// What was told to listeners last.
    pub(crate) differences: Differences,
    /// Who has changed what.
    pub(crate) audit: Audit,
    /// What is being read.
    pub(crate) readings: Readings,
    /// Places of those who read.
    pub(crate) reads: Shares,
    /// Places of those who change something.
    pub(crate) changes: Shares,
    /// Places of those who listen.
    pub(crate) listeners: Shares,
}

impl Api {
    /// An API of that cluster.
    pub fn new(cluster: Cluster, gate: Gate, limits: Limits) -> Self {
        Self {
            cluster,
            gate,
            limits,
            mirror: OnceLock::new(),
            differences: Differences::default(),
            audit: Audit::default(),
            readings: Readings::default(),
            reads: Shares::new(limits.reads),
            changes: Shares::new(limits.changes),
            listeners: Shares::new(limits.listeners),
        }
    }

    /// What is known of the cluster, and hears what changes.
    pub(crate) fn mirror(&self) -> &Mirror {
        self.mirror.get_or_init(|| Mirror::start(Arc::clone(&self.cluster.store)))
    }
}

/// As handlers share it.
pub(crate) type Shared = Arc<Api>;
