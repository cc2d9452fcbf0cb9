//! The rules of all networks, and which of them `nft` does not take.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use pvc_core::{
    model::{
        Vni,
        rule::{Body, Rule},
    },
    plan::firewall::Rules,
};
use pvc_host::firewall::{Firewall, FirewallError};
use pvc_store::{Store, StoreError, schema::network::rules};

use crate::reconcile::per_network::Kind;

/// The rules in the tree.
pub(super) struct Written;

impl Kind for Written {
    type Of = Vec<Rule>;

    fn network_of(key: &str) -> Option<Vni> {
        rules::network_of(key)
    }

    async fn read(store: &dyn Store, vnis: &[Vni]) -> Result<BTreeMap<Vni, Vec<Rule>>, StoreError> {
        let found = rules::read(store, vnis).await?;
        Ok(found.into_iter().map(|(vni, seen)| (vni, seen.into_iter().map(|s| s.rule).collect())).collect())
    }
}

/// What `nft` says of each body; `None`: it takes it.
#[derive(Default)]
pub(super) struct Tried(Mutex<BTreeMap<Body, Option<String>>>);

impl Tried {
    /// Those bodies that `nft` does not take, and why. What was tried is not tried again.
    pub(super) async fn refused(
        &self,
        firewall: &dyn Firewall,
        rules: &Rules,
    ) -> Result<BTreeMap<Body, String>, FirewallError> {
        let used: BTreeSet<&Body> =
            rules.values().flatten().filter_map(|rule| rule.body.as_ref().ok()).collect();
        let untried: Vec<Body> = {
            let mut tried = self.tried();
            tried.retain(|body, _| used.contains(body));
            used.iter().filter(|body| !tried.contains_key(**body)).map(|body| (*body).clone()).collect()
        };
        if !untried.is_empty() {
            let mut refused = firewall.refused(&untried).await?;
            let outcomes = untried.into_iter().map(|body| (body.clone(), refused.remove(&body)));
            self.tried().extend(outcomes);
        }
        Ok(self.tried().iter().filter_map(|(body, why)| Some((body.clone(), why.clone()?))).collect())
    }

    fn tried(&self) -> MutexGuard<'_, BTreeMap<Body, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
