//! The tables of live migration: what each side does, whatever it finds.

use super::*;

const LEAVING: Option<Migration> = Some(Migration::Leaving(Progress {
    elapsed: Duration::from_secs(3),
    total: 1000,
    sent: 500,
    remaining: 500,
}));
const ARRIVING: Option<Migration> = Some(Migration::Arriving);

use crate::{
    model::{Progress, Suspension},
    plan::vm::{
        migration::{ENDS_WITHIN, SUSPENDS_WITHIN},
        peer::TARGET_AGAIN,
    },
};

fn b() -> NodeName {
    name("b")
}

/// After the libvirt of `b` has said this, just now, and its daemon that it could start it.
pub(super) fn after_look(mut c: Case, peer_state: PeerState) -> Case {
    c.attempts.heard(&c.vm, &b(), Ok(()));
    c.attempts.looked(&c.vm, &b(), peer_state, c.now);
    c
}

fn desired(method: MigrationMethod) -> Case {
    let mut c = case(Migrate, "b", "a", Active);
    c.vm.migration_method = method;
    c
}

#[test]
fn while_two_claim_it_the_source_decides_by_what_is_under_way_and_what_the_desired_state_is() {
    let soon = |ms| Next::Wait(Some(Moment::secs(1000) + Duration::from_millis(ms)));
    let look = || Next::Do(Step::LookAt(b()));
    let table = [
        // desired state, node, fact here, migration → next
        (Migrate, "b", Active, LEAVING, soon(1000)),
        (Migrate, "b", Held, LEAVING, soon(1000)),
        (Migrate, "a", Active, LEAVING, Next::Do(Step::AbortMigration)),
        (Migrate, "c", Active, LEAVING, Next::Do(Step::AbortMigration)),
        (Start, "a", Active, LEAVING, Next::Do(Step::AbortMigration)),
        (Start, "b", Active, LEAVING, Next::Do(Step::AbortMigration)),
        (Shutdown, "a", Active, LEAVING, Next::Do(Step::AbortMigration)),
        (Restart, "a", Active, LEAVING, Next::Do(Step::AbortMigration)),
        (Stop, "a", Active, LEAVING, Next::Do(Step::PowerOff)),
        (Delete, "a", Held, LEAVING, Next::Do(Step::PowerOff)),
        (Migrate, "b", Active, None, look()),
        (Migrate, "b", Held, None, look()),
        (Migrate, "c", Active, None, look()),
        (Start, "a", Held, None, look()),
        (Start, "a", Active, None, look()),
        (Restart, "a", Active, None, look()),
        (Failed, "a", Active, None, look()),
        (Start, "b", Active, None, Next::Do(Step::PowerOff)),
        (Start, "b", Held, None, look()),
        (Shutdown, "a", Active, None, Next::Do(Step::AskGuestToShutDown)),
        (Shutdown, "a", Held, None, look()),
        (Stop, "a", Held, None, Next::Do(Step::PowerOff)),
        (Migrate, "b", Off, None, Next::Do(Step::Release)),
        (Start, "a", Off, None, Next::Do(Step::Release)),
        (Stop, "a", Off, None, Next::Do(Step::Release)),
        (Shutdown, "a", Off, None, Next::Do(Step::Release)),
    ];
    for (state, node, local_state, migration, next) in table {
        let mut c = case(state, node, "a b", local_state);
        c.migration = migration;
        assert_eq!(
            c.next(),
            next,
            "desired state {state} on {node}, {local_state:?}, {migration:?}: {}",
            c.plan().why
        );
    }
}

