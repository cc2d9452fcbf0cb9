//! Clones and rollbacks: what takes several steps, takes long, and is told.

use pvc_core::model::ceph::{Figures, Space};
use pvc_host::ceph::fake::FakeWriter;

use super::*;

pub(super) const SIZE: u64 = 8 << 20;

impl World {
    /// A pool with a volume of VM 1, which has written 1, then a snapshot `daily`, then 2.
    pub(super) async fn with_snapshot() -> (Self, FakeWriter) {
        let world = Self::with_pool().await;
        world.does("volume_add vms,one,8388608B").await;
        world.define("vms/one").await;
        let writer = world.ceph.open(&image("vms/one"), [10, 0, 0, 2].into());
        assert!(writer.write(1));
        world.does("snapshot_add vms,one,daily").await;
        assert!(writer.write(2));
        (world, writer)
    }

    pub(super) async fn names(&self) -> Vec<String> {
        let mut names = self.ceph.images(&"vms".parse().unwrap()).await.unwrap();
        names.sort_unstable();
        names
    }

    async fn snapshots_of(&self, name: &str) -> Vec<String> {
        self.ceph.image(&image(name)).await.unwrap().unwrap().snapshots
    }

    /// Has it asked for, and waits until Ceph was asked for `change`, which takes some time.
    pub(super) async fn is_at(&self, line: &str, change: &str) -> TaskId {
        self.ceph.take_for_all_of_it(Duration::from_secs(20));
        let id = self.ask(line).await;
        while !self.ceph.changes().iter().any(|made| made.starts_with(change)) {
            sleep(Duration::from_millis(10)).await;
        }
        id
    }

