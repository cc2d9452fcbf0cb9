//! What a guest is not ended for.

use super::*;

#[test]
fn the_stop_that_a_definition_begins_with_is_no_command_and_a_clients_is() {
    let me = name("a");
    let set_by = |vm: &Vm| match change(&Step::Adopt, vm, &me) {
        Some(VmChange::Update { expect, set, .. }) => (expect.into_iter().map(|(key, _)| key).collect(), set),
        other => panic!("{other:?}"),
    };
    let claimed = VmSet::Claim(Claim::only(&me));
    let all: Vec<VmKey> = vec![VmKey::State, VmKey::Node, VmKey::Claim];
    for (node, also) in [("a", vec![]), ("b", vec![VmSet::Node(me.clone())])] {
        let mut c = case(Stop, node, "", Active);
        c.vm.state.version = Some(0);
        assert_eq!(c.next(), Next::Do(Step::Adopt));
        let set = [vec![claimed.clone(), VmSet::State(Start)], also].concat();
        assert_eq!(set_by(&c.vm), (all.clone(), set), "defined on {node}");
    }
    let commanded = case(Stop, "b", "", Active);
    assert_eq!(set_by(&commanded.vm).1, std::slice::from_ref(&claimed));
    // Defined and started at once, by a script: nobody has claimed it yet.
    let mut started = case(Start, "b", "", Active);
    assert_eq!(set_by(&started.vm).1, std::slice::from_ref(&claimed), "claimed before: it is to run there");
    started.vm.claim.version = Some(0);
    assert_eq!(set_by(&started.vm).1, [claimed, VmSet::Node(me.clone())]);
}

#[test]
fn a_guest_that_could_not_be_started_again_is_not_ended() {
    let unusable = |state, node| {
        let mut c = case(state, node, "a", Active);
        c.definition = Err("its definition is not usable");
        c
    };
    for (mut c, not_done) in [
        (unusable(Restart, "a"), "not restarted"),
        (unusable(Restart, "b"), "not moved to b"),
        (unusable(Start, "b"), "not moved to b"),
        (migration::after_look(unusable(Migrate, "b"), PeerState::Off), "not migrated to b"),
    ] {
        c.vm.migration_method = MigrationMethod::Shutdown;
        assert!(needs_definition(&name("a"), &c.vm, c.local_state, c.halt));
        let Next::Do(Step::Answer(Answer::Stays(reason))) = c.next() else { panic!("{:?}", c.plan()) };
        assert!(reason.starts_with(not_done) && reason.ends_with("is not usable"), "{reason}");
        let answer = change(&Step::Answer(Answer::Stays(reason)), &c.vm, &name("a"));
        let Some(VmChange::Update { set, .. }) = answer else { panic!() };
        let moved = c.vm.node.value != name("a");
        assert_eq!(set.contains(&VmSet::Node(name("a"))), moved, "{set:?}");
    }
    for state in [Stop, Shutdown, Delete] {
        let next = unusable(state, "a").next();
        assert!(matches!(next, Next::Do(Step::PowerOff | Step::AskGuestToShutDown)), "{state}: {next:?}");
    }
    let mut asked = unusable(Restart, "a");
    asked.attempts.asked_to_shut_down(&asked.vm, asked.now);
    assert!(matches!(asked.next(), Next::Wait(_)), "it is on its way down");
}

#[test]
fn a_vm_that_a_flush_shuts_down_stays_known_as_such_until_a_client_writes_its_state() {
    let mut c = case(Shutdown, "a", "a", Off);
    c.vm.last_node = field(Some(name("a")), c.vm.state.zxid);
    let home = VmSet::LastNode(Some(name("a")));
    let stopped = |vm: &Vm| match change(&Step::Answer(Answer::Stopped), vm, &name("a")) {
        Some(VmChange::Update { set, .. }) => set,
        other => panic!("{other:?}"),
    };
    assert!(c.vm.is_shut_down_by_flush() && stopped(&c.vm).contains(&home));
    c.vm.node.zxid = c.vm.state.zxid + 1;
    assert!(!c.vm.is_shut_down_by_flush(), "somebody has moved it away and back");
    c.vm.state.zxid += 2;
    assert!(!c.vm.is_shut_down_by_flush() && !stopped(&c.vm).contains(&home));
}
