//! Random walks: the fake and ZooKeeper give the same answers to the same calls, whatever they are.

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;
use pvc_store::{
    Check, CommitError, CreateMode, Op, Store, StoreError, Transaction, Watch, WatchEvent,
    memory::MemoryTree,
    testing::ZooKeeperProcess,
    zookeeper::{Options, ZooKeeperStore},
};

/// One of two clients does something.
#[derive(Debug, Clone)]
enum Step {
    Commit(usize, Vec<Op>),
    Get(usize, String),
    Children(usize, String),
    Reconnect(usize),
}

/// Few names, so that operations meet.
fn path() -> impl Strategy<Value = String> {
    "(/[abc]){1,3}"
}

fn op() -> impl Strategy<Value = Op> {
    let version = || prop::option::weighted(0.4, 0..4_i32);
    let data = || prop::collection::vec(any::<u8>(), 0..6);
    let mode = prop_oneof![
        6 => Just(CreateMode::Persistent),
        2 => Just(CreateMode::Ephemeral),
        2 => Just(CreateMode::EphemeralSequential),
    ];
    prop_oneof![
        8 => (path(), data(), mode).prop_map(|(path, data, mode)| Op::Create { path, data, mode }),
        4 => (path(), data(), version()).prop_map(|(path, data, version)| Op::Set { path, data, version }),
        3 => (path(), version()).prop_map(|(path, version)| Op::Delete { path, version }),
        1 => path().prop_map(|path| Op::Check { path, check: Check::Exists }),
        1 => (path(), 0..4_i32).prop_map(|(path, v)| Op::Check { path, check: Check::Version(v) }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..2_usize;
    let ops = prop_oneof![3 => prop::collection::vec(op(), 1..2), 2 => prop::collection::vec(op(), 0..6)];
    prop_oneof![
        12 => (who(), ops).prop_map(|(who, ops)| Step::Commit(who, ops)),
        3 => (who(), path()).prop_map(|(who, path)| Step::Get(who, path)),
        3 => (who(), path()).prop_map(|(who, path)| Step::Children(who, path)),
        1 => who().prop_map(Step::Reconnect),
    ]
}

/// Two clients of one tree, below a key of this walk.
struct Side {
    root: String,
    clients: Vec<(Arc<dyn Store>, Watch)>,
}

impl Side {
    async fn new(root: &str, stores: [Arc<dyn Store>; 2]) -> Self {
        let create = Op::Create { path: root.into(), data: vec![], mode: CreateMode::Persistent };
        stores[0].commit(Transaction { ops: vec![create] }).await.unwrap();
        let mut side = Self { root: root.to_owned(), clients: vec![] };
        for store in stores {
            let watch = side.watch(&*store).await;
            side.clients.push((store, watch));
        }
        side
    }

    async fn watch(&self, store: &dyn Store) -> Watch {
        let mut watch = store.watch(&self.root);
        assert_eq!(watch.recv().await, Some(WatchEvent::Resync));
        watch
    }

    fn below(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    /// Does a step and says everything that can be seen of it.
    async fn take(&mut self, step: &Step, next: Option<Arc<dyn Store>>) -> String {
        match step {
            Step::Commit(who, ops) => {
                let ops_were_empty = ops.is_empty();
                let ops = ops.iter().map(|op| self.moved(op)).collect();
                let (store, watch) = &mut self.clients[*who];
                let outcome = store.commit(Transaction { ops }).await;
                let answered = outcome.is_ok() && !ops_were_empty;
                let outcome = match outcome {
                    Ok(done) => format!("created {:?}, id told {}", done.created, done.zxid > 0),
                    Err(CommitError::Conflict { op, path, clash }) => {
                        format!("conflict at {op} {path}: {clash}")
                    }
                    Err(CommitError::Failed(StoreError::Refused { what, .. })) => format!("refused {what}"),
                    Err(other) => panic!("{other}"),
                };
                if !answered {
                    return outcome;
                }
                // What the other client did before is certainly reported once one's own write is answered.
                let mut events = BTreeSet::new();
                while let Ok(event) = watch.try_recv() {
                    events.insert(format!("{event:?}"));
                }
                format!("{outcome}, events {events:?}")
            }
            Step::Get(who, path) => {
                let value = self.clients[*who].0.get(&self.below(path)).await.unwrap();
                let stat = self.clients[*who].0.stat_many(&[self.below(path)]).await.unwrap()[0];
                assert_eq!(value.as_ref().map(pvc_store::Value::stat), stat);
                format!("{:?}", value.map(|v| (v.data, v.version, v.children)))
            }
            Step::Children(who, path) => {
                let children = self.clients[*who].0.children(&self.below(path)).await.unwrap();
                format!("{:?}", children.map(|names| names.into_iter().collect::<BTreeSet<_>>()))
            }
            Step::Reconnect(who) => {
                self.clients[*who].0.close().await;
                if let Some(store) = next {
                    let watch = self.watch(&*store).await;
                    self.clients[*who] = (store, watch);
                }
                "reconnected".to_owned()
            }
        }
    }

    fn moved(&self, op: &Op) -> Op {
        let mut op = op.clone();
        match &mut op {
            Op::Check { path, .. }
            | Op::Create { path, .. }
            | Op::Set { path, .. }
            | Op::Delete { path, .. } => *path = self.below(path),
        }
        op
    }
}

fn walks() -> u32 {
    // More by hand: PVC_WALKS=2000 cargo test -p pvc-store --test contract walk
    std::env::var("PVC_WALKS").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

#[test]
fn the_fake_answers_as_zookeeper_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = ZooKeeperProcess::start();
    let connect = || -> Arc<dyn Store> { ZooKeeperStore::start(Options::new(server.connect_string())) };
    let walk = std::cell::Cell::new(0);
    let config = ProptestConfig {
        cases: walks(),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&prop::collection::vec(step(), 1..40), |steps| {
        walk.set(walk.get() + 1);
        let root = format!("/walk{}", walk.get());
        runtime.block_on(async {
            let tree = MemoryTree::new();
            let mut fake = Side::new(&root, [tree.client(), tree.client()]).await;
            let mut real = Side::new(&root, [connect(), connect()]).await;
            for (n, step) in steps.iter().enumerate() {
                let reconnects = matches!(step, Step::Reconnect(_));
                let said = fake.take(step, reconnects.then(|| -> Arc<dyn Store> { tree.client() })).await;
                let truth = real.take(step, reconnects.then(connect)).await;
                prop_assert_eq!(said, truth, "step {}: {:?}", n, step);
            }
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
