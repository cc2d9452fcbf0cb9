use std::sync::Arc;

use super::*;
use crate::{
    command::{
        RefusalKind,
        testing::{field, name, node, view, vm},
    },
    model::{Problem, Proof, VmState},
};

fn three() -> [Node; 3] {
    [node("hv1"), node("hv2"), node("hv3")]
}

fn signed() -> Signature {
    Signature { by: "an operator on desk".into(), at_unix_s: 7 }
}

fn bmc() -> Life {
    Life { has_bmc: true, ..Life::default() }
}

fn job(step: FenceStep) -> FenceJob {
    FenceJob {
        step,
        instance: None,
        by: "hv2".into(),
        at_unix_s: 1,
        confirmed_dead: None,
        asked: None,
        boot: Some("boot".into()),
        freed: std::collections::BTreeSet::new(),
        earlier: Vec::new(),
        keepalive_version: None,
    }
}

fn with_fence(mut view: ClusterView, node: &str, job: FenceJob) -> ClusterView {
    let fence = Fence { node: name(node), job, version: 3, fencer: None };
    view.fences = Arc::new([(name(node), Entry::Good(fence))].into());
    view
}

#[test]
fn desired_states_about_a_nodes_vms_are_written_or_already_so() {
    use DomainState::{Flush, Flushed, Ready, Unflush};
    for (state, flushes, readies) in
        [(Ready, true, false), (Unflush, true, false), (Flush, false, true), (Flushed, false, true)]
    {
        let mut all = three();
        all[0].domain_state = field(state);
        let view = view(&all, &[]);
        let change = |state| NodeChange::DomainState { node: name("hv1"), state, version: Some(7) };
        assert_eq!(flush(&view, "hv1").unwrap().change, flushes.then(|| change(Flush)), "{state}");
        assert_eq!(ready(&view, "hv1").unwrap().change, readies.then(|| change(Unflush)), "{state}");
    }
    assert_eq!(flush(&view(&three(), &[]), "hv4").unwrap_err().todo, "did you mean hv1 or hv2 or hv3?");
}

#[test]
fn a_flush_says_what_it_cannot_do() {
    let mut all = three();
    assert!(flush(&view(&all, &[vm(VmState::Start, "hv1")]), "hv1").unwrap().notes.is_empty());
    all[1].domain_state = field(DomainState::Flushed);
    all[2].daemon_state = field(DaemonState::Stop);
    assert!(flush(&view(&all, &[]), "hv1").unwrap().notes.is_empty(), "it has no VMs");
    let notes = flush(&view(&all, &[vm(VmState::Start, "hv1")]), "hv1").unwrap().notes;
    assert!(notes[0].starts_with("no other node takes VMs now"), "{notes:?}");
    let notes = flush(&view(&all, &[]), "hv3").unwrap().notes;
    assert!(notes[0].contains("in state stop: nothing is done until it runs"), "{notes:?}");
}

#[test]
fn dead_and_fenced_nodes_take_and_send_nothing() {
    let mut all = three();
    all[0].daemon_state = field(DaemonState::Dead);
    let view = view(&all, &[]);
    assert!(flush(&view, "hv1").unwrap_err().why.starts_with("it is dead"));
    assert!(ready(&view, "hv1").unwrap_err().todo.starts_with("bring it back"));
    assert_eq!(
        ready(&with_fence(view, "hv2", job(FenceStep::Shooting)), "hv2").unwrap_err().why,
        "it is being fenced"
    );
}

#[test]
fn the_primary_is_a_coordinator_that_works() {
    let mut all = three();
    all[1].mode = DaemonMode::Hypervisor;
    all[2].daemon_state = field(DaemonState::Stop);
    let mut view = view(&all, &[]);
    let desired = |node: Option<&str>| NodeChange::Primary { seen: Field::default(), node: node.map(name) };
    assert_eq!(primary(&view, "hv1").unwrap().change, Some(desired(Some("hv1"))));
    assert_eq!(primary(&view, "hv2").unwrap_err().why, "it is a hypervisor only");
    assert_eq!(primary(&view, "hv3").unwrap_err().why, "its daemon is in state stop");
    view.primary_node.value = Some(name("hv1"));
    assert_eq!(primary(&view, "hv1").unwrap().notes, ["it is to be primary already, but is not yet"]);
    view.primary_holder = Some(name("hv1"));
    assert_eq!(primary(&view, "hv1").unwrap().notes, ["it is primary already"]);
    assert!(primary(&with_fence(view, "hv1", job(FenceStep::Shooting)), "hv1").is_err());
}

