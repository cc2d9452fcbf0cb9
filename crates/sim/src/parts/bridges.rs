//! A machine's bridges and tunnels; says where they send frames for guests.

use std::{
    collections::BTreeMap,
    future::pending,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use pvc_core::model::{
    Mac, NodeName,
    bridging::{Bridging, BridgingChange, DeviceKind},
    link::Link,
};
use pvc_host::links::{
    Bridges, LinksError,
    fake::{FakeBridges, FakeLinks},
};
use pvc_process::Process;
use tokio::sync::watch;

use super::in_flight;
use crate::{event::Event, journal::Journal, physics::wires::Wires};

/// See the module's documentation.
#[derive(Clone)]
pub struct SimBridges {
    /// The world's process.
    pub world: Process,
    /// Whose they are.
    pub node: NodeName,
    /// The kernel.
    pub fake: Arc<FakeBridges>,
    /// The same kernel's addresses.
    pub links: Arc<FakeLinks>,
    /// Where tunnels end.
    pub wires: Arc<Wires>,
    /// Whom it is told.
    pub journal: Arc<Journal>,
    /// The machine has lost its power.
    pub over: Arc<AtomicBool>,
}

impl SimBridges {
    async fn change(&self, changes: &[BridgingChange]) -> Vec<Result<(), LinksError>> {
        let before = entries(&self.fake.bridging());
        let outcomes = self.fake.apply(changes).await;
        for (change, _) in changes.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()) {
            self.has_addresses_on(change);
        }
        let after = entries(&self.fake.bridging());
        for (card, end) in &after {
            if before.get(card) != Some(end) {
                let to = self.wires.node_at(*end);
                self.journal.tell(Event::Forward { node: self.node.clone(), card: *card, to });
            }
        }
        for card in before.keys().filter(|card| !after.contains_key(card)) {
            self.journal.tell(Event::Forward { node: self.node.clone(), card: *card, to: None });
        }
        outcomes
    }

    /// Bridges are devices that addresses are on.
    fn has_addresses_on(&self, change: &BridgingChange) {
        match change {
            BridgingChange::Add { name, kind: DeviceKind::Bridge, mtu, .. } => {
                self.links.by_hand(|network| {
                    network.links.push(Link {
                        name: name.clone(),
                        mac: [2, 0, 0, 0, 1, 0],
                        mtu: *mtu,
                        up: true,
                        is_bridge: true,
                        master: None,
                        addresses: vec![],
                    });
                });
            }
            BridgingChange::Remove { name } => {
                self.links.by_hand(|network| network.links.retain(|link| link.name != *name));
            }
            _ => {}
        }
    }
}

/// Where frames for each card go.
fn entries(bridging: &Bridging) -> BTreeMap<Mac, IpAddr> {
    bridging.forwards.iter().filter_map(|entry| Some((entry.mac?, entry.to))).collect()
}

#[async_trait]
impl Bridges for SimBridges {
    async fn observe(&self) -> Result<Bridging, LinksError> {
        self.fake.observe().await
    }

    async fn apply(&self, changes: &[BridgingChange]) -> Vec<Result<(), LinksError>> {
        let (own, changes) = (self.clone(), changes.to_vec());
        in_flight(&self.world, async move {
            if own.over.load(Ordering::Relaxed) {
                return pending().await;
            }
            own.change(&changes).await
        })
        .await
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.fake.changes()
    }
}
