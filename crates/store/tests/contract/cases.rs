//! The promises, one function each.

#[path = "cases/watches.rs"]
mod watches;

use std::{collections::BTreeSet, future::Future, time::Duration};

use pvc_store::{
    Check, CommitError, Committed, CreateMode, Kept, Op, Session, Store, StoreError, Transaction, Watch,
    WatchEvent,
};
use tokio::time::{Instant, sleep, timeout};

use super::bench::{Bench, Client};

pub(crate) use watches::*;

const PATIENCE: Duration = Duration::from_mins(1);

/// Polls a condition, generously.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn create_ephemeral(store: &dyn Store, path: &str) {
    let op = Op::Create { path: path.into(), data: vec![], mode: CreateMode::Ephemeral };
    commit(store, vec![op]).await.unwrap();
}

async fn commit(store: &dyn Store, ops: Vec<Op>) -> Result<Committed, CommitError> {
    store.commit(Transaction { ops }).await
}

fn create(path: &str, data: &str) -> Op {
    Op::Create { path: path.into(), data: data.into(), mode: CreateMode::Persistent }
}

fn sequential(path: &str) -> Op {
    Op::Create { path: path.into(), data: vec![], mode: CreateMode::EphemeralSequential }
}

fn set(path: &str, data: &str, version: Option<i32>) -> Op {
    Op::Set { path: path.into(), data: data.into(), version }
}

fn check(path: &str, check: Check) -> Op {
    Op::Check { path: path.into(), check }
}

fn delete(path: &str, version: Option<i32>) -> Op {
    Op::Delete { path: path.into(), version }
}

fn conflict(outcome: Result<Committed, CommitError>) -> (usize, String) {
    match outcome {
        Err(CommitError::Conflict { op, path, .. }) => (op, path),
        other => panic!("expected a conflict: {other:?}"),
    }
}

async fn text(store: &dyn Store, path: &str) -> Option<String> {
    store.get(path).await.unwrap().map(|v| String::from_utf8(v.data).unwrap())
}

async fn next(watch: &mut Watch) -> WatchEvent {
    timeout(PATIENCE, watch.recv()).await.expect("an event in time").expect("the watch goes on")
}

async fn resync(watch: &mut Watch) {
    while next(watch).await != WatchEvent::Resync {}
}

/// All events that are there now, as a set: how often a key is reported is nobody's business.
fn queued(watch: &mut Watch) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    while let Ok(event) = watch.try_recv() {
        match event {
            WatchEvent::Changed(path) => drop(seen.insert(path)),
            other => panic!("unexpected {other:?}"),
        }
    }
    seen
}

fn paths<const N: usize>(paths: [&str; N]) -> BTreeSet<String> {
    paths.into_iter().map(str::to_owned).collect()
}

