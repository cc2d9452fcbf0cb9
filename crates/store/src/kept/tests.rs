use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    CreateMode, Op, Transaction,
    memory::{MemoryStore, MemoryTree},
};

/// Counts the keys that are asked for, and holds answers back when it is told to.
struct Asked {
    store: Arc<MemoryStore>,
    keys: AtomicUsize,
    /// Answers wait for a permit of this.
    gate: Option<tokio::sync::Semaphore>,
}

impl Asked {
    fn of(tree: &MemoryTree, gate: Option<tokio::sync::Semaphore>) -> Arc<Self> {
        Arc::new(Self { store: tree.client(), keys: AtomicUsize::new(0), gate })
    }

    fn keys(&self) -> usize {
        self.keys.swap(0, Ordering::Relaxed)
    }

    async fn pass<T>(&self, keys: usize, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        self.keys.fetch_add(keys, Ordering::Relaxed);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        answer
    }
}

#[async_trait]
impl Layer for Asked {
    fn below(&self) -> &dyn Store {
        &*self.store
    }

    async fn get(&self, path: &str) -> Result<Option<Value>, StoreError> {
        self.pass(1, self.store.get(path).await).await
    }

    async fn children(&self, path: &str) -> Result<Option<Children>, StoreError> {
        self.pass(1, self.store.children(path).await).await
    }

    async fn get_many(&self, paths: &[String]) -> Result<Vec<Option<Value>>, StoreError> {
        self.pass(paths.len(), self.store.get_many(paths).await).await
    }

    async fn children_many(&self, paths: &[String]) -> Result<Vec<Option<Children>>, StoreError> {
        self.pass(paths.len(), self.store.children_many(paths).await).await
    }
}

fn create(path: &str, data: &str) -> Op {
    Op::Create { path: path.into(), data: data.into(), mode: CreateMode::Persistent }
}

fn set(path: &str, data: &str) -> Op {
    Op::Set { path: path.into(), data: data.into(), version: None }
}

async fn commit(store: &dyn Store, ops: Vec<Op>) {
    store.commit(Transaction { ops }).await.unwrap();
}

async fn text(store: &dyn Store, path: &str) -> Option<String> {
    store.get(path).await.unwrap().map(|value| String::from_utf8(value.data).unwrap())
}

async fn names(store: &dyn Store, path: &str) -> Vec<String> {
    let mut names = store.children(path).await.unwrap().unwrap_or_default();
    names.sort_unstable();
    names
}

/// Two roots, of which only `/a` is kept.
async fn tree() -> MemoryTree {
    let tree = MemoryTree::new();
    commit(&*tree.client(), vec![create("/a", ""), create("/a/x", "1"), create("/b", "1")]).await;
    tree
}

#[tokio::test]
async fn what_was_read_is_read_again_when_it_has_changed_and_what_is_not_there_is_known_too() {
    let tree = tree().await;
    let (asked, other) = (Asked::of(&tree, None), tree.client());
    let kept = Kept::of(asked.clone(), &["/a"]);
    let look = async || {
        let some: Vec<String> = ["/a/x", "/a/y"].map(str::to_owned).into();
        let many = kept.get_many(&some).await.unwrap();
        let many: Vec<Option<Vec<u8>>> = many.into_iter().map(|v| v.map(|v| v.data)).collect();
        (text(&*kept, "/a/x").await, names(&*kept, "/a").await, many)
    };
    let first = look().await;
    assert_eq!(first, (Some("1".into()), vec!["x".to_owned()], vec![Some(b"1".to_vec()), None]));
    assert!(asked.keys() > 0);
    for _ in 0..3 {
        assert_eq!(look().await, first);
    }
    assert_eq!(asked.keys(), 0);
    commit(&*other, vec![set("/a/x", "2"), create("/a/y", "3")]).await;
    let second = look().await;
    assert_eq!(second.0.as_deref(), Some("2"));
    assert_eq!((second.1, second.2[1].as_deref()), (vec!["x".to_owned(), "y".to_owned()], Some(&b"3"[..])));
    assert_eq!(asked.keys(), 3, "x, y and the names");
    commit(&*kept, vec![Op::Delete { path: "/a/y".into(), version: None }]).await;
    assert_eq!(look().await.1, ["x"], "what it has written itself");
    asked.keys();
    for _ in 0..2 {
        assert_eq!(text(&*kept, "/b").await.as_deref(), Some("1"));
    }
    assert_eq!(asked.keys(), 2, "nobody tells of what is not below its roots");
}

