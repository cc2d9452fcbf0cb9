//! What a VM's keys say that clients of the 0.5 generation write, and what nobody can read: no VM is wedged by it.

use super::*;

/// … and its keys say so much else.
fn with(mut case: Case, unread: &[VmKey]) -> Case {
    case.vm.unread = unread.iter().copied().collect();
    case
}

/// `node` = `None`.
fn nowhere(state: VmState, claim: &str, local_state: LocalState) -> Case {
    let mut case = with(case(state, "b", claim, local_state), &[VmKey::Node]);
    case.vm.node.value = NodeName::nobody();
    case
}

fn sets(step: &Step, vm: &Vm) -> Vec<VmSet> {
    match change(step, vm, &name("a")) {
        Some(VmChange::Update { set, .. }) => set,
        other => panic!("no update: {other:?}"),
    }
}

#[test]
fn a_migration_to_no_node_in_particular_is_one_to_a_node_that_is_chosen() {
    let mut c = nowhere(Migrate, "a", Active);
    assert_eq!(c.next(), Next::Do(Step::Choose), "the guest is not ended for it");
    c.attempts.found_no_target(&c.vm.clone(), "no node can take it".into(), c.now);
    c.attempts.notice(&c.vm.clone(), c.now);
    assert!(matches!(c.next(), Next::Wait(Some(_))));
    c.now = c.now + TARGET_PATIENCE;
    assert_eq!(c.next(), Next::Do(Step::Choose), "an old answer is none");
    c.attempts.found_no_target(&c.vm.clone(), "no node can take it".into(), c.now);
    let reason = "not migrated: no node can take it";
    let stays = Step::Answer(Answer::Stays(reason.into()));
    assert_eq!(c.next(), Next::Do(stays.clone()));
    let stays = sets(&stays, &c.vm);
    assert!(stays.contains(&VmSet::Node(name("a"))) && stays.contains(&VmSet::State(Start)), "{stays:?}");
    let VmChange::Update { expect, set, .. } = choose(&c.vm, &name("c")) else { panic!("no update") };
    assert_eq!(set, [VmSet::Node(name("c"))]);
    assert_eq!(expect.len(), 3, "desired state, node and claim are checked");
    assert_eq!(nowhere(Migrate, "b", Off).next(), Next::Settled, "the source chooses, nobody else");
}

#[test]
fn a_vm_that_shall_run_nowhere_in_particular_is_placed_by_the_primary() {
    for state in [Start, Restart, Migrate] {
        let case = nowhere(state, "", Off);
        assert_eq!(case.next(), Next::Settled, "{state}: this node does not choose");
        let me = name("a");
        let facts = Facts {
            me: &me,
            vm: Some(&case.vm),
            local_state: Off,
            migration: None,
            halt: None,
            left: false,
            target: Ok(()),
            definition: Ok(()),
            tidies_up: true,
            orphan: None,
            last_word: Ok(()),
            standing: Standing::Current,
            attempts: &case.attempts,
            now: case.now,
        };
        assert_eq!(plan(&facts).next, Next::Do(Step::Choose), "{state}");
        let claimed = nowhere(state, "b", Off);
        assert_eq!(
            plan(&Facts { vm: Some(&claimed.vm), ..facts }).next,
            Next::Settled,
            "{state}: somebody has it"
        );
    }
    for state in [Stop, Shutdown, Failed, Delete] {
        assert_eq!(nowhere(state, "", Off).next(), Next::Settled, "{state}");
    }
    assert!(concerns(&name("a"), &nowhere(Start, "", Off).vm));
}

