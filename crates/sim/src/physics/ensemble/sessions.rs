//! Clients of the ensemble: who is connected where, who was heard of when, whose session ends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pvc_store::{
    Store as _,
    memory::{MemoryStore, MemoryTree},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{Ensemble, Number, State};
use crate::{
    event::{Author, Change, Commit, Event, Key, Net, Session},
    journal::Journal,
};

/// The servers look at sessions this often, and tell the leader twice as often whom they have heard of.
const TICK: Duration = Duration::from_secs(2);
/// How many of all connections are with a server that is behind, and for how long at most.
const BEHIND: f64 = 0.1;
const BEHIND_FOR: Duration = Duration::from_secs(4);

/// A client, as the servers know it.
pub(super) struct Client {
    pub(super) store: Arc<MemoryStore>,
    pub(super) node: Number,
    pub(super) author: Author,
    /// The session time-out that it asks for, and is granted.
    asked: Duration,
    granted: Duration,
    /// When the leader last heard of it.
    heard: Instant,
    /// Its server has heard of it since it told the leader.
    untold: bool,
    /// The session whose end is watched for.
    pub(super) watched: Option<u64>,
    /// Nothing of it arrives until its session has ended.
    unheard: bool,
    /// The connection that it has.
    pub(super) line: Option<(u64, Number, watch::Sender<bool>)>,
    /// That connection is about to be closed by a server that has lost its leader.
    pub(super) leaves: Option<u64>,
    /// Faults that have its connection end after the next write, before the answer.
    pub(super) lose_answers: u32,
}

/// A connection that a server has accepted.
pub struct Accepted {
    /// Its number.
    pub line: u64,
    /// Turns true when the server, or the network, has ended it.
    pub ended: watch::Receiver<bool>,
    /// It is of a new session.
    pub new_session: bool,
    /// The session time-out that the server grants.
    pub granted: Duration,
    /// The server.
    pub server: Number,
}

/// Why there is no connection.
pub enum Refused {
    /// Somebody said so.
    AtOnce,
    /// Nothing is heard.
    Silence,
}

impl Ensemble {
    /// A node's clients learn nothing of what comes of their next writes.
    pub fn lose_answers(&self, node: Number, count: u32) {
        for client in self.lock().clients.values_mut().filter(|client| client.node == node) {
            client.lose_answers += count;
        }
    }

    /// The servers hear nothing of a node's clients until they have ended their sessions. One whose session has ended already has
    /// none that could.
    pub fn expire(&self, node: Number) {
        for client in self.lock().clients.values_mut().filter(|client| client.node == node) {
            client.unheard = client.watched.is_some() && client.store.server_session() == client.watched;
        }
    }

    /// Makes a client's connections possible; it has none yet.
    pub fn introduce(&self, node: Number, author: Author, asked: Duration) -> (u64, Arc<MemoryStore>) {
        let store = self.tree.client();
        store.suspend();
        let mut state = self.lock();
        state.next += 1;
        let id = state.next;
        let client = Client {
            store: Arc::clone(&store),
            node,
            author,
            asked,
            granted: asked,
            heard: Instant::now(),
            untold: false,
            watched: None,
            unheard: false,
            line: None,
            leaves: None,
            lose_answers: 0,
        };
        state.clients.insert(id, client);
        state.latest.insert(node, id);
        (id, store)
    }

    /// An operator's client, which is always where a server is that works.
    pub fn operator(&self, number: u32) -> Arc<MemoryStore> {
        let store = self.tree.client();
        self.sign(&store, Author::Client(number));
        store
    }

