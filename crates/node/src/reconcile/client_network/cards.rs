//! The network cards of all VMs, by their definitions: each is read when its version is another one.
//!
//! Nothing depends on them but how many nodes a frame is sent to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use pvc_core::{
    model::{ClusterView, DomainDetails, VmId, Vni},
    plan::client_network::{Card, Cards},
};
use pvc_store::{Store, StoreError, Value, schema};

/// Definitions are some KiB each: so many fit into an answer.
const AT_ONCE: usize = 100;

/// A VM has a few.
const MOST: usize = 64;

/// The definitions in the store, and what was read of them.
pub struct Definitions {
    store: Arc<dyn Store>,
    read: Mutex<BTreeMap<VmId, Read>>,
}

/// The version of a definition, and its cards.
type Read = (Option<i32>, Vec<Card>);

impl Definitions {
    /// Of the VMs in this store; nothing is read yet.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, read: Mutex::default() }
    }

    /// The cards of the VMs of a view.
    pub(crate) async fn cards(&self, view: &ClusterView) -> Result<Cards, StoreError> {
        let unread: Vec<(VmId, Option<i32>)> = {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.retain(|id, _| view.vm(*id).is_some());
            let is_known = |id: VmId, version| read.get(&id).is_some_and(|(known, _)| *known == version);
            let vms = view.good_vms().map(|vm| (vm.id, vm.xml_version));
            vms.filter(|(id, version)| !is_known(*id, *version)).collect()
        };
        for some in unread.chunks(AT_ONCE) {
            let values = self.values(some).await?;
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            for ((id, version), value) in some.iter().zip(values) {
                let cards =
                    value.map(|value| cards(&schema::vm::definition(&value.data))).unwrap_or_default();
                read.insert(*id, (*version, cards));
            }
        }
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(read.iter().map(|(id, (_, cards))| (*id, cards.clone())).collect())
    }

    /// One that may not be read costs nobody else.
    async fn values(&self, vms: &[(VmId, Option<i32>)]) -> Result<Vec<Option<Value>>, StoreError> {
        let paths: Vec<String> = vms.iter().map(|(id, _)| schema::vm::xml_path(*id)).collect();
        match self.store.get_many(&paths).await {
            Err(StoreError::Refused { .. }) => {}
            values => return values,
        }
        let mut values = Vec::with_capacity(paths.len());
        for path in &paths {
            values.push(match self.store.get(path).await {
                Err(StoreError::Refused { .. }) => None,
                value => value?,
            });
        }
        Ok(values)
    }
}

/// The cards that a definition names in client networks.
fn cards(xml: &str) -> Vec<Card> {
    let Ok(details) = DomainDetails::parse(xml) else { return Vec::new() };
    let card = |interface: &pvc_core::model::domain::Interface| {
        let mac = interface.mac.parse().ok().filter(|mac: &pvc_core::model::Mac| mac.is_a_cards())?;
        Some(Card { mac, vni: Vni::of_bridge(&interface.source)? })
    };
    details.networks.iter().filter_map(card).take(MOST).collect()
}
