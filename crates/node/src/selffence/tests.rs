//! The task over a fake store and a fake watchdog; keepalives are made by the test. The clock is paused.

use pvc_core::model::DaemonMode;
use pvc_host::watchdog::fake::FakeWatchdog;
use pvc_store::{
    memory::{MemoryStore, MemoryTree},
    schema::{maintenance, node, root},
};
use tokio::time::sleep;

use super::*;

const WITHIN: Duration = Duration::from_secs(6);

struct World {
    store: Arc<MemoryStore>,
    eye: Arc<MemoryStore>,
    watchdog: Arc<FakeWatchdog>,
    keepalives: watch::Sender<Option<Instant>>,
    fence: SelfFence,
}

impl World {
    async fn new(watchdog: Arc<FakeWatchdog>) -> Self {
        let tree = MemoryTree::new();
        let (store, eye) = (tree.client(), tree.client());
        root::init(&*store).await.unwrap();
        let registration = node::Registration {
            name: me(),
            mode: DaemonMode::Coordinator,
            static_data: "8 6.1 GNU/Linux x86_64".parse().unwrap(),
            boot: "boot".into(),
            keepalive_interval: std::time::Duration::from_secs(5),
            vtep: None,
            storage: true,
            ipmi: node::Ipmi::default(),
        };
        node::register(&*store, &registration).await.unwrap();
        let mirror = Mirror::start(store.clone());
        mirror.ready().await;
        let (keepalives, acknowledged) = watch::channel(None);
        let fence = SelfFence::start(Dependencies {
            me: me(),
            store: store.clone(),
            mirror,
            watchdog: Some(watchdog.clone()),
            within: Some(WITHIN),
            acknowledged,
            place: Place::here(),
        });
        Self { store, eye, watchdog, keepalives, fence }
    }

    async fn keepalive(&self) {
        self.keepalives.send_replace(Some(Instant::now()));
        sleep(Duration::from_millis(100)).await;
    }

    async fn keepalives(&self, count: u32) {
        for _ in 0..count {
            self.keepalive().await;
            sleep(Duration::from_millis(900)).await;
        }
    }

    async fn told(&self) -> Option<u32> {
        match node::read(&*self.eye, &me()).await.unwrap() {
            Some(node) => node.self_fence_s,
            other => panic!("{other:?}"),
        }
    }
}

fn me() -> NodeName {
    "node1".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_armed_before_the_first_acknowledged_keepalive_and_each_further_one_feeds() {
    let world = World::new(FakeWatchdog::new()).await;
    sleep(Duration::from_mins(10)).await;
    assert!(!world.watchdog.is_armed() && world.told().await.is_none());
    world.keepalives(20).await;
    assert_eq!((world.watchdog.feeds(), world.watchdog.fired_at()), (20, None));
    assert_eq!(world.told().await, Some(6), "the others may count on it");
    let last = world.keepalives.borrow().unwrap();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(world.watchdog.fired_at(), Some(last + WITHIN), "counted from when the keepalive was sent");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_to_count_on_a_guard_that_ends_with_the_daemon() {
    let world = World::new(FakeWatchdog::without_device()).await;
    world.keepalives(3).await;
    assert!(world.watchdog.is_armed());
    assert_eq!(world.told().await, None);
}

#[tokio::test(start_paused = true)]
async fn maintenance_disarms_it_and_the_next_keepalive_after_it_arms_it_again() {
    let world = World::new(FakeWatchdog::new()).await;
    world.keepalives(2).await;
    maintenance::set(&*world.eye, true).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(!world.watchdog.is_armed());
    assert_eq!(world.told().await, None);
    world.keepalives(10).await;
    assert!(!world.watchdog.is_armed(), "keepalives do not arm it now");
    maintenance::set(&*world.eye, false).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(!world.watchdog.is_armed(), "an old keepalive does not count");
    world.keepalives(1).await;
    assert_eq!((world.watchdog.is_armed(), world.told().await), (true, Some(6)));
    assert_eq!(world.watchdog.fired_at(), None);
}

#[tokio::test(start_paused = true)]
async fn maintenance_that_cannot_be_answered_leaves_it_armed_and_fed() {
    let world = World::new(FakeWatchdog::new()).await;
    world.keepalives(2).await;
    world.store.refuse(5);
    maintenance::set(&*world.eye, true).await.unwrap();
    world.keepalives(3).await;
    assert!(world.watchdog.is_armed() && world.watchdog.fired_at().is_none(), "the others still count on it");
    world.keepalives(10).await;
    assert!(!world.watchdog.is_armed() && world.watchdog.fired_at().is_none());
    assert_eq!(world.told().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_order_disarms_it_but_not_before_the_others_know() {
    let world = World::new(FakeWatchdog::new()).await;
    world.keepalives(2).await;
    let (told, watchdog) = (world.told().await, Arc::clone(&world.watchdog));
    assert_eq!(told, Some(6));
    world.fence.disarm(Duration::from_secs(2)).await;
    assert!(!watchdog.is_armed());

    let world = World::new(FakeWatchdog::new()).await;
    world.keepalives(2).await;
    world.store.suspend();
    let watchdog = Arc::clone(&world.watchdog);
    let began = Instant::now();
    world.fence.disarm(Duration::from_secs(2)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(2), "a stop is not held up");
    assert!(watchdog.is_armed(), "without ZooKeeper nobody knows, so the reset comes");
}

#[tokio::test(start_paused = true)]
async fn a_promise_that_was_given_though_its_answer_was_lost_is_taken_back_before_anything_is_disarmed() {
    for maintenance in [true, false] {
        let world = World::new(FakeWatchdog::new()).await;
        // The write that promises is done, and not answered; then nothing is answered for a while.
        world.store.lose_answers(1);
        world.keepalive().await;
        assert_eq!(world.told().await, Some(6));
        world.store.refuse(5);
        let watchdog = Arc::clone(&world.watchdog);
        if maintenance {
            maintenance::set(&*world.eye, true).await.unwrap();
            for _ in 0..6 {
                world.keepalives(1).await;
                assert!(watchdog.is_armed() || world.told().await.is_none(), "it is promised still");
            }
            world.keepalives(10).await;
            assert_eq!((watchdog.is_armed(), world.told().await), (false, None));
        } else {
            let eye = Arc::clone(&world.eye);
            world.fence.disarm(Duration::from_secs(2)).await;
            let node = node::read(&*eye, &me()).await.unwrap().unwrap();
            assert!(watchdog.is_armed() || node.self_fence_s.is_none(), "it is promised still");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_write_over_a_promise_is_put_right() {
    let world = World::new(FakeWatchdog::new()).await;
    world.keepalives(2).await;
    for text in ["", "3600", "soon"] {
        let path = format!("{}/selffence", node::path(&me()));
        let op = pvc_store::Op::Set { path, data: text.into(), version: None };
        world.eye.commit(pvc_store::Transaction { ops: vec![op] }).await.unwrap();
        world.keepalives(3).await;
        assert_eq!(world.told().await, Some(6), "{text:?}");
    }
}
