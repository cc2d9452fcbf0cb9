//! Turns of what waits for Ceph: a pool that does not answer holds up its like only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use pvc_core::model::ceph::{ImageName, PoolName};
use tokio::sync::Semaphore;

/// So many have their turn at once.
const AT_ONCE: usize = 4;

/// What has images in the same pools waits for each other, and for nothing else.
#[derive(Default)]
pub(crate) struct PoolTurns(Mutex<BTreeMap<BTreeSet<PoolName>, Arc<Semaphore>>>);

impl PoolTurns {
    /// The turns of what has these images.
    pub(crate) fn of(&self, images: &BTreeSet<ImageName>) -> Arc<Semaphore> {
        let pools = images.iter().map(|image| image.pool.clone()).collect();
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody has one of these, or waits for one.
        turns.retain(|_, turns| Arc::strong_count(turns) > 1);
        Arc::clone(turns.entry(pools).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))))
    }
}
