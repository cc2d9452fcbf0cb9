//! A machine's network devices; says which floating addresses and gateways it has.

use std::{
    collections::BTreeSet,
    future::pending,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::model::{
    NodeName,
    link::{HostNetwork, LinkChange, Placed},
};
use pvc_host::links::{Links, LinksError, fake::FakeLinks};
use pvc_process::Process;
use tokio::{sync::watch, time::Instant};

use super::in_flight;
use crate::{event::Event, journal::Journal};

/// See the module's documentation.
pub struct SimLinks {
    /// The world's process.
    pub world: Process,
    /// Whose they are.
    pub node: NodeName,
    /// The kernel.
    pub fake: Arc<FakeLinks>,
    /// Which addresses are nobody's own.
    pub floating: Arc<BTreeSet<IpAddr>>,
    /// Whom it is told.
    pub journal: Arc<Journal>,
    /// The machine has lost its power.
    pub over: Arc<AtomicBool>,
}

#[async_trait]
impl Links for SimLinks {
    async fn observe(&self, sysctls: &[String]) -> Result<HostNetwork, LinksError> {
        self.fake.observe(sysctls).await
    }

    async fn apply(&self, change: &LinkChange) -> Result<(), LinksError> {
        let (fake, change, node) = (Arc::clone(&self.fake), change.clone(), self.node.clone());
        let (floating, journal) = (Arc::clone(&self.floating), Arc::clone(&self.journal));
        let over = Arc::clone(&self.over);
        in_flight(&self.world, async move {
            if over.load(Ordering::Relaxed) {
                return pending().await;
            }
            fake.apply(&change).await?;
            // Whatever is on a client network's bridge is its gateway.
            let shared = |device: &str, address| device.starts_with("vmbr") || floating.contains(&address);
            let told = match change {
                LinkChange::SetAddress { device, cidr, lifetime_s } if shared(&device, cidr.addr()) => {
                    let until =
                        lifetime_s.map_or(Duration::MAX, |s| journal.now() + Duration::from_secs(s.into()));
                    Some((cidr.addr(), Some(until)))
                }
                LinkChange::RemoveAddress { device, cidr } if shared(&device, cidr.addr()) => {
                    Some((cidr.addr(), None))
                }
                _ => None,
            };
            if let Some((address, until)) = told {
                journal.tell(Event::Address { node, address, until });
            }
            Ok(())
        })
        .await
    }

    async fn announce(&self, addresses: &[Placed], not_after: Instant) -> Result<(), LinksError> {
        self.fake.announce(addresses, not_after).await
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.fake.changes()
    }
}
