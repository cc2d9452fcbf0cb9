//! Flushes over the fake store on a paused clock. The VMs' own reconcilers are played by [`Guests`], which brings desired states about
//! about VMs as they do, in its own time, and fails when told to.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use pvc_core::{
    model::{
        Claim, DaemonMode, DaemonState, MigrationMethod, NodeReport, StaticData, VmChange, VmKey, VmSet,
        VmState,
    },
    plan::placement::{ClusterCapacity, Size, Sizes},
};
use pvc_host::machine::FakeMachine;
use pvc_store::{
    Store,
    memory::{MemoryStore, MemoryTree},
    mirror::Mirror,
    schema::node::{Ipmi, Registration},
};
use tokio::{task::JoinHandle, time::sleep};

use super::*;

mod whole;

const MIGRATION: Duration = Duration::from_secs(2);
const VM_MIB: u64 = 100;

/// Nodes `a`, `b` and `c`, each with a flush reconciler, guests that obey, and an operator.
struct World {
    tree: MemoryTree,
    operator: Arc<MemoryStore>,
    mirror: Mirror,
    nodes: Vec<(NodeName, Arc<MemoryStore>, Option<Flush>)>,
    guests: Guests,
    keepalive: Duration,
}

fn id(n: u8) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn xml(n: u8) -> String {
    format!(
        "<domain type='qemu'><name>vm{n}</name><uuid>{}</uuid><memory unit='MiB'>{VM_MIB}</memory><vcpu>1</vcpu>\
         <devices/></domain>",
        id(n)
    )
}

/// A node that works, takes VMs and has so much memory, as far as its keys say.
async fn register(store: &MemoryStore, node: &NodeName, mem_total_mib: u64) {
    let registration = Registration {
        name: node.clone(),
        mode: DaemonMode::Coordinator,
        static_data: "8 6.1.0 GNU/Linux x86_64".parse::<StaticData>().unwrap(),
        boot: "boot".into(),
        keepalive_interval: std::time::Duration::from_secs(5),
        vtep: None,
        storage: true,
        ipmi: Ipmi::default(),
    };
    schema::node::register(store, &registration).await.unwrap();
    // It has not said how often it speaks, so the observer's own interval counts.
    let path = format!("{}/keepalive_interval", schema::node::path(node));
    let op = pvc_store::Op::Delete { path, version: None };
    store.commit(pvc_store::Transaction { ops: vec![op] }).await.unwrap();
    let report = NodeReport { mem_total_mib, ..NodeReport::default() };
    let mut ready = schema::node::report(node, &report, None);
    ready.ops.extend(schema::node::set_daemon_state(node, DaemonState::Run).ops);
    ready.ops.extend(schema::node::set_domain_state(node, DomainState::Ready, None).ops);
    store.commit(ready).await.unwrap();
}

/// Defines a VM on `a`.
async fn define(store: &MemoryStore, n: u8) {
    let name = format!("vm{n}").parse().unwrap();
    let define = VmChange::Define { id: id(n), name, node: self::name("a"), xml: xml(n), rbd_images: vec![] };
    schema::vm::apply(store, &define).await.unwrap();
}

