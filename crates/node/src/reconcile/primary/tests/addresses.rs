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
    let world = World::running(1).await;
    let (links, floating) = (Arc::clone(&world.machines[0].links), floating_ips()[1].clone());
    links.by_hand(|network| {
        let all = network.links.iter_mut().flat_map(|link| &mut link.addresses);
        let its = all.filter(|its| its.cidr == floating.cidr);
        its.for_each(|its| its.cidr = IpNet::new(floating.cidr.addr(), 80).unwrap());
    });
    let is_right = |_: &World| {
        let network = links.network();
        let its = &network.link(&floating.device).unwrap().addresses;
        let its: Vec<IpNet> =
            its.iter().map(|a| a.cidr).filter(|a| a.addr() == floating.cidr.addr()).collect();
        its == [floating.cidr]
    };
    assert!(!is_right(&world));
    world.until("it is right", is_right).await;
}

/// A machine that takes its time to say what it has.
struct Ponders(Arc<FakeLinks>);

const LOOK: Duration = Duration::from_millis(50);

#[async_trait]
impl Links for Ponders {
    async fn observe(&self, sysctls: &[String]) -> Result<HostNetwork, LinksError> {
        sleep(LOOK).await;
        self.0.observe(sysctls).await
    }

    async fn apply(&self, change: &LinkChange) -> Result<(), LinksError> {
        self.0.apply(change).await
    }

    async fn announce(&self, addresses: &[Placed], not_after: Instant) -> Result<(), LinksError> {
        self.0.announce(addresses, not_after).await
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.0.changes()
    }
}

#[tokio::test(start_paused = true)]
async fn while_nobody_has_the_addresses_it_is_looked_once() {
    let mut world = World::new(2).await;
    for n in [0, 1] {
        world.start_on(n, Arc::new(Ponders(Arc::clone(&world.machines[n].links))));
    }
    world.until("somebody is primary", |w| w.is_primary(0) || w.is_primary(1)).await;
    let old = usize::from(world.is_primary(1));
    world.pass(Duration::from_secs(5)).await;
    world.ask_for(if old == 0 { "b" } else { "a" }).await;
    world.until("they are dropped", |w| !w.holds(old)).await;
    let away = world.until("the next one has them", |w| w.holds(1 - old)).await;
    assert!(away < 2 * LOOK, "{away:?}: neither before the key is given back nor after it is taken");
    world.until("the next one is primary", |w| w.is_primary(1 - old)).await;
}
