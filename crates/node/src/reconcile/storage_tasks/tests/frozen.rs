//! A primary that freezes between any two steps of a change, the next one, which goes on without it, and a VM that starts meanwhile.

use pvc_core::model::ceph::PoolName;
use pvc_host::machine::FakeMachine;
use pvc_store::{
    Store,
    mirror::{Mirror, Needs},
};

use super::{several_steps::SIZE, *};

impl World {
    /// hv2 carries tasks out as soon as it is primary.
    pub(super) fn second(&self) -> StorageTasks {
        let store: Arc<dyn Store> = self.base.tree.client();
        let needs = Needs { me: Some(name("hv2")), networks: true, ..Needs::default() };
        let mirror = Mirror::start_on(Arc::clone(&store), &needs);
        let cluster = Cluster::new(name("hv2"), store, mirror, Arc::new(FakeMachine::default()));
        StorageTasks::start(cluster, self.ceph.clone())
    }

    /// hv1 freezes at a step of a change that this task makes.
    pub(super) async fn freezes(&self, line: &str, change: &str, step: &'static str) -> TaskId {
        self.ceph.stop_change(change, step);
        let store = &*self.base.store;
        let id = task::ask(store, &line.parse().unwrap(), true, "root on hv1", 1).await.unwrap();
        for _ in 0..1000 {
            if self.ceph.has_stopped() {
                return id;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{line}: {change} has not come to {step}: {:?}", self.seen(id).await);
    }

    /// It goes on where it stopped, and has time for whatever it may do then.
    async fn goes_on(&self) {
        self.ceph.go_on();
        sleep(Duration::from_mins(1)).await;
    }

    fn writer(&self) -> pvc_host::ceph::fake::FakeWriter {
        self.ceph.open(&image("vms/one"), [10, 0, 0, 3].into())
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_of_a_frozen_primary_does_nothing_to_a_vm_that_has_started_since() {
    for change in ["renaming image vms/one", "rolling vms/pvc-task", "renaming image vms/pvc-task"] {
        for step in FakeCeph::STEPS {
            let (world, writer) = World::with_snapshot().await;
            writer.close();
            let _second = world.second();
            let id = world.freezes("snapshot_rollback vms,one,daily", change, step).await;
            world.base.primary("hv2").await;
            assert_eq!(world.outcome(id).await, Ok(()), "{change}, {step}");
            assert_eq!(world.ceph.contents(&image("vms/one")), Some(1), "{change}, {step}");
            let vm = world.writer();
            assert!(vm.write(3), "{change}, {step}");
            world.goes_on().await;
            assert_eq!(world.ceph.contents(&image("vms/one")), Some(3), "{change}, {step}");
            assert_eq!(world.names().await, ["one"], "{change}, {step}");
            assert!(vm.write(4), "{change}, {step}");
        }
    }
}

/// The next primary refuses the task, and changes nothing itself: what the first one had begun ends all the same.
#[tokio::test(start_paused = true)]
async fn a_volume_that_became_a_vms_while_the_primary_froze_is_neither_shrunk_nor_removed_nor_renamed() {
    for (line, change) in [
        ("volume_resize vms,one,4194304B", "resizing"),
        ("volume_remove vms,one", "removing"),
        ("volume_rename vms,one,two", "renaming"),
    ] {
        for step in FakeCeph::STEPS {
            let world = World::with_pool().await;
            world.does("volume_add vms,one,8388608B").await;
            let _second = world.second();
            let id = world.freezes(line, change, step).await;
            world.define("vms/one").await;
            world.base.primary("hv2").await;
            let why = world.outcome(id).await.unwrap_err();
            assert!(why.contains("VM vm1"), "{line}, {step}: {why}");
            let vm = world.writer();
            assert!(vm.write(3), "{line}, {step}");
            world.goes_on().await;
            let there = world.ceph.image(&image("vms/one")).await.unwrap().unwrap();
            assert_eq!(there.stats.size, SIZE, "{line}, {step}");
            assert!(vm.write(4), "{line}, {step}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_made_anew_while_the_primary_froze_stays() {
    for step in FakeCeph::STEPS {
        let world = World::with_pool().await;
        world.does("volume_add vms,one,8388608B").await;
        let _second = world.second();
        let id = world.freezes("volume_remove vms,one", "removing", step).await;
        world.base.primary("hv2").await;
        assert_eq!(world.outcome(id).await, Ok(()), "{step}");
        world.does("volume_add vms,one,8388608B").await;
        let made = world.ceph.image(&image("vms/one")).await.unwrap();
        world.goes_on().await;
        assert_eq!(world.ceph.image(&image("vms/one")).await.unwrap(), made, "{step}");
    }
}

/// What the monitors are asked for nobody shuts out.
#[tokio::test(start_paused = true)]
async fn a_pool_that_was_made_anew_while_the_primary_froze_keeps_its_volumes() {
    for change in ["removing pool", "renaming pool"] {
        let world = World::with_pool().await;
        let _second = world.second();
        let id = world.freezes("pool_remove vms", change, "warranted").await;
        world.base.primary("hv2").await;
        assert_eq!(world.outcome(id).await, Ok(()), "{change}");
        world.does("pool_add vms,8").await;
        world.does("volume_add vms,one,8388608B").await;
        world.goes_on().await;
        // A renaming that comes late is undone by another.
        let aside = PoolName::of_task(&world.seen(id).await.task.mark());
        let now = if change == "renaming pool" { aside } else { "vms".parse().unwrap() };
        assert_eq!(world.ceph.images(&now).await, Ok(vec!["one".to_owned()]), "{change}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_shut_out_for_a_task_is_let_in_when_its_machine_has_booted_since() {
    let (world, writer) = World::with_snapshot().await;
    writer.close();
    world.base.set("/nodes/hv1/boot", "first").await;
    world.base.cluster.catch_up_with_everybody().await.unwrap();
    let _second = world.second();
    let id =
        world.freezes("snapshot_rollback vms,one,daily", "rolling vms/pvc-task", FakeCeph::STEPS[0]).await;
    world.base.primary("hv2").await;
    assert_eq!(world.outcome(id).await, Ok(()));
    let Some(Found::ShutOut(found)) = world.finds("fence_list hv1").await else { panic!("nobody") };
    let whose = format!("task {id}");
    assert_eq!((found.rows.len(), found.rows[0].whose.as_deref()), (1, Some(whose.as_str())));
    world.does("fence_lift *").await;
    assert_eq!(world.ceph.blocklisted().await.unwrap().len(), 1, "its process may live on");
    world.base.set("/nodes/hv1/boot", "second").await;
    world.base.cluster.catch_up_with_everybody().await.unwrap();
    world.does("fence_lift *").await;
    assert!(world.ceph.blocklisted().await.unwrap().is_empty());
}

/// Nobody else is primary: the lock of the image is what keeps the one from the other.
#[tokio::test(start_paused = true)]
async fn who_opens_a_volume_while_its_rollback_is_frozen_loses_nothing() {
    for step in ["looked", "locked", "looked again", "begun"] {
        let (world, writer) = World::with_snapshot().await;
        // It has found the image by its name, and registers with it when that has another one already.
        writer.close();
        let id = world.freezes("snapshot_rollback vms,one,daily", "rolling", step).await;
        let aside = VolumeName::of_task(&world.seen(id).await.task.mark());
        let vm = world.ceph.open(&image(&format!("vms/{aside}")), [10, 0, 0, 3].into());
        assert!(vm.write(3), "{step}");
        world.goes_on().await;
        assert!(vm.write(4), "{step}");
        assert!(world.outcome(id).await.is_err(), "{step}");
        assert_eq!(world.ceph.contents(&image("vms/one")), Some(4), "{step}: it has its name again");
    }
}

/// As when an operator gives the work to another node.
#[tokio::test(start_paused = true)]
async fn who_is_primary_no_more_ends_its_change_if_it_goes_on() {
    let (world, writer) = World::with_snapshot().await;
    writer.close();
    let _second = world.second();
    let id = world.is_at("snapshot_rollback vms,one,daily", "rolling").await;
    world.base.primary("hv2").await;
    sleep(Duration::from_secs(10)).await;
    let trouble = world.seen(id).await.task.trouble.unwrap_or_default();
    assert!(trouble.contains("is changing it"), "{trouble}");
    assert_eq!(world.outcome(id).await, Ok(()));
    let rolled = world.ceph.changes().iter().filter(|change| change.starts_with("rolling")).count();
    assert_eq!((rolled, world.ceph.contents(&image("vms/one"))), (1, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_shut_out_for_what_has_ended_and_by_whom_stands_at_the_task() {
    let (world, writer) = World::with_snapshot().await;
    writer.close();
    let id = world.ask("snapshot_rollback vms,one,daily").await;
    assert_eq!(world.outcome(id).await, Ok(()));
    assert!(world.seen(id).await.task.changer.is_some());
    assert!(world.ceph.blocklisted().await.unwrap().is_empty());
}
