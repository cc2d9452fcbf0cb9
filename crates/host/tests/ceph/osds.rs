//! Numbers of OSDs, as they are taken and given back. Daemons behind them are the lab's matter.

use std::time::{Duration, Instant};

use pvc_core::model::{
    ceph::{OsdId, TaskMark},
    osd::OsdUuid,
    storage::CephChange,
};
use pvc_host::ceph::{CephAdmin, fake::FakeCeph};

use tokio::time::sleep;

use crate::{
    admin::make,
    rig::{Fake, Real, Rig},
};

async fn keeps_the_contract(rig: &impl Rig) {
    let (ceph, uuid): (&dyn CephAdmin, _) =
        (rig.admin(), OsdUuid::of_task(&TaskMark { id: 7, asked_unix_s: 1_796_000_000 }));
    let before = ceph.osd_map().await.unwrap().all;
    // Asked a second time, it is the same one.
    for _ in 0..2 {
        ceph.take_osd_number(&uuid).await.unwrap();
    }
    let mut all = ceph.osd_map().await.unwrap().all;
    all.retain(|_, osd| osd.uuid == uuid);
    let (id, taken) = all.pop_first().unwrap();
    assert!(all.is_empty() && !before.contains_key(&id));
    assert!(!taken.is_up && !taken.was_up && !taken.is_destroyed && taken.host.is_none());

    make(ceph, CephChange::DestroyOsd { osd: id }).await;
    let left = ceph.osd_map().await.unwrap().all.remove(&id).unwrap();
    assert!(left.is_destroyed && left.uuid == OsdUuid::none());
    // A cluster that has just started draws no conclusions until its placement groups are clean.
    let began = Instant::now();
    while let Some(why) = ceph.unsafe_to_destroy(id).await.unwrap() {
        assert!(began.elapsed() < Duration::from_mins(1), "{why}");
        sleep(Duration::from_millis(200)).await;
    }
    make(ceph, CephChange::PurgeOsd { osd: id, was_up: false }).await;
    assert!(ceph.osd_map().await.unwrap().all.keys().eq(before.keys()));
    assert!(ceph.osd_key().await.unwrap().contains("[client.bootstrap-osd]"));
}

#[tokio::test]
async fn the_fake_has_numbers_of_osds() {
    keeps_the_contract(&Fake(FakeCeph::new())).await;
}

#[tokio::test]
async fn a_real_cluster_has_numbers_of_osds() {
    let rig = Real::start();
    keeps_the_contract(&rig).await;
    // One that has data, and serves.
    let (ceph, used) = (rig.admin(), OsdId(0));
    let osds = ceph.osd_map().await.unwrap();
    assert_eq!(osds.most_copies.map(|(copies, _)| copies), Some(3));
    assert!(osds.all.values().all(|osd| osd.is_up && osd.is_in && osd.host.is_some() && osd.kib > 0));
    assert!(ceph.unsafe_to_destroy(used).await.unwrap().is_some());
    // Also if who asks takes it for one that Ceph has never heard of.
    for was_up in [false, true] {
        crate::admin::refused(ceph, CephChange::PurgeOsd { osd: used, was_up }).await;
    }
    crate::admin::refused(ceph, CephChange::DestroyOsd { osd: used }).await;
    assert_eq!(ceph.osd_map().await.unwrap().all.len(), 3);
}
