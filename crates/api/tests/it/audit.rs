//! Who has changed what: what is kept of it, what is not, and that nobody loses it by going away.

use std::time::Duration;

use pvc_core::model::task::TaskState;
use pvc_operate::{
    Cluster,
    testing::{Fake, id},
};
use pvc_store::{
    Store as _,
    schema::{audit::KEPT, primary as holder, task},
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::sleep};

use crate::{
    counted::Counted,
    support::{OPERATOR, Served, TOKEN},
    v2::{ask, cluster},
};

/// What is kept, once the newest entry has that part: it is written beside the change.
async fn kept(served: &Served, part: &str) -> Vec<Value> {
    loop {
        let answer = ask(served, "GET", "audit?lines=1000", "", "").await;
        assert!(!answer.body.contains("hush") && !answer.body.contains(TOKEN), "{answer:?}");
        let entries = answer.json().as_array().unwrap().clone();
        if entries.first().is_some_and(|newest| newest.to_string().contains(part)) {
            return entries;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn who_changes_what_is_kept_without_what_was_sent() {
    let (_fake, served) = cluster().await;
    ask(&served, "PUT", "maintenance?secret=hush", "", r#"{"maintenance":true}"#).await;
    ask(&served, "GET", "nodes", "", "").await;
    ask(&served, "PUT", "vms/web1/state", "", r#"{"state":"start"}"#).await;
    let entries = kept(&served, "web1").await;
    let id = entries[0]["id"].as_u64().unwrap();
    for (entry, id, what, status, said) in [
        (&entries[0], id, "PUT /api/v2/vms/web1/state", 202, "VM web1 is to start"),
        (&entries[1], id - 1, "PUT /api/v2/maintenance", 200, "maintenance is on"),
    ] {
        assert_eq!(
            (&entry["id"], &entry["what"], &entry["status"]),
            (&json!(id), &json!(what), &json!(status))
        );
        assert_eq!((&entry["by"], &entry["from"]), (&json!("tests"), &json!("127.0.0.1")));
        assert!(entry["said"].as_str().unwrap().contains(said), "{entry}");
    }
}

#[tokio::test]
async fn attempts_that_change_nothing_push_no_change_out() {
    let (_fake, served) = cluster().await;
    ask(&served, "PUT", "maintenance", "", r#"{"maintenance":true}"#).await;
    let operator = format!("X-Api-Key: {OPERATOR}\r\nContent-Type: application/json\r\n");
    let attempts = [
        ("PUT", "/api/v2/vms/web9/state", r#"{"state":"start"}"#),
        ("PUT", "/api/v2/vms/web1/state", r#"{"state":"fly"}"#),
        ("POST", "/api/v2/vms/web1/unmigrate", "{}"),
        ("POST", "/api/v2/nodes/hv9/flush", "rubbish"),
        ("POST", "/api/v1/vm/web9/state", "state=start"),
        ("POST", "/api/v1/node/hv1/domain-state", ""),
        ("PUT", "/api/v2/maintenance", "{}"),
    ];
    for _ in 0..=KEPT / attempts.len() as u64 {
        for (method, path, body) in attempts {
            let answer = served.send(method, path, &operator, body).await;
            assert!((400..500).contains(&answer.status), "{method} {path}: {answer:?}");
        }
    }
    ask(&served, "PUT", "maintenance", "", r#"{"maintenance":false}"#).await;
    let entries = kept(&served, "maintenance is off").await;
    let said: Vec<&str> = entries.iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert_eq!(said[..2], ["PUT /api/v2/maintenance"; 2]);
    // What the cluster of the test was made by.
    assert_eq!(said[2..], ["POST /api/v1/network"]);
}

#[tokio::test]
async fn attempts_while_the_state_store_is_away_push_no_change_out_and_what_may_be_written_is_kept() {
    let (fake, served) = cluster().await;
    kept(&served, "network").await;
    for _ in 0..20 {
        fake.client.refuse(1);
        let answer = ask(&served, "PUT", "vms/web1/state", "", r#"{"state":"start"}"#).await;
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    fake.client.lose_answers(1);
    let answer = ask(&served, "PUT", "maintenance", "", r#"{"maintenance":true}"#).await;
    assert_eq!(answer.status, 503, "it may be written: {answer:?}");
    let entries = kept(&served, "maintenance").await;
    let said: Vec<&str> = entries.iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert_eq!(said, ["PUT /api/v2/maintenance", "POST /api/v1/network"]);
}

#[tokio::test]
async fn what_was_written_and_then_refused_is_kept() {
    let (fake, served) = cluster().await;
    let primary = fake.tree.client();
    let refuses = tokio::spawn(async move {
        let me = "hv1".parse().unwrap();
        primary.commit(holder::take(&me, false)).await.unwrap();
        let mut changes = primary.watch(task::ROOT);
        loop {
            changes.recv().await.unwrap();
            let (tasks, _) = task::read_all(&*primary).await.unwrap();
            let Some(seen) = tasks.first() else { continue };
            let state = TaskState::Failed { at_unix_s: 1, why: "it is not off".into(), refused: true };
            return task::end(&*primary, seen, (state, None), &[], &me).await.unwrap();
        }
    });
    let answer = served.ask("POST", "/api/v1/vm/web1/locks", "").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.message().contains("it is not off"), "{answer:?}");
    refuses.await.unwrap();
    let entries = kept(&served, "locks").await;
    assert_eq!(
        (&entries[0]["what"], &entries[0]["status"]),
        (&json!("POST /api/v1/vm/web1/locks"), &json!(400))
    );
}

#[tokio::test]
async fn a_change_whose_asker_goes_away_is_made_and_kept() {
    let (fake, served) = cluster().await;
    kept(&served, "network").await;
    // Each call of the store takes so long: the asker is gone before the first has ended.
    fake.client.delay(Duration::from_millis(50));
    let body = r#"{"state":"start"}"#;
    let request = format!(
        "PUT /api/v2/vms/web1/state HTTP/1.1\r\nHost: api\r\nX-Api-Key: {TOKEN}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(25)).await;
    drop(stream);
    let entries = kept(&served, "web1").await;
    assert_eq!((&entries[0]["status"], &entries[0]["said"]), (&json!(202), &json!("VM web1 is to start")));
    assert_eq!(fake.get(&format!("/domains/{}/state", id(1))).await.as_deref(), Some("start"));
}

#[tokio::test]
async fn a_service_that_ends_ends_no_change() {
    let fake = Fake::with(&["hv1"]).await;
    fake.define(1, "web1", "hv1").await;
    let store = Counted::of(fake.cluster.store.clone());
    let (served, api) = Served::with_its_api(Cluster::new(store.clone(), "memory")).await;
    assert_eq!(ask(&served, "GET", "vms", "", "").await.status, 200);
    fake.client.delay(Duration::from_millis(50));
    store.read();
    let asked = tokio::spawn(async move {
        ask(&served, "PUT", "vms/web1/state", "", r#"{"state":"start"}"#).await;
    });
    while store.read().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    // With it the server: its connections are cut off.
    asked.abort();
    api.end().await;
    assert_eq!(fake.get(&format!("/domains/{}/state", id(1))).await.as_deref(), Some("start"));
    let entry = fake.get("/pvc/audit/001").await.unwrap();
    assert!(entry.contains("VM web1 is to start"), "{entry}");
}
