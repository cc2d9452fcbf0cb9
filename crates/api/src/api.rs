//! What handlers work with.

use std::sync::Arc;

use pvc_operate::Cluster;

use crate::{gate::Gate, limits::Limits};

/// The cluster, who may command it, and what a request may cost.
pub struct Api {
    /// The cluster.
    pub cluster: Cluster,
    /// Who may.
    pub gate: Gate,
    /// What a request may cost.
    pub limits: Limits,
}

/// As handlers share it.
pub(crate) type Shared = Arc<Api>;
