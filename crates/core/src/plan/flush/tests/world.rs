//! A small cluster that brings desired states about in its own time, fails now and then, and has operators who change their minds.

use proptest::prelude::*;

use super::*;
use crate::model::{Claim, Field, Node};

const VMS: u8 = 8;
/// Longer than three attempts of each VM, one after another.
const ENDS_WITHIN_S: u64 = 1000;

/// What an operator, or bad luck, does; each some seconds after the one before.
#[derive(Debug, Clone)]
enum Event {
    Desired(DomainState),
    Vm(u8, VmState),
    MigrateHere(u8),
    NodeState(&'static str, DomainState),
    DaemonRestarts,
    /// The next so many migrations fail.
    Fail(u32),
}

fn event() -> impl Strategy<Value = Event> {
    let desired = prop::sample::select(vec![Flush, Unflush]);
    let desired_of_vm = prop::sample::select(vec![Start, Stop, Shutdown, Restart]);
    let other = prop::sample::select(vec!["b", "c"]);
    let state = prop::sample::select(vec![Ready, Flushed]);
    prop_oneof![
        3 => desired.prop_map(Event::Desired),
        3 => (0..VMS, desired_of_vm).prop_map(|(n, s)| Event::Vm(n, s)),
        1 => (0..VMS).prop_map(Event::MigrateHere),
        1 => (other, state).prop_map(|(n, s)| Event::NodeState(n, s)),
        1 => Just(Event::DaemonRestarts),
        2 => (1..6_u32).prop_map(Event::Fail),
    ]
}

struct World {
    nodes: Vec<Node>,
    vms: Vec<Vm>,
    sizes: Sizes,
    attempts: Attempts,
    /// How many migrations of each VM have failed.
    failed: BTreeMap<VmId, u32>,
    now: u64,
    failures: u32,
    zxid: i64,
    /// What an operator has stopped since anybody wanted it to run.
    stopped: BTreeSet<VmId>,
}

impl World {
    fn new(homes: &[usize], methods: &[MigrationMethod], memory: u64) -> Self {
        let nodes = ["a", "b", "c"].map(|n| {
            let mut node = node(n);
            node.report.mem_total_mib = memory;
            node
        });
        let vms = homes.iter().zip(methods).zip(0..).map(|((home, method), n)| {
            let on = ["a", "b"][*home];
            let mut vm = machine(n, Start, on, None, on);
            vm.migration_method = *method;
            vm
        });
        let sizes =
            (0..VMS).map(|n| (id(n), Size { memory_mib: 100, vcpus: 1, ..Size::default() })).collect();
        Self {
            nodes: nodes.into(),
            vms: vms.collect(),
            sizes,
            attempts: Attempts::default(),
            failed: BTreeMap::new(),
            now: 0,
            failures: 0,
            zxid: 1,
            stopped: BTreeSet::new(),
        }
    }

    fn view(&self) -> ClusterView {
        let nodes = self.nodes.iter().map(|n| (n.name.clone(), Arc::new(n.clone())));
        let vms = self.vms.iter().map(|v| (v.id, Arc::new(Entry::Good(v.clone()))));
        ClusterView {
            nodes: Arc::new(nodes.collect()),
            vms: Arc::new(vms.collect()),
            ..ClusterView::default()
        }
    }

    fn happens(&mut self, event: Event) {
        self.zxid += 1;
        match event {
            Event::Desired(desired) => self.nodes[0].domain_state.value = desired,
            Event::Vm(n, state) => {
                let vm = &mut self.vms[usize::from(n)];
                write(&mut vm.state, state, self.zxid);
                match state {
                    Stop | Shutdown => self.stopped.insert(vm.id),
                    _ => self.stopped.remove(&vm.id),
                };
            }
            Event::MigrateHere(n) => {
                let vm = &mut self.vms[usize::from(n)];
                let home = Some(vm.node.value.clone());
                write(&mut vm.last_node, home, self.zxid);
                write(&mut vm.state, Migrate, self.zxid);
                write(&mut vm.node, name("a"), self.zxid);
                self.stopped.remove(&vm.id);
            }
            Event::NodeState(node, state) => {
                let node = self.nodes.iter_mut().find(|n| n.name.as_str() == node).unwrap();
                node.domain_state.value = state;
            }
            Event::DaemonRestarts => self.attempts = Attempts::default(),
            Event::Fail(times) => self.failures = times,
        }
    }

