//! What stands in others' way: devices that VMs have for disks, and tasks of nodes that do not go on with them.

use pvc_core::model::osd::OsdUuid;
use pvc_store::{Op, schema::task as tasks};

use super::*;

const VM: &str = "/domains/11111111-0000-4000-8000-000000000001";

/// As who takes a machine out of the cluster for good.
pub(super) async fn is_gone(base: &NetworkWorld, node: &str) {
    let root = format!("/nodes/{node}");
    let mut keys: Vec<String> = base.tree.dump().into_keys().collect();
    keys.retain(|key| *key == root || key.starts_with(&format!("{root}/")));
    keys.sort_by_key(|key| std::cmp::Reverse(key.len()));
    base.commit(keys.into_iter().map(|path| Op::Delete { path, version: None }).collect()).await;
}

impl World {
    async fn defines(&self, xml: &str) {
        let keys = [("", "web"), ("/state", "stop"), ("/node", "hv3"), ("/xml", xml)];
        let keys: Vec<(String, &str)> =
            keys.iter().map(|(key, text)| (format!("{VM}{key}"), *text)).collect();
        let keys: Vec<(&str, &str)> = keys.iter().map(|(key, text)| (key.as_str(), *text)).collect();
        self.base.create(&keys).await;
    }

    async fn is_so(&self, node: &str, state: DaemonState) {
        let word = pvc_store::schema::node::set_daemon_state(&node.parse().unwrap(), state);
        self.base.store.commit(word).await.unwrap();
    }

    async fn is_gone(&self, node: &str) {
        is_gone(&self.base, node).await;
    }

    /// That node had begun it.
    async fn begun_by(&self, node: &str, line: &str, osd: impl Fn(&Task) -> TasksOsd) -> TaskId {
        let id = self.ask(line, false).await;
        let seen = tasks::read(&*self.base.store, id).await.unwrap().unwrap();
        let state = TaskState::Running { node: node.to_owned(), since_unix_s: 1 };
        let begun = Task { osd: Some(osd(&seen.task)), state, ..seen.task.clone() };
        tasks::by_node(&*self.base.store, &seen, begun, &[]).await.unwrap();
        id
    }

    /// … and had taken a number.
    async fn adds_on(&self, node: &str) -> TaskId {
        let of = |task: &Task| TasksOsd {
            uuid: OsdUuid::of_task(&task.mark()),
            id: Some(3),
            writes: true,
            device: Some("there".into()),
        };
        let id = self.begun_by(node, &format!("osd_add {node},{DEVICE},1"), of).await;
        let mark = self.task(id).await.mark();
        self.ceph.take_osd_number(&OsdUuid::of_task(&mark)).await.unwrap();
        id
    }

    /// OSD 7 of that node is down, and has this much data.
    async fn removes_on(&self, node: &str, pgs: u64) -> TaskId {
        self.ceph.has_osd(OsdId(7), node, pgs);
        self.ceph.hears_osd(OsdId(7), None);
        let uuid = self.ceph.osd(OsdId(7)).unwrap().uuid;
        let own = |_: &Task| TasksOsd { uuid: uuid.clone(), id: Some(7), writes: false, device: None };
        let id = self.begun_by(node, "osd_remove 7", own).await;
        sleep(Duration::from_mins(1)).await;
        id
    }