#[test]
fn a_migration_that_is_over_without_an_arrival_on_record_leaves_the_guest_at_its_source_whatever_the_target_has()
 {
    // What is there and has not been let go on never will be: only the claim of that node alone lets it.
    let unknown = || PeerState::Unknown("no route".into());
    for (state, node) in [(Migrate, "b"), (Migrate, "a"), (Start, "a"), (Restart, "a")] {
        for peer_state in [PeerState::Off, PeerState::Held, unknown()] {
            let c = after_look(case(state, node, "a b", Held), peer_state.clone());
            assert_eq!(c.next(), Next::Do(Step::TakeBack), "{state} on {node}, held, {peer_state:?}");
        }
        let c = after_look(case(state, node, "a b", Active), PeerState::Off);
        assert_eq!(c.next(), Next::Do(Step::TakeBack), "{state} on {node}, executes");
        // What executes can wait for the end of what is left there, but not for ever.
        for peer_state in [PeerState::Held, unknown()] {
            let mut c = after_look(case(state, node, "a b", Active), peer_state.clone());
            let until = c.now + ENDS_WITHIN;
            assert!(
                matches!(c.next(), Next::Wait(Some(again)) if again <= until),
                "{state} on {node}, {peer_state:?}: {:?}",
                c.plan()
            );
            c.now = until;
            assert_eq!(c.next(), Next::Do(Step::LookAt(b())), "the old word is none");
            c = after_look(c, peer_state.clone());
            assert_eq!(c.next(), Next::Do(Step::TakeBack), "{state} on {node}, {peer_state:?} for long");
        }
    }
    let mut c = after_look(case(Migrate, "b", "a b", Active), PeerState::Off);
    c.now = c.now + Duration::from_secs(1);
    assert_eq!(c.next(), Next::Do(Step::LookAt(b())), "an old word is none");
}

#[test]
fn what_executes_at_the_target_by_itself_is_the_targets_to_suspend_and_only_in_the_end_the_sources_to_make_way_for()
 {
    let mut c = after_look(case(Migrate, "b", "a b", Active), PeerState::Active);
    let first = c.now;
    let Next::Wait(Some(again)) = c.next() else { panic!("{:?}", c.plan()) };
    assert!(again <= first + Duration::from_secs(1));
    // Each look says so again, for ten seconds.
    for after in [5, 9].map(Duration::from_secs) {
        c.now = first + after;
        c = after_look(c, PeerState::Active);
        assert!(matches!(c.next(), Next::Wait(Some(_))), "{after:?}: {:?}", c.plan());
    }
    c.now = first + SUSPENDS_WITHIN;
    c = after_look(c, PeerState::Active);
    assert_eq!(c.next(), Next::Do(Step::PowerOff));
    c = after_look(c, PeerState::Held);
    assert!(matches!(c.next(), Next::Wait(Some(_))), "it was suspended there: {:?}", c.plan());
    c = after_look(c, PeerState::Active);
    assert!(matches!(c.next(), Next::Wait(Some(_))), "the patience begins anew");

    let left_behind = after_look(case(Migrate, "b", "a b", Held), PeerState::Active);
    assert_eq!(
        left_behind.next(),
        Next::Do(Step::PowerOff),
        "nothing executes here: somebody let it go on there"
    );
}

#[test]
fn while_the_source_claims_it_too_the_target_touches_nothing_and_lets_it_not_execute() {
    for state in VmState::ALL {
        for node in ["a", "b", "c"] {
            for (local_state, migration) in [
                (LocalState::Suspended(Suspension::Elsewhere), None),
                (Held, ARRIVING),
                (Held, None),
                (Arrived, None),
                (Off, None),
            ] {
                let mut c = case(state, node, "b a", local_state);
                c.migration = migration;
                assert_eq!(c.next(), Next::Wait(None), "desired state {state} on {node}, {local_state:?}");
            }
            // Started by somebody else, or let go on by hand: the source may be executing it.
            assert_eq!(
                case(state, node, "b a", Active).next(),
                Next::Do(Step::Suspend),
                "desired state {state} on {node}"
            );
        }
    }
}

#[test]
fn the_target_answers_once_it_executes_there_and_nobody_else_claims_it() {
    let c = case(Migrate, "a", "a", Active);
    assert_eq!(c.next(), Next::Do(Step::Answer(Answer::Running)));
    let mut c = case(Migrate, "a", "a", Held);
    c.migration = ARRIVING;
    assert!(matches!(c.next(), Next::Wait(Some(_))), "a guest of which a part has not arrived does not run");
    let c = case(Start, "a", "", Held);
    assert_eq!(c.next(), Next::Wait(None), "what an unclaiming node sends is adopted once it executes");
    let c = case(Migrate, "a", "a", Arrived);
    assert_eq!(c.next(), Next::Do(Step::Resume));
}

