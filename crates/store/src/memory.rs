//! The store in memory, for tests and the simulator: ZooKeeper's semantics, several clients on one tree, faults at will.
//!
//! Deterministic: no thread, no randomness, no clock but tokio's (which tests may pause). It must behave as ZooKeeper does,
//! or the tests on it prove nothing: `tests/contract.rs` runs the same cases on both.

mod faults;
mod observe;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, watch},
    time::{self, timeout_at},
};

pub use self::observe::{Seen, SeenKey};
use self::{
    faults::Faults,
    observe::Observer,
    tree::{Applied, Tree, Znode},
};
use crate::Heard;
use crate::store::{
    Children, CommitError, Committed, NoSession, Op, Session, Stat, Store, StoreError, Transaction, Value,
    Watch, WatchEvent, healthy_by,
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// A tree that several clients share, as ZooKeeper's servers do. Clones are the same tree.
#[derive(Clone, Default)]
pub struct MemoryTree {
    world: Arc<Mutex<World>>,
}

#[derive(Default)]
struct World {
    /// What is committed.
    leader: Tree,
    clients: BTreeMap<u64, ClientState>,
    next_id: u64,
    observer: Observer,
    /// Keys that nobody may read.
    forbidden: BTreeSet<String>,
    /// Keys that nobody may write.
    sealed: BTreeSet<String>,
}

/// What the servers and the network know of a client.
struct ClientState {
    /// The server-side session; a new number for each.
    session: u64,
    epoch: u64,
    connected: bool,
    /// Whether its watches are set on the server.
    watching: bool,
    state: watch::Sender<Session>,
    watches: Vec<(String, mpsc::UnboundedSender<WatchEvent>)>,
    /// The server that this client reads from, if it has fallen behind the leader.
    behind: Option<Behind>,
    faults: Faults,
    session_timeout: Duration,
    heard: Heard,
    /// When the client last said something, or its connection began.
    said: time::Instant,
}

struct Behind {
    tree: Tree,
    pending: Vec<Applied>,
}

/// One client of a [`MemoryTree`]. Dropping it ends its session.
pub struct MemoryStore {
    id: u64,
    world: Arc<Mutex<World>>,
    state: watch::Receiver<Session>,
}

impl fmt::Debug for MemoryTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTree").finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("id", &self.id).finish_non_exhaustive()
    }
}

impl MemoryTree {
    /// A tree with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new client with a healthy session of its own.
    pub fn client(&self) -> Arc<MemoryStore> {
        let mut world = lock(&self.world);
        let (tx, state) = watch::channel(Session::Healthy { epoch: 1 });
        let id = world.new_id();
        let session = world.new_id();
        let client = ClientState {
            session,
            epoch: 1,
            connected: true,
            watching: true,
            state: tx,
            watches: Vec::new(),
            behind: None,
            faults: Faults::default(),
            session_timeout: SESSION_TIMEOUT,
            heard: Heard::opened(time::Instant::now()),
            said: time::Instant::now(),
        };
        world.clients.insert(id, client);
        Arc::new(MemoryStore { id, world: Arc::clone(&self.world), state })
    }

    /// Every committed key with its content, for assertions.
    pub fn dump(&self) -> BTreeMap<String, Vec<u8>> {
        let world = lock(&self.world);
        world.leader.iter().map(|(path, node)| (path.to_owned(), node.data().to_vec())).collect()
    }

    /// Nobody may read that key from now on, or everybody may again: an access control list. No watch tells of it.
    pub fn forbid(&self, path: &str, forbidden: bool) {
        let mut world = lock(&self.world);
        if forbidden {
            world.forbidden.insert(path.to_owned());
        } else {
            world.forbidden.remove(path);
        }
    }

    /// Nobody may write that key from now on, or everybody may again.
    pub fn seal(&self, path: &str, sealed: bool) {
        let mut world = lock(&self.world);
        if sealed {
            world.sealed.insert(path.to_owned());
        } else {
            world.sealed.remove(path);
        }
    }

