//! The recipe on the fake store, faults included. With kazoo itself: `tests/lock.rs`.

use tokio::time::timeout;

use super::*;
use crate::memory::{MemoryStore, MemoryTree};

const KEY: &str = "/cmd";
const SOON: Duration = Duration::from_secs(30);

async fn tree() -> MemoryTree {
    let tree = MemoryTree::new();
    let create = Op::Create { path: KEY.into(), data: vec![], mode: CreateMode::Persistent };
    tree.client().commit(Transaction { ops: vec![create] }).await.unwrap();
    tree
}

fn contenders(tree: &MemoryTree) -> usize {
    tree.dump().keys().filter(|path| path.starts_with("/cmd/")).count()
}

async fn lock(store: &Arc<MemoryStore>, kind: Kind, within: Duration) -> Result<Lock, LockError> {
    Lock::acquire(store.clone(), KEY, kind, within).await
}

#[test]
fn contenders_are_what_kazoo_takes_for_them() {
    let hex = "0123456789abcdef0123456789abcdef";
    assert_eq!(contender(&format!("{hex}__lock__0000000012")), Some((Kind::Write, 12)));
    assert_eq!(contender(&format!("{hex}__rlock__0000000003")), Some((Kind::Read, 3)));
    for other in
        ["", "x", "__lock__", "__lock__12", "a__lock__000000000x", "é__lock_0000000001", "lock-0000000001"]
    {
        assert_eq!(contender(other), None, "{other:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_for_all_and_a_reader_for_writers_only() {
    let tree = tree().await;
    let (a, b, c) = (tree.client(), tree.client(), tree.client());
    let first = lock(&a, Kind::Read, SOON).await.unwrap();
    let second = lock(&b, Kind::Read, SOON).await.unwrap();
    let busy = lock(&c, Kind::Write, Duration::from_secs(1)).await;
    assert!(matches!(busy, Err(LockError::Busy { .. })), "{busy:?}");
    assert_eq!(contenders(&tree), 2, "who gave up left nothing behind");

    let writer = pvc_process::spawn(async move { lock(&c, Kind::Write, SOON).await });
    while contenders(&tree) < 3 {
        tokio::task::yield_now().await;
    }
    let late = lock(&a, Kind::Read, Duration::from_secs(1)).await;
    assert!(matches!(late, Err(LockError::Busy { .. })), "a later reader waits for the waiting writer");
    first.release().await;
    second.release().await;
    let writer = writer.await.unwrap().unwrap();
    assert!(writer.held());
    writer.release().await;
    assert_eq!(contenders(&tree), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lock_is_given_back() {
    let tree = tree().await;
    let (a, b) = (tree.client(), tree.client());
    drop(lock(&a, Kind::Write, SOON).await.unwrap());
    lock(&b, Kind::Write, SOON).await.unwrap().release().await;
    let waiting = lock(&b, Kind::Write, SOON);
    drop(timeout(Duration::from_millis(1), waiting).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(contenders(&tree), 0);
}

#[tokio::test(start_paused = true)]
async fn lost_answers_and_lost_requests_leave_one_place_in_the_queue() {
    let tree = tree().await;
    let a = tree.client();
    a.lose_answers(1);
    let held = lock(&a, Kind::Write, SOON).await.unwrap();
    assert_eq!(contenders(&tree), 1);
    a.lose_answers(1);
    held.release().await;
    assert_eq!(contenders(&tree), 0);
    a.lose_requests(2);
    let held = lock(&a, Kind::Write, SOON).await.unwrap();
    assert_eq!(contenders(&tree), 1);
    held.release().await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_loses_the_lock_and_the_next_gets_it() {
    let tree = tree().await;
    let (a, b) = (tree.client(), tree.client());
    let held = lock(&a, Kind::Write, SOON).await.unwrap();
    a.suspend();
    assert!(!held.held());
    a.expire();
    let next = lock(&b, Kind::Write, SOON).await.unwrap();
    a.resume();
    assert!(!held.held(), "a new session is not the one that held it");
    held.release().await;
    assert!(next.held());
    assert_eq!(contenders(&tree), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_whose_session_expires_is_told_and_an_absent_key_is_named() {
    let tree = tree().await;
    let (a, b) = (tree.client(), tree.client());
    let held = lock(&a, Kind::Write, SOON).await.unwrap();
    let waiting = {
        let b = b.clone();
        pvc_process::spawn(async move { lock(&b, Kind::Write, SOON).await })
    };
    while contenders(&tree) < 2 {
        tokio::task::yield_now().await;
    }
    b.expire();
    let lost = waiting.await.unwrap();
    assert!(matches!(lost, Err(LockError::Lost { .. })), "{lost:?}");
    held.release().await;
    let none = Lock::acquire(a, "/none", Kind::Write, SOON).await;
    assert!(matches!(none, Err(LockError::NoSuchKey { .. })), "{none:?}");
}
