use pvc_core::model::{DaemonState, Entry, FlushProgress, RouterState, Stuck, VmSet};
use pvc_operate::testing::{Fake, id, name};
use pvc_store::schema::{fence as record, flush, maintenance, node as keys, primary as holder};

use super::*;
use crate::args::{Death, Follow, Format, Handover};

async fn node(cluster: &Fake, command: args::Node) -> Result<String, Failure> {
    let out = Out::captured(Format::Table);
    run(command, &Door::from(cluster), &out).await.map(|()| out.text())
}

fn follow(node: &str, wait: bool) -> Follow {
    Follow { wait, within: std::time::Duration::from_secs(20), node: node.into() }
}

fn death(node: &str) -> Death {
    Death { yes: true, follow: follow(node, false) }
}

fn confirm(node: &str) -> args::Node {
    args::Node::ConfirmDead { death: death(node), listen: std::time::Duration::from_millis(50) }
}

async fn has_bmc(cluster: &Fake, node: &str) {
    let mut txn = pvc_store::Transaction::default();
    let path = format!("/nodes/{node}/ipmihostname");
    txn.ops.push(pvc_store::Op::Set { path, data: b"bmc".into(), version: None });
    cluster.cluster.store.commit(txn).await.unwrap();
}

#[tokio::test]
async fn a_flush_is_a_desired_state_and_its_end_is_told_with_what_stayed() {
    let cluster = Fake::with(&["hv1", "hv2"]).await;
    cluster.define(1, "web1", "hv1").await;
    assert_eq!(
        node(&cluster, args::Node::Flush(follow("hv1", false))).await.unwrap(),
        "hv1 is to be flushed\n"
    );
    assert_eq!(cluster.get("/nodes/hv1/domainstate").await.unwrap(), "flush");
    let stuck = vec![Stuck { vm: id(1).to_string(), reason: "shut down: no node has room".into() }];
    let progress = FlushProgress { total: 1, left: 0, moving: 0, stuck, at_unix_s: 1 };
    flush::publish(&*cluster.cluster.store, &name("hv1"), &progress).await.unwrap();
    let done = keys::set_domain_state(&name("hv1"), pvc_core::model::DomainState::Flushed, None);
    cluster.cluster.store.commit(done).await.unwrap();
    let said = node(&cluster, args::Node::Flush(follow("hv1", true))).await.unwrap();
    assert_eq!(said, "hv1 is flushed\nnote: VM web1: shut down: no node has room\n");
    assert_eq!(
        node(&cluster, args::Node::Ready(follow("hv1", false))).await.unwrap(),
        "hv1 is to take VMs\n"
    );
    assert_eq!(cluster.get("/nodes/hv1/domainstate").await.unwrap(), "unflush");
}

#[tokio::test]
async fn a_newer_desired_state_ends_the_waiting() {
    let cluster = Fake::with(&["hv1"]).await;
    let waiting = node(&cluster, args::Node::Flush(follow("hv1", true)));
    let other = async {
        let mut watch = pvc_store::Store::watch(&*cluster.client, "/nodes/hv1/domainstate");
        while cluster.get("/nodes/hv1/domainstate").await.as_deref() != Some("flush") {
            watch.recv().await;
        }
        let unflush = keys::set_domain_state(&name("hv1"), pvc_core::model::DomainState::Unflush, None);
        cluster.cluster.store.commit(unflush).await.unwrap();
    };
    let (said, ()) = tokio::join!(waiting, other);
    assert!(said.unwrap_err().to_string().contains("somebody else has asked for unflush meanwhile"));
}

#[tokio::test]
async fn the_primary_is_desired_for_and_stepping_down_is_none() {
    let cluster = Fake::with(&["hv1", "hv2"]).await;
    let handover =
        |node: &str| Handover { wait: std::time::Duration::from_secs(1), no_wait: true, node: node.into() };
    let said = node(&cluster, args::Node::Primary(handover("hv2"))).await.unwrap();
    assert_eq!(said, "hv2 is to become primary\n");
    assert_eq!(cluster.get("/primary_node").await.unwrap(), "hv2");
    node(&cluster, args::Node::Secondary(handover("hv2"))).await.unwrap();
    assert_eq!(cluster.get("/primary_node").await.unwrap(), "none");
}

#[tokio::test]
async fn a_hand_over_is_done_when_the_new_primary_holds_the_addresses_and_says_so() {
    let cluster = Fake::with(&["hv1", "hv2"]).await;
    let wait = std::time::Duration::from_secs(20);
    let handover = |node: &str| Handover { wait, no_wait: false, node: node.into() };
    let store = &*cluster.cluster.store;
    let taking = async {
        let mut watch = pvc_store::Store::watch(&*cluster.client, "/primary_node");
        while cluster.get("/primary_node").await.as_deref() != Some("hv2") {
            watch.recv().await;
        }
        store.commit(holder::take(&name("hv2"), false)).await.unwrap();
        store.commit(keys::set_router_state(&name("hv2"), RouterState::Primary)).await.unwrap();
    };
    let (said, ()) = tokio::join!(node(&cluster, args::Node::Primary(handover("hv2"))), taking);
    assert_eq!(said.unwrap(), "hv2 is primary\n");

    let electing = async {
        let mut watch = pvc_store::Store::watch(&*cluster.client, "/primary_node");
        while cluster.get("/primary_node").await.as_deref() != Some("none") {
            watch.recv().await;
        }
        store.commit(holder::release(&name("hv2"))).await.unwrap();
        store.commit(holder::take(&name("hv1"), false)).await.unwrap();
    };
    let (said, ()) = tokio::join!(node(&cluster, args::Node::Secondary(handover("hv2"))), electing);
    assert_eq!(said.unwrap(), "hv2 is not primary\nnote: hv1 is primary now\n");
}

