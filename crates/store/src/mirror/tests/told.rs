//! Who is told of what: a keepalive is not what a node becomes, and nobody hears of what does not concern him.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_keepalive_is_told_apart_from_what_a_node_became() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own);
    mirror.ready().await;
    let mut changes = mirror.changes(|_, _| true);
    subjects(&mut changes).await;
    let (keepalive, became) = (Subject::Keepalive(name(1)), Subject::Node(name(1)));

    let report = NodeReport { keepalive_unix_s: 7, running: vec![id(1)], ..NodeReport::default() };
    other.commit(node::report(&name(1), &report, None)).await.unwrap();
    assert_eq!(subjects(&mut changes).await, [keepalive.clone()].into());
    assert_eq!(mirror.view().node(&name(1)).unwrap().report, report, "what runs where is always read");

    other.commit(node::set_daemon_state(&name(1), DaemonState::Run)).await.unwrap();
    assert_eq!(subjects(&mut changes).await, [became.clone()].into());

    let mut both = node::report(&name(1), &NodeReport::default(), Some(&report));
    both.ops.extend(node::set_daemon_state(&name(1), DaemonState::Stop).ops);
    other.commit(both).await.unwrap();
    assert_eq!(subjects(&mut changes).await, [keepalive, became].into());
}

#[tokio::test(start_paused = true)]
async fn a_keepalive_is_heard_but_neither_read_nor_told_until_somebody_asks() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own.clone());
    mirror.ready().await;
    let mut changes = mirror.changes(|_, _| true);
    subjects(&mut changes).await;
    let mut views = mirror.views();
    views.borrow_and_update();
    let origin = tokio::time::Instant::now();
    let mut before = NodeReport::default();
    let mut numbers = BTreeSet::new();
    for n in 1..=3_u32 {
        let report = NodeReport {
            mem_free_mib: n.into(),
            mem_used_mib: n.into(),
            cpu_load: n.into(),
            keepalive_unix_s: n.into(),
            ..NodeReport::default()
        };
        other.commit(node::report(&name(1), &report, Some(&before))).await.unwrap();
        before = report;
        own.refuse(1);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(own.get("/nodes").await.is_err(), "nothing was read meanwhile");
        let (number, at) = mirror.heard(origin).last[&name(1)];
        assert!(numbers.insert(number) && at.0.as_secs() == u64::from(n - 1) * 5, "{at:?}");
    }
    assert!(changes.try_recv().is_err() && !views.has_changed().unwrap());
    mirror.caught_up(SOON).await.unwrap();
    mirror.figures_of([name(2)].into(), SOON).await.unwrap();
    assert_eq!(mirror.view().node(&name(1)).unwrap().report.mem_free_mib, 0, "nobody has asked for these");
    mirror.figures_of([name(1)].into(), SOON).await.unwrap();
    let shown = mirror.view().node(&name(1)).unwrap().clone();
    assert_eq!((shown.report, shown.keepalive_version), (before, Some(3)));
    assert_eq!(mirror.heard(origin).last[&name(1)].0, *numbers.last().unwrap(), "reading is not hearing");
    assert_eq!(subjects(&mut changes).await, [Subject::Keepalive(name(1))].into());
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_listening_is_counted_and_what_was_missed_is_heard_after_it() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own.clone());
    mirror.ready().await;
    let origin = tokio::time::Instant::now();
    assert_eq!((mirror.heard(origin).gaps, mirror.heard(origin).last.len()), (0, 0));
    own.suspend();
    other.commit(node::report(&name(1), &NodeReport::default(), None)).await.unwrap();
    own.resume();
    mirror.caught_up(SOON).await.unwrap();
    assert_eq!((mirror.heard(origin).gaps, mirror.heard(origin).last.len()), (1, 1));
    delete_node(&*other).await;
    mirror.caught_up(SOON).await.unwrap();
    assert!(mirror.view().nodes.is_empty() && mirror.heard(origin).last.is_empty());
}

