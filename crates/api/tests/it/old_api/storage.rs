//! Storage: figures of the tree, and changes, which a primary makes.

use std::sync::Arc;

use pvc_core::model::{
    ceph::{Osd, OsdStats, Pool, PoolStats, Volume, VolumeStats},
    task::TaskState,
};
use pvc_store::{
    CreateMode, Op, Store as _, Transaction,
    memory::MemoryStore,
    schema::{self, ceph},
};
use serde_json::json;

use super::{Fake, Served, expect, none};

#[tokio::test]
async fn what_the_tree_says_of_storage_is_shown() {
    let fake = Fake::with(&[]).await;
    let served = Served::guarded(&fake).await;
    let greeting = served.send("GET", "/api/v1/storage", "", "").await;
    assert_eq!(greeting.status, 200, "needs no token");
    let store = &*fake.cluster.store;
    let (pool, volume) = ("vms".parse().unwrap(), "web1_root".parse().unwrap());
    let mut txn = Transaction::default();
    txn.ops.push(Op::Set { path: ceph::STATUS.into(), data: "health: HEALTH_OK".into(), version: None });
    let (path, data) = (ceph::RADOS_DF.into(), "POOL_NAME".into());
    txn.ops.push(Op::Create { path, data, mode: CreateMode::Persistent });
    store.commit(txn).await.unwrap();
    let stats = OsdStats { up: 1, r#in: 1, ..OsdStats::default() };
    let osd =
        Osd { id: "0".parse().unwrap(), node: "hv1".into(), device: "/dev/sdb".into(), stats: Some(stats) };
    store.commit(ceph::create_osd(&osd)).await.unwrap();
    let stats = PoolStats { id: 7, size_bytes: 2048, ..PoolStats::default() };
    store.commit(ceph::create_pool(&Pool { name: pool, pgs: 128, stats: Some(stats) })).await.unwrap();
    let (pool, stats) = ("vms".parse().unwrap(), VolumeStats { size: 20 << 30, ..VolumeStats::default() });
    store.commit(ceph::create_volume(&Volume { pool, name: volume, stats: Some(stats) })).await.unwrap();
    let (pool, volume) = ("vms".parse().unwrap(), "web1_root".parse().unwrap());
    store.commit(ceph::create_snapshot(&pool, &volume, &"monday".parse().unwrap())).await.unwrap();

    let ceph = json!({"type": "status", "primary_node": "None", "ceph_data": "health: HEALTH_OK"});
    for path in ["ceph", "ceph/status"] {
        assert_eq!(served.ask("GET", &format!("/api/v1/storage/{path}"), "").await.json(), ceph);
    }
    expect(
        &served,
        &[
            ("GET", "/storage/ceph/df", none(), 200, "POOL_NAME"),
            ("GET", "/storage/ceph/osd", none(), 200, r#""id":"0""#),
            ("GET", "/storage/ceph/osd?limit=9", none(), 404, "message"),
            ("GET", "/storage/ceph/osd/0", none(), 200, r#""up":1"#),
            ("GET", "/storage/ceph/osd/9", none(), 404, "no such OSD"),
            ("GET", "/storage/ceph/osd/0/state", none(), 200, r#"{"id":"0","in":1,"up":1}"#),
            ("GET", "/storage/ceph/pool", none(), 200, r#""size_bytes":2048"#),
            ("GET", "/storage/ceph/pool/vms", none(), 200, r#""name":"vms""#),
            ("GET", "/storage/ceph/pool/none", none(), 404, "no such pool"),
            ("GET", "/storage/ceph/volume?pool=vms&limit=root", none(), 200, r#""size":"20G""#),
            ("GET", "/storage/ceph/volume?pool=none", none(), 404, "no such volume"),
            ("GET", "/storage/ceph/volume/vms/web1_root", none(), 200, r#""pool":"vms""#),
            ("GET", "/storage/ceph/volume/vms/none", none(), 404, "no such volume"),
            ("GET", "/storage/ceph/volume/snapshot", none(), 200, r#"["vms/web1_root@monday"]"#),
            ("GET", "/storage/ceph/volume/snapshot?volume=none", none(), 404, "no such snapshot"),
            (
                "GET",
                "/storage/ceph/volume/snapshot/vms/web1_root/monday",
                none(),
                200,
                r#""snapshot":"monday""#,
            ),
        ],
    )
    .await;
}

/// In the place of a primary: ends each task as its command deserves.
async fn carry_out(store: Arc<MemoryStore>) {
    let me = "hv1".parse().unwrap();
    store.commit(schema::primary::take(&me, false)).await.unwrap();
    let mut changes = store.watch(schema::task::ROOT);
    while changes.recv().await.is_some() {
        let (tasks, _) = schema::task::read_all(&*store).await.unwrap();
        for seen in tasks.iter().filter(|seen| !seen.task.is_over()) {
            let done = !seen.task.command.to_string().contains("gone");
            let state = if done {
                TaskState::Done { at_unix_s: 1 }
            } else {
                TaskState::Failed { at_unix_s: 1, why: "there is no volume vms/gone".into(), refused: true }
            };
            schema::task::end(&*store, seen, (state, None), &[], &me).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_changes_storage_is_a_task_and_its_outcome_the_answer() {
    let fake = Fake::with(&[]).await;
    let served = Served::guarded(&fake).await;
    let mut primary = tokio::task::JoinSet::new();
    primary.spawn(carry_out(fake.tree.client()));
    let yes = "yes_i_really_mean_it=yes";
    for (method, path, fields, status, said) in [
        ("POST", "/cluster-option", "action=set&option=noout", 200, "set the OSDs' flag noout"),
        ("POST", "/cluster-option", "action=unset&option=noout", 200, "clear"),
        ("POST", "/cluster-option", "action=set&option=reboot", 400, "not a valid OSD flag"),
        ("POST", "/osd", "node=hv1&device=/dev/sdb&weight=1", 200, "make /dev/sdb of hv1 an OSD"),
        ("DELETE", "/osd/1", "", 400, "no yes_i_really_mean_it specified"),
        ("DELETE", "/osd/1", yes, 200, "remove OSD 1"),
        ("POST", "/osd/1/state", "state=out", 200, "take OSD 1 out of use"),
        ("POST", "/osd/1/state", "state=up", 400, "neither in nor out"),
        ("POST", "/pool", "pool=vms", 200, "with 128 placement groups"),
        ("DELETE", "/pool/vms", "", 400, "no yes_i_really_mean_it specified"),
        ("DELETE", "/pool/vms", yes, 200, "remove pool vms"),
        ("POST", "/volume", "pool=vms&volume=a&size=20G", 200, "add volume vms/a of 20G"),
        ("POST", "/volume", "pool=vms&volume=a", 400, "no size specified"),
        ("POST", "/volume", "pool=vms&volume=-a&size=20G", 400, "not a valid volume name"),
        ("PUT", "/volume/vms/a", "size=40G", 200, "resize volume vms/a to 40G"),
        ("PUT", "/volume/vms/a", "name=b", 200, "rename volume vms/a to b"),
        ("PUT", "/volume/vms/a", "name=b&size=40G", 400, "one at a time"),
        ("DELETE", "/volume/vms/a", "", 200, "remove volume vms/a"),
        (
            "DELETE",
            "/volume/vms/gone",
            "",
            400,
            "could not remove volume vms/gone: there is no volume vms/gone",
        ),
        ("POST", "/volume/snapshot", "pool=vms&volume=a&snapshot=s", 200, "take snapshot vms/a@s"),
        ("PUT", "/volume/snapshot/vms/a/s", "name=t", 200, "rename snapshot vms/a@s to t"),
        ("DELETE", "/volume/snapshot/vms/a/t", "", 200, "remove snapshot vms/a@t"),
    ] {
        let answer = served.ask(method, &format!("/api/v1/storage/ceph{path}"), fields).await;
        assert_eq!(answer.status, status, "{method} {path} {fields}: {answer:?}");
        assert!(answer.message().contains(said), "{method} {path} {fields}: {answer:?}");
    }
}
