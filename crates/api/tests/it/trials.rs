//! Changes that are only tried, that are asked for twice, and lists a page at a time.

use std::{sync::atomic::Ordering, time::Duration};

use pvc_operate::testing::Fake;
use serde_json::{Value, json};

use crate::{
    lists::counted,
    support::{Answer, OPERATOR, Served, definition},
    v2::{ask, cluster},
};

#[tokio::test]
async fn a_trial_says_what_the_change_says_and_writes_nothing() {
    let (fake, served) = cluster().await;
    let new = json!({ "xml": definition("web2", 2), "node": "hv2" }).to_string();
    let network =
        json!({ "vni": 7, "type": "managed", "description": "db", "ip4": { "network": "10.7.0.0/24" } });
    let reservation = r#"{"mac_address":"52:54:00:00:00:01","ip4_address":"10.1.0.9"}"#;
    let rule = r#"{"description":"ssh","direction":"in","rule":"tcp dport 22 accept"}"#;
    let calls: Vec<(&str, &str, String)> = vec![
        ("PUT", "maintenance", r#"{"maintenance":true}"#.into()),
        ("POST", "vms", new.clone()),
        ("POST", "vms", new),
        ("POST", "vms", json!({ "xml": definition("web3", 3), "node": "hv9" }).to_string()),
        ("PUT", "vms/web1/state", r#"{"state":"start"}"#.into()),
        ("PUT", "vms/web1/state", r#"{"state":"start"}"#.into()),
        ("PUT", "vms/web1/state", r#"{"state":"stop"}"#.into()),
        ("PUT", "vms/web9/state", r#"{"state":"start"}"#.into()),
        ("PUT", "vms/web1/state", r#"{"state":"fly"}"#.into()),
        ("POST", "vms/web2/move", r#"{"node":"hv1"}"#.into()),
        ("POST", "vms/web2/move", r#"{"node":"hv1"}"#.into()),
        ("POST", "vms/web2/unmigrate", "{}".into()),
        ("POST", "nodes/hv2/flush", "{}".into()),
        ("POST", "nodes/hv1/primary", "{}".into()),
        ("POST", "networks", network.to_string()),
        ("POST", "networks", network.to_string()),
        ("PATCH", "networks/db", r#"{"description":"base"}"#.into()),
        ("POST", "networks/web/leases", reservation.into()),
        ("POST", "networks/web/leases", reservation.into()),
        ("DELETE", "networks/web/leases/52:54:00:00:00:01", String::new()),
        ("POST", "networks/web/rules", rule.into()),
        ("DELETE", "networks/web/rules/ssh", String::new()),
        ("DELETE", "networks/base", String::new()),
        ("POST", "storage/pools", r#"{"name":"vms"}"#.into()),
        ("DELETE", "tasks/1", String::new()),
        ("DELETE", "tasks/1", String::new()),
        ("POST", "tokens", r#"{"name":"ci","role":"read"}"#.into()),
        ("POST", "tokens", r#"{"name":"ci","role":"read"}"#.into()),
        ("DELETE", "tokens/ci", String::new()),
        ("DELETE", "tokens/ci", String::new()),
        ("DELETE", "vms/web2?stop=true", String::new()),
    ];
    for (method, path, body) in calls {
        let sign = if path.contains('?') { '&' } else { '?' };
        // What came before is written beside it.
        let without_audit = || {
            let mut tree = fake.tree.dump();
            tree.retain(|path, _| !path.starts_with("/pvc/audit"));
            tree
        };
        let before = without_audit();
        let tried = ask(&served, method, &format!("{path}{sign}dry_run=true"), "", &body).await;
        assert_eq!(without_audit(), before, "{method} {path} {body}: {tried:?}");
        let done = ask(&served, method, path, "", &body).await;
        if done.status >= 300 {
            assert_eq!((tried.status, &tried.body), (done.status, &done.body), "{method} {path} {body}");
            continue;
        }
        assert_eq!(
            (tried.status, &tried.json()["dry_run"]),
            (200, &json!(true)),
            "{method} {path}: {tried:?}"
        );
        assert!(tried.header("location").is_none() && tried.json()["token"].is_null(), "{tried:?}");
        assert!(tried.json()["task"].is_null(), "{tried:?}");
        if !path.starts_with("vms/web2?") {
            assert_eq!(tried.message(), done.message(), "{method} {path} {body}");
        }
    }
    let audit = ask(&served, "GET", "audit?lines=1000", "", "").await;
    assert!(!audit.body.contains("a trial"), "{audit:?}");
}

#[tokio::test]
async fn a_trial_that_could_be_taken_for_a_change_is_refused() {
    let (fake, served) = cluster().await;
    let before = fake.tree.dump();
    let start = r#"{"state":"start"}"#;
    for query in ["dry_run=yes", "dry_run", "dry_run=", "dry_run=True"] {
        assert_eq!(
            ask(&served, "PUT", &format!("vms/web1/state?{query}"), "", start).await.status,
            400,
            "{query}"
        );
    }
    let old = served.ask("POST", "/api/v1/vm/web1/state?dry_run=true", "state=start").await;
    assert!(old.status == 400 && old.message().contains("/api/v2"), "{old:?}");
    // Said where nobody looks for it.
    let form = served.ask("POST", "/api/v1/vm/web1/state", "state=start&dry_run=true").await;
    assert!(form.status == 400 && form.message().contains("/api/v2"), "{form:?}");
    let body = r#"{"dry_run":true}"#;
    for (method, path) in
        [("DELETE", "vms/web1"), ("DELETE", "storage/volumes/p/v"), ("PUT", "storage/flags/noout")]
    {
        let answer = ask(&served, method, path, "", body).await;
        assert_eq!(answer.status, 400, "{method} {path}: {answer:?}");
    }
    let operator = format!("X-Api-Key: {OPERATOR}\r\nContent-Type: application/json\r\n");
    let body = r#"{"maintenance":true}"#;
    assert_eq!(served.send("PUT", "/api/v2/maintenance?dry_run=true", &operator, body).await.status, 403);
    let mut after = fake.tree.dump();
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(after.get("/domains"), before.get("/domains"));
    assert_eq!(ask(&served, "PUT", "vms/web1/state?dry_run=false", "", start).await.status, 202);
}

async fn keyed(served: &Served, key: &str, method: &str, path: &str, body: &str) -> Answer {
    ask(served, method, path, &format!("Idempotency-Key: {key}\r\n"), body).await
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

#[tokio::test]
async fn who_asks_again_with_the_same_key_is_answered_as_before() {
    let (fake, served) = cluster().await;
    let new = |name, n| json!({ "xml": definition(name, n), "node": "hv1" }).to_string();
    let first = keyed(&served, "k1", "POST", "vms", &new("web2", 2)).await;
    assert!(first.status == 201 && !is_replayed(&first), "{first:?}");
    let again = keyed(&served, "k1", "POST", "vms", &new("web2", 2)).await;
    assert!(again.status == 201 && is_replayed(&again), "{again:?}");
    assert_eq!((&again.body, again.header("location")), (&first.body, first.header("location")));
    assert_eq!(ask(&served, "POST", "vms", "", &new("web2", 2)).await.status, 409, "without it: it is there");
    for (method, path, body) in [
        ("POST", "vms", new("web3", 3)),
        ("POST", "vms?x=1", new("web2", 2)),
        ("PUT", "vms/web1/state", r#"{"state":"start"}"#.to_owned()),
    ] {
        assert_eq!(keyed(&served, "k1", method, path, &body).await.status, 422, "{method} {path}");
    }
    // Of another token the same key is another.
    let start = r#"{"state":"start"}"#;
    let operator =
        format!("X-Api-Key: {OPERATOR}\r\nContent-Type: application/json\r\nIdempotency-Key: k1\r\n");
    assert_eq!(served.send("PUT", "/api/v2/vms/web1/state", &operator, start).await.status, 202);
    // What has changed nothing is decided anew.
    assert_eq!(keyed(&served, "k2", "PUT", "vms/web4/state", start).await.status, 404);
    fake.define(4, "web4", "hv1").await;
    assert_eq!(keyed(&served, "k2", "PUT", "vms/web4/state", start).await.status, 202);
    // A trial takes no key's place.
    assert_eq!(keyed(&served, "k3", "PUT", "vms/web2/state?dry_run=true", start).await.status, 200);
    assert_eq!(keyed(&served, "k3", "PUT", "vms/web2/state", start).await.status, 202);
    let long = "k".repeat(129);
    for key in ["", "a b", "é", &long, "k5\r\nIdempotency-Key: k6"] {
        assert_eq!(keyed(&served, key, "PUT", "vms/web1/state", start).await.status, 400, "{key:?}");
    }
    let token = keyed(&served, "k7", "POST", "tokens", r#"{"name":"ci","role":"read"}"#).await;
    assert!(token.status == 400 && fake.get("/pvc/tokens/ci").await.is_none(), "{token:?}");
    // The next primary knows none of it.
    let next = Served::guarded(&fake).await;
    assert_eq!(keyed(&next, "k1", "POST", "vms", &new("web2", 2)).await.status, 409);
}

#[tokio::test]
async fn an_outcome_that_nobody_knows_yet_is_not_remembered() {
    let fake = Fake::with(&["hv1"]).await;
    fake.define(1, "web1", "hv1").await;
    let (served, store) = counted(&fake).await;
    assert_eq!(ask(&served, "GET", "nodes", "", "").await.status, 200);
    let start = r#"{"state":"start"}"#;
    store.keys_left.store(0, Ordering::Relaxed);
    let away = keyed(&served, "k1", "PUT", "vms/web1/state", start).await;
    assert_eq!(away.status, 503, "{away:?}");
    store.keys_left.store(usize::MAX, Ordering::Relaxed);
    let again = keyed(&served, "k1", "PUT", "vms/web1/state", start).await;
    assert!(again.status == 202 && !is_replayed(&again), "{again:?}");
    // It was written, and nobody heard of it. The entry of the first is written already.
    while fake.get("/pvc/audit/001").await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fake.client.lose_answers(1);
    let lost = keyed(&served, "k2", "PUT", "maintenance", r#"{"maintenance":true}"#).await;
    assert_eq!(lost.status, 503, "{lost:?}");
    let again = keyed(&served, "k2", "PUT", "maintenance", r#"{"maintenance":true}"#).await;
    assert!(again.status == 200 && !is_replayed(&again), "{again:?}");
}

#[tokio::test]
async fn what_is_being_carried_out_is_not_begun_twice() {
    let (fake, served) = cluster().await;
    fake.client.delay(Duration::from_millis(50));
    let body = json!({ "xml": definition("web2", 2), "node": "hv1" }).to_string();
    let ask = || keyed(&served, "k", "POST", "vms", &body);
    let (one, two) = tokio::join!(ask(), ask());
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409], "{one:?} {two:?}");
    let again = ask().await;
    assert!(again.status == 201 && is_replayed(&again), "{again:?}");
}

#[tokio::test]
async fn a_list_is_read_a_page_at_a_time() {
    let (fake, served) = cluster().await;
    for n in 2..=7 {
        fake.define(n, &format!("vm{n}"), "hv1").await;
    }
    let names = |answer: &Answer| -> Vec<String> {
        let rows: Vec<Value> = answer.json().as_array().unwrap().clone();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    let (mut path, mut seen, mut pages) = ("vms?limit=vm&count=4".to_owned(), Vec::new(), 0);
    loop {
        let answer = ask(&served, "GET", &path, "", "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        seen.extend(names(&answer));
        pages += 1;
        if pages == 1 {
            // What its mark is made of is gone: the next page begins where it was.
            assert_eq!(ask(&served, "DELETE", "vms/vm5", "", "").await.status, 200);
        }
        let Some(link) = answer.header("link") else { break };
        let query = link.strip_prefix("<?").and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap();
        assert!(query.contains("limit=vm") && query.contains("count=4"), "{query}");
        path = format!("vms?{query}");
    }
    assert_eq!((seen, pages), (["vm2", "vm3", "vm4", "vm5", "vm6", "vm7"].map(str::to_owned).to_vec(), 2));
    let nodes = ask(&served, "GET", "nodes?count=1&after=hv1", "", "").await;
    assert!(names(&nodes) == ["hv2"] && nodes.header("link").is_none(), "{nodes:?}");
    let networks = ask(&served, "GET", "networks?after=99", "", "").await;
    assert!(networks.body.contains("\"vni\":100"), "{networks:?}");
    assert_eq!(ask(&served, "GET", "networks?after=100", "", "").await.body, "[]");
    for query in ["count=0", "count=1001", "count=x", "count=-1"] {
        assert_eq!(ask(&served, "GET", &format!("vms?{query}"), "", "").await.status, 400, "{query}");
    }
    assert_eq!(ask(&served, "GET", "networks?after=web", "", "").await.status, 400);
}
