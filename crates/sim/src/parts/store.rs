//! A daemon's client of ZooKeeper: behaves as `pvc_store::zookeeper` does, over the simulated ensemble.
//!
//! ```text
//!   call ──► line (in order, each takes its time) ──► server ──► answer
//!                └── ended by the server, or by a time without a word ──► Suspended, the next server …
//! ```
//! What is on the line is the world's: it arrives, or not, whatever has become of the daemon.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_process::Process;
use pvc_store::{
    Children, CommitError, Committed, Session, Stat, Store, StoreError, Transaction, Value, Watch,
    memory::MemoryStore,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::in_flight;
use crate::{
    event::{Author, Net},
    physics::{
        ensemble::{Accepted, Ensemble, Refused},
        network::{Network, Number},
    },
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

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
    timeout: Duration,
    belief: watch::Sender<Session>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    line: Option<Line>,
    closed: bool,
    /// When the last answered request was sent.
    answered: Option<Instant>,
}

/// The connection that the client believes in.
#[derive(Clone)]
struct Line {
    requests: mpsc::UnboundedSender<Request>,
    /// Turns true when the client gives it up.
    lost: watch::Receiver<bool>,
}

struct Request {
    sent: Instant,
    ask: Ask,
    reply: oneshot::Sender<Reply>,
}

#[derive(Clone)]
enum Ask {
    Ping,
    Get(String),
    Children(String),
    GetMany(Arc<[String]>),
    ChildrenMany(Arc<[String]>),
    StatMany(Arc<[String]>),
    Commit(Transaction),
}

enum Reply {
    Pong,
    Get(Result<Option<Value>, StoreError>),
    Children(Result<Option<Children>, StoreError>),
    GetMany(Result<Vec<Option<Value>>, StoreError>),
    ChildrenMany(Result<Vec<Option<Children>>, StoreError>),
    StatMany(Result<Vec<Option<Stat>>, StoreError>),
    Commit(Result<Committed, CommitError>),
}

impl SimStore {
    /// A client that looks for a server. To be called in the daemon's process.
    pub fn start(place: Place, author: Author, timeout: Duration) -> Arc<Self> {
        let (client, inner) = place.ensemble.introduce(place.node, author, timeout);
        let belief = watch::Sender::new(Session::Connecting);
        let shared = Arc::new(Shared { place, client, inner, timeout, belief, state: Mutex::default() });
        pvc_process::spawn(keep(Arc::clone(&shared)));
        Arc::new(Self { shared })
    }

    /// A call until it is answered or given up; an error says why there is no answer.
    async fn ask(&self, ask: Ask, deadline: Instant) -> Result<Reply, NoAnswer> {
        let shared = &self.shared;
        let mut belief = shared.belief.subscribe();
        let line = loop {
            match timeout_at(deadline, belief.wait_for(|session| session.is_healthy())).await {
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
                shared.lock().answered = Some(sent);
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
        self.shared.timeout
    }

    fn last_answer(&self) -> Option<std::time::Instant> {
        self.shared.lock().answered.map(Instant::into_std)
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

/// Keeps a connection, for ever.
async fn keep(shared: Arc<Shared>) {
    let mut epoch = 0;
    let mut servers: VecDeque<Number> = shared.place.ensemble.servers().into();
    let first = shared.place.node % servers.len().max(1);
    servers.rotate_left(first);
    loop {
        let accepted = connect(&shared, &mut servers).await;
        if accepted.new_session {
            epoch += 1;
            if epoch > 1 {
                shared.belief.send_replace(Session::Connecting);
            }
        }
        let (requests, queue) = mpsc::unbounded_channel();
        let (losing, lost) = watch::channel(false);
        let ended = accepted.ended.clone();
        let carrier = Carrier { place: shared.place.clone(), client: shared.client };
        let inner = Arc::clone(&shared.inner);
        shared.place.world.spawn(carrier.carry(accepted, queue, inner));
        {
            let mut state = shared.lock();
            if state.closed {
                return;
            }
            state.line = Some(Line { requests: requests.clone(), lost });
        }
        shared.belief.send_replace(Session::Healthy { epoch });
        serve(&shared, requests, ended).await;
        shared.lock().line = None;
        losing.send_replace(true);
        if shared.lock().closed {
            return;
        }
        shared.belief.send_replace(Session::Suspended { epoch });
        shared.inner.suspend();
    }
}

/// A connection with some server, sooner or later.
async fn connect(shared: &Shared, servers: &mut VecDeque<Number>) -> Accepted {
    let within = shared.timeout / 3;
    let mut pause = FIRST_PAUSE;
    loop {
        for _ in 0..servers.len() {
            servers.rotate_left(1);
            let Some(server) = servers.front().copied() else { break };
            let (ensemble, client) = (Arc::clone(&shared.place.ensemble), shared.client);
            let latency = ensemble.latency();
            let knock = async move {
                sleep(latency).await;
                match ensemble.accept(client, server) {
                    Err(Refused::Silence) => {
                        sleep(within).await;
                        None
                    }
                    Err(Refused::AtOnce) => None,
                    Ok(accepted) => Some(accepted),
                }
            };
            if let Some(accepted) = in_flight(&shared.place.world, knock).await {
                return accepted;
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Gives signs of life until the connection is lost, as this side learns of it.
async fn serve(shared: &Shared, requests: mpsc::UnboundedSender<Request>, mut ended: watch::Receiver<bool>) {
    let (mut said, mut heard) = (Instant::now(), Instant::now());
    let mut pong: Option<oneshot::Receiver<Reply>> = None;
    loop {
        heard = heard.max(shared.lock().answered.unwrap_or(heard));
        let (ping_at, lost_at) = (said + shared.timeout / 3, heard + shared.timeout * 2 / 3);
        tokio::select! {
            biased;
            answer = answered(&mut pong) => {
                pong = None;
                if answer {
                    heard = Instant::now();
                }
            }
            _ = ended.wait_for(|ended| *ended) => return,
            () = sleep_until(ping_at.min(lost_at)) => {
                heard = heard.max(shared.lock().answered.unwrap_or(heard));
                if Instant::now() >= heard + shared.timeout * 2 / 3 {
                    return;
                }
                if Instant::now() >= ping_at {
                    let (reply, replied) = oneshot::channel();
                    said = Instant::now();
                    if requests.send(Request { sent: said, ask: Ask::Ping, reply }).is_err() {
                        return;
                    }
                    pong.get_or_insert(replied);
                }
            }
        }
    }
}

async fn answered(pong: &mut Option<oneshot::Receiver<Reply>>) -> bool {
    match pong {
        Some(replied) => replied.await.is_ok(),
        None => std::future::pending().await,
    }
}

/// The world's side of a connection.
struct Carrier {
    place: Place,
    client: u64,
}

impl Carrier {
    /// Carries requests to the server and answers back, in order, until one of the two ends it.
    async fn carry(
        self,
        accepted: Accepted,
        mut queue: mpsc::UnboundedReceiver<Request>,
        inner: Arc<MemoryStore>,
    ) {
        let Place { network, ensemble, node, .. } = self.place.clone();
        let (server, line) = (accepted.server, accepted.line);
        let mut ended = accepted.ended;
        loop {
            let request = tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => break,
                request = queue.recv() => match request {
                    Some(request) => request,
                    None => break,
                },
            };
            let arrives = request.sent + ensemble.latency();
            let there = async {
                sleep_until(arrives).await;
                network.until_it_passes(Net::Store, node, server).await;
            };
            tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => break,
                () = there => {}
            }
            let Some(reply) = self.answer(&request.ask, server, line, &inner, &mut ended).await else {
                break;
            };
            if matches!(request.ask, Ask::Commit(_)) && ensemble.loses_answer(self.client) {
                break;
            }
            tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => break,
                () = network.until_it_passes(Net::Store, server, node) => {}
            }
            let _asker_may_be_gone = request.reply.send(reply);
        }
        // What the client has sent before it ended the line is there already.
        ensemble.closed(self.client, line);
    }

    /// What the server does and says; `None`: it never will.
    async fn answer(
        &self,
        ask: &Ask,
        server: Number,
        line: u64,
        inner: &Arc<MemoryStore>,
        ended: &mut watch::Receiver<bool>,
    ) -> Option<Reply> {
        let ensemble = &self.place.ensemble;
        if !ensemble.answers(server) || !ensemble.heard(self.client) {
            // Whoever died says nothing.
            let _ = ended.wait_for(|ended| *ended).await;
            return None;
        }
        if !inner.session().borrow().is_healthy() {
            if let Ask::Commit(txn) = ask
                && ensemble.may_write_late(self.client, line)
                && ensemble.writes(server)
            {
                let _nobody_hears_of_it = inner.commit_late(txn);
            }
            return None;
        }
        Some(match ask {
            Ask::Ping => Reply::Pong,
            Ask::Get(path) => Reply::Get(inner.get(path).await),
            Ask::Children(path) => Reply::Children(inner.children(path).await),
            Ask::GetMany(paths) => Reply::GetMany(inner.get_many(paths).await),
            Ask::ChildrenMany(paths) => Reply::ChildrenMany(inner.children_many(paths).await),
            Ask::StatMany(paths) => Reply::StatMany(inner.stat_many(paths).await),
            Ask::Commit(txn) => {
                if !ensemble.writes(server) {
                    // A leader that is not there answers nobody.
                    let _ = ended.wait_for(|ended| *ended).await;
                    return None;
                }
                Reply::Commit(inner.commit(txn.clone()).await)
            }
        })
    }
}
