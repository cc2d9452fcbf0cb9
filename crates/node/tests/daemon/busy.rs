//! A daemon whose reconcilers never wait: it lives all the same. The clock is the real one.

use std::{
    hint,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use pvc_host::{
    boot_note::FakeNote,
    machine::FakeMachine,
    power::fake::{Call, FakePower},
    storage_fence::NoStorage,
    watchdog::{Watchdog, fake::FakeWatchdog},
};
use pvc_process::{OwnThread, Place};
use pvc_store::{Store as _, memory::MemoryTree, schema::owner::Owner};
use pvcd::{Dependencies, Stop, notify::Notify, ownership};
use tokio::{sync::mpsc, time::sleep};

use crate::support::{Settings, config};

/// Longer than what others take for death, and than what the machine's watchdog waits.
const BUSY: Duration = Duration::from_secs(6);
const INTERVALS: u32 = 3;

struct Node {
    watchdog: Arc<FakeWatchdog>,
    /// What is started by this runs beside the daemon's reconcilers.
    beside: mpsc::UnboundedSender<Duration>,
}

/// A coordinator on a thread of its own, and what says that it lives on another.
fn start(tree: &MemoryTree, name: &'static str, power: &Arc<FakePower>, directory: &std::path::Path) -> Node {
    let sample = Settings { node: name, coordinator: name, hypervisor: false, keepalive_interval_s: 1 };
    let mut config = config(directory, &sample);
    (config.intervals.suicide_intervals, config.intervals.fence_intervals) = (INTERVALS, INTERVALS);
    let _life = power.add(&format!("{name}-lom"), "admin", "Passw0rd");
    let (store, power, watchdog) = (tree.client(), Arc::clone(power), FakeWatchdog::new());
    let (beside, mut asked) = mpsc::unbounded_channel();
    let guard = Arc::clone(&watchdog) as Arc<dyn Watchdog>;
    thread::spawn(move || {
        let lifeline = OwnThread::start("lifeline").unwrap();
        let parts = Dependencies {
            store,
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
            power,
            ceph: None,
            osds: None,
            storage: Arc::new(NoStorage),
            servers: Arc::new(pvc_store::servers::FakeServers::default()),
            watchdog: Some(guard),
            metrics: None,
            boot_note: Arc::new(FakeNote::default()),
            machine: Arc::new(FakeMachine::default()),
            process: Owner { boot: name.into(), ..ownership::this_process(name.into()).unwrap() },
            notify: Notify::default(),
            lifeline: lifeline.place().clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (_stopper, stop) = Stop::new();
            Place::here().spawn(async move { pvcd::run(&config, parts, stop).await });
            while let Some(time) = asked.recv().await {
                let began = Instant::now();
                while began.elapsed() < time {
                    hint::spin_loop();
                }
            }
        });
    });
    Node { watchdog, beside }
}

#[tokio::test]
async fn a_node_whose_reconcilers_spin_speaks_feeds_its_watchdog_and_is_fenced_by_nobody() {
    let (tree, power, directory) = (MemoryTree::new(), FakePower::new(), tempfile::tempdir().unwrap());
    let eye = tree.client();
    let says = |path: &str| String::from_utf8(tree.dump().get(path).cloned().unwrap_or_default()).unwrap();
    let mut nodes = Vec::new();
    for name in ["node1", "node2"] {
        nodes.push(start(&tree, name, &power, directory.path()));
        let began = Instant::now();
        while says(&format!("/nodes/{name}/selffence")) != INTERVALS.to_string() {
            assert!(began.elapsed() < Duration::from_secs(30), "{name} does not start");
            sleep(Duration::from_millis(20)).await;
        }
    }
    let keepalive = async || eye.get("/nodes/node1/keepalive").await.unwrap().unwrap().version;
    let (first, feeds) = (keepalive().await, nodes[0].watchdog.feeds());
    nodes[0].beside.send(BUSY).unwrap();
    let began = Instant::now();
    while began.elapsed() < BUSY + Duration::from_secs(1) {
        assert_eq!(says("/nodes/node1/daemonstate"), "run");
        assert_eq!(nodes[0].watchdog.fired_at(), None);
        sleep(Duration::from_millis(20)).await;
    }
    let (keepalives, feeds) = (keepalive().await - first, nodes[0].watchdog.feeds() - feeds);
    assert!(keepalives >= 5 && feeds >= 5, "{keepalives} keepalives, {feeds} times fed");
    assert!(!tree.dump().keys().any(|key| key.starts_with("/pvc/fence/")), "{:?}", tree.dump().keys());
    // It may have been asked whether it has power: that is asked of every BMC now and then.
    let switched: Vec<Call> =
        power.calls("node1-lom").into_iter().filter(|call| *call != Call::Status).collect();
    assert!(switched.is_empty(), "{switched:?}");
}
