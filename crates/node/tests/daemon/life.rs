//! The life of daemons over a fake store and a fake hypervisor. The clock is tokio's and paused: an hour passes at once.

use std::{path::PathBuf, sync::Arc, time::Duration};

use pvc_core::model::NodeName;
use pvc_host::{
    boot_note::FakeNote,
    hypervisor::{
        Activity, Hypervisor, Seen,
        fake::{FakeHypervisor, Reach},
    },
    machine::FakeMachine,
    power::fake::FakePower,
    storage_fence::NoStorage,
};
use pvc_store::{
    Op, Store as _, Transaction,
    memory::{MemoryStore, MemoryTree},
    schema::owner::Owner,
};
use pvcd::{DaemonError, Dependencies, Stop, Stopper, notify::Notify, ownership};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::support::{Settings, config};

mod keys;

const INTERVAL: Duration = Duration::from_secs(5);

/// A tree, and daemons on it.
struct Cluster {
    tree: MemoryTree,
    /// Reads for the test; no daemon's.
    eye: Arc<MemoryStore>,
    dir: PathBuf,
    _dir: tempfile::TempDir,
}

struct Node {
    store: Arc<MemoryStore>,
    hypervisor: Arc<FakeHypervisor>,
    stopper: Stopper,
    daemon: JoinHandle<Result<(), DaemonError>>,
}

impl Cluster {
    fn new() -> Self {
        let tree = MemoryTree::new();
        let dir = tempfile::tempdir().unwrap();
        Self { eye: tree.client(), tree, dir: dir.path().to_owned(), _dir: dir }
    }

    /// Starts a daemon called `name` on a machine called `host`.
    fn start(
        &self,
        name: &str,
        host: &str,
        store: Arc<MemoryStore>,
        hypervisor: Arc<FakeHypervisor>,
    ) -> Node {
        let sample = Settings { node: name, coordinator: "node1", hypervisor: true, keepalive_interval_s: 5 };
        let config = config(&self.dir, &sample);
        // Daemons of different machines, although all are in this process.
        let process = Owner { boot: host.into(), ..ownership::this_process(host.into()).unwrap() };
        let parts = Dependencies {
            store: store.clone(),
            hypervisor: Some(hypervisor.clone() as Arc<dyn Hypervisor>),
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
            watchdog: None,
            metrics: None,
            boot_note: Arc::new(FakeNote::default()),
            machine: Arc::new(FakeMachine::default()),
            process,
            notify: Notify::default(),
            lifeline: pvc_process::Place::here(),
        };
        let (stopper, stop) = Stop::new();
        let daemon = pvc_process::spawn(async move { pvcd::run(&config, parts, stop).await });
        Node { store, hypervisor, stopper, daemon }
    }

    fn start_node(&self, name: &str) -> Node {
        self.start(name, name, self.tree.client(), FakeHypervisor::new())
    }

    fn get(&self, path: &str) -> Option<String> {
        self.tree.dump().get(path).map(|data| String::from_utf8(data.clone()).unwrap())
    }

    fn node_key(&self, node: &str, key: &str) -> String {
        self.get(&format!("/nodes/{node}/{key}")).unwrap_or_else(|| panic!("{node} has no {key}"))
    }

    async fn version(&self, path: &str) -> i32 {
        self.eye.get(path).await.unwrap().unwrap().version
    }

    async fn write(&self, path: &str, text: &str) {
        let op = Op::Set { path: path.into(), data: text.into(), version: None };
        self.eye.commit(Transaction { ops: vec![op] }).await.unwrap();
    }

    /// Waits until a node's daemon is in that state; returns how long it took.
    async fn until_state(&self, node: &str, state: &str) -> Duration {
        self.until(&format!("/nodes/{node}/daemonstate"), state).await
    }

