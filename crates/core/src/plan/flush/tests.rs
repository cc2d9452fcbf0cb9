//! Tables first, then whole flushes in a world that brings desired states about, fails, and has operators.

mod hindered;
mod world;

use std::sync::Arc;

use super::*;
use crate::{
    command::testing::{field, id, name, node, vm},
    model::{Claim, MigrationMethod},
};

/// Node `a` is this one; `b` and `c` have 1000 MiB and take VMs; every VM has 100 MiB.
struct Table {
    view: ClusterView,
    attempts: Attempts,
    sizes: Sizes,
    unusable: BTreeMap<VmId, String>,
    running: BTreeSet<VmId>,
    /// Node `a` can start no VMs since this second.
    unable_since: Option<u64>,
}

fn machine(n: u8, state: VmState, on: &str, home: Option<&str>, claim: &str) -> Vm {
    let mut vm = vm(state, claim);
    vm.id = id(n);
    vm.name = format!("vm{n}").parse().unwrap();
    vm.node = field(name(on));
    vm.last_node = field(home.map(name));
    vm
}

fn table(desired: DomainState, vms: Vec<Vm>) -> Table {
    let mut attempts = Attempts::default();
    attempts.desired_is(desired);
    let nodes = ["a", "b", "c"].map(|n| {
        let mut node = node(n);
        node.report.mem_total_mib = 1000;
        if n == "a" {
            node.domain_state = field(desired);
        }
        (node.name.clone(), Arc::new(node))
    });
    let sizes = (0..20).map(|n| (id(n), Size { memory_mib: 100, vcpus: 1, ..Size::default() })).collect();
    let vms = vms.into_iter().map(|vm| (vm.id, Arc::new(Entry::Good(vm)))).collect();
    let view = ClusterView { nodes: Arc::new(nodes.into()), vms: Arc::new(vms), ..ClusterView::default() };
    Table { view, attempts, sizes, unusable: BTreeMap::new(), running: BTreeSet::new(), unable_since: None }
}

impl Table {
    fn at(&self, now: u64) -> Plan {
        plan(&Facts {
            me: &name("a"),
            view: &self.view,
            view_is_current: true,
            running: Some(&self.running),
            sizes: &self.sizes,
            unusable: &self.unusable,
            silent: &BTreeSet::new(),
            selector: Selector::Mem,
            limits: TWO,
            unable: self.unable_since.map(|s| Unable { why: "no libvirt", since: Moment::secs(s) }),
            attempts: &self.attempts,
            now: Moment::secs(now),
        })
    }

    fn step(&self) -> Step {
        match self.at(100).next {
            Next::Do(step) => step,
            other => panic!("no step: {other:?}: {}", self.at(100).why),
        }
    }

    fn node(&mut self, node: &str, change: impl FnOnce(&mut crate::model::Node)) {
        let entry = Arc::make_mut(&mut self.view.nodes).get_mut(&name(node)).unwrap();
        change(Arc::make_mut(entry));
    }

    /// The others take no VMs.
    fn nowhere(mut self) -> Self {
        for node in ["b", "c"] {
            self.node(node, |n| n.domain_state.value = DomainState::Flushed);
        }
        self
    }
}

fn send(n: u8, to: &str, home: Option<&str>) -> Step {
    Step::Send { vm: id(n), to: name(to), home: home.map(name) }
}

fn start(n: u8, on: &str, home: Option<&str>) -> Step {
    Step::Start { vm: id(n), on: name(on), home: home.map(name) }
}

/// Few enough for a table.
const TWO: Limits = Limits { outgoing: 2, incoming: 2 };

use DomainState::{Flush, Flushed, Ready, Unflush};
use VmState::{Delete, Failed, Migrate, Restart, Shutdown, Start, Stop};

/// … who writes `state` and nothing else.
fn written_by_a_client(mut vm: Vm) -> Vm {
    vm.state.zxid += 1;
    vm
}

