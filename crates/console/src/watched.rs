//! Where a VM is, for who has something of it open.

use std::{pin::Pin, sync::Arc};

use pvc_core::model::VmId;
use pvc_operate::{
    Cluster, Failure,
    vm::{Home, Whereabouts},
};

/// What came of a look, and the whereabouts that it has used.
type Looked = (Whereabouts, Result<Home, Failure>);

/// Where the VM is. A look goes on however often the guest prints meanwhile: each that began anew would be requests for nothing.
pub(crate) struct Watched {
    whereabouts: Option<Whereabouts>,
    look: Option<Pin<Box<dyn Future<Output = Looked> + Send>>>,
    /// Something may have changed that has not been looked at.
    is_to_look: bool,
}

impl Watched {
    /// Whatever changed before is looked at once more.
    pub(crate) fn new(whereabouts: Whereabouts) -> Self {
        Self { whereabouts: Some(whereabouts), look: None, is_to_look: true }
    }

    /// Where it is, whenever that may have changed. Nothing is lost when this future is dropped.
    pub(crate) async fn home(&mut self, cluster: &Arc<Cluster>) -> Result<Home, Failure> {
        loop {
            if let Some(look) = &mut self.look {
                let (whereabouts, home) = look.await;
                self.look = None;
                self.whereabouts = Some(whereabouts);
                return home;
            }
            if let Some(whereabouts) = self.whereabouts.as_mut().filter(|_| !self.is_to_look) {
                whereabouts.changed().await;
            }
            self.is_to_look = false;
            let Some(whereabouts) = self.whereabouts.take() else { return std::future::pending().await };
            let cluster = Arc::clone(cluster);
            self.look = Some(Box::pin(async move {
                let home = whereabouts.look(&cluster).await;
                (whereabouts, home)
            }));
        }
    }

    /// Where it is now.
    pub(crate) async fn home_now(&mut self, cluster: &Arc<Cluster>) -> Result<Home, Failure> {
        if self.look.is_some() {
            // What was asked for before now may be old.
            let _ = self.home(cluster).await;
        }
        self.is_to_look = true;
        self.home(cluster).await
    }

    /// For who looks for it anew.
    pub(crate) fn into_whereabouts(self, cluster: &Cluster, vm: VmId) -> Whereabouts {
        self.whereabouts.unwrap_or_else(|| Whereabouts::watch(cluster, vm))
    }
}
