//! VMs that cannot come back, nodes that cannot start any, keys that cannot be written.

use super::*;

#[test]
fn what_found_no_room_at_the_unflush_starts_when_there_is_room_here_or_elsewhere() {
    let shut_down = machine(1, Stop, "a", Some("a"), "");
    let mut t = table(DomainState::Ready, vec![shut_down.clone()]);
    assert_eq!(t.step(), start(1, "a", None));
    t.node("a", |n| n.report.mem_total_mib = 0);
    assert_eq!(t.step(), start(1, "b", Some("a")), "with its way home");
    t.node("b", |n| n.report.mem_total_mib = 0);
    t.node("c", |n| n.report.mem_total_mib = 0);
    let waits = t.at(1_000_000);
    assert_eq!(waits.next, Next::Wait(None), "as long as it takes");
    assert!(waits.why.contains("MiB are needed"), "{}", waits.why);
    for _ in 0..ATTEMPTS {
        t.attempts.refused(id(1), "not authorized".into(), Moment::secs(100));
    }
    let refused = t.at(100);
    assert!(refused.next == Next::Wait(None) && refused.why.contains("not authorized"), "{refused:?}");
    for vm in
        [written_by_a_client(shut_down), machine(1, Stop, "a", None, ""), machine(1, Start, "a", None, "a")]
    {
        assert!(!has_work(&name("a"), &table(DomainState::Ready, vec![vm.clone()]).view, false), "{vm:?}");
    }
}

#[test]
fn what_shall_run_on_a_node_that_can_start_nothing_starts_elsewhere_after_a_while() {
    let gives = |to: &str, home: Option<&str>| Step::GiveAway {
        vm: id(1),
        to: name(to),
        home: home.map(name),
        reason: "a could not start it: no libvirt".into(),
    };
    for (desired, vm, to, home) in [
        (DomainState::Ready, machine(1, Start, "a", None, ""), "b", Some("a")),
        (DomainState::Flushed, machine(1, Start, "a", None, ""), "b", Some("a")),
        (DomainState::Ready, machine(1, Restart, "a", None, ""), "b", Some("a")),
        (DomainState::Ready, machine(1, Migrate, "a", Some("c"), ""), "b", Some("c")),
        (DomainState::Ready, machine(1, Start, "a", Some("b"), ""), "b", None),
    ] {
        let mut t = table(desired, vec![vm]);
        assert_eq!(t.at(100).next, Next::Settled, "it can start it");
        t.unable_since = Some(71);
        assert_eq!(
            t.at(100).next,
            Next::Wait(Some(Moment::secs(101))),
            "a libvirt that starts over is no loss"
        );
        t.unable_since = Some(70);
        assert_eq!(t.step(), gives(to, home));
        t.node("b", |n| n.report.cannot_start = Some("no libvirt".into()));
        t.node("c", |n| n.domain_state.value = DomainState::Flushed);
        let waits = t.at(100);
        assert!(
            waits.next == Next::Wait(None) && waits.why.contains("b can start no VMs: no libvirt"),
            "{waits:?}"
        );
    }
    // What may be executing, or shall not run, or is another node's, is left alone.
    for vm in [
        machine(1, Start, "a", None, "a"),
        machine(1, Start, "a", None, "b"),
        machine(1, Migrate, "a", None, "b a"),
        machine(1, Stop, "a", None, ""),
        machine(1, Failed, "a", None, ""),
        machine(1, Start, "b", None, ""),
    ] {
        let mut t = table(DomainState::Ready, vec![vm.clone()]);
        t.unable_since = Some(0);
        assert_eq!(t.at(100).next, Next::Settled, "{vm:?}");
        assert!(!has_work(&name("a"), &t.view, true), "{vm:?}");
    }
    let mut t = table(DomainState::Ready, vec![machine(1, Start, "a", None, "")]);
    t.unable_since = Some(0);
    t.node("c", |n| {
        n.report.running = vec![id(1)];
        n.last_word.zxid = 1_000;
    });
    assert!(
        matches!(t.at(100).next, Next::Wait(_)) && t.at(100).why.contains("last word"),
        "{:?}",
        t.at(100)
    );
}

#[test]
fn nothing_returns_to_a_node_that_can_start_nothing() {
    let mut t = table(Unflush, vec![machine(1, Start, "b", Some("a"), "b")]);
    t.unable_since = Some(0);
    let waits = t.at(100);
    assert!(waits.why.contains("a can start no VMs: no libvirt"), "{waits:?}");
    t.attempts.no_capacity(&waits.no_capacity, Moment::secs(100));
    assert_eq!(t.at(200).next, Next::Do(Step::Answer(Ready)), "it stays where it runs");
    let mut t = table(DomainState::Ready, vec![machine(1, Stop, "a", Some("a"), "")]);
    t.unable_since = Some(0);
    assert_eq!(t.step(), start(1, "b", Some("a")));
}

#[test]
fn what_the_store_refuses_of_one_vm_holds_up_no_other_and_is_left_in_the_end() {
    for (desired, answer, home) in [
        (DomainState::Flush, DomainState::Flushed, None),
        (DomainState::Unflush, DomainState::Ready, Some("a")),
    ] {
        let on = if home.is_some() { "b" } else { "a" };
        let mut t = table(
            desired,
            vec![machine(1, VmState::Start, on, home, on), machine(2, VmState::Start, on, home, on)],
        );
        t.attempts.refused(id(1), "not authorized".into(), Moment::secs(100));
        let Step::Send { vm, .. } = t.step() else { panic!("{:?}", t.step()) };
        assert_eq!(vm, id(2), "{desired}");
        Arc::make_mut(&mut t.view.vms).remove(&id(2));
        let waits = t.at(100);
        assert!(
            matches!(waits.next, Next::Wait(Some(_))) && waits.why.contains("not authorized"),
            "{waits:?}"
        );
        assert!(matches!(t.at(200).next, Next::Do(Step::Send { .. })), "it is tried again");
        for _ in 1..ATTEMPTS {
            t.attempts.refused(id(1), "not authorized".into(), Moment::secs(100));
        }
        let over = t.at(100);
        assert_eq!(over.next, Next::Do(Step::Answer(answer)));
        assert!(over.progress.stuck[0].reason.contains("not authorized"), "{over:?}");
    }
}