#[test]
fn a_vm_that_runs_here_leaves_and_shall_return_and_one_on_a_visit_keeps_its_home() {
    for (vm, expected) in [
        (machine(1, Start, "a", None, "a"), send(1, "b", Some("a"))),
        (machine(1, Start, "a", Some("c"), "a"), send(1, "b", Some("c"))),
        (machine(1, Start, "a", Some("b"), "a"), send(1, "b", None)),
        (machine(1, Start, "a", None, ""), send(1, "b", Some("a"))),
        (machine(1, Failed, "a", None, "a"), send(1, "b", Some("a"))),
        // On its way here: it goes back to where it runs.
        (machine(1, Migrate, "a", None, "c"), send(1, "c", Some("a"))),
        (machine(1, Migrate, "a", None, "c a"), send(1, "c", Some("a"))),
        (machine(1, Migrate, "a", Some("c"), "c"), send(1, "c", None)),
    ] {
        let found = table(Flush, vec![vm.clone()]).step();
        assert_eq!(found, expected, "{vm:?}");
    }
}

#[test]
fn what_somebody_has_started_here_is_waited_for_though_it_is_to_be_off_and_is_not_claimed_yet() {
    let mut t = table(Flush, vec![machine(1, Stop, "a", None, "")]);
    t.running = [id(1)].into();
    assert!(matches!(t.at(100).next, Next::Wait(_)), "{:?}", t.at(100));
    t.running.clear();
    assert_eq!(t.step(), Step::Answer(Flushed));
}

#[test]
fn a_vm_that_is_off_stays_assigned_and_the_flush_ends() {
    let off = [Stop, Failed, Delete].map(|state| machine(1, state, "a", None, ""));
    let gone = [Start, Migrate, Stop].map(|state| machine(1, state, "b", Some("a"), "b"));
    for vm in off.into_iter().chain(gone) {
        assert_eq!(table(Flush, vec![vm.clone()]).step(), Step::Answer(Flushed), "{vm:?}");
    }
}

#[test]
fn what_is_about_to_end_is_waited_for() {
    for vm in [
        machine(1, Shutdown, "a", None, "a"),
        machine(1, Restart, "a", None, "a"),
        machine(1, Stop, "a", None, "a"),
        machine(1, Start, "b", None, "a"),
        machine(1, Migrate, "b", Some("a"), "a"),
        machine(1, Migrate, "b", Some("a"), "a b"),
    ] {
        let plan = table(Flush, vec![vm.clone()]).at(100);
        assert_eq!(plan.next, Next::Wait(None), "{vm:?}");
        assert_eq!((plan.progress.total, plan.progress.left), (1, 1), "{vm:?}");
    }
}

#[test]
fn two_leave_at_once_and_two_arrive_at_once_and_they_spread() {
    let leaving = |n, to: &str| machine(n, Migrate, to, Some("a"), "a");
    let local_state = |n| machine(n, Start, "a", None, "a");
    assert_eq!(table(Flush, vec![leaving(1, "b"), local_state(2)]).step(), send(2, "c", Some("a")));
    let full = table(Flush, vec![leaving(1, "b"), leaving(2, "c"), local_state(3)]).at(100);
    assert_eq!(full.next, Next::Wait(None));
    assert!(full.why.contains("vm3: waits for its turn"), "{}", full.why);
    assert_eq!((full.progress.total, full.progress.left, full.progress.moving), (3, 3, 2));

    // Two from elsewhere arrive at each already: a turn, not a lack of room.
    let arriving = |n, to: &str| machine(n, Migrate, to, None, "x");
    let busy = [arriving(1, "b"), arriving(2, "b"), arriving(3, "c"), arriving(4, "c"), local_state(5)];
    let waits = table(Flush, busy.into()).at(100);
    assert!(waits.no_capacity.is_empty() && waits.next == Next::Wait(None), "{}", waits.why);
}

