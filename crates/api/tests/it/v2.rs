//! `/api/v2`: what it reads, what it changes, and how it refuses.

mod objects;

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use pvc_operate::testing::{Fake, id};
use pvc_store::schema::vm;
use serde_json::json;

use crate::support::{Answer, READER, Served, TOKEN, definition};

pub(crate) async fn ask(served: &Served, method: &str, path: &str, more: &str, body: &str) -> Answer {
    let headers = format!("X-Api-Key: {TOKEN}\r\nContent-Type: application/json\r\n{more}");
    served.send(method, &format!("/api/v2/{path}"), &headers, body).await
}

pub(crate) async fn cluster() -> (Fake, Served) {
    let fake = Fake::with(&["hv1", "hv2"]).await;
    fake.define(1, "web1", "hv1").await;
    let served = Served::guarded(&fake).await;
    let form = "vni=100&description=web&nettype=managed&ip4_network=10.1.0.0/24&ip4_gateway=10.1.0.1";
    assert_eq!(served.ask("POST", "/api/v1/network", form).await.status, 200);
    (fake, served)
}

#[tokio::test]
async fn what_there_is_reads_as_the_command_line_prints_it() {
    let (_fake, served) = cluster().await;
    for (path, part) in [
        ("status", "\"nodes\""),
        ("maintenance", r#"{"maintenance":false}"#),
        ("nodes", "\"can_start\""),
        ("nodes?limit=hv2", "hv2"),
        ("nodes/hv1", r#""cpu_count":8"#),
        ("nodes/hv1/explanation", "hv1"),
        ("vms", "\"running_on\""),
        ("vms?node=hv1&state=stop", "web1"),
        ("vms/web1", "\"claim\""),
        ("vms/web1/explanation", "web1"),
        ("plan/flush/hv1", "[]"),
        ("plan/death/hv1?selector=vms", "[]"),
        ("plan/vm/web1", r#""free_mib":"#),
        ("networks", r#""vni":"#),
        ("networks/web", "vmbr100"),
        ("networks/web/leases", "\"leases\""),
        ("networks/web/rules", "[]"),
    ] {
        let answer = ask(&served, "GET", path, "", "").await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(answer.body.contains(part), "{path}: {answer:?}");
    }
    assert_eq!(ask(&served, "GET", "vms?state=start", "", "").await.body, "[]", "an empty list is no error");
}

/// What Prometheus' own tool says of a text; nothing if all is well.
#[allow(clippy::disallowed_methods, reason = "the tool that reads figures")]
fn promtool(text: &str) -> String {
    let mut command = Command::new("/usr/bin/promtool");
    let command = command.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() { String::new() } else { String::from_utf8_lossy(&said).into_owned() }
}

#[tokio::test]
async fn figures_are_of_all_nodes_and_of_what_was_answered() {
    let (_fake, served) = cluster().await;
    ask(&served, "GET", "nodes/hv3", "", "").await;
    let answer = ask(&served, "GET", "metrics", "", "").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "pvc_node_ready{node=\"hv1\"} 1",
        "pvc_node_ready{node=\"hv2\"} 1",
        "pvc_vms{state=\"stop\"} 1",
        "pvc_vms{state=\"start\"} 0",
        "pvc_maintenance 0",
        "pvc_api_requests_total{method=\"GET\",path=\"/api/v2/nodes/{node}\",code=\"404\"} 1",
        "pvc_api_requests_total{method=\"POST\",path=\"/api/v1/network\",code=\"200\"} 1",
        "pvc_api_request_seconds_count{kind=\"change\"} 1",
        "pvc_api_places_taken{kind=\"read\"} 1",
    ] {
        assert!(answer.body.lines().any(|told| told == line), "{line}: {}", answer.body);
    }
    assert_eq!(promtool(&answer.body), "");
    let reader = format!("X-Api-Key: {READER}\r\n");
    assert_eq!(served.send("GET", "/api/v2/metrics", &reader, "").await.status, 200, "who reads may");
    assert_eq!(served.send("GET", "/api/v2/metrics", "", "").await.status, 401);
}

#[tokio::test]
async fn a_refusal_is_a_problem_with_the_words_of_the_command_line() {
    let (_fake, served) = cluster().await;
    let answer = ask(&served, "GET", "nodes/hv3", "", "").await;
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(
        answer.json(),
        json!({
            "type": "about:blank", "title": "Not Found", "status": 404,
            "detail": "there is no node \"hv3\": no node has this name; did you mean hv1 or hv2?",
            "what": "there is no node \"hv3\"", "why": "no node has this name", "todo": "did you mean hv1 or hv2?",
        })
    );
    for (method, path, body, status) in [
        ("GET", "nothing", "", 404),
        ("DELETE", "nodes", "", 405),
        ("GET", "nodes?limit=(", "", 400),
        ("GET", "vms?node=hv9", "", 404),
        ("GET", "vms?state=on", "", 400),
        ("GET", "plan/flush/hv9", "", 404),
        ("GET", "plan/vm/web9", "", 404),
        ("GET", "plan/vm/web1?selector=best", "", 400),
        ("PUT", "vms/web1/state", "", 422),
        ("PUT", "vms/web1/state", r#"{"state":"fly"}"#, 422),
        ("PUT", "vms/web1/state", r#"{"state":"stop","now":true}"#, 422),
        ("PUT", "vms/web9/state", r#"{"state":"stop"}"#, 404),
        ("PUT", "maintenance", r#"{"maintenance":"on"}"#, 422),
    ] {
        let answer = ask(&served, method, path, "", body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        assert_eq!(answer.json()["status"], status, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    }
    let stranger = served.send("GET", "/api/v2/nodes", "", "").await;
    assert_eq!((stranger.status, stranger.header("www-authenticate")), (401, Some("ApiKey")));
    assert_eq!(stranger.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn a_definition_is_replaced_only_if_it_is_the_one_that_was_read() {
    let (fake, served) = cluster().await;
    let (path, new) = ("vms/web1/definition", definition("web1", 1));
    let read = ask(&served, "GET", path, "", "").await;
    assert_eq!(read.header("content-type"), Some("application/xml; charset=utf-8"));
    let matching = format!("If-Match: {}\r\n", read.header("etag").unwrap());
    assert_eq!(ask(&served, "PUT", path, "", &new).await.status, 428);
    let first = ask(&served, "PUT", path, &matching, &new).await;
    assert_eq!(first.status, 200, "{first:?}");
    let late = ask(&served, "PUT", path, &matching, &new.replace(">64<", ">99<")).await;
    assert_eq!(late.status, 412, "{late:?}");
    let stored = async || fake.get(&format!("/domains/{}/xml", id(1))).await.unwrap();
    assert!(stored().await.contains(">64<"));
    // Defined anew, its key begins to count anew.
    assert_eq!(served.ask("DELETE", "/api/v1/vm/web1", "").await.status, 200);
    fake.define(1, "web1", "hv1").await;
    let now = ask(&served, "GET", path, "", "").await;
    let bumped = now.body.replace(">100<", ">101<");
    assert_eq!(ask(&served, "PUT", path, "If-Match: *\r\n", &bumped).await.status, 200);
    assert!(stored().await.contains(">101<"));
    let wrong = ask(&served, "PUT", path, "If-Match: *\r\n", &definition("web1", 7)).await;
    assert_eq!((wrong.status, wrong.json()["what"].as_str()), (409, Some("VM web1 was not changed")));
}

#[tokio::test]
async fn a_desired_state_and_maintenance_are_written() {
    let (fake, served) = cluster().await;
    let started = ask(&served, "PUT", "vms/web1/state", "", r#"{"state":"start"}"#).await;
    assert_eq!((started.status, started.message().as_str()), (202, "VM web1 is to start"));
    assert_eq!(fake.get(&format!("/domains/{}/state", id(1))).await.as_deref(), Some("start"));
    let on = ask(&served, "PUT", "maintenance", "", r#"{"maintenance":true}"#).await;
    assert_eq!(on.status, 200, "{on:?}");
    assert_eq!(ask(&served, "GET", "maintenance", "", "").await.body, r#"{"maintenance":true}"#);
}

#[tokio::test]
async fn a_vm_is_defined_moved_and_undefined() {
    let (fake, served) = cluster().await;
    let new = json!({ "xml": definition("web2", 2), "node": "hv1" }).to_string();
    let made = ask(&served, "POST", "vms", "", &new).await;
    assert_eq!(made.status, 201, "{made:?}");
    let at = format!("/api/v2/vms/{}", id(2));
    assert_eq!(made.header("location"), Some(at.as_str()));
    let key = |name: &str| format!("/domains/{}/{name}", id(2));
    for (path, body, status, node) in [
        ("vms/web2/move", r#"{"node":"hv2"}"#, 200, "hv2"),
        ("vms/web2/migrate", r#"{"node":"hv1"}"#, 409, "hv2"),
        ("vms/web2/unmigrate", "", 409, "hv2"),
        ("vms/web2/move", r#"{"node":"hv9"}"#, 404, "hv2"),
        ("vms/web2/move", r#"{"selector":"best"}"#, 400, "hv2"),
        ("vms/web2/move", r#"{"to":"hv1"}"#, 422, "hv2"),
        ("vms/web2/move", "", 200, "hv1"),
    ] {
        let answer = ask(&served, "POST", path, "", body).await;
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert_eq!(fake.get(&key("node")).await.as_deref(), Some(node), "{path} {body}");
    }
    ask(&served, "PUT", "vms/web2/state", "", r#"{"state":"start"}"#).await;
    let migrates = ask(&served, "POST", "vms/web2/migrate", "", r#"{"node":"hv2"}"#).await;
    assert_eq!((migrates.status, migrates.message().as_str()), (202, "VM web2 migrates from hv1 to hv2"));
    let refused = ask(&served, "DELETE", "vms/web2", "", "").await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(fake.get(&key("state")).await.as_deref(), Some("migrate"), "it was not powered off");
    assert_eq!(ask(&served, "DELETE", "vms/web2?stop=perhaps", "", "").await.status, 400);
    let gone = ask(&served, "DELETE", "vms/web2?stop=true", "", "").await;
    assert_eq!(gone.status, 200, "{gone:?}");
    assert_eq!(fake.get(&key("state")).await, None);
    let bad = json!({ "xml": "<domain/>" }).to_string();
    assert_eq!(ask(&served, "POST", "vms", "", &bad).await.status, 422);
    assert_eq!(ask(&served, "POST", "vms", "", "{}").await.status, 422);
    assert_eq!(ask(&served, "POST", "vms", "", &new.replace("hv1", "hv9")).await.status, 404);
}

#[tokio::test]
async fn a_console_is_read_from_its_end() {
    let (fake, served) = cluster().await;
    let printed = vm::console_log(id(1), "one\ntwo\n<b>three\n");
    fake.cluster.store.commit(printed).await.unwrap();
    for (query, text) in [
        ("", "one\ntwo\n<b>three\n"),
        ("?lines=2", "two\n<b>three\n"),
        ("?lines=0", ""),
        ("?lines=", "one\ntwo\n<b>three\n"),
    ] {
        let log = ask(&served, "GET", &format!("vms/web1/log{query}"), "", "").await;
        assert_eq!((log.status, log.body.as_str()), (200, text), "{query}");
        assert_eq!(log.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(log.header("x-content-type-options"), Some("nosniff"), "no browser takes it for a page");
    }
    assert_eq!(ask(&served, "GET", "vms/web1/log?lines=-1", "", "").await.status, 400);
    assert_eq!(ask(&served, "GET", "vms/web9/log", "", "").await.status, 404);
}

#[tokio::test]
async fn a_node_is_flushed_and_becomes_primary() {
    let (fake, served) = cluster().await;
    for (path, key, value) in [
        ("flush", "/nodes/hv1/domainstate", "flush"),
        ("ready", "/nodes/hv1/domainstate", "unflush"),
        ("primary", "/primary_node", "hv1"),
        ("secondary", "/primary_node", "none"),
    ] {
        let answer = ask(&served, "POST", &format!("nodes/hv1/{path}"), "", "{}").await;
        assert_eq!(answer.status, 202, "{path}: {answer:?}");
        assert_eq!(fake.get(key).await.as_deref(), Some(value), "{path}");
        assert_eq!(ask(&served, "POST", &format!("nodes/hv9/{path}"), "", "").await.status, 404, "{path}");
        let more = ask(&served, "POST", &format!("nodes/hv1/{path}"), "", r#"{"now":true}"#).await;
        assert_eq!(more.status, 422, "{path}: {more:?}");
    }
}

#[tokio::test]
async fn a_body_is_json_or_is_refused_and_large_only_where_a_definition_is_taken() {
    let (_fake, served) = cluster().await;
    for (kind, status) in [
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("application/merge-patch+json", 415),
        ("Application/JSON; charset=utf-8", 200),
    ] {
        let headers = format!("X-Api-Key: {TOKEN}\r\nContent-Type: {kind}\r\n");
        let answer = served.send("PUT", "/api/v2/maintenance", &headers, r#"{"maintenance": true}"#).await;
        assert_eq!(answer.status, status, "{kind}: {answer:?}");
    }
    let large = format!(r#"{{"state": "{}"}}"#, "x".repeat(70_000));
    assert_eq!(ask(&served, "PUT", "vms/web1/state", "", &large).await.status, 413);
    let large = format!(r#"{{"xml": "{}"}}"#, "x".repeat(70_000));
    assert_eq!(ask(&served, "POST", "vms", "", &large).await.status, 422);
}

#[tokio::test]
async fn a_definition_is_no_document_that_a_browser_executes() {
    let (_fake, served) = cluster().await;
    let answer = ask(&served, "GET", "vms/web1/definition", "", "").await;
    assert!(
        answer
            .head
            .to_ascii_lowercase()
            .contains("content-security-policy: default-src 'none'; frame-ancestors 'none'; sandbox"),
        "{answer:?}"
    );
}
