use pvc_core::{
    command::RefusalKind,
    model::{Claim, NodeReport, VmSet},
    plan::placement::Selector,
};
use pvc_store::Store;

use super::*;
use crate::{
    args::{Format, VmRef, Wish},
    cmd::testing::{Cluster, id, name},
};

/// web1 runs on hv1, as hv1 reports; hv2 and hv3 are free.
async fn cluster() -> Cluster {
    let cluster = Cluster::with(&["hv1", "hv2", "hv3"]).await;
    cluster.define(1, "web1", "hv1").await;
    cluster.change(1, vec![VmSet::State(VmState::Start), VmSet::Claim(Claim::only(&name("hv1")))]).await;
    cluster.report(&name("hv1"), &[id(1)]).await;
    cluster
}

fn args(target: Option<&str>, wait_ms: Option<u64>) -> args::Migrate {
    let wish = Wish {
        wait: wait_ms.map(Duration::from_millis),
        no_wait: wait_ms.is_none(),
        vm: VmRef { vm: "web1".into() },
    };
    args::Migrate { target: target.map(Into::into), selector: Some(Selector::default()), force: false, wish }
}

async fn run(cluster: &Cluster, kind: Kind, args: &args::Migrate) -> Result<String, Failure> {
    let out = Out::captured(Format::Table);
    migrate(&cluster.connection, &out, kind, args).await.map(|()| out.text())
}

/// The target takes it and reports it, as its daemon does.
async fn arrive(cluster: &Cluster, to: &str) {
    cluster.change(1, vec![VmSet::State(VmState::Start), VmSet::Claim(Claim::only(&name(to)))]).await;
    cluster.report(&name(to), &[id(1)]).await;
}

async fn keys(cluster: &Cluster) -> [String; 3] {
    let vm = cluster.connection.vm(id(1)).await.unwrap();
    let last = vm.last_node.value.map(|node| node.to_string()).unwrap_or_default();
    [vm.state.value.to_string(), vm.node.value.to_string(), last]
}

#[tokio::test]
async fn a_vm_goes_away_comes_back_and_moves() {
    let cluster = cluster().await;
    let said = run(&cluster, Kind::Migrate, &args(Some("hv3"), None)).await.unwrap();
    assert_eq!(said, "VM web1 migrates from hv1 to hv3\n");
    assert_eq!(keys(&cluster).await, ["migrate", "hv3", "hv1"]);
    arrive(&cluster, "hv3").await;
    assert_eq!(
        run(&cluster, Kind::Unmigrate, &args(None, None)).await.unwrap(),
        "VM web1 returns from hv3 to hv1\n"
    );
    assert_eq!(keys(&cluster).await, ["migrate", "hv1", ""]);
    arrive(&cluster, "hv1").await;
    assert_eq!(
        run(&cluster, Kind::Move, &args(None, None)).await.unwrap(),
        "VM web1 moves from hv1 to hv2\n"
    );
    assert_eq!(keys(&cluster).await, ["migrate", "hv2", ""]);
}

#[tokio::test]
async fn success_is_reported_when_the_target_reports_the_vm() {
    let cluster = cluster().await;
    let args = args(Some("hv2"), Some(20_000));
    let arriving = async {
        let state = format!("/domains/{}/state", id(1));
        let mut watch = cluster.client.watch(&state);
        while cluster.get(&state).await.as_deref() != Some("migrate") {
            watch.recv().await;
        }
        arrive(&cluster, "hv2").await;
    };
    let (said, ()) = tokio::join!(run(&cluster, Kind::Migrate, &args), arriving);
    assert_eq!(said.unwrap(), "VM web1 runs on hv2\n");
}

#[tokio::test]
async fn a_migration_that_nobody_takes_up_goes_on_when_the_waiting_ends() {
    let cluster = cluster().await;
    let failure = run(&cluster, Kind::Migrate, &args(Some("hv2"), Some(50))).await.unwrap_err();
    assert!(failure.to_string().contains("waiting for hv1"), "{failure}");
    assert!(failure.to_string().contains("It goes on"), "{failure}");
    assert_eq!((failure.exit_code(), keys(&cluster).await[0].as_str()), (1, "migrate"));
}

