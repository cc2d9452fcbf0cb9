//! What outlives a VM's keys, and what the nodes said last: one row a case.

use super::*;
use crate::{
    command::testing::{self, id, node, view},
    model::{ClusterView, DaemonState, Entry, Fence, FenceJob, FenceStep, Node, NodeReport, Problem, Proof},
};

fn without_keys(claim: Option<&str>, local_state: LocalState, tidies_up: bool, current: bool) -> Next {
    let orphan = claim.map(|claim| match claim.parse() {
        Ok(claim) => Entry::Good(field(claim, 10)),
        Err(_) => Entry::Bad(vec![]),
    });
    plan(&Facts {
        me: &name("a"),
        vm: None,
        orphan: orphan.as_ref(),
        tidies_up,
        last_word: Ok(()),
        local_state,
        migration: None,
        halt: None,
        left: false,
        target: Ok(()),
        definition: Ok(()),
        standing: if current { Standing::Current } else { Standing::OutOfReach },
        attempts: &Attempts::default(),
        now: Moment::secs(1000),
    })
    .next
}

#[test]
fn the_claim_of_a_vm_without_keys_ends_where_it_is_off_and_nowhere_else() {
    let table = [
        // claim, fact here, tidies up → next
        (Some("a"), Off, false, Next::Do(Step::Forget)),
        (Some("a b"), Off, false, Next::Do(Step::Forget)),
        (Some("b a"), Off, false, Next::Wait(None)),
        (Some("b"), Off, true, Next::Settled),
        (Some(""), Off, true, Next::Do(Step::Forget)),
        (Some(""), Off, false, Next::Settled),
        (None, Off, true, Next::Settled),
        // The tree may have been lost: what runs is left alone, and stays claimed.
        (Some("a"), Active, false, Next::Wait(None)),
        (Some("a"), Held, false, Next::Wait(None)),
        // Nothing is lost with what has never executed.
        (Some("a"), Unstarted, false, Next::Do(Step::PowerOff)),
        (None, Unstarted, false, Next::Do(Step::PowerOff)),
        (Some("a"), LocalState::Unknown, false, Next::Wait(None)),
        (Some("b"), LocalState::Unknown, false, Next::Settled),
    ];
    for (claim, local_state, tidies_up, expected) in table {
        let next = without_keys(claim, local_state, tidies_up, true);
        assert_eq!(next, expected, "{claim:?} {local_state:?} {tidies_up}");
        if matches!(expected, Next::Do(_)) {
            assert_eq!(
                without_keys(claim, local_state, tidies_up, false),
                Next::Wait(None),
                "by an old view"
            );
        }
    }
}

#[test]
fn what_somebody_may_be_executing_by_his_last_word_is_neither_started_nor_let_go() {
    let blocked = |state, claim, local_state| {
        let Case { vm, attempts, now, .. } = case(state, "a", claim, local_state);
        plan(&Facts {
            me: &name("a"),
            vm: Some(&vm),
            orphan: None,
            tidies_up: false,
            last_word: Err("b may be executing it"),
            local_state,
            migration: None,
            halt: None,
            left: false,
            target: Ok(()),
            definition: Ok(()),
            standing: Standing::Current,
            attempts: &attempts,
            now,
        })
    };
    let until = Some(Moment::secs(1000) + HEAR_AGAIN);
    for (state, claim, local_state) in [
        (Start, "", Off),
        (Start, "a", Off),
        (Restart, "", Off),
        (Migrate, "a", Off),
        (Start, "a", Unstarted),
    ] {
        let plan = blocked(state, claim, local_state);
        assert_eq!(plan.next, Next::Wait(until), "{state} {claim:?} {local_state:?}");
        assert!(plan.why.contains("b may be executing it"));
    }
    // What is to be off, or runs already, does not wait for it.
    assert_eq!(blocked(Stop, "a", Off).next, Next::Do(Step::Release));
    assert_eq!(blocked(Start, "a", Active).next, Next::Settled);
    assert_eq!(blocked(Start, "", Active).next, Next::Do(Step::Adopt));
}

#[test]
fn what_is_defined_anew_while_it_runs_under_its_claim_is_adopted() {
    for node in ["a", "b"] {
        let mut case = case(Stop, node, "a", Active);
        case.vm.state.version = Some(0);
        assert_eq!(case.next(), Next::Do(Step::Adopt), "{node}");
        let Some(VmChange::Update { set, .. }) = change(&Step::Adopt, &case.vm, &name("a")) else { panic!() };
        let claim = VmSet::Claim(Claim::only(&name("a")));
        assert!(set.contains(&VmSet::State(Start)) && set.contains(&claim), "{set:?}");
        case.vm.state.version = Some(1);
        assert_eq!(case.next(), Next::Do(Step::PowerOff), "{node}: a client's stop");
    }
}