#[test]
fn the_old_word_unmigrate_is_a_migration_home_and_its_answer_says_where_it_is() {
    // As it is read: `migrate` to what `lastnode` says, and no `lastnode`.
    let all = [VmKey::State, VmKey::Node, VmKey::LastNode];
    let c = with(case(Migrate, "b", "a", Active), &all);
    assert_eq!(c.next(), Next::Do(Step::LookAt(name("b"))));
    let home = with(case(Migrate, "a", "a", Active), &all);
    assert_eq!(home.next(), Next::Do(Step::Answer(Answer::Running)));
    let expected = [VmSet::State(Start), VmSet::Node(name("a")), VmSet::LastNode(None)];
    assert_eq!(sets(&Step::Answer(Answer::Running), &home.vm), expected);
    let usual = case(Migrate, "a", "a", Active);
    assert_eq!(
        sets(&Step::Answer(Answer::Running), &usual.vm),
        [VmSet::State(Start)],
        "what is there is not written"
    );
}

/// An old client's migration to `None` that an operator has taken back while the claimant was off.
#[test]
fn who_claims_a_vm_whose_node_cannot_be_read_says_that_it_runs_here() {
    let c = with(case(Start, "a", "a", Off), &[VmKey::Node]);
    assert_eq!(c.next(), Next::Do(Step::Claim));
    let claimed = VmSet::Claim(Claim::only(&name("a")));
    assert_eq!(sets(&Step::Claim, &c.vm), [claimed.clone(), VmSet::Node(name("a"))]);
    let readable = case(Start, "a", "a", Off);
    assert_eq!(sets(&Step::Claim, &readable.vm), [claimed], "what is there is not written");
    // The claimant's daemon was away for it, and the guest runs on.
    let running = with(case(Start, "a", "a", Active), &[VmKey::Node]);
    assert_eq!(running.next(), Next::Do(Step::Answer(Answer::Running)));
    assert_eq!(sets(&Step::Answer(Answer::Running), &running.vm), [VmSet::Node(name("a"))]);
    let mut paused = with(case(Start, "a", "a", Active), &[VmKey::Node]);
    paused.halt = Some(Halt::Paused);
    assert!(matches!(paused.next(), Next::Do(Step::Answer(Answer::Halted(_)))), "{:?}", paused.next());
}

#[test]
fn a_vm_whose_desired_state_cannot_be_read_goes_on_as_it_is_and_can_be_told_otherwise() {
    // As it is read: `start` where it is claimed, `stop` where nobody claims it.
    let unread =
        |state, claim, local_state| with(case(state, "a", claim, local_state), &[VmKey::State, VmKey::Node]);
    assert_eq!(unread(Start, "a", Active).next(), Next::Settled);
    assert_eq!(unread(Start, "a", Off).next(), Next::Do(Step::Claim), "it has crashed and starts again");
    assert_eq!(unread(Stop, "", Off).next(), Next::Settled);
    assert_eq!(unread(Stop, "", Active).next(), Next::Do(Step::Adopt), "what runs is not ended");
}

#[test]
fn what_is_half_deleted_neither_starts_nor_is_ended_and_nothing_is_created_below_it() {
    for claim in ["", "a", "b", "a b", "b a"] {
        for local_state in [Active, Off] {
            let mut c = with(
                case(if claim.is_empty() { Stop } else { Start }, "a", claim, local_state),
                &[VmKey::State],
            );
            c.vm.state.version = None;
            let next = c.next();
            if let Next::Do(step) = &next {
                assert!(
                    !matches!(step, Step::Claim | Step::Start | Step::AskGuestToShutDown),
                    "{claim:?}: {next:?}"
                );
                assert!(
                    *step != Step::PowerOff || !c.vm.claim.value.names(&name("a")),
                    "{claim:?}: {next:?}"
                );
                if let Some(VmChange::Update { set, .. }) = change(step, &c.vm, &name("a")) {
                    assert!(set.iter().all(|set| matches!(set, VmSet::Claim(_))), "{claim:?}: {set:?}");
                }
            }
        }
    }
}

