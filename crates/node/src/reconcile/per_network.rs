//! What the tree has below each client network, of one kind: a network's is read when one of its keys has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pvc_core::model::{ClusterView, Vni};
use pvc_store::{Store, StoreError, WatchEvent, schema::network};

/// A kind of what networks have.
pub(super) trait Kind: Send + Sync + 'static {
    /// A network's.
    type Of: Default + Send;

    /// The network that a key is about, if the key is of this kind.
    fn network_of(key: &str) -> Option<Vni>;

    /// Reads it; networks that have none may be left out.
    fn read(
        store: &dyn Store,
        vnis: &[Vni],
    ) -> impl Future<Output = Result<BTreeMap<Vni, Self::Of>, StoreError>> + Send;
}

/// One kind, of all networks.
pub(super) struct PerNetwork<K: Kind> {
    store: Arc<dyn Store>,
    known: Mutex<Known<K>>,
}

struct Known<K: Kind> {
    of: BTreeMap<Vni, K::Of>,
    /// Those that were asked for last: what becomes of others wakes nobody.
    wanted: BTreeSet<Vni>,
    /// Changed since they were read.
    stale: BTreeSet<Vni>,
}

impl<K: Kind> PerNetwork<K> {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            known: Mutex::new(Known { of: BTreeMap::new(), wanted: BTreeSet::new(), stale: BTreeSet::new() }),
        }
    }

    /// Takes note of all changes, and tells of each.
    pub(super) async fn follow(&self, changed: impl Fn()) {
        let mut changes = self.store.watch(network::ROOT);
        while let Some(event) = changes.recv().await {
            if self.note(&event) {
                changed();
            }
        }
    }

    fn note(&self, event: &WatchEvent) -> bool {
        let mut known = self.known();
        match event {
            WatchEvent::Interrupted => return false,
            WatchEvent::Resync => known.stale = known.of.keys().copied().collect(),
            WatchEvent::Changed(key) => match K::network_of(key) {
                Some(vni) => {
                    known.stale.insert(vni);
                    return known.wanted.contains(&vni);
                }
                None => return false,
            },
        }
        !known.wanted.is_empty()
    }

    /// Takes what is wanted of that of the view's networks.
    pub(super) async fn of<T>(
        &self,
        view: &ClusterView,
        take: impl FnOnce(&BTreeMap<Vni, K::Of>) -> T,
    ) -> Result<T, StoreError> {
        self.of_these(&view.networks.keys().copied().collect(), take).await
    }

    /// The same of some networks; of the others nothing is read.
    pub(super) async fn of_these<T>(
        &self,
        wanted: &BTreeSet<Vni>,
        take: impl FnOnce(&BTreeMap<Vni, K::Of>) -> T,
    ) -> Result<T, StoreError> {
        let unread: Vec<Vni> = {
            let mut known = self.known();
            known.of.retain(|vni, _| wanted.contains(vni));
            known.wanted.clone_from(wanted);
            let stale = std::mem::take(&mut known.stale);
            let is_unread = |vni: &Vni| stale.contains(vni) || !known.of.contains_key(vni);
            wanted.iter().copied().filter(is_unread).collect()
        };
        if !unread.is_empty() {
            match K::read(&*self.store, &unread).await {
                Ok(mut found) => {
                    let read = unread.into_iter().map(|vni| (vni, found.remove(&vni).unwrap_or_default()));
                    self.known().of.extend(read);
                }
                Err(error) => {
                    self.known().stale.extend(unread);
                    return Err(error);
                }
            }
        }
        Ok(take(&self.known().of))
    }

    fn known(&self) -> MutexGuard<'_, Known<K>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use pvc_core::model::Network;
    use pvc_store::{Op, Transaction, memory::MemoryTree, schema::root};

    use super::*;

    /// The domains of networks, in the place of a kind.
    struct Domains;

    impl Kind for Domains {
        type Of = String;

        fn network_of(key: &str) -> Option<Vni> {
            key.strip_prefix("/networks/")?.strip_suffix("/domain")?.parse().ok()
        }

        async fn read(store: &dyn Store, vnis: &[Vni]) -> Result<BTreeMap<Vni, String>, StoreError> {
            let keys: Vec<String> = vnis.iter().map(|vni| format!("/networks/{vni}/domain")).collect();
            let values = store.get_many(&keys).await?;
            let text = |data: Vec<u8>| String::from_utf8(data).unwrap();
            let found = vnis.iter().copied().zip(values);
            Ok(found.filter_map(|(vni, value)| Some((vni, text(value?.data)))).collect())
        }
    }

    #[tokio::test]
    async fn what_has_changed_is_read_again_and_nothing_else() {
        let tree = MemoryTree::new();
        let store = tree.client();
        root::init(&*store).await.unwrap();
        let mut view = ClusterView::default();
        for vni in ["100", "200"] {
            let network = Network::bare(vni.parse().unwrap());
            store.commit(network::define(&network)).await.unwrap();
            Arc::make_mut(&mut view.networks).insert(network.vni, Arc::new(network));
        }
        let domains = PerNetwork::<Domains>::new(Arc::clone(&store) as Arc<dyn Store>);
        let all = async || domains.of(&view, Clone::clone).await.unwrap().into_values().collect::<Vec<_>>();
        assert_eq!(all().await, ["", ""]);

        let set = |vni: &str, to: &str| Op::Set {
            path: format!("/networks/{vni}/domain"),
            data: to.into(),
            version: None,
        };
        store.commit(Transaction { ops: vec![set("100", "one"), set("200", "two")] }).await.unwrap();
        assert!(!domains.note(&WatchEvent::Changed("/networks/100/nettype".into())));
        assert!(!domains.note(&WatchEvent::Interrupted));
        assert!(domains.note(&WatchEvent::Changed("/networks/100/domain".into())));
        assert_eq!(all().await, ["one", ""], "nobody has said that the other has changed");
        assert!(domains.note(&WatchEvent::Resync));
        assert_eq!(all().await, ["one", "two"]);

        assert!(domains.note(&WatchEvent::Resync));
        store.refuse(1);
        assert!(domains.of(&view, |_| ()).await.is_err());
        assert_eq!(all().await, ["one", "two"], "what could not be read is read later");
    }
}