    /// The last transaction.
    pub fn zxid(&self) -> i64 {
        lock(&self.world).leader.zxid
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Commits on the leader and tells the servers, and they their clients.
    fn commit(&mut self, txn: &Transaction, session: u64) -> Result<Applied, CommitError> {
        if let Some(op) = txn.ops.iter().find(|op| self.sealed.contains(op.path())) {
            let (what, why) = (op.path().to_owned(), "not authorized".to_owned());
            return Err(CommitError::Failed(StoreError::Refused { what, why }));
        }
        let applied = self.leader.apply(txn, session)?;
        self.observer.tell(txn, session, &applied);
        for client in self.clients.values_mut() {
            match &mut client.behind {
                Some(behind) => behind.pending.push(applied.clone()),
                None => client.tell(&applied),
            }
        }
        Ok(applied)
    }

    /// The server behind a client applies what it has missed.
    fn catch_up(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some(behind) = &mut client.behind else { return };
        let missed = std::mem::take(&mut behind.pending);
        for applied in &missed {
            behind.tree.replay(applied);
        }
        for applied in &missed {
            client.tell(applied);
        }
    }

    /// Ends a session on the servers.
    fn end_session(&mut self, session: u64) {
        let txn = self.leader.end_of(session);
        // Deleting what was listed under the same lock cannot conflict.
        let ended = self.commit(&txn, session);
        debug_assert!(ended.is_ok(), "{ended:?}");
    }
}

impl ClientState {
    /// What a client says that has nothing to ask: each sign of life that was due since it said something, as if it had been sent
    /// and answered.
    fn signs_of_life(&mut self) {
        let now = time::Instant::now();
        let every = self.session_timeout * 2 / 5;
        while self.connected && self.said + every < now {
            self.said += every;
            self.heard.answered_at(self.said, self.said);
        }
        self.said = now;
    }

    /// Reports a transaction to this client's watches.
    fn tell(&mut self, applied: &Applied) {
        if !self.watching {
            return;
        }
        for path in &applied.events {
            for (root, watch) in &self.watches {
                if below(path, root) {
                    let _subscriber_may_be_gone = watch.send(WatchEvent::Changed(path.clone()));
                }
            }
        }
    }

