//! A store that is asked once: what was read below some keys is kept until a watch tells that it has changed. For who only looks, again and again.
//!
//! Never older than what the store has committed or shown: before anything kept is given out, all events of that are taken. While the connection is lost,
//! nothing is given out and nothing kept. Bounded: what does not fit is read each time.
//!
//! ```text
//! unknown ── somebody reads ─▶ being read ── answered ─▶ kept
//!    ▲                             │                       │
//!    └──── it changed, or the connection was lost ─────────┘
//! ```

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use async_trait::async_trait;
use tokio::task::AbortHandle;

use crate::{Children, Layer, Store, StoreError, Value, Watch, WatchEvent};

/// So many bytes are kept: of 10,000 volumes with their figures, among other things.
const MOST: usize = 8 << 20;
/// What a key costs besides its path and its text.
const EACH: usize = 160;

/// The store, and what it has said.
pub struct Kept {
    store: Arc<dyn Store>,
    shelf: Arc<Mutex<Shelf>>,
    /// Takes events while nobody reads, so that they do not pile up.
    taker: AbortHandle,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.taker.abort();
    }
}

impl Kept {
    /// Of this store, for what is below these keys. Needs a tokio runtime.
    pub fn of(store: Arc<dyn Store>, roots: &[&'static str]) -> Arc<dyn Store> {
        Arc::new(Self::no_more_than(MOST, store, roots))
    }

    fn no_more_than(most: usize, store: Arc<dyn Store>, roots: &[&'static str]) -> Self {
        let roots =
            roots.iter().map(|path| Root { path, watch: store.watch(path), is_told: false }).collect();
        let shelf = Arc::new(Mutex::new(Shelf { roots, keys: BTreeMap::new(), bytes: 0, most, tickets: 0 }));
        let taken = Arc::clone(&shelf);
        let taker = pvc_process::spawn(poll_fn(move |cx| lock(&taken).take(cx)));
        Self { store, shelf, taker: taker.abort_handle() }
    }

    /// Answers from what is kept, and reads the rest in one request.
    async fn answer<T: Part>(&self, paths: &[String]) -> Result<Vec<Option<T>>, StoreError> {
        self.store.show_events().await;
        let is_healthy = self.store.session().borrow().is_healthy();
        let mut answers: Vec<Found<T>> = {
            let mut shelf = lock(&self.shelf);
            // Nobody is woken by this: the taker's own place in the queue stays.
            shelf.take_all();
            paths
                .iter()
                .map(|path| if is_healthy { shelf.find(path) } else { Found::Unknown(None) })
                .collect()
        };
        let unknown: Vec<usize> =
            (0..answers.len()).filter(|at| matches!(answers[*at], Found::Unknown(_))).collect();
        if !unknown.is_empty() {
            let missing: Vec<String> = unknown.iter().map(|at| paths[*at].clone()).collect();
            let read = T::read(&*self.store, &missing).await?;
            let mut shelf = lock(&self.shelf);
            for (at, part) in unknown.into_iter().zip(read) {
                if let Found::Unknown(Some(ticket)) = answers[at] {
                    shelf.keep(&paths[at], ticket, part.clone());
                }
                answers[at] = Found::Known(part);
            }
        }
        let known = |found| match found {
            Found::Known(part) => part,
            Found::Unknown(_) => None,
        };
        Ok(answers.into_iter().map(known).collect())
    }
}

/// What there is to know of a key: its content, or the names of its children.
#[async_trait]
trait Part: Clone + Send + Sized + 'static {
    async fn read(store: &dyn Store, paths: &[String]) -> Result<Vec<Option<Self>>, StoreError>;
    fn of(key: &mut Key) -> &mut State<Self>;
    fn bytes(&self) -> usize;
}

#[async_trait]
impl Part for Value {
    async fn read(store: &dyn Store, paths: &[String]) -> Result<Vec<Option<Self>>, StoreError> {
        match paths {
            [path] => Ok(vec![store.get(path).await?]),
            paths => store.get_many(paths).await,
        }
    }

    fn of(key: &mut Key) -> &mut State<Self> {
        &mut key.value
    }

    fn bytes(&self) -> usize {
        self.data.len()
    }
}

#[async_trait]
impl Part for Children {
    async fn read(store: &dyn Store, paths: &[String]) -> Result<Vec<Option<Self>>, StoreError> {
        match paths {
            [path] => Ok(vec![store.children(path).await?]),
            paths => store.children_many(paths).await,
        }
    }

    fn of(key: &mut Key) -> &mut State<Self> {
        &mut key.children
    }

