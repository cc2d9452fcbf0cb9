//! Storage: figures of the tree, and changes that are refused with the truth.

use pvc_core::model::ceph::{Osd, OsdStats, Pool, PoolStats, Volume, VolumeStats};
use pvc_store::{CreateMode, Op, Transaction, schema::ceph};
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

#[tokio::test]
async fn what_would_change_storage_is_refused_and_nothing_is_written() {
    let fake = Fake::with(&[]).await;
    let served = Served::guarded(&fake).await;
    let before = fake.tree.dump();
    let changes =
        pvc_api::ROUTES.iter().filter(|route| route.path.contains("/storage/") && route.method != "GET");
    let mut count = 0;
    for route in changes {
        let answer = served.ask(route.method.as_str(), &route.path.replace(['{', '}'], ""), "pool=x").await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.message().contains("nothing was done"), "{answer:?}");
        count += 1;
    }
    assert_eq!((count, fake.tree.dump()), (12, before));
}
