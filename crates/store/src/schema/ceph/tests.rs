//! Storage: both directions, what old daemons wrote, rubbish.

use proptest::prelude::*;
use pvc_core::model::ceph::{OsdStats, PoolStats, VolumeStats};

use super::*;
use crate::{Store, memory::MemoryTree};

async fn store() -> std::sync::Arc<crate::memory::MemoryStore> {
    let store = MemoryTree::new().client();
    crate::schema::root::init(&*store).await.unwrap();
    store
}

fn values<const N: usize>(texts: [&str; N]) -> [Option<Value>; N] {
    texts.map(|text| Some(Value { data: text.into(), version: 0, mzxid: 1, children: 0 }))
}

#[tokio::test]
async fn what_is_created_is_read_back_and_figures_are_replaced() {
    let store = store().await;
    let osd = Osd { id: OsdId(3), node: "node1".into(), device: "/dev/sdb".into(), stats: None };
    let pool = Pool { name: "vms".parse().unwrap(), pgs: 128, stats: None };
    let volume = Volume { pool: pool.name.clone(), name: "web_sda".parse().unwrap(), stats: None };
    for txn in [
        create_osd(&osd),
        create_pool(&pool),
        create_volume(&volume),
        create_snapshot(&volume.pool, &volume.name, &"first".parse().unwrap()),
    ] {
        store.commit(txn).await.unwrap();
    }
    let found = store.get_many(&osd_paths(osd.id)).await.unwrap();
    assert_eq!(decode_osd(osd.id, &found), Some(Entry::Good(osd.clone())));
    let found = store.get_many(&pool_paths(&pool.name)).await.unwrap();
    assert_eq!(decode_pool(&pool.name, &found), Some(Entry::Good(pool.clone())));

    let stats =
        OsdStats { up: 1, kb: 20_971_520, used: "1.2G".into(), utilization: 6.25, ..OsdStats::default() };
    store.commit(set_stats(&osd_path(osd.id), &stats)).await.unwrap();
    let found = store.get_many(&osd_paths(osd.id)).await.unwrap();
    assert_eq!(decode_osd(osd.id, &found), Some(Entry::Good(Osd { stats: Some(stats), ..osd })));
    let stats = PoolStats { id: 2, num_objects: 7, write_bytes: u64::MAX, ..PoolStats::default() };
    store.commit(set_stats(&pool_path(&pool.name), &stats)).await.unwrap();
    let found = store.get_many(&pool_paths(&pool.name)).await.unwrap();
    assert_eq!(decode_pool(&pool.name, &found), Some(Entry::Good(Pool { stats: Some(stats), ..pool })));
    let found = store.get_many(&volume_paths(&volume.pool, &volume.name)).await.unwrap();
    assert_eq!(decode_volume(&volume.pool, &volume.name, &found), Some(Entry::Good(volume)));
}

#[test]
fn what_rbd_says_of_an_image_is_read_and_its_other_words_are_ignored() {
    let text = r#"{"name":"web","id":"1a","size":20971520,"objects":5,"order":22,"object_size":4194304,
        "snapshot_count":0,"block_name_prefix":"rbd_data.1a","format":2,"features":["layering","exclusive-lock"],
        "op_features":[],"flags":[],"create_timestamp":"Mon"}"#;
    let (pool, name) = ("vms".parse().unwrap(), "web".parse().unwrap());
    let Some(Entry::Good(volume)) = decode_volume(&pool, &name, &values(["", text])) else { panic!() };
    let features = vec!["layering".to_owned(), "exclusive-lock".to_owned()];
    assert_eq!(
        volume.stats,
        Some(VolumeStats { size: 20_971_520, objects: 5, order: 22, format: 2, features })
    );
}

