//! A cluster of machines with power buttons: fencing is the real one, the rest of each node the least that fencing is seen by.
//!
//! A machine's VMs run as long as it has power, whatever its daemon does. At every start of a VM it is checked that no other
//! machine with power runs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use pvc_core::model::{
    Claim, ClusterView, DaemonMode, DaemonState, DomainState, Fence, NodeReport, StaticData, Vm, VmChange,
    VmId, VmKey, VmSet, VmState,
};
use pvc_host::{
    ceph::{Ceph, fake::FakeCeph},
    machine::FakeMachine,
    power::fake::FakePower,
    storage_fence::{CephFence, NoStorage, StorageFence},
};
use pvc_store::{
    Store, Transaction,
    memory::{MemoryStore, MemoryTree},
    mirror::Mirror,
    schema::{self, node},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use super::super::*;

pub(super) const SETTINGS: Settings = Settings {
    keepalive: Duration::from_secs(5),
    fence_intervals: 6,
    successful: Action::Migrate,
    failed: Action::Nothing,
};

/// From power on to the daemon's start.
pub(super) const BOOT: Duration = Duration::from_secs(40);

pub(super) fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

pub(super) fn id(n: u8) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
}

/// Which VMs run where, and how often each was started.
#[derive(Default)]
struct Runs {
    by_node: BTreeMap<NodeName, BTreeSet<VmId>>,
    starts: BTreeMap<VmId, u32>,
    /// What must never be.
    twice: Option<String>,
}

/// Everything that all machines share.
struct Shared {
    power: Arc<FakePower>,
    runs: Mutex<Runs>,
    settings: Settings,
    /// Whose images are where; only these nodes use it.
    ceph: Arc<FakeCeph>,
    able: BTreeSet<NodeName>,
}

/// What a machine with power does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Software {
    Works,
    /// Nothing is executed but guests; the connection to the store is dead.
    Hangs,
}

pub(super) struct Machine {
    pub(super) name: NodeName,
    pub(super) store: Arc<MemoryStore>,
    software: Arc<watch::Sender<Software>>,
    /// Counts the restarts of its fencing.
    fencing: watch::Sender<u64>,
    life: JoinHandle<()>,
}

pub(super) struct World {
    pub(super) tree: MemoryTree,
    pub(super) eye: Arc<MemoryStore>,
    pub(super) power: Arc<FakePower>,
    pub(super) ceph: Arc<FakeCeph>,
    pub(super) machines: Vec<Machine>,
    shared: Arc<Shared>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.machines.iter().for_each(|machine| machine.life.abort());
    }
}

pub(super) fn bmc(name: &NodeName) -> String {
    format!("{name}-lom")
}

impl World {
    /// Coordinators with these names, up and ready for VMs.
    pub(super) async fn new(names: &[&str], settings: Settings) -> Self {
        Self::with_storage(names, settings, &[]).await
    }

    /// Of which some manage storage.
    pub(super) async fn with_storage(names: &[&str], settings: Settings, able: &[&str]) -> Self {
        let tree = MemoryTree::new();
        let eye = tree.client();
        schema::root::init(&*eye).await.unwrap();
        let power = FakePower::new();
        let ceph = FakeCeph::new();
        let shared = Arc::new(Shared {
            power: Arc::clone(&power),
            runs: Mutex::default(),
            settings,
            ceph: Arc::clone(&ceph),
            able: able.iter().map(|node| name(node)).collect(),
        });
        let machines = names.iter().map(|n| Machine::start(name(n), tree.client(), &shared)).collect();
        let world = Self { tree, eye, power, ceph, machines, shared };
        for machine in &world.machines {
            world
                .until("all run", 10, async |w| w.state(&machine.name).await == Some(DaemonState::Run))
                .await;
            let node = world.node(&machine.name).await;
            let ready = node::set_domain_state(&node.name, DomainState::Ready, node.domain_state.version);
            world.eye.commit(ready).await.unwrap();
        }
        world
    }

    pub(super) fn machine(&self, node: &str) -> &Machine {
        self.machines.iter().find(|m| m.name.as_str() == node).unwrap()
    }

    /// A keepalive of that node arrives, of which nobody knows when it was sent.
    pub(super) async fn last_word(&self, node: &str) {
        let running = self.shared.runs.lock().unwrap().by_node.get(&name(node)).cloned().unwrap_or_default();
        let report = NodeReport { running: running.into_iter().collect(), ..NodeReport::default() };
        self.eye.commit(node::report(&name(node), &report, None)).await.unwrap();
    }

    pub(super) async fn node(&self, node: &NodeName) -> pvc_core::model::Node {
        node::read(&*self.eye, node).await.unwrap().unwrap()
    }

    async fn state(&self, node: &NodeName) -> Option<DaemonState> {
        Some(node::read(&*self.eye, node).await.unwrap()?.daemon_state.value)
    }