    /// The daemon dies, and another begins.
    pub(super) fn begin_anew(&mut self) {
        self.tasks = StorageTasks::start(self.base.cluster.clone(), self.ceph.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_cloned_while_its_vm_writes_and_so_is_a_snapshot() {
    let (world, writer) = World::with_snapshot().await;
    world.does("volume_clone vms,one,now,*").await;
    world.does("volume_clone vms,one,then,daily").await;
    assert_eq!(world.names().await, ["now", "one", "then"]);
    for (name, contents) in [("vms/now", 2), ("vms/then", 1), ("vms/one", 2)] {
        assert_eq!(world.ceph.contents(&image(name)), Some(contents), "{name}");
    }
    assert_eq!(world.snapshots_of("vms/one").await, ["daily"]);
    assert_eq!(world.told("volumes/vms/now").len(), 2, "{:?}", world.told("vms"));
    assert!(world.told("pvc-task").is_empty());
    assert!(writer.write(3) && world.ceph.blocklisted().await.unwrap().is_empty());
    for (line, why) in [
        ("volume_clone vms,one,now,*", "there is a volume vms/now already"),
        ("volume_clone vms,none,other,*", "there is no volume vms/none"),
        ("volume_clone vms,one,other,weekly", "there is no snapshot vms/one@weekly"),
    ] {
        assert!(world.refuses(line).await.contains(why), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn how_far_a_clone_is_stands_at_its_task_and_osds_do_not_wait_for_it() {
    let (world, _writer) = World::with_snapshot().await;
    world.ceph.add_osds(1);
    world.ceph.take_for_all_of_it(Duration::from_mins(1));
    let id = world.ask("volume_clone vms,one,then,daily").await;
    let (mut told, mut writes, mut osds) = (Vec::new(), 0, false);
    let mut last = world.seen(id).await;
    while !last.task.is_over() {
        sleep(Duration::from_millis(500)).await;
        let now = world.seen(id).await;
        writes += usize::from(now != last);
        if now.task.progress != last.task.progress {
            told.extend(now.task.progress);
        }
        if told.len() == 2 && !osds {
            world.does("osd_out 0").await;
            osds = true;
        }
        last = now;
    }
    assert!(told.len() > 10 && told.is_sorted() && *told.last().unwrap() <= 100, "{told:?}");
    assert!(writes < 35 && osds, "no more often than every two seconds: {writes}");
    assert!(matches!(last.task.state, TaskState::Done { .. }) && last.task.progress.is_none(), "{last:?}");
}

/// Nobody knows whether the copy is whole.
#[tokio::test(start_paused = true)]
async fn a_clone_that_a_dead_daemon_has_begun_is_made_anew_and_leaves_nothing() {
    let (mut world, _writer) = World::with_snapshot().await;
    let id = world.is_at("volume_clone vms,one,now,*", "copying").await;
    world.begin_anew();
    world.ceph.take_for_all_of_it(Duration::ZERO);
    assert_eq!(world.outcome(id).await, Ok(()));
    assert_eq!(
        (world.names().await, world.snapshots_of("vms/one").await.len()),
        (vec!["now".into(), "one".into()], 1)
    );
    assert_eq!(world.ceph.contents(&image("vms/now")), Some(2));
    let changes = world.ceph.changes();
    assert!(changes.iter().any(|change| change.starts_with("removing image vms/pvc-task-")), "{changes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_would_fill_the_cluster_ends_and_leaves_nothing() {
    let (world, _writer) = World::with_snapshot().await;
    world.ceph.take_for_all_of_it(Duration::from_mins(1));
    let id = world.ask("volume_clone vms,one,now,*").await;
    sleep(Duration::from_secs(20)).await;
    let space = Space { used_bytes: 80, total_bytes: 100, ..Space::default() };
    world.ceph.say(Figures { space, ..Figures::default() });
    let why = world.outcome(id).await.unwrap_err();
    assert!(why.contains("used to 80 %"), "{why}");
    assert_eq!((world.names().await, world.snapshots_of("vms/one").await.len()), (vec!["one".into()], 1));
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_rolled_back_when_nobody_uses_it() {
    let (world, writer) = World::with_snapshot().await;
    let line = "snapshot_rollback vms,one,daily";
    assert!(world.refuses(line).await.contains("has vms/one open"));
    writer.close();
    world.claim("hv2").await;
    assert!(world.refuses(line).await.contains("used by VM vm1"));
    world.claim("").await;
    world.says_it_runs("hv3", "11111111-0000-4000-8000-000000000001").await;
    assert!(world.refuses(line).await.contains("used by VM vm1"));
    world.says_it_runs("hv3", "").await;
    assert_eq!(world.ceph.contents(&image("vms/one")), Some(2), "nothing was done");
    assert!(world.refuses("snapshot_rollback vms,one,weekly").await.contains("there is no snapshot"));
    world.does("volume_resize vms,one,16777216B").await;
    world.does(line).await;
    assert_eq!(world.ceph.contents(&image("vms/one")), Some(1));
    let found = world.ceph.image(&image("vms/one")).await.unwrap().unwrap();
    assert_eq!((found.stats.size, world.names().await), (SIZE, vec!["one".to_owned()]));
    world.does(line).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_finds_a_volume_that_is_rolled_back_in_part_and_the_next_daemon_goes_on() {
    let (mut world, writer) = World::with_snapshot().await;
    writer.close();
    let id = world.is_at("snapshot_rollback vms,one,daily", "rolling").await;
    assert_eq!(world.ceph.image(&image("vms/one")).await, Ok(None), "a start waits until it is there");
    world.begin_anew();
    // The VM is to start meanwhile: that keeps nothing from going on.
    world.claim("hv2").await;
    assert_eq!(world.outcome(id).await, Ok(()));
    assert_eq!((world.names().await, world.ceph.contents(&image("vms/one"))), (vec!["one".into()], Some(1)));
}

/// Somebody has the volume open by the name that it has meanwhile, and hangs.
#[tokio::test(start_paused = true)]
async fn a_volume_has_its_name_again_when_what_kept_it_from_that_has_passed() {
    for next in ["", "hv1", "hv2"] {
        let (mut world, writer) = World::with_snapshot().await;
        writer.close();
        let id = world.is_at("snapshot_rollback vms,one,daily", "rolling").await;
        let aside = VolumeName::of_task(&world.seen(id).await.task.mark());
        let tool = world.ceph.open(&image(&format!("vms/{aside}")), [10, 0, 0, 4].into());
        tool.freeze();
        sleep(Duration::from_mins(3)).await;
        let seen = world.seen(id).await.task;
        assert!(!seen.is_over() && seen.trouble.unwrap().contains("does not answer"), "{next}");
        let _second = world.second();
        match next {
            "" => {}
            "hv1" => world.begin_anew(),
            next => world.base.primary(next).await,
        }
        sleep(Duration::from_mins(3)).await;
        assert!(!world.seen(id).await.task.is_over(), "{next}");
        tool.thaw();
        assert_eq!(world.outcome(id).await, Ok(()), "{next}");
        assert_eq!(
            (world.names().await, world.ceph.contents(&image("vms/one"))),
            (vec!["one".into()], Some(1))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_have_its_name_again_for_long_holds_up_nobody_for_ever() {
    let (world, writer) = World::with_snapshot().await;
    writer.close();
    let id = world.is_at("snapshot_rollback vms,one,daily", "rolling").await;
    world.ceph.take_for_all_of_it(Duration::ZERO);
    let aside = VolumeName::of_task(&world.seen(id).await.task.mark());
    world.ceph.open(&image(&format!("vms/{aside}")), [10, 0, 0, 4].into()).freeze();
    let waits = world.ask("volume_add vms,two,1M").await;
    sleep(Duration::from_mins(10)).await;
    let why = world.outcome(id).await.unwrap_err();
    assert!(why.contains("cannot have its name again") && why.contains(aside.as_str()), "{why}");
    assert!(world.told(&format!("volumes/vms/{aside}")).len() == 2, "the tree says what it is called");
    assert_eq!(world.outcome(waits).await, Ok(()));
}

/// Ceph renames in steps, and the primary before was cut off between two of them.
#[tokio::test(start_paused = true)]
async fn an_image_that_was_left_with_two_names_has_one_again() {
    for line in
        ["volume_rename vms,one,two", "volume_clone vms,one,two,daily", "snapshot_rollback vms,one,daily"]
    {
        let world = World::with_pool().await;
        world.does("volume_add vms,one,8388608B").await;
        world.does("snapshot_add vms,one,daily").await;
        let _second = world.second();
        let (change, names) = match line {
            "volume_rename vms,one,two" => ("renaming image vms/one", vec!["two"]),
            "volume_clone vms,one,two,daily" => ("renaming image vms/pvc-task", vec!["one", "two"]),
            _ => ("renaming image vms/pvc-task", vec!["one"]),
        };
        let id = world.freezes(line, change, "begun").await;
        let aside = image(&format!("vms/{}", VolumeName::of_task(&world.seen(id).await.task.mark())));
        match line {
            "volume_rename vms,one,two" => world.ceph.name_twice(&image("vms/one"), &image("vms/two")),
            "volume_clone vms,one,two,daily" => world.ceph.name_twice(&aside, &image("vms/two")),
            _ => world.ceph.name_twice(&aside, &image("vms/one")),
        }
        world.base.primary("hv2").await;
        assert_eq!(world.outcome(id).await, Ok(()), "{line}");
        assert_eq!(world.names().await, names, "{line}");
    }
}
