//! Copies of snapshots, and volumes that are rolled back to one, by the fake and by the real Ceph.

use std::time::{Duration, Instant};

use pvc_core::model::{ceph::ImageName, storage::CephChange, storage_command::PgCount};
use pvc_host::{
    ceph::{CephError, OnlyIf, Progress, fake::FakeCeph},
    testing::ceph::POOL,
};
use tokio::time::sleep;

use crate::{
    admin::{MIB, create, drop_snapshot, make, refused, remove, snapshot, take, there},
    rig::{Fake, Holds, Real, Rig, Writer, image},
};

fn copy(from: &ImageName, of: &str, to: &ImageName) -> CephChange {
    CephChange::CopyImage {
        image: from.clone(),
        snapshot: snapshot(of),
        to: to.volume.clone(),
        mark: "7-1".to_owned(),
    }
}

fn roll_back(image: &ImageName, to: &str) -> CephChange {
    let marks = ["7-1 begun", "7-1 done"].map(str::to_owned);
    CephChange::RollBack { image: image.clone(), snapshot: snapshot(to), marks }
}

async fn copies(rig: &impl Rig) {
    let (ceph, from, to) = (rig.admin(), image("from"), image("to"));
    make(ceph, create(&from, 9 * MIB)).await;
    let mut writer = rig.open(&from);
    assert!(writer.write(1));
    make(ceph, take(&from, "a")).await;
    assert!(writer.write(2));
    make(ceph, copy(&from, "a", &to)).await;
    assert!(writer.write(3), "who writes to the other one is asked nothing");
    assert_eq!((rig.contents(&from), rig.contents(&to)), (3, 1));
    let made = there(ceph, &to).await;
    assert_eq!((made.mark.as_deref(), made.stats.size, made.snapshots.len()), (Some("7-1"), 9 * MIB, 0));
    assert_eq!(made.stats.features, ["layering", "exclusive-lock"]);
    assert_eq!(there(ceph, &from).await.mark, None);
    refused(ceph, copy(&from, "a", &to)).await;
    refused(ceph, copy(&from, "b", &image("other"))).await;
    refused(ceph, copy(&image("nothing"), "a", &image("other"))).await;
    let changed = copy(&from, "a", &image("other"));
    let other = OnlyIf { warrant: &Holds::always(), image: made.id.as_deref() };
    let outcome = ceph.change(&changed, other, &Progress::default()).await;
    assert!(matches!(outcome, Err(CephError::Refused { why, .. }) if why.contains("another image")));
    assert_eq!(ceph.image(&image("other")).await, Ok(None));

    // Neither needs the other.
    writer.close();
    make(ceph, drop_snapshot(&from, "a")).await;
    make(ceph, remove(&from)).await;
    assert_eq!(rig.contents(&to), 1);
    make(ceph, remove(&to)).await;
    assert_eq!(rig.ceph().blocklisted().await, Ok([].into()));
}

async fn rollbacks(rig: &impl Rig) {
    let (ceph, image) = (rig.admin(), image("back"));
    make(ceph, create(&image, 4 * MIB)).await;
    let mut writer = rig.open(&image);
    assert!(writer.write(1));
    make(ceph, take(&image, "a")).await;
    let size = pvc_core::model::storage_command::Bytes(8 * MIB);
    make(ceph, CephChange::ResizeImage { image: image.clone(), size, shrinks: false }).await;
    assert!(writer.write(2));
    let why = refused(ceph, roll_back(&image, "a")).await;
    assert!(why.contains("has it open") || why.contains("have it open"), "{why}");
    assert!(writer.write(3));
    writer.close();
    refused(ceph, roll_back(&image, "b")).await;
    assert_eq!(there(ceph, &image).await.mark, None, "nothing was begun");
    make(ceph, roll_back(&image, "a")).await;
    let back = there(ceph, &image).await;
    assert_eq!((back.mark.as_deref(), back.stats.size), (Some("7-1 done"), 4 * MIB));
    assert_eq!(back.snapshots, ["a"]);
    assert_eq!(rig.contents(&image), 1);
    let mut writer = rig.open(&image);
    assert!(writer.write(4));
    assert_eq!(rig.ceph().blocklisted().await, Ok([].into()));
}

