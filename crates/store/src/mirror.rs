//! The state tree in memory: list + watch → `Arc<ClusterView>`, one writer, cheap readers.

use std::{sync::Arc, time::Duration};

use pvc_core::model::{ClusterView, Subject};
use tokio::sync::mpsc;

use crate::Store;

/// Why the mirror cannot promise to be up to date.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the view of the cluster is not up to date: {0}")]
pub struct NotCaughtUp(pub &'static str);

/// A mirror of the nodes, VMs and root keys. Cheap to clone; all clones share one task, which ends with the last clone.
#[derive(Debug, Clone)]
pub struct Mirror {}

impl Mirror {
    /// Starts mirroring; returns at once with an empty view.
    pub fn start(store: Arc<dyn Store>) -> Self {
        let _ = store;
        unimplemented!()
    }

    /// The latest view. May lag behind: check versions when writing.
    pub fn view(&self) -> Arc<ClusterView> {
        unimplemented!()
    }

    /// Which subjects changed, from now on: first everything there is, then each that changed or was deleted.
    pub fn changes(&self) -> mpsc::UnboundedReceiver<Subject> {
        unimplemented!()
    }

    /// Returns when the first listing is complete.
    pub async fn ready(&self) {
        unimplemented!()
    }

    /// Read-your-writes: returns when the view holds everything that this store committed before the call.
    pub async fn caught_up(&self, within: Duration) -> Result<(), NotCaughtUp> {
        let _ = within;
        unimplemented!()
    }

    /// Whether the view is complete and the session has been healthy ever since it became so.
    pub fn synced(&self) -> bool {
        unimplemented!()
    }
}