async fn healthy(client: &dyn Client) -> u64 {
    let mut session = client.store().session();
    let state = timeout(PATIENCE, session.wait_for(|s| s.is_healthy())).await.expect("healthy in time");
    match *state.expect("the store is open") {
        Session::Healthy { epoch } => epoch,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_key_is_absent_then_written_then_gone(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    assert_eq!(store.get("/a").await.unwrap(), None);
    assert_eq!(store.children("/a").await.unwrap(), None);
    let done = commit(&*store, vec![create("/a", "one"), create("/a/b", "")]).await.unwrap();
    assert_eq!(done.created, ["/a", "/a/b"]);
    let value = store.get("/a").await.unwrap().unwrap();
    assert_eq!((value.data.as_slice(), value.version, value.children), (&b"one"[..], 0, 1));
    assert_eq!(store.children("/a").await.unwrap(), Some(vec!["b".to_owned()]));
    assert!(store.children("/").await.unwrap().unwrap().contains(&"a".to_owned()));
    commit(&*store, vec![delete("/a/b", None), delete("/a", Some(0))]).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap(), None);
}

pub(crate) async fn many_keys_are_answered_in_the_order_asked(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    commit(&*store, vec![create("/a", "A"), create("/b", "B"), create("/b/c", ""), set("/a", "A2", None)])
        .await
        .unwrap();
    let asked = ["/b", "/none", "/a", "/a"].map(str::to_owned);
    let values = store.get_many(&asked).await.unwrap();
    let data: Vec<Option<&[u8]>> = values.iter().map(|v| v.as_ref().map(|v| v.data.as_slice())).collect();
    assert_eq!(data, [Some(&b"B"[..]), None, Some(b"A2"), Some(b"A2")]);
    let stats = store.stat_many(&asked).await.unwrap();
    assert_eq!(stats, values.iter().map(|v| v.as_ref().map(pvc_store::Value::stat)).collect::<Vec<_>>());
    assert_eq!(stats[2].unwrap().version, 1);
    let children = store.children_many(&asked).await.unwrap();
    assert_eq!(children, [Some(vec!["c".to_owned()]), None, Some(vec![]), Some(vec![])]);
    assert_eq!(store.get_many(&[]).await.unwrap(), []);
}

pub(crate) async fn more_keys_than_fit_into_one_request_are_all_answered(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    commit(&*store, vec![create("/d", "")]).await.unwrap();
    for chunk in (0..3000).collect::<Vec<_>>().chunks(500) {
        let ops = chunk.iter().map(|i| create(&format!("/d/{i:04}"), &i.to_string())).collect();
        commit(&*store, ops).await.unwrap();
    }
    let paths: Vec<String> = (0..3001).map(|i| format!("/d/{i:04}")).collect();
    let values = store.get_many(&paths).await.unwrap();
    for (i, value) in values.iter().enumerate().take(3000) {
        assert_eq!(value.as_ref().unwrap().data, i.to_string().as_bytes());
    }
    assert_eq!((values.len(), values[3000].as_ref()), (3001, None));
    assert_eq!(store.stat_many(&paths).await.unwrap().iter().flatten().count(), 3000);
    assert_eq!(store.children_many(&paths).await.unwrap().iter().flatten().count(), 3000);
    assert_eq!(store.children("/d").await.unwrap().unwrap().len(), 3000);
}

pub(crate) async fn a_transaction_is_applied_all_or_nothing_and_names_the_operation_that_failed(
    bench: &dyn Bench,
) {
    let client = bench.client().await;
    let store = client.store();
    commit(&*store, vec![create("/a", "1"), create("/b", "1")]).await.unwrap();
    for (last, path) in [
        (set("/none", "x", None), "/none"),
        (set("/b", "x", Some(7)), "/b"),
        (create("/b", "x"), "/b"),
        (create("/none/child", "x"), "/none/child"),
        (delete("/b", Some(3)), "/b"),
        (check("/b", Check::Version(1)), "/b"),
        (check("/none", Check::Exists), "/none"),
    ] {
        let ops = vec![check("/a", Check::Exists), set("/a", "2", Some(0)), create("/c", ""), last];
        assert_eq!(conflict(commit(&*store, ops).await), (3, path.to_owned()));
        assert_eq!(text(&*store, "/a").await.as_deref(), Some("1"));
        assert_eq!(text(&*store, "/c").await, None);
        assert_eq!(store.get("/").await.unwrap().unwrap().children, root_children(&*store).await);
    }
    let none = commit(&*store, vec![]).await.unwrap();
    assert_eq!(none, Committed { zxid: 0, created: vec![] });
}

async fn root_children(store: &dyn Store) -> u32 {
    u32::try_from(store.children("/").await.unwrap().unwrap().len()).unwrap()
}

pub(crate) async fn checks_hold_within_the_transaction_that_changes_their_key(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    commit(&*store, vec![create("/a", "1")]).await.unwrap();
    // As clients of the 0.5 generation write: each set is followed by a check of version + 1.
    let ops = vec![set("/a", "2", Some(0)), check("/a", Check::Version(1)), set("/a", "3", Some(1))];
    commit(&*store, ops).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap().unwrap().version, 2);
    // A key that can be created was absent: the check of absence.
    commit(&*store, vec![create("/b", ""), delete("/b", None), set("/a", "4", Some(2))]).await.unwrap();
    assert_eq!(text(&*store, "/b").await, None);
    let present = vec![create("/a", ""), delete("/a", None)];
    assert_eq!(conflict(commit(&*store, present).await).0, 0);
    // Checks alone, which ask the leader where a read asks any server.
    commit(&*store, vec![check("/a", Check::Version(3)), check("/a", Check::Exists)]).await.unwrap();
    let moved = vec![check("/a", Check::Exists), check("/a", Check::Version(2))];
    assert_eq!(conflict(commit(&*store, moved).await), (1, "/a".to_owned()));
    assert_eq!(store.get("/a").await.unwrap().unwrap().version, 3);
}

