//! Tasks that go beside each other, and that do not.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_takes_moments_does_not_wait_for_what_takes_hours() {
    let (world, writer) = World::with_snapshot().await;
    world.ceph.take_for_all_of_it(Duration::from_hours(5));
    let copy = world.ask("volume_clone vms,one,copy,*").await;
    while world.seen(copy).await.task.progress.is_none() {
        sleep(Duration::from_secs(1)).await;
    }
    let began = Instant::now();
    for line in
        ["volume_add vms,two,1M", "snapshot_add vms,one,weekly", "volume_rename vms,two,three", "locks *"]
    {
        world.does(line).await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // The copy needs its source, and whoever has another change of that waits, too.
    let waits =
        [world.ask("snapshot_rollback vms,one,daily").await, world.ask("snapshot_add vms,one,x").await];
    sleep(Duration::from_mins(10)).await;
    for id in waits {
        assert_eq!(world.seen(id).await.task.state, TaskState::Waiting);
    }
    assert!(writer.write(3));
    world.ceph.take_for_all_of_it(Duration::ZERO);
    world.cancel(copy).await;
    task::cancel(&*world.base.store, &world.seen(waits[0]).await, "somebody", 2).await.unwrap();
    assert!(world.outcome_within(copy, Duration::from_mins(20)).await.is_err());
    assert_eq!(world.outcome(waits[1]).await, Ok(()));
}

/// A few of those that take long, however many are asked for; and the others have places meanwhile.
#[tokio::test(start_paused = true)]
async fn only_so_many_copies_and_removals_go_on_at_once() {
    let (world, _writer) = World::with_snapshot().await;
    for n in 0..6 {
        world.does(&format!("volume_add vms,v{n},1M")).await;
    }
    world.ceph.take_for_all_of_it(Duration::from_mins(4));
    let mut asked = Vec::new();
    for n in 0..6 {
        asked.push(world.ask(&format!("volume_clone vms,one,copy{n},daily")).await);
        asked.push(world.ask(&format!("volume_remove vms,v{n}")).await);
    }
    sleep(Duration::from_mins(1)).await;
    let under_way = async |of: &[TaskId]| {
        let mut count = 0;
        for id in of {
            count += usize::from(world.seen(*id).await.task.progress.is_some());
        }
        count
    };
    assert_eq!(under_way(&asked).await, COPIES + SWEEPS);
    world.does("volume_add vms,fast,1M").await;
    // One that waits for its turn hears that it is to end.
    let last = asked[10];
    world.cancel(last).await;
    assert!(world.outcome(last).await.unwrap_err().contains("cancelled"));
    for id in asked.iter().filter(|id| **id != last) {
        assert_eq!(world.outcome_within(*id, Duration::from_mins(30)).await, Ok(()));
    }
}

/// Ceph answers nothing about one pool.
#[tokio::test(start_paused = true)]
async fn tasks_that_fail_again_and_again_hold_up_no_other() {
    let world = World::with_pool().await;
    world.does("pool_add other,8").await;
    for n in 0..10 {
        world.does(&format!("volume_add vms,v{n},1M")).await;
    }
    world.ceph.hang(&"vms".parse().unwrap());
    let mut waits = Vec::new();
    for n in 0..10 {
        waits.push(world.ask(&format!("snapshot_rollback vms,v{n},daily")).await);
    }
    sleep(Duration::from_mins(2)).await;
    world.does("volume_add other,one,1M").await;
    for id in waits {
        assert!(!world.seen(id).await.task.is_over());
    }
}

/// Another node is primary for a while, and then again this one.
#[tokio::test(start_paused = true)]
async fn who_is_primary_again_takes_up_what_is_left() {
    let (world, _writer) = World::with_snapshot().await;
    let copy = world.is_at("volume_clone vms,one,copy,daily", "copying").await;
    world.base.primary("hv2").await;
    let asked = world.ask("volume_add vms,two,1M").await;
    sleep(Duration::from_mins(5)).await;
    assert_eq!(world.seen(asked).await.task.state, TaskState::Waiting);
    world.ceph.take_for_all_of_it(Duration::from_secs(20));
    world.base.primary("hv1").await;
    assert_eq!(world.outcome(asked).await, Ok(()));
    assert_eq!(world.outcome_within(copy, Duration::from_mins(20)).await, Ok(()));
}
