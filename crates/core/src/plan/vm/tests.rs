//! The tables of protocols: claims and a VM's life, one row a case; and walks over random worlds.

mod claims;
mod halted;
mod kept;
mod migration;
mod unreadable;
mod worlds;

use std::collections::BTreeSet;

use super::*;
use crate::model::{Claim, Field, MigrationMethod, VmChange, VmId, VmKey, VmSet};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn field<T>(value: T, zxid: i64) -> Field<T> {
    Field { value, version: Some(3), zxid }
}

/// A VM desired `state` on `node`, claimed by `claim`; the desired state is younger than the claim.
fn vm(state: VmState, node: &str, claim: &str) -> Vm {
    Vm {
        id: "11111111-0000-4000-8000-000000000001".parse::<VmId>().unwrap(),
        name: "web1".parse().unwrap(),
        state: field(state, 20),
        node: field(name(node), 5),
        last_node: field(None, 5),
        failed_reason: field(String::new(), 5),
        claim: field(claim.parse().unwrap(), 10),
        migration_method: MigrationMethod::default(),
        rbd_images: vec![],
        xml_version: Some(0),
        xml_zxid: Some(0),
        unread: BTreeSet::new(),
        problems: vec![],
    }
}

struct Case {
    vm: Vm,
    local_state: LocalState,
    migration: Option<Migration>,
    halt: Option<Halt>,
    left: bool,
    target: Result<(), &'static str>,
    definition: Result<(), &'static str>,
    standing: Standing,
    attempts: Attempts,
    now: Moment,
}

fn case(state: VmState, node: &str, claim: &str, local_state: LocalState) -> Case {
    Case {
        vm: vm(state, node, claim),
        local_state,
        migration: None,
        halt: None,
        left: false,
        target: Ok(()),
        definition: Ok(()),
        standing: Standing::Current,
        attempts: Attempts::default(),
        now: Moment::secs(1000),
    }
}

impl Case {
    fn plan(&self) -> Plan {
        let me = name("a");
        let Case { vm, local_state, halt, migration, left, target, definition, standing, attempts, now } =
            self;
        plan(&Facts {
            me: &me,
            vm: Some(vm),
            orphan: None,
            tidies_up: false,
            last_word: Ok(()),
            local_state: *local_state,
            migration: *migration,
            halt: *halt,
            left: *left,
            target: *target,
            definition: *definition,
            standing: *standing,
            attempts,
            now: *now,
        })
    }

    fn next(&self) -> Next {
        self.plan().next
    }
}

use LocalState::{Active, Arrived, Held, Off, Unstarted};
use VmState::{Delete, Failed, Migrate, Restart, Shutdown, Start, Stop};

#[test]
fn the_table_of_a_vms_life_holds() {
    use Answer::{Running, Stopped};
    let table = [
        // desired state, node, claim, fact here → next
        (Start, "a", "", Off, Next::Do(Step::Claim)),
        (Start, "a", "a", Off, Next::Do(Step::Claim)),
        (Start, "a", "b", Off, Next::Wait(None)),
        (Start, "a", "a b", Off, Next::Do(Step::Release)),
        (Start, "a", "b a", Off, Next::Wait(None)),
        (Start, "a", "", Active, Next::Do(Step::Adopt)),
        (Start, "a", "a", Active, Next::Settled),
        (Start, "b", "", Off, Next::Settled),
        (Start, "b", "b", Off, Next::Settled),
        (Start, "b", "a", Off, Next::Do(Step::Release)),
        (Start, "b", "a", Active, Next::Do(Step::PowerOff)),
        (Start, "b", "", Active, Next::Do(Step::Adopt)),
        (Start, "a", "b", Active, Next::Do(Step::PowerOff)),
        (Stop, "a", "a", Active, Next::Do(Step::PowerOff)),
        (Stop, "a", "", Active, Next::Do(Step::Adopt)),
        (Stop, "a", "a", Off, Next::Do(Step::Release)),
        (Stop, "a", "", Off, Next::Settled),
        (Stop, "b", "a", Active, Next::Do(Step::PowerOff)),
        (Shutdown, "a", "a", Active, Next::Do(Step::AskGuestToShutDown)),
        (Shutdown, "b", "a", Active, Next::Do(Step::AskGuestToShutDown)),
        (Shutdown, "a", "a", Off, Next::Do(Step::Answer(Stopped))),
        (Shutdown, "b", "a", Off, Next::Do(Step::Answer(Stopped))),
        (Shutdown, "a", "", Off, Next::Do(Step::Answer(Stopped))),
        (Shutdown, "a", "b", Off, Next::Wait(None)),
        (Restart, "a", "a", Active, Next::Do(Step::AskGuestToShutDown)),
        (Restart, "a", "a", Off, Next::Do(Step::Claim)),
        (Restart, "a", "", Off, Next::Do(Step::Claim)),
        (Restart, "b", "a", Active, Next::Do(Step::PowerOff)),
        (Migrate, "a", "", Off, Next::Do(Step::Answer(Running))),
        (Migrate, "a", "a", Off, Next::Do(Step::Claim)),
        (Migrate, "a", "b", Off, Next::Wait(None)),
        (Migrate, "a", "a", Active, Next::Do(Step::Answer(Running))),
        (Migrate, "b", "a", Active, Next::Do(Step::LookAt(name("b")))),
        (Migrate, "b", "a", Off, Next::Do(Step::Release)),
        (Delete, "a", "a", Active, Next::Do(Step::PowerOff)),
        (Delete, "a", "a", Off, Next::Do(Step::Release)),
        (Delete, "a", "", Off, Next::Settled),
        (Failed, "a", "a", Active, Next::Settled),
        (Failed, "a", "", Active, Next::Do(Step::Adopt)),
        (Failed, "a", "", Off, Next::Settled),
        (Failed, "b", "a", Active, Next::Do(Step::PowerOff)),
    ];
    for (state, node, claim, local_state, next) in table {
        let case = case(state, node, claim, local_state);
        assert_eq!(
            case.next(),
            next,
            "desired state {state} on {node}, claim {claim:?}, {local_state:?}: {}",
            case.plan().why
        );
    }
}