pub(crate) async fn a_version_moves_by_one_per_write_and_begins_anew_after_deletion(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    commit(&*store, vec![create("/a", "1")]).await.unwrap();
    for version in 0..5 {
        // The same content is a write, too.
        commit(&*store, vec![set("/a", "same", Some(version))]).await.unwrap();
    }
    assert_eq!(store.get("/a").await.unwrap().unwrap().version, 5);
    commit(&*store, vec![delete("/a", Some(5)), create("/a", "")]).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap().unwrap().version, 0);
}

pub(crate) async fn an_impossible_write_is_refused_and_nothing_is_written(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    create_ephemeral(&*store, "/e").await;
    for ops in [
        vec![create("/ok", ""), create("relative", "")],
        vec![create("/ok", ""), create("/a//b", "")],
        vec![create("/ok", ""), create("/a/", "")],
        vec![create("/ok", ""), create("/a/../b", "")],
        vec![create("/ok", ""), create("/nul\0", "")],
        vec![create("/ok", ""), create("/e/child", "")],
        vec![create("/ok", ""), set("/ok", "", Some(-1))],
        vec![create("/ok", ""), delete("/", None)],
    ] {
        let outcome = commit(&*store, ops.clone()).await;
        assert!(
            matches!(outcome, Err(CommitError::Failed(StoreError::Refused { .. }))),
            "{ops:?}: {outcome:?}"
        );
        assert_eq!(store.get("/ok").await.unwrap(), None);
    }
    let huge = "x".repeat(1_100_000);
    let outcome = commit(&*store, vec![create("/ok", &huge)]).await;
    assert!(matches!(outcome, Err(CommitError::Failed(StoreError::Refused { .. }))), "{outcome:?}");
    assert_eq!(store.get("/ok").await.unwrap(), None, "and the connection still works");
    commit(&*store, vec![create("/ok", &"x".repeat(900_000))]).await.unwrap();
    assert_eq!(store.get("/ok").await.unwrap().unwrap().data.len(), 900_000);
}

pub(crate) async fn a_key_with_children_is_not_deleted(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    commit(&*store, vec![create("/a", ""), create("/a/b", "")]).await.unwrap();
    assert_eq!(conflict(commit(&*store, vec![delete("/a", None)]).await), (0, "/a".to_owned()));
    commit(&*store, vec![delete("/a/b", None), delete("/a", None)]).await.unwrap();
}

pub(crate) async fn sequence_numbers_count_all_children_ever_created(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    commit(&*store, vec![create("/q", "")]).await.unwrap();
    let first = commit(&*store, vec![sequential("/q/x-"), sequential("/q/y-")]).await.unwrap();
    assert_eq!(first.created, ["/q/x-0000000000", "/q/y-0000000001"]);
    commit(&*store, vec![create("/q/plain", "")]).await.unwrap();
    commit(&*store, vec![delete("/q/plain", None), delete("/q/y-0000000001", None)]).await.unwrap();
    conflict(commit(&*store, vec![sequential("/q/x-"), create("/none/x", "")]).await);
    let last = commit(&*store, vec![sequential("/q/x-")]).await.unwrap();
    assert_eq!(last.created, ["/q/x-0000000003"]);
}

