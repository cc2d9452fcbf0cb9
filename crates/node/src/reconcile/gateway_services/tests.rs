//! Which servers run, with fake programs, and what guests are told, at a fake port. The real ones are in the lab's tests.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::atomic::Ordering};

use pvc_core::model::{
    Mac, NodeName,
    dhcp::{Asks, Reply, Request, Settings},
};
use pvc_host::{
    dhcp::fake::FakePort,
    machine::{FakeMachine, Machine},
    programs::fake::FakePrograms,
};
use pvc_store::{Op, Store, memory::MemoryStore, mirror::Mirror, schema};
use tempfile::TempDir;
use tokio::time::timeout;

mod six;

use super::*;
use crate::reconcile::network_world::{NetworkWorld, network, until};

/// A tree with these networks.
async fn networks(numbers: &[u32]) -> NetworkWorld {
    let world = NetworkWorld::new().await;
    for number in numbers {
        world.define(&network(*number)).await;
    }
    world
}

/// A coordinator.
struct Coordinator {
    me: NodeName,
    store: Arc<MemoryStore>,
    machine: Arc<FakeMachine>,
    programs: FakePrograms,
    port: FakePort,
    services: Arc<GatewayServices>,
    folder: TempDir,
}

impl Coordinator {
    async fn new(world: &NetworkWorld, name: &str) -> Self {
        let (me, store): (NodeName, _) = (name.parse().unwrap(), world.tree.client());
        let mirror = Mirror::start(Arc::clone(&store) as Arc<dyn Store>);
        mirror.ready().await;
        let machine = Arc::new(FakeMachine::default());
        let here = Arc::clone(&machine) as Arc<dyn Machine>;
        let cluster = Cluster::new(me.clone(), Arc::clone(&store) as Arc<dyn Store>, mirror, here);
        let (programs, port) = (FakePrograms::default(), FakePort::default());
        let folder = tempfile::tempdir().unwrap();
        let services = GatewayServices::start(Dependencies {
            cluster,
            programs: Arc::new(programs.clone()),
            port: Arc::new(port.clone()),
            own_networks: vec!["10.255.1.0/24".parse().unwrap()],
            uplink: (1500, "10.255.1.1".parse().unwrap()),
            folder: folder.path().to_owned(),
            teller: world.troubles.teller("gateways"),
        });
        services.prepare().await.unwrap();
        Self { me, store, machine, programs, port, services, folder }
    }

    async fn becomes_primary(&self) {
        self.store.commit(schema::primary::take(&self.me, false)).await.unwrap();
        self.services.start().await.unwrap();
    }

    async fn is_primary_no_more(&self) {
        self.services.stop().await.unwrap();
        let mut txn = schema::primary::release(&self.me);
        txn.ops.truncate(2);
        self.store.commit(txn).await.unwrap();
    }

    async fn runs(&self, expected: &[&str]) {
        let expected: BTreeSet<String> =
            expected.iter().map(|vni| format!("dnsmasq of network {vni}")).collect();
        let running = || self.programs.running().into_keys().collect::<BTreeSet<_>>();
        is_so(&format!("{expected:?} run"), || running() == expected).await;
    }