    pub(super) async fn fence(&self, node: &str) -> Option<Fence> {
        let entry = schema::fence::read(&*self.eye, &name(node)).await.unwrap()?;
        entry.good().cloned()
    }

    /// VMs of 64 MiB that run on a node.
    pub(super) async fn running(&self, node: &str, ids: std::ops::Range<u8>) {
        for n in ids.clone() {
            let xml = format!(
                "<domain type='qemu'><name>vm{n}</name><uuid>{}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
                 <os><type>hvm</type></os><devices/></domain>",
                id(n)
            );
            let vm_name = format!("vm{n}").parse().unwrap();
            let define =
                VmChange::Define { id: id(n), name: vm_name, node: name(node), xml, rbd_images: vec![] };
            schema::vm::apply(&*self.eye, &define).await.unwrap();
            self.set(n, vec![VmSet::State(VmState::Start)]).await;
        }
        self.until("they run", 10, async |w| ids.clone().all(|n| w.runs_on(n) == [name(node)])).await;
    }

    pub(super) async fn set(&self, n: u8, set: Vec<VmSet>) {
        let change = VmChange::Update { id: id(n), expect: vec![], set };
        schema::vm::apply(&*self.eye, &change).await.unwrap();
    }

    pub(super) async fn vm(&self, n: u8) -> Vm {
        schema::vm::read(&*self.eye, id(n)).await.unwrap().unwrap().good().unwrap().clone()
    }

    /// The machines that execute a VM.
    pub(super) fn runs_on(&self, n: u8) -> Vec<NodeName> {
        let runs = self.shared.runs.lock().unwrap();
        runs.by_node.iter().filter(|(_, vms)| vms.contains(&id(n))).map(|(node, _)| node.clone()).collect()
    }

    /// Somebody starts a VM on a machine, whatever its daemon does.
    pub(super) fn start_by_hand(&self, node: &str, n: u8) {
        self.shared.start(&name(node), id(n));
    }

    pub(super) fn starts(&self, n: u8) -> u32 {
        self.shared.runs.lock().unwrap().starts[&id(n)]
    }

    /// Waits, and all the while no VM starts while another machine executes it.
    pub(super) async fn until(&self, what: &str, within_s: u64, mut done: impl AsyncFnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(within_s);
        while !done(self).await {
            assert_eq!(self.shared.runs.lock().unwrap().twice, None);
            assert!(Instant::now() < deadline, "not within {within_s} s: {what}");
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.shared.runs.lock().unwrap().twice, None);
    }
}

impl Machine {
    fn start(name: NodeName, store: Arc<MemoryStore>, shared: &Arc<Shared>) -> Self {
        let software = Arc::new(watch::Sender::new(Software::Works));
        let (fencing, restarts) = watch::channel(0);
        let powered = shared.power.add(&bmc(&name), "admin", "labpass");
        let life = live(
            name.clone(),
            Arc::clone(&store),
            Arc::clone(shared),
            powered,
            Arc::clone(&software),
            restarts,
        );
        Self { name, store, software, fencing, life: pvc_process::spawn(life) }
    }

    /// Everything hangs but its guests.
    pub(super) fn hang(&self) {
        self.software.send_replace(Software::Hangs);
        self.store.suspend();
    }

    /// It goes on as if nothing had been.
    pub(super) fn wake(&self) {
        self.store.resume();
        self.software.send_replace(Software::Works);
    }

    /// Its daemon's fencing dies at whatever step with its session, and starts anew.
    pub(super) fn restart_fencing(&self) {
        self.fencing.send_modify(|n| *n += 1);
        self.store.expire();
    }
}

/// A machine's life through all its boots.
async fn live(
    name: NodeName,
    store: Arc<MemoryStore>,
    shared: Arc<Shared>,
    mut powered: watch::Receiver<Option<u64>>,
    software: Arc<watch::Sender<Software>>,
    restarts: watch::Receiver<u64>,
) {
    let mut boot = Duration::ZERO;
    loop {
        powered.wait_for(Option::is_some).await.unwrap();
        let life = *powered.borrow_and_update();
        tokio::select! {
            biased;
            () = async { sleep(boot).await; daemon(&name, &store, &shared, software.subscribe(), &restarts).await } => {}
            _ = powered.wait_for(|now| *now != life) => {}
        }
        shared.runs.lock().unwrap().by_node.remove(&name);
        software.send_replace(Software::Works);
        // Its session ends on the servers, and the machine that boots has a new one.
        store.expire();
        store.resume();
        boot = BOOT;
    }
}

