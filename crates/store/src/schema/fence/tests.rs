use std::sync::Arc;

use pvc_core::model::{DaemonMode, DaemonState, FenceStep, NodeReport, Proof, StaticData};

use super::*;
use crate::{
    CommitError,
    memory::{MemoryStore, MemoryTree},
    schema::{primary, root},
};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn job(step: FenceStep, by: &str) -> FenceJob {
    FenceJob {
        step,
        instance: Some("i1".into()),
        by: by.into(),
        at_unix_s: 7,
        confirmed_dead: None,
        asked: None,
        boot: Some("boot".into()),
        freed: std::collections::BTreeSet::new(),
        earlier: Vec::new(),
        keepalive_version: None,
    }
}

fn proven() -> FenceStep {
    FenceStep::Proven { proof: Proof::PowerOff }
}

/// Node `x`, to be fenced, and two clients.
async fn world() -> (Arc<MemoryStore>, Arc<MemoryStore>) {
    let tree = MemoryTree::new();
    let (a, b) = (tree.client(), tree.client());
    root::init(&*a).await.unwrap();
    let registration = node::Registration {
        name: name("x"),
        mode: DaemonMode::Coordinator,
        static_data: "8 6.1.0 GNU/Linux x86_64".parse::<StaticData>().unwrap(),
        boot: "boot".into(),
        keepalive_interval: std::time::Duration::from_secs(5),
        vtep: None,
        storage: true,
        ipmi: node::Ipmi { hostname: "bmc-x".into(), username: "admin".into(), password: "secret".into() },
    };
    node::register(&*a, &registration).await.unwrap();
    (a, b)
}

async fn seen(store: &dyn Store) -> Node {
    node::read(store, &name("x")).await.unwrap().unwrap()
}

async fn fence(store: &dyn Store) -> Option<Fence> {
    read(store, &name("x")).await.unwrap().map(|entry| entry.good().expect("readable").clone())
}

fn conflicts<T>(outcome: &Result<T, CommitError>) -> bool {
    matches!(outcome, Err(CommitError::Conflict { .. }))
}

#[tokio::test(start_paused = true)]
async fn of_two_fencers_one_begins_and_the_node_is_dead() {
    let (a, b) = world().await;
    let node = seen(&*a).await;
    a.commit(begin(&node, &name("a"), &job(FenceStep::Shooting, "a"))).await.unwrap();
    assert!(conflicts(&b.commit(begin(&node, &name("b"), &job(FenceStep::Shooting, "b"))).await));
    assert_eq!(seen(&*a).await.daemon_state.value, DaemonState::Dead);
    let held = fence(&*b).await.unwrap();
    let recorded = FenceJob { keepalive_version: node.keepalive_version, ..job(FenceStep::Shooting, "a") };
    assert_eq!((held.fencer, held.job), (Some(name("a")), recorded));
}

