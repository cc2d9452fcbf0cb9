//! The rules of all networks, and which of them `nft` does not take: each is read when its keys have changed, and tried once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pvc_core::{
    model::{ClusterView, Vni, rule::Body},
    plan::firewall::Rules,
};
use pvc_host::firewall::{Firewall, FirewallError};
use pvc_store::{Store, StoreError, Watch, WatchEvent, schema::network};

/// The rules in the store, and what was read of them.
pub(super) struct Written {
    store: Arc<dyn Store>,
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    rules: Rules,
    /// Changed since they were read.
    stale: BTreeSet<Vni>,
    /// What `nft` says of a body; `None`: it takes it.
    tried: BTreeMap<Body, Option<String>>,
}

impl Written {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, read: Mutex::default() }
    }

    /// All changes below the networks.
    pub(super) fn watch(&self) -> Watch {
        self.store.watch(network::ROOT)
    }

    /// Takes note of a change. Answers whether rules have to be read.
    pub(super) fn note(&self, event: &WatchEvent) -> bool {
        let mut read = self.lock();
        match event {
            WatchEvent::Interrupted => return false,
            WatchEvent::Resync => read.stale = read.rules.keys().copied().collect(),
            WatchEvent::Changed(key) => match network::rules::is_of(key) {
                Some(vni) => drop(read.stale.insert(vni)),
                None => return false,
            },
        }
        true
    }

    /// The rules of the view's networks.
    pub(super) async fn rules(&self, view: &ClusterView) -> Result<Rules, StoreError> {
        let unread: Vec<Vni> = {
            let mut read = self.lock();
            read.rules.retain(|vni, _| view.networks.contains_key(vni));
            let stale = std::mem::take(&mut read.stale);
            view.networks
                .keys()
                .copied()
                .filter(|vni| stale.contains(vni) || !read.rules.contains_key(vni))
                .collect()
        };
        if !unread.is_empty() {
            let found = match network::rules::read(&*self.store, &unread).await {
                Ok(found) => found,
                Err(error) => {
                    self.lock().stale.extend(unread);
                    return Err(error);
                }
            };
            let plain =
                found.into_iter().map(|(vni, seen)| (vni, seen.into_iter().map(|s| s.rule).collect()));
            self.lock().rules.extend(plain);
        }
        Ok(self.lock().rules.clone())
    }

    /// Those bodies that `nft` does not take, and why. What was tried is not tried again.
    pub(super) async fn refused(
        &self,
        firewall: &dyn Firewall,
        rules: &Rules,
    ) -> Result<BTreeMap<Body, String>, FirewallError> {
        let used: BTreeSet<&Body> =
            rules.values().flatten().filter_map(|rule| rule.body.as_ref().ok()).collect();
        let untried: Vec<Body> = {
            let mut read = self.lock();
            read.tried.retain(|body, _| used.contains(body));
            used.iter().filter(|body| !read.tried.contains_key(**body)).map(|body| (*body).clone()).collect()
        };
        if !untried.is_empty() {
            let mut refused = firewall.refused(&untried).await?;
            let outcomes = untried.into_iter().map(|body| (body.clone(), refused.remove(&body)));
            self.lock().tried.extend(outcomes);
        }
        let read = self.lock();
        Ok(read.tried.iter().filter_map(|(body, why)| Some((body.clone(), why.clone()?))).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
