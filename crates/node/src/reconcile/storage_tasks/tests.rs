//! Over the fake store and the fake Ceph, on a paused clock.

mod beside;
mod cancelled;
mod frozen;
mod several_steps;

use std::net::Ipv4Addr;

use pvc_core::model::{
    VmChange, VmId, VmKey, VmSet,
    ceph::{ImageName, Users, VmClients, VolumeName},
    found::{Found, Holder},
    storage::Hidden,
    task::TaskId,
};
use pvc_host::ceph::fake::FakeCeph;
use pvc_store::{Store as _, Transaction, schema};
use tokio::time::sleep;

use super::*;
use crate::reconcile::network_world::{NetworkWorld, name};

struct World {
    base: NetworkWorld,
    ceph: Arc<FakeCeph>,
    tasks: StorageTasks,
}

impl World {
    /// A node hv1 that manages storage, and is not primary.
    async fn new() -> Self {
        let base = NetworkWorld::new().await;
        let ceph = FakeCeph::new();
        ceph.has_room();
        let tasks = StorageTasks::start(base.cluster.clone(), ceph.clone());
        Self { base, ceph, tasks }
    }

    /// hv1 is primary, and there is a pool.
    async fn with_pool() -> Self {
        let this = Self::new().await;
        this.base.primary("hv1").await;
        this.does("pool_add vms,8").await;
        this
    }

    async fn ask(&self, line: &str) -> TaskId {
        task::ask(&*self.base.store, &line.parse().unwrap(), false, "root on hv1", 1).await.unwrap()
    }

    async fn seen(&self, id: TaskId) -> Seen {
        task::read(&*self.base.store, id).await.unwrap().unwrap()
    }

    /// What came of a task, within a minute and a half.
    async fn outcome(&self, id: TaskId) -> Result<(), String> {
        self.outcome_within(id, Duration::from_secs(90)).await
    }

    async fn outcome_within(&self, id: TaskId, within: Duration) -> Result<(), String> {
        let (until, look) = (Instant::now() + within, within / 9_000);
        while Instant::now() < until {
            match self.seen(id).await.task.state {
                TaskState::Done { .. } => return Ok(()),
                TaskState::Failed { why, .. } => return Err(why),
                TaskState::Waiting | TaskState::Running { .. } => sleep(look).await,
            }
        }
        panic!("it is not over: {:?}", self.seen(id).await);
    }

    async fn does(&self, line: &str) {
        let id = self.ask(line).await;
        assert_eq!(self.outcome(id).await, Ok(()), "{line}");
    }

    /// What it has found.
    async fn finds(&self, line: &str) -> Option<Found> {
        let id = self.ask(line).await;
        assert_eq!(self.outcome(id).await, Ok(()), "{line}");
        self.seen(id).await.task.found
    }

    async fn refuses(&self, line: &str) -> String {
        let id = self.ask(line).await;
        self.outcome(id).await.expect_err(line)
    }

    /// The keys below `/ceph` that say something of a volume.
    fn told(&self, of: &str) -> Vec<String> {
        let keys = self.base.tree.dump().into_keys();
        let of_ceph = keys.filter_map(|key| key.strip_prefix("/ceph/").map(str::to_owned));
        of_ceph.filter(|key| key.contains(of)).collect()
    }

    /// Who claims VM 1; empty: nobody.
    async fn claim(&self, by: &str) {
        let store = &*self.base.store;
        self.base.cluster.catch_up_with_everybody().await.unwrap();
        let view = self.base.cluster.view();
        let vm = view.vm("11111111-0000-4000-8000-000000000001".parse().unwrap()).unwrap();
        let change = VmChange::update(vm, &[VmKey::Claim], vec![VmSet::Claim(by.parse().unwrap())]);
        schema::vm::apply(store, &change).await.unwrap();
        self.base.cluster.catch_up_with_everybody().await.unwrap();
    }

    /// What a node says last of what it executes.
    async fn says_it_runs(&self, node: &str, vms: &str) {
        self.base.set(&format!("/nodes/{node}/runningdomains"), vms).await;
        self.base.cluster.catch_up_with_everybody().await.unwrap();
    }

    async fn record(&self, vm: VmId, on: &str, clients: &VmClients) {
        let (new, also) = ((clients, None), Transaction::default());
        schema::vm_clients::record(&*self.base.store, vm, &name(on), new, &also).await.unwrap();
    }

