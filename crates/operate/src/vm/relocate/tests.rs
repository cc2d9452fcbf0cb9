use pvc_core::{
    command::RefusalKind,
    model::{Claim, NodeReport, VmSet},
};

use super::*;
use crate::testing::{Fake, id, name};

/// web1 runs on hv1, as hv1 reports; hv2 and hv3 are free.
async fn cluster() -> Fake {
    let cluster = Fake::with(&["hv1", "hv2", "hv3"]).await;
    cluster.define(1, "web1", "hv1").await;
    cluster.change(1, vec![VmSet::State(VmState::Start), VmSet::Claim(Claim::only(&name("hv1")))]).await;
    cluster.report(&name("hv1"), &[id(1)]).await;
    cluster
}

/// Moves web1, to a chosen node if none is named.
async fn run(fake: &Fake, relocation: Relocation, node: Option<&str>) -> Result<Asked, Failure> {
    run_of(fake, 1, relocation, node).await
}

async fn run_of(
    fake: &Fake,
    number: u8,
    relocation: Relocation,
    node: Option<&str>,
) -> Result<Asked, Failure> {
    let to = To { node, selector: Selector::default(), force: false };
    relocate(&fake.cluster, id(number), relocation, to).await.map(|relocated| relocated.asked)
}

async fn said(fake: &Fake, relocation: Relocation, node: Option<&str>) -> String {
    run(fake, relocation, node).await.unwrap().answer.message
}

/// The target takes it and reports it, as its daemon does.
async fn arrive(fake: &Fake, to: &str) {
    fake.change(1, vec![VmSet::State(VmState::Start), VmSet::Claim(Claim::only(&name(to)))]).await;
    fake.report(&name(to), &[id(1)]).await;
}

async fn keys(fake: &Fake) -> [String; 3] {
    let vm = fake.cluster.vm(id(1)).await.unwrap();
    let last = vm.last_node.value.map(|node| node.to_string()).unwrap_or_default();
    [vm.state.value.to_string(), vm.node.value.to_string(), last]
}

#[tokio::test]
async fn a_vm_goes_away_comes_back_and_moves() {
    let fake = cluster().await;
    let away = said(&fake, Relocation::Migrate, Some("hv3")).await;
    assert_eq!(away, "VM web1 migrates from hv1 to hv3");
    assert_eq!(keys(&fake).await, ["migrate", "hv3", "hv1"]);
    arrive(&fake, "hv3").await;
    assert_eq!(said(&fake, Relocation::Unmigrate, None).await, "VM web1 returns from hv3 to hv1");
    assert_eq!(keys(&fake).await, ["migrate", "hv1", ""]);
    arrive(&fake, "hv1").await;
    assert_eq!(said(&fake, Relocation::Move, None).await, "VM web1 moves from hv1 to hv2");
    assert_eq!(keys(&fake).await, ["migrate", "hv2", ""]);
}

#[tokio::test]
async fn success_is_reported_when_the_target_reports_the_vm() {
    let fake = cluster().await;
    let asked = run(&fake, Relocation::Migrate, Some("hv2")).await.unwrap();
    let waiting = asked.wait(&fake.cluster, Duration::from_secs(20), &|_| {});
    let (said, ()) = tokio::join!(waiting, arrive(&fake, "hv2"));
    assert_eq!(said.unwrap().message, "VM web1 runs on hv2");
}

#[tokio::test]
async fn a_migration_that_nobody_takes_up_goes_on_when_the_waiting_ends() {
    let fake = cluster().await;
    let asked = run(&fake, Relocation::Migrate, Some("hv2")).await.unwrap();
    let failure = asked.wait(&fake.cluster, Duration::from_millis(50), &|_| {}).await.unwrap_err();
    assert!(failure.to_string().contains("waiting for hv1. It goes on"), "{failure}");
    assert_eq!(keys(&fake).await[0].as_str(), "migrate");
}

#[tokio::test]
async fn a_target_is_there_if_its_daemon_has_a_session_whatever_its_clock_says() {
    let fake = cluster().await;
    let late = NodeReport { mem_total_mib: 1000, keepalive_unix_s: 1, ..NodeReport::default() };
    let store = &fake.cluster.store;
    store.commit(pvc_store::schema::node::report(&name("hv2"), &late, None)).await.unwrap();
    run(&fake, Relocation::Migrate, Some("hv2")).await.unwrap();

    let fake = cluster().await;
    fake.daemon_ends("hv2").await;
    let refused = run(&fake, Relocation::Migrate, Some("hv2")).await.unwrap_err().to_string();
    assert!(refused.contains("hv2 is silent"), "{refused}");
}