#[test]
fn wrong_figures_are_named_with_their_key() {
    let found = decode_osd(OsdId(0), &values(["", "node1", "/dev/sdb", r#"{"kb":"many"}"#]));
    let Some(Entry::Bad(problems)) = found else { panic!("{found:?}") };
    assert_eq!(problems[0].key, "/ceph/osds/0/stats");
    let (good, bad) = names::<PoolName>(POOLS, &["vms".into(), "-x".into(), "a b".into()]);
    assert_eq!((good.len(), bad.len(), bad[0].key.as_str()), (1, 2, "/ceph/pools/-x"));
}

proptest! {
    #[test]
    fn rubbish_never_panics(
        data in prop::collection::vec(
            prop_oneof![prop::collection::vec(any::<u8>(), 0..40), "[{}\\[\\]\":,a-z0-9.-]{0,40}".prop_map(String::into_bytes)],
            4,
        ),
    ) {
        let values: Vec<Option<Value>> =
            data.into_iter().map(|data| Some(Value { data, version: 0, mzxid: 0, children: 0 })).collect();
        let pool = "vms".parse().unwrap();
        prop_assert!(decode_osd(OsdId(0), &values).is_some());
        prop_assert!(decode_pool(&pool, &values).is_some());
        prop_assert!(decode_volume(&pool, &"v".parse().unwrap(), &values).is_some());
        prop_assert!(decode_osd(OsdId(0), &[]).is_none());
    }
}

#[tokio::test]
async fn what_ceph_says_is_written_where_it_is_not_there_already_and_pools_are_not_made_for_it() {
    use pvc_core::model::ceph::{Figures, PoolFigures, Refreshed};

    let store = store().await;
    store.commit(create_pool(&Pool { name: "vms".parse().unwrap(), pgs: 8, stats: None })).await.unwrap();
    let pool = |size_bytes| PoolFigures {
        stats: PoolStats { size_bytes, ..PoolStats::default() },
        ..PoolFigures::default()
    };
    let figures = Figures {
        status: "  cluster:\n".to_owned(),
        pools: [("vms".to_owned(), pool(7)), ("unknown".to_owned(), pool(8))].into(),
        ..Figures::default()
    };
    let at = |at, trouble: Option<&str>| Refreshed {
        by: "node1".to_owned(),
        at_unix_s: Some(at),
        trouble: trouble.map(str::to_owned),
    };
    refresh(&*store, Some(&figures), &at(1, None)).await.unwrap();
    refresh(&*store, Some(&figures), &at(2, None)).await.unwrap();
    let keys = [STATUS, RADOS_DF, REFRESHED, "/ceph/pools/vms/stats"].map(str::to_owned);
    let values: Vec<Value> = store.get_many(&keys).await.unwrap().into_iter().flatten().collect();
    let text = |at: usize| String::from_utf8(values[at].data.clone()).unwrap();
    assert_eq!(text(0), figures.status);
    assert_eq!(text(1), rados_df(&figures));
    assert_eq!(text(2), r#"{"by":"node1","at_unix_s":2,"trouble":null}"#);
    assert!(text(3).contains(r#""size_bytes":7"#), "{}", text(3));
    let writes: Vec<i32> = values.iter().map(|value| value.version).collect();
    assert_eq!(writes, [1, 0, 1, 1], "what was there already was not written again");
    assert_eq!(store.children(POOLS).await.unwrap().unwrap(), ["vms"]);
    let osd = Osd { id: OsdId(3), node: "hv1".into(), device: "/dev/sdb".into(), stats: None };
    store.commit(create_osd(&osd)).await.unwrap();
    let up = OsdStats { up: 1, ..OsdStats::default() };
    for _ in 0..2 {
        refresh_osds(&*store, &[(OsdId(3), up.clone()), (OsdId(4), up.clone())].into()).await.unwrap();
    }
    let stats = store.get("/ceph/osds/3/stats").await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&stats.data).contains(r#""up":1"#) && stats.version == 1);
    assert_eq!(store.children(OSDS).await.unwrap().unwrap(), ["3"]);

    refresh(&*store, None, &at(2, Some("down"))).await.unwrap();
    let values: Vec<Value> = store.get_many(&keys).await.unwrap().into_iter().flatten().collect();
    assert_eq!(values[0].version, 1, "the figures stay, and are said to be old");
    assert!(String::from_utf8_lossy(&values[2].data).contains("down"));
}