    fn bytes(&self) -> usize {
        self.iter().map(|name| name.len() + size_of::<String>()).sum()
    }
}

enum Found<T> {
    Known(Option<T>),
    /// To be read; with this number it is kept then.
    Unknown(Option<u64>),
}

struct Shelf {
    roots: Vec<Root>,
    keys: BTreeMap<String, Key>,
    bytes: usize,
    most: usize,
    tickets: u64,
}

struct Root {
    path: &'static str,
    watch: Watch,
    /// Whether all that changes is told.
    is_told: bool,
}

#[derive(Default)]
struct Key {
    value: State<Value>,
    children: State<Children>,
}

#[derive(Default)]
enum State<T> {
    #[default]
    Unknown,
    /// Somebody reads it who has this number, and it has not changed since.
    Read(u64),
    Known(Option<T>),
}

impl<T: Part> State<T> {
    fn bytes(&self) -> usize {
        if let Self::Known(Some(part)) = self { part.bytes() } else { 0 }
    }
}

impl Shelf {
    /// Takes what has been told, and waits for more.
    fn take(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for at in 0..self.roots.len() {
            loop {
                let root = &mut self.roots[at];
                match root.watch.poll_recv(cx) {
                    Poll::Ready(Some(event)) => self.note(at, event),
                    Poll::Ready(None) => {
                        root.is_told = false;
                        return Poll::Ready(());
                    }
                    Poll::Pending => break,
                }
            }
        }
        Poll::Pending
    }

    /// Takes what has been told by now.
    fn take_all(&mut self) {
        for at in 0..self.roots.len() {
            while let Ok(event) = self.roots[at].watch.try_recv() {
                self.note(at, event);
            }
            if self.roots[at].watch.is_closed() {
                self.roots[at].is_told = false;
            }
        }
    }

    fn note(&mut self, at: usize, event: WatchEvent) {
        match event {
            WatchEvent::Changed(path) => {
                // A key that comes or goes is another child of what is above it.
                if let Some((parent, _)) = path.rsplit_once('/') {
                    self.forget(if parent.is_empty() { "/" } else { parent });
                }
                self.forget(&path);
            }
            WatchEvent::Resync | WatchEvent::Interrupted => {
                let root = &mut self.roots[at];
                root.is_told = event == WatchEvent::Resync;
                let root = root.path;
                let below: Vec<String> =
                    self.keys.keys().filter(|path| is_below(path, root)).cloned().collect();
                for path in below {
                    self.forget(&path);
                }
            }
        }
    }

    fn forget(&mut self, path: &str) {
        if let Some(key) = self.keys.remove(path) {
            self.bytes -= path.len() + EACH + key.value.bytes() + key.children.bytes();
        }
    }

    fn find<T: Part>(&mut self, path: &str) -> Found<T> {
        let is_told = self.roots.iter().any(|root| root.is_told && is_below(path, root.path));
        if let Some(State::Known(part)) = self.keys.get_mut(path).map(T::of)
            && is_told
        {
            return Found::Known(part.clone());
        }
        if !is_told || self.bytes > self.most {
            return Found::Unknown(None);
        }
        // Whoever reads it already reads for both: nothing has changed since.
        if let Some(State::Read(ticket)) = self.keys.get_mut(path).map(T::of) {
            return Found::Unknown(Some(*ticket));
        }
        self.tickets += 1;
        if !self.keys.contains_key(path) {
            self.bytes += path.len() + EACH;
        }
        *T::of(self.keys.entry(path.to_owned()).or_default()) = State::Read(self.tickets);
        Found::Unknown(Some(self.tickets))
    }

    /// Keeps what was read, unless it has changed meanwhile or somebody else reads it anew.
    fn keep<T: Part>(&mut self, path: &str, ticket: u64, part: Option<T>) {
        let Some(state) = self.keys.get_mut(path).map(T::of) else { return };
        if !matches!(state, State::Read(by) if *by == ticket) {
            return;
        }
        let bytes = part.as_ref().map_or(0, T::bytes);
        if self.bytes + bytes > self.most {
            // As if it had never been asked for: the other part of it as well.
            self.forget(path);
            return;
        }
        *state = State::Known(part);
        self.bytes += bytes;
    }
}

fn is_below(path: &str, root: &str) -> bool {
    root == "/" || path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Layer for Kept {
    fn below(&self) -> &dyn Store {
        &*self.store
    }

    async fn get(&self, path: &str) -> Result<Option<Value>, StoreError> {
        Ok(self.answer(&[path.to_owned()]).await?.into_iter().next().flatten())
    }

    async fn children(&self, path: &str) -> Result<Option<Children>, StoreError> {
        Ok(self.answer(&[path.to_owned()]).await?.into_iter().next().flatten())
    }

    async fn get_many(&self, paths: &[String]) -> Result<Vec<Option<Value>>, StoreError> {
        self.answer(paths).await
    }

    async fn children_many(&self, paths: &[String]) -> Result<Vec<Option<Children>>, StoreError> {
        self.answer(paths).await
    }
}
