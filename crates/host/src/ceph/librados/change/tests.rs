//! What librbd does with a VM that stops executing after it was asked whether it does, and what becomes of a change whose process does.

mod frozen;

use async_trait::async_trait;

pub(super) use self::frozen::freeze_at;
use super::*;
use crate::{
    ceph::{Access, CephAdmin as _},
    testing::ceph::{CephCluster, POOL},
    warrant::{Void, Warrant},
};

struct Always;

#[async_trait]
impl Warrant for Always {
    async fn holds(&self) -> Result<(), Void> {
        Ok(())
    }
}

#[tokio::test]
async fn a_change_that_waits_for_a_vm_that_hangs_is_cut_off_and_the_vm_goes_on() {
    let cluster = CephCluster::start().unwrap();
    let ceph = Librados::new(Access { configuration: cluster.configuration(), ..Access::default() });
    let image: ImageName = format!("{POOL}/one").parse().unwrap();
    cluster.create("one").unwrap();
    let mut writer = cluster.open(&image).unwrap();
    writer.begin(1).unwrap();
    assert!(writer.end().unwrap());
    writer.freeze().unwrap();
    let unasked = |cluster: &Cluster, image: &ImageName| {
        let (pool, volume) = parts(image);
        Ok(cluster.open_to_change(pool, volume)?.create_snapshot("a")?)
    };
    let slot = ceph.changes.take::<()>(Instant::now()).await.ok().unwrap();
    let (link, own) = ceph.connect_to_change(Instant::now() + CHANGE, "a snapshot").await.unwrap();
    let progress = Progress::default();
    let work = Guarded { image: image.clone(), job: Box::new(unasked), link, own, slot, progress };
    let made = ceph.make_guarded(work, "a snapshot").await;
    let holder = ceph.users(&image).await.unwrap().unwrap().locks[0].address.to_string();
    assert!(matches!(&made, Err(CephError::Late { doing }) if doing.contains(&holder)), "{made:?}");
    assert_eq!(ceph.blocklisted().await, Ok([].into()), "neither the VM nor we any more");
    writer.thaw().unwrap();
    writer.begin(2).unwrap();
    assert!(writer.end().unwrap());
    let change = CephChange::CreateSnapshot { image, snapshot: "b".parse().unwrap() };
    let id = ceph.image(change.of_image().unwrap()).await.unwrap().unwrap().id;
    ceph.change(&change, OnlyIf { warrant: &Always, image: id.as_deref() }, &Progress::default())
        .await
        .unwrap();
}