    /// A client knocks at a server.
    pub fn accept(self: &Arc<Self>, client: u64, server: Number) -> Result<Accepted, Refused> {
        let mut state = self.lock();
        let known = state.clients.get(&client).filter(|client| !client.unheard);
        let Some(node) = known.map(|client| client.node) else { return Err(Refused::Silence) };
        if !self.network.passes_both_ways(Net::Store, node, server) {
            return Err(Refused::Silence);
        }
        if !self.serves(&state, server) {
            return Err(Refused::AtOnce);
        }
        state.next += 1;
        let line = state.next;
        let behind = state.rng.chance(BEHIND).then(|| state.rng.time(Duration::ZERO, BEHIND_FOR));
        let Some(known) = state.clients.get_mut(&client) else { return Err(Refused::Silence) };
        if let Some((_, _, old)) = known.line.take() {
            old.send_replace(true);
        }
        known.store.suspend();
        known.store.resume();
        known.store.catch_up();
        if behind.is_some() {
            known.store.fall_behind();
        }
        known.granted = self.longest_session.min(known.asked);
        let granted = known.granted;
        let session = known.store.server_session();
        let new_session = known.watched != session;
        known.watched = session;
        // The leader is asked whether the session lives.
        (known.heard, known.untold) = (Instant::now(), false);
        let (ending, ended) = watch::channel(false);
        known.line = Some((line, server, ending));
        let (store, author) = (Arc::clone(&known.store), known.author.clone());
        // What a daemon had asked for that is no more is nobody's connection.
        let is_latest = state.latest.get(&node) == Some(&client);
        drop(state);
        let session = session.unwrap_or_default();
        self.sign(&store, author);
        if is_latest {
            let connected = Session::Connected { session };
            self.journal.tell(Event::Session { node: self.names[node].clone(), what: connected });
        }
        if new_session {
            let own = Arc::clone(self);
            self.process.spawn(async move { own.watch_over(client, session).await });
        }
        if let Some(behind) = behind {
            let own = Arc::clone(self);
            self.process.spawn(async move {
                sleep(behind).await;
                if own.writes(server) {
                    own.catch_up_line(client, line);
                }
            });
        }
        Ok(Accepted { line, ended, new_session, granted, server })
    }

    /// A packet of a client has arrived at a server; answers whether it takes it.
    pub fn heard(&self, client: u64) -> bool {
        let mut state = self.lock();
        let Some(client) = state.clients.get_mut(&client).filter(|client| !client.unheard) else {
            return false;
        };
        client.untold = true;
        true
    }

    /// Servers tell the leader whom they have heard of, for ever.
    pub(super) async fn tell_leader(self: Arc<Self>) {
        loop {
            sleep(TICK / 2).await;
            self.tell(&mut self.lock());
        }
    }

    /// Those that have a leader do so now: at their time, and first of all when they reach it again, and with it what they missed.
    pub(super) fn tell(&self, state: &mut State) {
        let serving: Vec<Number> =
            state.servers.keys().copied().filter(|server| self.serves(state, *server)).collect();
        let now = Instant::now();
        for client in state.clients.values_mut() {
            let Some((line, server, _)) = &client.line else { continue };
            if !serving.contains(server) {
                continue;
            }
            if client.leaves == Some(*line) {
                client.leaves = None;
                client.store.catch_up();
            }
            if std::mem::take(&mut client.untold) {
                client.heard = now;
            }
        }
    }

    /// Whether the answer to this write is to be lost.
    pub fn loses_answer(&self, client: u64) -> bool {
        let mut state = self.lock();
        let Some(client) = state.clients.get_mut(&client).filter(|client| client.lose_answers > 0) else {
            return false;
        };
        client.lose_answers -= 1;
        true
    }

    /// A node's daemon has been shown all that was committed, and is about to hear so.
    pub fn synced(&self, node: Number) {
        self.journal.tell(Event::Synced { node: self.names[node].clone() });
    }

    /// A connection is over.
    pub fn closed(&self, client: u64, line: u64) {
        let mut state = self.lock();
        let Some(known) = state.clients.get_mut(&client) else { return };
        if known.line.as_ref().is_none_or(|(current, ..)| *current != line) {
            return;
        }
        if let Some((_, _, ending)) = known.line.take() {
            ending.send_replace(true);
        }
        known.store.cut();
        known.untold = false;
        let (node, session) = (known.node, known.store.server_session());
        drop(state);
        if let Some(session) = session {
            let node = self.names[node].clone();
            self.journal.tell(Event::Session { node, what: Session::Silent { session } });
        }
    }

    /// Whether this is the client's connection, or it has none.
    pub fn may_write_late(&self, client: u64, line: u64) -> bool {
        let state = self.lock();
        let line_of = |client: &Client| client.line.as_ref().map(|(line, ..)| *line);
        state.clients.get(&client).is_some_and(|client| line_of(client).is_none_or(|now| now == line))
    }