#[test]
fn the_largest_goes_first_and_one_that_finds_no_room_holds_up_nobody() {
    let local_state = |n| machine(n, Start, "a", None, "a");
    let mut t = table(Flush, vec![local_state(1), local_state(2), local_state(3)]);
    t.sizes.insert(id(2), Size { memory_mib: 500, vcpus: 1, ..Size::default() });
    assert_eq!(t.step(), send(2, "b", Some("a")));
    t.sizes.insert(id(2), Size { memory_mib: 5000, vcpus: 1, ..Size::default() });
    assert_eq!(t.step(), send(1, "b", Some("a")));
}

#[test]
fn without_room_a_vm_waits_a_while_then_shuts_down_with_the_reason_unless_it_may_only_live() {
    let mut t = table(Flush, vec![machine(1, Start, "a", None, "a")]).nowhere();
    let waits = t.at(100);
    assert_eq!(waits.next, Next::Wait(Some(Moment::secs(115))), "{}", waits.why);
    assert_eq!(waits.no_capacity, [id(1)].into());
    t.attempts.no_capacity(&waits.no_capacity, Moment::secs(100));
    assert_eq!(t.at(114).next, Next::Wait(Some(Moment::secs(115))));
    let Next::Do(Step::ShutDown { vm, reason }) = t.at(115).next else { panic!("{:?}", t.at(115)) };
    assert_eq!(vm, id(1));
    assert_eq!(
        reason,
        "shut down by the flush of a: no node can take it: b takes no VMs: it is in state flushed; \
         c takes no VMs: it is in state flushed"
    );

    t.unusable.insert(id(1), "it has no memory".into());
    let ends = t.at(115);
    assert_eq!(ends.next, Next::Do(Step::Answer(Flushed)), "what cannot be started again is not ended");
    assert!(ends.why.contains("vm1 keeps running: it could not be started again: it has no"), "{}", ends.why);

    let mut live = machine(1, Start, "a", None, "a");
    live.migration_method = MigrationMethod::Live;
    let attempts = t.attempts;
    let mut t = table(Flush, vec![live]).nowhere();
    t.attempts = attempts;
    let ends = t.at(115);
    assert_eq!(ends.next, Next::Do(Step::Answer(Flushed)));
    assert!(ends.why.contains("vm1 keeps running: its migration method is live"), "{}", ends.why);
    assert_eq!((ends.progress.left, ends.progress.stuck.len()), (1, 1));
}

#[test]
fn a_failed_attempt_is_repeated_elsewhere_three_times_at_most() {
    let mut back = machine(1, Start, "a", Some("a"), "a");
    back.failed_reason.value = "no route".into();
    let mut t = table(Flush, vec![back]);
    for (at, until, to) in [(100, 105, "c"), (105, 115, "b")] {
        t.attempts.sent(id(1), &name(if to == "c" { "b" } else { "c" }), Moment::secs(at));
        let waits = t.at(at);
        assert_eq!(waits.next, Next::Wait(Some(Moment::secs(until))));
        assert!(waits.why.contains("vm1: no route; trying again soon"), "{}", waits.why);
        assert_eq!(t.at(until).next, Next::Do(send(1, to, Some("a"))), "another target first");
    }
    t.attempts.sent(id(1), &name("b"), Moment::secs(115));
    let ends = t.at(400);
    assert_eq!(ends.next, Next::Do(Step::Answer(Flushed)), "what nobody could take over is not ended");
    assert_eq!(
        ends.progress.stuck[0].reason,
        "vm1 keeps running: no node took it over, and 3 attempts failed: no route"
    );
}

#[test]
fn what_cannot_be_moved_is_named_and_does_not_hold_up_the_end() {
    let mut t = table(Flush, vec![]);
    t.running = [id(1), id(2)].into();
    let vms = Arc::make_mut(&mut t.view.vms);
    vms.insert(id(2), Arc::new(Entry::Bad(vec![])));
    vms.insert(id(3), Arc::new(Entry::Bad(vec![])));
    let plan = t.at(100);
    assert_eq!(plan.next, Next::Do(Step::Answer(Flushed)));
    let reasons: Vec<&str> = plan.progress.stuck.iter().map(|s| s.reason.as_str()).collect();
    assert!(
        reasons[0].ends_with("is not in the state tree") && reasons[1].ends_with("cannot be read"),
        "{reasons:?}"
    );
}

