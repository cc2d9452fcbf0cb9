//! The storage fence, on the fake and on the real Ceph: nothing of whom it shuts out lands, and nobody else is hurt.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pvc_core::{
    model::{NodeName, ceph::ImageName},
    plan::storage_fence::{Request, Unrecorded},
};
use pvc_host::{
    ceph::{Ceph, CephError, fake::FakeCeph},
    storage_fence::{CephFence, StorageFence as _, StorageFenceError},
    warrant::Void,
};

use crate::rig::{Fake, Holds, Real, Rig, Writer, image};

fn fence(ceph: Arc<dyn Ceph>) -> CephFence {
    CephFence::new(ceph, || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.unwrap_or(Duration::ZERO).as_secs()
    })
}

fn node() -> NodeName {
    "dead".parse().unwrap()
}

/// A writer that is recorded, one of another image, and one that nobody has recorded.
async fn fences(rig: &impl Rig) {
    let (mine, unknown, others) = (image("mine"), image("unknown"), image("others"));
    for image in [&mine, &unknown, &others] {
        rig.create(image);
    }
    let [mut old, mut lost, mut spared] = [&mine, &unknown, &others].map(|image| rig.open(image));
    assert!(old.write(1) && lost.write(1) && spared.write(1));
    let recorded = rig.ceph().users(&mine).await.unwrap().unwrap().watchers[0];
    old.freeze_before_writing(2);
    lost.freeze_before_writing(2);

    let request = Request {
        recorded: [recorded].into(),
        images: [(mine.clone(), Unrecorded::On(BTreeSet::new())), (unknown.clone(), Unrecorded::All)].into(),
        ..Request::default()
    };
    let fence = fence(rig.ceph_shared());
    fence.shut_out(&node(), &request, &Holds::always()).await.unwrap();
    fence.shut_out(&node(), &request, &Holds::always()).await.expect("again");

    for (image, old) in [(&mine, &mut old), (&unknown, &mut lost)] {
        let mut new = rig.open(image);
        assert!(new.write(3), "the new one writes, without waiting for the old one's lock");
        assert!(!old.thaw(2));
        assert!(!old.write(4));
        assert_eq!(rig.contents(image), 3, "nothing of the old one has landed");
    }
    assert!(spared.write(5), "nobody else is shut out");
}

#[tokio::test]
async fn a_fake_cluster_is_fenced() {
    fences(&Fake(FakeCeph::new())).await;
}

#[tokio::test]
async fn a_real_cluster_is_fenced() {
    fences(&Real::start()).await;
}

/// The VM runs elsewhere by then, and its client is one that nobody has recorded.
async fn overtaken(rig: &impl Rig) {
    let image = image("mine");
    rig.create(&image);
    let mut old = rig.open(&image);
    assert!(old.write(1));
    let request = Request { images: [(image.clone(), Unrecorded::All)].into(), ..Request::default() };
    let fence = fence(rig.ceph_shared());
    let shut_out = async |times| fence.shut_out(&node(), &request, &Holds::times(times)).await;
    let void = |outcome| matches!(outcome, Err(StorageFenceError::Void(Void::Overtaken(_))));
    assert!(void(shut_out(0).await));
    assert!(rig.ceph().blocklisted().await.unwrap().is_empty());
    assert!(old.write(2), "nobody is shut out without a warrant");

    // Between two looks another client comes, which is not one of those.
    assert!(void(shut_out(1).await), "it is asked for at each look");
    let mut new = rig.open(&image);
    assert!(void(shut_out(0).await));
    // Who was overtaken has not waited until the OSDs know it: this one learns it from the new client.
    rig.ceph().await_latest_map().await.unwrap();
    assert!(new.write(3));
    assert!(!old.write(4));
}

#[tokio::test]
async fn who_was_overtaken_shuts_nobody_out_of_a_fake_cluster() {
    overtaken(&Fake(FakeCeph::new())).await;
}

#[tokio::test]
async fn who_was_overtaken_shuts_nobody_out_of_a_real_cluster() {
    overtaken(&Real::start()).await;
}

/// As many as a busy node has. The figure is for people.
#[tokio::test]
async fn hundreds_of_clients_are_shut_out_together() {
    let rig = Real::start();
    let many = (1..=600).map(|nonce| format!("192.0.2.1:0/{nonce}").parse().unwrap());
    let request = Request { recorded: many.collect(), ..Request::default() };
    let began = std::time::Instant::now();
    fence(rig.ceph_shared()).shut_out(&node(), &request, &Holds::always()).await.unwrap();
    println!("600 clients were shut out in {:.2?}", began.elapsed());
    assert_eq!(rig.ceph().blocklisted().await.unwrap().len(), 600);
}

#[tokio::test]
async fn a_refused_blocklist_leaves_the_lock_alone() {
    let ceph = FakeCeph::new();
    let rig = Fake(Arc::clone(&ceph));
    let image = image("mine");
    rig.create(&image);
    assert!(rig.open(&image).write(1));
    let request = Request { images: [(image.clone(), Unrecorded::All)].into(), ..Request::default() };
    ceph.refuse_blocklist(true);
    let refused = fence(Arc::clone(&ceph) as Arc<dyn Ceph>)
        .shut_out(&node(), &request, &Holds::always())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
    assert_eq!(ceph.users(&image).await.unwrap().unwrap().locks.len(), 1);
    ceph.fail(Some(CephError::Unavailable("down".to_owned())));
    fence(Arc::clone(&ceph) as Arc<dyn Ceph>)
        .shut_out(&node(), &request, &Holds::always())
        .await
        .unwrap_err();
    ceph.fail(None);
    ceph.refuse_blocklist(false);
    fence(Arc::clone(&ceph) as Arc<dyn Ceph>).shut_out(&node(), &request, &Holds::always()).await.unwrap();
    assert_eq!(ceph.users(&image).await.unwrap().unwrap().locks.len(), 0);
}