#[tokio::test]
async fn what_changes_while_it_is_being_read_is_not_kept() {
    let tree = tree().await;
    let (asked, other) = (Asked::of(&tree, Some(tokio::sync::Semaphore::new(0))), tree.client());
    let kept = Kept::of(asked.clone(), &["/a"]);
    let mut read = Box::pin(text(&*kept, "/a/x"));
    assert!(go_on(&mut read).await.is_none(), "the answer is held back");
    commit(&*other, vec![set("/a/x", "2")]).await;
    // Whoever comes now makes it known that this has changed.
    let mut second = Box::pin(text(&*kept, "/a/x"));
    assert!(go_on(&mut second).await.is_none());
    asked.gate.as_ref().unwrap().add_permits(2);
    assert_eq!(read.await.as_deref(), Some("1"), "as it was when it was read");
    assert_eq!(second.await.as_deref(), Some("2"));
    assert_eq!(text(&*kept, "/a/x").await.as_deref(), Some("2"));
    assert_eq!(asked.keys(), 2, "and kept is the newer");
}

/// Lets it go on until it waits.
async fn go_on<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    for _ in 0..20 {
        let polled = poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test]
async fn nothing_is_given_out_while_the_connection_is_lost_nor_kept_from_before() {
    let tree = tree().await;
    let (asked, other) = (Asked::of(&tree, None), tree.client());
    let kept = Kept::of(asked.clone(), &["/a"]);
    assert_eq!(text(&*kept, "/a/x").await.as_deref(), Some("1"));
    asked.store.suspend();
    commit(&*other, vec![set("/a/x", "2")]).await;
    let mut read = Box::pin(text(&*kept, "/a/x"));
    assert!(go_on(&mut read).await.is_none(), "it waits for the connection, as any read");
    asked.store.resume_without_watches();
    assert_eq!(read.await.as_deref(), Some("2"));
    commit(&*other, vec![set("/a/x", "3")]).await;
    assert_eq!(text(&*kept, "/a/x").await.as_deref(), Some("3"), "nothing is kept while nothing is told");
    asked.store.set_watches();
    assert_eq!(text(&*kept, "/a/x").await.as_deref(), Some("3"));
    asked.keys();
    assert_eq!(text(&*kept, "/a/x").await.as_deref(), Some("3"));
    assert_eq!(asked.keys(), 0);
}

#[tokio::test]
async fn what_does_not_fit_is_read_each_time_and_what_is_forgotten_makes_room() {
    let tree = tree().await;
    let (asked, other) = (Asked::of(&tree, None), tree.client());
    let most = 2 * (EACH + "/a/x".len()) + 10;
    let kept: Arc<dyn Store> = Arc::new(Kept::no_more_than(most, asked.clone(), &["/a"]));
    commit(&*other, vec![create("/a/long", &"x".repeat(200)), create("/a/y", "1")]).await;
    for _ in 0..3 {
        assert_eq!(text(&*kept, "/a/long").await.unwrap().len(), 200);
    }
    assert_eq!(asked.keys(), 3);
    for path in ["/a/x", "/a/y", "/a/x", "/a/y"] {
        text(&*kept, path).await;
    }
    assert_eq!(asked.keys(), 2);
    let delete = |path: &str| Op::Delete { path: path.into(), version: None };
    commit(&*other, vec![delete("/a/x"), delete("/a/y"), delete("/a/long"), create("/a/z", "1")]).await;
    for _ in 0..3 {
        text(&*kept, "/a/z").await;
    }
    assert_eq!(asked.keys(), 1);
}

#[tokio::test]
async fn events_are_taken_also_when_nobody_reads() {
    let tree = tree().await;
    let store = tree.client();
    let kept = Kept::no_more_than(MOST, store.clone(), &["/a"]);
    assert_eq!(text(&kept, "/a/x").await.as_deref(), Some("1"));
    for n in 0..100 {
        commit(&*store, vec![set("/a/x", &n.to_string())]).await;
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(lock(&kept.shelf).roots[0].watch.is_empty());
}