#[tokio::test]
async fn a_fence_that_is_followed_ends_with_what_became_of_the_node() {
    let cluster = Fake::with(&["hv1", "hv2"]).await;
    has_bmc(&cluster, "hv2").await;
    let store = &*cluster.cluster.store;
    let followed = Death { yes: true, follow: follow("hv2", true) };
    let fencing = async {
        let mut watch = pvc_store::Store::watch(&*cluster.client, "/pvc/fence");
        let fence = loop {
            if let Some(Entry::Good(fence)) = record::read(store, &name("hv2")).await.unwrap() {
                break fence;
            }
            watch.recv().await;
        };
        store.commit(record::finish(&fence)).await.unwrap();
    };
    let (said, ()) =
        tokio::join!(node(&cluster, args::Node::Fence { death: followed, cancel: false }), fencing);
    assert_eq!(said.unwrap(), "hv2 is out of the cluster, its VMs were seen running elsewhere\n");
}

#[tokio::test]
async fn a_fence_that_is_asked_for_is_a_record_without_a_fencer() {
    let cluster = Fake::with(&["hv1", "hv2"]).await;
    let refused = node(&cluster, args::Node::Fence { death: death("hv2"), cancel: false }).await.unwrap_err();
    assert_eq!(refused.exit_code(), 3, "{refused}");
    has_bmc(&cluster, "hv2").await;
    assert!(
        node(&cluster, args::Node::Fence { death: death("hv2"), cancel: false })
            .await
            .unwrap()
            .starts_with("hv2 is to be fenced\n")
    );
    let fence = record::read(&*cluster.cluster.store, &name("hv2")).await.unwrap().unwrap();
    let fence = fence.good().unwrap();
    assert!(fence.job.asked.is_some() && fence.fencer.is_none(), "{fence:?}");
    assert_eq!(fence.job.instance.as_deref(), Some("i7"));
    assert_eq!(cluster.get("/nodes/hv2/daemonstate").await.unwrap(), "dead");
    let again = node(&cluster, args::Node::Fence { death: death("hv2"), cancel: false }).await.unwrap();
    assert!(again.contains("it is being fenced already: its power is being cut"), "{again}");
}

#[tokio::test]
async fn without_a_yes_and_somebody_to_ask_nothing_is_done() {
    let cluster = Fake::with(&["hv1", "hv2"]).await;
    has_bmc(&cluster, "hv2").await;
    let mut unsure = death("hv2");
    unsure.yes = false;
    let failure = node(&cluster, args::Node::Fence { death: unsure, cancel: false }).await.unwrap_err();
    assert_eq!(failure.exit_code(), 2, "{failure}");
    assert!(failure.to_string().contains("--yes"), "{failure}");
    assert_eq!(cluster.get("/nodes/hv2/daemonstate").await.unwrap(), "run");
}

