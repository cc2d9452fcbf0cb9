//! Guests that have a process and do not execute.

use super::*;

fn halted(state: VmState, node: &str, halt: Halt) -> Case {
    Case { halt: Some(halt), ..case(state, node, "a", Active) }
}

#[test]
fn what_has_crashed_is_started_anew_with_the_crash_rules_back_off_and_all_else_is_left_alone() {
    for halt in Halt::ALL {
        let plan = halted(Start, "a", halt).plan();
        if halt == Halt::Crashed {
            assert_eq!(plan.next, Next::Do(Step::PowerOff));
        } else {
            assert_eq!(plan.next, Next::Wait(None), "{halt}");
            assert!(plan.why.contains(halt.what()) && plan.why.contains("left alone"), "{}", plan.why);
        }
        assert_eq!(halted(Failed, "a", halt).next(), Next::Settled, "{halt}");
        assert_eq!(halted(Stop, "a", halt).next(), Next::Do(Step::PowerOff), "{halt}");
    }
    let crashed = halted(Start, "a", Halt::Crashed);
    assert!(needs_definition(&name("a"), &crashed.vm, Active, crashed.halt));
    let lost = Case { definition: Err("it is missing"), ..crashed };
    assert_eq!(lost.next(), Next::Wait(None), "what could not be started again is not ended");
    // Once it is off it is a VM that ran and vanished.
    let mut off = case(Start, "a", "a", Off);
    assert_eq!(off.next(), Next::Do(Step::Claim));
    off.attempts.claimed(&off.vm);
    off.attempts.start_attempted(&off.vm, off.now);
    assert!(matches!(off.next(), Next::Wait(Some(_))), "back-off");
}

#[test]
fn a_power_button_that_nobody_hears_is_not_waited_for() {
    for halt in Halt::ALL {
        for state in [Shutdown, Restart] {
            let plan = halted(state, "a", halt).plan();
            let step = if halt == Halt::Busy { Step::AskGuestToShutDown } else { Step::PowerOff };
            assert_eq!(plan.next, Next::Do(step), "{state} of {halt}");
            assert!(halt == Halt::Busy || plan.why.contains(halt.what()), "{}", plan.why);
        }
        let mut c = halted(Shutdown, "a", halt);
        c.vm.claim = field(Claim::unknown(), 3);
        c.vm.unread.insert(VmKey::Claim);
        let asks = matches!(c.next(), Next::Do(Step::AskGuestToShutDown));
        assert_eq!(asks, halt == Halt::Busy, "{halt}");
    }
}

#[test]
fn what_does_not_execute_where_it_arrived_is_answered_with_the_reason() {
    for (state, halt) in [(Migrate, Halt::Paused), (Migrate, Halt::IoError), (Restart, Halt::Paused)] {
        let mut c = halted(state, "a", halt);
        c.vm.claim.zxid = c.vm.state.zxid + 1;
        let Next::Do(Step::Answer(Answer::Halted(reason))) = c.next() else { panic!("{state} {halt}") };
        assert!(reason.starts_with("it does not execute: ") && reason.contains(halt.what()), "{reason}");
        // The answer is the last word until it executes again.
        let mut answered = halted(Start, "a", halt);
        answered.vm.failed_reason = field(reason.clone(), 99);
        assert_eq!(answered.next(), Next::Wait(None));
        answered.halt = None;
        assert_eq!(answered.next(), Next::Do(Step::Answer(Answer::ReasonVoid)));
        let set = change(&Step::Answer(Answer::Halted(reason.clone())), &c.vm, &name("a")).unwrap();
        let VmChange::Update { expect, set, .. } = set else { panic!("{set:?}") };
        assert!(set.contains(&VmSet::State(Start)) && set.contains(&VmSet::FailedReason(reason)));
        assert!(
            [VmKey::State, VmKey::Node, VmKey::Claim].iter().all(|key| expect.iter().any(|(k, _)| k == key))
        );
    }
}

#[test]
fn what_is_paused_migrates_as_it_is_and_what_has_crashed_is_moved_by_an_end_and_a_start() {
    let peer_state = |halt, method| {
        let mut c = halted(Migrate, "b", halt);
        c.vm.migration_method = method;
        c.attempts.looked(&c.vm, &name("b"), PeerState::Off, c.now);
        c.attempts.heard(&c.vm, &name("b"), Ok(()));
        c.next()
    };
    for method in [MigrationMethod::None, MigrationMethod::Live] {
        assert_eq!(peer_state(Halt::Paused, method), Next::Do(Step::Share(name("b"))));
        assert_eq!(peer_state(Halt::IoError, method), Next::Do(Step::Share(name("b"))));
        assert_eq!(peer_state(Halt::Crashed, method), Next::Do(Step::PowerOff));
    }
    assert_eq!(peer_state(Halt::Paused, MigrationMethod::Shutdown), Next::Do(Step::PowerOff));
}

#[test]
fn what_arrived_paused_by_hand_waits_for_its_source_and_is_not_suspended_again_and_again() {
    let mut c = case(Migrate, "a", "b a", Active);
    assert_eq!(c.next(), Next::Do(Step::Suspend));
    c.halt = Some(Halt::Paused);
    assert_eq!(c.next(), Next::Wait(None));
}
