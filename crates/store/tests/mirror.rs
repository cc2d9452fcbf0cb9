//! The mirror on a real ZooKeeper: complete with a thousand VMs, frugal at a keepalive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pvc_core::model::{DaemonMode, NodeName, NodeReport, StaticData, VmChange, VmId, VmKey};
use pvc_store::{
    Op, Store, Transaction,
    mirror::Mirror,
    schema::{node, primary, root, vm},
    testing::ZooKeeperProcess,
    zookeeper::{Options, ZooKeeperStore},
};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(30);

fn name(n: u32) -> NodeName {
    format!("node{n}").parse().unwrap()
}

fn id(n: u32) -> VmId {
    VmId::from(Uuid::from_u128(0x1111_1111_0000_4000_8000_0000_0000_0000 + u128::from(n)))
}

fn define(n: u32) -> VmChange {
    VmChange::Define {
        id: id(n),
        name: format!("vm{n}").parse().unwrap(),
        node: name(1),
        xml: format!("<domain>{}</domain>", "x".repeat(7500)),
        rbd_images: vec![format!("vms/vm{n}_sda")],
    }
}

async fn server() -> ZooKeeperProcess {
    tokio::task::spawn_blocking(ZooKeeperProcess::start).await.unwrap()
}

fn connect(server: &ZooKeeperProcess) -> Arc<ZooKeeperStore> {
    ZooKeeperStore::start(Options::new(server.connect_string()))
}

async fn register(store: &dyn Store) {
    root::init(store).await.unwrap();
    let registration = node::Registration {
        name: name(1),
        mode: DaemonMode::Coordinator,
        static_data: "8 6.1.0 GNU/Linux x86_64".parse::<StaticData>().unwrap(),
        boot: "boot".into(),
        keepalive_interval: std::time::Duration::from_secs(5),
        vtep: None,
        storage: true,
        ipmi: node::Ipmi::default(),
    };
    node::register(store, &registration).await.unwrap();
}

