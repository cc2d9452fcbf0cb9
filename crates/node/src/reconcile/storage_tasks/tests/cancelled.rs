//! Tasks that are begun, and are to end before they are done.

use pvc_store::CommitError;

use super::*;

const ENDED: &str = "cancelled by somebody";

impl World {
    pub(super) async fn cancel(&self, id: TaskId) {
        let store = &*self.base.store;
        while let Err(error) = task::ask_to_end(store, &self.seen(id).await, "somebody", 2).await {
            assert!(matches!(error, CommitError::Conflict { .. }), "{error:?}");
        }
    }

    /// Waits until Ceph has said how far it is.
    async fn is_told(&self, id: TaskId) {
        while self.seen(id).await.task.progress.is_none() {
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn is_as_before(&self) {
        assert_eq!(self.names().await, ["one"]);
        let there = self.ceph.image(&image("vms/one")).await.unwrap().unwrap();
        assert_eq!((there.snapshots, self.ceph.contents(&image("vms/one"))), (vec!["daily".into()], Some(2)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_is_cancelled_ends_at_once_and_leaves_nothing() {
    let (world, writer) = World::with_snapshot().await;
    world.ceph.take_for_all_of_it(Duration::from_hours(2));
    let id = world.ask("volume_clone vms,one,now,*").await;
    world.is_told(id).await;
    // Its removal does not.
    world.ceph.take_for_all_of_it(Duration::ZERO);
    let began = Instant::now();
    world.cancel(id).await;
    while !world.seen(id).await.task.is_over() {
        sleep(Duration::from_secs(1)).await;
    }
    // The fake looks up at each twentieth of a copy.
    assert!(began.elapsed() < Duration::from_mins(7), "{:?}", began.elapsed());
    assert_eq!(world.outcome(id).await.unwrap_err(), ENDED);
    world.is_as_before().await;
    assert!(writer.write(3));
    world.does("volume_clone vms,one,now,*").await;
}

/// Whoever was to hear of it is no more, or was another one.
#[tokio::test(start_paused = true)]
async fn the_next_worker_ends_what_a_dead_one_was_to_end() {
    for next in ["hv1", "hv2"] {
        let (mut world, _writer) = World::with_snapshot().await;
        let id = world.is_at("volume_clone vms,one,now,*", "copying").await;
        let _second = world.second();
        world.ceph.take_for_all_of_it(Duration::ZERO);
        if next == "hv1" {
            world.cancel(id).await;
            world.begin_anew();
        } else {
            // There is no primary when it is asked for.
            world.base.primary("hv3").await;
            world.cancel(id).await;
            world.base.primary(next).await;
        }
        assert_eq!(world.outcome(id).await.unwrap_err(), ENDED, "{next}");
        world.is_as_before().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_ends_before_it_has_written_and_goes_on_after_that() {
    let line = "snapshot_rollback vms,one,daily";
    for (change, step, ends) in [
        ("renaming image vms/one", "warranted", true),
        ("renaming image vms/one", "begun", true),
        ("rolling vms/pvc-task", "begun", false),
        ("renaming image vms/pvc-task", "warranted", false),
    ] {
        let (world, writer) = World::with_snapshot().await;
        writer.close();
        let id = world.freezes(line, change, step).await;
        world.cancel(id).await;
        world.ceph.go_on();
        let outcome = world.outcome(id).await;
        if ends {
            assert_eq!(outcome.unwrap_err(), ENDED, "{change}, {step}");
            world.is_as_before().await;
        } else {
            assert_eq!(outcome, Ok(()), "{change}, {step}");
            assert_eq!(
                (world.names().await, world.ceph.contents(&image("vms/one"))),
                (vec!["one".into()], Some(1))
            );
        }
    }
    // It says at once that it goes on, and goes on saying how far it is.
    let (world, writer) = World::with_snapshot().await;
    writer.close();
    let id = world.is_at(line, "rolling").await;
    world.is_told(id).await;
    world.cancel(id).await;
    sleep(Duration::from_secs(3)).await;
    let told = world.seen(id).await.task;
    assert!(told.cancel.unwrap().refused.unwrap().contains("would hold neither") && told.progress < Some(50));
    sleep(Duration::from_secs(10)).await;
    assert!(world.seen(id).await.task.progress > Some(50), "{:?}", world.seen(id).await);
    assert_eq!(world.outcome(id).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_removal_ends_before_ceph_has_begun_it_and_not_after_that() {
    let world = World::with_pool().await;
    world.does("volume_add vms,one,8388608B").await;
    let _second = world.second();
    // The next primary finds what was asked for of the one before, which froze.
    let id = world.freezes("volume_remove vms,one", "removing", "looked").await;
    world.cancel(id).await;
    world.base.primary("hv2").await;
    assert_eq!(world.outcome(id).await.unwrap_err(), ENDED);
    world.ceph.go_on();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(world.names().await, ["one"]);

    let id = world.is_at("volume_remove vms,one", "removing image vms/one").await;
    world.is_told(id).await;
    world.cancel(id).await;
    assert_eq!(world.outcome(id).await, Ok(()));
    assert!(world.seen(id).await.task.cancel.unwrap().refused.unwrap().contains("does not come back"));
}
