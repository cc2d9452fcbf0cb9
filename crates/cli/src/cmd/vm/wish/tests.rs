use pvc_core::model::{Claim, DaemonMode, Field, NodeReport, VmChange, VmKey, VmSet};
use pvc_store::{Store, memory::MemoryTree, schema::root};

use super::*;
use crate::args::{Format, VmRef};

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
        unread: std::collections::BTreeSet::new(),
        problems: Vec::new(),
    }
}

/// `yes`: what is said when it is so; `wait`: what is waited for; `no`: why it cannot be so any more.
fn judged(kind: Kind, state: VmState, claim: &str, runs: bool) -> (&'static str, String) {
    reported(kind, state, claim, if runs { Reported::Executes } else { Reported::Nothing })
}

fn reported(kind: Kind, state: VmState, claim: &str, what: Reported) -> (&'static str, String) {
    match judge(kind, &vm_in(state, claim), what, None) {
        Ok(Look::Done(said)) => ("yes", said),
        Ok(Look::NotYet(what)) => ("wait", what),
        Err(failure) => ("no", failure.to_string()),
    }
}

#[test]
fn success_is_what_is_observed_and_nothing_less() {
    use VmState::{Delete, Failed, Migrate, Restart, Shutdown, Start, Stop};
    for (kind, state, claim, runs, expected) in [
        (Kind::Start, Start, "hv1", true, "yes"),
        (Kind::Start, Start, "hv1", false, "wait"),
        (Kind::Start, Start, "", true, "wait"),
        (Kind::Start, Start, "hv2", true, "wait"),
        (Kind::Start, Stop, "", false, "no"),
        (Kind::Start, Failed, "", false, "no"),
        (Kind::Stop, Stop, "", false, "yes"),
        (Kind::Stop, Stop, "hv1", false, "wait"),
        (Kind::Stop, Start, "hv1", true, "no"),
        (Kind::Shutdown, Shutdown, "hv1", true, "wait"),
        (Kind::Shutdown, Shutdown, "", false, "wait"),
        (Kind::Shutdown, Stop, "", false, "yes"),
        (Kind::Shutdown, Restart, "hv1", true, "no"),
        (Kind::Restart, Restart, "hv1", true, "wait"),
        (Kind::Restart, Start, "hv1", true, "yes"),
        (Kind::Restart, Migrate, "hv1", true, "no"),
        (Kind::Restart, Delete, "", false, "no"),
    ] {
        let (verdict, words) = judged(kind, state, claim, runs);
        assert_eq!(verdict, expected, "{kind:?} {state} {claim:?} {runs}: {words}");
        assert!(!words.is_empty());
    }
    assert_eq!(judged(Kind::Start, Failed, "", false).1, "VM web1 failed: no such bridge");
    assert!(judged(Kind::Start, Stop, "", false).1.contains("somebody else has wished stop"));
}

/// A tree with a stopped VM whose node is in claim, and a client of it.
async fn cluster() -> (std::sync::Arc<pvc_store::memory::MemoryStore>, Connection) {
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
    (client, Connection { store, addresses: "memory".into() })
}

fn args(no_wait: bool) -> args::Wish {
    args::Wish { wait: Some(Duration::from_millis(50)), no_wait, vm: VmRef { vm: "web1".into() } }
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_neither_done_nor_failed() {
    let (client, cluster) = cluster().await;
    client.lose_answers(1);
    let out = Out::captured(Format::Table);
    let failure = wish(&cluster, &out, Kind::Stop, &args(true)).await.unwrap_err();
    assert_eq!(failure.exit_code(), 5, "{failure:?}");
    assert!(failure.with_causes().contains("unknown whether"), "{}", failure.with_causes());
    assert_eq!(out.text(), "", "nothing is claimed");
}

#[tokio::test]
async fn a_wish_that_nobody_answers_stands_when_the_waiting_ends() {
    let (_client, cluster) = cluster().await;
    let out = Out::captured(Format::Json);
    let failure = wish(&cluster, &out, Kind::Shutdown, &args(false)).await.unwrap_err();
    assert!(failure.to_string().contains("waiting for hv1"), "{failure}");
    assert_eq!((failure.exit_code(), out.text()), (1, String::new()));
    assert_eq!(cluster.vm(ID.parse().unwrap()).await.unwrap().state.value, VmState::Shutdown);
}

#[tokio::test]
async fn a_wish_without_waiting_is_reported_as_a_wish() {
    let (_client, cluster) = cluster().await;
    let out = Out::captured(Format::Json);
    wish(&cluster, &out, Kind::Shutdown, &args(true)).await.unwrap();
    assert_eq!(out.text(), "{\n  \"message\": \"VM web1 is to shut down\"\n}\n");
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
        ipmi: node::Ipmi::default(),
    };
    node::register(store, &registration).await.unwrap();
    let report = NodeReport { running: vec![id], ..NodeReport::default() };
    store.commit(node::report(&hv1, &report, None)).await.unwrap();
    assert!(matches!(look(&cluster, id, Kind::Start).await, Ok(Look::Done(_))));

    let vm = cluster.vm(id).await.unwrap();
    let again = VmChange::update(&vm, &[VmKey::Claim], vec![VmSet::Claim(Claim::only(&hv1))]);
    vm::apply(store, &again).await.unwrap();
    assert!(
        matches!(look(&cluster, id, Kind::Start).await, Ok(Look::NotYet(_))),
        "claimed anew, not reported since"
    );
    store.commit(node::report(&hv1, &report, Some(&report))).await.unwrap();
    assert!(matches!(look(&cluster, id, Kind::Start).await, Ok(Look::Done(_))));
}

#[test]
fn what_does_not_execute_is_no_success() {
    let paused = reported(Kind::Start, VmState::Start, "hv1", Reported::Halted(Halt::Paused));
    assert_eq!(paused.0, "no");
    assert!(paused.1.contains("does not execute: it is paused; `virsh resume web1` on hv1"), "{}", paused.1);
    let crashed = reported(Kind::Restart, VmState::Start, "hv1", Reported::Halted(Halt::Crashed));
    assert_eq!(crashed.0, "wait", "it is about to be started anew");
}