    fn tell_watches(&mut self, event: &WatchEvent) {
        self.watches.retain(|(_, watch)| watch.send(event.clone()).is_ok());
    }
}

/// Whether a path is `root` or below it.
fn below(path: &str, root: &str) -> bool {
    root == "/" || path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl MemoryStore {
    /// Does `request` on the server once there is a connection, unless a fault comes first.
    async fn call<T>(&self, request: impl FnOnce(&mut World) -> T) -> Result<T, StoreError> {
        let sent = time::Instant::now();
        let deadline = sent + REQUEST_TIMEOUT;
        let delay = lock(&self.world).clients.get(&self.id).map_or(Duration::ZERO, |c| c.faults.delay());
        if !delay.is_zero() && timeout_at(deadline, time::sleep(delay)).await.is_err() {
            return Err(StoreError::Unavailable(format!("no answer within {REQUEST_TIMEOUT:?}")));
        }
        let mut state = self.state.clone();
        let unavailable = |why: &str| StoreError::Unavailable(why.to_owned());
        loop {
            healthy_by(&mut state, deadline).await.map_err(|e| match e {
                NoSession::Late => unavailable("the connection is lost"),
                NoSession::Closed => unavailable("the store was closed"),
            })?;
            {
                let mut world = lock(&self.world);
                let Some(client) = world.clients.get_mut(&self.id) else {
                    return Err(unavailable("the store was closed"));
                };
                if client.connected {
                    if client.faults.refuse_one() {
                        return Err(unavailable("a fault was asked for"));
                    }
                    client.signs_of_life();
                    client.heard.answered(sent);
                    return Ok(request(&mut world));
                }
            }
            // Cut, and not noticed yet.
            if timeout_at(deadline, state.changed()).await.is_err() {
                return Err(unavailable("the connection is lost"));
            }
        }
    }

    async fn read<T>(&self, request: impl FnOnce(&Tree) -> T) -> Result<T, StoreError> {
        self.read_what_may_be(&[], request).await
    }

    /// As `read`; refused if one of the keys is forbidden.
    async fn read_what_may_be<T>(
        &self,
        paths: &[String],
        request: impl FnOnce(&Tree) -> T,
    ) -> Result<T, StoreError> {
        let id = self.id;
        self.call(|world| {
            if let Some(what) = paths.iter().find(|path| world.forbidden.contains(*path)) {
                return Err(StoreError::Refused { what: what.clone(), why: "not authorized".into() });
            }
            Ok(match world.clients.get(&id).and_then(|c| c.behind.as_ref()) {
                Some(behind) => request(&behind.tree),
                None => request(&world.leader),
            })
        })
        .await?
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, path: &str) -> Result<Option<Value>, StoreError> {
        self.read_what_may_be(&[path.to_owned()], |tree| tree.get(path).map(Znode::value)).await
    }

    async fn children(&self, path: &str) -> Result<Option<Children>, StoreError> {
        self.read_what_may_be(&[path.to_owned()], |tree| tree.get(path).map(Znode::children)).await
    }

    async fn get_many(&self, paths: &[String]) -> Result<Vec<Option<Value>>, StoreError> {
        if lock(&self.world).clients.get(&self.id).is_some_and(|client| client.faults.split()) {
            let mut values = Vec::with_capacity(paths.len());
            for path in paths {
                values.push(self.get(path).await?);
            }
            return Ok(values);
        }
        let look = |tree: &Tree| paths.iter().map(|path| tree.get(path).map(Znode::value)).collect();
        self.read_what_may_be(paths, look).await
    }

    async fn children_many(&self, paths: &[String]) -> Result<Vec<Option<Children>>, StoreError> {
        let look = |tree: &Tree| paths.iter().map(|path| tree.get(path).map(Znode::children)).collect();
        self.read_what_may_be(paths, look).await
    }

    async fn stat_many(&self, paths: &[String]) -> Result<Vec<Option<Stat>>, StoreError> {
        self.read(|tree| paths.iter().map(|path| tree.get(path).map(|node| node.value().stat())).collect())
            .await
    }

    async fn commit(&self, txn: Transaction) -> Result<Committed, CommitError> {
        txn.check_size().map_err(CommitError::Failed)?;
        let (id, sent) = (self.id, time::Instant::now());
        if txn.ops.is_empty() {
            return Ok(Committed { zxid: 0, created: Vec::new() });
        }
        self.leader(sent + REQUEST_TIMEOUT).await?;
        let outcome = self.call(|world| {
            let Some(client) = world.clients.get_mut(&id) else {
                return Err(CommitError::Failed(StoreError::Unavailable("the store was closed".into())));
            };
            let lost = || CommitError::Unknown(StoreError::Unavailable("a fault was asked for".into()));
            if client.faults.lose_one_request() {
                return Err(lost());
            }
            let answer_lost = client.faults.lose_one_answer();
            let session = client.session;
            let outcome = world.commit(&txn, session);
            // A server answers a write after it has applied everything before it.
            world.catch_up(id);
            if answer_lost {
                return Err(lost());
            }
            if let (Ok(_) | Err(CommitError::Conflict { .. }), Some(client)) =
                (&outcome, world.clients.get_mut(&id))
            {
                client.heard.acknowledged(sent, client.session_timeout);
            }
            outcome
        });
        let applied = outcome.await.map_err(CommitError::Failed)??;
        let told = txn.ops.iter().any(|op| matches!(op, Op::Set { .. }));
        Ok(Committed { zxid: if told { applied.zxid } else { 0 }, created: applied.created })
    }

    async fn show_events(&self) {
        // They are in the watches before anybody can read what they are about.
    }

    fn watch(&self, path: &str) -> Watch {
        let (events, watch) = mpsc::unbounded_channel();
        let mut world = lock(&self.world);
        // The real store synchronises with the leader before it says `Resync`.
        world.catch_up(self.id);
        if let Some(client) = world.clients.get_mut(&self.id) {
            if client.watching {
                let _receiver_is_here = events.send(WatchEvent::Resync);
            }
            client.watches.retain(|(_, watch)| !watch.is_closed());
            client.watches.push((path.to_owned(), events));
        }
        watch
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.state.clone()
    }

    fn session_timeout(&self) -> Duration {
        lock(&self.world).clients.get(&self.id).map_or(SESSION_TIMEOUT, |client| client.session_timeout)
    }

    fn leader_heard(&self) -> Option<Instant> {
        lock(&self.world).clients.get(&self.id)?.heard.at().map(time::Instant::into_std)
    }

    async fn close(&self) {
        self.end();
    }
}

impl MemoryStore {
    /// A write without a leader has no answer, and may be done later; here it never is.
    async fn leader(&self, deadline: time::Instant) -> Result<(), CommitError> {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        let orphan = || lock(&self.world).clients.get(&self.id).is_some_and(|client| client.faults.orphan());
        while orphan() {
            time::sleep_until((time::Instant::now() + LOOK_AGAIN).min(deadline)).await;
            if time::Instant::now() >= deadline {
                let why = "the server has lost its leader".to_owned();
                return Err(CommitError::Unknown(StoreError::Unavailable(why)));
            }
        }
        Ok(())
    }

    fn end(&self) {
        let mut world = lock(&self.world);
        if let Some(client) = world.clients.remove(&self.id) {
            client.state.send_replace(Session::Connecting);
            world.end_session(client.session);
        }
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.end();
    }
}