async fn keeps_the_contract(rig: &impl Rig) {
    let pool = POOL.parse().unwrap();
    make(rig.admin(), CephChange::CreatePool { pool, pgs: PgCount(8) }).await;
    copies(rig).await;
    rollbacks(rig).await;
}

#[tokio::test]
async fn the_fake_copies_and_rolls_back() {
    keeps_the_contract(&Fake(FakeCeph::new())).await;
}

#[tokio::test]
async fn a_real_cluster_copies_and_rolls_back() {
    keeps_the_contract(&Real::start()).await;
}

/// The figures are for people.
#[tokio::test]
async fn what_takes_long_says_how_far_it_is() {
    let rig = Real::start();
    let (ceph, from, to) = (rig.admin(), image("large"), image("copy"));
    make(ceph, create(&from, 16 << 30)).await;
    rig.cluster
        .rbd(&["bench", "--io-type", "write", "--io-size", "4M", "--io-total", "64M", &from.to_string()])
        .unwrap();
    make(ceph, take(&from, "a")).await;
    let watched = async |change: CephChange| {
        let (progress, began) = (Progress::default(), Instant::now());
        let of = ceph.image(change.of_image().unwrap()).await.unwrap().unwrap().id;
        let only_if = OnlyIf { warrant: &Holds::always(), image: of.as_deref() };
        let mut seen = Vec::new();
        let look = async {
            loop {
                if let Some(percent) = progress.percent().filter(|percent| seen.last() != Some(percent)) {
                    seen.push(percent);
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        let outcome = tokio::select! {
            outcome = ceph.change(&change, only_if, &progress) => outcome,
            () = look => unreachable!(),
        };
        println!("{change}: {:.3?}, told {} times: {outcome:?}", began.elapsed(), seen.len());
        assert!(seen.is_sorted() && seen.len() > 1, "{seen:?}");
        outcome
    };
    assert_eq!(watched(copy(&from, "a", &to)).await, Ok(()));
    assert_eq!(watched(roll_back(&from, "a")).await, Ok(()));
    assert_eq!(watched(remove(&to)).await, Ok(()));
}

#[tokio::test]
async fn a_copy_that_is_called_off_ends_and_what_it_has_left_is_removed() {
    let rig = Real::start();
    let (ceph, from, to) = (rig.admin(), image("huge"), image("copy"));
    make(ceph, create(&from, 1 << 40)).await;
    make(ceph, take(&from, "a")).await;
    let (wanted, progress, began) = (copy(&from, "a", &to), Progress::default(), Instant::now());
    progress.call_off("the cluster is full".to_owned());
    let id = there(ceph, &from).await.id;
    let only_if = OnlyIf { warrant: &Holds::always(), image: id.as_deref() };
    let outcome = ceph.change(&wanted, only_if, &progress).await;
    println!("it ended after {:.3?}, at {:?} %", began.elapsed(), progress.percent());
    let doing = wanted.to_string();
    assert_eq!(outcome, Err(CephError::Refused { doing, why: "the cluster is full".to_owned() }));
    assert!(progress.percent().is_some_and(|percent| percent < 100));
    assert_eq!(there(ceph, &to).await.mark, None, "it is not whole");
    assert_eq!(rig.ceph().blocklisted().await, Ok([].into()));
    let half = Progress::default();
    let id = there(ceph, &to).await.id;
    let only_if = OnlyIf { warrant: &Holds::always(), image: id.as_deref() };
    let removal = remove(&to);
    let begun = async {
        while half.percent().is_none() {
            sleep(Duration::from_millis(10)).await;
        }
        // A whole terabyte takes minutes, and the thread that removes it would outlive the test.
        half.call_off("that will do".to_owned());
    };
    let (outcome, ()) = tokio::join!(ceph.change(&removal, only_if, &half), begun);
    assert_eq!(
        outcome,
        Err(CephError::Refused { doing: removal.to_string(), why: "that will do".to_owned() })
    );
}