    /// Asks until there is an answer, as guests do.
    async fn ask(&self, request: &Request) -> Reply {
        let before = self.port.answers().len();
        let work = async {
            while self.port.answers().len() == before {
                self.port.ask("vmbr5", request);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        assert!(timeout(Duration::from_secs(30), work).await.is_ok(), "nothing is answered to {request:?}");
        self.port.answers().swap_remove(before)
    }

    async fn gives(&self, number: u8, name: &str) -> Ipv4Addr {
        let discover = request(number, Asks::Discover(None), name);
        let Reply::Offer(offered, settings) = self.ask(&discover).await else { panic!("no offer") };
        let take = Asks::Take(settings.gateway.addr(), offered);
        let told = self.ask(&request(number, take, name)).await;
        let Reply::Acknowledge(given, told) = told else { panic!("no lease") };
        // The clock goes on while the test runs.
        assert!(settings.lease_s - told.lease_s < 60, "{told:?}");
        let expected = Settings { lease_s: told.lease_s, ..settings };
        assert_eq!((given, told), (offered, expected));
        offered
    }

    async fn names(&self, expected: &str) {
        let file = self.folder.path().join("names/5/guests");
        let names = || fs::read_to_string(&file).unwrap_or_default();
        is_so(&format!("the names are {expected:?}"), || names() == expected).await;
    }
}

/// Waits until it is so.
async fn is_so(what: &str, is_so: impl Fn() -> bool) {
    until(what, is_so, |is_so| *is_so).await;
}

fn request(number: u8, asks: Asks, name: &str) -> Request {
    Request { mac: Mac([0x52, 0x54, 0, 0, 0, number]), asks, name: Some(name.to_owned()), client_id: None }
}

fn leased(world: &NetworkWorld, number: u8) -> Option<String> {
    let key = format!("/networks/5/dhcp4_leases/52:54:00:00:00:{number:02x}/ipaddr");
    Some(String::from_utf8(world.tree.dump().get(&key)?.clone()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn only_the_primary_serves_and_what_the_networks_are() {
    let world = networks(&[5, 6]).await;
    let a = Coordinator::new(&world, "a").await;
    a.runs(&[]).await;
    assert!(!a.port.is_open());
    a.becomes_primary().await;
    a.runs(&["5", "6"]).await;

    world.define(&network(7)).await;
    a.runs(&["5", "6", "7"]).await;
    world.remove(6).await;
    a.runs(&["5", "7"]).await;
    let mut other = network(5);
    other.domain = Some("web.example".parse().unwrap());
    world.modify(&other).await;
    let domain = "--domain=web.example".to_owned();
    is_so("5 has its domain", || {
        a.programs.running().get("dnsmasq of network 5").is_some_and(|spec| spec.arguments.contains(&domain))
    })
    .await;
    a.runs(&["5", "7"]).await;
    let starts = |name: &str| {
        a.programs
            .history()
            .iter()
            .filter(|line| **line == format!("start dnsmasq of network {name}"))
            .count()
    };
    assert_eq!((starts("5"), starts("7")), (2, 1), "a change of one disturbs no other");

    a.is_primary_no_more().await;
    assert!(a.programs.running().is_empty() && !a.port.is_open(), "when it has stopped nothing is served");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_written_before_its_guest_is_told_and_the_next_primary_knows_it() {
    let world = networks(&[5]).await;
    let (a, b) = (Coordinator::new(&world, "a").await, Coordinator::new(&world, "b").await);
    a.becomes_primary().await;
    let web1 = a.gives(1, "web1").await;
    assert_eq!(leased(&world, 1), Some(web1.to_string()));
    a.names(&format!("{web1} web1.web.local web1\n")).await;

    a.is_primary_no_more().await;
    b.becomes_primary().await;
    b.names(&format!("{web1} web1.web.local web1\n")).await;
    let taken = b.ask(&request(2, Asks::Keep(web1), "evil")).await;
    assert_eq!(taken, Reply::Refuse("10.5.0.1".parse().unwrap()));
    assert_ne!(b.gives(2, "web2").await, web1);
    assert_eq!(b.gives(1, "web1").await, web1);

    b.ask(&request(3, Asks::Inform, "")).await;
    b.port.ask("vmbr5", &request(1, Asks::Release(web1), ""));
    is_so("it is given back", || leased(&world, 1).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_no_longer_primary_gives_nobody_an_address() {
    let world = networks(&[5]).await;
    let (a, b) = (Coordinator::new(&world, "a").await, Coordinator::new(&world, "b").await);
    a.becomes_primary().await;
    let Reply::Offer(offered, settings) = a.ask(&request(1, Asks::Discover(None), "web1")).await else {
        panic!("no offer");
    };
    // Its session ended while it was frozen; it goes on with what it was about to do.
    let mut ends = schema::primary::release(&a.me);
    ends.ops.truncate(2);
    b.store.commit(ends).await.unwrap();
    b.becomes_primary().await;
    let before = a.port.answers().len();
    a.port.ask("vmbr5", &request(1, Asks::Take(settings.gateway.addr(), offered), "web1"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((a.port.answers().len(), leased(&world, 1)), (before, None));
    assert_eq!(b.gives(1, "web1").await, offered);
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_anothers_is_told_and_taken_when_it_is_free() {
    let world = networks(&[5]).await;
    let a = Coordinator::new(&world, "a").await;
    a.port.taken(true);
    a.store.commit(schema::primary::take(&a.me, false)).await.unwrap();
    for _ in 0..2 {
        let told = a.services.start().await.unwrap_err();
        assert!(
            told.contains("no guest is given an IPv4 address") && told.contains("an IPv6 address"),
            "{told}"
        );
        a.runs(&["5"]).await;
    }
    a.port.taken(false);
    a.services.start().await.unwrap();
    let web1 = a.gives(1, "web1").await;
    a.names(&format!("{web1} web1.web.local web1\n")).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_has_deleted_is_written_again_before_its_guest_is_told() {
    let world = networks(&[5]).await;
    let a = Coordinator::new(&world, "a").await;
    a.becomes_primary().await;
    let web1 = a.gives(1, "web1").await;
    let key = "/networks/5/dhcp4_leases/52:54:00:00:00:01";
    for below in ["ipaddr", "hostname", "expiry", "clientid"] {
        let path = format!("{key}/{below}");
        world.commit(vec![Op::Delete { path, version: None }]).await;
    }
    world.commit(vec![Op::Delete { path: key.into(), version: None }]).await;
    assert_eq!(leased(&world, 1), None);
    let told = a.ask(&request(1, Asks::Keep(web1), "web1")).await;
    assert!(matches!(told, Reply::Acknowledge(address, _) if address == web1));
    assert_eq!(leased(&world, 1), Some(web1.to_string()));
}

#[tokio::test(start_paused = true)]
async fn an_address_whose_writing_nobody_has_heard_of_is_given_to_nobody_else() {
    let world = networks(&[5]).await;
    let a = Coordinator::new(&world, "a").await;
    a.becomes_primary().await;
    let Reply::Offer(offered, settings) = a.ask(&request(1, Asks::Discover(None), "web1")).await else {
        panic!("no offer");
    };
    let take = Asks::Take(settings.gateway.addr(), offered);
    let before = a.port.answers().len();
    a.store.lose_answers(1);
    a.port.ask("vmbr5", &request(1, take, "web1"));
    is_so("it is written", || leased(&world, 1).is_some()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(a.port.answers().len(), before, "the first guest has not been told");
    // Its offer is over, and the other guest wants that address.
    a.machine.ahead_s.store(60, Ordering::Relaxed);
    let told = a.ask(&request(2, take, "web2")).await;
    assert_eq!(told, Reply::Refuse(settings.gateway.addr()));
    assert_eq!(leased(&world, 2), None);
    let told = a.ask(&request(1, take, "web1")).await;
    assert!(matches!(told, Reply::Acknowledge(address, _) if address == offered), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_takes_and_gives_back_without_end_hinders_itself_only() {
    let world = networks(&[5]).await;
    let a = Coordinator::new(&world, "a").await;
    a.becomes_primary().await;
    let web1 = a.gives(1, "web1").await;
    let zxid = world.tree.zxid();
    for _ in 0..1000 {
        a.port.ask("vmbr5", &request(1, Asks::Release(web1), ""));
        a.port.ask("vmbr5", &request(1, Asks::Keep(web1), "web1"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let changes = world.tree.zxid() - zxid;
    assert!((15..=17).contains(&changes), "{changes} in ten seconds");
    let told = a.ask(&request(1, Asks::Inform, "web1")).await;
    assert!(matches!(told, Reply::Inform(_)), "what changes nothing is answered: {told:?}");
    a.gives(2, "web2").await;
    tokio::time::sleep(Duration::from_mins(3)).await;
    assert_eq!(a.gives(1, "web1").await, web1);
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_is_served_at_once_and_restarts_nothing() {
    let world = networks(&[5]).await;
    let a = Coordinator::new(&world, "a").await;
    a.becomes_primary().await;
    a.runs(&["5"]).await;
    assert_ne!(a.gives(1, "").await, Ipv4Addr::new(10, 5, 0, 9));
    let reserved = "/networks/5/dhcp4_reservations/52:54:00:00:00:02";
    let keys = [("", "static"), ("/ipaddr", "10.5.0.9"), ("/hostname", "db")];
    let keys = keys.map(|(key, value)| (format!("{reserved}{key}"), value));
    world.create(&keys.each_ref().map(|(key, value)| (key.as_str(), *value))).await;
    a.names("10.5.0.9 db.web.local db\n").await;
    assert_eq!(a.gives(2, "").await, Ipv4Addr::new(10, 5, 0, 9));
    let starts = a.programs.history().iter().filter(|line| line.starts_with("start")).count();
    assert_eq!(starts, 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_served_is_told_at_its_network_until_it_can_or_another_node_is_primary() {
    let world = networks(&[5]).await;
    let mut inside = network(6);
    inside.ip4.network = Some("10.255.1.0/25".parse().unwrap());
    inside.ip4.gateway = Some("10.255.1.3".parse().unwrap());
    world.define(&inside).await;
    let a = Coordinator::new(&world, "a").await;
    a.becomes_primary().await;
    a.runs(&["5"]).await;
    let gateway = "network 6: it has not the gateway 10.255.1.3: 10.255.1.0/25 overlaps";
    world.until_told(&[gateway]).await;
    a.programs.set("dnsmasq of network 5", ProgramState::Down { why: "exit status: 2".into() });
    let down = "network 5: its dnsmasq has ended and is started again and again: exit status: 2";
    world.until_told(&[down, gateway]).await;
    a.programs.set("dnsmasq of network 5", ProgramState::Running);
    world.until_told(&[gateway]).await;
    a.is_primary_no_more().await;
    world.until_told(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn guests_are_told_of_a_time_server_while_one_answers() {
    let world = networks(&[5]).await;
    let a = Coordinator::new(&world, "a").await;
    a.becomes_primary().await;
    let told = async || {
        let Reply::Inform(settings) = a.ask(&request(3, Asks::Inform, "")).await else {
            panic!("not informed")
        };
        settings.keeps_time
    };
    assert!(!told().await);
    for keeps_time in [true, false] {
        a.port.keeps_time(keeps_time);
        assert_eq!(told().await, !keeps_time, "it is believed for a minute");
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(told().await, keeps_time);
    }
}
