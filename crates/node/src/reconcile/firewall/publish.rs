//! What the rules count, for people: the primary, which routes, publishes it, at most every few seconds.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pvc_core::{
    model::{Vni, rule::Direction},
    plan::firewall::Ruleset,
};
use pvc_host::firewall::Listing;
use pvc_store::{
    CommitError, Store,
    schema::network::counts::{self, Counts, Hits},
};
use tokio::time::Instant;

/// The least time between two publications: the safety net has one a minute.
const AT_LEAST_BETWEEN: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Published(Mutex<(Option<Instant>, BTreeMap<Vni, Counts>)>);

impl Published {
    /// Publishes what has changed since.
    pub(super) async fn publish(
        &self,
        store: &dyn Store,
        ruleset: &Ruleset,
        listing: &Listing,
    ) -> Result<(), CommitError> {
        let before = {
            let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if said.0.is_some_and(|at| at.elapsed() < AT_LEAST_BETWEEN) {
                return Ok(());
            }
            said.0 = Some(Instant::now());
            std::mem::take(&mut said.1)
        };
        let now = counted(ruleset, listing);
        for (vni, counts) in now.iter().filter(|(vni, counts)| before.get(*vni) != Some(*counts)) {
            counts::write(store, *vni, counts).await?;
        }
        if !now.keys().eq(before.keys()) {
            counts::sweep(store, |vni| now.contains_key(&vni)).await?;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = now;
        Ok(())
    }
}

/// By network and rule. A rule and its count stand at the same place of the network's chain.
fn counted(ruleset: &Ruleset, listing: &Listing) -> BTreeMap<Vni, Counts> {
    let mut counted = BTreeMap::new();
    for (vni, wall) in &ruleset.networks {
        let mut counts = Counts::default();
        for direction in Direction::ALL {
            let lines = wall.lines.get(&direction).map_or(&[][..], Vec::as_slice);
            let chain = pvc_core::plan::firewall::chain(*vni, direction);
            let found = listing.counts.get(&chain).map_or(&[][..], Vec::as_slice);
            for (line, count) in lines.iter().zip(found) {
                let hits = Hits { packets: count.packets, bytes: count.bytes };
                counts.of_mut(direction).insert(line.name.clone(), hits);
            }
        }
        if !counts.of(Direction::In).is_empty() || !counts.of(Direction::Out).is_empty() {
            counted.insert(*vni, counts);
        }
    }
    counted
}
