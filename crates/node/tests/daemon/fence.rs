//! Whole daemons with whole VMs: a node dies, and the others notice, fence it, and run its VMs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pvc_core::model::{VmChange, VmId, VmSet, VmState};
use pvc_host::{
    boot_note::FakeNote,
    hypervisor::{
        Hypervisor,
        fake::{FakeHypervisor, Reach},
    },
    machine::FakeMachine,
    power::fake::{Call, FakePower},
    storage_fence::NoStorage,
};
use pvc_store::{
    Op, Store as _, Transaction,
    memory::{MemoryStore, MemoryTree},
    schema::{self, owner::Owner},
};
use pvcd::{DaemonError, Dependencies, Stop, Stopper, notify::Notify, ownership};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::support::{Settings, config};

const NODES: [&str; 3] = ["node1", "node2", "node3"];
const VMS: u8 = 6;

struct Cluster {
    tree: MemoryTree,
    eye: Arc<MemoryStore>,
    power: Arc<FakePower>,
    nodes: BTreeMap<&'static str, Node>,
    dir: tempfile::TempDir,
}

struct Node {
    store: Arc<MemoryStore>,
    hypervisor: Arc<FakeHypervisor>,
    daemon: JoinHandle<Result<(), DaemonError>>,
    stopper: Stopper,
}

fn id(n: u8) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
}

fn bmc(node: &str) -> String {
    format!("{node}-lom")
}

impl Cluster {
    /// Three coordinators that take VMs.
    async fn new() -> Self {
        Self::with_hypervisors(&NODES).await
    }

