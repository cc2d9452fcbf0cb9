//! Addresses of which nothing is heard, and such as are not what they should be.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use pvc_core::model::link::{HostNetwork, LinkChange};
use pvc_host::links::{LinksError, fake::FakeLinks};

use super::*;

/// A machine that has the cluster's address once without a word of it.
struct Mute {
    links: Arc<FakeLinks>,
    is_over: AtomicBool,
}

#[async_trait]
impl Links for Mute {
    async fn observe(&self, sysctls: &[String]) -> Result<HostNetwork, LinksError> {
        self.links.observe(sysctls).await
    }

    async fn apply(&self, change: &LinkChange) -> Result<(), LinksError> {
        self.links.apply(change).await?;
        match change {
            LinkChange::SetAddress { cidr, .. }
                if cidr.addr() == cluster_ip() && !self.is_over.swap(true, Ordering::Relaxed) =>
            {
                Err(LinksError::Deadline { doing: change.to_string() })
            }
            _ => Ok(()),
        }
    }

    async fn announce(&self, addresses: &[Placed], not_after: Instant) -> Result<(), LinksError> {
        self.links.announce(addresses, not_after).await
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.links.changes()
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_came_without_a_word_is_announced_all_the_same() {
    let mut world = World::new(1).await;
    let links = Arc::clone(&world.machines[0].links);
    world.start_on(0, Arc::new(Mute { links: Arc::clone(&links), is_over: AtomicBool::new(false) }));
    let is_announced = |_: &World| links.announced().iter().any(|(.., address)| *address == cluster_ip());
    let took = world.until("it is announced", is_announced).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_there_with_another_prefix_is_given_the_right_one() {
    let mut world = World::new(1).await;
    let floating = floating_ips()[1].clone();
    world.machines[0].links.by_hand(|network| {
        let link = network.links.iter_mut().find(|link| link.name == floating.device).unwrap();
        let cidr = IpNet::new(floating.cidr.addr(), 80).unwrap();
        link.addresses.push(Assigned { cidr, lifetime_s: Some(100) });
    });
    world.start(0);
    world.until("a is primary", |w| w.is_primary(0)).await;
    let network = world.machines[0].links.network();
    let link = network.link(&floating.device).unwrap();
    let its: Vec<IpNet> =
        link.addresses.iter().map(|a| a.cidr).filter(|cidr| cidr.addr() == floating.cidr.addr()).collect();
    assert_eq!(its, [floating.cidr]);
}
