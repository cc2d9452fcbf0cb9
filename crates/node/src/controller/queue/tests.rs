use std::time::Duration;

use tokio::time::{advance, timeout};

use super::*;

fn vm(n: u8) -> Subject {
    Subject::Vm(format!("00000000-0000-4000-8000-0000000000{n:02x}").parse().unwrap())
}

async fn nothing(queue: &Arc<Queue>) -> bool {
    timeout(Duration::from_millis(1), queue.next()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn pokes_of_one_subject_are_merged() {
    let queue = Arc::new(Queue::new(8));
    for _ in 0..3 {
        queue.poke(vm(1));
    }
    queue.poke(vm(2));
    assert_eq!(queue.next().await.unwrap().subject(), &vm(1));
    assert_eq!(queue.next().await.unwrap().subject(), &vm(2));
    assert!(nothing(&queue).await);
}

#[tokio::test(start_paused = true)]
async fn a_subject_is_never_looked_at_twice_at_once_and_a_poke_meanwhile_is_kept() {
    let queue = Arc::new(Queue::new(8));
    queue.poke(vm(1));
    let look = queue.next().await.unwrap();
    queue.poke(vm(1));
    assert!(nothing(&queue).await);
    drop(look);
    assert_eq!(queue.next().await.unwrap().subject(), &vm(1));
    assert!(nothing(&queue).await);
}

#[tokio::test(start_paused = true)]
async fn a_booked_look_comes_at_its_time_and_only_the_last_booking_counts() {
    let queue = Arc::new(Queue::new(8));
    let begin = Instant::now();
    queue.book(&vm(1), Some(begin + Duration::from_secs(5)));
    queue.book(&vm(1), Some(begin + Duration::from_secs(9)));
    queue.next().await;
    assert_eq!(begin.elapsed().as_secs(), 9);
    assert!(nothing(&queue).await);
    queue.book(&vm(1), Some(Instant::now()));
    queue.book(&vm(1), None);
    assert!(nothing(&queue).await);
}

#[tokio::test(start_paused = true)]
async fn a_poke_takes_the_place_of_a_booking() {
    let queue = Arc::new(Queue::new(8));
    queue.book(&vm(1), Some(Instant::now() + Duration::from_secs(5)));
    queue.poke(vm(1));
    drop(queue.next().await);
    advance(Duration::from_secs(10)).await;
    assert!(nothing(&queue).await);
}

#[tokio::test(start_paused = true)]
async fn a_booking_that_comes_due_during_a_look_is_kept() {
    let queue = Arc::new(Queue::new(8));
    queue.poke(vm(1));
    let look = queue.next().await.unwrap();
    look.again_at(Some(Instant::now() + Duration::from_secs(1)));
    advance(Duration::from_secs(2)).await;
    assert!(nothing(&queue).await);
    drop(look);
    assert_eq!(queue.next().await.unwrap().subject(), &vm(1));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_reader_is_woken_by_a_poke_from_elsewhere() {
    let queue = Arc::new(Queue::new(8));
    let reader = pvc_process::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.next().await.unwrap().subject().clone() }
    });
    tokio::task::yield_now().await;
    queue.poke(vm(3));
    assert_eq!(reader.await.unwrap(), vm(3));
}