/// Of a pool that hangs few images are asked for, and the others' are shut out in time.
async fn a_pool_hangs(ceph: Arc<dyn Ceph>, slow: &str, mine: ImageName, old: &mut impl Writer) {
    assert!(old.write(1));
    let theirs = (0..300).map(|number| format!("{slow}/{number}").parse::<ImageName>().unwrap());
    let all: BTreeSet<ImageName> = theirs.chain([mine.clone()]).collect();
    let images = all.iter().map(|image| (image.clone(), Unrecorded::All)).collect();
    let request = Request { images, ..Request::default() };
    let within = Duration::from_mins(1);
    let shut_out = async { fence(ceph).shut_out(&node(), &request, &Holds::always()).await };
    let unseen = tokio::time::timeout(within, shut_out).await.expect("within a fence's time").unwrap();
    assert_eq!(unseen.len(), 300);
    assert!(!unseen.contains_key(&mine));
    assert!(unseen.values().all(|error| matches!(error, CephError::Late { .. })), "{unseen:?}");
    assert!(!old.write(2));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_hangs_holds_up_no_other_of_a_fake_cluster() {
    let rig = Fake(FakeCeph::new());
    let mine = image("mine");
    rig.create(&mine);
    rig.0.hang(&"slow".parse().unwrap());
    let mut old = rig.open(&mine);
    a_pool_hangs(rig.ceph_shared(), "slow", mine, &mut old).await;
    assert_eq!(rig.0.asked("slow"), 4);
}

/// As one placement group that does not answer: its images are late, and the others of their pool are not.
#[tokio::test(start_paused = true)]
async fn an_image_that_hangs_holds_up_no_other_of_its_pool_and_a_few_do_for_one_attempt() {
    let ceph = FakeCeph::new();
    let rig = Fake(Arc::clone(&ceph));
    let names: Vec<ImageName> = (0..100).map(|number| image(&format!("{number:03}"))).collect();
    for image in &names {
        rig.create(image);
    }
    let images = names.iter().map(|image| (image.clone(), Unrecorded::All)).collect();
    let request = Request { images, ..Request::default() };
    let fence = fence(rig.ceph_shared());
    let unseen = async || {
        let (node, always) = (node(), Holds::always());
        let shut_out = tokio::time::timeout(Duration::from_mins(1), fence.shut_out(&node, &request, &always));
        shut_out.await.expect("within a fence's time").unwrap().into_keys().collect::<Vec<_>>()
    };

    ceph.hang_image(&names[0]);
    let last = ceph.open(&names[99], [10, 0, 0, 2].into());
    assert!(last.write(1));
    assert_eq!(unseen().await, names[..1]);
    assert!(!last.write(2));

    // They are the first that the next attempt asks for, and not of the one after it.
    for image in &names[1..5] {
        ceph.hang_image(image);
    }
    assert_eq!(unseen().await, names);
    assert_eq!(unseen().await, names[..5]);
}

#[tokio::test]
async fn a_pool_that_hangs_holds_up_no_other_of_a_real_cluster() {
    let rig = Real::start();
    // No OSD may have anything of it.
    rig.cluster.ceph(&["osd", "crush", "add-bucket", "empty", "root"]).unwrap();
    rig.cluster.ceph(&["osd", "crush", "rule", "create-replicated", "nowhere", "empty", "host"]).unwrap();
    rig.cluster.ceph(&["osd", "pool", "create", "slow", "1", "1", "replicated", "nowhere"]).unwrap();
    let mine = image("mine");
    rig.create(&mine);
    let mut old = rig.open(&mine);
    a_pool_hangs(rig.ceph_shared(), "slow", mine, &mut old).await;
}

/// Whether anything lands of an old writer that was stopped in the middle of a write, when it goes on after a new one has written. `take_away` is what is done
/// about the old one before the new one comes.
async fn old_one_lands(rig: &impl Rig, name: &str, take_away: impl AsyncFnOnce(&ImageName)) -> bool {
    let image = image(name);
    rig.create(&image);
    let mut old = rig.open(&image);
    assert!(old.write(1));
    old.freeze_before_writing(2);
    take_away(&image).await;
    let mut new = rig.open(&image);
    assert!(new.write(3), "the new one writes");
    let done = old.thaw(2);
    let found = rig.contents(&image);
    assert_eq!(done, found == 2, "{found} was found");
    done
}

/// A control of the tests above: they would see an old writer that lands.
#[tokio::test]
async fn an_old_writer_whose_lock_is_taken_without_a_fence_lands_in_a_real_cluster() {
    let rig = Real::start();
    let fenced = old_one_lands(&rig, "fenced", async |image| {
        let request = Request { images: [(image.clone(), Unrecorded::All)].into(), ..Request::default() };
        let fence = fence(rig.ceph_shared());
        fence.shut_out(&node(), &request, &Holds::always()).await.unwrap();
    });
    assert!(!fenced.await);
    let unfenced = old_one_lands(&rig, "unfenced", async |image| {
        let users = rig.ceph().users(image).await.unwrap().unwrap();
        for lock in &users.locks {
            let (image, lenient) = (image.to_string(), "--rbd_blocklist_on_break_lock=false");
            rig.cluster.rbd(&["lock", "rm", &image, &lock.cookie, &lock.client, lenient]).unwrap();
        }
    });
    assert!(unfenced.await, "this is what a fence is for");
}