    async fn cancels(&self, id: TaskId) {
        let seen = tasks::read(&*self.base.store, id).await.unwrap().unwrap();
        tasks::ask_to_end(&*self.base.store, &seen, "ann", 2).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_of_a_vm_that_is_off_becomes_no_osd_by_whatever_name_the_vm_has_it() {
    let disk = |source: &str| format!("<domain><devices><disk>{source}</disk></devices></domain>");
    for (source, name) in [
        ("<source dev='/dev/sdb'/>", DEVICE),
        ("<source dev='/dev/disk/by-id/wwn-1'/>", "/dev/disk/by-id/wwn-1"),
        ("<source file='/dev/mapper/web'/>", "/dev/mapper/web"),
    ] {
        let world = World::new().await;
        world.host.is_also(DEVICE, name);
        world.defines(&disk(source)).await;
        for wipe in [false, true] {
            let id = world.ask("osd_add hv1,/dev/sdb,1", wipe).await;
            let why = world.outcome(id).await.unwrap_err();
            assert!(why.contains("is a disk of VM web") && why.contains(name), "{why}");
        }
        assert!(world.host.calls().is_empty() && world.ceph.osd(OsdId(3)).is_none());
        // By another name it is nobody's.
        world.base.set(&format!("{VM}/xml"), &disk("<source dev='/dev/sdz'/>")).await;
        assert_eq!(world.adds().await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_cannot_be_read_may_name_any_device() {
    let world = World::new().await;
    world.defines("<domain").await;
    let why = world.adds().await.unwrap_err();
    assert!(why.contains("the definition of VM web cannot be read"), "{why}");
    assert!(world.host.calls().is_empty());
    let id = world.ask("osd_add hv1,/dev/sdb,1", true).await;
    assert_eq!(world.outcome(id).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn the_making_of_an_osd_ends_with_its_node_and_ceph_keeps_nothing_of_it() {
    let world = World::new().await;
    let id = world.adds_on("hv2").await;
    sleep(Duration::from_mins(1)).await;
    assert!(!world.task(id).await.is_over() && world.ceph.osd(OsdId(3)).is_some(), "hv2 does it");
    world.is_gone("hv2").await;
    let why = world.outcome(id).await.unwrap_err();
    assert!(why.contains("node hv2, which carried it out, is no node of this cluster any more"), "{why}");
    assert_eq!((world.ceph.osd(OsdId(3)), world.told().len()), (None, 0));
    assert!(world.host.calls().is_empty(), "nothing of this node's was touched");
}

#[tokio::test(start_paused = true)]
async fn the_making_of_an_osd_on_a_dead_node_waits_and_can_be_cancelled() {
    let world = World::new().await;
    let id = world.adds_on("hv2").await;
    world.is_so("hv2", DaemonState::Dead).await;
    sleep(Duration::from_mins(1)).await;
    let task = world.task(id).await;
    assert!(!task.is_over() && task.trouble.unwrap().contains("node hv2 is dead: it goes on when"));
    world.cancels(id).await;
    let why = world.outcome(id).await.unwrap_err();
    assert!(why.contains("cancelled by ann, while node hv2 is dead"), "{why}");
    assert_eq!(world.ceph.osd(OsdId(3)), None);
}

#[tokio::test(start_paused = true)]
async fn the_removal_of_an_osd_goes_on_without_its_node_if_that_is_gone() {
    let world = World::new().await;
    let id = world.removes_on("hv2", 0).await;
    assert!(!world.task(id).await.is_over() && world.ceph.osd(OsdId(7)).unwrap().is_in);
    world.is_gone("hv2").await;
    assert_eq!(world.outcome(id).await, Ok(()));
    assert_eq!(world.ceph.osd(OsdId(7)), None);
    assert!(world.host.calls().is_empty(), "nothing of this node's was touched");

    // Ceph had forgotten it already.
    let world = World::new().await;
    let id = world.removes_on("hv2", 0).await;
    world.is_so("hv2", DaemonState::Dead).await;
    let forced = world.ask("osd_remove 7", true).await;
    assert_eq!(world.outcome(forced).await, Ok(()));
    sleep(Duration::from_mins(1)).await;
    assert!(!world.task(id).await.is_over(), "the node may come back, and clears the device then");
    world.is_gone("hv2").await;
    assert_eq!(world.outcome(id).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_back_goes_on_and_what_was_to_end_is_told_so() {
    let world = World::new().await;
    // hv1 was away, and somebody wanted its task to end.
    let of = |task: &Task| TasksOsd {
        uuid: OsdUuid::of_task(&task.mark()),
        id: None,
        writes: false,
        device: None,
    };
    let id = world.begun_by("hv1", "osd_add hv1,/dev/sdb,1", of).await;
    world.cancels(id).await;
    assert_eq!(world.outcome(id).await, Ok(()));
    let refused = world.task(id).await.cancel.unwrap().refused.unwrap();
    assert!(refused.contains("hv1 carries it out again, and an OSD is never left half made"), "{refused}");

    // hv1 stands in for hv2 while that is away.
    let world = World::new().await;
    let id = world.removes_on("hv2", 4).await;
    let by = async |world: &World| match world.task(id).await.state {
        TaskState::Running { node, .. } => node,
        state => panic!("{state:?}"),
    };
    world.is_gone("hv2").await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(by(&world).await, "hv1");
    crate::reconcile::network_world::register(&*world.base.store, 2, true).await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(by(&world).await, "hv2");
}

#[tokio::test(start_paused = true)]
async fn an_osd_of_no_node_is_removed_if_that_is_forced_and_it_is_down() {
    let world = World::new().await;
    let up = world.ask("osd_remove 1", true).await;
    let why = world.outcome(up).await.unwrap_err();
    assert!(why.contains("was not made by ceph-volume on this node"), "{why}");
    world.ceph.has_osd(OsdId(7), "elsewhere", 0);
    world.ceph.hears_osd(OsdId(7), None);
    let id = world.ask("osd_remove 7", false).await;
    let why = world.outcome(id).await.unwrap_err();
    assert!(why.contains("`pvc storage osd remove --force 7`"), "{why}");
    let id = world.ask("osd_remove 7", true).await;
    assert_eq!(world.outcome(id).await, Ok(()));
    assert_eq!(world.ceph.osd(OsdId(7)), None);
}
