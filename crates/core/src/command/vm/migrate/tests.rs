use std::sync::Arc;

use super::*;
use crate::{
    command::{
        RefusalKind,
        testing::{field, name, node, view, vm},
    },
    model::{DaemonState, DomainState, Entry, Node},
    plan::placement::Sizes,
};

const SIZE: Size = Size { memory_mib: 100, vcpus: 1, needs_storage: false };

/// hv1 to hv3, all of which run and take VMs.
fn nodes() -> [Node; 3] {
    [node("hv1"), node("hv2"), node("hv3")]
}

fn running() -> Vm {
    vm(VmState::Start, "hv1")
}

fn to(target: &str) -> Migrate<'_> {
    Migrate { target: Target::Named(target), force: false }
}

fn anywhere() -> Migrate<'static> {
    Migrate { target: Target::Chosen(Selector::Mem), force: false }
}

fn forced(request: Migrate<'_>) -> Migrate<'_> {
    Migrate { force: true, ..request }
}

/// Which command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Migrate,
    Unmigrate,
    Move,
}
use Kind::{Migrate as M, Move, Unmigrate as U};

fn ask_in(kind: Kind, vm: &Vm, request: Migrate<'_>, view: &ClusterView) -> Result<Moved, Refusal> {
    let capacity = ClusterCapacity::count(view, &Sizes::new(), &[].into());
    match kind {
        M => migrate(vm, request, view, &capacity, SIZE),
        U => unmigrate(vm, request.force, view, &capacity, SIZE),
        Move => move_to(vm, request, view, &capacity, SIZE),
    }
}

fn ask(kind: Kind, vm: &Vm, request: Migrate<'_>, nodes: &[Node]) -> Result<Moved, Refusal> {
    ask_in(kind, vm, request, &view(nodes, std::slice::from_ref(vm)))
}

/// The keys that a change is decided from and what it sets.
fn written(moved: &Moved) -> (Vec<VmKey>, Vec<VmSet>) {
    let Some(VmChange::Update { expect, set, .. }) = &moved.accepted.change else { panic!("{moved:?}") };
    assert!(expect.iter().all(|(_, version)| *version == Some(7)), "{expect:?}");
    (expect.iter().map(|(key, _)| *key).collect(), set.clone())
}

/// `state` = `migrate` to a node, with that way back.
fn live(to: &str, last: Option<&str>) -> Vec<VmSet> {
    vec![VmSet::State(VmState::Migrate), VmSet::Node(name(to)), VmSet::LastNode(last.map(name))]
}

#[test]
fn the_writes_are_those_of_the_contract() {
    let live_keys = vec![VmKey::State, VmKey::Node, VmKey::LastNode];
    let mut returning = running();
    returning.last_node = field(Some(name("hv3")));
    for (kind, vm, request, set) in [
        (M, running(), to("hv2"), live("hv2", Some("hv1"))),
        (M, running(), anywhere(), live("hv2", Some("hv1"))),
        (M, returning.clone(), forced(to("hv2")), live("hv2", Some("hv3"))),
        (U, returning.clone(), anywhere(), live("hv3", None)),
        (Move, running(), to("hv3"), live("hv3", None)),
        (Move, returning.clone(), anywhere(), live("hv2", None)),
    ] {
        let moved = ask(kind, &vm, request, &nodes()).unwrap();
        assert_eq!(written(&moved), (live_keys.clone(), set), "{kind:?} {request:?}");
        assert!(moved.live, "{kind:?}");
    }
}

#[test]
fn what_is_off_is_given_another_node_and_stays_off() {
    for state in [VmState::Stop, VmState::Failed] {
        let off = vm(state, "");
        let moved = ask(Move, &off, to("hv2"), &nodes()).unwrap();
        assert!(!moved.live);
        assert_eq!(written(&moved).1, [VmSet::Node(name("hv2"))], "{state}");
        assert!(written(&moved).0.contains(&VmKey::State), "a start meanwhile is a conflict");
        let mut returning = off;
        returning.last_node = field(Some(name("hv3")));
        let moved = ask(U, &returning, anywhere(), &nodes()).unwrap();
        assert_eq!(written(&moved).1, [VmSet::Node(name("hv3")), VmSet::LastNode(None)], "{state}");
    }
}

#[test]
fn what_is_off_may_go_where_nothing_runs_yet_and_that_is_said() {
    let mut all = nodes();
    all[1].daemon_state = field(DaemonState::Stop);
    let moved = ask(Move, &vm(VmState::Stop, ""), to("hv2"), &all).unwrap();
    assert!(moved.accepted.notes[0].contains("the VM cannot start before"), "{moved:?}");
    assert_eq!(ask(Move, &vm(VmState::Stop, ""), anywhere(), &all).unwrap().node, name("hv3"));
    all[2].daemon_state = field(DaemonState::Dead);
    assert!(ask(Move, &vm(VmState::Stop, ""), anywhere(), &all).is_err());
}