/// Requests that the server has received so far; asking is one of them.
fn requests(server: &ZooKeeperProcess) -> u64 {
    let answer = server.ask("mntr").unwrap();
    let line = answer.lines().find_map(|l| l.strip_prefix("zk_packets_received")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_vms_are_listed_with_few_requests() {
    let server = server().await;
    let writer = connect(&server);
    register(&*writer).await;
    for n in 0..1000 {
        vm::apply(&*writer, &define(n)).await.unwrap();
    }
    let reader = connect(&server);
    reader.session().wait_for(|s| s.is_healthy()).await.map(drop).unwrap();
    let before = requests(&server);
    let start = Instant::now();
    let mirror = Mirror::start(reader);
    mirror.ready().await;
    let took = start.elapsed();
    let spent = requests(&server) - before;
    println!("1000 VMs listed in {took:?} with {spent} requests");
    let view = mirror.view();
    assert_eq!((view.good_vms().count(), view.all_nodes().count()), (1000, 1));
    assert!(view.good_vms().all(|vm| vm.xml_version == Some(0) && vm.claim.version.is_none()));
    // One look at each definition's version, the rest in bulk.
    assert!(spent < 1100, "{spent} requests");
    assert!(took < Duration::from_secs(20), "{took:?}: this is a matter of tenths of a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_registered_and_an_empty_cluster_listed_with_few_requests() {
    let server = server().await;
    let store = connect(&server);
    store.session().wait_for(|s| s.is_healthy()).await.map(drop).unwrap();
    let before = requests(&server);
    register(&*store).await;
    let registered = requests(&server);
    // To see what is there of the root keys, to make them; the same of the node's.
    assert!(registered - before <= 4 + 1, "{} requests to register", registered - before);
    let mirror = Mirror::start(store.clone());
    mirror.ready().await;
    let spent = requests(&server) - registered;
    println!("an empty cluster listed with {spent} requests");
    // A watch for each kind, two or three rounds to the leader for all of them, three reads.
    assert!(spent <= 9 + 3 + 6 + 1, "{spent} requests to list");
}

/// Lets only a stranger read a key, or everybody again.
const PROTECT: &str = r#"
import sys
from kazoo.client import KazooClient
from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl
zk = KazooClient(hosts=sys.argv[1])
zk.start()
closed = [
    make_digest_acl("stranger", "secret", read=True),
    make_acl("world", "anyone", write=True, create=True, delete=True, admin=True),
]
zk.set_acls(sys.argv[2], OPEN_ACL_UNSAFE if sys.argv[3] == "open" else closed)
zk.stop()
"#;

fn protect(server: &ZooKeeperProcess, path: &str, how: &str) {
    #[allow(clippy::disallowed_methods, reason = "our own client sets no access control lists")]
    let status = std::process::Command::new("/usr/bin/python3")
        .args(["-c", PROTECT, &server.connect_string(), path, how])
        .status()
        .expect("python3 is missing: apt-get install python3-kazoo");
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_behind_an_access_control_list_costs_its_vm_and_no_other() {
    let server = server().await;
    let store = connect(&server);
    register(&*store).await;
    for n in [1, 2] {
        vm::apply(&*store, &define(n)).await.unwrap();
    }
    let [protected, other] = [id(1), id(2)];
    let key = vm::key_path(protected, VmKey::State);
    protect(&server, &key, "closed");
    let mirror = Mirror::start(store.clone());
    mirror.ready().await;
    assert!(mirror.synced());
    let view = mirror.view();
    assert!(view.vm(other).is_some() && view.node(&name(1)).is_some());
    let Some(vm) = view.vm(protected) else { panic!("{view:?}") };
    assert!(vm.cannot_read(VmKey::State) && vm.node.value == name(1), "{vm:?}");
    let told: Vec<String> = vm.problems.iter().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].starts_with(&key), "{told:?}");
    println!("{}", told[0]);

    protect(&server, &key, "open");
    let mut views = mirror.views();
    let shown = tokio::time::timeout(
        SOON,
        views.wait_for(|view| view.vm(protected).is_some_and(|vm| vm.problems.is_empty())),
    )
    .await;
    shown.expect("it is read again").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keepalive_costs_its_observer_no_read_until_somebody_asks() {
    const BATCHES: u64 = 10;
    const BATCH: u64 = 20;
    let server = server().await;
    let store = connect(&server);
    register(&*store).await;
    let mirror = Mirror::start(store.clone());
    mirror.ready().await;
    let mut acknowledged = None;
    let mut spent = Vec::new();
    for batch in 0..BATCHES {
        let asks = batch % 2 == 1;
        let before = requests(&server);
        for n in 1..=BATCH {
            let used = batch * BATCH + n;
            let report = NodeReport {
                mem_total_mib: 1000,
                mem_used_mib: used,
                mem_free_mib: 1000 - used,
                cpu_load: f64::from(u32::try_from(n).unwrap()),
                keepalive_unix_s: used,
                ..NodeReport::default()
            };
            store.commit(node::report(&name(1), &report, acknowledged.as_ref())).await.unwrap();
            mirror.caught_up(SOON).await.unwrap();
            if asks {
                mirror.figures(SOON).await.unwrap();
                assert_eq!(mirror.view().node(&name(1)).unwrap().report, report);
            }
            acknowledged = Some(report);
        }
        spent.push((asks, requests(&server) - before));
    }
    println!("{BATCH} keepalives with {spent:?} requests, with figures or without");
    let least = |asks| spent.iter().filter(|(a, _)| *a == asks).map(|(_, spent)| *spent).min().unwrap();
    // The first keepalive writes what lasts, too. Besides there are this test's own questions about the server.
    assert!(least(false) < BATCH + BATCH / 2, "{spent:?}");
    assert!(least(true) < 3 * BATCH, "{spent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_outlives_its_servers_restart_and_pause() {
    let mut server = server().await;
    let options =
        Options { session_timeout: Duration::from_secs(2), ..Options::new(server.connect_string()) };
    let store = ZooKeeperStore::start(options);
    register(&*store).await;
    let mirror = Mirror::start(store.clone());
    mirror.ready().await;
    let mut views = mirror.views();

    // Longer than the session lives: the servers' clock stops as well, so it may or may not survive; both must do.
    server.pause();
    store.session().wait_for(|s| !s.is_healthy()).await.map(drop).unwrap();
    assert!(!mirror.synced());
    server.resume();
    vm::apply(&*store, &define(1)).await.unwrap();
    tokio::time::timeout(SOON, views.wait_for(|v| v.vms.len() == 1)).await.unwrap().map(drop).unwrap();

    server.stop();
    store.session().wait_for(|s| !s.is_healthy()).await.map(drop).unwrap();
    tokio::task::block_in_place(|| server.restart());
    let other = connect(&server);
    vm::apply(&*other, &define(2)).await.unwrap();
    tokio::time::timeout(SOON, views.wait_for(|v| v.vms.len() == 2)).await.unwrap().map(drop).unwrap();
    tokio::time::timeout(SOON, async {
        while !mirror.synced() {
            let op = Op::Set { path: primary::PRIMARY_NODE.into(), data: b"none".into(), version: None };
            let _ = other.commit(Transaction { ops: vec![op] }).await;
            let _ = mirror.caught_up(SOON).await;
        }
    })
    .await
    .expect("the mirror is current again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_later_is_found() {
    let mut server = server().await;
    server.stop();
    let store = connect(&server);
    let mirror = Mirror::start(store.clone());
    let early = tokio::time::timeout(Duration::from_millis(300), mirror.ready()).await;
    assert!(early.is_err(), "nothing to be ready with");
    tokio::task::block_in_place(|| server.restart());
    tokio::time::timeout(SOON, mirror.ready()).await.expect("the server is found");
    assert!(mirror.view().vms.is_empty());
}