#[test]
fn the_primary_steps_down_if_there_is_another() {
    let mut all = three();
    let mut one = view(&all, &[]);
    assert_eq!(secondary(&one, "hv1").unwrap().notes, ["it is not primary"]);
    one.primary_holder = Some(name("hv1"));
    assert_eq!(secondary(&one, "hv1").unwrap().notes, ["it is to step down already"]);
    one.primary_node = field(Some(name("hv1")));
    let stepping = NodeChange::Primary { seen: one.primary_node.clone(), node: None };
    assert_eq!(secondary(&one, "hv1").unwrap().change, Some(stepping));
    for other in &mut all[1..] {
        other.daemon_state = field(DaemonState::Stop);
    }
    one.nodes = view(&all, &[]).nodes;
    assert_eq!(secondary(&one, "hv1").unwrap_err().why, "no other coordinator's daemon runs");
}

#[test]
fn a_fence_that_is_asked_for_waits_for_a_coordinator() {
    let view = view(&three(), &[]);
    let life = Life { instance: Some("i7".into()), ..bmc() };
    let Some(NodeChange::Fence { seen, job }) = fence(&view, "hv1", &life, signed()).unwrap().change else {
        panic!()
    };
    assert_eq!((seen.name.clone(), job.step, job.asked.is_some()), (name("hv1"), FenceStep::Shooting, true));
    assert_eq!((job.instance.as_deref(), job.by.as_str()), (Some("i7"), "an operator on desk"));
    assert!(job.confirmed_dead.is_none());
}

#[test]
fn a_fence_that_could_not_be_done_or_would_do_harm_is_refused() {
    let mut all = three();
    let mut calm = view(&all, &[]);
    let why = |view: &ClusterView, life: &Life| fence(view, "hv1", life, signed()).unwrap_err().why;
    assert!(why(&calm, &Life::default()).contains("IPMI"));
    calm.maintenance = true;
    assert!(why(&calm, &bmc()).starts_with("maintenance is on"));
    all[1].daemon_state = field(DaemonState::Stop);
    assert_eq!(why(&view(&all, &[]), &bmc()), "1 coordinators would be left, 2 are needed for a quorum");
    all[2].daemon_state = field(DaemonState::Stop);
    assert!(why(&view(&all, &[]), &bmc()).starts_with("no other coordinator"));
    assert!(fence(&view(&all[..2], &[]), "hv2", &bmc(), signed()).is_ok(), "of two, one may fence the other");
    let going = with_fence(view(&three(), &[]), "hv1", job(FenceStep::Shooting));
    assert!(fence(&going, "hv1", &bmc(), signed()).unwrap().change.is_none());
    let mut broken = view(&three(), &[]);
    let problem = Problem { key: "/pvc/fence/hv1".into(), what: "rubbish".into() };
    broken.fences = Arc::new([(name("hv1"), Entry::Bad(vec![problem]))].into());
    assert_eq!(why(&broken, &bmc()), "/pvc/fence/hv1: rubbish");
}

#[test]
fn nobody_who_is_heard_of_is_taken_for_dead() {
    let view = view(&three(), &[]);
    let connected = Life { instance: Some("i7".into()), ..Life::default() };
    let heard = Life { heard: true, ..Life::default() };
    for life in [&connected, &heard] {
        assert_eq!(confirm_dead(&view, "hv1", life, signed()).unwrap_err().kind, RefusalKind::Refused);
    }
    let accepted = confirm_dead(&view, "hv1", &Life::default(), signed()).unwrap();
    let Some(NodeChange::ConfirmDead { fence: None, job, .. }) = accepted.change else {
        panic!("{accepted:?}")
    };
    assert!(
        job.confirmed_dead.is_some() && job.step.proof().is_none(),
        "the proof is a coordinator's to record: {job:?}"
    );
}

