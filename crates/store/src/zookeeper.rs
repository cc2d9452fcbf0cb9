//! The real store: ZooKeeper.
//!
//! Never blocks for ever: each call has one deadline that covers waiting for a connection too. Never sends a write while the
//! connection is known to be lost: it could be done long after its caller gave up. A write whose answer is missing is reported as [`CommitError::Unknown`], whatever the reason.
//!
//! ```text
//! Connecting ──connected──▶ Healthy{n} ──connection lost──▶ Suspended{n} ──reconnected──▶ Healthy{n}
//!     ▲                                                          │
//!     └────────────── session expired: epoch n+1 ◀───────────────┘
//! ```
//!
//! `client` speaks the protocol and knows one session; here it becomes a store that outlives sessions.

mod client;
mod errors;
mod read;
mod session;
mod trouble;
mod watches;
mod write;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pvc_process::Place;
use tokio::{
    sync::watch,
    time::{self, timeout_at},
};

use self::{
    client::{Client, Error},
    watches::Forwarders,
};
use crate::store::{
    Children, CommitError, Committed, NoSession, Session, Stat, Store, StoreError, Transaction, Value, Watch,
    healthy_by,
};

/// How to reach ZooKeeper.
#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port,host:port…`, optionally with `/chroot` at the end.
    pub connect: String,
    /// The session time-out to ask for; the server may grant another.
    pub session_timeout: Duration,
    /// The deadline of each call, waiting for a connection included.
    pub request_timeout: Duration,
}

impl Options {
    /// Ten seconds for the session and for each call.
    pub fn new(connect: impl Into<String>) -> Self {
        let usual = Duration::from_secs(10);
        Self { connect: connect.into(), session_timeout: usual, request_timeout: usual }
    }
}

/// A client with a session that is renewed for as long as it is not closed or dropped.
#[derive(Debug)]
pub struct ZooKeeperStore {
    options: Options,
    /// The client of the present session; the channel closes when the store is closed.
    client: watch::Receiver<Option<Client>>,
    session: watch::Receiver<Session>,
    shared: Arc<Shared>,
    /// Dropping it ends the session.
    closing: watch::Sender<bool>,
    forwarders: Forwarders,
}

/// What the session's task leaves for callers.
#[derive(Debug)]
struct Shared {
    /// Why there is no connection, for callers' error messages.
    trouble: Mutex<String>,
}

impl Shared {
    fn trouble(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, text: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

impl ZooKeeperStore {
    /// Starts connecting in the background; returns at once. Needs a tokio runtime: what keeps its session, sends its signs of life and hands out
    /// its answers and events runs there, wherever its callers do.
    pub fn start(options: Options) -> Arc<Self> {
        let (client_tx, client) = watch::channel(None);
        let (session_tx, session) = watch::channel(Session::Connecting);
        let (closing, closed) = watch::channel(false);
        let shared =
            Arc::new(Shared { trouble: Mutex::new(format!("not connected to {} yet", options.connect)) });
        let task = session::Task {
            options: options.clone(),
            client: client_tx,
            session: session_tx,
            shared: Arc::clone(&shared),
        };
        let place = Place::here();
        place.spawn(task.run(closed));
        let forwarders = Forwarders::new(place);
        Arc::new(Self { options, client, session, shared, closing, forwarders })
    }

    /// The client of a healthy session, waiting for one until `deadline`.
    async fn connected(&self, deadline: time::Instant) -> Result<Client, StoreError> {
        let mut session = self.session.clone();
        loop {
            healthy_by(&mut session, deadline).await.map_err(|e| match e {
                NoSession::Late => StoreError::Unavailable(self.shared.trouble()),
                NoSession::Closed => StoreError::Unavailable("the store was closed".into()),
            })?;
            // The client is published before the session becomes healthy and withdrawn after it has ended.
            if let Some(client) = self.client.borrow().clone() {
                return Ok(client);
            }
            tokio::task::yield_now().await;
        }
    }

    fn deadline(&self) -> time::Instant {
        time::Instant::now() + self.options.request_timeout
    }

    fn too_late(&self) -> StoreError {
        StoreError::Unavailable(format!("no answer within {:?}", self.options.request_timeout))
    }

    /// Does a read until it is answered or the deadline passes, over connections and sessions if need be.
    async fn read<T, F>(&self, what: &str, mut request: impl FnMut(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = self.deadline();
        loop {
            let client = self.connected(deadline).await?;
            let answer = timeout_at(deadline, request(client)).await.map_err(|_| self.too_late())?;
            match answer {
                Ok(found) => return Ok(found),
                Err(error) if errors::is_lost(&error) => {
                    // The client has learnt of the loss, perhaps before the session's task: let that one run.
                    time::sleep_until((time::Instant::now() + Duration::from_millis(10)).min(deadline)).await;
                    if time::Instant::now() >= deadline {
                        return Err(StoreError::Unavailable(error.to_string()));
                    }
                }
                Err(error) => return Err(errors::refused(what, &error)),
            }
        }
    }
}

#[async_trait]
impl Store for ZooKeeperStore {
    async fn get(&self, path: &str) -> Result<Option<Value>, StoreError> {
        self.read(path, |client| async move {
            match client.get_data(path).await {
                Ok((data, stat)) => Ok(Some(read::value(data, &stat))),
                Err(Error::NoNode) => Ok(None),
                Err(e) => Err(e),
            }
        })
        .await
    }

    async fn children(&self, path: &str) -> Result<Option<Children>, StoreError> {
        self.read(path, |client| async move {
            match client.get_children(path).await {
                Ok(children) => Ok(Some(children)),
                Err(Error::NoNode) => Ok(None),
                Err(e) => Err(e),
            }
        })
        .await
    }

    async fn get_many(&self, paths: &[String]) -> Result<Vec<Option<Value>>, StoreError> {
        self.read("reading many keys", |client| async move { read::values(&client, paths).await }).await
    }

    async fn children_many(&self, paths: &[String]) -> Result<Vec<Option<Children>>, StoreError> {
        self.read("listing many keys", |client| async move { read::children(&client, paths).await }).await
    }

    async fn stat_many(&self, paths: &[String]) -> Result<Vec<Option<Stat>>, StoreError> {
        self.read("looking at many keys", |client| async move { read::stats(&client, paths).await }).await
    }

    async fn commit(&self, txn: Transaction) -> Result<Committed, CommitError> {
        txn.check_size().map_err(CommitError::Failed)?;
        let deadline = self.deadline();
        let client = self.connected(deadline).await.map_err(CommitError::Failed)?;
        let answer = timeout_at(deadline, write::commit(&client, &txn)).await;
        let Ok(outcome) = answer else { return Err(CommitError::Unknown(self.too_late())) };
        if !matches!(outcome, Err(CommitError::Unknown(_))) {
            self.forwarders.flush(deadline).await;
        }
        outcome
    }

    async fn show_events(&self) {
        self.forwarders.flush(self.deadline()).await;
    }

    fn watch(&self, path: &str) -> Watch {
        self.forwarders.start(path, self.client.clone(), self.options.request_timeout)
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.session.clone()
    }

    fn session_timeout(&self) -> Duration {
        self.client.borrow().as_ref().map_or(self.options.session_timeout, Client::session_timeout)
    }

    fn leader_heard(&self) -> Option<Instant> {
        self.client.borrow().as_ref()?.leader_heard().map(time::Instant::into_std)
    }

    async fn close(&self) {
        self.closing.send_replace(true);
        let mut session = self.session.clone();
        // The session's task has a deadline for the orderly end, and closes the channel when it ends.
        while session.changed().await.is_ok() {}
    }
}
