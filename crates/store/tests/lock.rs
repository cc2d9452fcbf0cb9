//! The lock beside kazoo itself, on a real ZooKeeper. Needs Debian's package `python3-kazoo`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "starts the old clients' library, which is the point")]

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use pvc_store::{
    CreateMode, Op, Store, Transaction,
    lock::{Kind, Lock},
    testing::ZooKeeperProcess,
    zookeeper::{Options, ZooKeeperStore},
};

const KEY: &str = "/cmd";
const SOON: Duration = Duration::from_mins(1);
const ROUNDS: u32 = 40;

/// Contenders that add to `/one`, then to `/two`, under a lock; readers that see them differ fail.
const KAZOO: &str = r#"
import sys
from kazoo.client import KazooClient
hosts, kind, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
zk = KazooClient(hosts=hosts)
zk.start()
for i in range(rounds):
    if kind == "write":
        lock = zk.WriteLock("/cmd")
        lock.acquire()
        for key in ("/one", "/two"):
            value, stat = zk.get(key)
            zk.set(key, str(int(value) + 1).encode())
        lock.release()
    else:
        lock = zk.ReadLock("/cmd")
        lock.acquire()
        one, two = zk.get("/one")[0], zk.get("/two")[0]
        lock.release()
        assert one == two, (one, two)
zk.stop()
"#;

struct Kazoo(Child);

impl Kazoo {
    fn start(server: &ZooKeeperProcess, kind: &str) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", KAZOO, &server.connect_string(), kind, &ROUNDS.to_string()]).stdin(Stdio::null());
        Self(command.spawn().expect("python3 is missing: apt-get install python3-kazoo"))
    }

    fn succeeds(mut self) {
        assert!(self.0.wait().unwrap().success(), "kazoo's contender failed: see above");
    }
}

impl Drop for Kazoo {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn number(store: &dyn Store, path: &str) -> u32 {
    let value = store.get(path).await.unwrap().unwrap();
    String::from_utf8(value.data).unwrap().parse().unwrap()
}

async fn write(store: Arc<dyn Store>) {
    for _ in 0..ROUNDS {
        let lock = Lock::acquire(store.clone(), KEY, Kind::Write, SOON).await.unwrap();
        for path in ["/one", "/two"] {
            let data = (number(&*store, path).await + 1).to_string().into();
            // Unchecked on purpose: only the lock protects it.
            let op = Op::Set { path: path.into(), data, version: None };
            store.commit(Transaction { ops: vec![op] }).await.unwrap();
        }
        lock.release().await;
    }
}

async fn read(store: Arc<dyn Store>) {
    for _ in 0..ROUNDS {
        let lock = Lock::acquire(store.clone(), KEY, Kind::Read, SOON).await.unwrap();
        let (one, two) = (number(&*store, "/one").await, number(&*store, "/two").await);
        lock.release().await;
        assert_eq!(one, two, "a writer was seen at work");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_of_ours_and_three_of_kazoos_exclude_each_other_and_leave_nothing_behind() {
    let server = tokio::task::spawn_blocking(ZooKeeperProcess::start).await.unwrap();
    let connect = || ZooKeeperStore::start(Options::new(server.connect_string()));
    let store = connect();
    let create = |path: &str, data: &str| Op::Create {
        path: path.into(),
        data: data.into(),
        mode: CreateMode::Persistent,
    };
    let ops = vec![create(KEY, ""), create("/one", "0"), create("/two", "0")];
    store.commit(Transaction { ops }).await.unwrap();

    let theirs = [
        Kazoo::start(&server, "write"),
        Kazoo::start(&server, "write"),
        Kazoo::start(&server, "write"),
        Kazoo::start(&server, "read"),
    ];
    let ours: Vec<_> = (0..4)
        .map(|i| {
            let store = connect();
            if i < 3 { tokio::spawn(write(store)) } else { tokio::spawn(read(store)) }
        })
        .collect();
    for task in ours {
        task.await.unwrap();
    }
    tokio::task::spawn_blocking(|| theirs.into_iter().for_each(Kazoo::succeeds)).await.unwrap();
    assert_eq!(number(&*store, "/one").await, 6 * ROUNDS);
    assert_eq!(number(&*store, "/two").await, 6 * ROUNDS);
    assert_eq!(store.children(KEY).await.unwrap(), Some(vec![]));
}
