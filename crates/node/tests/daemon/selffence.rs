//! Whole daemons that guard their machines, over fakes and a paused clock: when the machine would be reset, and when it must not be.

use std::{sync::Arc, time::Duration};

use pvc_core::model::NodeName;
use pvc_host::{
    boot_note::FakeNote,
    machine::FakeMachine,
    power::fake::FakePower,
    storage_fence::NoStorage,
    watchdog::{Watchdog, fake::FakeWatchdog},
};
use pvc_store::{
    memory::{MemoryStore, MemoryTree},
    schema::{maintenance, owner::Owner},
};
use pvcd::{DaemonError, Dependencies, Stop, Stopper, notify::Notify, ownership};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::support::{Settings, config};

/// Three keepalives of 5 s.
const WITHIN: Duration = Duration::from_secs(15);

struct Node {
    tree: MemoryTree,
    store: Arc<MemoryStore>,
    watchdog: Arc<FakeWatchdog>,
    stopper: Stopper,
    daemon: JoinHandle<Result<(), DaemonError>>,
    _dir: tempfile::TempDir,
}

impl Node {
    /// One that runs and is armed.
    async fn armed() -> Self {
        let (tree, watchdog, dir) = (MemoryTree::new(), FakeWatchdog::new(), tempfile::tempdir().unwrap());
        let sample =
            Settings { node: "node1", coordinator: "node1", hypervisor: false, keepalive_interval_s: 5 };
        let mut config = config(dir.path(), &sample);
        config.intervals.suicide_intervals = 3;
        let store = tree.client();
        let parts = Dependencies {
            store: store.clone(),
            hypervisor: None,
            consoles: None,
            screens: None,
            links: None,
            bridges: None,
            firewall: None,
            routing: None,
            zones: None,
            database_cluster: None,
            programs: None,
            dhcp: None,
            services: None,
            power: FakePower::new(),
            ceph: None,
            osds: None,
            storage: Arc::new(NoStorage),
            servers: Arc::new(pvc_store::servers::FakeServers::default()),
            watchdog: Some(watchdog.clone() as Arc<dyn Watchdog>),
            metrics: None,
            boot_note: Arc::new(FakeNote::default()),
            machine: Arc::new(FakeMachine::default()),
            process: Owner { boot: "1".into(), ..ownership::this_process("node1".into()).unwrap() },
            notify: Notify::default(),
            lifeline: pvc_process::Place::here(),
        };
        let (stopper, stop) = Stop::new();
        let daemon = pvc_process::spawn(async move { pvcd::run(&config, parts, stop).await });
        let node = Self { tree, store, watchdog, stopper, daemon, _dir: dir };
        node.until_told("15").await;
        assert!(node.watchdog.is_armed());
        node
    }

    fn told(&self) -> String {
        let name: NodeName = "node1".parse().unwrap();
        let data = self.tree.dump().get(&format!("/nodes/{name}/selffence")).cloned();
        String::from_utf8(data.unwrap_or_default()).unwrap()
    }

    async fn until_told(&self, text: &str) {
        let began = Instant::now();
        while self.told() != text {
            assert!(began.elapsed() < Duration::from_mins(5), "{:?} is told, not {text:?}", self.told());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_is_reset_in_time_and_a_short_cut_is_survived() {
    let node = Node::armed().await;
    sleep(Duration::from_mins(10)).await;
    node.store.suspend();
    sleep(Duration::from_secs(8)).await;
    node.store.resume();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(node.watchdog.fired_at(), None, "8 s are not 15 s");
    node.store.suspend();
    let cut = Instant::now();
    sleep(Duration::from_mins(1)).await;
    let fired = node.watchdog.fired_at().unwrap();
    assert!(fired <= cut + WITHIN && fired + Duration::from_secs(6) > cut + WITHIN, "{:?}", fired - cut);
    assert_eq!(node.told(), "15", "the others may count on it");
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_order_and_maintenance_reset_nothing() {
    let node = Node::armed().await;
    maintenance::set(&*node.tree.client(), true).await.unwrap();
    node.until_told("").await;
    sleep(Duration::from_millis(100)).await;
    assert!(!node.watchdog.is_armed());
    maintenance::set(&*node.tree.client(), false).await.unwrap();
    node.until_told("15").await;
    assert!(node.watchdog.is_armed());
    node.stopper.stop();
    node.daemon.await.unwrap().unwrap();
    assert!(!node.watchdog.is_armed() && node.watchdog.fired_at().is_none());
    let told = node.tree.dump()["/nodes/node1/selffence"].clone();
    assert!(told.is_empty(), "the last keepalives of a stop arm nothing");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_ends_otherwise_leaves_its_machine_armed() {
    let node = Node::armed().await;
    node.daemon.abort();
    let _ = node.daemon.await;
    assert!(node.watchdog.is_armed(), "killed");

    let node = Node::armed().await;
    node.store.suspend();
    sleep(Duration::from_secs(1)).await;
    node.stopper.stop();
    node.daemon.await.unwrap().unwrap();
    assert!(node.watchdog.is_armed(), "a stop that ZooKeeper does not know of");
}
