//! The guests of all networks that have names: a network's are read when one of them has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pvc_core::{
    model::{ClusterView, Vni},
    plan::dns::Named,
};
use pvc_store::{
    Store, StoreError, Watch, WatchEvent,
    schema::network::{self, guests::Leased},
};

/// The guests in the store, and what was read of them.
pub(super) struct Guests {
    store: Arc<dyn Store>,
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    guests: BTreeMap<Vni, Vec<Leased>>,
    /// Changed since they were read.
    stale: BTreeSet<Vni>,
}

impl Guests {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, read: Mutex::default() }
    }

    /// All changes below the networks.
    pub(super) fn watch(&self) -> Watch {
        self.store.watch(network::ROOT)
    }

    /// Takes note of a change. Answers whether guests have to be read.
    pub(super) fn note(&self, event: &WatchEvent) -> bool {
        let mut read = self.lock();
        match event {
            WatchEvent::Interrupted => return false,
            WatchEvent::Resync => read.stale = read.guests.keys().copied().collect(),
            WatchEvent::Changed(key) => match network::guests::is_of(key) {
                Some(vni) => drop(read.stale.insert(vni)),
                None => return false,
            },
        }
        true
    }

    /// Those of the view's networks whose leases last at that time.
    pub(super) async fn at(&self, unix_s: u64, view: &ClusterView) -> Result<Vec<Named>, StoreError> {
        let unread: Vec<Vni> = {
            let mut read = self.lock();
            read.guests.retain(|vni, _| view.networks.contains_key(vni));
            let stale = std::mem::take(&mut read.stale);
            let is_unread = |vni: &Vni| stale.contains(vni) || !read.guests.contains_key(vni);
            view.networks.keys().copied().filter(is_unread).collect()
        };
        if !unread.is_empty() {
            match network::guests::read(&*self.store, &unread).await {
                Ok(found) => self.lock().guests.extend(found),
                Err(error) => {
                    self.lock().stale.extend(unread);
                    return Err(error);
                }
            }
        }
        let read = self.lock();
        let last = read.guests.values().flatten().filter(|(_, until)| until.is_none_or(|at| at > unix_s));
        Ok(last.map(|(guest, _)| guest.clone()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
