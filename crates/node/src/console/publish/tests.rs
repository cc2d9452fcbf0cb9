//! Budgets over a fake store; the clock is paused.

use pvc_store::{
    CreateMode, Op, Transaction,
    memory::{MemoryStore, MemoryTree},
};
use tokio::time::sleep;

use super::*;
use crate::console::tail::Printed;

const RATES: Rates = Rates { vm: 64 * 1024, node: 256 * 1024 };
const HEAVY: usize = 900 * 1024;

fn id(n: usize) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
}

struct World {
    store: Arc<MemoryStore>,
    publisher: Publisher,
    consoles: Vec<Arc<Console>>,
}

impl World {
    async fn new(vms: usize) -> Self {
        let store = MemoryTree::new().client();
        let create = |path: String| Op::Create { path, data: vec![], mode: CreateMode::Persistent };
        let mut ops = vec![create("/domains".into())];
        for n in 0..vms {
            ops.extend([create(schema::vm::path(id(n))), create(schema::vm::console_log_path(id(n)))]);
        }
        store.commit(Transaction { ops }).await.unwrap();
        let publisher = start(store.clone(), RATES);
        let console = |n: usize| Arc::new(Console::new(id(n), format!("vm{n}").parse().unwrap(), 1_000_000));
        let consoles: Vec<_> = (0..vms).map(console).collect();
        for console in &consoles {
            publisher.follow(Arc::clone(console));
        }
        Self { store, publisher, consoles }
    }

    fn print(&self, n: usize, text: &str) {
        self.consoles[n].tail().take(Printed::Bytes(text.as_bytes()));
        if !self.consoles[n].news.swap(true, Ordering::AcqRel) {
            self.publisher.news(id(n));
        }
    }

    /// So often was it written, and what it is.
    async fn stored(&self, n: usize) -> (usize, String) {
        let value = self.store.get(&schema::vm::console_log_path(id(n))).await.unwrap().unwrap();
        (usize::try_from(value.version).unwrap(), String::from_utf8(value.data).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_prints_without_end_is_written_by_its_budget_and_a_quiet_ones_line_at_once() {
    let world = World::new(2).await;
    world.print(0, &"x\n".repeat(HEAVY / 2));
    for second in 0..1800 {
        world.print(0, "x\n");
        if second % 60 == 30 {
            world.print(1, &format!("{second}\n"));
            sleep(Duration::from_millis(10)).await;
            assert!(world.stored(1).await.1.ends_with(&format!("{second}\n")), "at {second} s");
        }
        sleep(Duration::from_secs(1)).await;
    }
    let (writes, text) = world.stored(0).await;
    let mean = writes * text.len() / 1800;
    assert!((60 * 1024..70 * 1024).contains(&mean), "{mean} bytes a second in {writes} writes");
    world.print(0, "last\n");
    sleep(Duration::from_secs(15)).await;
    assert!(world.stored(0).await.1.ends_with("last\n"), "what is kept is the same");
}

#[tokio::test(start_paused = true)]
async fn many_that_print_without_end_share_the_nodes_budget_and_none_is_forgotten() {
    const VMS: usize = 12;
    let world = World::new(VMS + 1).await;
    (0..VMS).for_each(|n| world.print(n, &"x\n".repeat(HEAVY / 2)));
    for second in 0..3600 {
        (0..VMS).for_each(|n| world.print(n, "x\n"));
        if second % 60 == 30 {
            world.print(VMS, &format!("{second}\n"));
        }
        sleep(Duration::from_secs(1)).await;
        if second % 60 == 34 {
            assert!(world.stored(VMS).await.1.ends_with(&format!("{}\n", second - 4)), "at {second} s");
        }
    }
    let mut writes = Vec::new();
    for n in 0..VMS {
        writes.push(world.stored(n).await.0);
    }
    let mean = writes.iter().sum::<usize>() * HEAVY / 3600;
    assert!((240 * 1024..270 * 1024).contains(&mean), "{mean} bytes a second: {writes:?}");
    assert!(writes.iter().max().unwrap() - writes.iter().min().unwrap() <= 4, "{writes:?}");
}
