//! VMs through whole reconcilers, over the fake store and fake hypervisors, on a paused clock.

use pvc_core::model::{Claim, NodeName, Suspension, Vm, VmChange, VmId, VmName, VmSet, VmState};
use pvc_host::{
    ceph::{Ceph, fake::FakeCeph},
    hypervisor::{
        Activity, Seen,
        fake::{Answer, Behaviour, FakeFabric, FakeHypervisor, Outcome, PowerButton, Reach},
    },
    machine::FakeMachine,
    storage_fence::CephFence,
};
use pvc_store::{
    Store,
    memory::{MemoryStore, MemoryTree},
    mirror::Mirror,
    schema,
};
use tempfile::TempDir;
use tokio::time::sleep;

use super::*;
use crate::console::{Consoles, Rates};

mod claims;
mod halted;
mod migration;
mod old_clients;
mod outages;
mod starts;
mod storage;

/// A cluster of nodes `a` and `b`, and an operator.
struct World {
    operator: Arc<MemoryStore>,
    fabric: Arc<FakeFabric>,
    nodes: Vec<TestNode>,
    _logs: TempDir,
}

struct TestNode {
    name: NodeName,
    store: Arc<MemoryStore>,
    hypervisor: Arc<FakeHypervisor>,
    vms: Option<Vms>,
    consoles: std::path::PathBuf,
    ceph: Arc<FakeCeph>,
    storage: bool,
}

impl TestNode {
    fn start(&mut self) {
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
        let consoles = ConsoleLogs::start(
            Arc::clone(&store),
            &Consoles {
                directory: self.consoles.clone(),
                lines: 10,
                rates: Rates { vm: 65_536, node: 262_144 },
            },
        )
        .unwrap();
        let mirror = Mirror::start(Arc::clone(&store));
        self.vms = Some(Vms::start(Dependencies {
            cluster: Cluster::new(self.name.clone(), store, mirror, Arc::new(FakeMachine::default())),
            peers: Peers { domain: Some("cluster".into()) },
            hypervisor: Arc::clone(&self.hypervisor) as Arc<dyn Hypervisor>,
            storage: self.storage.then(|| {
                Arc::new(CephFence::new(Arc::clone(&self.ceph) as Arc<dyn Ceph>, || 0))
                    as Arc<dyn StorageFence>
            }),
            selector: Selector::Mem,
            consoles: Some(Arc::new(consoles)),
        }));
    }

    /// As kill -9.
    fn kill(&mut self) {
        self.vms = None;
    }
}

fn id(n: u8) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
}

fn name(n: u8) -> VmName {
    format!("vm{n}").parse().unwrap()
}

fn xml(n: u8) -> String {
    format!(
        "<domain type='qemu'><name>vm{n}</name><uuid>{}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type>hvm</type></os><devices/></domain>",
        id(n)
    )
}

/// A node that takes VMs, as far as its keys say.
pub(in crate::reconcile) async fn register(store: &MemoryStore, name: &NodeName) {
    use pvc_core::model::{DaemonMode, DaemonState, DomainState};
    use schema::node::{Ipmi, Registration, set_daemon_state, set_domain_state};
    let registration = Registration {
        name: name.clone(),
        mode: DaemonMode::Coordinator,
        static_data: "4 6.1 Linux x86_64".parse().unwrap(),
        boot: "boot".into(),
        keepalive_interval: std::time::Duration::from_secs(5),
        vtep: None,
        storage: true,
        ipmi: Ipmi { hostname: String::new(), username: String::new(), password: String::new() },
    };
    schema::node::register(store, &registration).await.unwrap();
    store.commit(set_daemon_state(name, DaemonState::Run)).await.unwrap();
    store.commit(set_domain_state(name, DomainState::Ready, None)).await.unwrap();
}

/// Its daemon has a session.
pub(in crate::reconcile) async fn connect(store: &MemoryStore, node: &NodeName) {
    let owner = schema::owner::Owner {
        host: node.to_string(),
        boot: "boot".into(),
        pid_namespace: "pid:[1]".into(),
        pid: 1,
        started: 1,
        instance: "instance".into(),
        version: None,
    };
    store.commit(schema::owner::take(node, &owner, None)).await.unwrap();
}

impl World {
    async fn new() -> Self {
        let tree = MemoryTree::new();
        let operator = tree.client();
        schema::root::init(&*operator).await.unwrap();
        let (logs, ceph) = (TempDir::new().unwrap(), FakeCeph::new());
        let nodes = ["a", "b"].map(|node| TestNode {
            name: node.parse().unwrap(),
            store: tree.client(),
            hypervisor: FakeHypervisor::new(),
            vms: None,
            consoles: logs.path().to_owned(),
            ceph: Arc::clone(&ceph),
            storage: true,
        });
        let fabric = FakeFabric::new();
        for node in &nodes {
            fabric.join(&format!("{}.cluster", node.name), &node.hypervisor);
            register(&operator, &node.name).await;
            connect(&node.store, &node.name).await;
        }
        let mut world = Self { operator, fabric, nodes: nodes.into(), _logs: logs };
        world.nodes.iter_mut().for_each(TestNode::start);
        world
    }