#[test]
fn a_claim_that_cannot_be_read_lets_nothing_start_and_nothing_be_ended_but_by_a_desired_state() {
    for state in VmState::ALL {
        for local_state in [Active, Held, Unstarted, Off] {
            let mut c = with(case(state, "a", "", local_state), &[VmKey::Claim]);
            c.vm.claim.value = Claim::unknown();
            let ended = Next::Do(Step::PowerOff);
            let expected = match (state, local_state) {
                (Stop | Delete, Active) => ended,
                (Shutdown, Active) => Next::Do(Step::AskGuestToShutDown),
                _ => Next::Wait(None),
            };
            assert_eq!(c.next(), expected, "{state} {local_state:?}");
        }
    }
}

#[test]
fn the_way_home_that_a_refused_desired_state_has_cleared_is_put_back_with_the_answer() {
    let me = name("a");
    let mut attempts = Attempts::default();
    let mut visiting = case(Start, "a", "a", Active).vm;
    visiting.last_node = field(Some(name("b")), 5);
    attempts.saw_home(&visiting);
    // An old `unmigrate` to `b`, which takes no VMs.
    let mut refused = case(Migrate, "b", "a", Active).vm;
    refused.state.version = Some(9);
    attempts.notice(&refused, Moment::secs(1));
    let home = attempts.home().expect("a new desired state does not make it forget");
    let answer = change(&Step::Answer(Answer::Stays("it takes no VMs".into())), &refused, &me).unwrap();
    let VmChange::Update { expect, set, .. } = put_back(answer.clone(), &refused, &me, home) else {
        panic!()
    };
    assert!(
        set.contains(&VmSet::LastNode(Some(name("b")))) && set.contains(&VmSet::Node(me.clone())),
        "{set:?}"
    );
    assert!(expect.contains(&(VmKey::LastNode, refused.last_node.version)), "{expect:?}");
    refused.last_node.value = Some(name("c"));
    assert_eq!(put_back(answer.clone(), &refused, &me, home), answer, "what was not cleared stands");
    refused.last_node.value = None;
    assert_eq!(put_back(answer.clone(), &refused, &me, &me), answer, "it is at home");
}

#[test]
fn no_answer_writes_a_desired_state_that_is_there_already() {
    let me = name("a");
    let answers = [Answer::Running, Answer::Stopped, Answer::Failed("x".into()), Answer::Stays("x".into())];
    for state in VmState::ALL {
        for node in ["a", "b"] {
            let vm = case(state, node, "a", Active).vm;
            for answer in &answers {
                for value in sets(&Step::Answer(answer.clone()), &vm) {
                    let same = match &value {
                        VmSet::State(state) => *state == vm.state.value,
                        VmSet::Node(node) => *node == vm.node.value,
                        VmSet::FailedReason(reason) => *reason == vm.failed_reason.value,
                        _ => false,
                    };
                    assert!(!same, "{state} on {node}: {answer:?} writes {value:?}");
                }
            }
            // One exception: see `lives_on`.
            let handed_over = change(&Step::TakeBack, &vm, &me);
            let Some(VmChange::Update { set, .. }) = handed_over else { panic!() };
            assert_eq!(set.contains(&VmSet::State(state)), state == Restart, "{state}");
        }
    }
}

#[test]
fn a_claim_that_somebody_has_put_right_is_no_start_that_followed_a_restart() {
    let mut c = case(Restart, "a", "a", Active);
    c.vm.claim.zxid = c.vm.state.zxid + 1;
    assert_eq!(c.next(), Next::Do(Step::Answer(Answer::Running)));
    c.attempts.runs_unclaimed(&c.vm);
    assert_eq!(c.next(), Next::Do(Step::TakeBack));
    let again = sets(&Step::TakeBack, &c.vm);
    assert_eq!(again, [VmSet::Claim(Claim::only(&name("a"))), VmSet::State(Restart)], "of one age");
    c.attempts.claimed(&c.vm);
    assert_eq!(c.next(), Next::Do(Step::Answer(Answer::Running)), "this daemon claimed it to start it");
}