#[tokio::test]
async fn a_target_is_there_if_its_daemon_has_a_session_whatever_its_clock_says() {
    let cluster = cluster().await;
    let hour_ago = crate::read::now_unix_s() - 3600;
    let late = NodeReport { mem_total_mib: 1000, keepalive_unix_s: hour_ago, ..NodeReport::default() };
    let store = &cluster.connection.store;
    store.commit(pvc_store::schema::node::report(&name("hv2"), &late, None)).await.unwrap();
    run(&cluster, Kind::Migrate, &args(Some("hv2"), None)).await.unwrap();

    let cluster = self::cluster().await;
    cluster.daemon_ends("hv2").await;
    let refused = run(&cluster, Kind::Migrate, &args(Some("hv2"), None)).await.unwrap_err().to_string();
    assert!(refused.contains("hv2 is silent"), "{refused}");
}

#[tokio::test]
async fn a_placement_moves_the_placement_key_and_one_without_memory_is_refused() {
    let cluster = cluster().await;
    let before = cluster.connection.view().await.unwrap().placement_version;
    run(&cluster, Kind::Migrate, &args(None, None)).await.unwrap();
    let view = cluster.connection.view().await.unwrap();
    assert_eq!(view.placement_version, before.map(|v| v + 1));
    arrive(&cluster, "hv2").await;
    for number in 2..=10 {
        cluster.define(number, &format!("big{number}"), "hv3").await;
        cluster.change(number, vec![VmSet::State(VmState::Start)]).await;
    }
    run(&cluster, Kind::Move, &args(Some("hv3"), None)).await.unwrap();
    arrive(&cluster, "hv3").await;
    cluster.define(11, "last", "hv1").await;
    cluster.change(11, vec![VmSet::State(VmState::Start)]).await;
    let mut last = args(Some("hv3"), None);
    last.wish.vm.vm = "last".into();
    let Failure::Refused(refusal) = run(&cluster, Kind::Move, &last).await.unwrap_err() else { panic!() };
    assert_eq!(refusal.why, "hv3 has 0 MiB of memory left, 100 MiB are needed");
    assert_eq!(refusal.kind, RefusalKind::Refused);
}

#[tokio::test]
async fn what_is_off_changes_its_node_at_once_and_without_a_placement() {
    let cluster = Cluster::with(&["hv1", "hv2"]).await;
    cluster.define(1, "web1", "hv1").await;
    let before = cluster.connection.view().await.unwrap().placement_version;
    let said = run(&cluster, Kind::Move, &args(None, Some(1000))).await.unwrap();
    assert_eq!(said, "VM web1 is off and belongs to hv2 now\n");
    assert_eq!(keys(&cluster).await, ["stop", "hv2", ""]);
    assert_eq!(cluster.connection.view().await.unwrap().placement_version, before);
}

#[tokio::test]
async fn only_what_arrived_has_arrived() {
    use VmState::{Failed, Migrate, Start, Stop};
    let cluster = cluster().await;
    let vm = cluster.connection.vm(id(1)).await.unwrap();
    let judged = |state, node: &str, claim: &str, runs, reason: &str| {
        let mut vm = vm.clone();
        (vm.state.value, vm.node.value) = (state, name(node));
        (vm.claim.value, vm.failed_reason.value) = (claim.parse().unwrap(), reason.to_owned());
        let reported = if runs { Reported::Executes } else { Reported::Nothing };
        match judge(&vm, &name("hv1"), &name("hv2"), reported, None) {
            Ok(Look::Done(())) => "arrived".to_owned(),
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
        (Stop, "hv2", "", false, "", "VM web1: somebody else has wished stop meanwhile, which counts"),
    ] {
        assert_eq!(judged(state, node, claim, runs, reason), words, "{state} {node} {claim:?}");
    }
}

#[tokio::test]
async fn what_arrived_as_it_was_and_does_not_execute_is_no_success() {
    let cluster = cluster().await;
    let mut vm = cluster.connection.vm(id(1)).await.unwrap();
    (vm.state.value, vm.node.value) = (VmState::Start, name("hv2"));
    vm.claim.value = "hv2".parse().unwrap();
    let reported = Reported::Halted(pvc_core::model::Halt::Paused);
    let judged = judge(&vm, &name("hv1"), &name("hv2"), reported, None);
    let told = judged.map(drop).unwrap_err().to_string();
    assert!(told.contains("is on hv2 and does not execute: it is paused"), "{told}");
}
