//! From what the guests of filtered networks may send, as the tree and the definitions say. Nothing is read where no network is filtered.

use std::collections::BTreeMap;

use pvc_core::{
    model::{ClusterView, Vni, bridging::Bridging},
    plan::firewall::{Known, Senders},
};
use pvc_store::{
    Store, StoreError,
    schema::network::{guests, senders},
};

use crate::reconcile::{
    client_network::cards::Definitions,
    per_network::{Kind, PerNetwork},
};

/// The addresses that cards were given.
pub(super) struct Given;

impl Kind for Given {
    type Of = Senders;

    fn network_of(key: &str) -> Option<Vni> {
        guests::network_of(key)
    }

    async fn read(store: &dyn Store, vnis: &[Vni]) -> Result<BTreeMap<Vni, Senders>, StoreError> {
        senders::read(store, vnis).await
    }
}

/// Of the filtered networks that have a guest on this machine.
pub(super) async fn known(
    given: &PerNetwork<Given>,
    definitions: &Definitions,
    view: &ClusterView,
    seen: &Bridging,
) -> Result<Known, StoreError> {
    let ports = || seen.devices.iter().filter_map(|device| Vni::of_bridge(device.master.as_deref()?));
    let filtered = |vni: &Vni| view.networks.get(vni).is_some_and(|network| network.is_filtered());
    let wanted = ports().filter(filtered).collect();
    let senders = given.of_these(&wanted, Clone::clone).await?;
    if wanted.is_empty() {
        return Ok(Known::default());
    }
    Ok(Known { cards: definitions.cards(view).await?, senders })
}