    async fn until(&self, path: &str, text: &str) -> Duration {
        let began = Instant::now();
        while self.get(path).as_deref() != Some(text) {
            assert!(
                began.elapsed() < Duration::from_mins(5),
                "{path} is {:?} instead of {text:?}",
                self.get(path)
            );
            sleep(Duration::from_millis(20)).await;
        }
        began.elapsed()
    }
}

impl Node {
    async fn stop(self) -> Duration {
        let began = Instant::now();
        self.stopper.stop();
        self.daemon.await.unwrap().unwrap();
        began.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_registers_runs_says_so_and_stops_in_order() {
    let cluster = Cluster::new();
    let node = cluster.start_node("node1");
    cluster.until_state("node1", "run").await;
    cluster.until("/nodes/node1/routerstate", "primary").await;
    for (key, value) in [
        ("", "coordinator"),
        ("/daemonmode", "coordinator"),
        ("/domainstate", "flushed"),
        ("/staticdata", "8 6.1.0-18-amd64 GNU/Linux x86_64"),
        ("/memtotal", "16384"),
        ("/memused", "4096"),
        ("/memfree", "12288"),
        ("/memalloc", "0"),
        ("/vcpualloc", "0"),
        ("/cpuload", "0.25"),
        ("/networkscount", "0"),
        ("/domainscount", "0"),
        ("/runningdomains", ""),
        ("/ipmihostname", "node1-lom"),
        ("/ipmiusername", "admin"),
        ("/ipmipassword", "Passw0rd"),
    ] {
        assert_eq!(cluster.get(&format!("/nodes/node1{key}")).as_deref(), Some(value), "/nodes/node1{key}");
    }
    assert_eq!(cluster.get("/primary_node").as_deref(), Some("node1"), "the only coordinator is primary");
    assert!(cluster.get("/pvc/daemon/node1").is_some());
    node.stop().await;
    assert_eq!(cluster.node_key("node1", "daemonstate"), "stop");
    assert_eq!(cluster.node_key("node1", "routerstate"), "secondary");
    assert_eq!(cluster.get("/pvc/daemon/node1"), None, "its session has ended");
}

#[tokio::test(start_paused = true)]
async fn a_keepalive_is_one_write_an_interval() {
    let cluster = Cluster::new();
    let node = cluster.start_node("node1");
    cluster.until_state("node1", "run").await;
    sleep(INTERVAL).await;
    let (version, zxid) = (cluster.version("/nodes/node1/keepalive").await, cluster.tree.zxid());
    sleep(20 * INTERVAL).await;
    assert_eq!(cluster.version("/nodes/node1/keepalive").await - version, 20);
    assert_eq!(cluster.tree.zxid() - zxid, 20, "nothing else is written by an idle node");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_daemon_keeps_the_nodes_domainstate_and_corrects_its_routerstate() {
    let cluster = Cluster::new();
    let node = cluster.start_node("node2");
    cluster.until_state("node2", "run").await;
    assert_eq!(cluster.node_key("node2", "routerstate"), "client", "node2 is no coordinator");
    node.stop().await;
    cluster.write("/nodes/node2/domainstate", "ready").await;
    cluster.write("/nodes/node2/routerstate", "primary").await;
    let node = cluster.start_node("node2");
    cluster.until_state("node2", "run").await;
    assert_eq!(cluster.node_key("node2", "domainstate"), "ready");
    assert_eq!(cluster.node_key("node2", "routerstate"), "client");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_at_the_start_is_waited_for() {
    let cluster = Cluster::new();
    let store = cluster.tree.client();
    store.suspend();
    let node = cluster.start("node1", "node1", store, FakeHypervisor::new());
    sleep(Duration::from_hours(1)).await;
    assert!(!node.daemon.is_finished());
    node.store.resume();
    let took = cluster.until_state("node1", "run").await;
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_waits_for_the_store_can_be_stopped() {
    let cluster = Cluster::new();
    let store = cluster.tree.client();
    store.suspend();
    let node = cluster.start("node1", "node1", store, FakeHypervisor::new());
    sleep(Duration::from_secs(30)).await;
    let took = node.stop().await;
    assert!(took <= Duration::from_secs(2), "it took {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_minute_without_the_store_is_survived_with_and_without_the_session() {
    for session_lost in [false, true] {
        let cluster = Cluster::new();
        let node = cluster.start_node("node1");
        cluster.until_state("node1", "run").await;
        node.store.suspend();
        if session_lost {
            node.store.expire();
        }
        sleep(Duration::from_mins(1)).await;
        let version = cluster.version("/nodes/node1/keepalive").await;
        node.store.resume();
        sleep(INTERVAL).await;
        assert!(cluster.version("/nodes/node1/keepalive").await > version, "keepalives are written again");
        assert!(cluster.get("/pvc/daemon/node1").is_some(), "and the name is its own again");
        assert!(!node.daemon.is_finished());
        node.stop().await;
        assert_eq!(cluster.node_key("node1", "daemonstate"), "stop");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_daemons_with_one_name_the_second_is_refused_and_the_first_goes_on() {
    let cluster = Cluster::new();
    let first = cluster.start_node("node1");
    cluster.until_state("node1", "run").await;
    let second = cluster.start("node1", "a copied machine", cluster.tree.client(), FakeHypervisor::new());
    let error = second.daemon.await.unwrap().unwrap_err();
    assert!(error.to_string().starts_with("another pvcd runs as node1 on the machine node1"), "{error}");
    assert_eq!(cluster.node_key("node1", "daemonstate"), "run", "the second wrote nothing");
    let version = cluster.version("/nodes/node1/keepalive").await;
    sleep(2 * INTERVAL).await;
    assert!(cluster.version("/nodes/node1/keepalive").await > version);
    first.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_whose_name_was_taken_during_an_outage_ends_and_writes_nothing_more() {
    let cluster = Cluster::new();
    let first = cluster.start_node("node1");
    cluster.until_state("node1", "run").await;
    first.store.suspend();
    first.store.expire();
    let second = cluster.start("node1", "a copied machine", cluster.tree.client(), FakeHypervisor::new());
    sleep(Duration::from_mins(1)).await;
    assert!(!second.daemon.is_finished());
    first.store.resume();
    let error = first.daemon.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the name belongs to a copied machine"), "{error}");
    assert_eq!(cluster.node_key("node1", "daemonstate"), "run", "that is the second's word");
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_here_is_reported_within_seconds() {
    let cluster = Cluster::new();
    let node = cluster.start_node("node1");
    cluster.until_state("node1", "run").await;
    let ids = ["11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002"];
    for (id, memory_mib) in ids.into_iter().zip([1024, 512]) {
        node.hypervisor.put(Seen {
            id: id.parse().unwrap(),
            name: id.into(),
            activity: Activity::Running,
            memory_mib,
            vcpus: 2,
        });
    }
    let took = cluster.until("/nodes/node1/runningdomains", &ids.join(" ")).await;
    assert!(took < Duration::from_secs(3), "it took {took:?}");
    assert_eq!(cluster.node_key("node1", "domainscount"), "2");
    assert_eq!(cluster.node_key("node1", "memalloc"), "1536");
    assert_eq!(cluster.node_key("node1", "vcpualloc"), "4");
    node.hypervisor.set_reach(Reach::Down);
    sleep(3 * INTERVAL).await;
    assert_eq!(cluster.node_key("node1", "domainscount"), "2", "guests outlive libvirtd");
    node.stop().await;
    assert_eq!(cluster.node_key("node1", "domainscount"), "2", "and a stop of the daemon");
}

#[tokio::test(start_paused = true)]
async fn a_libvirt_that_hangs_delays_neither_start_nor_keepalives_nor_stop() {
    let cluster = Cluster::new();
    let hypervisor = FakeHypervisor::new();
    hypervisor.set_reach(Reach::Frozen);
    let node = cluster.start("node1", "node1", cluster.tree.client(), hypervisor);
    let took = cluster.until_state("node1", "run").await;
    assert!(took < Duration::from_secs(7), "it took {took:?}");
    let version = cluster.version("/nodes/node1/keepalive").await;
    sleep(10 * INTERVAL).await;
    assert!(cluster.version("/nodes/node1/keepalive").await - version >= 9);
    let took = node.stop().await;
    assert!(took <= Duration::from_secs(5), "it took {took:?}");
    assert_eq!(cluster.node_key("node1", "daemonstate"), "stop");
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_seconds_even_when_store_and_libvirt_are_away() {
    let cluster = Cluster::new();
    let node = cluster.start_node("node1");
    cluster.until_state("node1", "run").await;
    node.store.suspend();
    node.hypervisor.set_reach(Reach::Frozen);
    let took = node.stop().await;
    assert!(took <= Duration::from_secs(5), "it took {took:?}");
    let name: NodeName = "node1".parse().unwrap();
    let state = cluster.get(&format!("{}/daemonstate", pvc_store::schema::node::path(&name)));
    assert_eq!(state.as_deref(), Some("run"), "nobody could be told");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_costs_no_keepalive() {
    let cluster = Cluster::new();
    let node = cluster.start_node("node1");
    cluster.until_state("node1", "run").await;
    node.store.lose_answers(1);
    sleep(4 * INTERVAL).await;
    let version = cluster.version("/nodes/node1/keepalive").await;
    sleep(10 * INTERVAL).await;
    assert_eq!(cluster.version("/nodes/node1/keepalive").await - version, 10);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_answers_the_desired_states_to_be_emptied_and_filled() {
    let cluster = Cluster::new();
    let node = cluster.start_node("node1");
    cluster.until_state("node1", "run").await;
    for (desired, answer) in [("unflush", "ready"), ("flush", "flushed"), ("unflush", "ready")] {
        cluster.write("/nodes/node1/domainstate", desired).await;
        let took = cluster.until("/nodes/node1/domainstate", answer).await;
        assert!(took < Duration::from_secs(1), "{answer} after {took:?}");
    }
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_speaks_from_its_registration_on() {
    let cluster = Cluster::new();
    let hypervisor = FakeHypervisor::new();
    hypervisor.set_reach(Reach::Frozen);
    let node = cluster.start("node1", "node1", cluster.tree.client(), hypervisor);
    cluster.until_state("node1", "init").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.node_key("node1", "daemonstate"), "init", "libvirt is waited for");
    assert!(cluster.version("/nodes/node1/keepalive").await > 0, "and the node is heard of meanwhile");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_while_the_daemon_starts_is_followed_by_another() {
    let cluster = Cluster::new();
    let hypervisor = FakeHypervisor::new();
    hypervisor.set_reach(Reach::Frozen);
    let node = cluster.start("node1", "node1", cluster.tree.client(), hypervisor);
    cluster.until_state("node1", "init").await;
    node.store.suspend();
    node.store.expire();
    sleep(Duration::from_mins(3)).await;
    node.store.resume();
    let took = cluster.until_state("node1", "run").await;
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    assert!(cluster.get("/pvc/daemon/node1").is_some());
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_said_last_to_run_here_stands_until_libvirt_is_heard() {
    let cluster = Cluster::new();
    let node = cluster.start_node("node1");
    cluster.until_state("node1", "run").await;
    node.stop().await;
    let id = "11111111-0000-4000-8000-000000000001";
    cluster.write("/nodes/node1/runningdomains", id).await;
    let hypervisor = FakeHypervisor::new();
    hypervisor.set_reach(Reach::Frozen);
    let node = cluster.start("node1", "node1", cluster.tree.client(), hypervisor);
    cluster.until_state("node1", "run").await;
    sleep(20 * INTERVAL).await;
    assert_eq!(cluster.node_key("node1", "runningdomains"), id);
    node.hypervisor.set_reach(Reach::Up);
    sleep(2 * INTERVAL).await;
    assert_eq!(cluster.node_key("node1", "runningdomains"), "");
    node.stop().await;
}