#[test]
fn what_a_fenced_or_failed_other_side_left_held_goes_on_or_ends() {
    for (state, node, next) in [
        (Start, "a", Next::Do(Step::Resume)),
        (Restart, "a", Next::Do(Step::Resume)),
        (Migrate, "b", Next::Do(Step::Resume)),
        (Shutdown, "a", Next::Do(Step::Resume)),
        (Stop, "a", Next::Do(Step::PowerOff)),
        (Delete, "a", Next::Do(Step::PowerOff)),
        (Start, "b", Next::Do(Step::PowerOff)),
    ] {
        for local_state in [Held, Arrived] {
            assert_eq!(
                case(state, node, "a", local_state).next(),
                next,
                "desired state {state} on {node}, {local_state:?}"
            );
        }
    }
    for (node, claim) in [("a", ""), ("b", ""), ("a", "b"), ("b", "b"), ("a", "b c"), ("b", "c")] {
        for state in VmState::ALL {
            let next = case(state, node, claim, Arrived).next();
            assert_eq!(
                next,
                Next::Do(Step::PowerOff),
                "a copy too many: desired state {state} on {node}, claim {claim:?}"
            );
        }
    }
    assert_eq!(case(Migrate, "b", "b", Held).next(), Next::Do(Step::PowerOff), "the claim names only others");
}

#[test]
fn a_migration_looks_shares_migrates_and_lets_go() {
    let mut c = desired(MigrationMethod::None);
    assert_eq!(c.next(), Next::Do(Step::LookAt(b())));
    c = after_look(c, PeerState::Off);
    assert_eq!(c.next(), Next::Do(Step::Share(b())));
    c.attempts.shared(&c.vm);
    c.vm.claim = Field { value: "a b".parse().unwrap(), version: Some(4), zxid: 30 };
    assert_eq!(c.next(), Next::Do(Step::Migrate(b())));
    c.attempts.migrates(&c.vm, c.now);
    assert_eq!(c.next(), Next::Do(Step::LookAt(b())), "a spent permit migrates nothing");
    c.local_state = Off;
    c.left = true;
    assert_eq!(c.next(), Next::Do(Step::HandOver));
    let Some(VmChange::Update { set, .. }) = change(&Step::HandOver, &c.vm, &name("a")) else { panic!() };
    assert_eq!(set, [VmSet::Claim(Claim::only(&b()))]);
}

#[test]
fn a_target_whose_daemon_had_no_session_is_asked_again_soon_and_not_for_ever() {
    let mut c = desired(MigrationMethod::None);
    c.attempts.notice(&c.vm, c.now);
    c = after_look(c, PeerState::Off);
    c.attempts.found_absent(&c.vm, &b(), c.now);
    assert_eq!(c.next(), Next::Wait(Some(c.now + TARGET_AGAIN)));
    assert!(c.plan().why.contains("its daemon has no session"), "{}", c.plan().why);
    c.now = c.now + TARGET_AGAIN;
    assert_eq!(c.next(), Next::Do(Step::LookAt(b())));
    c.now = c.now + TARGET_PATIENCE;
    c.attempts.found_absent(&c.vm, &b(), c.now);
    assert!(matches!(c.next(), Next::Do(Step::Answer(Answer::Stays(_)))), "{}", c.plan().why);
    c.vm.node.value = name("c");
    assert_eq!(c.next(), Next::Do(Step::LookAt(name("c"))), "another target is another matter");
}

/// The source's libvirt may have let it go on when the target's last answer was lost: what the target has is then an old copy.
#[test]
fn only_what_is_on_record_as_arrived_is_handed_over_and_at_once_whatever_the_desired_state() {
    for state in VmState::ALL {
        for node in ["a", "b", "c"] {
            for local_state in [Off, Held] {
                let mut c = case(state, node, "a b", local_state);
                assert_ne!(
                    c.next(),
                    Next::Do(Step::HandOver),
                    "desired state {state} on {node}, {local_state:?}"
                );
                c.left = true;
                assert_eq!(
                    c.next(),
                    Next::Do(Step::HandOver),
                    "desired state {state} on {node}, {local_state:?}"
                );
            }
            let c = case(state, node, "a b", Off);
            assert_eq!(c.next(), Next::Do(Step::Release), "desired state {state} on {node}");
            let Some(VmChange::Update { set, .. }) = change(&Step::Release, &c.vm, &name("a")) else {
                panic!()
            };
            assert_eq!(set, [VmSet::Claim(Claim::none())], "nobody lets the copy go on");
        }
    }
}