    async fn define(&self, n: u8, xml: String) {
        let node = "a".parse().unwrap();
        let define = VmChange::Define { id: id(n), name: name(n), node, xml, rbd_images: vec![] };
        schema::vm::apply(&*self.operator, &define).await.unwrap();
    }

    async fn vm(&self, n: u8) -> Vm {
        schema::vm::read(&*self.operator, id(n)).await.unwrap().unwrap().good().unwrap().clone()
    }

    async fn set(&self, n: u8, set: Vec<VmSet>) {
        schema::vm::apply(&*self.operator, &VmChange::Update { id: id(n), expect: vec![], set })
            .await
            .unwrap();
    }

    async fn ask_for(&self, n: u8, state: VmState) {
        self.set(n, vec![VmSet::State(state)]).await;
    }

    fn runs(&self, node: usize, n: u8) -> bool {
        self.nodes[node].hypervisor.executing().contains(&id(n))
    }

    /// Waits, and all the while no VM runs twice.
    async fn until(&self, what: &str, within_s: u64, mut done: impl AsyncFnMut(&Self) -> bool) {
        let within = Duration::from_secs(within_s);
        let (deadline, pause) = (Instant::now() + within, Duration::from_millis(20).max(within / 5000));
        while !done(self).await {
            assert!(Instant::now() < deadline, "not within {within_s} s: {what}");
            sleep(pause).await;
            for vm in self.nodes[0].hypervisor.executing() {
                assert!(!self.nodes[1].hypervisor.executing().contains(&vm), "{vm} executes twice");
            }
        }
    }

    async fn until_state(&self, n: u8, state: VmState, within_s: u64) {
        let what = format!("vm{n} is answered {state}");
        self.until(&what, within_s, async |w| w.vm(n).await.state.value == state).await;
    }

