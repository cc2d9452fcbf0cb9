//! Flushes with the VMs' own reconcilers and hypervisors that migrate, on a paused clock.

use pvc_host::hypervisor::{
    Hypervisor,
    fake::{Behaviour, FakeFabric, FakeHypervisor, Journey, Outcome},
};

use super::*;
use crate::reconcile::vm::{self, Peers, Vms, tests::connect};

const VMS: u8 = 6;
const COPYING: Duration = Duration::from_secs(2);

struct Node {
    name: NodeName,
    store: Arc<MemoryStore>,
    hypervisor: Arc<FakeHypervisor>,
    daemon: Option<(Vms, Flush)>,
}

/// Nodes `a`, `b` and `c`; [`VMS`] guests run on `a`, and take [`COPYING`] to migrate from anywhere.
struct Whole {
    operator: Arc<MemoryStore>,
    nodes: Vec<Node>,
    fabric: Arc<FakeFabric>,
}

impl Whole {
    async fn new() -> Self {
        let tree = MemoryTree::new();
        let operator = tree.client();
        schema::root::init(&*operator).await.unwrap();
        let fabric = FakeFabric::new();
        let mut nodes = Vec::new();
        for node in ["a", "b", "c"].map(name) {
            register(&operator, &node, 10_000).await;
            let hypervisor = FakeHypervisor::new();
            fabric.join(&format!("{node}.cluster"), &hypervisor);
            let store = tree.client();
            connect(&store, &node).await;
            nodes.push(Node { name: node, store, hypervisor, daemon: None });
        }
        let mut whole = Self { operator, nodes, fabric };
        (0..3).for_each(|i| whole.start(i));
        for n in 0..VMS {
            let journey = Journey { copying: Some(COPYING), ..Journey::default() };
            whole.travel(n, &journey);
            define(&whole.operator, n).await;
            let set = vec![VmSet::State(VmState::Start)];
            let start = VmChange::Update { id: id(n), expect: vec![], set };
            schema::vm::apply(&*whole.operator, &start).await.unwrap();
        }
        whole.until("all run", 10, |w| w.on(0) == usize::from(VMS)).await;
        whole
    }

    /// How a VM's migrations from any node go.
    fn travel(&self, n: u8, journey: &Journey) {
        for node in &self.nodes {
            node.hypervisor.behave(id(n), Behaviour { journey: journey.clone(), ..Behaviour::default() });
        }
    }

    fn start(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        let store = Arc::clone(&node.store) as Arc<dyn Store>;
        let mirror = Mirror::start(Arc::clone(&store));
        let cluster = Cluster::new(node.name.clone(), store, mirror, Arc::new(FakeMachine::default()));
        let vms = Vms::start(vm::Dependencies {
            cluster: cluster.clone(),
            peers: Peers { domain: Some("cluster".into()) },
            hypervisor: Arc::clone(&node.hypervisor) as Arc<dyn Hypervisor>,
            storage: None,
            selector: Selector::Vms,
            consoles: None,
        });
        let flush = Flush::start(Dependencies {
            cluster,
            active: Some(vms.active()),
            ability: Ability::new(Some(vms.trouble()), None),
            selector: Selector::Vms,
            limits: Limits { outgoing: 2, incoming: 2 },
            keepalive: Duration::from_hours(1),
        });
        node.daemon = Some((vms, flush));
    }

    fn on(&self, i: usize) -> usize {
        self.nodes[i].hypervisor.executing().len()
    }

    async fn domain_state(&self, i: usize) -> DomainState {
        let node = schema::node::read(&*self.operator, &self.nodes[i].name).await.unwrap().unwrap();
        node.domain_state.value
    }

    async fn ask_for(&self, i: usize, desired: DomainState) {
        let desired = schema::node::set_domain_state(&self.nodes[i].name, desired, None);
        self.operator.commit(desired).await.unwrap();
    }

