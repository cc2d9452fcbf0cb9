//! The gateways of client networks beside the floating addresses.

use std::net::IpAddr;

use pvc_core::model::{
    Network, NetworkKind,
    link::{Assigned, HostNetwork, LinkChange},
};
use pvc_host::links::{LinksError, fake::FakeLinks};
use pvc_store::schema;

use super::*;

fn managed(number: u32) -> Network {
    let mut network = Network::bare(number.to_string().parse().unwrap());
    network.kind = Some(NetworkKind::Managed);
    network.ip4.network = Some(format!("10.{number}.0.0/24").parse().unwrap());
    network.ip4.gateway = Some(format!("10.{number}.0.1").parse().unwrap());
    network.ip6.network = Some(format!("fd00:{number}::/64").parse().unwrap());
    network.ip6.gateway = Some(format!("fd00:{number}::1").parse().unwrap());
    network
}

/// Adds three managed networks, whose bridges are on a machine already.
async fn three(world: &World, n: usize) {
    for number in 5..8 {
        let bridge = world::bridge(&format!("vmbr{number}"));
        world.machines[n].links.by_hand(|network| network.links.push(bridge));
        world.operator.commit(schema::network::define(&managed(number))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn gateways_are_where_the_primary_is_and_as_the_networks_are() {
    let world = World::running(2).await;
    let mut network = managed(5);
    world.operator.commit(schema::network::define(&network)).await.unwrap();
    let bridge = |links: &FakeLinks| links.by_hand(|network| network.links.push(world::bridge("vmbr5")));
    let has = |w: &World, n: usize, address: &str| w.machines[n].links.has(address.parse().unwrap());
    let all = ["10.5.0.1", "fd00:5::1", "fe80::1"];
    world.pass(Duration::from_secs(2)).await;
    assert!(world.is_primary(0), "a bridge that is not there yet is waited for by nobody");
    assert_eq!(world.get("/pvc/explain/primary"), None);
    bridge(&world.machines[0].links);
    bridge(&world.machines[1].links);
    let took = world.until("a has them", |w| all.iter().all(|address| has(w, 0, address))).await;
    assert!(took < Duration::from_millis(50), "{took:?}");
    let announced = world.machines[0].links.announced();
    assert!(
        all.iter().all(|a| announced.iter().any(|(_, device, at)| device == "vmbr5" && at.to_string() == *a))
    );

    world.machines[0].links.by_hand(|network| {
        let bridge = network.links.iter_mut().find(|link| link.name == "vmbr5").unwrap();
        bridge.addresses.clear();
        bridge.addresses.push(Assigned { cidr: "10.5.0.77/24".parse().unwrap(), lifetime_s: None });
    });
    let took = world.until("they are back", |w| all.iter().all(|address| has(w, 0, address))).await;
    assert!(took < Duration::from_millis(50), "{took:?}");

    let (networks, _) = schema::network::read_all(&*world.operator).await.unwrap();
    let seen = networks.values().next().unwrap();
    network.ip4.gateway = Some("10.5.0.2".parse().unwrap());
    world.operator.commit(schema::network::modify(seen, &network)).await.unwrap();
    world.until("the new one is there", |w| has(w, 0, "10.5.0.2") && !has(w, 0, "10.5.0.1")).await;
    assert!(has(&world, 0, "10.5.0.77"), "an operator's own");

    world.ask_for("b").await;
    world.until("a has dropped them", |w| !w.holds(0)).await;
    world.until("b has them", |w| has(w, 1, "fe80::1") && has(w, 1, "10.5.0.2")).await;
    assert!(!all.iter().any(|address| has(&world, 0, address)), "one gateway");
    world.machines[1].store.suspend();
    world.until("the guard has dropped all", |w| !w.holds(1) && !has(w, 1, "fe80::1")).await;
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_takes_no_gateway_hinders_no_other_and_has_none_given_up() {
    let world = World::running(2).await;
    three(&world, 1).await;
    let bridge = |number: u32, change: &dyn Fn(&mut pvc_core::model::link::Link)| {
        world.machines[1].links.by_hand(|network| {
            change(network.links.iter_mut().find(|link| link.name == format!("vmbr{number}")).unwrap());
        });
    };
    // Too small for IPv6.
    bridge(6, &|bridge| bridge.mtu = 1000);
    world.ask_for("b").await;
    world.until("b is primary", |w| w.is_primary(1)).await;
    let has = |w: &World, number: u32| {
        let network = w.machines[1].links.network();
        network.link(&format!("vmbr{number}")).unwrap().addresses.iter().map(|a| a.cidr.to_string()).collect()
    };
    let all = |number: u32| -> Vec<String> {
        vec![format!("10.{number}.0.1/24"), format!("fd00:{number}::1/64"), "fe80::1/64".into()]
    };
    for (number, some) in [(5, all(5)), (6, all(6)[..1].to_vec()), (7, all(7))] {
        let has: Vec<String> = has(&world, number);
        assert_eq!(has, some);
    }
    let is_shown = |w: &World| w.get("/pvc/explain/primary").is_some_and(|e| e.contains("vmbr6"));
    world.until("it is shown", is_shown).await;
    // The same address on another bridge is missed at once.
    bridge(7, &|bridge| bridge.addresses.retain(|a| a.cidr.to_string() != "fe80::1/64"));
    let took = world.until("it is back", |w| has(w, 7).len() == 3 && is_shown(w)).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// A machine on which each gateway takes some time.
struct Slow(Arc<FakeLinks>);

#[async_trait]
impl Links for Slow {
    async fn observe(&self, sysctls: &[String]) -> Result<HostNetwork, LinksError> {
        self.0.observe(sysctls).await
    }

    async fn apply(&self, change: &LinkChange) -> Result<(), LinksError> {
        if matches!(change, LinkChange::SetAddress { device, .. } if device.starts_with("vmbr")) {
            sleep(Duration::from_millis(50)).await;
        }
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
async fn whoever_looks_for_the_cluster_waits_for_no_gateway() {
    let mut world = World::new(1).await;
    three(&world, 0).await;
    world.start_on(0, Arc::new(Slow(Arc::clone(&world.machines[0].links))));
    world.until("a is primary", |w| w.is_primary(0)).await;
    let announced = world.machines[0].links.announced();
    let first = |address: IpAddr| announced.iter().find(|(.., its)| *its == address).unwrap().0;
    let gateway = first("10.5.0.1".parse().unwrap());
    for floating in floating_ips() {
        let before = gateway - first(floating.cidr.addr());
        assert!(before >= Duration::from_millis(450), "{floating:?}: {before:?}");
    }
}