async fn delete_node(store: &dyn Store) {
    let path = node::path(&name(1));
    let keys = store.children(&path).await.unwrap().unwrap();
    let mut txn = Transaction::default();
    for key in keys {
        txn.delete(format!("{path}/{key}"), None);
    }
    txn.delete(path, None);
    store.commit(txn).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_fence_is_never_shown_beside_an_older_keepalive_than_it_is_about() {
    let (own, other, _) = world().await;
    own.delay(Duration::from_millis(3));
    let mirror = Mirror::start(own);
    mirror.ready().await;
    let mut views = mirror.views();
    let fencing = pvc_process::spawn(async move {
        for n in 0..100_u64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let report = NodeReport { keepalive_unix_s: n, ..NodeReport::default() };
            other.commit(node::report(&name(1), &report, Some(&report))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(n % 5)).await;
            let seen = node::read(&*other, &name(1)).await.unwrap().unwrap();
            other.commit(fence::begin(&seen, &name(2), &job(FenceStep::Shooting))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(n % 7 * 4 + 10)).await;
            // Whoever works on a fence sees each keepalive.
            other.commit(node::report(&name(1), &report, Some(&report))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            let Some(Entry::Good(begun)) = fence::read(&*other, &name(1)).await.unwrap() else { panic!() };
            other.commit(fence::finish(&begun)).await.unwrap();
        }
    });
    let (mut fenced, mut spoke) = (0, 0);
    while !fencing.is_finished() {
        if !matches!(timeout(Duration::from_millis(500), views.changed()).await, Ok(Ok(()))) {
            break;
        }
        let view = views.borrow_and_update().clone();
        let Some(Entry::Good(fence)) = view.fences.get(&name(1)) else { continue };
        let (about, shown) = (fence.job.keepalive_version, view.node(&name(1)).unwrap().keepalive_version);
        assert!(shown >= about, "a fence about keepalive {about:?} beside keepalive {shown:?}");
        fenced += i32::from(shown == about);
        spoke += i32::from(shown > about);
    }
    assert!(fenced >= 50 && spoke >= 90, "{fenced} fences and {spoke} keepalives were seen");
}

#[tokio::test(start_paused = true)]
async fn a_nodes_own_figures_are_read_with_something_else_or_when_somebody_asks() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start_on(own.clone(), &Needs { me: Some(name(1)), ..Needs::default() });
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

#[tokio::test(start_paused = true)]
async fn what_is_not_needed_is_not_watched() {
    let (own, other, _) = world().await;
    let create = Op::Create { path: "/networks/100".into(), data: vec![], mode: CreateMode::Persistent };
    other.commit(Transaction { ops: vec![create] }).await.unwrap();
    for networks in [false, true] {
        let mirror = Mirror::start_on(own.clone(), &Needs { networks, ..Needs::default() });
        mirror.ready().await;
        assert!(mirror.synced());
        assert_eq!((mirror.view().networks.len(), mirror.view().vms.len()), (usize::from(networks), 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_steps_down_is_shown_after_one_answer() {
    const ROUND_TRIP: Duration = Duration::from_millis(10);
    let (own, other, _) = world().await;
    other.commit(primary::take(&name(1), false)).await.unwrap();
    let mirror = Mirror::start(own.clone());
    mirror.ready().await;
    shows(&mirror, "the primary", |view| view.primary_holder == Some(name(1))).await;
    own.delay(ROUND_TRIP);
    let began = tokio::time::Instant::now();
    other.commit(primary::release(&name(1))).await.unwrap();
    shows(&mirror, "that there is none", |view| view.primary_holder.is_none()).await;
    assert_eq!(mirror.view().node(&name(1)).unwrap().router_state.value, RouterState::Secondary);
    assert!(began.elapsed() < 2 * ROUND_TRIP, "{:?}", began.elapsed());
}