#[test]
fn taking_it_back_is_written_before_it_goes_on() {
    let c = case(Migrate, "b", "a b", Held);
    let Some(VmChange::Update { set, expect, .. }) = change(&Step::TakeBack, &c.vm, &name("a")) else {
        panic!()
    };
    assert_eq!(set, [VmSet::Claim(Claim::only(&name("a")))]);
    assert!(expect.contains(&(VmKey::Claim, Some(3))));
    assert_eq!(case(Migrate, "b", "a", Held).next(), Next::Do(Step::Resume));
}

#[test]
fn a_claim_is_shared_only_if_desired_state_node_and_claim_are_as_they_were() {
    let c = desired(MigrationMethod::None);
    let Some(VmChange::Update { expect, set, .. }) = change(&Step::Share(b()), &c.vm, &name("a")) else {
        panic!()
    };
    assert_eq!(set, [VmSet::Claim("a b".parse().unwrap())]);
    for key in [VmKey::State, VmKey::Node, VmKey::Claim] {
        assert!(expect.contains(&(key, Some(3))), "{key:?}");
    }
}

/// What is answered or done after live migration failed so often.
fn after_failures(method: MigrationMethod, failures: u32) -> Case {
    let mut c = desired(method);
    for _ in 0..failures {
        c.attempts.migration_failed(&c.vm, "cpu differs".into(), c.now);
    }
    c.now = c.now + LIVE_AGAIN;
    after_look(c, PeerState::Off)
}

#[test]
fn a_failed_migration_is_tried_again_and_then_answered_as_the_policy_says() {
    use MigrationMethod::{Live, Shutdown};
    for method in [Live, MigrationMethod::None] {
        let mut c = after_failures(method, 1);
        assert_eq!(c.next(), Next::Do(Step::Share(b())));
        c.now = c.now - Duration::from_millis(100);
        assert_eq!(after_look(c, PeerState::Off).next(), Next::Wait(Some(Moment::secs(1005))), "not at once");
    }
    let answer = Answer::Stays("not migrated to b: cpu differs".into());
    assert_eq!(after_failures(Live, 2).next(), Next::Do(Step::Answer(answer)));
    assert_eq!(after_failures(MigrationMethod::None, 2).next(), Next::Do(Step::AskGuestToShutDown));
    assert_eq!(after_failures(Shutdown, 0).next(), Next::Do(Step::AskGuestToShutDown));
}

#[test]
fn no_guest_is_shut_down_for_a_target_that_has_not_said_that_it_could_start_it() {
    for (method, failures) in [(MigrationMethod::Shutdown, 0), (MigrationMethod::None, 2)] {
        let mut c = after_failures(method, failures);
        c.attempts.heard(&c.vm, &b(), Err("no bridge br7".into()));
        let Next::Do(Step::Answer(Answer::Stays(why))) = c.next() else { panic!("{:?}", c.plan()) };
        assert!(why.starts_with("not migrated to b: it could not be started there: no bridge br7"), "{why}");
        assert_eq!(why.contains("cpu differs"), failures > 0, "{why}");
        // What it has said about another desired state, or another node, counts for nothing.
        for (by, later) in [(b(), true), (name("c"), false)] {
            let mut c = after_failures(method, failures);
            c.attempts.heard(&c.vm, &by, Ok(()));
            if later {
                c.vm.state.version = Some(9);
                (0..failures).for_each(|_| {
                    c.attempts.migration_failed(&c.vm, "cpu differs".into(), c.now - LIVE_AGAIN);
                });
                c.attempts.looked(&c.vm, &b(), PeerState::Off, c.now);
            }
            c.attempts.notice(&c.vm, c.now);
            assert!(matches!(c.next(), Next::Wait(Some(_))), "{:?}", c.plan());
            c.now = c.now + TARGET_PATIENCE;
            c.attempts.looked(&c.vm, &b(), PeerState::Off, c.now);
            assert!(matches!(c.next(), Next::Do(Step::Answer(Answer::Stays(_)))), "{:?}", c.plan());
        }
    }
    for (state, node, claim, asks) in [
        (Migrate, "a", "b", true),
        (Migrate, "a", "b a", false),
        (Migrate, "a", "", false),
        (Migrate, "b", "c", false),
        (Start, "a", "b", false),
    ] {
        assert_eq!(is_to_arrive(&name("a"), &vm(state, node, claim)), asks, "{state} on {node}, {claim}");
    }
}