/// Carries out the desired state of VMs.
struct Guests {
    failures: Arc<AtomicU32>,
    most_moving: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Guests {
    fn start(store: Arc<MemoryStore>, mirror: Mirror) -> Self {
        let (failures, most_moving) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let shared = (Arc::clone(&failures), Arc::clone(&most_moving));
        let task = pvc_process::spawn(async move {
            let mut arrivals = BTreeMap::<VmId, Instant>::new();
            loop {
                sleep(Duration::from_millis(50)).await;
                let view = mirror.view();
                let leaves = |vm: &&Vm| vm.state.value == VmState::Migrate && !vm.claim.value.is_empty();
                let moving: BTreeSet<VmId> = view.good_vms().filter(leaves).map(|vm| vm.id).collect();
                arrivals.retain(|id, _| moving.contains(id));
                shared.1.fetch_max(u32::try_from(moving.len()).unwrap(), Ordering::Relaxed);
                for vm in view.good_vms() {
                    let arrives = moving
                        .contains(&vm.id)
                        .then(|| *arrivals.entry(vm.id).or_insert(Instant::now() + MIGRATION));
                    if let Some(set) = Self::outcome(vm, arrives, &shared.0) {
                        let change = VmChange::update(vm, &[VmKey::State, VmKey::Node, VmKey::Claim], set);
                        // Somebody was faster: it is looked at again.
                        let _ = schema::vm::apply(&*store, &change).await;
                    }
                }
                let _ = mirror.caught_up(Duration::from_secs(5)).await;
            }
        });
        Self { failures, most_moving, task }
    }

    fn outcome(vm: &Vm, arrives: Option<Instant>, failures: &AtomicU32) -> Option<Vec<VmSet>> {
        let node = &vm.node.value;
        let from = vm.claim.value.iter().next();
        match (vm.state.value, from) {
            (VmState::Migrate, Some(from)) if from != node => {
                if arrives.is_some_and(|at| at > Instant::now()) {
                    return None;
                }
                let fails = failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
                Some(match fails {
                    Ok(_) => vec![
                        VmSet::State(VmState::Start),
                        VmSet::Node(from.clone()),
                        VmSet::FailedReason("no route to host".into()),
                    ],
                    Err(_) => vec![VmSet::State(VmState::Start), VmSet::Claim(Claim::only(node))],
                })
            }
            (VmState::Migrate | VmState::Start, None) => {
                Some(vec![VmSet::State(VmState::Start), VmSet::Claim(Claim::only(node))])
            }
            (VmState::Migrate, Some(_)) => Some(vec![VmSet::State(VmState::Start)]),
            (VmState::Shutdown, _) => {
                let mark = vm.is_shut_down_by_flush().then(|| VmSet::LastNode(vm.last_node.value.clone()));
                let off = [VmSet::State(VmState::Stop), VmSet::Claim(Claim::none())];
                Some(off.into_iter().chain(mark).collect())
            }
            (VmState::Stop, Some(_)) => Some(vec![VmSet::Claim(Claim::none())]),
            _ => None,
        }
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl World {
    /// `vms` on `a`, all running; each node has `memory` MiB and takes VMs.
    async fn new(vms: u8, memory: u64) -> Self {
        let tree = MemoryTree::new();
        let operator = tree.client();
        schema::root::init(&*operator).await.unwrap();
        for node in ["a", "b", "c"].map(name) {
            register(&operator, &node, memory).await;
        }
        for n in 0..vms {
            define(&operator, n).await;
            let set = vec![VmSet::State(VmState::Start), VmSet::Claim(Claim::only(&self::name("a")))];
            schema::vm::apply(&*operator, &VmChange::Update { id: id(n), expect: vec![], set })
                .await
                .unwrap();
        }
        let mirror = Mirror::start(operator.clone());
        mirror.ready().await;
        let nodes = ["a", "b", "c"].map(|n| (name(n), tree.client(), None)).into();
        let guests = Guests::start(tree.client(), mirror.clone());
        // Nobody writes keepalives here, unless it is what a test is about.
        let keepalive = Duration::from_hours(1);
        let mut world = Self { tree, operator, mirror, nodes, guests, keepalive };
        (0..3).for_each(|i| world.start(i));
        world
    }

    fn start(&mut self, i: usize) {
        let (me, store, flush) = &mut self.nodes[i];
        *flush = Some(Flush::start(Dependencies {
            cluster: Cluster::new(
                me.clone(),
                store.clone(),
                Mirror::start(store.clone()),
                Arc::new(FakeMachine::default()),
            ),
            active: None,
            ability: Ability::new(Some(watch::channel(None).1), None),
            selector: Selector::Mem,
            limits: Limits { outgoing: 2, incoming: 2 },
            keepalive: self.keepalive,
        }));
    }

    /// As kill -9.
    fn kill(&mut self, i: usize) {
        self.nodes[i].2 = None;
    }

    async fn ask_for(&self, node: &str, state: DomainState) {
        self.operator.commit(schema::node::set_domain_state(&name(node), state, None)).await.unwrap();
        self.mirror.caught_up(Duration::from_secs(5)).await.unwrap();
    }

    async fn set(&self, n: u8, set: Vec<VmSet>) {
        schema::vm::apply(&*self.operator, &VmChange::Update { id: id(n), expect: vec![], set })
            .await
            .unwrap();
        self.mirror.caught_up(Duration::from_secs(5)).await.unwrap();
    }

    fn vm(&self, n: u8) -> Vm {
        self.mirror.view().vm(id(n)).unwrap().clone()
    }

    fn running_on(&self, node: &str) -> usize {
        let on = |vm: &&Vm| vm.claim.value.names(&name(node));
        self.mirror.view().good_vms().filter(on).count()
    }

    async fn progress(&self, node: &str) -> FlushProgress {
        schema::flush::read(&*self.operator, &name(node)).await.unwrap().unwrap().unwrap()
    }

    /// Waits, and all the while no node's memory is given twice.
    async fn until(&self, what: &str, within_s: u64, done: impl Fn(&Self, &ClusterView) -> bool) -> Duration {
        let begin = Instant::now();
        loop {
            let view = self.mirror.view();
            let size = Size { memory_mib: VM_MIB, vcpus: 1, ..Size::default() };
            let sizes: Sizes = view.good_vms().map(|vm| (vm.id, size)).collect();
            let capacity = ClusterCapacity::count(&view, &sizes, &BTreeSet::new());
            for node in view.all_nodes() {
                let (kept, total) = (capacity.reserved_mib(&node.name), node.report.mem_total_mib);
                assert!(kept <= total, "{}: {kept} MiB are kept of {total}", node.name);
            }
            if done(self, &view) {
                return begin.elapsed();
            }
            assert!(
                begin.elapsed() < Duration::from_secs(within_s),
                "not within {within_s} s: {what}: {view:#?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_answered(&self, node: &str, answer: DomainState, within_s: u64) -> Duration {
        let is = |view: &ClusterView| view.node(&name(node)).unwrap().domain_state.value == answer;
        self.until(&format!("{node} is {answer}"), within_s, |_, view| is(view)).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_empties_the_node_two_at_a_time_and_an_unflush_fills_it_again() {
    let w = World::new(20, 10_000).await;
    w.ask_for("a", DomainState::Flush).await;
    w.until("it is explained", 5, |_, view| view.good_vms().any(|vm| vm.state.value == VmState::Migrate))
        .await;
    sleep(Duration::from_secs(3)).await;
    let said = schema::node::read_explanation(&*w.operator, &name("a")).await.unwrap().unwrap().unwrap();
    assert!(said.because.contains("of 20 VM(s) have left, 2 on their way"), "{said:?}");
    let halfway = w.progress("a").await;
    assert!(halfway.total == 20 && halfway.moving == 2 && (1..20).contains(&halfway.left), "{halfway:?}");

    let took = w.until_answered("a", DomainState::Flushed, 60).await;
    let one_after_another = MIGRATION * 20;
    assert!(took < one_after_another * 6 / 10, "{took:?}");
    assert_eq!(w.guests.most_moving.load(Ordering::Relaxed), 2);
    assert_eq!((w.running_on("a"), w.running_on("b"), w.running_on("c")), (0, 10, 10), "they spread");
    assert!(w.mirror.view().good_vms().all(|vm| vm.last_node.value == Some(name("a"))));
    let end = w.progress("a").await;
    assert_eq!((end.total, end.left, end.moving, end.stuck.len()), (20, 0, 0, 0));

    w.ask_for("a", DomainState::Unflush).await;
    w.until_answered("a", DomainState::Ready, 60).await;
    assert_eq!(w.running_on("a"), 20);
    assert!(w.mirror.view().good_vms().all(|vm| vm.last_node.value.is_none()));
    assert!(schema::node::read_explanation(&*w.operator, &name("a")).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_opposite_desired_state_turns_back_what_is_under_way() {
    let w = World::new(10, 10_000).await;
    w.ask_for("a", DomainState::Flush).await;
    w.until("half have left", 60, |w, _| w.running_on("a") <= 5).await;
    w.ask_for("a", DomainState::Unflush).await;
    w.until_answered("a", DomainState::Ready, 60).await;
    assert_eq!(w.running_on("a"), 10);
    w.ask_for("a", DomainState::Flush).await;
    w.until("some have left", 60, |w, _| w.running_on("a") <= 8).await;
    w.ask_for("a", DomainState::Unflush).await;
    w.until("some are back", 60, |w, _| w.running_on("a") >= 9).await;
    w.ask_for("a", DomainState::Flush).await;
    w.until_answered("a", DomainState::Flushed, 60).await;
    assert_eq!(w.running_on("a"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_starts_in_the_middle_goes_on_and_knows_how_many_there_were() {
    let mut w = World::new(10, 10_000).await;
    w.ask_for("a", DomainState::Flush).await;
    w.until("some have left", 60, |w, _| w.running_on("a") <= 6).await;
    w.kill(0);
    sleep(Duration::from_secs(20)).await;
    let stays = w.running_on("a");
    assert!(stays > 0, "nobody flushes while the daemon is away");
    w.start(0);
    w.until_answered("a", DomainState::Flushed, 60).await;
    assert_eq!((w.running_on("a"), w.progress("a").await.total), (0, 10));
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_flush_at_once_never_count_the_same_memory() {
    let w = World::new(12, 600).await;
    // The first wave fills b as far as it goes; then both of them want to get rid of everything, and only c is left.
    for n in 6..12 {
        w.set(n, vec![VmSet::Node(name("b")), VmSet::Claim(Claim::only(&name("b")))]).await;
    }
    w.ask_for("a", DomainState::Flush).await;
    w.ask_for("b", DomainState::Flush).await;
    w.until_answered("a", DomainState::Flushed, 120).await;
    w.until_answered("b", DomainState::Flushed, 120).await;
    assert_eq!((w.running_on("a"), w.running_on("b"), w.running_on("c")), (0, 0, 6));
    let off: Vec<Vm> = (0..12).map(|n| w.vm(n)).filter(|vm| vm.claim.value.is_empty()).collect();
    assert_eq!(off.len(), 6);
    for vm in &off {
        assert_eq!(vm.state.value, VmState::Stop);
        assert!(vm.failed_reason.value.starts_with("shut down by the flush of "), "{:?}", vm.failed_reason);
    }
    let told = w.progress("a").await.stuck.len() + w.progress("b").await.stuck.len();
    assert_eq!(told, 6, "each is named with its reason");

    w.ask_for("a", DomainState::Unflush).await;
    w.ask_for("b", DomainState::Unflush).await;
    w.until_answered("a", DomainState::Ready, 120).await;
    w.until_answered("b", DomainState::Ready, 120).await;
    w.until("what was shut down runs again", 10, |w, _| (0..12).all(|n| !w.vm(n).claim.value.is_empty()))
        .await;
    assert_eq!((w.running_on("a"), w.running_on("b"), w.running_on("c")), (6, 6, 0));
}

#[tokio::test(start_paused = true)]
async fn failed_migrations_are_tried_again_and_what_never_goes_keeps_running() {
    let w = World::new(2, 10_000).await;
    w.guests.failures.store(3, Ordering::Relaxed);
    w.ask_for("a", DomainState::Flush).await;
    w.until_answered("a", DomainState::Flushed, 120).await;
    assert_eq!(w.running_on("b") + w.running_on("c"), 2, "three failures are borne by two VMs");

    w.ask_for("a", DomainState::Unflush).await;
    w.until_answered("a", DomainState::Ready, 60).await;
    w.guests.failures.store(u32::MAX, Ordering::Relaxed);
    w.ask_for("a", DomainState::Flush).await;
    w.until_answered("a", DomainState::Flushed, 120).await;
    assert_eq!((w.running_on("a"), w.running_on("b"), w.running_on("c")), (2, 0, 0));
    let stuck = w.progress("a").await.stuck;
    assert_eq!(stuck.len(), 2);
    for pvc_core::model::Stuck { reason, .. } in &stuck {
        assert!(
            reason.ends_with("no node took it over, and 3 attempts failed: no route to host"),
            "{reason}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_may_only_live_is_not_shut_down() {
    let w = World::new(1, 10_000).await;
    let path = schema::vm::migration_method_path(id(0));
    let mode = pvc_store::CreateMode::Persistent;
    let create = pvc_store::Op::Create { path, data: b"live".into(), mode };
    w.operator.commit(pvc_store::Transaction { ops: vec![create] }).await.unwrap();
    w.guests.failures.store(u32::MAX, Ordering::Relaxed);
    w.ask_for("a", DomainState::Flush).await;
    w.until_answered("a", DomainState::Flushed, 120).await;
    let vm = w.vm(0);
    assert_eq!((vm.migration_method, vm.state.value), (MigrationMethod::Live, VmState::Start));
    assert_eq!(w.running_on("a"), 1);
    let end = w.progress("a").await;
    assert_eq!(end.left, 1);
    assert!(end.stuck[0].reason.contains("its migration method is live"), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn silent_nodes_get_no_vms() {
    let mut w = World::new(4, 10_000).await;
    w.keepalive = Duration::from_secs(1);
    w.kill(0);
    w.start(0);
    let operator = Arc::clone(&w.operator);
    let keepalives = pvc_process::spawn(async move {
        loop {
            for node in ["a", "c"].map(name) {
                let report = NodeReport { mem_total_mib: 10_000, ..NodeReport::default() };
                operator.commit(schema::node::report(&node, &report, Some(&report))).await.unwrap();
            }
            sleep(Duration::from_secs(1)).await;
        }
    });
    sleep(Duration::from_secs(5)).await;
    w.ask_for("a", DomainState::Flush).await;
    w.until_answered("a", DomainState::Flushed, 60).await;
    assert_eq!((w.running_on("b"), w.running_on("c")), (0, 4));
    keepalives.abort();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_loses_answers_and_goes_away_delays_a_flush_and_no_more() {
    let w = World::new(8, 10_000).await;
    let store = Arc::clone(&w.nodes[0].1);
    w.ask_for("a", DomainState::Flush).await;
    for _ in 0..3 {
        store.lose_answers(1);
        sleep(Duration::from_secs(2)).await;
        store.lose_requests(1);
        sleep(Duration::from_secs(2)).await;
        store.refuse(3);
        sleep(Duration::from_secs(2)).await;
    }
    store.suspend();
    sleep(Duration::from_mins(1)).await;
    store.expire();
    store.resume();
    w.until_answered("a", DomainState::Flushed, 120).await;
    assert_eq!(w.running_on("a"), 0);
    assert!((0..8).all(|n| w.vm(n).state.value == VmState::Start), "none was shut down");
}

#[tokio::test(start_paused = true)]
async fn a_flush_is_answered_once_the_tree_tells_what_is_left() {
    let w = World::new(0, 10_000).await;
    w.nodes[0].1.lose_requests(1);
    w.ask_for("a", DomainState::Flush).await;
    w.until_answered("a", DomainState::Flushed, 60).await;
    assert_eq!(w.progress("a").await.left, 0);
}

#[tokio::test(start_paused = true)]
async fn a_flush_whose_progress_the_store_refuses_ends_all_the_same() {
    let w = World::new(2, 10_000).await;
    w.tree.seal("/pvc/flush/a", true);
    w.ask_for("a", DomainState::Flush).await;
    w.until_answered("a", DomainState::Flushed, 60).await;
    assert_eq!(w.running_on("a"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_newer_command_of_a_client_is_not_overwritten() {
    let w = World::new(6, 10_000).await;
    w.ask_for("a", DomainState::Flush).await;
    w.until("some leave", 10, |_, view| view.good_vms().any(|vm| vm.state.value == VmState::Migrate)).await;
    // Those that have not begun to leave are stopped by an operator; they stay off and at home.
    let mut stopped = Vec::new();
    for n in 0..6 {
        if w.vm(n).state.value == VmState::Start && w.vm(n).node.value == name("a") {
            w.set(n, vec![VmSet::State(VmState::Stop)]).await;
            stopped.push(n);
        }
    }
    w.until_answered("a", DomainState::Flushed, 60).await;
    assert!(!stopped.is_empty());
    for n in stopped {
        let vm = w.vm(n);
        assert_eq!((vm.state.value, vm.node.value.as_str()), (VmState::Stop, "a"), "{n}");
    }
}