pub(crate) async fn what_is_kept_is_what_there_is(bench: &dyn Bench) {
    let (client, other) = (bench.client().await, bench.client().await);
    let (store, writer) = (client.store(), other.store());
    commit(&*writer, vec![create("/k", ""), create("/k/a", "0")]).await.unwrap();
    let kept = Kept::of(store.clone(), &["/k"]);
    let same = async |when: &str| {
        let names = async |store: &dyn Store| {
            store.children("/k").await.unwrap().map(|names| names.into_iter().collect::<BTreeSet<_>>())
        };
        let paths = ["/k", "/k/a", "/k/b"].map(str::to_owned);
        // Nothing is on its way any more.
        store.sync().await.unwrap();
        let there = (store.get_many(&paths).await.unwrap(), names(&*store).await);
        assert_eq!((kept.get_many(&paths).await.unwrap(), names(&*kept).await), there, "{when}");
    };
    for round in 0..3 {
        for i in 0..20 {
            let what = if i % 2 == 0 { create("/k/b", "") } else { delete("/k/b", None) };
            commit(&*writer, vec![set("/k/a", &i.to_string(), None), what]).await.unwrap();
            same("after another's write").await;
            commit(&*store, vec![set("/k", &i.to_string(), None)]).await.unwrap();
            same("after its own").await;
            same("when nothing has changed").await;
        }
        client.cut().await;
        commit(&*writer, vec![set("/k/a", "missed", None)]).await.unwrap();
        client.heal().await;
        same(&format!("after cut {round}")).await;
    }
}

pub(crate) async fn ephemeral_keys_go_when_their_session_is_closed(bench: &dyn Bench) {
    let (client, other) = (bench.client().await, bench.client().await);
    create_ephemeral(&*client.store(), "/e").await;
    commit(&*client.store(), vec![create("/p", "")]).await.unwrap();
    // The server that it reads from may be behind.
    other.store().sync().await.unwrap();
    assert!(other.store().get("/e").await.unwrap().is_some());
    client.store().close().await;
    other.store().sync().await.unwrap();
    assert_eq!(other.store().get("/e").await.unwrap(), None, "at once, not when the session would expire");
    assert!(other.store().get("/p").await.unwrap().is_some());
}

pub(crate) async fn ephemeral_keys_go_and_the_epoch_moves_when_the_session_expires(bench: &dyn Bench) {
    let (client, other) = (bench.client().await, bench.client().await);
    create_ephemeral(&*client.store(), "/e").await;
    assert_eq!(healthy(&*client).await, 1);
    client.expire(bench).await;
    other.store().sync().await.unwrap();
    assert_eq!(other.store().get("/e").await.unwrap(), None);
    assert_eq!(*client.store().session().borrow(), Session::Suspended { epoch: 1 }, "not told yet");
    client.heal().await;
    let mut session = client.store().session();
    let found = timeout(PATIENCE, session.wait_for(|s| matches!(s, Session::Healthy { epoch: 2 }))).await;
    assert!(found.is_ok_and(|s| s.is_ok()));
    assert_eq!(client.store().get("/e").await.unwrap(), None);
    create_ephemeral(&*client.store(), "/e").await;
}

pub(crate) async fn ephemeral_keys_survive_a_short_loss_of_the_connection(bench: &dyn Bench) {
    let client = bench.client().await;
    create_ephemeral(&*client.store(), "/e").await;
    client.cut().await;
    assert_eq!(*client.store().session().borrow(), Session::Suspended { epoch: 1 });
    client.heal().await;
    assert_eq!(healthy(&*client).await, 1);
    assert!(client.store().get("/e").await.unwrap().is_some());
}

pub(crate) async fn calls_during_an_outage_end_at_their_deadline(bench: &dyn Bench) {
    let client = bench.client().await;
    client.cut().await;
    let (store, start) = (client.store(), Instant::now());
    let (read, write) = tokio::join!(store.get("/a"), commit(&*store, vec![create("/a", "")]));
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    // Known to be disconnected: nothing was sent, and nothing will be.
    assert!(matches!(write, Err(CommitError::Failed(StoreError::Unavailable(_)))), "{write:?}");
    let took = start.elapsed();
    let most = client.request_timeout() + Duration::from_secs(5);
    assert!(took >= client.request_timeout() && took < most, "{took:?}");
    client.heal().await;
    healthy(&*client).await;
    assert_eq!(store.get("/a").await.unwrap(), None, "the write that was given up was not done later");
}

