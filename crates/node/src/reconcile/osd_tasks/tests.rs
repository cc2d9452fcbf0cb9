//! Over the fake store, the fake Ceph and a fake node, on a paused clock.

mod others;
mod walks;

use pvc_core::model::{DaemonState, osd::ObservedDevice};
use pvc_host::{ceph::fake::FakeCeph, osds::fake::FakeOsds};
use pvc_store::Store as _;
use tokio::time::sleep;

use super::*;
use crate::reconcile::{network_world::NetworkWorld, storage_tasks::StorageTasks};

const DEVICE: &str = "/dev/sdb";

struct World {
    base: NetworkWorld,
    ceph: Arc<FakeCeph>,
    host: Arc<FakeOsds>,
    tasks: Option<OsdTasks>,
    _primary: StorageTasks,
}

impl World {
    /// hv1, which is primary and has a blank device, and three OSDs elsewhere.
    async fn new() -> Self {
        let base = NetworkWorld::new().await;
        base.primary("hv1").await;
        let ceph = FakeCeph::new();
        for id in 0..3 {
            ceph.has_osd(OsdId(id), "store", 8);
        }
        ceph.keeps_copies(3);
        let host = FakeOsds::new(Arc::clone(&ceph), "hv1");
        host.has_device(DEVICE, ObservedDevice { size: 4 << 30, ..ObservedDevice::default() });
        let primary = StorageTasks::start(base.cluster.clone(), ceph.clone());
        let tasks = Some(OsdTasks::start(base.cluster.clone(), ceph.clone(), host.clone()));
        Self { base, ceph, host, tasks, _primary: primary }
    }

    /// The daemon dies, and another begins.
    fn begin_anew(&mut self) {
        self.tasks = None;
        self.tasks = Some(OsdTasks::start(self.base.cluster.clone(), self.ceph.clone(), self.host.clone()));
    }

    async fn ask(&self, line: &str, wipe: bool) -> TaskId {
        task::ask(&*self.base.store, &line.parse().unwrap(), wipe, "root on hv1", 1).await.unwrap()
    }

    async fn task(&self, id: TaskId) -> Task {
        task::read(&*self.base.store, id).await.unwrap().unwrap().task
    }

    async fn outcome(&self, id: TaskId) -> Result<(), String> {
        for _ in 0..9_000 {
            match self.task(id).await.state {
                TaskState::Done { .. } => return Ok(()),
                TaskState::Failed { why, .. } => return Err(why),
                TaskState::Waiting | TaskState::Running { .. } => sleep(Duration::from_millis(100)).await,
            }
        }
        panic!("it is not over: {:?} {:?}", self.task(id).await, self.host.calls());
    }

    async fn adds(&self) -> Result<(), String> {
        let id = self.ask("osd_add hv1,/dev/sdb,1.5", false).await;
        self.outcome(id).await
    }