#[test]
fn every_state_is_moved_or_refused_with_what_to_do() {
    use VmState::{Delete, Failed, Migrate, Restart, Shutdown, Start, Stop};
    let why = |kind, state, claim: &str| {
        let mut vm = vm(state, claim);
        vm.last_node = field((kind == U).then(|| name("hv2")));
        ask(kind, &vm, to("hv2"), &nodes()).map(|moved| moved.live).map_err(|r| r.why)
    };
    for kind in [M, U, Move] {
        assert_eq!(why(kind, Start, "hv1"), Ok(true), "{kind:?}");
        assert_eq!(why(kind, Start, ""), Ok(true), "{kind:?}: whoever takes it up starts it");
        for (state, words) in [
            (Migrate, "it is migrating to hv1 already"),
            (Restart, "its restart is going on"),
            (Shutdown, "its shutdown is going on"),
            (Delete, "it is being deleted"),
            (Stop, "its state is stop, but hv1 may still be executing it"),
            (Failed, "its state is failed, but hv1 may still be executing it"),
        ] {
            assert_eq!(why(kind, state, "hv1"), Err(words.to_owned()), "{kind:?}");
        }
    }
    for state in [Stop, Failed] {
        assert_eq!(why(M, state, ""), Err(format!("it does not run: its state is {state}")));
        assert_eq!((why(U, state, ""), why(Move, state, "")), (Ok(false), Ok(false)));
    }
}

#[test]
fn targets_that_would_not_do_are_refused() {
    let mut all = nodes();
    all[1].domain_state = field(DomainState::Flushed);
    all[2].report.mem_alloc_mib = 950;
    let refused = |kind, request| ask(kind, &running(), request, &all).unwrap_err();
    for kind in [M, Move] {
        assert_eq!(refused(kind, to("hv1")).why, "hv1 is its node already");
        assert_eq!(refused(kind, to("hv4")).kind, RefusalKind::NotFound);
        let flushed = refused(kind, to("hv2"));
        assert_eq!(flushed.why, "hv2 takes no VMs: it is in state flushed");
        assert_eq!(flushed.todo, "`pvc node ready hv2` first");
        assert_eq!(refused(kind, forced(to("hv2"))).why, flushed.why, "its source would not send it there");
        let full = "hv3 has 50 MiB of memory left, 100 MiB are needed";
        assert_eq!(refused(kind, to("hv3")).why, full);
        assert_eq!(refused(kind, forced(to("hv3"))).why, full, "never without memory");
        let none = refused(kind, anywhere());
        assert!(none.why.contains("hv2 takes no VMs") && none.why.contains(full), "{none}");
        let mut returning = all.clone();
        returning[1].domain_state = field(DomainState::Unflush);
        assert!(ask(kind, &running(), to("hv2"), &returning).unwrap_err().todo.contains("--force"));
        let pressed = ask(kind, &running(), forced(to("hv2")), &returning).unwrap();
        assert_eq!(pressed.accepted.notes, ["hv2 is still taking its own VMs back"]);
    }
    all[1].daemon_state = field(DaemonState::Stop);
    let stopped = ask(M, &running(), forced(to("hv2")), &all).unwrap_err();
    assert_eq!(stopped.why, "hv2 has a daemon in state stop");
}

#[test]
fn a_source_that_cannot_send_is_named() {
    let mut all = nodes();
    all[0].daemon_state = field(DaemonState::Stop);
    let refusal = ask(M, &running(), anywhere(), &all).unwrap_err();
    assert_eq!(refusal.why, "hv1, which may be executing it, has a daemon in state stop");
    let mut fenced = view(&nodes(), &[running()]);
    fenced.fences = Arc::new([(name("hv1"), Entry::Bad(Vec::new()))].into());
    let refusal = ask_in(Move, &running(), anywhere(), &fenced).unwrap_err();
    assert_eq!(refusal.why, "hv1, which may be executing it, is being fenced");
}

#[test]
fn the_way_back_is_neither_forgotten_nor_invented() {
    let refusal = ask(U, &running(), anywhere(), &nodes()).unwrap_err();
    assert_eq!(refusal.why, "it has not been migrated");
    let mut away = running();
    away.last_node = field(Some(name("hv2")));
    let again = ask(M, &away, to("hv3"), &nodes()).unwrap_err();
    assert!(again.why.contains("from hv2 already") && again.todo.contains("--force"), "{again}");
    let mut home = running();
    home.last_node = field(Some(name("hv1")));
    assert!(ask(U, &home, anywhere(), &nodes()).unwrap_err().why.contains("which is where it is"));
    let mut gone = running();
    gone.last_node = field(Some(name("hv9")));
    assert_eq!(ask(U, &gone, anywhere(), &nodes()).unwrap_err().kind, RefusalKind::NotFound);
}
