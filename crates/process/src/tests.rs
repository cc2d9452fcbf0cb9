//! That a process is frozen and killed as a whole.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval, sleep},
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Takes the first.
fn scheduler() -> Scheduler {
    Scheduler::new(|_| 0)
}

/// Counts seconds in a detached task's set's task, until it is dropped.
fn count(seconds: &Arc<AtomicU64>) -> impl Future<Output = ()> + use<> {
    let seconds = Arc::clone(seconds);
    async move {
        let mut set = JoinSet::new();
        set.spawn(async move {
            let mut tick = interval(SECOND);
            loop {
                tick.tick().await;
                seconds.fetch_add(1, Ordering::Relaxed);
            }
        });
        spawn(async move { while set.join_next().await.is_some() {} });
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_frozen_process_missed_comes_late() {
    let (process, seconds) = (scheduler().process("a"), Arc::default());
    process.spawn(count(&seconds));
    sleep(SECOND * 5 / 2).await;
    assert_eq!(seconds.load(Ordering::Relaxed), 3);
    process.freeze();
    sleep(10 * SECOND).await;
    assert_eq!(seconds.load(Ordering::Relaxed), 3);
    process.thaw();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(seconds.load(Ordering::Relaxed), 13);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_killed_process_is_polled_again_and_all_of_it_is_dropped() {
    for frozen in [false, true] {
        let (process, seconds) = (scheduler().process("a"), Arc::default());
        process.spawn(count(&seconds));
        sleep(SECOND / 2).await;
        if frozen {
            process.freeze();
            sleep(SECOND).await;
        }
        process.kill();
        sleep(10 * SECOND).await;
        assert_eq!(seconds.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&seconds), 1, "its task is left, frozen: {frozen}");
        process.thaw();
        process.spawn(count(&seconds));
        sleep(SECOND).await;
        assert_eq!(seconds.load(Ordering::Relaxed), 1, "a killed process starts nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_that_were_ready_when_their_process_was_killed_do_not_run() {
    let process = scheduler().process("a");
    let (sender, mut receiver) = mpsc::unbounded_channel();
    for _ in 0..3 {
        let (sender, own) = (sender.clone(), process.clone());
        process.spawn(async move {
            let _ = sender.send(());
            own.kill();
        });
    }
    drop(sender);
    let mut ran = 0;
    while receiver.recv().await.is_some() {
        ran += 1;
    }
    assert_eq!(ran, 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_task_starts_is_of_its_process_and_others_are_not_touched() {
    let scheduler = scheduler();
    let (process, other) = (scheduler.process("a"), scheduler.process("b"));
    let (sender, mut receiver) = mpsc::unbounded_channel();
    for process in [&process, &other] {
        let sender = sender.clone();
        process.spawn(async move {
            spawn(async move {
                loop {
                    let name = Process::current().map(|process| process.name().to_owned());
                    let _ = sender.send(name.unwrap_or_default());
                    sleep(SECOND).await;
                }
            });
        });
    }
    assert!(Process::current().is_none());
    sleep(SECOND / 2).await;
    process.freeze();
    sleep(SECOND).await;
    let mut names = Vec::new();
    while let Ok(name) = receiver.try_recv() {
        names.push(name);
    }
    assert_eq!(names, ["a", "b", "b"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_process_a_task_is_a_task() {
    let began = Instant::now();
    spawn(sleep(SECOND)).await.unwrap();
    assert_eq!(began.elapsed(), SECOND);
}

/// The order in which some receivers of one `watch` channel hear of something, and then tell each other.
async fn order(choose: impl FnMut(usize) -> usize + Send + 'static) -> Vec<u8> {
    let process = Scheduler::new(choose).process("a");
    let news = watch::Sender::new(0);
    let (sender, mut heard) = mpsc::unbounded_channel();
    for n in 0..20 {
        let (mut receiver, sender) = (news.subscribe(), sender.clone());
        process.spawn(async move {
            while receiver.changed().await.is_ok() {
                let _ = sender.send(n);
            }
        });
    }
    for _ in 0..10 {
        sleep(SECOND).await;
        news.send_modify(|n| *n += 1);
    }
    drop((news, sender));
    let mut order = Vec::new();
    while let Some(n) = heard.recv().await {
        order.push(n);
    }
    order
}

#[tokio::test(start_paused = true)]
async fn tasks_run_in_the_order_that_is_chosen_and_no_other() {
    let in_turn: Vec<u8> = (0..10).flat_map(|_| 0..20).collect();
    assert_eq!(order(|_| 0).await, in_turn, "a watch channel wakes in a random order");
    let mut n = 0;
    let some = move || {
        move |count| {
            n += 7;
            n % count
        }
    };
    let first = order(some()).await;
    assert_ne!(first, in_turn);
    assert_eq!(order(some()).await, first);
}
