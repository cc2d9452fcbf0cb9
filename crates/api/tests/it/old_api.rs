//! The old API as a table: each documented call, what it answers, and what it has written.

mod networks;
mod storage;

use pvc_operate::testing::{Fake, id};
use serde_json::{Value, json};

use crate::support::{Served, TOKEN, definition, encoded};

/// A call: method, path, form → status, and a part of the message, or of the JSON.
type Call<'a> = (&'a str, &'a str, String, u16, &'a str);

async fn expect(served: &Served, calls: &[Call<'_>]) {
    for (method, path, form, status, part) in calls {
        let answer = served.ask(method, &format!("/api/v1{path}"), form).await;
        assert_eq!(answer.status, *status, "{method} {path} {form}: {answer:?}");
        assert!(answer.body.contains(part), "{method} {path} {form}: {part:?} is not in {answer:?}");
    }
}

fn none() -> String {
    String::new()
}

#[tokio::test]
async fn the_greeting_needs_no_token() {
    let fake = Fake::with(&[]).await;
    let served = Served::guarded(&fake).await;
    for path in ["/api/v1", "/api/v1/"] {
        let answer = served.send("GET", path, "", "").await;
        assert_eq!((answer.status, answer.message().as_str()), (209, "Parallel Virtual Cluster API"));
    }
    let form = served.send("GET", "/api/v1/auth/login", "", "").await;
    assert!(form.status == 200 && form.body.contains("name=\"token\""), "{form:?}");
    assert_eq!(served.ask("GET", "/api/v1/nothing", "").await.status, 404);
    assert_eq!(served.ask("DELETE", "/api/v1/node", "").await.status, 405);
}

#[tokio::test]
async fn nodes_are_listed_shown_and_commanded() {
    let fake = Fake::with(&["hv1", "hv2"]).await;
    let served = Served::guarded(&fake).await;
    let answer = served.ask("GET", "/api/v1/node", "").await.json();
    assert_eq!(
        answer[0],
        json!({
            "name": "hv1", "daemon_state": "run", "coordinator_state": "secondary", "domain_state": "ready",
            "cpu_count": "8", "kernel": "6.1", "os": "GNU/Linux", "arch": "x86_64", "load": "0", "domains_count": "0",
            "running_domains": [], "vcpu": {"total": "8", "allocated": "0"},
            "memory": {"total": 1000, "allocated": 0, "used": 0, "free": 0},
        })
    );
    assert_eq!(answer.as_array().unwrap().len(), 2);
    expect(
        &served,
        &[
            ("GET", "/node?limit=v2", none(), 200, "hv2"),
            ("GET", "/node", "limit=^v2".into(), 404, "message"),
            ("GET", "/node?limit=(", none(), 400, "no regular expression"),
            ("GET", "/node/hv1", none(), 200, "\"name\":\"hv1\""),
            ("GET", "/node/v1", none(), 200, "\"name\":\"hv1\""),
            ("GET", "/node/hv3", none(), 404, "there is no such node"),
            ("GET", "/node/hv1/daemon-state", none(), 200, r#"{"daemon_state":"run","name":"hv1"}"#),
            (
                "GET",
                "/node/hv1/coordinator-state",
                none(),
                200,
                r#"{"coordinator_state":"secondary","name":"hv1"}"#,
            ),
            ("GET", "/node/hv1/domain-state", none(), 200, r#"{"domain_state":"ready","name":"hv1"}"#),
            ("GET", "/node/hv3/domain-state", none(), 404, "did you mean hv1 or hv2?"),
            ("POST", "/node/hv1/coordinator-state", none(), 400, "no coordinator-state specified"),
            (
                "POST",
                "/node/hv1/coordinator-state",
                "coordinator-state=client".into(),
                400,
                "primary or secondary",
            ),
            (
                "POST",
                "/node/hv1/coordinator-state",
                "coordinator-state=primary".into(),
                200,
                "hv1 is to become primary",
            ),
            (
                "POST",
                "/node/hv3/coordinator-state",
                "coordinator-state=primary".into(),
                404,
                "there is no node",
            ),
            ("POST", "/node/hv1/domain-state", none(), 400, "no domain-state specified"),
            ("POST", "/node/hv1/domain-state?domain-state=flush", none(), 200, "hv1 is to be flushed"),
        ],
    )
    .await;
    assert_eq!(fake.get("/nodes/hv1/domainstate").await.as_deref(), Some("flush"));
    assert_eq!(fake.get("/primary_node").await.as_deref(), Some("hv1"));
    expect(
        &served,
        &[
            ("POST", "/node/hv1/domain-state", "domain-state=ready".into(), 200, "hv1 is to take VMs"),
            ("POST", "/node/hv1/domain-state", "domain-state=off".into(), 400, "flush or ready"),
        ],
    )
    .await;
    assert_eq!(fake.get("/nodes/hv1/domainstate").await.as_deref(), Some("unflush"));
}

#[tokio::test]
async fn a_vm_is_defined_shown_changed_and_undefined() {
    let fake = Fake::with(&["hv1", "hv2"]).await;
    let served = Served::guarded(&fake).await;
    let xml = definition("web1", 1);
    let form = |xml: &str| format!("xml={}", encoded(xml));
    let uuid = id(1).to_string();
    expect(
        &served,
        &[
            ("GET", "/vm", none(), 404, "message"),
            ("POST", "/vm", none(), 400, "no xml specified"),
            ("POST", "/vm", form("<domain/>"), 400, "the definition is refused"),
            ("POST", "/vm", form(&xml) + "&node=hv9", 404, "there is no node"),
            ("POST", "/vm", form(&xml) + "&selector=luck", 400, "mem, vcpus, load or vms"),
            ("POST", "/vm", form(&xml) + "&node=hv1", 200, "VM web1"),
            ("POST", "/vm", form(&xml), 400, "it is defined already"),
            ("POST", "/vm?node=hv2", form(&definition("web2", 2)), 200, "is defined on hv2"),
        ],
    )
    .await;
    let shown = served.ask("GET", "/api/v1/vm/web1", "").await.json();
    assert_eq!(
        shown,
        json!([{
            "name": "web1", "uuid": uuid, "state": "stop", "node": "hv1", "last_node": "", "migrated": "no",
            "failed_reason": "", "description": "a test", "memory": 64, "vcpu": 1, "vcpu_topology": "N/A",
            "networks": [{"type": "bridge", "mac": "52:54:00:00:00:01", "source": "vmbr100", "model": "virtio"}],
            "type": "hvm", "arch": "x86_64", "machine": "q35", "console": "pty", "emulator": "/usr/bin/qemu-system-x86_64", "features": [],
            "disks": [], "controllers": [], "xml": shown[0]["xml"],
        }])
    );
    assert!(shown[0]["xml"].as_str().unwrap().contains("vmbr100"));
    let names = async |query: &str| -> Vec<Value> {
        let answer = served.ask("GET", &format!("/api/v1/vm?{query}"), "").await;
        let all = answer.json();
        all.as_array().into_iter().flatten().map(|vm| vm["name"].clone()).collect()
    };
    assert_eq!(names("").await, ["web1", "web2"]);
    assert_eq!(names("limit=b1").await, ["web1"]);
    assert_eq!(names("node=hv2").await, ["web2"]);
    assert_eq!(names("node=hv2&state=stop").await, ["web1", "web2"], "either");
    assert_eq!(names("state=start").await, [""; 0]);
    expect(
        &served,
        &[
            ("GET", "/vm?node=hv9", none(), 404, "there is no node"),
            ("GET", "/vm?state=on", none(), 400, "state"),
            ("GET", &format!("/vm/{uuid}"), none(), 200, "web1"),
            ("GET", &format!("/vm/{}", &uuid[..30]), none(), 200, "web1"),
            ("GET", "/vm/we", none(), 200, "web2"),
            ("GET", "/vm/eb1", none(), 404, "there is no such VM"),
            ("GET", "/vm/web1/state", none(), 200, r#"{"name":"web1","state":"stop"}"#),
            ("GET", "/vm/web1/node", none(), 200, r#"{"last_node":"","name":"web1","node":"hv1"}"#),
            ("GET", "/vm/web9/state", none(), 404, "there is no VM"),
            ("GET", "/vm/web1/locks", none(), 501, "message"),
            ("PUT", "/vm/web1", none(), 400, "no xml specified"),
            ("PUT", "/vm/web1", form(&xml.replace(">64<", ">65<")), 200, "is changed"),
            ("PUT", "/vm/web1", form(&definition("web1", 7)), 400, "<uuid>"),
            ("DELETE", "/vm/web1?delete_disks=1", none(), 400, "nothing was done"),
            ("DELETE", "/vm/web1", none(), 200, "is undefined"),
            ("DELETE", "/vm/web1", none(), 404, "there is no VM"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_definition_may_be_the_whole_body_whatever_that_is_called() {
    let fake = Fake::with(&["hv1"]).await;
    let served = Served::guarded(&fake).await;
    fake.define(1, "web1", "hv1").await;
    for (kind, memory) in [
        ("", 70),
        ("Content-Type: application/x-www-form-urlencoded\r\n", 71),
        ("Content-Type: text/xml\r\n", 72),
    ] {
        let headers = format!("X-Api-Key: {TOKEN}\r\n{kind}");
        let xml = definition("web1", 1).replace(">64<", &format!(">{memory}<"));
        let answer = served.send("PUT", "/api/v1/vm/web1", &headers, &xml).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let stored = fake.get(&format!("/domains/{}/xml", id(1))).await.unwrap();
        assert!(stored.contains(&format!(">{memory}<")), "{stored}");
    }
}

#[tokio::test]
async fn a_vms_state_and_node_are_commanded() {
    let fake = Fake::with(&["hv1", "hv2"]).await;
    let served = Served::guarded(&fake).await;
    fake.define(1, "web1", "hv1").await;
    let state = async || fake.get(&format!("/domains/{}/state", id(1))).await.unwrap();
    expect(
        &served,
        &[
            ("POST", "/vm/web1/state", none(), 400, "no state specified"),
            ("POST", "/vm/web1/state", "state=on".into(), 400, "start, shutdown, stop or restart"),
            ("POST", "/vm/web1/node", none(), 400, "no action specified"),
            ("POST", "/vm/web1/node", "action=fly".into(), 400, "migrate, unmigrate or move"),
            (
                "POST",
                "/vm/web1/node",
                "action=migrate&permanent=1&node=hv2".into(),
                200,
                "belongs to hv2 now",
            ),
            ("POST", "/vm/web1/node", "action=move&node=hv1".into(), 200, "belongs to hv1 now"),
            ("POST", "/vm/web1/node", "action=unmigrate".into(), 400, "message"),
            ("POST", "/vm/web1/state", "state=start".into(), 200, "VM web1 is to start"),
        ],
    )
    .await;
    assert_eq!(state().await, "start");
    expect(
        &served,
        &[
            (
                "PUT",
                "/vm/web1?restart=1",
                format!("xml={}", encoded(&definition("web1", 1))),
                200,
                "is to restart",
            ),
            ("POST", "/vm/web1/state", "state=stop".into(), 200, "VM web1 is to stop"),
            ("POST", "/vm/web9/state", "state=stop".into(), 404, "there is no VM"),
        ],
    )
    .await;
    assert_eq!(state().await, "stop");
}
