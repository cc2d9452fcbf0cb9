//! A daemon's client of ZooKeeper: behaves as `pvc_store::zookeeper` does, over the simulated ensemble.
//!
//! ```text
//!   call ──► line (in order, each takes its time) ──► server ──► answer
//!                └── ended by the server, or by a time without a word ──► Suspended, the next server …
//! ```
//! What is on the line is the world's: it arrives, or not, whatever has become of the daemon.

mod keep;
mod line;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_process::Process;
use pvc_store::{
    Children, CommitError, Committed, Heard, Session, Stat, Store, StoreError, Transaction, Value, Watch,
    memory::MemoryStore,
};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use self::line::{Ask, Line, Reply, Request};
use super::in_flight;
use crate::{
    event::Author,
    physics::{
        ensemble::Ensemble,
        network::{Network, Number},
    },
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What it stands on.
#[derive(Clone)]
pub struct Place {
    /// The world's process.
    pub world: Process,
    /// Who reaches whom.
    pub network: Arc<Network>,
    /// The servers.
    pub ensemble: Arc<Ensemble>,
    /// Whose it is.
    pub node: Number,
}

/// See the module's documentation.
pub struct SimStore {
    shared: Arc<Shared>,
}

struct Shared {
    place: Place,
    client: u64,
    inner: Arc<MemoryStore>,
    belief: watch::Sender<Session>,
    state: Mutex<State>,
}

struct State {
    /// The session time-out that the server grants; at first what is asked for.
    granted: Duration,
    line: Option<Line>,
    closed: bool,
    /// When the last answered request was sent.
    answered: Option<Instant>,
    /// What the answers say of the leader, in the present session.
    heard: Heard,
}

impl SimStore {
    /// A client that looks for a server. To be called in the daemon's process.
    pub fn start(place: Place, author: Author, timeout: Duration) -> Arc<Self> {
        let (client, inner) = place.ensemble.introduce(place.node, author, timeout);
        let belief = watch::Sender::new(Session::Connecting);
        let state =
            State { granted: timeout, line: None, closed: false, answered: None, heard: Heard::default() };
        let shared = Arc::new(Shared { place, client, inner, belief, state: Mutex::new(state) });
        pvc_process::spawn(keep::keep(Arc::clone(&shared)));
        Arc::new(Self { shared })
    }

    /// A call until it is answered or given up; an error says why there is no answer.
    async fn ask(&self, ask: Ask, deadline: Instant) -> Result<Reply, NoAnswer> {
        let shared = &self.shared;
        let mut belief = shared.belief.subscribe();
        let line = loop {
            let settled = belief.wait_for(|session| session.is_healthy() || shared.lock().closed);
            match timeout_at(deadline, settled).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(NoAnswer::NotSent("the store was closed")),
                Err(_) => return Err(NoAnswer::NotSent("the connection is lost")),
            }
            let (closed, line) = {
                let state = shared.lock();
                (state.closed, state.line.clone())
            };
            if closed {
                return Err(NoAnswer::NotSent("the store was closed"));
            }
            if let Some(line) = line {
                break line;
            }
            sleep(Duration::from_millis(1)).await;
        };
        let (reply, replied) = oneshot::channel();
        let sent = Instant::now();
        if line.requests.send(Request { sent, ask, reply }).is_err() {
            return Err(NoAnswer::Lost);
        }
        let mut lost = line.lost;
        tokio::select! {
            biased;
            reply = replied => {
                let reply = reply.map_err(|_| NoAnswer::Lost)?;
                let mut state = shared.lock();
                state.answered = Some(sent);
                match reply {
                    Reply::Commit(Ok(_) | Err(CommitError::Conflict { .. })) => {
                        let granted = state.granted;
                        state.heard.acknowledged(sent, granted);
                    }
                    _ => state.heard.answered(sent),
                }
                drop(state);
                Ok(reply)
            }
            _ = lost.wait_for(|lost| *lost) => Err(NoAnswer::Lost),
            () = sleep_until(deadline) => Err(NoAnswer::Late),
        }
    }

    /// A read is asked again over connections and sessions.
    async fn read(&self, ask: Ask) -> Result<Reply, StoreError> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            match self.ask(ask.clone(), deadline).await {
                Ok(reply) => return Ok(reply),
                Err(NoAnswer::Lost) => {
                    sleep_until((Instant::now() + Duration::from_millis(10)).min(deadline)).await;
                    if Instant::now() >= deadline {
                        return Err(StoreError::Unavailable("the connection is lost".into()));
                    }
                }
                Err(NoAnswer::NotSent(why)) => return Err(StoreError::Unavailable(why.into())),
                Err(NoAnswer::Late) => return Err(too_late()),
            }
        }
    }
}