    /// … of which only these have hypervisors.
    async fn with_hypervisors(able: &[&'static str]) -> Self {
        let tree = MemoryTree::new();
        let mut cluster = Self {
            eye: tree.client(),
            tree,
            power: FakePower::new(),
            nodes: BTreeMap::new(),
            dir: tempfile::tempdir().unwrap(),
        };
        for name in NODES {
            let _life = cluster.power.add(&bmc(name), "admin", "Passw0rd");
            let node = cluster.start(name, able.contains(&name));
            cluster.nodes.insert(name, node);
            cluster.until("it runs", 30, |c| c.get(&format!("/nodes/{name}/daemonstate")) == "run").await;
            cluster.write(&format!("/nodes/{name}/domainstate"), "ready").await;
        }
        cluster
    }

    fn start(&self, name: &'static str, able: bool) -> Node {
        let sample = Settings { node: name, coordinator: name, hypervisor: able, keepalive_interval_s: 5 };
        let config = config(self.dir.path(), &sample);
        let (store, hypervisor) = (self.tree.client(), FakeHypervisor::new());
        let parts = Dependencies {
            store: store.clone(),
            hypervisor: able.then(|| hypervisor.clone() as Arc<dyn Hypervisor>),
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
            power: self.power.clone(),
            ceph: None,
            osds: None,
            storage: Arc::new(NoStorage),
            servers: Arc::new(pvc_store::servers::FakeServers::default()),
            watchdog: None,
            metrics: None,
            boot_note: Arc::new(FakeNote::default()),
            machine: Arc::new(FakeMachine::default()),
            process: Owner { boot: name.into(), ..ownership::this_process(name.into()).unwrap() },
            notify: Notify::default(),
            lifeline: pvc_process::Place::here(),
        };
        let (stopper, stop) = Stop::new();
        let daemon = pvc_process::spawn(async move { pvcd::run(&config, parts, stop).await });
        Node { store, hypervisor, daemon, stopper }
    }

    fn get(&self, path: &str) -> String {
        let data = self.tree.dump().get(path).cloned().unwrap_or_default();
        String::from_utf8(data).unwrap()
    }

    async fn write(&self, path: &str, text: &str) {
        let op = Op::Set { path: path.into(), data: text.into(), version: None };
        self.eye.commit(Transaction { ops: vec![op] }).await.unwrap();
    }

    async fn until(&self, what: &str, within_s: u64, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(within_s);
        while !done(self) {
            assert!(Instant::now() < deadline, "not within {within_s} s: {what}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn run_vms_on(&self, node: &str) {
        self.desired_vms_on(node).await;
        self.until("its VMs run", 30, |c| (1..=VMS).all(|n| c.runs(node, n))).await;
    }

    async fn desired_vms_on(&self, node: &str) {
        for n in 1..=VMS {
            let xml = format!(
                "<domain type='qemu'><name>vm{n}</name><uuid>{}</uuid><memory unit='GiB'>1</memory><vcpu>1</vcpu>\
                 <os><type>hvm</type></os><devices/></domain>",
                id(n)
            );
            let (name, node) = (format!("vm{n}").parse().unwrap(), node.parse().unwrap());
            let define = VmChange::Define { id: id(n), name, node, xml, rbd_images: vec![] };
            schema::vm::apply(&*self.eye, &define).await.unwrap();
            let set = vec![VmSet::State(VmState::Start)];
            let start = VmChange::Update { id: id(n), expect: vec![], set };
            schema::vm::apply(&*self.eye, &start).await.unwrap();
        }
    }

    fn runs(&self, node: &str, n: u8) -> bool {
        self.nodes[node].hypervisor.running().contains(&id(n))
    }

    /// Whether somebody has switched a machine. That its BMC is asked how it is switches nothing.
    fn is_touched(&self, node: &str) -> bool {
        self.power.calls(&bmc(node)).iter().any(|call| *call != Call::Status)
    }

    /// As if its plug were pulled.
    fn kill(&self, node: &str) {
        let killed = &self.nodes[node];
        killed.daemon.abort();
        killed.store.suspend();
        killed.store.expire();
        self.power.plug(&bmc(node), false);
    }
}

#[tokio::test(start_paused = true)]
async fn the_vms_of_a_killed_node_run_on_the_others_within_31_s_by_the_default_timing() {
    let cluster = Cluster::new().await;
    cluster.run_vms_on("node3").await;
    // Between two keepalives, wherever that is.
    sleep(Duration::from_millis(12_345)).await;
    cluster.kill("node3");
    let killed = Instant::now();
    let elsewhere = |c: &Cluster, n| usize::from(c.runs("node1", n)) + usize::from(c.runs("node2", n));
    cluster.until("they run elsewhere", 60, |c| (1..=VMS).all(|n| elsewhere(c, n) == 1)).await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(31), "took {took:?}");
    assert!(took > Duration::from_secs(24), "a node is given its six keepalives: {took:?}");
    cluster.until("the fence is over", 60, |c| !c.tree.dump().contains_key("/pvc/fence/node3")).await;
    assert_eq!(cluster.get("/nodes/node3/daemonstate"), "dead");
    assert_eq!(cluster.get("/nodes/node3/domainstate"), "flushed");
    assert!(!cluster.power.calls(&bmc("node3")).contains(&Call::Off), "it was off already");
    let shared = (1..=VMS).filter(|n| cluster.runs("node1", *n)).count();
    assert_eq!(shared, usize::from(VMS) / 2, "the others share them");
    for other in ["node1", "node2"] {
        assert!(!cluster.is_touched(other), "{other} was touched");
        assert_eq!(cluster.get(&format!("/nodes/{other}/daemonstate")), "run");
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_stops_in_order_is_not_fenced_and_its_guests_stay() {
    let cluster = Cluster::new().await;
    cluster.run_vms_on("node3").await;
    cluster.nodes["node3"].stopper.stop();
    sleep(Duration::from_mins(10)).await;
    assert_eq!(cluster.get("/nodes/node3/daemonstate"), "stop");
    assert!(!cluster.is_touched("node3"));
    assert!((1..=VMS).all(|n| cluster.runs("node3", n)));
}

#[tokio::test(start_paused = true)]
async fn in_maintenance_nobody_is_fenced_and_afterwards_who_is_still_silent_is() {
    let cluster = Cluster::new().await;
    cluster.run_vms_on("node3").await;
    schema::maintenance::set(&*cluster.eye, true).await.unwrap();
    cluster.kill("node3");
    sleep(Duration::from_mins(10)).await;
    assert!(!cluster.is_touched("node3"));
    schema::maintenance::set(&*cluster.eye, false).await.unwrap();
    cluster
        .until("they run elsewhere", 10, |c| (1..=VMS).all(|n| c.runs("node1", n) || c.runs("node2", n)))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_nodes_vms_go_where_they_can_be_started() {
    for able in [vec!["node2", "node3"], vec!["node1", "node2", "node3"]] {
        let cluster = Cluster::with_hypervisors(&able).await;
        cluster.run_vms_on("node3").await;
        if able.contains(&"node1") {
            cluster.nodes["node1"].hypervisor.set_reach(Reach::Down);
            cluster.until("node1 says so", 1, |c| c.get("/nodes/node1/hypervisor").contains("libvirt")).await;
        } else {
            assert!(cluster.get("/nodes/node1/hypervisor").contains("enable_hypervisor is False"));
        }
        cluster.kill("node3");
        cluster.until("they run on node2", 60, |c| (1..=VMS).all(|n| c.runs("node2", n))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_shall_run_where_nothing_can_be_started_runs_elsewhere_and_finds_home() {
    for able in [vec!["node2"], vec!["node1", "node2"]] {
        let cluster = Cluster::with_hypervisors(&able).await;
        if able.contains(&"node1") {
            cluster.nodes["node1"].hypervisor.set_reach(Reach::Down);
        }
        cluster.desired_vms_on("node1").await;
        cluster.until("they run on node2", 40, |c| (1..=VMS).all(|n| c.runs("node2", n))).await;
        for n in 1..=VMS {
            assert_eq!(cluster.get(&format!("/domains/{}/lastnode", id(n))), "node1");
        }
        cluster.nodes["node1"].hypervisor.set_reach(Reach::Up);
        sleep(Duration::from_mins(2)).await;
        assert!((1..=VMS).all(|n| cluster.runs("node2", n)));
        let is = cluster.get("/nodes/node1/hypervisor");
        assert_eq!(is.is_empty(), able.contains(&"node1"), "{is:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_libvirt_that_starts_over_moves_nothing_and_what_it_may_execute_is_never_moved() {
    let cluster = Cluster::new().await;
    cluster.run_vms_on("node1").await;
    let state = format!("/domains/{}/state", id(1));
    cluster.write(&state, "stop").await;
    cluster.until("it is off", 10, |c| !c.runs("node1", 1)).await;
    cluster.nodes["node1"].hypervisor.set_reach(Reach::Down);
    cluster.write(&state, "start").await;
    sleep(Duration::from_secs(20)).await;
    cluster.nodes["node1"].hypervisor.set_reach(Reach::Up);
    cluster.until("it runs again", 10, |c| c.runs("node1", 1)).await;
    cluster.nodes["node1"].hypervisor.set_reach(Reach::Down);
    sleep(Duration::from_mins(10)).await;
    assert!((1..=VMS).all(|n| cluster.runs("node1", n)));
    for n in 1..=VMS {
        assert_eq!(cluster.get(&format!("/domains/{}/node", id(n))), "node1");
    }
}
