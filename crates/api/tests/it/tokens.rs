//! Tokens of the state tree: what they are good for, and that they are good for nothing when they are taken away.

use std::{sync::atomic::Ordering, time::Duration};

use pvc_api::{Limits, routes};
use pvc_operate::testing::id;
use pvc_store::{Op, Transaction};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use crate::{
    counted::Counted,
    support::{Answer, READER, Served, TOKEN, authentication},
    v2::{ask, cluster},
};

async fn with(served: &Served, token: &str, method: &str, path: &str, body: &str) -> Answer {
    let headers = format!("X-Api-Key: {token}\r\nContent-Type: application/json\r\n");
    served.send(method, path, &headers, body).await
}

/// Makes a token over the API.
async fn make(served: &Served, body: Value) -> String {
    let answer = ask(served, "POST", "tokens", "", &body.to_string()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let at = format!("/api/v2/tokens/{}", body["name"].as_str().unwrap());
    assert_eq!(answer.header("location"), Some(at.as_str()));
    answer.json()["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_is_good_from_its_answer_on_and_for_nothing_from_its_removal_on() {
    let (fake, served) = cluster().await;
    let token = make(&served, json!({ "name": "ci", "role": "operate" })).await;
    let session = with(&served, &token, "GET", "/api/v2/session", "").await;
    assert_eq!(session.json(), json!({ "name": "token:ci", "role": "operate" }));
    assert_eq!(
        with(&served, &token, "PUT", "/api/v2/maintenance", r#"{"maintenance":true}"#).await.status,
        403
    );
    let start = with(&served, &token, "PUT", "/api/v2/vms/web1/state", r#"{"state":"start"}"#).await;
    assert_eq!(start.status, 202, "{start:?}");
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let login = served.send("POST", "/api/v1/auth/login", form, &format!("token={token}")).await;
    let cookie = format!("Cookie: {}\r\n", login.header("set-cookie").unwrap().split(';').next().unwrap());
    assert_eq!(served.send("GET", "/api/v2/nodes", &cookie, "").await.status, 200);
    let mut listens = TcpStream::connect(served.address).await.unwrap();
    let request = format!(
        "GET /api/v2/events HTTP/1.1\r\nHost: api\r\nX-Api-Key: {token}\r\nConnection: close\r\n\r\n"
    );
    listens.write_all(request.as_bytes()).await.unwrap();
    listens.read_exact(&mut [0; 12]).await.unwrap();

    let shown = ask(&served, "GET", "tokens/ci", "", "").await;
    assert_eq!(shown.json()["ends"], json!(token[60..]), "{shown:?}");
    for path in ["tokens", "tokens/ci", "audit"] {
        let answer = ask(&served, "GET", path, "", "").await;
        assert!(answer.status == 200 && !answer.body.contains(&token), "{answer:?}");
        assert!(!answer.body.contains("sha256"), "{answer:?}");
    }
    let again = ask(&served, "POST", "tokens", "", r#"{"name":"ci","role":"admin"}"#).await;
    assert_eq!((again.status, again.json()["why"].as_str()), (409, Some("there is a token of that name")));

    assert_eq!(ask(&served, "DELETE", "tokens/ci", "", "").await.status, 200);
    assert_eq!(with(&served, &token, "GET", "/api/v2/nodes", "").await.status, 401);
    assert_eq!(
        served.send("GET", "/api/v2/nodes", &cookie, "").await.status,
        401,
        "its sessions end with it"
    );
    assert_eq!(served.send("POST", "/api/v1/auth/login", form, &format!("token={token}")).await.status, 401);
    // To its end: that there is one is what is tested.
    listens.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(ask(&served, "DELETE", "tokens/ci", "", "").await.status, 404);
    assert_eq!(with(&served, TOKEN, "GET", "/api/v2/nodes", "").await.status, 200, "those of the file go on");
    for (path, body) in [
        ("tokens", r#"{"name":"a/b","role":"read"}"#),
        ("tokens", r#"{"name":"a","role":"root"}"#),
        ("tokens", r#"{"name":"a","role":"read","vms":[".."]}"#),
        ("tokens", r#"{"name":"a","role":"read","vms":[]}"#),
        ("tokens", r#"{"name":"a","role":"read","vms":null}"#),
        ("tokens", r#"{"name":"a","role":"read","expires_unix_s":null}"#),
        ("tokens", r#"{"name":"a","role":"admin","vms":["web1"]}"#),
        ("tokens", r#"{"name":"a","role":"read","expires_unix_s":1}"#),
    ] {
        let answer = ask(&served, "POST", path, "", body).await;
        assert!([400, 409, 422].contains(&answer.status), "{body}: {answer:?}");
    }
    assert_eq!(fake.cluster.store.children("/pvc/tokens").await.unwrap(), Some(vec![]));
}

async fn status_becomes(served: &Served, token: &str, status: u16) {
    while with(served, token, "GET", "/api/v2/nodes", "").await.status != status {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Has a request admitted whose body is held back.
async fn held_back(served: &Served, token: &str, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: api\r\nX-Api-Key: {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Expect: 100-continue\r\nConnection: close\r\n"
    );
    stream.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    // Said when the service begins to read the body.
    let mut begins = [0; 25];
    stream.read_exact(&mut begins).await.unwrap();
    assert_eq!(&begins, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[tokio::test]
async fn who_holds_the_body_back_until_the_token_is_gone_changes_nothing() {
    let (fake, served) = cluster().await;
    let token = make(&served, json!({ "name": "thief", "role": "admin" })).await;
    let (start, new) = (r#"{"state":"start"}"#, r#"{"name":"second","role":"admin"}"#);
    let requests = [
        ("PUT /api/v2/vms/web1/state", start),
        ("PUT /api/v2/vms/web1/state HTTP/1.1\r\nIdempotency-Key: k\r\nX-Rest:", start),
        ("POST /api/v2/tokens", new),
    ];
    let mut held = Vec::new();
    for (head, body) in requests {
        held.push((held_back(&served, &token, head, body).await, body));
    }
    assert_eq!(ask(&served, "DELETE", "tokens/thief", "", "").await.status, 200);
    let before = fake.tree.dump();
    for (mut stream, body) in held {
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    assert_eq!(fake.tree.dump(), before);
}

#[tokio::test]
async fn what_is_written_into_the_tree_counts_and_what_is_broken_there_is_nobodys() {
    let (fake, served) = cluster().await;
    let token = make(&served, json!({ "name": "one", "role": "read" })).await;
    let stored = fake.get("/pvc/tokens/one").await.unwrap();
    let put = async |value: &str| {
        let set =
            Op::Set { path: "/pvc/tokens/one".to_owned(), data: value.as_bytes().to_vec(), version: None };
        fake.cluster.store.commit(Transaction { ops: vec![set] }).await.unwrap();
    };
    for broken in [
        "",
        "rubbish",
        "{}",
        &stored.replace("read", "root"),
        &stored.replace("\"role\":\"read\"", "\"role\":\"admin\",\"vms\":[\"web1\"]"),
        &stored.replace('{', "{\"more\":1,"),
        &stored.replace('{', "{\"vms\":null,"),
        &stored.replace('{', "{\"expires_unix_s\":null,"),
        &(stored.clone() + &" ".repeat(20_000)),
        &stored.replace("\"created_unix_s\"", "\"expires_unix_s\":1000,\"created_unix_s\""),
    ] {
        put(broken).await;
        status_becomes(&served, &token, 401).await;
        put(&stored).await;
        status_becomes(&served, &token, 200).await;
    }
    let gone = Op::Delete { path: "/pvc/tokens/one".to_owned(), version: None };
    fake.cluster.store.commit(Transaction { ops: vec![gone] }).await.unwrap();
    status_becomes(&served, &token, 401).await;
    // Another service, as after a hand-over, knows what there is by itself.
    let token = make(&served, json!({ "name": "two", "role": "read" })).await;
    let next = Served::guarded(&fake).await;
    assert_eq!(with(&next, &token, "GET", "/api/v2/nodes", "").await.status, 200);
}

#[tokio::test]
async fn a_token_for_some_vms_is_good_for_these_only() {
    let (fake, served) = cluster().await;
    fake.define(2, "web2", "hv1").await;
    fake.define(3, "db1", "hv2").await;
    let token = make(&served, json!({ "name": "web", "role": "operate", "vms": ["web1", "web2"] })).await;
    let ask = async |method: &str, path: &str, body: &str| with(&served, &token, method, path, body).await;
    let list = ask("GET", "/api/v2/vms", "").await.json();
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web1", "web2"]);
    assert_eq!(ask("GET", "/api/v2/vms?limit=db", "").await.body, "[]");
    assert_eq!(ask("GET", "/api/v2/session", "").await.json()["vms"], json!(["web1", "web2"]));
    let start = r#"{"state":"start"}"#;
    for (vm, status) in [
        ("web1", 202),
        ("web%31", 202),
        ("db1", 403),
        ("web", 403),
        ("web11", 403),
        ("WEB1", 403),
        ("web1%00", 403),
        (&id(3).to_string(), 403),
        (&id(1).to_string(), 403),
        ("db1?vm=web1", 403),
    ] {
        let (vm, query) = vm.split_once('?').unwrap_or((vm, ""));
        let answer = ask("PUT", &format!("/api/v2/vms/{vm}/state?{query}"), start).await;
        assert_eq!(answer.status, status, "{vm}: {answer:?}");
    }
    assert_eq!(fake.get(&format!("/domains/{}/state", id(3))).await.as_deref(), Some("stop"));
    // Of what is not there it is not told what else is.
    assert_eq!(super::v2::ask(&served, "DELETE", "vms/web2", "", "").await.status, 200);
    fake.define(4, "web3", "hv1").await;
    for (method, path, body) in [
        ("GET", "web2", ""),
        ("GET", "web2/explanation", ""),
        ("GET", "web2/definition", ""),
        ("GET", "web2/log", ""),
        ("PUT", "web2/state", start),
        ("POST", "web2/unmigrate", "{}"),
        ("POST", "web1/migrate", r#"{"node":"hv3"}"#),
    ] {
        let answer = ask(method, &format!("/api/v2/vms/{path}"), body).await;
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
        for other in ["web3", "db1", "did you mean"] {
            assert!(!answer.body.contains(other), "{method} {path}: {answer:?}");
        }
    }
    // All others, whatever they are: a new route cannot be forgotten.
    for route in routes() {
        let is_its_own = ["/api/v2/vms", "/api/v2/session"].contains(&route.path) && route.method == "GET";
        if route.access == pvc_api::Access::Public || is_its_own {
            continue;
        }
        let path: Vec<&str> =
            route.path.split('/').map(|part| if part.starts_with('{') { "db1" } else { part }).collect();
        let answer = ask(route.method.as_str(), &path.join("/"), "").await;
        assert_eq!(answer.status, 403, "{} {}: {answer:?}", route.method, route.path);
    }
    assert_eq!(with(&served, READER, "GET", "/api/v2/tokens", "").await.status, 403);
}

#[tokio::test]
async fn who_removes_a_token_that_may_still_be_good_is_told_so() {
    let fake = pvc_operate::testing::Fake::with(&["hv1"]).await;
    let store = Counted::of(fake.cluster.store.clone());
    let cluster = pvc_operate::Cluster::new(store.clone(), "memory");
    let served = Served::of(cluster, Some(authentication()), Limits::default()).await;
    let token = make(&served, json!({ "name": "ci", "role": "read" })).await;
    store.fails_after_a_write.store(true, Ordering::Relaxed);
    let removed = ask(&served, "DELETE", "tokens/ci", "", "").await;
    assert_eq!(removed.status, 200, "{removed:?}");
    let said = removed.json()["notes"].to_string();
    assert!(said.contains("may let somebody in"), "{removed:?}");
    assert!(!removed.message().contains("nobody gets in"), "{removed:?}");
    store.fails_after_a_write.store(false, Ordering::Relaxed);
    store.heal();
    status_becomes(&served, &token, 401).await;
}
