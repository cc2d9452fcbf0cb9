//! Networks, storage and its tasks, fences.

use pvc_operate::testing::Fake;
use pvc_store::{CreateMode, Op, Transaction};
use serde_json::{Value, json};

use super::{ask, cluster};
use crate::support::Served;

#[tokio::test]
async fn a_network_is_added_in_the_form_in_which_it_is_shown() {
    let (_fake, served) = cluster().await;
    let new = json!({
        "vni": 101, "type": "managed", "description": "db", "guard": true,
        "ip4": { "network": "10.2.0.0/24", "gateway": "10.2.0.1", "dhcp_flag": true, "dhcp_start": "10.2.0.10", "dhcp_end": "10.2.0.20" },
    });
    let made = ask(&served, "POST", "networks", "", &new.to_string()).await;
    assert_eq!((made.status, made.header("location")), (201, Some("/api/v2/networks/101")), "{made:?}");
    let shown = async || ask(&served, "GET", "networks/db", "", "").await.json();
    for part in ["vni", "type", "description", "guard", "ip4"] {
        assert_eq!(shown().await[part], new[part], "{part}");
    }
    for (change, status) in [
        (json!({ "domain": "db.example", "ip4": { "dhcp_flag": false } }), 200),
        (json!({ "ip4": { "dhcp_start": null, "dhcp_end": null } }), 200),
        (json!({ "ip4": { "gateway": "10.9.0.1" } }), 409),
        (json!({ "vni": 7 }), 422),
        (json!({ "ip4": { "dhcp": true } }), 422),
    ] {
        let answer = ask(&served, "PATCH", "networks/db", "", &change.to_string()).await;
        assert_eq!(answer.status, status, "{change}: {answer:?}");
    }
    let now = shown().await;
    assert_eq!((&now["domain"], &now["ip4"]["dhcp_flag"]), (&json!("db.example"), &json!(false)));
    assert_eq!(now["ip4"].get("dhcp_start"), None, "null takes it away");
    assert_eq!(now["ip4"]["gateway"], "10.2.0.1", "what is not sent stays");
    for (body, status) in [
        (json!({ "vni": 101, "type": "managed", "description": "other" }), 409),
        (json!({ "vni": 102, "type": "routed", "description": "other" }), 422),
        (json!({ "vni": 102, "type": "managed" }), 422),
        (json!({ "vni": 99_999_999, "type": "managed", "description": "other" }), 422),
    ] {
        assert_eq!(ask(&served, "POST", "networks", "", &body.to_string()).await.status, status, "{body}");
    }
    assert_eq!(ask(&served, "DELETE", "networks/db", "", "").await.status, 200);
    assert_eq!(ask(&served, "DELETE", "networks/db", "", "").await.status, 404);
}

#[tokio::test]
async fn addresses_are_reserved_and_rules_added_and_both_taken_away() {
    let (_fake, served) = cluster().await;
    let lease = json!({ "mac_address": "52:54:00:00:00:0a", "ip4_address": "10.1.0.9", "hostname": "db" });
    let rule = json!({ "description": "ssh", "direction": "in", "rule": "tcp dport 22 accept" });
    for (path, body, shown, gone) in [
        ("leases", lease, "/leases/0/ip4_address", "leases/52:54:00:00:00:0a"),
        ("rules", rule, "/0/description", "rules/ssh"),
    ] {
        let path = format!("networks/web/{path}");
        let made = ask(&served, "POST", &path, "", &body.to_string()).await;
        assert_eq!(made.status, 200, "{made:?}");
        let found = ask(&served, "GET", &path, "", "").await.json();
        assert!(found.pointer(shown).is_some_and(Value::is_string), "{found}");
        assert_eq!(ask(&served, "POST", &path, "", "{}").await.status, 422);
        let gone = format!("networks/web/{gone}");
        assert_eq!(ask(&served, "DELETE", &gone, "", "").await.status, 200);
        assert_eq!(ask(&served, "DELETE", &gone, "", "").await.status, 404);
    }
}

