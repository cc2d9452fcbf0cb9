//! What watches hear, and when.

use super::*;

pub(crate) async fn a_watch_begins_with_resync_and_reports_what_is_at_and_below_its_path(bench: &dyn Bench) {
    let (client, other) = (bench.client().await, bench.client().await);
    commit(&*other.store(), vec![create("/w", ""), create("/wx", ""), create("/w/a", "")]).await.unwrap();
    let mut watch = client.store().watch("/w");
    let mut everything = client.store().watch("/");
    assert_eq!(next(&mut watch).await, WatchEvent::Resync);
    assert_eq!(next(&mut everything).await, WatchEvent::Resync);
    let ops = vec![
        set("/w", "1", None),
        set("/w/a", "1", None),
        create("/w/a/b", ""),
        delete("/w/a/b", None),
        set("/wx", "1", None),
    ];
    commit(&*other.store(), ops).await.unwrap();
    // One's own transaction comes after the other's, and its events are there when it returns.
    commit(&*client.store(), vec![create("/w/last", "")]).await.unwrap();
    assert_eq!(queued(&mut watch), paths(["/w", "/w/a", "/w/a/b", "/w/last"]));
    assert_eq!(queued(&mut everything), paths(["/w", "/w/a", "/w/a/b", "/wx", "/w/last"]));
}

pub(crate) async fn a_watch_on_an_absent_key_reports_its_creation(bench: &dyn Bench) {
    let client = bench.client().await;
    let mut watch = client.store().watch("/later");
    resync(&mut watch).await;
    commit(&*client.store(), vec![create("/later", ""), create("/later/child", "")]).await.unwrap();
    assert_eq!(queued(&mut watch), paths(["/later", "/later/child"]));
    commit(&*client.store(), vec![delete("/later/child", None), delete("/later", None)]).await.unwrap();
    assert_eq!(queued(&mut watch), paths(["/later", "/later/child"]));
    commit(&*client.store(), vec![create("/later", "")]).await.unwrap();
    assert_eq!(queued(&mut watch), paths(["/later"]), "a deleted key is still watched");
}

pub(crate) async fn events_of_a_commit_are_in_the_watches_when_it_returns(bench: &dyn Bench) {
    let client = bench.client().await;
    let store = client.store();
    commit(&*store, vec![create("/w", "")]).await.unwrap();
    let mut watch = store.watch("/w");
    resync(&mut watch).await;
    for i in 0..200 {
        commit(&*store, vec![set("/w", &i.to_string(), None)]).await.unwrap();
        assert_eq!(queued(&mut watch), paths(["/w"]), "write {i}");
    }
}

pub(crate) async fn events_of_what_was_read_are_in_the_watches_once_shown(bench: &dyn Bench) {
    let (client, other) = (bench.client().await, bench.client().await);
    let (store, writer) = (client.store(), other.store());
    commit(&*writer, vec![create("/w", ""), create("/p", "")]).await.unwrap();
    let mut watch = store.watch("/w");
    resync(&mut watch).await;
    for i in 0..200 {
        let text = i.to_string();
        let ops = vec![set("/w", &text, None), set("/p", &text, None)];
        let (written, read) = tokio::join!(commit(&*writer, ops), async {
            loop {
                let p = store.get("/p").await.unwrap().unwrap();
                if p.data == text.as_bytes() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            store.show_events().await;
            queued(&mut watch)
        });
        written.unwrap();
        assert_eq!(read, paths(["/w"]), "write {i}");
    }
}

pub(crate) async fn what_others_committed_is_shown_after_a_sync(bench: &dyn Bench) {
    let (client, other) = (bench.client().await, bench.client().await);
    let (store, writer) = (client.store(), other.store());
    commit(&*writer, vec![create("/w", "")]).await.unwrap();
    let mut watch = store.watch("/w");
    resync(&mut watch).await;
    for i in 0..50 {
        client.lag(true).await;
        let written = i.to_string();
        commit(&*writer, vec![set("/w", &written, None)]).await.unwrap();
        store.sync().await.unwrap();
        assert_eq!(queued(&mut watch), paths(["/w"]), "write {i}");
        assert_eq!(text(&*store, "/w").await.as_ref(), Some(&written));
        client.lag(false).await;
    }
    client.cut().await;
    assert!(matches!(store.sync().await, Err(StoreError::Unavailable(_))), "in the end");
}

pub(crate) async fn many_watches_resync_after_a_cut_and_work_again(bench: &dyn Bench) {
    let (client, other) = (bench.client().await, bench.client().await);
    let roots: Vec<String> = (0..200).map(|i| format!("/w{i}")).collect();
    commit(&*other.store(), roots.iter().map(|r| create(r, "")).collect()).await.unwrap();
    let mut watches: Vec<Watch> = roots.iter().map(|root| client.store().watch(root)).collect();
    for watch in &mut watches {
        resync(watch).await;
    }
    for round in 0..3 {
        client.cut().await;
        let changes = roots.iter().map(|root| set(root, "missed", None)).collect();
        commit(&*other.store(), changes).await.unwrap();
        client.heal().await;
        for watch in &mut watches {
            assert_eq!(next(watch).await, WatchEvent::Interrupted, "round {round}");
            assert_eq!(next(watch).await, WatchEvent::Resync, "round {round}");
        }
        // What a listing finds now is what was missed; what comes later is reported.
        let children = roots.iter().map(|root| create(&format!("{root}/r{round}"), "")).collect();
        commit(&*other.store(), children).await.unwrap();
        for (root, watch) in roots.iter().zip(&mut watches) {
            assert_eq!(next(watch).await, WatchEvent::Changed(format!("{root}/r{round}")));
        }
    }
}

pub(crate) async fn watches_survive_the_end_of_the_session(bench: &dyn Bench) {
    let (client, other) = (bench.client().await, bench.client().await);
    commit(&*other.store(), vec![create("/w", "")]).await.unwrap();
    let mut watch = client.store().watch("/w");
    resync(&mut watch).await;
    client.expire(bench).await;
    commit(&*other.store(), vec![set("/w", "missed", None)]).await.unwrap();
    client.heal().await;
    resync(&mut watch).await;
    assert_eq!(text(&*client.store(), "/w").await.as_deref(), Some("missed"));
    commit(&*other.store(), vec![set("/w", "seen", None)]).await.unwrap();
    assert_eq!(next(&mut watch).await, WatchEvent::Changed("/w".into()));
}