    /// The client is no more, and has said so: its session is over.
    pub async fn farewell(&self, client: u64) {
        let gone = {
            let mut state = self.lock();
            // Without a leader nobody can end it; it expires when there is one.
            let heard = state.clients.get(&client).is_some_and(|known| {
                let server = known.line.as_ref().map(|(_, server, _)| *server);
                server.is_some_and(|server| {
                    self.serves(&state, server) && self.network.passes(Net::Store, known.node, server)
                })
            });
            if heard { state.clients.remove(&client) } else { None }
        };
        if let Some(gone) = gone {
            let session = gone.store.server_session();
            gone.store.close().await;
            if let Some(session) = session {
                let node = self.names[gone.node].clone();
                self.journal.tell(Event::Session { node, what: Session::Ended { session } });
            }
        }
    }

    /// Ends a session when it has been silent for too long.
    async fn watch_over(self: Arc<Self>, client: u64, session: u64) {
        loop {
            let deadline = {
                let state = self.lock();
                let Some(known) = state.clients.get(&client) else { return };
                if known.store.server_session() != Some(session) {
                    return;
                }
                // A new leader gives everybody all of the time again.
                known.heard.max(state.leads_since) + known.granted
            };
            if Instant::now() < deadline {
                sleep_until(deadline).await;
                continue;
            }
            let (leads, late) = {
                let mut state = self.lock();
                (state.leader.is_some(), state.rng.time(Duration::ZERO, TICK))
            };
            if !leads {
                let mut changes = self.changes.subscribe();
                if !self.works() && changes.changed().await.is_err() {
                    return;
                }
                continue;
            }
            sleep(late).await;
            let still = {
                let state = self.lock();
                state.leader.is_some()
                    && state.clients.get(&client).is_some_and(|known| {
                        known.store.server_session() == Some(session)
                            && known.heard.max(state.leads_since) + known.granted <= Instant::now()
                    })
            };
            if still {
                self.end(client);
                return;
            }
        }
    }

    fn end(&self, client: u64) {
        let mut state = self.lock();
        let Some(known) = state.clients.get_mut(&client) else { return };
        let Some(session) = known.store.server_session() else { return };
        let (store, node) = (Arc::clone(&known.store), known.node);
        known.unheard = false;
        if let Some((_, _, ending)) = known.line.take() {
            ending.send_replace(true);
        }
        drop(state);
        store.cut();
        self.sign(&store, Author::Servers);
        store.expire();
        self.journal
            .tell(Event::Session { node: self.names[node].clone(), what: Session::Ended { session } });
    }

    /// The daemon is gone for ever: once its session has ended nobody knows it any more.
    pub fn forget_when_ended(self: &Arc<Self>, client: u64) {
        let own = Arc::clone(self);
        self.process.spawn(async move {
            loop {
                sleep(Duration::from_secs(5)).await;
                let mut state = own.lock();
                let Some(known) = state.clients.get(&client) else { return };
                if known.watched.is_none() || known.store.server_session().is_none() {
                    let known = state.clients.remove(&client);
                    drop(state);
                    drop(known);
                    return;
                }
            }
        });
    }

    fn sign(&self, store: &MemoryStore, author: Author) {
        if let Some(session) = store.server_session() {
            self.authors.lock().unwrap_or_else(PoisonError::into_inner).insert(session, author);
        }
    }
}

/// Has the journal told of each commit, with its author.
pub(super) fn observe(tree: &MemoryTree, journal: Arc<Journal>, authors: Arc<Mutex<BTreeMap<u64, Author>>>) {
    tree.observe(move |seen| {
        let key = |value: Option<pvc_store::Value>| value.map(|v| Key { data: v.data, version: v.version });
        let changes = seen.keys.into_iter().map(|seen| Change {
            path: seen.path.to_owned(),
            before: key(seen.before),
            after: key(seen.after),
        });
        let by = authors.lock().unwrap_or_else(PoisonError::into_inner).get(&seen.session).cloned();
        journal.tell(Event::Commit(Commit {
            by: by.unwrap_or(Author::Servers),
            zxid: seen.zxid,
            ops: seen.txn.ops.clone(),
            changes: changes.collect(),
        }));
    });
}
