//! The lock beside kazoo itself, on a real ZooKeeper. Needs Debian's package `python3-kazoo`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "starts the old clients' library, which is the point")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use pvc_store::{
    CreateMode, Op, Store, Transaction,
    lock::{Kind, Lock, LockError},
    testing::ZooKeeperProcess,
    zookeeper::{Options, ZooKeeperStore},
};

const KEY: &str = "/cmd";
const SOON: Duration = Duration::from_mins(1);
const ROUNDS: u32 = 40;

/// Adds to `/one`, then to `/two`, under a lock.
const WRITER: &str = r#"
import sys
from kazoo.client import KazooClient
zk = KazooClient(hosts=sys.argv[1])
zk.start()
for i in range(int(sys.argv[2])):
    lock = zk.WriteLock("/cmd")
    lock.acquire()
    for key in ("/one", "/two"):
        value, stat = zk.get(key)
        zk.set(key, str(int(value) + 1).encode())
    lock.release()
zk.stop()
"#;

/// Reads `/one` under a read lock, says what it was, and holds the lock until its input ends.
const READER: &str = r#"
import sys
from kazoo.client import KazooClient
zk = KazooClient(hosts=sys.argv[1])
zk.start()
lock = zk.ReadLock("/cmd")
lock.acquire()
print(zk.get("/one")[0].decode(), flush=True)
sys.stdin.read()
lock.release()
zk.stop()
"#;

struct Kazoo(Child);

impl Kazoo {
    fn start(server: &ZooKeeperProcess, program: &str) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", program, &server.connect_string(), &ROUNDS.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("python3 is missing: apt-get install python3-kazoo"))
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn end_input(&mut self) {
        drop(self.0.stdin.take());
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

fn create(path: &str, data: &str) -> Op {
    Op::Create { path: path.into(), data: data.into(), mode: CreateMode::Persistent }
}

async fn server() -> ZooKeeperProcess {
    tokio::task::spawn_blocking(ZooKeeperProcess::start).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_of_ours_and_three_of_kazoos_exclude_each_other_and_leave_nothing_behind() {
    let server = server().await;
    let connect = || ZooKeeperStore::start(Options::new(server.connect_string()));
    let store = connect();
    let ops = vec![create(KEY, ""), create("/one", "0"), create("/two", "0")];
    store.commit(Transaction { ops }).await.unwrap();

    let theirs = [(); 3].map(|()| Kazoo::start(&server, WRITER));
    let ours: Vec<_> = (0..4)
        .map(|i| {
            let store = connect();
            if i < 3 { pvc_process::spawn(write(store)) } else { pvc_process::spawn(read(store)) }
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

/// As an old client reads the daemon's answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_kazoos_waits_for_our_writer_and_our_writer_for_it() {
    let server = server().await;
    let store: Arc<dyn Store> = ZooKeeperStore::start(Options::new(server.connect_string()));
    store.commit(Transaction { ops: vec![create(KEY, ""), create("/one", "early")] }).await.unwrap();

    let ours = Lock::acquire(store.clone(), KEY, Kind::Write, SOON).await.unwrap();
    let mut theirs = Kazoo::start(&server, READER);
    while store.children(KEY).await.unwrap().unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let op = Op::Set { path: "/one".into(), data: b"answer".into(), version: None };
    store.commit(Transaction { ops: vec![op] }).await.unwrap();
    ours.release().await;
    assert_eq!(tokio::task::block_in_place(|| theirs.says()), "answer");

    Lock::acquire(store.clone(), KEY, Kind::Read, SOON).await.unwrap().release().await;
    let busy = Lock::acquire(store.clone(), KEY, Kind::Write, Duration::from_millis(500)).await;
    assert!(matches!(busy, Err(LockError::Busy { .. })), "{busy:?}");
    theirs.end_input();
    Lock::acquire(store.clone(), KEY, Kind::Write, SOON).await.unwrap().release().await;
    tokio::task::block_in_place(|| theirs.succeeds());
    assert_eq!(store.children(KEY).await.unwrap(), Some(vec![]));
}
