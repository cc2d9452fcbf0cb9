//! Who starts at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use pvc_core::{
    model::{DomainSpec, Subject, ceph::PoolName},
    plan::storage_fence::images,
};
use tokio::sync::Semaphore;

use super::VmReconciler;

/// So many guests are started at once; more only makes each slower.
const AT_ONCE: usize = 4;

/// The turns of starts. What has its disks in the same pools waits for each other, and for nothing else: each start waits a minute for a pool
/// that does not answer.
#[derive(Default)]
pub(super) struct StartTurns(Mutex<BTreeMap<BTreeSet<PoolName>, Arc<Semaphore>>>);

impl StartTurns {
    fn of(&self, spec: Option<&DomainSpec>) -> Arc<Semaphore> {
        let images = spec.map(|spec| images(&spec.rbd_images).0).unwrap_or_default();
        let pools = images.into_iter().map(|image| image.pool).collect();
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody has one of these, or waits for one.
        turns.retain(|_, turns| Arc::strong_count(turns) > 1);
        Arc::clone(turns.entry(pools).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))))
    }
}

impl VmReconciler {
    /// What cannot be read is not started: it waits for nothing.
    pub(super) async fn start_turns(&self, subject: &Subject) -> Arc<Semaphore> {
        let view = self.cluster.view();
        let vm = if let Subject::Vm(id) = subject { view.vm(*id) } else { None };
        let spec = match vm {
            Some(vm) => self.definitions.of(vm).await.ok().and_then(Result::ok),
            None => None,
        };
        self.starts.of(spec.as_deref())
    }
}