#[test]
fn a_flush_is_over_when_the_keepalive_says_so_too_and_what_cannot_leave_does_not_hold_it_up() {
    let reports = |t: &mut Table, ids: &[VmId]| {
        let mut nodes = (*t.view.nodes).clone();
        let mut node = t.view.node(&name("a")).unwrap().clone();
        node.report.running = ids.to_vec();
        nodes.insert(name("a"), Arc::new(node));
        t.view.nodes = Arc::new(nodes);
    };
    let mut gone = table(Flush, vec![machine(1, Start, "b", Some("a"), "b")]);
    reports(&mut gone, &[id(1)]);
    let waits = gone.at(100);
    assert!(matches!(waits.next, Next::Wait(Some(_))) && waits.left.is_empty(), "{waits:?}");
    reports(&mut gone, &[]);
    assert_eq!(gone.at(100).next, Next::Do(Step::Answer(Flushed)));

    let mut unclaimable = machine(2, Start, "a", None, "");
    unclaimable.unread = [VmKey::Claim].into();
    unclaimable.claim.value = Claim::unknown();
    let mut half = machine(3, Start, "a", None, "a");
    half.state.version = None;
    let mut stuck = table(Flush, vec![unclaimable, half]);
    stuck.running = [id(2), id(3)].into();
    reports(&mut stuck, &[id(2), id(3)]);
    let ends = stuck.at(100);
    assert_eq!(ends.next, Next::Do(Step::Answer(Flushed)));
    assert_eq!(ends.progress.stuck.len(), 2, "{ends:?}");
}

#[test]
fn vms_whose_home_this_is_return_as_they_are() {
    for (vm, expected) in [
        (machine(1, Start, "b", Some("a"), "b"), send(1, "a", None)),
        (machine(1, Start, "b", Some("a"), ""), send(1, "a", None)),
        (machine(1, Failed, "b", Some("a"), "b"), send(1, "a", None)),
        (machine(1, Failed, "b", Some("a"), ""), start(1, "a", None)),
        // Still leaving: called back.
        (machine(1, Migrate, "b", Some("a"), "a"), send(1, "a", None)),
        (machine(1, Migrate, "b", Some("a"), "a b"), send(1, "a", None)),
        // Shut down by the flush, or being so.
        (machine(1, Stop, "a", Some("a"), ""), start(1, "a", None)),
        (machine(1, Shutdown, "a", Some("a"), "a"), start(1, "a", None)),
        // Stopped by an operator meanwhile, or failed after his start.
        (written_by_a_client(machine(1, Stop, "a", Some("a"), "")), Step::Answer(Ready)),
        (written_by_a_client(machine(1, Shutdown, "a", Some("a"), "a")), Step::Answer(Ready)),
        (machine(1, Failed, "a", Some("a"), ""), Step::Answer(Ready)),
        (machine(1, Stop, "b", Some("a"), ""), Step::TakeBack(id(1))),
        // Not ours.
        (machine(1, Start, "b", None, "b"), Step::Answer(Ready)),
        (machine(1, Start, "b", Some("c"), "b"), Step::Answer(Ready)),
        (machine(1, Start, "a", Some("a"), "a"), Step::Answer(Ready)),
        (machine(1, Stop, "a", None, ""), Step::Answer(Ready)),
        (machine(1, Delete, "b", Some("a"), ""), Step::Answer(Ready)),
    ] {
        assert_eq!(table(Unflush, vec![vm.clone()]).step(), expected, "{vm:?}");
    }
    for vm in [
        machine(1, Shutdown, "b", Some("a"), "b"),
        machine(1, Restart, "b", Some("a"), "b"),
        machine(1, Stop, "b", Some("a"), "b"),
        machine(1, Migrate, "c", Some("a"), "b"),
        machine(1, Migrate, "a", None, "b"),
    ] {
        assert_eq!(table(Unflush, vec![vm.clone()]).at(100).next, Next::Wait(None), "{vm:?}");
    }
}

