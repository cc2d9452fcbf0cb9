//! Which tasks are carried out here, and what is remembered of each: may be lost, and saves asking Ceph what it has refused before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use pvc_core::{
    model::{
        ClusterView, Subject, VmId,
        ceph::{ClientAddress, ImageName},
        storage::CephChange,
        task::TaskId,
    },
    plan::{
        storage::{Refused, may_go},
        storage_fence::images,
    },
};
use pvc_store::schema::task::Seen;
use tokio::time::Instant;

/// What is remembered of the tasks that are not over.
#[derive(Default)]
pub(super) struct Taken(Mutex<BTreeMap<TaskId, Remembered>>);

#[derive(Default)]
struct Remembered {
    /// It may be carried out, and is looked at.
    goes: bool,
    /// What Ceph has refused of it, and has not done since.
    refusals: Vec<Refusal>,
    /// The client of its last change that has ended here: it does nothing any more.
    ended: Option<ClientAddress>,
}

struct Refusal {
    change: CephChange,
    why: String,
    /// Since when it refuses this.
    since: Instant,
}

impl Taken {
    /// Takes up those tasks that may be carried out now. Answers which are to be looked at: the new ones, and those that are to end.
    pub(super) fn take_up(&self, view: &ClusterView, open: &[Seen]) -> Vec<Subject> {
        let go = may_go(open.iter().map(|seen| &seen.task), |vm| images_of(view, vm));
        let to_end: BTreeSet<TaskId> =
            open.iter().filter(|seen| seen.task.is_to_end().is_some()).map(|seen| seen.task.id).collect();
        let mut taken = self.lock();
        taken.retain(|id, _| open.iter().any(|seen| seen.task.id == *id));
        let mut look = Vec::new();
        for id in go {
            let is_new = !std::mem::replace(&mut taken.entry(id).or_default().goes, true);
            if is_new || to_end.contains(&id) {
                look.push(Subject::Task(id));
            }
        }
        look
    }

    /// Another node is primary. What is remembered stays so.
    pub(super) fn leave_all(&self) {
        for task in self.lock().values_mut() {
            task.goes = false;
        }
    }

    pub(super) fn goes(&self, id: TaskId) -> bool {
        self.lock().get(&id).is_some_and(|task| task.goes)
    }

    pub(super) fn all(&self) -> Vec<Subject> {
        self.lock().iter().filter(|(_, task)| task.goes).map(|(id, _)| Subject::Task(*id)).collect()
    }

    pub(super) fn is_over(&self, id: TaskId) {
        self.lock().remove(&id);
    }

    pub(super) fn is_refused(&self, id: TaskId, change: &CephChange, why: String) {
        let mut taken = self.lock();
        let all = &mut taken.entry(id).or_default().refusals;
        match all.iter_mut().find(|refusal| refusal.change == *change) {
            Some(before) => before.why = why,
            None => all.push(Refusal { change: change.clone(), why, since: Instant::now() }),
        }
    }

    /// What was refused before stays so, as while its leftovers are removed.
    pub(super) fn is_made(&self, id: TaskId, change: &CephChange) {
        if let Some(task) = self.lock().get_mut(&id) {
            task.refusals.retain(|refusal| refusal.change != *change);
        }
    }

    pub(super) fn refused(&self, id: TaskId) -> Vec<Refused> {
        let told = |refusal: &Refusal| Refused {
            change: refusal.change.clone(),
            why: refusal.why.clone(),
            lasts: refusal.since.elapsed(),
        };
        self.lock().get(&id).map(|task| task.refusals.iter().map(told).collect()).unwrap_or_default()
    }

    /// Nothing more is done by this client.
    pub(super) fn has_ended(&self, id: TaskId, client: Option<ClientAddress>) {
        self.lock().entry(id).or_default().ended = client;
    }

    pub(super) fn ended(&self, id: TaskId) -> Option<ClientAddress> {
        self.lock().get(&id).and_then(|task| task.ended)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The images of a VM, by its list; `None` if nobody knows. One that there is not has none.
fn images_of(view: &ClusterView, id: VmId) -> Option<Vec<ImageName>> {
    let Some(_) = view.vms.get(&id) else { return Some(Vec::new()) };
    let (images, odd) = images(&view.vm(id)?.rbd_images);
    odd.is_empty().then(|| images.into_iter().collect())
}
