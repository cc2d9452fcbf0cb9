//! The guests of all networks that have names.

use std::collections::BTreeMap;

use pvc_core::{
    model::{ClusterView, Vni},
    plan::dns::Named,
};
use pvc_store::{
    Store, StoreError,
    schema::network::guests::{self, Leased},
};

use crate::reconcile::per_network::{Kind, PerNetwork};

/// Those that have an address, until their leases end.
pub(super) struct Guests;

impl Kind for Guests {
    type Of = Vec<Leased>;

    fn network_of(key: &str) -> Option<Vni> {
        guests::network_of(key)
    }

    async fn read(store: &dyn Store, vnis: &[Vni]) -> Result<BTreeMap<Vni, Vec<Leased>>, StoreError> {
        guests::read(store, vnis).await
    }
}

/// Those of the view's networks whose leases last at that time.
pub(super) async fn at(
    guests: &PerNetwork<Guests>,
    unix_s: u64,
    view: &ClusterView,
) -> Result<Vec<Named>, StoreError> {
    let lasts = |until: Option<u64>| until.is_none_or(|at| at > unix_s);
    guests
        .of(view, |all| {
            all.values()
                .flatten()
                .filter(|(_, until)| lasts(*until))
                .map(|(guest, _)| guest.clone())
                .collect()
        })
        .await
}
