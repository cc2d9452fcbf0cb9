//! What runs on this node, as libvirt last said: read once, kept current by events, read again now and then in case an
//! event was lost. Plans start from it; before anything is done to a VM, that VM is read afresh.
//!
//! Never guesses: while libvirt does not answer, everything is [`LocalState::Unknown`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pvc_core::{model::VmId, plan::vm::LocalState};
use pvc_host::hypervisor::{Activity, Halt, Hypervisor, HypervisorError, Seen};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::ability::Trouble;

/// The active domains of this node, by id; `None` while libvirt does not answer.
pub type Active = Option<Arc<BTreeMap<VmId, Seen>>>;

/// The number of each VM's last event from libvirt; none is given twice.
#[derive(Debug, Default)]
pub struct LastEvents {
    events: u64,
    of: BTreeMap<VmId, u64>,
}

impl LastEvents {
    /// That of a VM, if there was one.
    pub fn of(&self, id: VmId) -> Option<u64> {
        self.of.get(&id).copied()
    }

    /// Another one of it.
    pub(in crate::reconcile) fn had(&mut self, id: VmId) {
        self.events += 1;
        self.of.insert(id, self.events);
    }
}

/// See the module's documentation.
pub(super) struct Inventory {
    hypervisor: Arc<dyn Hypervisor>,
    /// One reading at a time, so that an older answer never replaces a newer one.
    reading: tokio::sync::Mutex<()>,
    active: Mutex<Active>,
    published: watch::Sender<Active>,
    events: watch::Sender<LastEvents>,
    /// Why libvirt does not answer, while nothing is known.
    trouble: watch::Sender<Trouble>,
    /// Of which libvirt knows that they execute, see [`Hypervisor::note_executes`], and the last event of each before that: after another event it may be
    /// another process, though it looks alike.
    executing: Mutex<BTreeMap<VmId, Option<u64>>>,
}

impl Inventory {
    /// Knows nothing yet.
    pub(super) fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self {
            hypervisor,
            reading: tokio::sync::Mutex::default(),
            active: Mutex::default(),
            published: watch::Sender::new(None),
            events: watch::Sender::default(),
            trouble: watch::Sender::new(Some("libvirt has not answered yet".to_owned())),
            executing: Mutex::default(),
        }
    }

    /// The hypervisor it reads.
    pub(super) fn hypervisor(&self) -> &Arc<dyn Hypervisor> {
        &self.hypervisor
    }

    /// Signals every change of what runs here.
    pub(super) fn subscribe(&self) -> watch::Receiver<Active> {
        self.published.subscribe()
    }

    /// Signals each event, also of what has gone and come again between two readings, which look alike.
    pub(super) fn events(&self) -> watch::Receiver<LastEvents> {
        self.events.subscribe()
    }

    /// libvirt has said something of a VM.
    pub(super) fn had_event(&self, id: VmId) {
        let here: BTreeSet<VmId> = self.ids().into_iter().collect();
        self.events.send_modify(|last| {
            last.of.retain(|id, _| here.contains(id));
            last.had(id);
        });
    }

    /// Signals whether libvirt answers, and why it does not.
    pub(super) fn trouble(&self) -> watch::Receiver<Trouble> {
        self.trouble.subscribe()
    }

    /// The last known fact about one VM.
    pub(super) fn local_state(&self, id: VmId) -> LocalState {
        match &*self.lock() {
            None => LocalState::Unknown,
            Some(active) => local_state(active.get(&id)),
        }
    }

    /// Why a VM executes nothing though its process is here, as last known.
    pub(super) fn halt(&self, id: VmId) -> Option<Halt> {
        self.lock().as_ref()?.get(&id)?.activity.halt()
    }

    /// The ids of all that runs here, as last known.
    pub(super) fn ids(&self) -> Vec<VmId> {
        self.lock().as_ref().map(|active| active.keys().copied().collect()).unwrap_or_default()
    }

    /// Reads everything; answers with the ids that came, went or changed.
    pub(super) async fn read_all(&self) -> Result<Vec<VmId>, HypervisorError> {
        let _one_at_a_time = self.reading.lock().await;
        let seen = self.hypervisor.active().await.inspect_err(|error| self.forget(&error.to_string()))?;
        self.trouble.send_if_modified(|trouble| trouble.take().is_some());
        let now: BTreeMap<VmId, Seen> = seen.into_iter().map(|s| (s.id, s)).collect();
        let before = self.lock().clone();
        let changed: Vec<VmId> = match &before {
            None => now.keys().copied().collect(),
            Some(before) => {
                let ids = before.keys().chain(now.keys().filter(|id| !before.contains_key(id)));
                ids.filter(|id| before.get(id) != now.get(id)).copied().collect()
            }
        };
        if before.is_none() || !changed.is_empty() {
            self.replace(Some(Arc::new(now)));
        }
        Ok(changed)
    }

    /// Reads one VM. Needs a full reading first: without it everything stays unknown.
    pub(super) async fn read(&self, id: VmId) -> Result<LocalState, HypervisorError> {
        let _one_at_a_time = self.reading.lock().await;
        let seen = self.hypervisor.seen(id).await?;
        let Some(before) = self.lock().clone() else { return Ok(LocalState::Unknown) };
        let local_state = local_state(seen.as_ref());
        if before.get(&id) != seen.as_ref() {
            let mut now = (*before).clone();
            match seen {
                Some(seen) => now.insert(id, seen),
                None => now.remove(&id),
            };
            self.replace(Some(Arc::new(now)));
        }
        Ok(local_state)
    }

    /// What executes, whoever has let it, is marked as held no more: the mark would count when somebody pauses it later.
    pub(super) async fn note_executes(&self, id: VmId) -> Result<(), HypervisorError> {
        let runs = |seen: &Seen| seen.activity == Activity::Running;
        let event = self.events.borrow().of(id);
        let is_new = {
            let active = self.lock();
            let active = active.as_deref();
            let mut noted = self.executing.lock().unwrap_or_else(PoisonError::into_inner);
            noted.retain(|id, _| active.is_some_and(|active| active.get(id).is_some_and(runs)));
            active.and_then(|active| active.get(&id)).is_some_and(runs) && noted.get(&id) != Some(&event)
        };
        if is_new {
            self.hypervisor.note_executes(id).await?;
            self.executing.lock().unwrap_or_else(PoisonError::into_inner).insert(id, event);
        }
        Ok(())
    }

    /// libvirt is gone, for this reason: nothing is known any more.
    pub(super) fn forget(&self, why: &str) {
        self.trouble.send_if_modified(|trouble| {
            let is_news = trouble.as_deref() != Some(why);
            is_news.then(|| *trouble = Some(why.to_owned())).is_some()
        });
        // Events are missed until it is back.
        self.executing.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if self.lock().is_some() {
            self.replace(None);
        }
    }

    fn replace(&self, active: Active) {
        tell(self.lock().as_deref(), active.as_deref());
        self.lock().clone_from(&active);
        self.published.send_replace(active);
    }

    fn lock(&self) -> MutexGuard<'_, Active> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn local_state(seen: Option<&Seen>) -> LocalState {
    match seen {
        None => LocalState::Off,
        Some(seen) if seen.activity == Activity::Held => LocalState::Held,
        Some(seen) if seen.activity == Activity::Arrived => LocalState::Arrived,
        Some(seen) if seen.activity == Activity::Unstarted => LocalState::Unstarted,
        Some(Seen { activity: Activity::Suspended(why), .. }) => LocalState::Suspended(*why),
        Some(_) => LocalState::Active,
    }
}

