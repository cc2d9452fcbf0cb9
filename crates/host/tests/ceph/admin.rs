//! What is made and unmade, by the fake and by the real Ceph.

use std::{
    collections::BTreeSet,
    sync::mpsc::{TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

use pvc_core::model::{
    ceph::{ImageName, OsdId, PoolName, SnapshotName, VolumeStats},
    storage::{CephChange, Hidden, ObservedImage},
    storage_command::{Bytes, PgCount},
};
use pvc_host::{
    ceph::{CephAdmin, CephError, OnlyIf, Progress, fake::FakeCeph},
    testing::ceph::POOL,
    warrant::Void,
};
use tokio::time::sleep;

use crate::rig::{Fake, Holds, Real, Rig, Writer};

pub(crate) const MIB: u64 = 1 << 20;

fn image(name: &str) -> ImageName {
    format!("made/{name}").parse().unwrap()
}

pub(crate) fn snapshot(name: &str) -> SnapshotName {
    name.parse().unwrap()
}

pub(crate) fn create(image: &ImageName, size: u64) -> CephChange {
    CephChange::CreateImage { image: image.clone(), size: Bytes(size) }
}

fn resize(image: &ImageName, size: u64) -> CephChange {
    CephChange::ResizeImage { image: image.clone(), size: Bytes(size), shrinks: false }
}

pub(crate) fn remove(image: &ImageName) -> CephChange {
    CephChange::RemoveImage { image: image.clone() }
}

pub(crate) fn take(image: &ImageName, name: &str) -> CephChange {
    CephChange::CreateSnapshot { image: image.clone(), snapshot: snapshot(name) }
}

pub(crate) fn drop_snapshot(image: &ImageName, name: &str) -> CephChange {
    CephChange::RemoveSnapshot { image: image.clone(), snapshot: snapshot(name) }
}

/// Has a change made of the image that has the name now.
async fn change(ceph: &dyn CephAdmin, change: &CephChange) -> Result<(), CephError> {
    let of = match change.of_image() {
        Some(image) => ceph.image(image).await?.and_then(|image| image.id),
        None => None,
    };
    ceph.change(change, OnlyIf { warrant: &Holds::always(), image: of.as_deref() }, &Progress::default())
        .await
}

pub(crate) async fn make(ceph: &dyn CephAdmin, wanted: CephChange) {
    change(ceph, &wanted).await.unwrap_or_else(|error| panic!("{wanted}: {error}"));
}

/// In what words.
pub(crate) async fn refused(ceph: &dyn CephAdmin, wanted: CephChange) -> String {
    words(&wanted, change(ceph, &wanted).await)
}

fn words(wanted: &CephChange, outcome: Result<(), CephError>) -> String {
    match outcome {
        Err(CephError::Refused { doing, why }) => {
            assert_eq!(doing, wanted.to_string());
            why
        }
        other => panic!("{wanted}: {other:?}"),
    }
}

pub(crate) async fn there(ceph: &dyn CephAdmin, image: &ImageName) -> ObservedImage {
    ceph.image(image).await.unwrap().unwrap()
}

async fn pools(ceph: &dyn CephAdmin) {
    let pool: PoolName = "made".parse().unwrap();
    assert_eq!(ceph.pool(&pool).await, Ok(None));
    assert_eq!(ceph.images(&pool).await, Ok(Vec::new()));
    let missing = CephChange::KeepCopies { pool: pool.clone(), copies: 2, min_copies: 1 };
    refused(ceph, missing.clone()).await;
    refused(ceph, CephChange::MarkForImages { pool: pool.clone() }).await;
    make(ceph, CephChange::RemovePool { pool: pool.clone() }).await;

    let new = CephChange::CreatePool { pool: pool.clone(), pgs: PgCount(8) };
    for _ in 0..2 {
        make(ceph, new.clone()).await;
    }
    let fresh = ceph.pool(&pool).await.unwrap().unwrap();
    assert!(!fresh.is_for_images);
    for (copies, min_copies) in [(3, 2), (2, 1), (3, 3), (2, 2), (2, 1)] {
        make(ceph, CephChange::KeepCopies { pool: pool.clone(), copies, min_copies }).await;
        let observed = ceph.pool(&pool).await.unwrap().unwrap();
        assert_eq!((observed.pgs, observed.copies, observed.min_copies), (8, copies, min_copies));
    }
    for _ in 0..2 {
        make(ceph, CephChange::MarkForImages { pool: pool.clone() }).await;
    }
    assert!(ceph.pool(&pool).await.unwrap().unwrap().is_for_images);
    let other: PoolName = "made-too".parse().unwrap();
    let rename =
        |from: &PoolName, to: &PoolName| CephChange::RenamePool { pool: from.clone(), to: to.clone() };
    refused(ceph, rename(&"none".parse().unwrap(), &"none-too".parse().unwrap())).await;
    // It may have been asked for before.
    for _ in 0..2 {
        make(ceph, rename(&pool, &other)).await;
        assert_eq!(ceph.pool(&pool).await, Ok(None));
        assert!(ceph.pool(&other).await.unwrap().unwrap().is_for_images);
    }
    make(ceph, new.clone()).await;
    refused(ceph, rename(&pool, &other)).await;
    make(ceph, CephChange::RemovePool { pool: pool.clone() }).await;
    make(ceph, rename(&other, &pool)).await;
}

async fn images(ceph: &dyn CephAdmin) {
    let (pool, one, two) = ("made".parse().unwrap(), image("one"), image("two"));
    assert_eq!(ceph.image(&one).await, Ok(None));
    for change in [resize(&one, MIB), remove(&one), take(&one, "a"), drop_snapshot(&one, "a")] {
        refused(ceph, change).await;
    }
    refused(ceph, create(&"nothing/there".parse().unwrap(), MIB)).await;

    make(ceph, create(&one, 9 * MIB)).await;
    refused(ceph, create(&one, 9 * MIB)).await;
    let stats = VolumeStats {
        size: 9 * MIB,
        objects: 3,
        order: 22,
        format: 2,
        features: vec!["layering".to_owned(), "exclusive-lock".to_owned()],
    };
    let fresh = there(ceph, &one).await;
    assert_eq!((fresh.stats, fresh.snapshots), (stats, Vec::new()));
    assert_eq!(ceph.images(&pool).await, Ok(vec!["one".to_owned()]));

    for (size, objects) in [(40 * MIB, 10), (40 * MIB, 10), (4 * MIB, 1)] {
        make(ceph, resize(&one, size)).await;
        let stats = there(ceph, &one).await.stats;
        assert_eq!((stats.size, stats.objects), (size, objects));
    }

    make(ceph, create(&two, MIB)).await;
    let rename = |to: &str| CephChange::RenameImage { image: one.clone(), to: to.parse().unwrap() };
    refused(ceph, rename("two")).await;
    make(ceph, rename("three")).await;
    refused(ceph, rename("four")).await;
    assert_eq!(ceph.image(&one).await, Ok(None));
    assert_eq!(there(ceph, &image("three")).await.stats.size, 4 * MIB);
    let mut names = ceph.images(&pool).await.unwrap();
    names.sort_unstable();
    assert_eq!(names, ["three", "two"]);

    for name in ["three", "two"] {
        make(ceph, remove(&image(name))).await;
    }
    assert_eq!(ceph.images(&pool).await, Ok(Vec::new()));
}

/// A primary that stalls between its look and its change: another image has the name by then, or it is nobody's to change.
async fn what_is_another_by_now_is_left_alone(ceph: &dyn CephAdmin) {
    let image = image("again");
    make(ceph, create(&image, MIB)).await;
    let seen = there(ceph, &image).await.id;
    assert!(seen.is_some());
    make(ceph, remove(&image)).await;
    make(ceph, create(&image, MIB)).await;
    make(ceph, take(&image, "a")).await;
    let new = there(ceph, &image).await;
    assert_ne!(new.id, seen);
    let changes = [
        remove(&image),
        resize(&image, 2 * MIB),
        CephChange::RenameImage { image: image.clone(), to: "other".parse().unwrap() },
        take(&image, "b"),
        CephChange::RenameSnapshot { image: image.clone(), snapshot: snapshot("a"), to: snapshot("b") },
        drop_snapshot(&image, "a"),
    ];
    for change in &changes {
        for image in [seen.as_deref(), None] {
            let outcome =
                ceph.change(change, OnlyIf { warrant: &Holds::always(), image }, &Progress::default()).await;
            assert!(words(change, outcome).contains("another image has that name"));
        }
        let only_if = OnlyIf { warrant: &Holds::times(0), image: new.id.as_deref() };
        let outcome = ceph.change(change, only_if, &Progress::default()).await;
        assert_eq!(outcome, Err(CephError::Void(Void::Overtaken("the fence".to_owned()))), "{change}");
    }
    let pool = CephChange::RemovePool { pool: image.pool.clone() };
    let outcome =
        ceph.change(&pool, OnlyIf { warrant: &Holds::times(0), image: None }, &Progress::default()).await;
    assert!(matches!(outcome, Err(CephError::Void(_))));
    assert_eq!(there(ceph, &image).await, new);
    make(ceph, drop_snapshot(&image, "a")).await;
    make(ceph, remove(&image)).await;
}

async fn snapshots(ceph: &dyn CephAdmin) {
    let image = image("kept");
    make(ceph, create(&image, MIB)).await;
    let rename = |from: &str, to: &str| CephChange::RenameSnapshot {
        image: image.clone(),
        snapshot: snapshot(from),
        to: snapshot(to),
    };
    for name in ["a", "b"] {
        make(ceph, take(&image, name)).await;
    }
    refused(ceph, take(&image, "a")).await;
    refused(ceph, rename("a", "b")).await;
    refused(ceph, rename("c", "d")).await;
    make(ceph, rename("a", "c")).await;
    let mut names = there(ceph, &image).await.snapshots;
    names.sort_unstable();
    assert_eq!(names, ["b", "c"]);
    refused(ceph, remove(&image)).await;
    refused(ceph, drop_snapshot(&image, "a")).await;
    for name in ["b", "c"] {
        make(ceph, drop_snapshot(&image, name)).await;
    }
    // More than the first look has room for.
    for number in 0..20 {
        make(ceph, take(&image, &format!("s{number}"))).await;
    }
    assert_eq!(there(ceph, &image).await.snapshots.len(), 20);
    for number in 0..20 {
        make(ceph, drop_snapshot(&image, &format!("s{number}"))).await;
    }
    make(ceph, remove(&image)).await;
}

/// A running VM does it itself, goes on, and nobody is shut out.
async fn with_a_writer(rig: &impl Rig) {
    let (ceph, image) = (rig.admin(), image("written"));
    make(ceph, create(&image, 4 * MIB)).await;
    let mut writer = rig.open(&image);
    assert!(writer.write(1));
    make(ceph, take(&image, "a")).await;
    make(ceph, resize(&image, 8 * MIB)).await;
    assert!(writer.write(2));
    refused(ceph, resize(&image, 4 * MIB)).await;
    refused(ceph, remove(&image)).await;
    make(
        ceph,
        CephChange::RenameSnapshot { image: image.clone(), snapshot: snapshot("a"), to: snapshot("b") },
    )
    .await;
    make(ceph, drop_snapshot(&image, "b")).await;
    assert!(writer.write(3));
    assert_eq!(rig.contents(&image), 3);
    assert_eq!(there(ceph, &image).await.stats.size, 8 * MIB);
    assert_eq!(rig.ceph().blocklisted().await, Ok([].into()));
    let users = rig.ceph().users(&image).await.unwrap().unwrap();
    assert_eq!(users.addresses().collect::<BTreeSet<_>>().len(), 1, "{users:?}");

    // One that hangs is left alone.
    writer.freeze_before_writing(4);
    for change in [take(&image, "c"), resize(&image, 16 * MIB), remove(&image)] {
        refused(ceph, change).await;
    }
    assert_eq!(rig.ceph().blocklisted().await, Ok([].into()));
    assert!(writer.thaw(4), "it goes on where it stopped");
    assert_eq!(rig.contents(&image), 4);
    make(ceph, take(&image, "c")).await;
}

async fn osds(ceph: &dyn CephAdmin) {
    let of = |id: u32, is_in| CephChange::UseOsd { osd: OsdId(id), is_in };
    let before = ceph.osds().await.unwrap();
    assert_eq!(before.is_in, [(OsdId(0), true), (OsdId(1), true), (OsdId(2), true)].into());
    for is_in in [false, false, true, true] {
        make(ceph, of(1, is_in)).await;
        assert_eq!(ceph.osds().await.unwrap().is_in[&OsdId(1)], is_in);
    }
    make(ceph, of(9, false)).await;
    for name in ["noout", "nodeep-scrub", "pause"] {
        for is_set in [true, true, false, false] {
            make(ceph, CephChange::Flag { flag: name.parse().unwrap(), is_set }).await;
            assert_eq!(ceph.osds().await.unwrap().flags.contains(name), is_set, "{name}");
        }
    }
}

async fn keeps_the_contract(rig: &impl Rig) {
    pools(rig.admin()).await;
    images(rig.admin()).await;
    what_is_another_by_now_is_left_alone(rig.admin()).await;
    snapshots(rig.admin()).await;
    with_a_writer(rig).await;
    osds(rig.admin()).await;
    let pool: PoolName = "made".parse().unwrap();
    make(rig.admin(), CephChange::RemovePool { pool: pool.clone() }).await;
    assert_eq!(rig.admin().pool(&pool).await, Ok(None));
}

#[tokio::test]
async fn the_fake_makes_and_unmakes() {
    let rig = Fake(FakeCeph::new());
    rig.0.add_osds(3);
    keeps_the_contract(&rig).await;
}

#[tokio::test]
async fn a_real_cluster_makes_and_unmakes() {
    keeps_the_contract(&Real::start()).await;
}

#[tokio::test]
async fn what_a_pool_hides_is_seen() {
    let rig = Real::start();
    let pool: PoolName = POOL.parse().unwrap();
    let hidden = async || rig.ceph.hidden(&pool).await.unwrap();
    assert_eq!(hidden().await, Hidden::default());
    assert_eq!(rig.ceph.hidden(&"nothing".parse().unwrap()).await, Ok(Hidden::default()));
    for name in ["one", "two"] {
        rig.cluster.rbd(&["namespace", "create", &format!("{POOL}/{name}")]).unwrap();
    }
    assert_eq!(hidden().await, Hidden { namespaces: 2, trash: 0 });
    // More than the first look has room for.
    for number in 0..70 {
        let image = format!("{POOL}/image{number}");
        rig.cluster.rbd(&["create", "--size", "1", &image]).unwrap();
        rig.cluster.rbd(&["trash", "mv", &image]).unwrap();
    }
    assert_eq!(hidden().await, Hidden { namespaces: 2, trash: 70 });
    assert_eq!(rig.ceph.images(&pool).await, Ok(Vec::new()));
}

/// The figures are for people.
#[tokio::test]
async fn a_vm_writes_on_while_snapshots_are_taken_and_its_disk_grows() {
    let rig = Real::start();
    let (ceph, image) = (rig.admin(), crate::rig::image("busy"));
    make(ceph, create(&image, 4 * MIB)).await;
    let mut writer = rig.open(&image);
    let (stop, stopped) = channel::<()>();
    let writes = thread::spawn(move || {
        let (mut written, mut longest) = (0_u32, Duration::ZERO);
        while stopped.try_recv() != Err(TryRecvError::Disconnected) {
            let began = Instant::now();
            assert!(writer.write(1));
            (written, longest) = (written + 1, longest.max(began.elapsed()));
        }
        (written, longest)
    });
    let began = Instant::now();
    for round in 1..=5 {
        make(ceph, take(&image, &format!("s{round}"))).await;
        make(ceph, resize(&image, (4 + round) * MIB)).await;
    }
    let took = began.elapsed() / 10;
    drop(stop);
    let (written, longest) = writes.join().unwrap();
    println!("{written} writes, the longest {longest:.3?}, while each of ten changes took {took:.3?}");
    let observed = there(ceph, &image).await;
    assert_eq!((observed.stats.size, observed.snapshots.len()), (9 * MIB, 5));
    assert_eq!(rig.ceph().blocklisted().await, Ok([].into()));
}

/// Half a minute is what OSDs give a client that is not heard any more.
#[tokio::test]
async fn a_vm_that_is_silent_for_long_keeps_its_disk_and_what_a_dead_one_left_is_removed() {
    let rig = Real::start();
    let (ceph, silent, left) = (rig.admin(), crate::rig::image("silent"), crate::rig::image("left"));
    rig.create(&silent);
    rig.create(&left);
    let [mut hangs, mut dies] = [&silent, &left].map(|image| rig.open(image));
    assert!(hangs.write(1) && dies.write(1));
    hangs.freeze_before_writing(2);
    drop(dies);
    assert!(refused(ceph, remove(&left)).await.contains("has it open"));
    for image in [&silent, &left] {
        while !rig.ceph().users(image).await.unwrap().unwrap().watchers.is_empty() {
            sleep(Duration::from_millis(100)).await;
        }
    }
    assert!(refused(ceph, take(&silent, "a")).await.contains("holds its lock"));
    assert!(refused(ceph, resize(&silent, 8 * MIB)).await.contains("holds its lock"));
    assert_eq!(rig.ceph().blocklisted().await, Ok([].into()));
    assert!(Writer::thaw(&mut hangs, 2), "it goes on where it stopped");
    make(ceph, take(&silent, "a")).await;

    make(ceph, remove(&left)).await;
    assert_eq!(ceph.image(&left).await, Ok(None));
    assert_eq!(rig.ceph().blocklisted().await.unwrap().len(), 1, "the dead one");
    assert!(hangs.write(3));
}

#[tokio::test]
async fn a_refusal_is_in_the_words_of_ceph() {
    let rig = Real::start();
    rig.cluster.ceph(&["osd", "pool", "set", POOL, "nodelete", "true"]).unwrap();
    let why = refused(rig.admin(), CephChange::RemovePool { pool: POOL.parse().unwrap() }).await;
    assert!(why.contains("you must unset nodelete flag"), "{why}");
}

/// A daemon that was killed in the middle: its client has the image open until the OSD misses it, and the lock for ever.
#[tokio::test]
async fn what_a_change_has_left_that_died_hinders_no_other() {
    let rig = Real::start();
    let (ceph, image) = (rig.admin(), crate::rig::image("one"));
    make(ceph, create(&image, 4 * MIB)).await;
    let objects = rig.cluster.rados(&["-p", POOL, "ls"]).unwrap();
    let header = objects.lines().find(|object| object.starts_with("rbd_header.")).unwrap();
    let mut died = Vec::new();
    for change in [take(&image, "a"), resize(&image, MIB), drop_snapshot(&image, "a"), remove(&image)] {
        let mut changer = rig.open(&image);
        assert!(changer.write(1));
        let address = rig.ceph().users(&image).await.unwrap().unwrap().locks[0].address;
        changer.freeze_before_writing(2);
        let words = ["-p", POOL, "setxattr", header, "pvc.changer", &address.to_string()];
        rig.cluster.rados(&words).unwrap();
        died.push((address, changer));
        make(ceph, change).await;
    }
    assert_eq!(ceph.image(&image).await, Ok(None));
    let shut_out = rig.ceph().blocklisted().await.unwrap();
    assert_eq!(shut_out.len(), died.len(), "{shut_out:?}");
    for (address, mut changer) in died {
        assert!(shut_out.contains_key(&address));
        assert!(!Writer::thaw(&mut changer, 2));
    }
}

/// Its removal takes longer than a single operation may. The figures are for people.
#[tokio::test]
async fn a_large_image_is_removed_and_one_whose_removal_was_broken_off_too() {
    let rig = Real::start();
    let (ceph, image) = (rig.admin(), crate::rig::image("large"));
    let timed = async |change: CephChange| {
        let began = Instant::now();
        make(ceph, change.clone()).await;
        println!("{change}: {:.3?}", began.elapsed());
    };
    timed(create(&image, 64 << 30)).await;
    timed(take(&image, "a")).await;
    timed(drop_snapshot(&image, "a")).await;
    timed(resize(&image, 128 << 30)).await;
    let removed = async {
        timed(remove(&image)).await;
    };
    tokio::join!(removed, async { rig.ceph().blocklisted().await.unwrap() });
    assert_eq!(ceph.image(&image).await, Ok(None));

    timed(create(&image, MIB)).await;
    let objects = rig.cluster.rados(&["-p", POOL, "ls"]).unwrap();
    let header = objects.lines().find(|object| object.starts_with("rbd_header.")).unwrap();
    rig.cluster.rados(&["-p", POOL, "rm", header]).unwrap();
    assert_eq!(ceph.image(&image).await, Ok(Some(ObservedImage::default())), "it is in the list yet");
    timed(remove(&image)).await;
    assert_eq!(ceph.image(&image).await, Ok(None));
}