    /// The daemon of `a` does what there is to do now.
    fn flush(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..100 {
            let view = self.view();
            let desired = view.node(&name("a")).unwrap().domain_state.value;
            self.attempts.desired_is(desired);
            let now = Moment::secs(self.now);
            let plan = plan(&Facts {
                me: &name("a"),
                view: &view,
                view_is_current: true,
                running: None,
                sizes: &self.sizes,
                unusable: &BTreeMap::new(),
                silent: &BTreeSet::new(),
                selector: Selector::Vms,
                limits: Limits { outgoing: 2, incoming: 2 },
                unable: None,
                attempts: &self.attempts,
                now,
            });
            self.attempts.noticed(&plan.left);
            let step = match plan.next {
                Next::Settled => return Ok(()),
                Next::Wait(until) => {
                    prop_assert!(until.is_none_or(|until| until > now), "a wait for the past: {}", plan.why);
                    self.attempts.no_capacity(&plan.no_capacity, now);
                    return Ok(());
                }
                Next::Do(step) => step,
            };
            match &step {
                Step::Answer(state) => self.nodes[0].domain_state.value = *state,
                Step::Send { vm, to, .. } => self.attempts.sent(*vm, to, now),
                Step::ShutDown { vm, reason } => {
                    let live = view.vm(*vm).unwrap().migration_method == MigrationMethod::Live;
                    prop_assert!(!live, "a guest that may only live was shut down: {reason}");
                    self.attempts.gave_up(*vm, reason);
                }
                _ => {}
            }
            if let Step::Start { vm, .. } = &step {
                prop_assert!(!self.stopped.contains(vm), "an operator's stop is lost: {}", plan.why);
            }
            self.zxid += 1;
            if let Some(VmChange::Update { id, set, .. }) = change(&step, &view, &name("a")) {
                let vm = self.vms.iter_mut().find(|vm| vm.id == id).unwrap();
                for value in set {
                    match value {
                        VmSet::State(state) => write(&mut vm.state, state, self.zxid),
                        VmSet::Node(node) => write(&mut vm.node, node, self.zxid),
                        VmSet::LastNode(node) => write(&mut vm.last_node, node, self.zxid),
                        VmSet::FailedReason(reason) => vm.failed_reason.value = reason,
                        other => prop_assert!(false, "not a flush's to write: {other:?}"),
                    }
                }
                self.bounds(&step)?;
            }
        }
        prop_assert!(false, "the daemon does not come to rest");
        Ok(())
    }

    fn bounds(&self, step: &Step) -> Result<(), TestCaseError> {
        let Step::Send { vm, to, home } = step else { return Ok(()) };
        let view = self.view();
        // What goes back to where it runs, or is called back, is on no way.
        if is_moving(view.vm(*vm).unwrap()) && home.is_some() {
            let traffic = Traffic::count(&view);
            prop_assert!(traffic.to(to) <= 2, "{} arrive at {to}", traffic.to(to));
            prop_assert!(traffic.from(&name("a")) <= 2, "{} leave", traffic.from(&name("a")));
        }
        Ok(())
    }

    /// A second passes; the desired state of VMs is carried out.
    fn second(&mut self) {
        self.now += 1;
        for vm in &mut self.vms {
            let runs_on = vm.claim.value.iter().next().cloned();
            let (desired, by_flush) = (vm.state.value, vm.is_shut_down_by_flush());
            match (vm.state.value, runs_on) {
                // A migration takes three seconds.
                (Migrate, Some(from)) if from != vm.node.value => {
                    if !(self.now + u64::from(vm.id.to_string().as_bytes()[35])).is_multiple_of(3) {
                        continue;
                    }
                    if self.failures > 0 {
                        self.failures -= 1;
                        *self.failed.entry(vm.id).or_default() += 1;
                        vm.failed_reason.value = "bad luck".into();
                        (vm.state.value, vm.node.value) = (Start, from);
                    } else {
                        vm.claim.value = Claim::only(&vm.node.value);
                        vm.state.value = Start;
                    }
                }
                (Migrate | Start | Restart, Some(from)) if from == vm.node.value => vm.state.value = Start,
                // Moved without migration: off there first.
                (Start | Restart, Some(_)) => vm.claim.value = Claim::none(),
                (Migrate | Start | Restart, None) => {
                    vm.claim.value = Claim::only(&vm.node.value);
                    vm.state.value = Start;
                }
                (Shutdown | Stop, _) => {
                    vm.claim.value = Claim::none();
                    vm.state.value = Stop;
                }
                _ => {}
            }
            if vm.state.value != desired {
                self.zxid += 1;
                vm.state.zxid = self.zxid;
                if by_flush {
                    vm.last_node.zxid = self.zxid;
                }
            }
        }
    }
}

fn write<T>(field: &mut Field<T>, value: T, zxid: i64) {
    (field.value, field.zxid) = (value, zxid);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_last_desired_state_is_answered_and_true(
        homes in prop::collection::vec(0..2_usize, usize::from(VMS)),
        methods in prop::collection::vec(
            prop::sample::select(vec![MigrationMethod::None, MigrationMethod::Live, MigrationMethod::Shutdown]),
            usize::from(VMS),
        ),
        memory in 100..1200_u64,
        events in prop::collection::vec((event(), 0..12_u64), 0..12),
        last in prop::sample::select(vec![Flush, Unflush]),
    ) {
        let mut w = World::new(&homes, &methods, memory);
        for (event, then) in events {
            w.happens(event);
            for _ in 0..then {
                w.flush()?;
                w.second();
            }
        }
        w.happens(Event::Desired(last));
        let asked = w.now;
        while w.nodes[0].domain_state.value == last {
            w.flush()?;
            w.second();
            prop_assert!(w.now < asked + ENDS_WITHIN_S, "no end: {:#?}", w.vms);
        }
        let answer = w.nodes[0].domain_state.value;
        prop_assert_eq!(answer, if last == Flush { Flushed } else { Ready });
        if answer == Flushed {
            let left = w.vms.iter().filter(|vm| vm.claim.value.names(&name("a")));
            for vm in left {
                let tried = w.failed.get(&vm.id).is_some_and(|times| *times >= ATTEMPTS);
                prop_assert!(tried || vm.migration_method == MigrationMethod::Live, "{:?} is still here", vm);
            }
        } else {
            for node in &mut w.nodes {
                node.report.mem_total_mib = 1200;
            }
            for _ in 0..10 {
                w.flush()?;
                w.second();
            }
            let waits = w.vms.iter().find(|vm| vm.is_shut_down_by_flush());
            prop_assert!(waits.is_none(), "there is room, and it stays off: {waits:?}");
        }
    }
}
