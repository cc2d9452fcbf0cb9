//! The storage's side of a fence: there is Ceph, and it obeys.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::{
    model::{NodeName, ceph::ImageName},
    plan::storage_fence::Request,
};
use pvc_host::{
    storage_fence::{OpenHere, StorageFence, StorageFenceError, Unseen},
    warrant::Warrant,
};
use pvc_process::Process;
use tokio::time::sleep;

use super::in_flight;
use crate::{event::Event, journal::Journal, rng::Rng};

/// How long it takes.
const TAKES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// See the module's documentation.
pub struct SimStorage {
    /// The world's process.
    pub world: Process,
    /// Who asks.
    pub node: NodeName,
    /// How long it takes.
    pub rng: Arc<Mutex<Rng>>,
    /// Whom it is told.
    pub journal: Arc<Journal>,
}

#[async_trait]
impl StorageFence for SimStorage {
    fn is_available(&self) -> bool {
        true
    }

    async fn open_here(&self, _image: &ImageName) -> Result<OpenHere, StorageFenceError> {
        // Whoever it is, it is the one that is recorded.
        Ok(Some("10.0.0.1:0/1".parse().into_iter().collect()))
    }

    async fn shut_out(
        &self,
        node: &NodeName,
        request: &Request,
        warrant: &dyn Warrant,
    ) -> Result<Unseen, StorageFenceError> {
        let takes = self.rng.lock().unwrap_or_else(PoisonError::into_inner).time(TAKES[0], TAKES[1]);
        in_flight(&self.world, sleep(takes)).await;
        warrant.holds().await?;
        let images = request.images.keys().map(ToString::to_string).collect();
        let event = Event::ShutOut { by: self.node.clone(), of: node.clone(), images };
        let journal = Arc::clone(&self.journal);
        in_flight(&self.world, async move { journal.tell(event) }).await;
        Ok(Unseen::new())
    }
}
