use pvc_core::model::{Claim, DaemonMode, Field, NodeReport, VmChange, VmKey, VmSet};
use pvc_store::{Store, memory::MemoryTree, schema::root};

use super::*;
use crate::Kind;

const ID: &str = "11111111-0000-4000-8000-000000000001";

fn vm_in(state: VmState, claim: &str) -> Vm {
    fn field<T>(value: T) -> Field<T> {
        Field { value, version: Some(0), zxid: 1 }
    }
    Vm {
        id: ID.parse().unwrap(),
        name: "web1".parse().unwrap(),
        state: field(state),
        node: field("hv1".parse().unwrap()),
        last_node: field(None),
        failed_reason: field("no such bridge".into()),
        claim: field(claim.parse().unwrap()),
        migration_method: pvc_core::model::MigrationMethod::default(),
        rbd_images: Vec::new(),
        xml_version: Some(0),
        xml_zxid: Some(0),
        unread: std::collections::BTreeSet::new(),
        problems: Vec::new(),
    }
}

/// `yes`: what is said when it is so; `wait`: what is waited for; `no`: why it cannot be so any more.
fn judged(desired: Desired, state: VmState, claim: &str, runs: bool) -> (&'static str, String) {
    reported(desired, state, claim, if runs { Reported::Executes } else { Reported::Nothing })
}

fn reported(desired: Desired, state: VmState, claim: &str, what: Reported) -> (&'static str, String) {
    match judge(desired, &vm_in(state, claim), what, None) {
        Ok(Look::Done(said)) => ("yes", said.message),
        Ok(Look::NotYet(what)) => ("wait", what),
        Err(failure) => ("no", failure.to_string()),
    }
}

#[test]
fn success_is_what_is_observed_and_nothing_less() {
    use VmState::{Delete, Failed, Migrate, Restart, Shutdown, Start, Stop};
    for (desired, state, claim, runs, expected) in [
        (Desired::Start, Start, "hv1", true, "yes"),
        (Desired::Start, Start, "hv1", false, "wait"),
        (Desired::Start, Start, "", true, "wait"),
        (Desired::Start, Start, "hv2", true, "wait"),
        (Desired::Start, Stop, "", false, "no"),
        (Desired::Start, Failed, "", false, "no"),
        (Desired::Stop, Stop, "", false, "yes"),
        (Desired::Stop, Stop, "hv1", false, "wait"),
        (Desired::Stop, Start, "hv1", true, "no"),
        (Desired::Shutdown, Shutdown, "hv1", true, "wait"),
        (Desired::Shutdown, Shutdown, "", false, "wait"),
        (Desired::Shutdown, Stop, "", false, "yes"),
        (Desired::Shutdown, Restart, "hv1", true, "no"),
        (Desired::Restart, Restart, "hv1", true, "wait"),
        (Desired::Restart, Start, "hv1", true, "yes"),
        (Desired::Restart, Migrate, "hv1", true, "no"),
        (Desired::Restart, Delete, "", false, "no"),
    ] {
        let (verdict, words) = judged(desired, state, claim, runs);
        assert_eq!(verdict, expected, "{desired:?} {state} {claim:?} {runs}: {words}");
        assert!(!words.is_empty());
    }
    assert_eq!(judged(Desired::Start, Failed, "", false).1, "VM web1 failed: no such bridge");
    assert!(judged(Desired::Start, Stop, "", false).1.contains("somebody else has asked for stop"));
}