/// The daemon, while the machine has power.
async fn daemon(
    name: &NodeName,
    store: &Arc<MemoryStore>,
    shared: &Shared,
    mut software: watch::Receiver<Software>,
    restarts: &watch::Receiver<u64>,
) {
    let registration = node::Registration {
        name: name.clone(),
        mode: DaemonMode::Coordinator,
        static_data: "8 6.1.0 GNU/Linux x86_64".parse::<StaticData>().unwrap(),
        boot: "boot".into(),
        keepalive_interval: std::time::Duration::from_secs(5),
        vtep: None,
        storage: shared.able.contains(name),
        ipmi: node::Ipmi { hostname: bmc(name), username: "admin".into(), password: "labpass".into() },
    };
    while node::register(&**store, &registration).await.is_err() {
        sleep(Duration::from_secs(1)).await;
    }
    let mirror = Mirror::start(Arc::clone(store) as Arc<dyn Store>);
    mirror.ready().await;
    loop {
        tokio::select! {
            biased;
            () = work(name, store, shared, &mirror, restarts.clone()) => {}
            _ = software.wait_for(|now| *now == Software::Hangs) => {}
        }
        software.wait_for(|now| *now == Software::Works).await.unwrap();
    }
}

async fn work(
    name: &NodeName,
    store: &Arc<MemoryStore>,
    shared: &Shared,
    mirror: &Mirror,
    mut restarts: watch::Receiver<u64>,
) {
    let (taken, write_streak) = watch::channel(None);
    let fencing = || {
        Fencing::start(Dependencies {
            cluster: Cluster::new(
                name.clone(),
                Arc::clone(store) as Arc<dyn Store>,
                mirror.clone(),
                Arc::new(FakeMachine::default()),
            ),
            write_streak: write_streak.clone(),
            power: Arc::clone(&shared.power) as Arc<dyn Power>,
            storage: if shared.able.contains(name) {
                Arc::new(CephFence::new(Arc::clone(&shared.ceph) as Arc<dyn Ceph>, || 0))
                    as Arc<dyn StorageFence>
            } else {
                Arc::new(NoStorage)
            },
            servers: Arc::new(pvc_store::servers::FakeServers::default()),
            settings: shared.settings,
            selector: Selector::Mem,
        })
    };
    let mut running = fencing();
    let mut ticks = interval(Duration::from_millis(200));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said: Option<(Instant, BTreeSet<VmId>)> = None;
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {}
            _ = restarts.changed() => {
                drop(running);
                running = fencing();
                continue;
            }
        }
        if !mirror.synced() {
            continue;
        }
        let view = mirror.view();
        for vm in view.good_vms() {
            tend(name, store, shared, vm).await;
        }
        let _ = mirror.caught_up(Duration::from_secs(5)).await;
        let vms = shared.runs.lock().unwrap().by_node.get(name).cloned().unwrap_or_default();
        let due =
            said.as_ref().is_none_or(|(at, last)| at.elapsed() >= shared.settings.keepalive || *last != vms);
        let sent = Instant::now();
        if due && store.commit(keepalive(name, &vms, &view)).await.is_ok() {
            said = Some((Instant::now(), vms));
            taken.send_modify(|taken| {
                *taken = Some(WriteStreak::go_on(*taken, sent, shared.settings.keepalive));
            });
        }
    }
}

fn keepalive(name: &NodeName, vms: &BTreeSet<VmId>, view: &ClusterView) -> Transaction {
    let report = NodeReport {
        mem_total_mib: 1024,
        mem_free_mib: 1024,
        domains_count: vms.len() as u64,
        running: vms.iter().copied().collect(),
        ..NodeReport::default()
    };
    let mut txn = node::report(name, &report, None);
    if view.node(name).is_none_or(|me| me.daemon_state.value != DaemonState::Run) {
        txn.ops.extend(node::set_daemon_state(name, DaemonState::Run).ops);
    }
    txn
}

/// The rules of claims, in the fewest words.
async fn tend(me: &NodeName, store: &Arc<MemoryStore>, shared: &Shared, vm: &Vm) {
    let runs = shared.runs.lock().unwrap().by_node.get(me).is_some_and(|vms| vms.contains(&vm.id));
    let claim = &vm.claim.value;
    if runs && !claim.names(me) {
        shared.runs.lock().unwrap().by_node.get_mut(me).unwrap().remove(&vm.id);
    }
    let mine = vm.node.value == *me && vm.state.value == VmState::Start;
    if !runs && mine && (claim.is_empty() || claim.is_only(me)) {
        let decided_from = [VmKey::State, VmKey::Node, VmKey::Claim];
        let change = VmChange::update(vm, &decided_from, vec![VmSet::Claim(Claim::only(me))]);
        if schema::vm::apply(&**store, &change).await.is_ok() {
            shared.start(me, vm.id);
        }
    }
}

impl Shared {
    fn start(&self, me: &NodeName, vm: VmId) {
        let mut runs = self.runs.lock().unwrap();
        let mut twice = None;
        for (other, vms) in &runs.by_node {
            if other != me && vms.contains(&vm) && self.power.is_on(&bmc(other)) {
                twice = Some(format!("{vm} starts on {me} and runs on {other}"));
            }
        }
        runs.twice = runs.twice.take().or(twice);
        runs.by_node.entry(me.clone()).or_default().insert(vm);
        *runs.starts.entry(vm).or_default() += 1;
    }
}