#[tokio::test]
async fn a_placement_moves_the_placement_key_and_one_without_memory_is_refused() {
    let fake = cluster().await;
    let before = fake.cluster.view().await.unwrap().placement_version;
    run(&fake, Relocation::Migrate, None).await.unwrap();
    let view = fake.cluster.view().await.unwrap();
    assert_eq!(view.placement_version, before.map(|v| v + 1));
    arrive(&fake, "hv2").await;
    for number in 2..=10 {
        fake.define(number, &format!("big{number}"), "hv3").await;
        fake.change(number, vec![VmSet::State(VmState::Start)]).await;
    }
    run(&fake, Relocation::Move, Some("hv3")).await.unwrap();
    arrive(&fake, "hv3").await;
    fake.define(11, "last", "hv1").await;
    fake.change(11, vec![VmSet::State(VmState::Start)]).await;
    let last = run_of(&fake, 11, Relocation::Move, Some("hv3")).await.unwrap_err();
    let Failure::Refused(refusal) = last else { panic!() };
    assert_eq!(refusal.why, "hv3 has 0 MiB of memory left, 100 MiB are needed");
    assert_eq!(refusal.kind, RefusalKind::Refused);
}

#[tokio::test]
async fn what_is_off_changes_its_node_at_once_and_without_a_placement() {
    let fake = Fake::with(&["hv1", "hv2"]).await;
    fake.define(1, "web1", "hv1").await;
    let before = fake.cluster.view().await.unwrap().placement_version;
    let done = run(&fake, Relocation::Move, None).await.unwrap();
    assert!(done.is_settled());
    assert_eq!(done.answer.message, "VM web1 is off and belongs to hv2 now");
    assert_eq!(keys(&fake).await, ["stop", "hv2", ""]);
    assert_eq!(fake.cluster.view().await.unwrap().placement_version, before);
}

#[tokio::test]
async fn only_what_arrived_has_arrived() {
    use VmState::{Failed, Migrate, Start, Stop};
    let cluster = cluster().await;
    let vm = cluster.cluster.vm(id(1)).await.unwrap();
    let judged = |state, node: &str, claim: &str, runs, reason: &str| {
        let mut vm = vm.clone();
        (vm.state.value, vm.node.value) = (state, name(node));
        (vm.claim.value, vm.failed_reason.value) = (claim.parse().unwrap(), reason.to_owned());
        let reported = if runs { Reported::Executes } else { Reported::Nothing };
        match judge(&vm, &name("hv1"), &name("hv2"), reported, None) {
            Ok(Look::Done(_)) => "arrived".to_owned(),
            Ok(Look::NotYet(what)) => what,
            Err(failure) => failure.to_string(),
        }
    };
    for (state, node, claim, runs, reason, words) in [
        (Start, "hv2", "hv2", true, "", "arrived"),
        (Start, "hv2", "hv2", false, "", "waiting for hv2"),
        (Start, "hv2", "hv1 hv2", true, "", "waiting for hv2"),
        (Migrate, "hv2", "hv2", true, "", "waiting for hv2"),
        (Migrate, "hv2", "hv1", false, "", "waiting for hv1"),
        (Migrate, "hv2", "hv1 hv2", false, "", "waiting for hv2"),
        (Start, "hv1", "hv1", false, "no route.", "VM web1 did not go to hv2 and stays on hv1: no route"),
        (
            Start,
            "hv1",
            "hv1",
            false,
            "not migrated to hv2: hv2 is silent",
            "VM web1 did not go to hv2 and stays on hv1: hv2 is silent",
        ),
        (Start, "hv3", "hv3", false, "", "VM web1 did not go to hv2 and belongs to hv3 now"),
        (Migrate, "hv3", "hv1", false, "", "VM web1 did not go to hv2 and belongs to hv3 now"),
        (Failed, "hv2", "", false, "no memory", "VM web1 failed: no memory"),
        (Stop, "hv2", "", false, "", "VM web1: somebody else has asked for stop meanwhile, which counts"),
    ] {
        assert_eq!(judged(state, node, claim, runs, reason), words, "{state} {node} {claim:?}");
    }
}

#[tokio::test]
async fn what_arrived_as_it_was_and_does_not_execute_is_no_success() {
    let cluster = cluster().await;
    let mut vm = cluster.cluster.vm(id(1)).await.unwrap();
    (vm.state.value, vm.node.value) = (VmState::Start, name("hv2"));
    vm.claim.value = "hv2".parse().unwrap();
    let reported = Reported::Halted(pvc_core::model::Halt::Paused);
    let judged = judge(&vm, &name("hv1"), &name("hv2"), reported, None);
    let told = judged.map(drop).unwrap_err().to_string();
    assert!(told.contains("is on hv2 and does not execute: it is paused"), "{told}");
}