    /// Waits, and all the while no guest executes twice.
    async fn until(&self, what: &str, within_s: u64, done: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < Duration::from_secs(within_s), "not within {within_s} s: {what}");
            self.moment().await;
        }
    }

    async fn until_answered(&self, i: usize, answer: DomainState, within_s: u64) -> Duration {
        let began = Instant::now();
        while self.domain_state(i).await != answer {
            assert!(began.elapsed() < Duration::from_secs(within_s), "not within {within_s} s: {answer}");
            self.moment().await;
        }
        began.elapsed()
    }

    async fn moment(&self) {
        sleep(Duration::from_millis(20)).await;
        let executing: Vec<VmId> = self.nodes.iter().flat_map(|n| n.hypervisor.executing()).collect();
        let once: BTreeSet<VmId> = executing.iter().copied().collect();
        assert_eq!(executing.len(), once.len(), "a guest executes twice");
    }

    /// No guest was started again, powered off or asked to go.
    fn all_lived(&self) {
        let counts: Vec<_> = self.nodes.iter().map(|n| n.hypervisor.counts()).collect();
        let started: u64 = counts.iter().map(|c| c.start).sum();
        assert_eq!(started, u64::from(VMS), "{counts:?}");
        assert!(counts.iter().all(|c| c.ask_to_shut_down == 0), "{counts:?}");
        let executing: usize = (0..3).map(|i| self.on(i)).sum();
        assert_eq!(executing, usize::from(VMS));
    }
}

#[tokio::test(start_paused = true)]
async fn guests_live_through_a_flush_and_an_unflush() {
    let w = Whole::new().await;
    w.ask_for(0, DomainState::Flush).await;
    let took = w.until_answered(0, DomainState::Flushed, 60).await;
    assert!(took < COPYING * u32::from(VMS), "{took:?}: two at a time");
    assert_eq!((w.on(0), w.on(1), w.on(2)), (0, 3, 3));
    w.ask_for(0, DomainState::Unflush).await;
    w.until_answered(0, DomainState::Ready, 60).await;
    assert_eq!(w.on(0), usize::from(VMS));
    w.all_lived();
}

#[tokio::test(start_paused = true)]
async fn guests_live_through_an_operator_who_changes_his_mind_every_few_seconds() {
    let w = Whole::new().await;
    for pause_ms in [500, 2500, 1900, 2100, 3300, 700] {
        for desired in [DomainState::Flush, DomainState::Unflush] {
            w.ask_for(0, desired).await;
            for _ in 0..pause_ms / 20 {
                w.moment().await;
            }
        }
    }
    w.until_answered(0, DomainState::Ready, 120).await;
    w.until("all are at home", 5, |w| w.on(0) == usize::from(VMS)).await;
    w.all_lived();
}

#[tokio::test(start_paused = true)]
async fn guests_live_through_the_death_of_the_flushing_daemon() {
    let mut w = Whole::new().await;
    w.ask_for(0, DomainState::Flush).await;
    w.until("some have left", 30, |w| w.on(0) <= 4).await;
    w.nodes[0].daemon = None;
    for _ in 0..500 {
        w.moment().await;
    }
    w.start(0);
    w.until_answered(0, DomainState::Flushed, 60).await;
    assert_eq!(w.on(0), 0);
    w.all_lived();
}

#[tokio::test(start_paused = true)]
async fn guests_go_elsewhere_when_a_target_cannot_be_reached() {
    let w = Whole::new().await;
    w.fabric.cut("a.cluster", "b.cluster");
    w.ask_for(0, DomainState::Flush).await;
    w.until_answered(0, DomainState::Flushed, 600).await;
    assert_eq!((w.on(0), w.on(1), w.on(2)), (0, 0, usize::from(VMS)));
    w.all_lived();
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_cannot_live_is_moved_by_a_shutdown_and_the_flush_ends() {
    let w = Whole::new().await;
    let outcome = Outcome::Refused("unsafe migration: migration without shared storage is unsafe".into());
    w.travel(0, &Journey { outcome, ..Journey::default() });
    w.ask_for(0, DomainState::Flush).await;
    w.until_answered(0, DomainState::Flushed, 600).await;
    w.until("it runs elsewhere", 10, |w| w.on(1) + w.on(2) == usize::from(VMS)).await;
    assert_eq!(w.on(0), 0);
}