    fn told(&self) -> Vec<String> {
        self.base.tree.dump().into_keys().filter(|key| key.starts_with("/ceph/osds/")).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn an_osd_is_made_and_removed_and_the_tree_says_so() {
    let world = World::new().await;
    assert_eq!(world.adds().await, Ok(()));
    let made = world.ceph.osd(OsdId(3)).unwrap();
    assert_eq!((made.is_up, made.is_in, made.weight), (true, true, Some(1.5)));
    assert_eq!(world.told().len(), 4, "{:?}", world.told());
    let device = world.base.store.get("/ceph/osds/3/device").await.unwrap().unwrap();
    assert_eq!(device.data, DEVICE.as_bytes());

    world.ceph.moves_data(OsdId(3), 10);
    let id = world.ask("osd_remove 3", false).await;
    sleep(Duration::from_secs(30)).await;
    let task = world.task(id).await;
    assert!(!task.is_over() && task.trouble.unwrap().contains("10 placement groups"));
    world.ceph.moves_data(OsdId(3), 4);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.task(id).await.progress, Some(60));
    assert!(world.ceph.osd(OsdId(3)).unwrap().is_up, "it serves until nothing is on it");
    world.ceph.moves_data(OsdId(3), 0);
    assert_eq!(world.outcome(id).await, Ok(()));
    assert_eq!((world.ceph.osd(OsdId(3)), world.told().len()), (None, 0));
    assert_eq!(world.host.holds(DEVICE), None, "its device is blank");
    assert_eq!(world.adds().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_and_nothing_is_touched() {
    let world = World::new().await;
    world.host.has_device(
        "/dev/sdc",
        ObservedDevice { holds: Some("a file system".into()), size: 4 << 30, ..ObservedDevice::default() },
    );
    for (line, why) in [
        ("osd_add hv1,/dev/sdd,1", "no block device /dev/sdd"),
        ("osd_add hv1,/dev/sdc,1", "holds a file system"),
        ("osd_add hv9,/dev/sdb,1", "there is no node hv9"),
        ("osd_remove 1", "is on store, which is no node"),
        ("osd_remove 7", "there is no OSD 7"),
    ] {
        let id = world.ask(line, false).await;
        let said = world.outcome(id).await.unwrap_err();
        assert!(said.contains(why), "{line}: {said}");
    }
    assert!(world.host.calls().is_empty() && world.ceph.osd(OsdId(3)).is_none());
    let id = world.ask("osd_add hv1,/dev/sdc,1", true).await;
    assert_eq!(world.outcome(id).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_cannot_be_written_is_tried_again_and_then_nothing_stays() {
    let world = World::new().await;
    let late = || OsdError::Late("ceph-volume".to_owned());
    world.host.fail("write", late(), 1);
    assert_eq!(world.adds().await, Ok(()), "what fails once is tried again: {:?}", world.host.calls());

    let world = World::new().await;
    world.host.fail("write", late(), 3);
    let id = world.ask("osd_add hv1,/dev/sdb,1", false).await;
    let why = world.outcome(id).await.unwrap_err();
    assert!(why.contains("did not end in time"), "{why}");
    assert_eq!((world.ceph.osd(OsdId(3)), world.told().len()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn what_has_come_to_be_on_a_device_since_it_was_looked_at_stays_there() {
    let world = World::new().await;
    world.host.is_filled_before_it_is_written(DEVICE, "a file system");
    let why = world.adds().await.unwrap_err();
    assert!(why.contains("holds a file system by now"), "{why}");
    assert_eq!((world.ceph.osd(OsdId(3)), world.told().len()), (None, 0));
    assert_eq!(world.host.holds(DEVICE).as_deref(), Some("a file system"));
}

/// A daemon has begun to write to the device with that identity, and died.
async fn half_written(world: &mut World, wipe: bool, identity: &str) -> TaskId {
    world.tasks = None;
    let id = world.ask("osd_add hv1,/dev/sdb,1", wipe).await;
    let seen = task::read(&*world.base.store, id).await.unwrap().unwrap();
    let uuid = OsdUuid::of_task(&seen.task.mark());
    world.ceph.take_osd_number(&uuid).await.unwrap();
    let osd = TasksOsd { uuid, id: Some(3), writes: true, device: Some(identity.to_owned()) };
    let state = TaskState::Running { node: "hv1".to_owned(), since_unix_s: 1 };
    let begun = Task { osd: Some(osd), state, ..seen.task.clone() };
    task::by_node(&*world.base.store, &seen, begun, &[]).await.unwrap();
    id
}

#[tokio::test(start_paused = true)]
async fn after_a_boot_in_the_middle_nothing_is_done_to_the_device_any_more() {
    for wipe in [false, true] {
        let mut world = World::new().await;
        let id = half_written(&mut world, wipe, "before the boot").await;
        let size = 4 << 30;
        let other = ObservedDevice { holds: Some("an OSD".into()), size, ..ObservedDevice::default() };
        world.host.has_device(DEVICE, other);
        world.begin_anew();
        let why = world.outcome(id).await.unwrap_err();
        assert!(why.contains("may be another one now"), "{why}");
        assert_eq!(world.host.calls(), ["take away 3, not the device"]);
        assert_eq!(world.host.holds(DEVICE).as_deref(), Some("an OSD"));
        assert_eq!((world.ceph.osd(OsdId(3)), world.told().len()), (None, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_away_ends_the_task() {
    let mut world = World::new().await;
    let id = half_written(&mut world, false, "").await;
    let broken = OsdError::Refused { doing: "zap /dev/sdb".into(), why: "EIO".into() };
    world.host.fail("take away", broken, 3);
    world.begin_anew();
    let why = world.outcome(id).await.unwrap_err();
    assert!(why.contains("/dev/sdb could not be cleared again"), "{why}");
    assert_eq!(world.host.calls().last().unwrap(), "take away 3, not the device");
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_waits_holds_up_no_new_osd() {
    let world = World::new().await;
    assert_eq!(world.adds().await, Ok(()));
    world.ceph.moves_data(OsdId(3), 10);
    let removal = world.ask("osd_remove 3", false).await;
    sleep(Duration::from_secs(30)).await;
    world.host.has_device("/dev/sdc", ObservedDevice { size: 4 << 30, ..ObservedDevice::default() });
    let added = world.ask("osd_add hv1,/dev/sdc,1", false).await;
    assert_eq!(world.outcome(added).await, Ok(()));
    assert!(!world.task(removal).await.is_over());
    world.ceph.moves_data(OsdId(3), 0);
    assert_eq!(world.outcome(removal).await, Ok(()));
    assert!(world.ceph.osd(OsdId(4)).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_osd_that_is_taken_into_use_again_while_it_is_removed_stays() {
    let world = World::new().await;
    assert_eq!(world.adds().await, Ok(()));
    world.ceph.moves_data(OsdId(3), 10);
    let removal = world.ask("osd_remove 3", false).await;
    sleep(Duration::from_secs(30)).await;
    let back = world.ask("osd_in 3", false).await;
    assert_eq!(world.outcome(back).await, Ok(()));
    let why = world.outcome(removal).await.unwrap_err();
    assert!(why.contains("it stays"), "{why}");
    assert!(world.ceph.osd(OsdId(3)).unwrap().is_up && world.told().len() == 4);
}

#[tokio::test(start_paused = true)]
async fn an_osd_whose_disk_is_broken_is_removed_all_the_same() {
    let world = World::new().await;
    assert_eq!(world.adds().await, Ok(()));
    let broken = OsdError::Refused { doing: "clear /dev/sdb".into(), why: "EIO".into() };
    world.host.fail("clear", broken, 3);
    let id = world.ask("osd_remove 3", false).await;
    let why = world.outcome(id).await.unwrap_err();
    assert!(
        why.contains("OSD 3 is removed; its device is as it was: could not clear /dev/sdb: EIO"),
        "{why}"
    );
    assert_eq!((world.ceph.osd(OsdId(3)), world.told().len()), (None, 0));
    assert_eq!(world.host.calls().last().unwrap(), "forget 3");
}

#[tokio::test(start_paused = true)]
async fn an_osd_of_a_dead_node_is_removed_by_the_primary_if_it_is_forced_to() {
    let world = World::new().await;
    world.ceph.has_osd(OsdId(7), "hv2", 0);
    world.ceph.hears_osd(OsdId(7), None);
    let waits = world.ask("osd_remove 7", false).await;
    sleep(Duration::from_secs(90)).await;
    assert_eq!(world.task(waits).await.trouble, None, "hv2 may be about to do it");
    let dead = pvc_store::schema::node::set_daemon_state(&"hv2".parse().unwrap(), DaemonState::Dead);
    world.base.store.commit(dead).await.unwrap();
    sleep(Duration::from_secs(90)).await;
    let task = world.task(waits).await;
    assert!(!task.is_over() && task.trouble.unwrap().contains("hv2, which has OSD 7, is dead"));
    let forced = world.ask("osd_remove 7", true).await;
    assert_eq!(world.outcome(forced).await, Ok(()));
    assert_eq!(world.ceph.osd(OsdId(7)), None);
    assert!(world.host.calls().is_empty(), "nothing of this node's was touched");
}

/// Its daemon dies after each step that changes anything.
#[tokio::test(start_paused = true)]
async fn a_daemon_that_dies_in_the_middle_is_carried_on_by_the_next() {
    for step in ["write 3", "start 3", "stop 3", "clear 3"] {
        let mut world = World::new().await;
        let dies = async |world: &mut World, id: TaskId| {
            while !world.host.calls().iter().any(|call| call.starts_with(step))
                && !world.task(id).await.is_over()
            {
                sleep(Duration::from_millis(1)).await;
            }
            world.begin_anew();
            assert_eq!(world.outcome(id).await, Ok(()), "{step}: {:?}", world.host.calls());
        };
        let id = world.ask("osd_add hv1,/dev/sdb,1", false).await;
        dies(&mut world, id).await;
        assert!(world.ceph.osd(OsdId(3)).unwrap().is_up && world.ceph.osd(OsdId(4)).is_none(), "{step}");
        let id = world.ask("osd_remove 3", false).await;
        dies(&mut world, id).await;
        assert_eq!((world.ceph.osd(OsdId(3)), world.told().len()), (None, 0), "{step}");
        assert_eq!(world.host.holds(DEVICE), None, "{step}");
    }
}