#[test]
fn a_guest_that_was_shut_down_for_its_move_is_started_at_the_target_or_here_again() {
    let mut c = case(Migrate, "b", "a", Off);
    assert_eq!(c.next(), Next::Do(Step::Release));
    c.target = Err("its daemon is in state dead");
    assert!(matches!(c.next(), Next::Do(Step::Answer(Answer::Stays(_)))));
    assert_eq!(case(Migrate, "a", "", Off).next(), Next::Do(Step::Answer(Answer::Running)), "b's side of it");
}

#[test]
fn a_target_that_cannot_take_it_is_waited_for_but_not_for_ever_and_never_with_a_guest_shut_down() {
    for method in [MigrationMethod::None, MigrationMethod::Live, MigrationMethod::Shutdown] {
        for peer_state in [None, Some(PeerState::Unknown("no route".into())), Some(PeerState::Active)] {
            let mut c = desired(method);
            c.attempts.notice(&c.vm, c.now);
            if peer_state.is_none() {
                c.target = Err("its daemon is in state stop");
            }
            let begin = c.now;
            let reason = loop {
                if let Some(peer_state) = &peer_state {
                    c = after_look(c, peer_state.clone());
                }
                match c.next() {
                    Next::Wait(Some(until)) => c.now = until,
                    Next::Do(Step::Answer(Answer::Stays(reason))) => break reason,
                    other => panic!("{method}: {other:?}"),
                }
                assert!(c.now.since(begin) <= TARGET_PATIENCE);
            };
            assert_eq!(c.now.since(begin), TARGET_PATIENCE, "{reason}");
        }
    }
}

#[test]
fn a_vm_that_stays_is_at_home_unless_its_home_is_elsewhere() {
    let stays = Step::Answer(Answer::Stays("because".into()));
    for (last, kept) in [(Some("a"), false), (Some("c"), true), (None, true)] {
        let mut c = desired(MigrationMethod::None);
        c.vm.last_node.value = last.map(name);
        let Some(VmChange::Update { set, expect, .. }) = change(&stays, &c.vm, &name("a")) else { panic!() };
        assert_eq!(
            set[..3],
            [VmSet::State(Start), VmSet::Node(name("a")), VmSet::FailedReason("because".into())]
        );
        assert_eq!(set.contains(&VmSet::LastNode(None)), !kept);
        assert_eq!(expect.iter().any(|(key, _)| *key == VmKey::LastNode), !kept);
    }
}

#[test]
fn a_migration_that_sends_nothing_or_all_of_it_too_often_is_aborted() {
    let mut c = case(Migrate, "b", "a b", Active);
    c.migration = LEAVING;
    c.attempts.migrates(&c.vm, c.now);
    let Some(Migration::Leaving(progress)) = LEAVING else { panic!() };
    c.attempts.progressed(&c.vm, progress, c.now);
    c.now = Moment(c.now.0 + STALLED) - Duration::from_secs(1);
    assert!(matches!(c.next(), Next::Wait(_)));
    c.now = c.now + Duration::from_secs(1);
    assert_eq!(c.next(), Next::Do(Step::AbortMigration), "{}", c.plan().why);
    c.attempts.aborts(&c.vm, c.now);
    assert!(matches!(c.next(), Next::Wait(Some(_))), "once is enough");

    let mut c = case(Migrate, "b", "a b", Active);
    let endless = Progress { sent: 12_000, ..progress };
    c.migration = Some(Migration::Leaving(endless));
    c.attempts.migrates(&c.vm, c.now);
    c.attempts.progressed(&c.vm, endless, c.now);
    assert_eq!(c.next(), Next::Do(Step::AbortMigration));
    c.attempts.migration_failed(&c.vm, "canceled by client".into(), c.now);
    c.vm.claim.value = Claim::only(&name("a"));
    c.migration = None;
    c.now = c.now + LIVE_AGAIN;
    c.vm.migration_method = MigrationMethod::Live;
    let Next::Do(Step::Answer(Answer::Stays(reason))) = after_look(c, PeerState::Off).next() else {
        panic!()
    };
    assert!(reason.contains("changes its memory faster"), "once is enough, and the reason is kept: {reason}");
}

#[test]
fn progress_is_told_in_words() {
    let mut c = case(Migrate, "b", "a b", Active);
    c.migration = LEAVING;
    assert_eq!(c.plan().why, "migrating to b: 50 % copied in 3 s");
}