    /// Defines a VM and has it running on `a`.
    async fn running(&self, n: u8) {
        self.define(n, xml(n)).await;
        self.ask_for(n, VmState::Start).await;
        self.until("it runs", 5, async |w| w.runs(0, n)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_desired_state_to_start_is_claimed_and_done_and_needs_no_explanation() {
    let w = World::new().await;
    w.running(1).await;
    assert!(w.vm(1).await.claim.value.is_only(&w.nodes[0].name));
    assert!(schema::vm::read_explanation(&*w.operator, id(1)).await.unwrap().is_none());
    w.ask_for(1, VmState::Start).await;
    w.ask_for(1, VmState::Stop).await;
    w.until("it is off and free", 5, async |w| !w.runs(0, 1) && w.vm(1).await.claim.value.is_empty()).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 1, "a repeated desired state repeats nothing");
}

#[tokio::test(start_paused = true)]
async fn a_start_right_after_a_stop_is_not_lost() {
    let w = World::new().await;
    w.running(1).await;
    for round in 2..6 {
        w.ask_for(1, VmState::Stop).await;
        sleep(Duration::from_millis(120)).await;
        w.ask_for(1, VmState::Start).await;
        w.until("it runs again", 5, async |w| w.runs(0, 1)).await;
        w.until("it was started anew", 5, async |w| w.nodes[0].hypervisor.counts().start == round).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_ignores_a_shutdown_holds_up_nobody_else_and_is_off_after_90_s() {
    let w = World::new().await;
    w.running(1).await;
    w.define(2, xml(2)).await;
    let asked = Instant::now();
    w.ask_for(1, VmState::Shutdown).await;
    w.ask_for(2, VmState::Start).await;
    w.until("the other one runs", 2, async |w| w.runs(0, 2)).await;
    let explained = schema::vm::read_explanation(&*w.operator, id(1)).await.unwrap().unwrap().unwrap();
    assert!(explained.because.contains("the guest was asked 1 time(s)"), "{explained:?}");
    w.until_state(1, VmState::Stop, 100).await;
    assert_eq!(asked.elapsed().as_secs(), 90);
    assert!(!w.runs(0, 1), "stop is answered only once it is off");
    assert_eq!(w.nodes[0].hypervisor.counts().ask_to_shut_down, 6);
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_answered_when_the_new_instance_runs() {
    let w = World::new().await;
    w.running(1).await;
    let power_button = PowerButton::Obeyed(Duration::from_secs(3));
    w.nodes[0].hypervisor.behave(id(1), Behaviour { power_button, ..Behaviour::default() });
    w.ask_for(1, VmState::Restart).await;
    w.until_state(1, VmState::Start, 10).await;
    assert!(w.runs(0, 1));
    let counts = w.nodes[0].hypervisor.counts();
    assert_eq!((counts.start, counts.ask_to_shut_down, counts.power_off), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_daemon_adopts_what_runs_and_repeats_nothing() {
    let mut w = World::new().await;
    w.running(1).await;
    w.nodes[0].kill();
    // As a client of the 0.5 generation would leave it: no claim at all.
    w.set(1, vec![VmSet::Claim(Claim::none())]).await;
    w.nodes[0].start();
    w.until("it is adopted", 5, async |w| !w.vm(1).await.claim.value.is_empty()).await;
    let counts = w.nodes[0].hypervisor.counts();
    assert_eq!((counts.start, counts.power_off), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_daemon_killed_after_a_restarts_start_answers_and_does_not_restart_again() {
    let mut w = World::new().await;
    w.running(1).await;
    w.nodes[0].hypervisor.behave(
        id(1),
        Behaviour {
            power_button: PowerButton::Obeyed(Duration::ZERO),
            start: Answer { outcome: Outcome::Lost, ..Answer::default() },
            ..Behaviour::default()
        },
    );
    w.ask_for(1, VmState::Restart).await;
    w.until("the new instance runs", 5, async |w| w.nodes[0].hypervisor.counts().start == 2).await;
    w.nodes[0].kill();
    w.nodes[0].start();
    w.until_state(1, VmState::Start, 5).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 2);
}

/// A VM whose start on `a` was given up and will be done ten seconds later.
async fn given_up() -> World {
    let w = World::new().await;
    let start = Answer { after: Duration::from_secs(70), outcome: Outcome::Done };
    w.nodes[0].hypervisor.behave(id(1), Behaviour { start, ..Behaviour::default() });
    w.define(1, xml(1)).await;
    w.ask_for(1, VmState::Start).await;
    w.until("it is being started", 5, async |w| w.nodes[0].hypervisor.counts().start == 1).await;
    w.nodes[0].hypervisor.behave(id(1), Behaviour::default());
    w
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_done_after_its_vm_was_moved_executes_nothing_and_is_undone() {
    let w = given_up().await;
    w.set(1, vec![VmSet::Node("b".parse().unwrap())]).await;
    w.until("it runs where it was moved", 65, async |w| w.runs(1, 1)).await;
    w.until("it is done and undone", 15, async |w| w.nodes[0].hypervisor.counts().power_off == 1).await;
    assert_eq!(w.nodes[0].hypervisor.running(), []);
    assert!(w.runs(1, 1) && w.vm(1).await.claim.value.is_only(&w.nodes[1].name));
    assert_eq!(w.nodes[1].hypervisor.counts().start, 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_done_after_its_daemon_was_killed_is_let_go_by_the_next_one() {
    let mut w = given_up().await;
    w.nodes[0].kill();
    w.until("libvirt does the start", 75, async |w| w.nodes[0].hypervisor.running() == [id(1)]).await;
    assert!(!w.runs(0, 1), "nobody has let it go");
    w.nodes[0].start();
    w.until("it runs", 5, async |w| w.runs(0, 1)).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 1);
}

#[tokio::test(start_paused = true)]
async fn a_vm_moved_without_migration_is_off_here_before_it_starts_there() {
    let w = World::new().await;
    w.running(1).await;
    let power_off = Answer { after: Duration::from_secs(4), ..Answer::default() };
    w.nodes[0].hypervisor.behave(id(1), Behaviour { power_off, ..Behaviour::default() });
    w.set(1, vec![VmSet::Node("b".parse().unwrap())]).await;
    w.until("it runs there", 10, async |w| w.runs(1, 1)).await;
    assert!(w.vm(1).await.claim.value.is_only(&w.nodes[1].name));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_survived_a_fence_is_destroyed_at_once() {
    let mut w = World::new().await;
    w.running(1).await;
    w.nodes[0].kill();
    let peer_state = "b".parse().unwrap();
    // What recovery writes after this node was proven dead, though it was not.
    w.nodes[1].kill();
    w.set(1, vec![VmSet::Node(peer_state), VmSet::Claim(Claim::only(&w.nodes[1].name))]).await;
    w.nodes[0].start();
    w.until("the survivor is gone", 5, async |w| !w.runs(0, 1)).await;
    assert!(w.vm(1).await.claim.value.is_only(&w.nodes[1].name), "the other's claim is not ours to touch");
}

#[tokio::test(start_paused = true)]
async fn what_is_in_no_state_tree_is_left_alone() {
    let w = World::new().await;
    w.running(1).await;
    schema::vm::apply(&*w.operator, &VmChange::Remove { id: id(1), expect: vec![] }).await.unwrap();
    sleep(Duration::from_mins(3)).await;
    assert!(w.runs(0, 1), "the tree may have been lost: that must not end every guest");
}

#[tokio::test(start_paused = true)]
async fn stopping_the_daemon_finishes_what_has_begun_and_touches_nothing_else() {
    let mut w = World::new().await;
    w.running(1).await;
    w.define(2, xml(2)).await;
    let start = Answer { after: Duration::from_secs(1), ..Answer::default() };
    w.nodes[0].hypervisor.behave(id(2), Behaviour { start, ..Behaviour::default() });
    w.ask_for(2, VmState::Start).await;
    w.until("the start has begun", 5, async |w| w.nodes[0].hypervisor.counts().start == 2).await;
    let vms = w.nodes[0].vms.take().unwrap();
    vms.stop(Duration::from_secs(5)).await;
    assert!(w.runs(0, 1) && w.runs(0, 2));
    w.ask_for(1, VmState::Stop).await;
    sleep(Duration::from_secs(5)).await;
    assert!(w.runs(0, 1), "a stopped daemon does nothing");
}

/// What somebody runs by hand.
fn guest(n: u8) -> Seen {
    let name = name(n).to_string();
    Seen { id: id(n), name, activity: Activity::Running, memory_mib: 64, vcpus: 1 }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_runs_when_it_is_defined_is_adopted_and_answered_start_wherever_it_was_defined() {
    let w = World::new().await;
    for (n, node) in [(1, 0), (2, 1)] {
        w.nodes[node].hypervisor.put(guest(n));
        w.define(n, xml(n)).await;
        w.until_state(n, VmState::Start, 5).await;
        let vm = w.vm(n).await;
        let runs_on = &w.nodes[node].name;
        assert!(vm.node.value == *runs_on && vm.claim.value.is_only(runs_on), "{vm:?}");
    }
    sleep(Duration::from_mins(3)).await;
    assert!(w.runs(0, 1) && w.runs(1, 2), "the stop of a definition is no command");

    w.define(3, xml(3)).await;
    w.ask_for(3, VmState::Stop).await;
    w.nodes[0].hypervisor.put(guest(3));
    w.until("a client's stop is one", 5, async |w| !w.runs(0, 3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_an_unusable_definition_touches_no_guest_and_is_answered_with_what_is_wrong() {
    let w = World::new().await;
    w.running(1).await;
    // As `modify -r` of an old client: the definition, then the desired state.
    let unusable = xml(1).replace("<devices/>", "");
    w.set(1, vec![VmSet::Xml(unusable), VmSet::State(VmState::Restart)]).await;
    w.until_state(1, VmState::Start, 5).await;
    let reason = w.vm(1).await.failed_reason.value;
    assert!(reason.contains("not restarted") && reason.contains("<devices> is missing"), "{reason}");
    sleep(Duration::from_mins(3)).await;
    let counts = w.nodes[0].hypervisor.counts();
    assert_eq!((counts.ask_to_shut_down, counts.power_off, counts.start), (0, 0, 1));
    assert_eq!(w.vm(1).await.failed_reason.value, reason, "it is still what an operator has to know");

    w.set(1, vec![VmSet::Xml(xml(1)), VmSet::State(VmState::Restart)]).await;
    w.until("it is restarted", 200, async |w| w.nodes[0].hypervisor.counts().start == 2).await;
    w.until_state(1, VmState::Start, 5).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_suspended_before_the_start_is_ended_or_goes_on_as_the_tree_says() {
    let mut w = World::new().await;
    w.nodes[0].kill();
    let (a, b) = (w.nodes[0].name.clone(), w.nodes[1].name.clone());
    w.nodes[1].kill();
    for n in 1..=4 {
        w.define(n, xml(n)).await;
        w.nodes[0].hypervisor.put(Seen { activity: Activity::Suspended(Suspension::Elsewhere), ..guest(n) });
    }
    let started = |node: &NodeName, claim| {
        vec![VmSet::Node(node.clone()), VmSet::Claim(claim), VmSet::State(VmState::Start)]
    };
    w.set(1, started(&b, Claim::only(&b))).await;
    w.set(2, started(&a, Claim::only(&a))).await;
    w.set(3, started(&b, Claim::only(&b))).await;
    w.set(3, started(&b, Claim::none())).await;
    w.nodes[0].start();
    sleep(Duration::from_secs(10)).await;
    let local_state = w.nodes[0].hypervisor.executing();
    assert_eq!(local_state, [id(2), id(4)], "claimed by b; claimed by a; to run on b; as it was defined");
    assert_eq!(w.nodes[0].hypervisor.running(), local_state);
    assert!(w.vm(1).await.claim.value.is_only(&b));
    assert!(w.vm(3).await.claim.value.is_empty(), "b may start it");
    assert_eq!((w.vm(4).await.state.value, w.vm(4).await.node.value), (VmState::Start, a));
}
