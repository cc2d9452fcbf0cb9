//! Networks, VMs and claims in a tree, bridges and tunnels of a fake machine.

use pvc_core::model::bridging::DeviceKind;
use pvc_host::links::fake::FakeBridges;
use tokio::time::sleep;

use super::*;
use crate::reconcile::network_world::{NetworkWorld, name, network, until};

const ID: &str = "11111111-0000-4000-8000-000000000001";

struct World {
    base: NetworkWorld,
    bridges: Arc<FakeBridges>,
    _networks: ClientNetworks,
}

/// hv1, beside hv2 and hv3.
async fn world() -> World {
    started(NetworkWorld::new().await)
}

fn started(base: NetworkWorld) -> World {
    let bridges = FakeBridges::new();
    let address = Some("10.255.1.1".parse().unwrap());
    let ground = Ground { me: name("hv1"), uplink: "eth1".into(), mtu: 1500, address };
    let teller = base.troubles.teller("client networks");
    let networks = ClientNetworks::start(
        base.cluster.clone(),
        bridges.clone(),
        Arc::new(Definitions::new(base.cluster.store.clone())),
        ground,
        teller,
    );
    World { base, bridges, _networks: networks }
}

impl World {
    async fn define(&self, number: u32) {
        self.base.define(&network(number)).await;
    }

    /// A VM with a card in network 100, executed by that node.
    async fn run_vm(&self, claim: &str) {
        let xml = "<domain><devices><interface type='bridge'><mac address='52:54:00:00:00:01'/>\
                   <source bridge='vmbr100'/></interface></devices></domain>";
        let vm = format!("/domains/{ID}");
        let keys = [
            (vm.clone(), "web1"),
            (format!("{vm}/state"), "start"),
            (format!("{vm}/node"), claim),
            (format!("{vm}/xml"), xml),
            (format!("/pvc/claim/{ID}"), claim),
        ];
        self.base.create(&keys.each_ref().map(|(key, value)| (key.as_str(), *value))).await;
    }

    async fn set(&self, path: &str, data: &str) {
        self.base.set(path, data).await;
    }

    async fn until(&self, what: &str, condition: impl Fn(&Bridging) -> bool) -> Duration {
        until(what, || self.bridges.bridging(), condition).await
    }

    async fn until_card_is_at(&self, node: u8) -> Duration {
        let to: IpAddr = format!("10.255.1.{node}").parse().unwrap();
        self.until(&format!("the card is at {to}"), |seen| {
            let mut cards = seen.forwards.iter().filter(|forward| forward.mac.is_some());
            cards.next().is_some_and(|card| card.to == to) && cards.next().is_none()
        })
        .await
    }
}

fn has(seen: &Bridging, names: &[&str]) -> bool {
    seen.devices.len() == names.len() && names.iter().all(|name| seen.device(name).is_some())
}

#[tokio::test(start_paused = true)]
async fn a_network_has_a_bridge_until_it_is_deleted() {
    let world = world().await;
    world.define(100).await;
    world.until("the bridge", |seen| has(seen, &["vmbr100", "vxlan100"])).await;
    let to: Vec<String> = world.bridges.bridging().forwards.iter().map(|f| f.to.to_string()).collect();
    assert_eq!(to, ["10.255.1.2", "10.255.1.3"]);
    world.base.remove(100).await;
    world.until("no bridge", |seen| has(seen, &[])).await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_starts_makes_a_hundred_networks_at_once_and_looks_again_twice() {
    let base = NetworkWorld::new().await;
    for number in 100..200 {
        base.define(&network(number)).await;
    }
    let world = started(base);
    world.until("all", |seen| seen.devices.len() == 200 && seen.forwards.len() == 200).await;
    // Our own changes are heard of, too.
    sleep(2 * AT_LEAST_BETWEEN).await;
    let looks = world.bridges.looks();
    assert!((2..=4).contains(&looks), "{looks}");
    assert_eq!(world.bridges.take_changes().len(), 500, "each change is made once");
}

#[tokio::test(start_paused = true)]
async fn a_card_is_followed_with_its_vms_claim() {
    let world = world().await;
    world.define(100).await;
    world.run_vm("hv2").await;
    world.until_card_is_at(2).await;
    world.bridges.take_changes();
    world.set(&format!("/pvc/claim/{ID}"), "hv2 hv3").await;
    world.set(&format!("/pvc/claim/{ID}"), "hv3").await;
    world.until_card_is_at(3).await;
    let changes = world.bridges.take_changes();
    assert_eq!(changes, ["send frames for 52:54:00:00:00:01 on vxlan100 to 10.255.1.3"]);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_takes_away_is_back_at_once() {
    let world = world().await;
    world.define(100).await;
    world.run_vm("hv2").await;
    world.until_card_is_at(2).await;
    let whole = world.bridges.bridging();
    for spoil in [
        (|seen: &mut Bridging| seen.forwards.clear()) as fn(&mut Bridging),
        |seen| seen.devices.retain(|device| device.name != "vmbr100"),
        |seen| *seen = Bridging::default(),
    ] {
        world.bridges.by_hand(spoil);
        let same = |seen: &Bridging| seen.devices.len() == 2 && seen.forwards == whole.forwards;
        let took = world.until("it is back", same).await;
        assert!(took <= Duration::from_millis(200), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_cannot_be_made_costs_no_other_and_is_tried_again() {
    let world = world().await;
    world.bridges.refuse(&["vxlan100"]);
    world.define(100).await;
    world.define(101).await;
    world.until("the other", |seen| has(seen, &["vmbr100", "vmbr101", "vxlan101"])).await;
    world.base.until_told(&["network 100: could not create the VXLAN 100"]).await;
    world.bridges.refuse(&[]);
    let took = world.until("it", |seen| seen.device("vxlan100").is_some()).await;
    assert!(took <= Duration::from_secs(11), "{took:?}");
    let kind = world.bridges.bridging().device("vxlan100").unwrap().kind.clone();
    assert!(matches!(kind, DeviceKind::Vxlan { .. }));
    world.base.until_told(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_changes_is_read_again() {
    let world = world().await;
    world.define(100).await;
    world.run_vm("hv2").await;
    world.until_card_is_at(2).await;
    let xml = "<domain><devices><interface type='bridge'><mac address='52:54:00:00:00:02'/>\
               <source bridge='vmbr100'/></interface></devices></domain>";
    world.set(&format!("/domains/{ID}/xml"), xml).await;
    let is_new = |seen: &Bridging| seen.forwards.iter().filter_map(|f| f.mac).all(|mac| mac.0[5] == 2);
    world.until("the new card", is_new).await;
    world.set(&format!("/domains/{ID}/xml"), "<domain").await;
    world.until("no card", |seen| seen.forwards.iter().all(|forward| forward.mac.is_none())).await;
}