/// Says of each VM that has stopped executing, or goes on, that it has.
fn tell(before: Option<&BTreeMap<VmId, Seen>>, now: Option<&BTreeMap<VmId, Seen>>) {
    for seen in now.into_iter().flat_map(BTreeMap::values) {
        let before = before.and_then(|before| before.get(&seen.id)).and_then(|seen| seen.activity.halt());
        match seen.activity.halt() {
            now if now == before => {}
            Some(Halt::Busy) => {}
            Some(halt) => warn!(vm = %seen.name, "it does not execute: {}", halt.what()),
            None if before != Some(Halt::Busy) => info!(vm = %seen.name, "it executes again"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use pvc_host::hypervisor::fake::FakeHypervisor;

    use super::*;

    /// Between two looks one process has ended and another was made and let go by hand: both execute.
    #[tokio::test]
    async fn what_has_taken_the_place_of_what_executed_bears_no_mark_either() {
        let id: VmId = "11111111-0000-4000-8000-000000000001".parse().unwrap();
        let guest = |activity| Seen { id, name: "vm1".to_owned(), activity, memory_mib: 64, vcpus: 1 };
        let hypervisor = FakeHypervisor::new();
        hypervisor.put(guest(Activity::Running));
        let inventory = Inventory::new(Arc::clone(&hypervisor) as Arc<dyn Hypervisor>);
        inventory.read_all().await.unwrap();
        inventory.note_executes(id).await.unwrap();
        hypervisor.vanish(id);
        hypervisor.put(guest(Activity::Unstarted));
        hypervisor.turn(id, Activity::Running);
        inventory.had_event(id);
        inventory.read(id).await.unwrap();
        inventory.note_executes(id).await.unwrap();
        hypervisor.turn(id, Activity::Halted(Halt::Paused));
        assert_eq!(
            hypervisor.activity(id),
            Some(Activity::Halted(Halt::Paused)),
            "it is not ended as never begun"
        );
    }
}
