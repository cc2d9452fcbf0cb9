//! The state tree as a reconciler uses it: a view, writes that are checked against it, and a clock.

use std::{sync::Arc, time::Duration};

use pvc_core::{
    model::{ClusterView, Moment, NodeName, VmChange},
    plan::liveness::Heard,
};
use pvc_host::machine::Machine;
use pvc_store::{Session, Store, Transaction, mirror::Mirror, schema};
use tokio::time::Instant;

use super::StepError;

/// How long the view may take to show what this node wrote.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(10);

/// See the module's documentation.
#[derive(Clone)]
pub struct Cluster {
    /// This node.
    pub me: NodeName,
    /// The state tree.
    pub store: Arc<dyn Store>,
    /// The view of it.
    pub mirror: Mirror,
    /// This machine, for its clock.
    pub machine: Arc<dyn Machine>,
    origin: Instant,
}

impl Cluster {
    /// Its moments count from now.
    pub fn new(me: NodeName, store: Arc<dyn Store>, mirror: Mirror, machine: Arc<dyn Machine>) -> Self {
        Self { me, store, mirror, machine, origin: Instant::now() }
    }

    /// The latest view. It may be old; every write is checked against what it was decided from.
    pub(crate) fn view(&self) -> Arc<ClusterView> {
        self.mirror.view()
    }

    /// When a keepalive of each node was heard last.
    pub(crate) fn heard(&self) -> Heard {
        self.mirror.heard(self.origin)
    }

    /// Whether the view is current.
    pub(crate) fn is_current(&self) -> bool {
        self.mirror.synced()
    }

    /// The session that what is ephemeral hangs on.
    pub(crate) fn epoch(&self) -> Option<u64> {
        match *self.store.session().borrow() {
            Session::Connecting => None,
            Session::Healthy { epoch } | Session::Suspended { epoch } => Some(epoch),
        }
    }

    pub(crate) fn is_primary(&self, view: &ClusterView) -> bool {
        view.primary_holder.as_ref() == Some(&self.me)
    }

    /// Now, on this daemon's clock.
    pub(crate) fn now(&self) -> Moment {
        Moment(self.origin.elapsed())
    }

    /// The instant of a moment on that clock.
    pub(crate) fn at(&self, moment: Moment) -> Instant {
        self.origin + moment.0
    }

    /// The moment of an instant on that clock.
    pub(crate) fn moment(&self, at: Instant) -> Moment {
        Moment(at.saturating_duration_since(self.origin))
    }

    /// Writes a change of a VM, and `others` with it, and waits until the view shows it, so that the next plan sees what was done.
    pub(crate) async fn change(&self, change: &VmChange, others: Transaction) -> Result<(), StepError> {
        schema::vm::apply_with(&*self.store, change, others).await?;
        self.catch_up().await
    }

    /// Writes, and waits until the view shows it.
    pub(crate) async fn commit(&self, txn: Transaction) -> Result<(), StepError> {
        self.store.commit(txn).await?;
        self.catch_up().await
    }

    /// Waits until the view holds everything that this node has committed.
    pub(crate) async fn catch_up(&self) -> Result<(), StepError> {
        self.mirror.caught_up(CATCH_UP_WITHIN).await.map_err(|error| StepError::Failed(error.to_string()))
    }

    /// Waits until the view holds everything that anybody has committed: the server that this node reads from may be behind.
    pub(crate) async fn catch_up_with_everybody(&self) -> Result<(), StepError> {
        let caught_up = self.mirror.caught_up_with_everybody(CATCH_UP_WITHIN).await;
        caught_up.map_err(|error| StepError::Failed(error.to_string()))
    }
}
