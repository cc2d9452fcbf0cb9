//! From a real file, through inotify, to the store.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use pvc_store::{
    Check, CreateMode, Op, Transaction,
    memory::{MemoryStore, MemoryTree},
    schema,
};
use tokio::time::{Instant, sleep};

use super::*;

/// Longer than anything takes on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(30);

const RATES: Rates = Rates { vm: 64 * 1024, node: 256 * 1024 };

struct Cluster {
    dir: tempfile::TempDir,
    store: Arc<MemoryStore>,
    logs: ConsoleLogs,
    id: VmId,
    name: VmName,
}

impl Cluster {
    async fn new(lines: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = MemoryTree::new().client();
        let id = "11111111-0000-4000-8000-000000000001".parse().unwrap();
        let path = schema::vm::console_log_path(id);
        let mut parents = Transaction::default();
        for (i, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            parents.ops.push(Op::Create {
                path: path[..i].into(),
                data: vec![],
                mode: CreateMode::Persistent,
            });
        }
        store.commit(parents).await.unwrap();
        let logs = ConsoleLogs::start(
            store.clone(),
            &Consoles { directory: dir.path().join("console"), lines, rates: RATES },
        )
        .unwrap();
        Self { dir, store, logs, id, name: "web1".parse().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.dir.path().join("console")).unwrap();
        self.dir.path().join("console").join(name)
    }

    fn print(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn follow(&self) {
        self.logs.follow(self.id, &self.name);
    }

    async fn stored(&self) -> String {
        schema::vm::read_console_log(&*self.store, self.id).await.unwrap()
    }

    async fn writes(&self) -> i32 {
        self.store.get(&schema::vm::console_log_path(self.id)).await.unwrap().unwrap().version
    }

    async fn becomes(&self, text: &str) {
        let until = Instant::now() + DEADLINE;
        while self.stored().await != text {
            let stored = self.stored().await;
            assert!(Instant::now() < until, "the store holds {stored:?} instead of {text:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn what_a_guest_prints_is_in_the_store_at_once_and_then_once_a_second() {
    let cluster = Cluster::new(3).await;
    cluster.follow();
    cluster.print("web1.log", "booting\n");
    let printed = Instant::now();
    cluster.becomes("booting\n").await;
    assert!(
        printed.elapsed() < Duration::from_millis(900),
        "the first line does not wait for a second to pass"
    );
    let mut lines = 0;
    while printed.elapsed() < Duration::from_millis(2500) {
        lines += 1;
        cluster.print("web1.log", format!("line {lines}\n"));
        sleep(Duration::from_millis(5)).await;
    }
    cluster.becomes(&format!("line {}\nline {}\nline {lines}\n", lines - 2, lines - 1)).await;
    let (writes, seconds) = (cluster.writes().await, printed.elapsed().as_secs());
    assert!(u64::try_from(writes).unwrap() <= seconds + 1, "{writes} writes in {seconds} s");
}

#[tokio::test]
async fn what_is_stored_already_is_not_written_again() {
    let cluster = Cluster::new(100).await;
    cluster.print("web1.log", "old\n");
    cluster.store.commit(schema::vm::console_log(cluster.id, "old\n")).await.unwrap();
    cluster.follow();
    cluster.print("web1.log", "new\n");
    cluster.becomes("old\nnew\n").await;
    let before = cluster.writes().await;
    let again = ConsoleLogs::start(
        cluster.store.clone(),
        &Consoles { directory: cluster.dir.path().join("console"), lines: 100, rates: RATES },
    )
    .unwrap();
    again.follow(cluster.id, &cluster.name);
    cluster.logs.forget(cluster.id);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.writes().await, before, "a restarted daemon found the same text there");
}

#[tokio::test]
async fn rotation_and_truncation_lose_nothing() {
    let cluster = Cluster::new(100).await;
    cluster.follow();
    cluster.print("web1.log", "one\n");
    cluster.becomes("one\n").await;
    cluster.print("web1.log", "two\n");
    fs::rename(cluster.path("web1.log"), cluster.path("web1.log.0")).unwrap();
    cluster.print("web1.log.0", "three\n");
    cluster.print("web1.log", "four\n");
    cluster.becomes("one\ntwo\nthree\nfour\n").await;
    fs::copy(cluster.path("web1.log"), cluster.path("web1.log.1")).unwrap();
    fs::write(cluster.path("web1.log"), "").unwrap();
    cluster.print("web1.log", "five, and longer than the file was before\n");
    cluster.becomes("one\ntwo\nthree\nfour\nfive, and longer than the file was before\n").await;
}

#[tokio::test]
async fn a_forgotten_vms_last_words_are_written_and_nothing_after_them() {
    let cluster = Cluster::new(100).await;
    cluster.follow();
    cluster.print("web1.log", "hello\n");
    cluster.becomes("hello\n").await;
    cluster.print("web1.log", "reboot: Power down\n");
    cluster.logs.forget(cluster.id);
    cluster.becomes("hello\nreboot: Power down\n").await;
    cluster.print("web1.log", "somebody else's\n");
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(cluster.stored().await, "hello\nreboot: Power down\n");
    cluster.follow();
    cluster.becomes("hello\nreboot: Power down\nsomebody else's\n").await;
}

#[tokio::test]
async fn while_the_store_is_away_nothing_is_lost() {
    let cluster = Cluster::new(100).await;
    cluster.follow();
    cluster.print("web1.log", "before\n");
    cluster.becomes("before\n").await;
    cluster.store.suspend();
    for i in 0..50 {
        cluster.print("web1.log", format!("line {i}\n"));
    }
    cluster.store.resume();
    let all: Vec<String> = (0..50).map(|i| format!("line {i}\n")).collect();
    cluster.becomes(&format!("before\n{}", all.concat())).await;
}

#[tokio::test]
async fn a_vm_that_vanishes_and_returns_is_no_trouble() {
    let cluster = Cluster::new(100).await;
    let path = schema::vm::console_log_path(cluster.id);
    cluster.follow();
    cluster.print("web1.log", "one\n");
    cluster.becomes("one\n").await;
    let gone = Transaction { ops: vec![Op::Delete { path: path.clone(), version: None }] };
    cluster.store.commit(gone).await.unwrap();
    cluster.print("web1.log", "two\n");
    sleep(Duration::from_millis(1200)).await;
    let check = Op::Check { path: path.clone(), check: Check::Exists };
    assert!(
        cluster.store.commit(Transaction { ops: vec![check] }).await.is_err(),
        "its key was not brought back"
    );
    let back = Op::Create { path, data: vec![], mode: CreateMode::Persistent };
    cluster.store.commit(Transaction { ops: vec![back] }).await.unwrap();
    cluster.print("web1.log", "three\n");
    cluster.becomes("one\ntwo\nthree\n").await;
}

#[tokio::test]
async fn without_lines_to_keep_nothing_is_followed() {
    let cluster = Cluster::new(0).await;
    cluster.print("web1.log", "hello\n");
    cluster.follow();
    sleep(Duration::from_millis(200)).await;
    assert_eq!((cluster.stored().await.as_str(), cluster.writes().await), ("", 0));
}