/// Nodes `a` and `b`; `b` said at 50 that it executes VM 1.
fn word(state: DaemonState) -> ClusterView {
    let b = Node {
        daemon_state: testing::field(state),
        report: NodeReport { running: vec![id(1)], ..NodeReport::default() },
        last_word: field((), 50),
        ..node("b")
    };
    view(&[node("a"), b], &[])
}

fn fenced(mut view: ClusterView, step: FenceStep) -> ClusterView {
    let job = FenceJob {
        step,
        instance: None,
        by: "a".into(),
        at_unix_s: 1,
        confirmed_dead: None,
        asked: None,
        keepalive_version: None,
        boot: None,
        freed: std::collections::BTreeSet::new(),
        earlier: Vec::new(),
    };
    let fence = Fence { node: name("b"), job, version: 1, fencer: None };
    std::sync::Arc::make_mut(&mut view.fences).insert(name("b"), Entry::Good(fence));
    view
}

fn blocks(view: &ClusterView, me: &str, claim: &Field<Claim>) -> bool {
    may_execute_elsewhere(view, &name(me), id(1), claim).is_err()
}

#[test]
fn only_a_proof_of_death_takes_back_a_word_that_no_claim_has_answered() {
    use DaemonState::{Dead, Init, Run, Shutdown};
    let absent = Field::<Claim>::default();
    let released_at = |zxid| field(Claim::none(), zxid);
    for state in [Run, Init, Shutdown, DaemonState::Stop] {
        let view = word(state);
        assert!(blocks(&view, "a", &absent) && blocks(&view, "a", &released_at(49)), "{state}");
        assert!(!blocks(&view, "a", &released_at(51)), "{state}: the claim was written later");
        assert!(!blocks(&view, "b", &absent), "{state}: its own word");
    }
    let proof = Proof::PowerOff;
    assert!(!blocks(&word(Dead), "a", &absent), "its fence is over");
    assert!(!blocks(&fenced(word(Dead), FenceStep::Proven { proof }), "a", &absent));
    assert!(blocks(&fenced(word(Dead), FenceStep::Shooting), "a", &absent));
    let failed = FenceStep::Failed { reason: String::new(), attempts: 1 };
    assert!(blocks(&fenced(word(Dead), failed), "a", &absent));
    assert!(blocks(&fenced(word(Run), FenceStep::Proven { proof }), "a", &absent), "another life of it");
    // Of a node that cannot be read nothing is known; what is claimed is told by its claim.
    let problem = Problem { key: "/nodes/b/runningdomains".into(), what: "rubbish".into() };
    let broken = view(&[node("a"), Node { problems: vec![problem], ..node("b") }], &[]);
    assert!(blocks(&broken, "a", &absent) && !blocks(&broken, "a", &released_at(1)));
    // Whom the claim names is told by the claim.
    assert_eq!(last_words(&word(Run), id(1), &field(Claim::only(&name("b")), 40)).count(), 0);
}

#[test]
fn what_was_suspended_before_the_tree_was_read_goes_on_if_that_does_not_have_it_and_nobody_else_may_execute_it()
 {
    let (unread, elsewhere) =
        (LocalState::Suspended(Suspension::Unread), LocalState::Suspended(Suspension::Elsewhere));
    for (claim, local_state, current, expected) in [
        (None, unread, true, Next::Do(Step::Resume)),
        (Some(""), unread, true, Next::Do(Step::Resume)),
        (Some("a"), unread, true, Next::Do(Step::Resume)),
        (Some("b"), unread, true, Next::Wait(None)),
        (Some("a b"), unread, true, Next::Wait(None)),
        (Some("a/b"), unread, true, Next::Wait(None)),
        (None, unread, false, Next::Wait(None)),
        (None, elsewhere, true, Next::Wait(None)),
    ] {
        assert_eq!(without_keys(claim, local_state, false, current), expected, "{claim:?} {local_state:?}");
    }
}

#[test]
fn what_was_suspended_before_the_tree_was_read_goes_on_or_is_ended_as_the_tree_says() {
    let unread = LocalState::Suspended(Suspension::Unread);
    for (state, node, claim, expected) in [
        (Start, "a", "a", Next::Do(Step::Resume)),
        (Start, "a", "b", Next::Do(Step::PowerOff)),
        (Start, "b", "a", Next::Do(Step::PowerOff)),
        (Start, "a", "", Next::Do(Step::Adopt)),
        (Stop, "a", "a", Next::Do(Step::PowerOff)),
        // It is asked to go when it can hear that.
        (Shutdown, "a", "a", Next::Do(Step::Resume)),
    ] {
        assert_eq!(case(state, node, claim, unread).next(), expected, "{state} {node} {claim}");
    }
    let mut defined = case(Stop, "a", "a", unread);
    defined.vm.state.version = Some(0);
    assert_eq!(defined.next(), Next::Do(Step::Adopt), "no command: it lives on");
}