#[test]
fn a_fence_is_called_off_until_it_has_proven_something_also_if_nobody_can_read_it() {
    let about = |fence| with_fence(view(&three(), &[]), "hv1", fence);
    let failed = job(FenceStep::Failed { reason: "no route".into(), attempts: 3 });
    let accepted = cancel_fence(&about(failed), "hv1").unwrap();
    assert!(matches!(accepted.change, Some(NodeChange::CancelFence { fence: Some(_), .. })), "{accepted:?}");
    let proven = job(FenceStep::Proven { proof: Proof::Operator });
    assert_eq!(cancel_fence(&about(proven), "hv1").unwrap_err().kind, RefusalKind::Refused);
    assert!(cancel_fence(&view(&three(), &[]), "hv1").unwrap().change.is_none());
    let mut broken = view(&three(), &[]);
    broken.fences = Arc::new([(name("hv1"), Entry::Bad(Vec::new()))].into());
    let accepted = cancel_fence(&broken, "hv1").unwrap();
    assert!(matches!(accepted.change, Some(NodeChange::CancelFence { fence: None, .. })), "{accepted:?}");
}

#[test]
fn an_operators_word_joins_the_fence_that_goes_on() {
    let failed = job(FenceStep::Failed { reason: "no route".into(), attempts: 3 });
    let going = with_fence(view(&three(), &[]), "hv1", failed.clone());
    let accepted = confirm_dead(&going, "hv1", &Life::default(), signed()).unwrap();
    let Some(NodeChange::ConfirmDead { fence: Some(fence), job: written, .. }) = accepted.change else {
        panic!()
    };
    let confirmed = FenceJob {
        confirmed_dead: Some(signed().word()),
        keepalive_version: Some(3),
        boot: Some("boot".into()),
        ..failed.clone()
    };
    assert_eq!(*written, confirmed);
    assert_eq!(fence.version, 3);
    let spoken = FenceJob { keepalive_version: Some(2), ..confirmed.clone() };
    let again = with_fence(view(&three(), &[]), "hv1", spoken);
    let again = confirm_dead(&again, "hv1", &Life::default(), signed()).unwrap();
    assert!(again.change.is_some(), "it has spoken since, so the word is said anew");
    let other_boot = FenceJob { asked: Some(signed().word()), boot: Some("earlier".into()), ..failed };
    let asked = with_fence(view(&three(), &[]), "hv1", other_boot);
    let accepted = confirm_dead(&asked, "hv1", &Life::default(), signed()).unwrap();
    let Some(NodeChange::ConfirmDead { job: written, .. }) = accepted.change else { panic!() };
    assert_eq!(written.asked, None, "an earlier boot was to be fenced");
    for settled in [confirmed, job(FenceStep::Recovered { proof: Proof::PowerOff })] {
        let going = with_fence(view(&three(), &[]), "hv1", settled);
        assert!(confirm_dead(&going, "hv1", &Life::default(), signed()).unwrap().change.is_none());
    }
}

#[test]
fn a_word_about_a_node_that_was_proven_dead_is_about_this_moment() {
    let proven = FenceJob {
        confirmed_dead: Some(signed().word()),
        ..job(FenceStep::StorageFenced { proof: Proof::Operator })
    };
    let going = with_fence(view(&three(), &[]), "hv1", proven);
    let accepted = confirm_dead(&going, "hv1", &Life::default(), signed()).unwrap();
    let Some(NodeChange::ConfirmDead { job: written, .. }) = accepted.change else { panic!() };
    assert_eq!((&written.step, &written.earlier[..]), (&FenceStep::Shooting, &[Proof::Operator][..]));
    assert_eq!(written.confirmed_dead, Some(signed().word()));
    let words = step_words(&written);
    assert!(words.contains("before: an operator confirmed it; VMs of it had to wait since"), "{words}");
}

#[test]
fn a_word_that_nobody_would_act_on_is_refused() {
    let mut all = three();
    for node in &mut all[1..] {
        node.daemon_state = field(DaemonState::Stop);
    }
    let refusal = confirm_dead(&view(&all, &[]), "hv1", &Life::default(), signed()).unwrap_err();
    assert_eq!(refusal.todo, "start pvcd on another coordinator first");
}

#[test]
fn a_node_with_a_broken_key_is_commanded_like_any_other() {
    let mut nodes = three();
    let problem = Problem { key: "/nodes/hv1/domainstate".into(), what: "missing".into() };
    nodes[0].problems = vec![problem];
    nodes[0].domain_state.value = DomainState::Flushed;
    let broken = view(&nodes, &[vm(VmState::Start, "hv1")]);
    for answer in [flush(&broken, "hv1"), ready(&broken, "hv1"), fence(&broken, "hv1", &bmc(), signed())] {
        assert!(answer.unwrap().change.is_some(), "nothing is done already that nobody can read");
    }
}