pub(crate) async fn a_read_during_a_short_outage_is_answered_after_it(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    commit(&*store, vec![create("/a", "there")]).await.unwrap();
    client.cut().await;
    let (read, ()) = tokio::join!(store.get("/a"), async {
        tokio::task::yield_now().await;
        client.heal().await;
    });
    assert_eq!(read.unwrap().unwrap().data, b"there");
}

pub(crate) async fn a_write_without_an_answer_is_unknown_and_can_be_looked_up_later(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    commit(&*store, vec![create("/a", "before")]).await.unwrap();
    client.silence().await;
    let start = Instant::now();
    let outcome = commit(&*store, vec![set("/a", "after", Some(0))]).await;
    assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
    assert!(start.elapsed() < client.request_timeout() + Duration::from_secs(5));
    client.heal().await;
    let found = text(&*store, "/a").await.unwrap();
    // Decided from what is there now, it is safe to do again.
    let again = commit(&*store, vec![set("/a", "after", Some(0))]).await;
    assert_eq!(again.is_ok(), found == "before", "{again:?} although {found}");
    assert_eq!(text(&*store, "/a").await.as_deref(), Some("after"));
}

pub(crate) async fn a_closed_store_says_so_at_once(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    let mut watch = store.watch("/");
    resync(&mut watch).await;
    store.close().await;
    let start = Instant::now();
    assert!(matches!(store.get("/a").await, Err(StoreError::Unavailable(_))));
    let write = commit(&*store, vec![create("/a", "")]).await;
    assert!(matches!(write, Err(CommitError::Failed(StoreError::Unavailable(_)))), "{write:?}");
    assert!(start.elapsed() < client.request_timeout());
    assert!(!store.session().borrow().is_healthy());
    while timeout(PATIENCE, watch.recv()).await.expect("the watch ends").is_some() {}
    store.close().await;
}

pub(crate) async fn transaction_ids_are_those_of_the_written_keys(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    commit(&*store, vec![create("/a", ""), create("/b", "")]).await.unwrap();
    let first = commit(&*store, vec![set("/a", "1", None)]).await.unwrap();
    let second = commit(&*store, vec![set("/b", "1", None), check("/a", Check::Exists)]).await.unwrap();
    assert!(0 < first.zxid && first.zxid < second.zxid);
    assert_eq!(store.get("/a").await.unwrap().unwrap().mzxid, first.zxid);
    assert_eq!(store.get("/b").await.unwrap().unwrap().mzxid, second.zxid);
    let others = commit(&*store, vec![delete("/b", None), create("/c", "")]).await.unwrap();
    assert_eq!(others.zxid, 0, "not told");
}

pub(crate) async fn what_the_leader_heard_moves_with_writes_and_sessions_only(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    let opened = store.leader_heard().expect("a session was opened");
    let read = Instant::now().into_std();
    store.get("/a").await.unwrap();
    sleep(Duration::from_millis(1200)).await;
    store.get("/a").await.unwrap();
    assert_eq!(store.leader_heard(), Some(opened), "reads are answered without a leader");
    let write = Instant::now().into_std();
    // With an answer that says no, too.
    conflict(commit(&*store, vec![delete("/none", None)]).await);
    let heard = store.leader_heard().unwrap();
    assert!(heard >= read && heard < write, "a write shows that the leader has heard of earlier requests");
    commit(&*store, vec![]).await.unwrap();
    client.cut().await;
    assert!(store.get("/a").await.is_err());
    assert_eq!(store.leader_heard(), Some(heard));
    client.heal().await;
    healthy(&*client).await;
    client.expire(bench).await;
    let expired = Instant::now().into_std();
    client.heal().await;
    healthy(&*client).await;
    assert!(store.leader_heard().unwrap() >= expired, "of another session");
}
