//! What the mirror does about a store that refuses, lags, fails or ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_may_read_costs_its_object_and_no_other() {
    let (own, other, tree) = world().await;
    claim(&*other, 1, "node1").await;
    let forbidden = vm::key_path(id(1), VmKey::Claim);
    tree.forbid(&forbidden, true);
    let mirror = Mirror::start(own);
    mirror.ready().await;
    assert!(mirror.synced(), "what can be read is current");
    let why = |view: &ClusterView| {
        view.vm(id(1)).unwrap().problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let expected = format!("{forbidden}: the state store refuses to show it: not authorized");
    assert_eq!(why(&mirror.view()), [expected]);
    assert!(mirror.view().vm(id(1)).unwrap().cannot_read(VmKey::Claim));
    assert_eq!(state(&mirror.view(), 2), Some(VmState::Stop));

    // The others' changes are shown as ever, and so are this one's when it may be read again.
    for n in [1, 2] {
        set(&*other, &vm::key_path(id(n), VmKey::State), "start").await;
    }
    shows(&mirror, "the readable one's change", |view| state(view, 2) == Some(VmState::Start)).await;
    mirror.caught_up(SOON).await.unwrap();
    assert_eq!(state(&mirror.view(), 1), Some(VmState::Start), "its other keys are read as ever");
    tree.forbid(&forbidden, false);
    shows(&mirror, "its last key", |view| why(view).is_empty()).await;

    // A node's key, while the mirror runs; it is read when somebody asks what the node's keepalive says.
    // Its version is told all the same: that it is written is what keeps the node from being fenced.
    let keepalive = format!("{}/keepalive", node::path(&name(1)));
    tree.forbid(&keepalive, true);
    set(&*other, &keepalive, "7").await;
    mirror.figures(SOON).await.unwrap();
    let forbidden = |view: &ClusterView, version| {
        let node = view.node(&name(1)).unwrap();
        let told: Vec<&str> = node.problems.iter().map(|problem| problem.key.as_str()).collect();
        told == [keepalive.as_str()] && node.keepalive_version == Some(version)
    };
    shows(&mirror, "the node without its keepalive", |view| forbidden(view, 1)).await;
    assert!(mirror.synced());
    set(&*other, &keepalive, "8").await;
    mirror.figures(SOON).await.unwrap();
    shows(&mirror, "that it was written", |view| forbidden(view, 2)).await;
    tree.forbid(&keepalive, false);
    shows(&mirror, "the node", |view| view.node(&name(1)).unwrap().problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_nobody_may_read_is_there_and_unreadable() {
    let (own, other, tree) = world().await;
    let path = "/pvc/fence/node1";
    let create = Op::Create { path: path.into(), data: b"{}".into(), mode: CreateMode::Persistent };
    other.commit(Transaction { ops: vec![create] }).await.unwrap();
    tree.forbid(path, true);
    let mirror = Mirror::start(own);
    mirror.ready().await;
    assert!(mirror.synced());
    let view = mirror.view();
    assert!(matches!(view.fences.get(&name(1)), Some(Entry::Bad(_))), "{:?}", view.fences);
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_during_a_cut_is_found_and_the_mirror_says_when_it_is_not_current() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own.clone());
    mirror.ready().await;
    let mut changes = mirror.changes(|_, _| true);
    subjects(&mut changes).await;

    own.suspend();
    assert!(!mirror.synced());
    let asked = tokio::time::Instant::now();
    assert!(mirror.caught_up(SOON).await.is_err());
    assert!(asked.elapsed() < Duration::from_secs(1), "said at once, not at the deadline");
    vm::apply(&*other, &define(3)).await.unwrap();
    vm::apply(&*other, &VmChange::Remove { id: id(1), expect: vec![] }).await.unwrap();
    set(&*other, &vm::key_path(id(2), VmKey::State), "start").await;
    own.expire();
    own.resume();
    mirror.caught_up(SOON).await.unwrap();
    assert!(mirror.synced());
    let missed: BTreeSet<Subject> = [1, 2, 3].map(id).map(Subject::Vm).into();
    assert_eq!(subjects(&mut changes).await, missed, "also what is gone, and nothing else");
    assert!(mirror.view().vm(id(3)).is_some() && !mirror.view().vms.contains_key(&id(1)));
}

#[tokio::test(start_paused = true)]
async fn a_healthy_session_alone_does_not_make_the_view_current() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own.clone());
    mirror.ready().await;
    own.suspend();
    vm::apply(&*other, &define(3)).await.unwrap();
    // The mirror learns of the interruption, then the connection is back before the watches are.
    assert!(mirror.caught_up(SOON).await.is_err());
    own.resume_without_watches();
    assert!(!mirror.synced());
    assert!(mirror.caught_up(Duration::from_secs(1)).await.is_err(), "what was missed has not been listed");
    assert!(!mirror.synced());
    own.set_watches();
    mirror.caught_up(SOON).await.unwrap();
    assert!(mirror.synced() && mirror.view().vm(id(3)).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_is_seen_by_its_writer() {
    let (own, _, _) = world().await;
    let mirror = Mirror::start(own.clone());
    for n in 10..30 {
        vm::apply(&*own, &define(n)).await.unwrap();
        mirror.caught_up(SOON).await.unwrap();
        assert!(mirror.view().vm(id(n)).is_some(), "definition {n}");
        let change = VmChange::Update { id: id(n), expect: vec![], set: vec![VmSet::State(VmState::Start)] };
        vm::apply(&*own, &change).await.unwrap();
        mirror.caught_up(SOON).await.unwrap();
        assert_eq!(state(&mirror.view(), n), Some(VmState::Start));
    }
}

#[tokio::test(start_paused = true)]
async fn a_mirror_behind_its_server_catches_up_with_everybody() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own.clone());
    mirror.ready().await;
    own.fall_behind();
    set(&*other, &vm::key_path(id(1), VmKey::State), "start").await;
    mirror.caught_up(SOON).await.unwrap();
    assert!(
        mirror.synced() && state(&mirror.view(), 1) == Some(VmState::Stop),
        "nothing has been heard of it"
    );
    mirror.caught_up_with_everybody(SOON).await.unwrap();
    assert_eq!(state(&mirror.view(), 1), Some(VmState::Start));
    own.lose_requests(1);
    assert!(mirror.caught_up_with_everybody(SOON).await.is_err(), "nobody has confirmed it");
}

#[tokio::test(start_paused = true)]
async fn a_failed_read_is_repeated() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own.clone());
    mirror.ready().await;
    own.refuse(5);
    set(&*other, &vm::key_path(id(1), VmKey::State), "start").await;
    shows(&mirror, "the start", |view| state(view, 1) == Some(VmState::Start)).await;
    mirror.caught_up(SOON).await.unwrap();
    assert!(mirror.synced());
}

#[tokio::test(start_paused = true)]
async fn a_closed_store_ends_the_mirror() {
    let (own, _, _) = world().await;
    let mirror = Mirror::start(own.clone());
    mirror.ready().await;
    own.close().await;
    assert!(mirror.caught_up(SOON).await.is_err());
    assert!(!mirror.synced());
    assert_eq!(mirror.view().vms.len(), 2, "the last view is kept");
}

#[tokio::test(start_paused = true)]
async fn the_mirrors_task_ends_with_its_last_handle() {
    let (own, _, _) = world().await;
    let weak = Arc::downgrade(&own);
    let mirror = Mirror::start(own);
    mirror.ready().await;
    drop(mirror);
    let gone = async {
        while weak.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.expect("the task lets go of the store");
}