#[test]
fn what_a_start_left_behind_is_let_go_where_it_shall_run_and_claimed_and_ended_everywhere_else() {
    for (state, node, claim, step) in [
        (Start, "a", "a", Step::Resume),
        (Start, "a", "", Step::PowerOff),
        (Start, "a", "b", Step::PowerOff),
        (Start, "a", "a b", Step::PowerOff),
        (Start, "a", "b a", Step::PowerOff),
        (Start, "b", "a", Step::PowerOff),
        (Start, "b", "", Step::PowerOff),
        (Start, "b", "b", Step::PowerOff),
        (Stop, "a", "a", Step::PowerOff),
        (Shutdown, "a", "a", Step::PowerOff),
        (Failed, "a", "a", Step::PowerOff),
        (Delete, "a", "a", Step::PowerOff),
        (Migrate, "b", "a", Step::PowerOff),
    ] {
        assert_eq!(
            case(state, node, claim, Unstarted).next(),
            Next::Do(step),
            "{state} on {node}, claim {claim:?}"
        );
    }
    let mut restart = case(Restart, "a", "a", Unstarted);
    assert_eq!(restart.next(), Next::Do(Step::PowerOff), "it was made before the desired state");
    restart.vm.claim.zxid = restart.vm.state.zxid + 1;
    assert_eq!(restart.next(), Next::Do(Step::Resume));
}

#[test]
fn a_vm_is_started_only_under_a_claim_made_for_this_start() {
    let mut c = case(Start, "a", "", Off);
    c.attempts.claimed(&c.vm);
    assert_eq!(c.next(), Next::Do(Step::Claim), "the claim is not yet seen");
    c.vm.claim = Field { value: Claim::only(&name("a")), version: Some(4), zxid: 30 };
    assert_eq!(c.next(), Next::Do(Step::Start));
    c.attempts.start_attempted(&c.vm, c.now);
    c.now = c.now + Duration::from_secs(5);
    assert_eq!(c.next(), Next::Do(Step::Claim), "a spent permit starts nothing");
}

#[test]
fn a_permit_dies_with_the_desired_state_it_was_made_for() {
    let mut c = case(Start, "a", "", Off);
    c.attempts.claimed(&c.vm);
    c.vm.claim = Field { value: Claim::only(&name("a")), version: Some(4), zxid: 30 };
    c.vm.state.version = Some(9);
    assert_eq!(c.next(), Next::Do(Step::Claim));
}

#[test]
fn nothing_is_done_while_the_view_is_old_or_libvirt_is_silent() {
    let me = name("a");
    let attempts = Attempts::default();
    for state in VmState::ALL {
        for claim in ["", "a", "b"] {
            for local_state in [Active, Arrived, Off, Unstarted, LocalState::Unknown] {
                let vm = vm(state, "a", claim);
                let facts = Facts {
                    me: &me,
                    vm: Some(&vm),
                    orphan: None,
                    tidies_up: false,
                    last_word: Ok(()),
                    local_state,
                    migration: None,
                    halt: None,
                    left: false,
                    target: Ok(()),
                    definition: Ok(()),
                    standing: Standing::OutOfReach,
                    attempts: &attempts,
                    now: Moment::secs(1),
                };
                assert_eq!(plan(&facts).next, Next::Wait(None));
            }
            let unknown = case(state, "a", claim, LocalState::Unknown);
            assert_eq!(unknown.next(), Next::Wait(None));
        }
    }
}

