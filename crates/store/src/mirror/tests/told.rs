//! Who is told of what: a keepalive is not what a node becomes, and nobody hears of what does not concern him.

use pvc_core::model::DaemonState;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_keepalive_is_told_apart_from_what_a_node_became() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own);
    mirror.ready().await;
    let mut changes = mirror.changes(|_, _| true);
    subjects(&mut changes).await;
    let (keepalive, became) = (Subject::Keepalive(name(1)), Subject::Node(name(1)));

    let report = NodeReport { keepalive_unix_s: 7, mem_free_mib: 7, ..NodeReport::default() };
    other.commit(node::report(&name(1), &report, None)).await.unwrap();
    assert_eq!(subjects(&mut changes).await, [keepalive.clone()].into());
    assert_eq!(mirror.view().node(&name(1)).unwrap().report, report);

    other.commit(node::report(&name(1), &report, Some(&report))).await.unwrap();
    assert_eq!(
        subjects(&mut changes).await,
        [keepalive.clone()].into(),
        "the same figures are a sign of life"
    );

    other.commit(node::set_daemon_state(&name(1), DaemonState::Run)).await.unwrap();
    assert_eq!(subjects(&mut changes).await, [became.clone()].into());

    let mut both = node::report(&name(1), &NodeReport::default(), Some(&report));
    both.ops.extend(node::set_daemon_state(&name(1), DaemonState::Stop).ops);
    other.commit(both).await.unwrap();
    assert_eq!(subjects(&mut changes).await, [keepalive, became].into());
}

#[tokio::test(start_paused = true)]
async fn a_nodes_own_figures_are_read_with_something_else_or_when_somebody_asks() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start_on(own.clone(), name(1));
    mirror.ready().await;
    let say = async |n| {
        let report = NodeReport { keepalive_unix_s: n, mem_free_mib: n, ..NodeReport::default() };
        own.commit(node::report(&name(1), &report, None)).await.unwrap();
    };
    let said = || mirror.view().node(&name(1)).unwrap().report.mem_free_mib;
    say(1).await;
    own.refuse(1);
    tokio::time::sleep(SOON).await;
    assert!(own.get("/nodes").await.is_err(), "nothing was read meanwhile");
    assert_eq!(said(), 0);
    mirror.caught_up(SOON).await.unwrap();
    assert_eq!(said(), 1);

    say(2).await;
    set(&*other, &vm::key_path(id(1), VmKey::State), "start").await;
    shows(&mirror, "the start", |view| state(view, 1) == Some(VmState::Start)).await;
    assert_eq!(said(), 2);

    other.commit(node::set_daemon_state(&name(1), DaemonState::Dead)).await.unwrap();
    let dead = |view: &ClusterView| view.node(&name(1)).unwrap().daemon_state.value == DaemonState::Dead;
    shows(&mirror, "what others say of it", dead).await;
}

#[tokio::test(start_paused = true)]
async fn a_signal_is_given_for_what_concerns_and_for_what_makes_the_view_current() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own.clone());
    mirror.ready().await;
    let started = |subject: &Subject, view: &ClusterView| match subject {
        Subject::Vm(id) => view.vm(*id).is_some_and(|vm| vm.state.value == VmState::Start),
        _ => false,
    };
    let mut signal = mirror.signal(started);

    set(&*other, &vm::key_path(id(1), VmKey::State), "shutdown").await;
    other.commit(node::set_daemon_state(&name(1), DaemonState::Run)).await.unwrap();
    shows(&mirror, "both", |view| view.node(&name(1)).unwrap().daemon_state.value == DaemonState::Run).await;
    assert!(!signal.has_changed().unwrap(), "neither concerns it");

    set(&*other, &vm::key_path(id(1), VmKey::State), "start").await;
    timeout(SOON, signal.changed()).await.unwrap().unwrap();
    assert_eq!(state(&mirror.view(), 1), Some(VmState::Start), "shown before it is signalled");

    own.suspend();
    timeout(SOON, signal.changed()).await.expect("it is not current any more").unwrap();
    own.resume();
    timeout(SOON, signal.changed()).await.expect("it is current again").unwrap();
    assert!(mirror.synced());
    drop(mirror);
    timeout(SOON, async { while signal.changed().await.is_ok() {} }).await.expect("the mirror has gone");
}