#[tokio::test]
async fn a_node_that_is_connected_or_heard_is_not_taken_for_dead() {
    let cluster = Fake::with(&["hv1", "hv2"]).await;
    let refused = node(&cluster, confirm("hv2")).await.unwrap_err();
    assert!(refused.to_string().contains("connected to the state store"), "{refused}");

    cluster.daemon_ends("hv1").await;
    let listening =
        args::Node::ConfirmDead { death: death("hv1"), listen: std::time::Duration::from_secs(20) };
    let living = async {
        loop {
            cluster.report(&name("hv1"), &[]).await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let refused = tokio::select! {
        said = node(&cluster, listening) => said.unwrap_err(),
        () = living => unreachable!(),
    };
    assert!(refused.to_string().contains("its keepalives arrive"), "{refused}");
    assert_eq!(cluster.get("/pvc/fence/hv1").await, None);
}

#[tokio::test]
async fn a_silent_node_is_taken_for_dead_on_an_operators_word() {
    let cluster = Fake::with(&["hv1", "hv2"]).await;
    cluster.daemon_ends("hv2").await;
    let said = node(&cluster, confirm("hv2")).await.unwrap();
    assert!(said.starts_with("hv2 is taken for dead\n"), "{said}");
    let fence = record::read(&*cluster.cluster.store, &name("hv2")).await.unwrap().unwrap();
    assert!(fence.good().unwrap().job.confirmed_dead.is_some());
    assert_eq!(cluster.get("/nodes/hv2/daemonstate").await.unwrap(), DaemonState::Dead.as_str());
}

#[tokio::test]
async fn maintenance_is_shown_above_lists() {
    let cluster = Fake::with(&["hv1"]).await;
    let list = || args::Node::List { limit: None };
    assert!(node(&cluster, list()).await.unwrap().starts_with("NAME"));
    maintenance::set(&*cluster.cluster.store, true).await.unwrap();
    let text = node(&cluster, list()).await.unwrap();
    assert!(text.starts_with("! maintenance is on: nobody is fenced, no watchdog is armed\nNAME"), "{text}");
}

#[tokio::test]
async fn explain_tells_of_the_fence_the_flush_and_the_vms() {
    let cluster = Fake::with(&["hv1", "hv2"]).await;
    cluster.define(1, "web1", "hv2").await;
    cluster.change(1, vec![VmSet::Claim("hv2".parse().unwrap())]).await;
    cluster.daemon_ends("hv2").await;
    node(&cluster, confirm("hv2")).await.unwrap();
    let text = node(&cluster, args::Node::Explain { node: "hv2".into() }).await.unwrap();
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "daemon: dead",
        "not attempted: an operator says that it is dead",
        "fencer: nobody works on it",
        "takes VMs: no: it is being fenced",
        "claims VMs: web1",
        "No coordinator works on it",
    ] {
        assert!(flat.contains(words), "{words}: {text}");
    }
    let unknown = node(&cluster, args::Node::Explain { node: "hv9".into() }).await.unwrap_err();
    assert_eq!(unknown.exit_code(), 4);
}

#[tokio::test]
async fn a_machine_is_replaced_once_its_daemon_has_no_session() {
    let cluster = Fake::with(&["hv1", "hv2"]).await;
    let replace = || args::Node::Replace {
        yes: true,
        listen: std::time::Duration::from_millis(50),
        node: "hv1".into(),
    };
    let refused = node(&cluster, replace()).await.unwrap_err().to_string();
    assert!(refused.contains("its daemon is connected to the state store"), "{refused}");
    cluster.daemon_ends("hv1").await;
    let said = node(&cluster, replace()).await.unwrap();
    assert!(said.contains("no machine is recorded"), "{said}");
    let machine = pvc_core::model::MachineRecord {
        id: pvc_core::model::MachineId::default(),
        boot: "b1".into(),
        host: "hv1".into(),
        since_unix_s: 1,
        replaced: None,
    };
    let seen = pvc_store::schema::machine::Seen::of(None);
    let record = pvc_store::schema::machine::write(&name("hv1"), &machine, &seen);
    cluster.cluster.store.commit(record).await.unwrap();
    let said = node(&cluster, replace()).await.unwrap();
    assert_eq!(
        said,
        "hv1 may be another machine now\nnote: the next machine that runs pvcd as this node takes what it claims, and starts it\n"
    );
    assert!(cluster.get("/pvc/machine/hv1").await.unwrap().contains("\"replaced\":{\"by\":\"an operator"));
    let said = node(&cluster, replace()).await.unwrap();
    assert!(said.contains("somebody has said that already"), "{said}");
    let unknown =
        args::Node::Replace { yes: true, listen: std::time::Duration::from_millis(50), node: "hv9".into() };
    assert_eq!(node(&cluster, unknown).await.unwrap_err().exit_code(), 4);
}

#[tokio::test]
async fn a_node_that_has_stopped_and_owns_nothing_is_removed_with_all_its_keys() {
    let cluster = Fake::with(&["hv1", "hv2"]).await;
    let remove =
        || args::Node::Remove { yes: true, listen: std::time::Duration::from_millis(50), node: "hv2".into() };
    cluster.define(1, "web1", "hv1").await;
    cluster.change(1, vec![VmSet::LastNode(Some(name("hv2")))]).await;
    let refused = node(&cluster, remove()).await.unwrap_err();
    assert!(refused.to_string().contains("connected"), "{refused}");
    cluster.daemon_ends("hv2").await;
    let refused = node(&cluster, remove()).await.unwrap_err();
    assert!(refused.to_string().contains("state run"), "{refused}");
    let stop = keys::set_domain_state(&name("hv2"), pvc_core::model::DomainState::Flushed, None);
    cluster.cluster.store.commit(stop).await.unwrap();
    cluster.cluster.store.commit(keys::set_daemon_state(&name("hv2"), DaemonState::Stop)).await.unwrap();
    let said = node(&cluster, remove()).await.unwrap();
    assert!(said.starts_with("hv2 is removed from the cluster\n"), "{said}");
    for key in ["/nodes/hv2", "/pvc/machine/hv2", "/pvc/daemon/hv2"] {
        assert_eq!(cluster.get(key).await, None, "{key}");
    }
    assert_eq!(cluster.get(&format!("/domains/{}/lastnode", id(1))).await.as_deref(), Some(""));
    let unknown = node(&cluster, remove()).await.unwrap_err();
    assert!(unknown.to_string().contains("hv2"), "{unknown}");
}