#[test]
fn returns_are_bounded_at_both_ends_and_need_room() {
    let away = |n, on: &str| machine(n, Start, on, Some("a"), on);
    let returning = |n, from: &str| machine(n, Migrate, "a", None, from);
    let busy = table(Unflush, vec![returning(1, "b"), returning(2, "c"), away(3, "c")]).at(100);
    assert_eq!((busy.next, busy.progress.moving), (Next::Wait(None), 2));
    let leaving_b = |n| machine(n, Migrate, "c", None, "b");
    let source = table(Unflush, vec![leaving_b(1), leaving_b(2), away(3, "b"), away(4, "c")]);
    assert_eq!(source.step(), send(4, "a", None), "the other source is free");

    let mut t = table(Unflush, vec![away(1, "b")]);
    t.node("a", |a| a.report.mem_total_mib = 50);
    let waits = t.at(100);
    assert!(waits.why.contains("a has 50 MiB of memory left, 100 MiB are needed"), "{}", waits.why);
    t.attempts.no_capacity(&waits.no_capacity, Moment::secs(100));
    let ends = t.at(115);
    assert_eq!(ends.next, Next::Do(Step::Answer(Ready)), "it stays where it is");
    assert_eq!(ends.progress.stuck.len(), 1);
}

#[test]
fn a_return_that_failed_is_tried_again_though_its_desired_state_has_erased_the_home() {
    let mut t = table(Unflush, vec![machine(1, Start, "b", None, "b")]);
    t.attempts.sent(id(1), &name("a"), Moment::secs(100));
    assert_eq!(t.at(101).next, Next::Wait(Some(Moment::secs(105))));
    assert_eq!(t.at(105).next, Next::Do(send(1, "a", None)));
}

/// Fresh seed 41322737720885248: two flushes crossed, and the VM lost its way home.
#[test]
fn a_return_that_failed_is_not_tried_again_once_another_flush_has_sent_the_vm_away() {
    let mut t = table(Unflush, vec![machine(1, Start, "c", Some("b"), "c")]);
    t.attempts.sent(id(1), &name("a"), Moment::secs(100));
    assert_eq!(t.at(105).next, Next::Do(Step::Answer(Ready)));
}

#[test]
fn nothing_is_done_from_an_old_view_or_without_a_desired_state() {
    let running_here = || vec![machine(1, Start, "a", None, "a")];
    for state in [Ready, Flushed] {
        assert_eq!(table(state, running_here()).at(100).next, Next::Settled);
    }
    let t = table(Flush, running_here());
    let me = name("a");
    let facts = Facts {
        me: &me,
        view: &t.view,
        view_is_current: false,
        running: None,
        sizes: &t.sizes,
        unusable: &t.unusable,
        silent: &BTreeSet::new(),
        selector: Selector::Mem,
        limits: TWO,
        unable: None,
        attempts: &t.attempts,
        now: Moment::secs(1),
    };
    assert_eq!(plan(&facts).next, Next::Wait(None));
}

#[test]
fn every_change_is_checked_against_all_that_it_was_decided_from() {
    let vm = machine(1, Start, "a", None, "a");
    let t = table(Flush, vec![vm]);
    let shut_down = Step::ShutDown { vm: id(1), reason: "why".into() };
    let given = Step::GiveAway { vm: id(1), to: name("b"), home: None, reason: "why".into() };
    for step in [send(1, "b", Some("a")), shut_down, start(1, "a", None), given, Step::TakeBack(id(1))] {
        let Some(VmChange::Update { expect, .. }) = change(&step, &t.view, &name("a")) else {
            panic!("{step:?}")
        };
        let keys: BTreeSet<VmKey> = expect.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [VmKey::State, VmKey::Node, VmKey::LastNode, VmKey::Claim].into(), "{step:?}");
    }
    assert_eq!(change(&Step::Answer(Ready), &t.view, &name("a")), None);
}
