//! What every Ceph must do, whoever it is.

use std::time::{Duration, SystemTime};

use pvc_core::model::ceph::Users;
use pvc_host::ceph::{BLOCKLIST_FOR, fake::FakeCeph};

use crate::rig::{Fake, Real, Rig, Writer, image};

/// Far longer than Ceph's own default of an hour, which whatever breaks a lock would otherwise leave.
const YEARS: Duration = Duration::from_hours(24 * 365 * 9);

async fn tells_who_uses_an_image(rig: &impl Rig) {
    let (there, missing) = (image("used"), image("missing"));
    assert_eq!(rig.ceph().users(&missing).await, Ok(None), "no such image");
    let no_pool = "nothing/there".parse().unwrap();
    assert_eq!(rig.ceph().users(&no_pool).await, Ok(None), "no such pool");
    rig.create(&there);
    assert_eq!(rig.ceph().users(&there).await, Ok(Some(Users::default())), "who looks is no user");
    let mut writer = rig.open(&there);
    assert!(writer.write(7));
    let users = rig.ceph().users(&there).await.unwrap().unwrap();
    let own = rig.ceph().own_address().await.unwrap();
    assert_ne!(users.watchers[0], own);
    assert_eq!(users.watchers[0].host.ip(), own.host.ip(), "both are on this host");
    assert!(rig.ceph().own_hosts().await.unwrap().contains(&own.host.ip()));
    assert_eq!(users.watchers.len(), 1, "{users:?}");
    assert_eq!(users.locks.len(), 1, "{users:?}");
    assert_eq!(users.watchers[0], users.locks[0].address, "who writes is who watches");
}

/// The order of a storage fence, and what it is for: nothing of the old writer lands after it, not even what it had begun.
async fn shuts_a_writer_out(rig: &impl Rig) {
    let image = image("fenced");
    rig.create(&image);
    let mut old = rig.open(&image);
    assert!(old.write(1));
    old.freeze_before_writing(2);
    let users = rig.ceph().users(&image).await.unwrap().unwrap();
    let client = users.watchers[0];
    rig.ceph().blocklist(&client).await.unwrap();
    rig.ceph().await_latest_map().await.unwrap();
    for lock in &users.locks {
        rig.ceph().break_lock(&image, lock).await.unwrap();
        rig.ceph().break_lock(&image, lock).await.expect("that it is not held any more is success");
    }
    assert_eq!(rig.ceph().users(&image).await, Ok(Some(Users::default())), "it lost its lock and its watch");
    let until = rig.ceph().blocklisted().await.unwrap()[&client];
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(until > (now + YEARS).as_secs(), "that the lock was broken has not shortened the entry: {until}");

    let mut new = rig.open(&image);
    assert!(new.write(3), "the new one writes");
    assert!(!old.thaw(2), "the old one is told that it is shut out");
    assert_eq!(rig.contents(&image), 3, "nothing of the old one has landed");
    assert!(!old.write(4));
    assert_eq!(rig.contents(&image), 3);
    assert!(new.write(5));
}

async fn an_entry_is_renewed_and_lifted(rig: &impl Rig) {
    let client = "192.0.2.1:0/4711".parse().unwrap();
    rig.ceph().lift(&client).await.expect("it is not there");
    for _ in 0..2 {
        rig.ceph().blocklist(&client).await.unwrap();
        assert!(rig.ceph().blocklisted().await.unwrap().contains_key(&client));
    }
    rig.ceph().lift(&client).await.unwrap();
    assert!(!rig.ceph().blocklisted().await.unwrap().contains_key(&client));
    assert!(BLOCKLIST_FOR > YEARS);
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let rig = Fake(FakeCeph::new());
    tells_who_uses_an_image(&rig).await;
    shuts_a_writer_out(&rig).await;
    an_entry_is_renewed_and_lifted(&rig).await;
}

/// One test, because a cluster takes seconds to make.
#[tokio::test]
async fn a_real_cluster_keeps_the_contract() {
    let rig = Real::start();
    tells_who_uses_an_image(&rig).await;
    shuts_a_writer_out(&rig).await;
    an_entry_is_renewed_and_lifted(&rig).await;
}