#[tokio::test(start_paused = true)]
async fn a_keepalive_or_a_new_state_since_the_silence_was_seen_prevents_the_fence() {
    for state_moved in [false, true] {
        let (a, b) = world().await;
        let node = seen(&*a).await;
        if state_moved {
            b.commit(node::set_daemon_state(&name("x"), DaemonState::Stop)).await.unwrap();
        } else {
            b.commit(node::report(&name("x"), &NodeReport::default(), None)).await.unwrap();
        }
        let outcome = a.commit(begin(&node, &name("a"), &job(FenceStep::Shooting, "a"))).await;
        assert!(conflicts(&outcome), "{outcome:?}");
        assert!(fence(&*a).await.is_none());
        assert_ne!(seen(&*a).await.daemon_state.value, DaemonState::Dead);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_fencers_job_is_taken_over_and_what_it_still_tries_conflicts() {
    let (a, b) = world().await;
    a.commit(begin(&seen(&*a).await, &name("a"), &job(FenceStep::Shooting, "a"))).await.unwrap();
    let as_a_saw_it = fence(&*a).await.unwrap();
    assert!(conflicts(&b.commit(take_over(&as_a_saw_it, &name("b"), &as_a_saw_it.job)).await), "a has it");
    a.expire();
    assert!(conflicts(&a.commit(record(&as_a_saw_it, &job(proven(), "a"))).await), "nobody has it");
    let orphan = fence(&*b).await.unwrap();
    assert_eq!(orphan.fencer, None);
    b.commit(take_over(&orphan, &name("b"), &job(FenceStep::Shooting, "b"))).await.unwrap();
    assert!(conflicts(&a.commit(record(&as_a_saw_it, &job(proven(), "a"))).await), "b has it");
    let held = fence(&*b).await.unwrap();
    b.commit(record(&held, &job(proven(), "b"))).await.unwrap();
    assert!(conflicts(&b.commit(finish(&held)).await), "the record has moved");
    let done = fence(&*b).await.unwrap();
    assert_eq!(done.job.step, proven());
    b.commit(finish(&done)).await.unwrap();
    assert!(fence(&*b).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_fence_is_called_off_counts_as_running_unless_it_says_otherwise() {
    let (a, _) = world().await;
    a.commit(begin(&seen(&*a).await, &name("a"), &job(FenceStep::Shooting, "a"))).await.unwrap();
    let (declared, held) = (seen(&*a).await, fence(&*a).await.unwrap());
    assert_eq!(declared.daemon_state.value, DaemonState::Dead);
    let said = Transaction { ops: node::declare_running(&declared).ops };
    a.commit(said).await.unwrap();
    assert!(conflicts(&a.commit(call_off(&held, &declared)).await), "its daemon has spoken meanwhile");
    a.commit(call_off(&held, &seen(&*a).await)).await.unwrap();
    assert!(fence(&*a).await.is_none());

    a.commit(begin(&seen(&*a).await, &name("a"), &job(FenceStep::Shooting, "a"))).await.unwrap();
    a.commit(call_off(&fence(&*a).await.unwrap(), &seen(&*a).await)).await.unwrap();
    assert_eq!(seen(&*a).await.daemon_state.value, DaemonState::Run);
}

#[tokio::test(start_paused = true)]
async fn a_fencer_that_starts_again_replaces_its_own_earlier_session() {
    let (a, again) = world().await;
    a.commit(begin(&seen(&*a).await, &name("a"), &job(FenceStep::Shooting, "a"))).await.unwrap();
    let found = fence(&*again).await.unwrap();
    again.commit(take_over(&found, &name("a"), &found.job)).await.unwrap();
    a.expire();
    let held = fence(&*again).await.unwrap();
    assert_eq!(held.fencer, Some(name("a")), "the old session's end does not end the new life's hold");
    again.commit(record(&held, &job(proven(), "a"))).await.unwrap();
}

fn said(job: &FenceJob) -> FenceJob {
    let word = pvc_core::model::Word { by: "operator".into(), at_unix_s: 1 };
    FenceJob { confirmed_dead: Some(word), ..job.clone() }
}

async fn speaks(store: &dyn Store) {
    let report = pvc_core::model::NodeReport::default();
    store.commit(node::report(&name("x"), &report, None)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_operators_word_is_of_the_node_as_it_was_seen_and_taken_back_only_for_what_it_said() {
    let (a, b) = world().await;
    let before = seen(&*a).await;
    speaks(&*b).await;
    let job = said(&job(FenceStep::Shooting, "operator"));
    assert!(conflicts(&a.commit(confirm_dead(&before, None, &job)).await), "it has spoken meanwhile");
    let node = seen(&*a).await;
    a.commit(confirm_dead(&node, None, &job)).await.unwrap();
    let found = fence(&*a).await.unwrap();
    assert_eq!(found.job.keepalive_version, node.keepalive_version);
    assert_eq!(found.job.boot.as_deref(), Some("boot"));
    // Who saw the record sooner than the node neither takes anything back nor calls it off.
    for stale in [&before, &node] {
        assert!(conflicts(&b.commit(unconfirm(&found, &found.job, stale)).await));
        assert!(conflicts(&b.commit(call_off(&found, stale)).await));
    }
    speaks(&*b).await;
    let spoken = seen(&*b).await;
    b.commit(unconfirm(&found, &found.job, &spoken)).await.unwrap();
    let left = fence(&*a).await.unwrap();
    assert!(left.job.confirmed_dead.is_none() && left.fencer.is_none());
    b.commit(call_off(&left, &spoken)).await.unwrap();
    assert_eq!((fence(&*a).await, seen(&*a).await.daemon_state.value), (None, DaemonState::Run));
}

#[tokio::test(start_paused = true)]
async fn a_fence_is_cancelled_as_it_was_seen_readable_or_not() {
    let (a, b) = world().await;
    a.commit(begin(&seen(&*a).await, &name("a"), &job(FenceStep::Shooting, "a"))).await.unwrap();
    let found = fence(&*a).await.unwrap();
    assert_eq!(read_unreadable(&*b, &name("x")).await.unwrap(), None);
    a.commit(record(&found, &job(proven(), "a"))).await.unwrap();
    let now = seen(&*b).await;
    assert!(conflicts(&b.commit(cancel(&found, &now)).await), "it was proven meanwhile");
    let rubbish = Op::Set { path: path(&name("x")), data: b"?".into(), version: None };
    b.commit(Transaction { ops: vec![rubbish] }).await.unwrap();
    let raw = read_unreadable(&*b, &name("x")).await.unwrap().unwrap();
    b.commit(cancel_unreadable(&raw, &now)).await.unwrap();
    assert_eq!((fence(&*a).await, seen(&*a).await.daemon_state.value), (None, DaemonState::Run));
    assert!(conflicts(&b.commit(cancel_unreadable(&raw, &now)).await));
}

#[tokio::test(start_paused = true)]
async fn an_operators_word_is_kept_in_the_record_or_makes_one() {
    let (a, b) = world().await;
    let node = seen(&*a).await;
    b.commit(confirm_dead(&node, None, &said(&job(FenceStep::Shooting, "operator")))).await.unwrap();
    let waiting = fence(&*a).await.unwrap();
    assert!(waiting.job.confirmed_dead.is_some() && waiting.fencer.is_none());
    assert_eq!(seen(&*a).await.daemon_state.value, DaemonState::Dead);

    a.commit(take_over(&waiting, &name("a"), &waiting.job)).await.unwrap();
    let failed = FenceStep::Failed { reason: "no answer".into(), attempts: 2 };
    let held = fence(&*a).await.unwrap();
    a.commit(record(&held, &job(failed, "a"))).await.unwrap();
    let failed = fence(&*b).await.unwrap();
    b.commit(confirm_dead(&seen(&*b).await, Some(&failed), &said(&failed.job))).await.unwrap();
    assert!(fence(&*a).await.unwrap().job.confirmed_dead.is_some());
    assert!(
        conflicts(&b.commit(confirm_dead(&node, Some(&failed), &failed.job)).await),
        "decided from an old record"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_recorded_or_recovered_once_the_node_has_spoken() {
    let (a, x) = world().await;
    a.commit(begin(&seen(&*a).await, &name("a"), &job(FenceStep::Shooting, "a"))).await.unwrap();
    let before = seen(&*a).await;
    let held = fence(&*a).await.unwrap();
    x.commit(node::report(&name("x"), &NodeReport::default(), None)).await.unwrap();
    assert!(conflicts(&a.commit(record_proof(&held, &job(proven(), "a"), &before)).await), "a keepalive");
    let before = seen(&*a).await;
    a.commit(record_proof(&held, &job(proven(), "a"), &before)).await.unwrap();
    let proven = fence(&*a).await.unwrap();
    assert_eq!(proven.job.keepalive_version, before.keepalive_version);

    let dead = seen(&*a).await;
    a.commit(expect_dead(&proven, &dead)).await.unwrap();
    x.commit(node::set_daemon_state(&name("x"), DaemonState::Init)).await.unwrap();
    assert!(conflicts(&a.commit(expect_dead(&proven, &dead)).await), "another life");
    assert!(conflicts(&a.commit(record_recovered(&proven, &proven.job, &dead)).await), "another life");
    a.commit(record_recovered(&proven, &proven.job, &seen(&*a).await)).await.unwrap();
    assert_eq!(seen(&*a).await.domain_state.value, DomainState::Flushed);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_record_is_a_problem_that_names_its_key() {
    let (a, _) = world().await;
    a.commit(begin(&seen(&*a).await, &name("a"), &job(FenceStep::Shooting, "a"))).await.unwrap();
    let mut txn = Transaction::default();
    txn.set("/pvc/fence/x", "rubbish", None);
    a.commit(txn).await.unwrap();
    let Some(Entry::Bad(problems)) = read(&*a, &name("x")).await.unwrap() else {
        panic!("rubbish is no record")
    };
    assert_eq!(problems[0].key, "/pvc/fence/x");
}

#[tokio::test(start_paused = true)]
async fn a_fencer_reads_how_to_power_a_node_off_and_no_output_shows_the_password() {
    let (a, _) = world().await;
    let ipmi = node::read_ipmi(&*a, &name("x")).await.unwrap();
    assert_eq!(
        (ipmi.hostname.as_str(), ipmi.username.as_str(), ipmi.password.as_str()),
        ("bmc-x", "admin", "secret")
    );
    assert!(!format!("{ipmi:?} {:?}", seen(&*a).await).contains("secret"));
    let absent = node::read_ipmi(&*a, &name("y")).await.unwrap();
    assert_eq!(absent, node::Ipmi::default());
    let mut txn = Transaction::default();
    txn.set("/nodes/x/ipmihostname", "x".repeat(900_000), None);
    a.commit(txn).await.unwrap();
    assert_eq!(node::read_ipmi(&*a, &name("x")).await.unwrap().hostname.len(), 253);
}

#[tokio::test(start_paused = true)]
async fn a_tenure_of_the_primary_is_ended_only_by_itself_or_its_session() {
    let (a, b) = world().await;
    for (client, node) in [(&a, "a"), (&b, "b")] {
        let registration = node::Registration {
            name: name(node),
            mode: DaemonMode::Coordinator,
            static_data: "8 6.1.0 GNU/Linux x86_64".parse::<StaticData>().unwrap(),
            boot: "boot".into(),
            keepalive_interval: std::time::Duration::from_secs(5),
            vtep: None,
            storage: true,
            ipmi: node::Ipmi::default(),
        };
        node::register(&**client, &registration).await.unwrap();
    }
    a.commit(primary::take(&name("a"), false)).await.unwrap();
    assert!(conflicts(&b.commit(primary::take(&name("b"), false)).await));
    assert!(conflicts(&b.commit(primary::take(&name("b"), true)).await), "b never had it");
    a.expire();
    b.commit(primary::take(&name("b"), false)).await.unwrap();
    assert!(conflicts(&a.commit(primary::release(&name("a"))).await), "it is b's now");
    let holder = b.get(primary::HOLDER).await.unwrap();
    assert_eq!(primary::decode_holder(holder.as_ref()), Some(name("b")));
    b.commit(primary::release(&name("b"))).await.unwrap();
    assert!(a.get(primary::HOLDER).await.unwrap().is_none());

    // Killed and started again: the key of the earlier session is its own.
    a.commit(primary::take(&name("a"), false)).await.unwrap();
    b.commit(primary::take(&name("a"), true)).await.unwrap();
    a.expire();
    assert!(b.get(primary::HOLDER).await.unwrap().is_some());
}