#[test]
fn a_node_that_is_held_for_dead_lets_nothing_execute_and_ends_what_is_not_its_own() {
    let table = [
        // desired state, node, claim, fact here, then as one that lives → as one that is held for dead
        (Start, "a", "", Active, Step::Adopt, None),
        (Start, "b", "", Active, Step::Adopt, None),
        (Start, "a", "", Off, Step::Claim, None),
        (Start, "a", "a", Off, Step::Claim, None),
        (Start, "a", "a", LocalState::Suspended(Suspension::Elsewhere), Step::Resume, None),
        (Start, "b", "b", Active, Step::PowerOff, Some(Step::PowerOff)),
        (Stop, "a", "a", Active, Step::PowerOff, Some(Step::PowerOff)),
        (Stop, "a", "a", Off, Step::Release, Some(Step::Release)),
    ];
    for (state, node, claim, local_state, lives, dead) in table {
        let mut case = case(state, node, claim, local_state);
        assert_eq!(case.next(), Next::Do(lives), "{state} {node} {claim} {local_state:?}");
        case.standing = Standing::HeldForDead;
        let next = dead.map_or(Next::Wait(Some(case.now + HEAR_AGAIN)), Next::Do);
        assert_eq!(case.next(), next, "{state} {node} {claim} {local_state:?}");
    }
}

#[test]
fn what_runs_but_is_in_no_state_tree_is_left_alone() {
    let me = name("a");
    let facts = Facts {
        me: &me,
        vm: None,
        orphan: None,
        tidies_up: false,
        last_word: Ok(()),
        local_state: Active,
        migration: None,
        halt: None,
        left: false,
        target: Ok(()),
        definition: Ok(()),
        standing: Standing::Current,
        attempts: &Attempts::default(),
        now: Moment::secs(1),
    };
    assert_eq!(plan(&facts).next, Next::Wait(None));
}

