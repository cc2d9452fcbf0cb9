//! Which servers run, with fake programs, and what guests are told, at a fake port. The real ones are in the lab's tests.

use std::{collections::BTreeSet, net::Ipv4Addr};

use pvc_core::model::{
    Mac, Network, NetworkKind, NodeName,
    dhcp::{Asks, Reply, Request},
};
use pvc_host::{dhcp::fake::FakePort, machine::FakeMachine, programs::fake::FakePrograms};
use pvc_store::{CreateMode, Op, Store, Transaction, memory::MemoryTree, mirror::Mirror, schema};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

fn network(vni: &str) -> Network {
    let mut network = Network::bare(vni.parse().unwrap());
    network.kind = Some(NetworkKind::Managed);
    network.ip4.network = Some(format!("10.{vni}.0.0/24").parse().unwrap());
    network.ip4.gateway = Some(format!("10.{vni}.0.1").parse().unwrap());
    network.ip4.dhcp.enabled = true;
    network.ip4.dhcp.start = Some(format!("10.{vni}.0.100").parse().unwrap());
    network.ip4.dhcp.end = Some(format!("10.{vni}.0.199").parse().unwrap());
    network
}

async fn networks(vnis: &[&str]) -> MemoryTree {
    let tree = MemoryTree::new();
    let store = tree.client();
    schema::root::init(&*store).await.unwrap();
    for vni in vnis {
        store.commit(schema::network::define(&network(vni))).await.unwrap();
    }
    tree
}

/// A coordinator.
struct Coordinator {
    me: NodeName,
    store: Arc<dyn Store>,
    programs: FakePrograms,
    port: FakePort,
    services: Arc<GatewayServices>,
    folder: TempDir,
}

impl Coordinator {
    async fn new(tree: &MemoryTree, name: &str) -> Self {
        let (me, store): (NodeName, Arc<dyn Store>) = (name.parse().unwrap(), tree.client());
        let mirror = Mirror::start(Arc::clone(&store));
        mirror.ready().await;
        let machine = Arc::new(FakeMachine::default());
        let cluster = Cluster::new(me.clone(), Arc::clone(&store), mirror, machine);
        let (programs, port) = (FakePrograms::default(), FakePort::default());
        let folder = tempfile::tempdir().unwrap();
        let services = GatewayServices::start(Dependencies {
            cluster,
            programs: Arc::new(programs.clone()),
            port: Arc::new(port.clone()),
            own_networks: vec![],
            uplink: (1500, "10.255.0.1".parse().unwrap()),
            folder: folder.path().to_owned(),
        });
        services.prepare().await.unwrap();
        Self { me, store, programs, port, services, folder }
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
        until(&format!("{expected:?} run"), || running() == expected).await;
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
        assert_eq!(told, Reply::Acknowledge(offered, settings));
        offered
    }

    async fn names(&self, expected: &str) {
        let file = self.folder.path().join("names/5/guests");
        let names = || fs::read_to_string(&file).unwrap_or_default();
        until(&format!("the names are {expected:?}"), || names() == expected).await;
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let work = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(30), work).await.is_ok(), "{what}: it is not so");
}

fn request(number: u8, asks: Asks, name: &str) -> Request {
    Request { mac: Mac([0x52, 0x54, 0, 0, 0, number]), asks, name: Some(name.to_owned()), client_id: None }
}

fn leased(tree: &MemoryTree, number: u8) -> Option<String> {
    let key = format!("/networks/5/dhcp4_leases/52:54:00:00:00:{number:02x}/ipaddr");
    Some(String::from_utf8(tree.dump().get(&key)?.clone()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn only_the_primary_serves_and_what_the_networks_are() {
    let tree = networks(&["5", "6"]).await;
    let a = Coordinator::new(&tree, "a").await;
    a.runs(&[]).await;
    assert!(!a.port.is_open());
    a.becomes_primary().await;
    a.runs(&["5", "6"]).await;

    a.store.commit(schema::network::define(&network("7"))).await.unwrap();
    a.runs(&["5", "6", "7"]).await;
    let (seen, _) = schema::network::read_all(&*a.store).await.unwrap();
    schema::network::remove(&*a.store, &seen[&"6".parse().unwrap()]).await.unwrap();
    a.runs(&["5", "7"]).await;
    let mut other = network("5");
    other.domain = Some("web.example".parse().unwrap());
    a.store.commit(schema::network::modify(&seen[&other.vni], &other)).await.unwrap();
    let domain = "--domain=web.example".to_owned();
    until("5 has its domain", || {
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
    let tree = networks(&["5"]).await;
    let (a, b) = (Coordinator::new(&tree, "a").await, Coordinator::new(&tree, "b").await);
    a.becomes_primary().await;
    let web1 = a.gives(1, "web1").await;
    assert_eq!(leased(&tree, 1), Some(web1.to_string()));
    a.names(&format!("{web1} web1\n")).await;

    a.is_primary_no_more().await;
    b.becomes_primary().await;
    b.names(&format!("{web1} web1\n")).await;
    let taken = b.ask(&request(2, Asks::Keep(web1), "evil")).await;
    assert_eq!(taken, Reply::Refuse("10.5.0.1".parse().unwrap()));
    assert_ne!(b.gives(2, "web2").await, web1);
    assert_eq!(b.gives(1, "web1").await, web1);

    b.ask(&request(3, Asks::Inform, "")).await;
    b.port.ask("vmbr5", &request(1, Asks::Release(web1), ""));
    until("it is given back", || leased(&tree, 1).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_no_longer_primary_gives_nobody_an_address() {
    let tree = networks(&["5"]).await;
    let (a, b) = (Coordinator::new(&tree, "a").await, Coordinator::new(&tree, "b").await);
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
    assert_eq!((a.port.answers().len(), leased(&tree, 1)), (before, None));
    assert_eq!(b.gives(1, "web1").await, offered);
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_is_served_at_once_and_restarts_nothing() {
    let tree = networks(&["5"]).await;
    let a = Coordinator::new(&tree, "a").await;
    a.becomes_primary().await;
    a.runs(&["5"]).await;
    assert_ne!(a.gives(1, "").await, Ipv4Addr::new(10, 5, 0, 9));
    let reserved = "/networks/5/dhcp4_reservations/52:54:00:00:00:02";
    let mut txn = Transaction::default();
    for (key, value) in [("", "static"), ("/ipaddr", "10.5.0.9"), ("/hostname", "db")] {
        let (path, data) = (format!("{reserved}{key}"), value.into());
        txn.ops.push(Op::Create { path, data, mode: CreateMode::Persistent });
    }
    a.store.commit(txn).await.unwrap();
    a.names("10.5.0.9 db\n").await;
    assert_eq!(a.gives(2, "").await, Ipv4Addr::new(10, 5, 0, 9));
    let starts = a.programs.history().iter().filter(|line| line.starts_with("start")).count();
    assert_eq!(starts, 1);
}
