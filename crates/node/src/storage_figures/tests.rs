//! Over the fake store and the fake Ceph, on a paused clock.

use pvc_core::model::ceph::{Osd, OsdId, OsdStats, Space};
use pvc_host::{
    ceph::{CephError, fake::FakeCeph},
    machine::FakeMachine,
};
use pvc_process::JoinSet;
use pvc_store::{memory::MemoryTree, schema::primary};
use tokio::time::sleep;

use super::*;

#[tokio::test(start_paused = true)]
async fn the_primary_writes_what_ceph_says_and_what_is_old_says_so() {
    let tree = MemoryTree::new();
    let store = tree.client();
    schema::root::init(&*store).await.unwrap();
    let mirror = Mirror::start(Arc::clone(&store) as Arc<dyn Store>);
    mirror.ready().await;
    let (ceph, me) = (FakeCeph::new(), "a".parse::<NodeName>().unwrap());
    let space = Space { used_bytes: 12 << 30, total_bytes: 300 << 30, ..Space::default() };
    let says = |status: &str| Figures {
        status: status.to_owned(),
        health: "HEALTH_OK".to_owned(),
        osds: [3, 3, 3],
        space,
        ..Figures::default()
    };
    ceph.say(says("first"));
    let (told, task) = StorageFigures {
        me: me.clone(),
        store: Arc::clone(&store) as Arc<dyn Store>,
        mirror: mirror.clone(),
        machine: Arc::new(FakeMachine::default()),
        ceph: Arc::clone(&ceph) as Arc<dyn Ceph>,
        every: Duration::from_secs(5),
    }
    .follow();
    assert_eq!(told.words(), "Ceph: nothing is known");
    let mut background = JoinSet::new();
    background.spawn(task);
    let status = async || {
        sleep(Duration::from_secs(6)).await;
        let value = store.get(schema::ceph::STATUS).await.unwrap().unwrap();
        String::from_utf8(value.data).unwrap()
    };
    assert_eq!(status().await, "", "another node is primary, or none");
    assert_eq!(told.words(), "Ceph: HEALTH_OK; 3 OSDs: 3 up, 3 in; 12 of 300 GiB used");

    store.commit(primary::take(&me, false)).await.unwrap();
    let osd = Osd { id: OsdId(0), node: "a".into(), device: "/dev/sdb".into(), stats: None };
    store.commit(schema::ceph::create_osd(&osd)).await.unwrap();
    ceph.say_osds([(OsdId(0), OsdStats { up: 1, wr_ops: "12".into(), ..OsdStats::default() })].into());
    assert_eq!(status().await, "first");
    let stats = store.get("/ceph/osds/0/stats").await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&stats.data).contains(r#""wr_ops":"12""#));
    ceph.fail(Some(CephError::Unavailable("no monitor".to_owned())));
    assert_eq!(status().await, "first");
    sleep(Duration::from_secs(30)).await;
    let words = told.words();
    assert!(words.contains(" s ago; since then: Ceph cannot be reached: no monitor"), "{words}");
    let refreshed = store.get(schema::ceph::REFRESHED).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&refreshed.data).contains("no monitor"));
    ceph.fail(None);
    ceph.say(says("second"));
    assert_eq!(status().await, "second");
    assert!(!told.words().contains("since then"));
}