#[tokio::test]
async fn each_change_of_storage_is_a_task_that_nobody_waits_for() {
    let (_fake, served) = cluster().await;
    let changes = [
        ("POST", "pools", r#"{"name":"vms","pgs":64}"#, "pool_add vms,64"),
        ("DELETE", "pools/vms", "", "pool_remove vms"),
        ("POST", "volumes", r#"{"pool":"vms","name":"a","size":"20G"}"#, "volume_add vms,a,21474836480B"),
        ("POST", "volumes", r#"{"pool":"vms","name":"a","size":4096}"#, "volume_add vms,a,4096B"),
        ("PATCH", "volumes/vms/a", r#"{"size":"1K","force":true}"#, "volume_resize vms,a,1024B"),
        ("PATCH", "volumes/vms/a", r#"{"name":"b"}"#, "volume_rename vms,a,b"),
        ("POST", "volumes/vms/a/clone", r#"{"name":"b"}"#, "volume_clone vms,a,b,*"),
        ("POST", "volumes/vms/a/clone", r#"{"name":"b","snapshot":"s"}"#, "volume_clone vms,a,b,s"),
        ("DELETE", "volumes/vms/a", "", "volume_remove vms,a"),
        ("POST", "snapshots", r#"{"pool":"vms","volume":"a","snapshot":"s"}"#, "snapshot_add vms,a,s"),
        ("PATCH", "snapshots/vms/a/s", r#"{"snapshot":"t"}"#, "snapshot_rename vms,a,s,t"),
        ("POST", "snapshots/vms/a/s/rollback", "", "snapshot_rollback vms,a,s"),
        ("DELETE", "snapshots/vms/a/s", "", "snapshot_remove vms,a,s"),
        ("POST", "osds", r#"{"node":"hv1","device":"/dev/sdb"}"#, "osd_add hv1,/dev/sdb,1"),
        ("POST", "osds", r#"{"node":"hv1","device":"/dev/sdb","weight":0.5}"#, "osd_add hv1,/dev/sdb,0.5"),
        ("DELETE", "osds/3", "", "osd_remove 3"),
        ("PUT", "osds/3/state", r#"{"state":"out"}"#, "osd_out 3"),
        ("PUT", "flags/noout", "", "osd_set noout"),
        ("DELETE", "flags/noout", "", "osd_unset noout"),
    ];
    for (method, path, body, command) in changes {
        let answer = ask(&served, method, &format!("storage/{path}"), "", body).await;
        assert_eq!(answer.status, 202, "{method} {path}: {answer:?}");
        let number = answer.json()["task"].clone();
        let at = answer.header("location").unwrap().to_owned();
        assert_eq!(at, format!("/api/v2/tasks/{number}"));
        let task = ask(&served, "GET", &format!("tasks/{number}"), "", "").await.json();
        assert_eq!((&task["command"], &task["id"]), (&json!(command), &number));
        assert_eq!(
            (&task["by"], &task["force"]),
            (&json!("tests over HTTP"), &json!(body.contains("force")))
        );
        assert_eq!(task["state"], "waiting");
    }
    assert_eq!(ask(&served, "GET", "tasks", "", "").await.json().as_array().unwrap().len(), changes.len());
    let cancelled = ask(&served, "DELETE", "tasks/1", "", "").await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    assert_eq!(ask(&served, "GET", "tasks/1", "", "").await.json()["state"], "failed");
    assert_eq!(ask(&served, "DELETE", "tasks/1", "", "").await.status, 409, "it is over");
}

#[tokio::test]
async fn what_makes_no_sense_becomes_no_task() {
    let (_fake, served) = cluster().await;
    for (method, path, body, status) in [
        ("POST", "storage/pools", r#"{"name":"a/b"}"#, 400),
        ("POST", "storage/pools", r#"{"name":"vms","pgs":0}"#, 400),
        ("POST", "storage/volumes", r#"{"pool":"vms","name":"a"}"#, 422),
        ("POST", "storage/volumes", r#"{"pool":"vms","name":"a","size":"-1"}"#, 400),
        ("PATCH", "storage/volumes/vms/a", "{}", 422),
        ("POST", "storage/volumes/vms/a/clone", "{}", 422),
        ("POST", "storage/volumes/vms/a/clone", r#"{"name":"b","snapshot":"*"}"#, 400),
        ("PATCH", "storage/volumes/vms/a", r#"{"name":"b","size":1}"#, 422),
        ("POST", "storage/osds", r#"{"node":"hv1","device":"/etc/passwd"}"#, 400),
        ("POST", "storage/osds", r#"{"node":"hv1","device":"/dev/../etc"}"#, 400),
        ("POST", "storage/osds", r#"{"node":"hv1","device":"/dev/sdb","weight":-1}"#, 400),
        ("POST", "storage/osds", r#"{"node":"hv1"}"#, 422),
        ("DELETE", "storage/osds/x", "", 400),
        ("PUT", "storage/osds/x/state", r#"{"state":"in"}"#, 400),
        ("PUT", "storage/osds/1/state", r#"{"state":"off"}"#, 422),
        ("PUT", "storage/flags/nothing", "", 400),
        ("DELETE", "tasks/99", "", 404),
        ("GET", "tasks/99", "", 404),
        ("GET", "tasks/x", "", 400),
        ("GET", "storage/volumes?pool=a/b", "", 400),
    ] {
        let answer = ask(&served, method, path, "", body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
    }
    for path in ["tasks", "storage/pools", "storage/volumes", "storage/snapshots", "storage/osds", "fences"] {
        assert_eq!(ask(&served, "GET", path, "", "").await.body, "[]", "{path}");
    }
    assert_eq!(ask(&served, "GET", "storage", "", "").await.json()["status"], "");
}

#[tokio::test]
async fn a_fence_is_shown_whether_or_not_it_can_be_read() {
    let fake = Fake::with(&["hv1", "hv2"]).await;
    let served = Served::guarded(&fake).await;
    let mut records = Transaction::default();
    for (node, record) in
        [("hv1", r#"{"step":"shooting","instance":null,"by":"hv2","at_unix_s":5}"#), ("hv2", "rubbish")]
    {
        let path = format!("/pvc/fence/{node}");
        records.ops.push(Op::Create { path, data: record.into(), mode: CreateMode::Persistent });
    }
    fake.cluster.store.commit(records).await.unwrap();
    let fences = ask(&served, "GET", "fences", "", "").await.json();
    assert_eq!((&fences[0]["node"], &fences[0]["by"]), (&json!("hv1"), &json!("hv2")), "{fences}");
    assert_eq!(fences[1]["node"], "hv2");
    assert!(fences[1]["problems"][0].is_string(), "{fences}");
}