enum NoAnswer {
    /// It never left.
    NotSent(&'static str),
    /// The connection ended meanwhile.
    Lost,
    /// The deadline passed.
    Late,
}

fn too_late() -> StoreError {
    StoreError::Unavailable(format!("no answer within {REQUEST_TIMEOUT:?}"))
}

fn other() -> StoreError {
    StoreError::Unavailable("an answer to another question".into())
}

#[async_trait]
impl Store for SimStore {
    async fn get(&self, path: &str) -> Result<Option<Value>, StoreError> {
        match self.read(Ask::Get(path.to_owned())).await? {
            Reply::Get(answer) => answer,
            _ => Err(other()),
        }
    }

    async fn children(&self, path: &str) -> Result<Option<Children>, StoreError> {
        match self.read(Ask::Children(path.to_owned())).await? {
            Reply::Children(answer) => answer,
            _ => Err(other()),
        }
    }

    async fn get_many(&self, paths: &[String]) -> Result<Vec<Option<Value>>, StoreError> {
        match self.read(Ask::GetMany(paths.into())).await? {
            Reply::GetMany(answer) => answer,
            _ => Err(other()),
        }
    }

    async fn children_many(&self, paths: &[String]) -> Result<Vec<Option<Children>>, StoreError> {
        match self.read(Ask::ChildrenMany(paths.into())).await? {
            Reply::ChildrenMany(answer) => answer,
            _ => Err(other()),
        }
    }

    async fn stat_many(&self, paths: &[String]) -> Result<Vec<Option<Stat>>, StoreError> {
        match self.read(Ask::StatMany(paths.into())).await? {
            Reply::StatMany(answer) => answer,
            _ => Err(other()),
        }
    }

    async fn commit(&self, txn: Transaction) -> Result<Committed, CommitError> {
        if txn.ops.is_empty() {
            return Ok(Committed { zxid: 0, created: Vec::new() });
        }
        let unknown = |error| Err(CommitError::Unknown(error));
        match self.ask(Ask::Commit(txn), Instant::now() + REQUEST_TIMEOUT).await {
            Ok(Reply::Commit(answer)) => answer,
            Ok(_) => unknown(other()),
            Err(NoAnswer::NotSent(why)) => Err(CommitError::Failed(StoreError::Unavailable(why.into()))),
            Err(NoAnswer::Lost) => unknown(StoreError::Unavailable("the connection is lost".into())),
            Err(NoAnswer::Late) => unknown(too_late()),
        }
    }

    async fn show_events(&self) {
        // They are in the watches before the answer leaves the server.
    }

    fn watch(&self, path: &str) -> Watch {
        self.shared.inner.watch(path)
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.shared.belief.subscribe()
    }

    fn session_timeout(&self) -> Duration {
        self.shared.lock().granted
    }

    fn leader_heard(&self) -> Option<std::time::Instant> {
        self.shared.lock().heard.at().map(Instant::into_std)
    }

    async fn close(&self) {
        let shared = &self.shared;
        {
            let mut state = shared.lock();
            state.closed = true;
        }
        let healthy = shared.belief.borrow().is_healthy();
        shared.belief.send_replace(Session::Connecting);
        if healthy {
            let (ensemble, client, pause) =
                (Arc::clone(&shared.place.ensemble), shared.client, shared.place.ensemble.latency());
            in_flight(&shared.place.world, async move {
                sleep(pause).await;
                ensemble.farewell(client).await;
            })
            .await;
        }
    }
}

impl Drop for SimStore {
    fn drop(&mut self) {
        // The line ends with its sender, once what is on it has arrived.
        self.shared.lock().line = None;
        self.shared.place.ensemble.forget_when_ended(self.shared.client);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