/// A tree with a stopped VM whose node is in claim, and a client of it.
async fn cluster() -> (std::sync::Arc<pvc_store::memory::MemoryStore>, Cluster) {
    let client = MemoryTree::new().client();
    let store: std::sync::Arc<dyn Store> = client.clone();
    root::init(&*store).await.unwrap();
    let define = VmChange::Define {
        id: ID.parse().unwrap(),
        name: "web1".parse().unwrap(),
        node: "hv1".parse().unwrap(),
        xml: String::new(),
        rbd_images: Vec::new(),
    };
    vm::apply(&*store, &define).await.unwrap();
    let stopped = vm::read(&*store, ID.parse().unwrap()).await.unwrap().unwrap();
    let set = vec![VmSet::State(VmState::Start), VmSet::Claim(Claim::only(&"hv1".parse().unwrap()))];
    let started = VmChange::update(stopped.good().unwrap(), &[VmKey::State], set);
    vm::apply(&*store, &started).await.unwrap();
    (client, Cluster::new(store, "memory"))
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_neither_done_nor_failed() {
    let (client, cluster) = cluster().await;
    client.lose_answers(1);
    let failure = set_state(&cluster, ID.parse().unwrap(), Desired::Stop).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Unavailable, "{failure:?}");
    assert!(failure.to_string().contains("unknown whether"), "{failure}");
}

#[tokio::test]
async fn a_desired_state_that_nobody_answers_stands_when_the_waiting_ends() {
    let (_client, cluster) = cluster().await;
    let id = ID.parse().unwrap();
    let asked = set_state(&cluster, id, Desired::Shutdown).await.unwrap().asked;
    assert_eq!((asked.answer.message.as_str(), asked.written), ("VM web1 is to shut down", true));
    let failure = asked.wait(&cluster, Duration::from_millis(50), &|_| {}).await.unwrap_err();
    assert!(failure.to_string().contains("waiting for hv1. The command stands"), "{failure}");
    assert_eq!(failure.kind(), Kind::Failed);
    assert_eq!(cluster.vm(id).await.unwrap().state.value, VmState::Shutdown);
    assert!(!set_state(&cluster, id, Desired::Shutdown).await.unwrap().asked.written);
}

#[tokio::test]
async fn a_report_from_before_the_claim_is_about_an_instance_that_has_ended() {
    let (_client, cluster) = cluster().await;
    let (store, id, hv1) = (&*cluster.store, ID.parse().unwrap(), "hv1".parse().unwrap());
    let registration = node::Registration {
        name: "hv1".parse().unwrap(),
        mode: DaemonMode::Hypervisor,
        static_data: "8 6.1 GNU/Linux x86_64".parse().unwrap(),
        boot: "boot".into(),
        keepalive_interval: std::time::Duration::from_secs(5),
        vtep: None,
        storage: true,
        ipmi: node::Ipmi::default(),
    };
    node::register(store, &registration).await.unwrap();
    let report = NodeReport { running: vec![id], ..NodeReport::default() };
    store.commit(node::report(&hv1, &report, None)).await.unwrap();
    let mut pursuit = DesiredPursuit { desired: Desired::Start, id, node: Some(node::path(&hv1)) };
    assert!(matches!(pursuit.look(&cluster).await, Ok(Look::Done(_))));

    let vm = cluster.vm(id).await.unwrap();
    let again = VmChange::update(&vm, &[VmKey::Claim], vec![VmSet::Claim(Claim::only(&hv1))]);
    vm::apply(store, &again).await.unwrap();
    assert!(matches!(pursuit.look(&cluster).await, Ok(Look::NotYet(_))), "claimed anew, not reported since");
    store.commit(node::report(&hv1, &report, Some(&report))).await.unwrap();
    assert!(matches!(pursuit.look(&cluster).await, Ok(Look::Done(_))));
}

#[test]
fn what_does_not_execute_is_no_success() {
    let paused = reported(Desired::Start, VmState::Start, "hv1", Reported::Halted(Halt::Paused));
    assert_eq!(paused.0, "no");
    assert!(paused.1.contains("does not execute: it is paused; `virsh resume web1` on hv1"), "{}", paused.1);
    let crashed = reported(Desired::Restart, VmState::Start, "hv1", Reported::Halted(Halt::Crashed));
    assert_eq!(crashed.0, "wait", "it is about to be started anew");
}
