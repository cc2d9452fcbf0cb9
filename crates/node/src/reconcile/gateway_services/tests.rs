//! Which servers run, with fake programs. The real ones are in the lab's tests.

use std::collections::BTreeSet;

use pvc_core::model::{Network, NetworkKind};
use pvc_host::{machine::FakeMachine, programs::fake::FakePrograms};
use pvc_store::{CreateMode, Op, Store, Transaction, memory::MemoryTree, mirror::Mirror, schema};
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

async fn until(programs: &FakePrograms, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|vni| format!("dnsmasq of network {vni}")).collect();
    let work = async {
        while programs.running().into_keys().collect::<BTreeSet<_>>() != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(30), work).await.is_ok(), "{:?}", programs.running().keys());
}

#[tokio::test(start_paused = true)]
async fn only_the_primary_serves_and_what_the_networks_are() {
    let tree = MemoryTree::new();
    let store: Arc<dyn Store> = tree.client();
    schema::root::init(&*store).await.unwrap();
    for vni in ["5", "6"] {
        store.commit(schema::network::define(&network(vni))).await.unwrap();
    }
    let mirror = Mirror::start(Arc::clone(&store));
    mirror.ready().await;
    let cluster =
        Cluster::new("a".parse().unwrap(), Arc::clone(&store), mirror, Arc::new(FakeMachine::default()));
    let programs = FakePrograms::default();
    let folder = tempfile::tempdir().unwrap();
    let services = GatewayServices::start(Dependencies {
        cluster,
        programs: Arc::new(programs.clone()),
        own_networks: vec![],
        uplink: (1500, "10.255.0.1".parse().unwrap()),
        folder: folder.path().to_owned(),
    });
    services.prepare().await.unwrap();
    until(&programs, &[]).await;
    services.start().await.unwrap();
    until(&programs, &["5", "6"]).await;

    store.commit(schema::network::define(&network("7"))).await.unwrap();
    until(&programs, &["5", "6", "7"]).await;
    let (seen, _) = schema::network::read_all(&*store).await.unwrap();
    schema::network::remove(&*store, &seen[&"6".parse().unwrap()]).await.unwrap();
    until(&programs, &["5", "7"]).await;
    let mut other = network("5");
    other.domain = Some("web.example".parse().unwrap());
    store.commit(schema::network::modify(&seen[&other.vni], &other)).await.unwrap();
    let restarted = async {
        while !programs.running()["dnsmasq of network 5"]
            .arguments
            .contains(&"--domain=web.example".to_owned())
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(30), restarted).await.is_ok());
    until(&programs, &["5", "7"]).await;
    let starts = |name: &str| {
        programs.history().iter().filter(|line| **line == format!("start dnsmasq of network {name}")).count()
    };
    assert_eq!((starts("5"), starts("7")), (2, 1), "a change of one disturbs no other");

    let reserved = "/networks/7/dhcp4_reservations/52:54:00:00:00:01";
    let mut txn = Transaction::default();
    for (key, value) in [("", "static"), ("/ipaddr", "10.7.0.9"), ("/hostname", "db")] {
        let (path, data) = (format!("{reserved}{key}"), value.into());
        txn.ops.push(Op::Create { path, data, mode: CreateMode::Persistent });
    }
    store.commit(txn).await.unwrap();
    let served = async {
        while !programs.running().get("dnsmasq of network 7").is_some_and(|spec| {
            spec.arguments.contains(&"--dhcp-host=52:54:00:00:00:01,10.7.0.9,db".to_owned())
        }) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(30), served).await.is_ok(), "{:?}", programs.running());

    services.stop().await.unwrap();
    assert!(programs.running().is_empty(), "when it has stopped nothing is served");
}