    async fn define(&self, xml_disk: &str) {
        let xml = format!(
            "<domain type='qemu'><name>vm1</name><uuid>11111111-0000-4000-8000-000000000001</uuid>\
             <memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices>\
             <disk type='network' device='disk'><source protocol='rbd' name='{xml_disk}'/><target dev='vda'/></disk>\
             </devices></domain>"
        );
        let define = VmChange::Define {
            id: "11111111-0000-4000-8000-000000000001".parse().unwrap(),
            name: "vm1".parse().unwrap(),
            node: name("hv1"),
            xml,
            // As an old client's `modify` leaves it.
            rbd_images: Vec::new(),
        };
        schema::vm::apply(&*self.base.store, &define).await.unwrap();
    }
}

fn image(text: &str) -> ImageName {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_primary_carries_out_what_is_asked_and_the_tree_follows() {
    let world = World::new().await;
    let waits = world.ask("pool_add vms,8").await;
    sleep(Duration::from_mins(2)).await;
    assert_eq!(world.seen(waits).await.task.state, TaskState::Waiting, "another node is primary");
    world.base.primary("hv1").await;
    assert_eq!(world.outcome(waits).await, Ok(()));
    let made =
        ["creating pool vms with 8 placement groups", "having pool vms keep 3 copies", "marking pool vms"];
    assert!(world.ceph.changes().iter().zip(made).all(|(change, made)| change.starts_with(made)));
    for (line, key) in [
        ("volume_add vms,a,1048576B", "volumes/vms/a/stats"),
        ("snapshot_add vms,a,s", "snapshots/vms/a/s/stats"),
        ("snapshot_rename vms,a,s,t", "snapshots/vms/a/t/stats"),
        ("volume_resize vms,a,2097152B", "volumes/vms/a/stats"),
        ("volume_rename vms,a,b", "snapshots/vms/b/t/stats"),
    ] {
        world.does(line).await;
        assert!(world.told("vms").contains(&key.to_owned()), "{line}: {:?}", world.told("vms"));
    }
    assert!(world.told("vms/a").is_empty() && world.told("/s/").is_empty());
    assert!(world.refuses("volume_remove vms,b").await.contains("1 snapshot:"));
    for line in ["snapshot_remove vms,b,t", "volume_remove vms,b", "pool_remove vms"] {
        world.does(line).await;
    }
    assert!(world.told("vms").is_empty(), "{:?}", world.told("vms"));
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_primary_has_begun_is_carried_on_wherever_it_stopped() {
    let world = World::with_pool().await;
    let begun = async |line: &str| {
        world.base.primary("hv2").await;
        let id = world.ask(line).await;
        let running = TaskState::Running { node: "hv2".into(), since_unix_s: 1 };
        let seen = world.seen(id).await;
        world.base.store.commit(task::move_on(&seen, running, &name("hv2"))).await.unwrap();
        id
    };
    // Before the change, and after it.
    for (volume, is_made) in [("a", false), ("b", true)] {
        let line = format!("volume_add vms,{volume},1048576B");
        let id = begun(&line).await;
        if is_made {
            world.ceph.create_sized(&image(&format!("vms/{volume}")), 1_048_576);
        }
        world.base.primary("hv1").await;
        assert_eq!(world.outcome(id).await, Ok(()));
        assert_eq!(world.told(&format!("volumes/vms/{volume}")).len(), 2);
    }
    let id = begun("volume_remove vms,a").await;
    let writer = world.ceph.open(&image("vms/a"), [10, 0, 0, 2].into());
    world.base.primary("hv1").await;
    sleep(Duration::from_secs(20)).await;
    assert!(!world.seen(id).await.task.is_over(), "the other one may be removing it still");
    writer.close();
    assert_eq!(world.outcome(id).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_ceph_that_cannot_be_asked_is_told_at_the_task_and_waited_for() {
    let world = World::with_pool().await;
    world.ceph.fail(Some(CephError::Unavailable("no monitor answers".into())));
    let (first, second) = (world.ask("volume_add vms,a,1B").await, world.ask("volume_add vms,b,1B").await);
    sleep(Duration::from_mins(1)).await;
    let seen = world.seen(first).await.task;
    assert!(!seen.is_over() && seen.trouble.unwrap().contains("no monitor answers"));
    world.ceph.fail(None);
    for id in [first, second] {
        assert_eq!(world.outcome(id).await, Ok(()));
        assert_eq!(world.seen(id).await.task.trouble, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_vms_volume_is_neither_removed_nor_renamed_whatever_its_list_says() {
    let world = World::with_pool().await;
    world.does("volume_add vms,disk,1048576B").await;
    world.define("vms/disk").await;
    for line in ["volume_remove vms,disk", "volume_rename vms,disk,other", "pool_remove vms"] {
        let why = world.refuses(line).await;
        assert!(why.contains("VM vm1"), "{line}: {why}");
    }
    world.does("snapshot_add vms,disk,daily").await;
    world.does("volume_resize vms,disk,2097152B").await;
    // What it executes with, and what its definition does not name any more.
    let id = "11111111-0000-4000-8000-000000000001".parse().unwrap();
    world.does("volume_add vms,former,1048576B").await;
    let images = [image("vms/former")].into();
    let clients = VmClients { images, ..VmClients::default() };
    world.record(id, "hv1", &clients).await;
    assert!(world.refuses("volume_remove vms,former").await.contains("VM vm1"));

    // Whether this one has the volume nobody knows.
    world.base.set("/domains/11111111-0000-4000-8000-000000000001/xml", "<domain>").await;
    world.does("snapshot_remove vms,disk,daily").await;
    let why = world.refuses("volume_remove vms,disk").await;
    assert!(why.contains("cannot be read"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_osds_waits_for_no_other_task() {
    let world = World::with_pool().await;
    world.ceph.add_osds(1);
    world.does("volume_add vms,a,1B").await;
    world.ceph.take_for_all_of_it(Duration::from_hours(1));
    let waits = world.ask("volume_remove vms,a").await;
    sleep(Duration::from_secs(5)).await;
    world.does("osd_out 0").await;
    assert!(!world.seen(waits).await.task.is_over());
}

#[tokio::test(start_paused = true)]
async fn what_ceph_refuses_has_failed_at_once_and_holds_up_nobody() {
    let world = World::with_pool().await;
    world.does("volume_add vms,a,1048576B").await;
    let writer = world.ceph.open(&image("vms/a"), [10, 0, 0, 2].into());
    let began = Instant::now();
    assert_eq!(world.refuses("volume_remove vms,a").await, "somebody has it open");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(world.told("volumes/vms/a").len(), 2, "the tree says what Ceph has");
    writer.close();
    world.does("volume_remove vms,a").await;
}

/// What a primary looked at a minute ago is not what it changes: it is not primary any more, or the task is over.
#[tokio::test(start_paused = true)]
async fn a_primary_that_was_overtaken_while_ceph_hangs_changes_nothing() {
    let world = World::with_pool().await;
    world.does("volume_add vms,one,1G").await;
    world.ceph.take(Duration::from_secs(5));
    let id = world.ask("volume_remove vms,one").await;
    while !matches!(world.seen(id).await.task.state, TaskState::Running { .. }) {
        sleep(Duration::from_millis(100)).await;
    }
    // Its look at Ceph goes on, and then it is asked for the change.
    sleep(Duration::from_secs(7)).await;
    world.base.primary("hv2").await;
    sleep(Duration::from_mins(2)).await;
    let images = world.ceph.images(&"vms".parse().unwrap()).await.unwrap();
    assert_eq!(images, ["one"], "{:?}", world.ceph.changes());
}

#[tokio::test(start_paused = true)]
async fn a_pool_with_something_in_its_trash_is_not_removed() {
    let world = World::with_pool().await;
    world.ceph.hide(&"vms".parse().unwrap(), Hidden { namespaces: 0, trash: 3 });
    assert!(world.refuses("pool_remove vms").await.contains("3 images in its trash"));
}

/// VM 1 has had `vms/one` open on a node that lost its power, as the whole site did, and is off.
#[tokio::test(start_paused = true)]
async fn locks_are_flushed_of_a_vm_that_is_off_and_of_no_other() {
    let world = World::with_pool().await;
    world.does("volume_add vms,one,1G").await;
    world.define("vms/one").await;
    let image: ImageName = "vms/one".parse().unwrap();
    let from = Ipv4Addr::new(10, 0, 0, 9);
    let [recorded, silent] = [(); 2].map(|()| world.ceph.open(&image, from));
    assert!(recorded.write(1) && silent.write(2));
    let id = "11111111-0000-4000-8000-000000000001";
    let clients =
        VmClients { clients: [recorded.address].into(), images: [image.clone()].into(), boot: None };
    world.record(id.parse().unwrap(), "hv2", &clients).await;

    let line = format!("flush_locks {id}");
    world.claim("hv2").await;
    assert!(world.refuses(&line).await.contains("may be executing on hv2"));
    assert!(silent.write(3), "nobody is shut out");
    world.claim("").await;

    // It runs unclaimed, here or elsewhere, by the last word of who executes it.
    for node in ["hv1", "hv3"] {
        world.says_it_runs(node, id).await;
        let why = world.refuses(&line).await;
        assert!(why.contains(&format!("may be executing on {node} by its last word")), "{why}");
        world.says_it_runs(node, "").await;
    }
    let why = world.refuses(&line).await;
    assert!(why.contains(&format!("client {}, which is recorded as its own", recorded.address)), "{why}");
    assert!(recorded.write(3) && silent.write(3), "nobody is shut out");

    // Who is heard is spared, and told.
    world.ceph.lose_sight_of(&recorded);
    let why = world.refuses(&line).await;
    assert!(why.contains(&format!("client {} has vms/one open", silent.address)), "{why}");
    assert!(!recorded.write(4) && silent.write(5));
    let (records, _) = schema::vm_clients::read_all(&*world.base.store).await.unwrap();
    assert!(records.is_empty(), "{records:?}");

    world.ceph.lose_sight_of(&silent);
    world.does(&line).await;
    assert!(!silent.write(6));
    assert_eq!(world.ceph.users(&image).await.unwrap().unwrap(), Users::default());
    assert!(world.refuses("flush_locks 11111111-0000-4000-8000-000000000009").await.contains("no VM"));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_shut_out_of_a_vm_that_is_heard_of_while_ceph_is_asked() {
    let world = World::with_pool().await;
    world.does("volume_add vms,one,1G").await;
    world.define("vms/one").await;
    world.base.cluster.catch_up_with_everybody().await.unwrap();
    let silent = world.ceph.open(&image("vms/one"), Ipv4Addr::new(10, 0, 0, 9));
    assert!(silent.write(1));
    world.ceph.lose_sight_of(&silent);
    let id = "11111111-0000-4000-8000-000000000001";
    // For the first minute it is looked at whether the task may be done; then the fence asks who uses the image, and who is shut out.
    world.ceph.take(Duration::from_secs(10));
    let task = world.ask(&format!("flush_locks {id}")).await;
    sleep(Duration::from_secs(70)).await;
    world.says_it_runs("hv3", id).await;
    let why = world.outcome(task).await.unwrap_err();
    assert!(why.contains("may be executing on hv3 by its last word"), "{why}");
    assert!(silent.write(2));
}

#[tokio::test(start_paused = true)]
async fn who_is_shut_out_is_told_and_let_in_only_after_its_machine_has_booted() {
    let world = World::with_pool().await;
    world.does("volume_add vms,one,1G").await;
    let image: ImageName = "vms/one".parse().unwrap();
    let dead = world.ceph.open(&image, Ipv4Addr::new(10, 0, 0, 9));
    assert!(dead.write(1));
    world.ceph.lose_sight_of(&dead);
    let vm = "11111111-0000-4000-8000-000000000001".parse().unwrap();
    world.base.set("/nodes/hv2/boot", "first").await;
    let boot = Some("first".to_owned());
    let clients = VmClients { clients: [dead.address].into(), images: [image].into(), boot };
    world.record(vm, "hv2", &clients).await;
    let Some(Found::Locks(found)) = world.finds("locks vms").await else { panic!("no locks") };
    assert_eq!((found.rows[0].holder, found.rows[0].node.as_deref()), (Holder::Silent, Some("hv2")));

    let lift = format!("fence_lift {}", dead.address);
    assert!(world.refuses(&lift).await.contains("is not shut out by pvcd"));
    world.define("vms/one").await;
    world.base.cluster.catch_up_with_everybody().await.unwrap();
    world.does(&format!("flush_locks {vm}")).await;
    assert!(!dead.write(2));
    let Some(Found::ShutOut(found)) = world.finds("fence_list hv2").await else { panic!("nobody") };
    assert_eq!((found.rows.len(), found.rows[0].whose.as_deref()), (1, Some("vm1")));
    assert!(world.refuses(&lift).await.contains("has not booted since"));
    world.does("fence_lift *").await;
    assert!(!dead.write(3), "it is not among all that are proven dead");

    world.base.set("/nodes/hv2/boot", "second").await;
    world.base.cluster.catch_up_with_everybody().await.unwrap();
    world.does("fence_lift *").await;
    assert!(world.ceph.blocklisted().await.unwrap().is_empty());
    assert!(schema::shut_out::read_all(&*world.base.store).await.unwrap().0.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_hangs_is_told_by_a_look_at_locks_and_holds_up_nobody_for_long() {
    let world = World::with_pool().await;
    for n in 0..20 {
        world.does(&format!("volume_add vms,v{n},1G")).await;
    }
    world.ceph.hang(&"vms".parse().unwrap());
    let Some(Found::Locks(found)) = world.finds("locks vms").await else { panic!("no locks") };
    assert!(found.unknown.iter().any(|why| why.contains("does not answer")), "{:?}", found.unknown);
}