#[test]
fn a_guest_that_ignores_the_button_is_asked_every_15_s_and_powered_off_after_90() {
    let mut c = case(Shutdown, "a", "a", Active);
    let begin = c.now;
    let mut seen = vec![];
    while c.now.since(begin) <= Duration::from_secs(90) {
        match c.next() {
            Next::Do(Step::AskGuestToShutDown) => {
                seen.push((c.now.since(begin).as_secs(), "ask"));
                c.attempts.asked_to_shut_down(&c.vm, c.now);
            }
            Next::Do(Step::PowerOff) => {
                seen.push((c.now.since(begin).as_secs(), "off"));
                break;
            }
            Next::Wait(Some(until)) => c.now = until,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        seen,
        [(0, "ask"), (15, "ask"), (30, "ask"), (45, "ask"), (60, "ask"), (75, "ask"), (90, "off")]
    );
}

#[test]
fn a_desired_state_changed_during_the_grace_wins() {
    let mut c = case(Shutdown, "a", "a", Active);
    c.attempts.asked_to_shut_down(&c.vm, c.now);
    c.vm.state = Field { value: Start, version: Some(4), zxid: 40 };
    assert_eq!(c.next(), Next::Settled);
}

#[test]
fn a_restarted_instance_is_told_from_the_old_one_across_a_crash_of_the_daemon() {
    let mut c = case(Restart, "a", "a", Active);
    assert_eq!(
        c.next(),
        Next::Do(Step::AskGuestToShutDown),
        "claimed before the desired state: the old instance"
    );
    c.vm.claim.zxid = 21;
    assert_eq!(
        c.next(),
        Next::Do(Step::Answer(Answer::Running)),
        "claimed after the desired state: the new instance"
    );
}

/// The claims that are written without a start, each where its guest lives on.
fn of_guests_that_live_on(desired: VmState) -> [(Step, Case); 3] {
    [
        (Step::Adopt, case(desired, "a", "", Active)),
        (Step::HandOver, Case { left: true, ..case(desired, "b", "a b", Off) }),
        (Step::TakeBack, migration::after_look(case(desired, "a", "a b", Active), PeerState::Off)),
    ]
}

#[test]
fn a_claim_that_follows_no_start_keeps_the_old_instance_recognisable() {
    for (step, c) in of_guests_that_live_on(Restart) {
        assert_eq!(c.next(), Next::Do(step.clone()));
        let Some(VmChange::Update { set, .. }) = change(&step, &c.vm, &name("a")) else { panic!() };
        let together = set.contains(&VmSet::State(Restart));
        assert!(together, "{step:?}: written together, so the claim is not younger than the command");
    }
}

#[test]
fn a_restart_that_is_desired_while_such_a_claim_is_on_its_way_is_a_conflict() {
    for (step, c) in of_guests_that_live_on(Start) {
        let Some(VmChange::Update { expect, set, .. }) = change(&step, &c.vm, &name("a")) else { panic!() };
        assert!(expect.contains(&(VmKey::State, Some(3))), "{step:?}");
        assert_eq!(set.len(), 1, "{step:?}");
    }
}

#[test]
fn a_crash_loop_backs_off_and_ends_in_failed_after_10_starts() {
    let mut c = case(Start, "a", "a", Off);
    let begin = c.now;
    let mut pauses = vec![];
    let failed = loop {
        match c.next() {
            Next::Do(Step::Claim) => {
                c.attempts.claimed(&c.vm);
                c.vm.claim.version = c.vm.claim.version.map(|v| v + 1);
            }
            Next::Do(Step::Start) => c.attempts.start_attempted(&c.vm, c.now),
            Next::Wait(Some(until)) => {
                pauses.push(until.since(c.now).as_secs());
                c.now = until;
            }
            Next::Do(Step::Answer(Answer::Failed(reason))) => break reason,
            other => panic!("{other:?}"),
        }
        assert!(c.now.since(begin) < START_WINDOW);
    };
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert!(failed.contains("10 times in 10 minutes"), "{failed}");
}

#[test]
fn what_cannot_be_started_here_for_half_a_minute_is_given_away_or_tried_on() {
    let mut c = case(Start, "a", "a", Off);
    let begin = c.now;
    while c.next() != Next::Do(Step::GiveAway) {
        match c.next() {
            Next::Do(Step::Claim) => c.attempts.start_refused(&c.vm, "no bridge br7".into(), c.now),
            Next::Wait(Some(until)) => c.now = until,
            other => panic!("{other:?}"),
        }
        assert!(c.now.since(begin) < Duration::from_mins(2));
    }
    assert!(c.now.since(begin) >= ELSEWHERE_AFTER);
    c.attempts.found_no_target(&c.vm, "no node can take it".into(), c.now);
    assert_eq!(c.next(), Next::Do(Step::Claim), "it is due, and tried here again");
    c.attempts.start_refused(&c.vm, "no bridge br7".into(), c.now);
    let waits = c.plan();
    assert!(
        matches!(waits.next, Next::Wait(Some(_))) && waits.why.contains("elsewhere: no node"),
        "{waits:?}"
    );
    for (home, to, kept) in [(None, "b", Some("a")), (Some("c"), "b", Some("c")), (Some("b"), "b", None)] {
        c.vm.last_node.value = home.map(name);
        let VmChange::Update { set, expect, .. } = give_away(&c.vm, &name("a"), &name(to), "why") else {
            panic!()
        };
        assert!(
            set.contains(&VmSet::LastNode(kept.map(name))) && set.contains(&VmSet::Claim(Claim::none())),
            "{set:?}"
        );
        assert!(set.contains(&VmSet::State(Start)) && set.contains(&VmSet::Node(name(to))), "{set:?}");
        assert_eq!(expect.len(), 4, "{expect:?}");
    }
}

#[test]
fn a_new_desired_state_is_not_held_up_by_an_old_crash_loop() {
    let mut c = case(Start, "a", "a", Off);
    for _ in 0..5 {
        c.attempts.start_attempted(&c.vm, c.now);
    }
    assert!(matches!(c.next(), Next::Wait(Some(_))));
    c.vm.state.version = Some(4);
    assert_eq!(c.next(), Next::Do(Step::Claim));
}

#[test]
fn a_vm_that_ran_for_long_is_restarted_after_one_second() {
    let mut c = case(Start, "a", "a", Off);
    c.attempts.start_attempted(&c.vm, c.now);
    c.now = c.now + Duration::from_hours(1);
    assert_eq!(c.next(), Next::Do(Step::Claim));
}

#[test]
fn every_answer_is_checked_against_desired_state_node_and_claim() {
    let c = case(Shutdown, "a", "a", Off);
    for answer in [
        Answer::Running,
        Answer::Stopped,
        Answer::Failed("x".into()),
        Answer::Stays("x".into()),
        Answer::ReasonVoid,
    ] {
        let Some(VmChange::Update { expect, .. }) = change(&Step::Answer(answer), &c.vm, &name("a")) else {
            panic!()
        };
        for key in [VmKey::State, VmKey::Node, VmKey::Claim] {
            assert!(expect.contains(&(key, Some(3))), "{key:?}");
        }
    }
}

#[test]
fn a_failure_that_is_over_is_cleared() {
    let mut c = case(Start, "a", "a", Active);
    c.vm.failed_reason.value = "no such disk".into();
    assert_eq!(c.next(), Next::Do(Step::Answer(Answer::ReasonVoid)));
    c.vm.failed_reason.zxid = c.vm.state.zxid;
    assert_eq!(c.next(), Next::Settled, "a reason given with the last answer is what that answer means");
}
