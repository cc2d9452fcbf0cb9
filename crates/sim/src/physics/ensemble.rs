//! ZooKeeper's servers: who leads, who serves, and whose session ends when.
//!
//! ```text
//!   a quorum reaches each other ──► election ──► leader ──► servers that reach it serve
//!   a server hears of a session ──► tells the leader ──► … ──► silent for its time-out while somebody leads ──► ended
//! ```
//! The tree itself is `pvc_store::memory`'s, which keeps ZooKeeper's contract. A server that has lost its leader goes on answering reads
//! for up to ten seconds, from what it knew, and then closes its connections; whom it hears of meanwhile nobody learns. Elections are
//! short; what takes long is noticing.

mod sessions;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pvc_process::Process;
use pvc_store::memory::MemoryTree;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

pub use self::sessions::{Accepted, Refused};
use self::sessions::{Client, observe};
use super::network::{Network, Number};
use crate::{
    event::{Author, Event, Net},
    journal::Journal,
    rng::Rng,
};

/// From the loss of a leader to the next one.
const ELECTION: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(4)];
/// For how long a server without a leader goes on reading (9.5 s were measured with ZooKeeper 3.8).
const GRACE: [Duration; 2] = [Duration::ZERO, Duration::from_secs(10)];

/// See the module's documentation.
pub struct Ensemble {
    tree: MemoryTree,
    network: Arc<Network>,
    journal: Arc<Journal>,
    process: Process,
    names: Vec<pvc_core::model::NodeName>,
    state: Mutex<State>,
    /// Signalled when servers come, go, or lead.
    changes: watch::Sender<()>,
    authors: Arc<Mutex<BTreeMap<u64, Author>>>,
    /// The longest session time-out that they grant.
    longest_session: Duration,
}

struct State {
    rng: Rng,
    servers: BTreeMap<Number, Server>,
    leader: Option<Number>,
    leads_since: Instant,
    electing: bool,
    clients: BTreeMap<u64, Client>,
    /// The client of each node's latest daemon.
    latest: BTreeMap<Number, u64>,
    next: u64,
    /// How long requests take.
    latency: [Duration; 2],
}

struct Server {
    /// How many faults keep it from working; the machine's being off is one.
    down: u32,
}

impl Ensemble {
    /// The servers of these nodes, none of which runs yet.
    pub fn new(
        servers: &[Number],
        names: Vec<pvc_core::model::NodeName>,
        network: Arc<Network>,
        journal: Arc<Journal>,
        process: Process,
        rng: Rng,
        longest_session: Duration,
    ) -> Arc<Self> {
        let authors = Arc::new(Mutex::new(BTreeMap::new()));
        let tree = MemoryTree::new();
        observe(&tree, Arc::clone(&journal), Arc::clone(&authors));
        let servers = servers.iter().map(|n| (*n, Server { down: 1 })).collect();
        let state = State {
            rng,
            servers,
            leader: None,
            leads_since: Instant::now(),
            electing: false,
            clients: BTreeMap::new(),
            latest: BTreeMap::new(),
            next: 0,
            latency: NORMAL,
        };
        let changes = watch::Sender::new(());
        let state = Mutex::new(state);
        let ensemble = Arc::new(Self {
            tree,
            network,
            journal,
            process,
            names,
            state,
            changes,
            authors,
            longest_session,
        });
        let own = Arc::clone(&ensemble);
        ensemble.process.spawn(async move {
            let mut network = own.network.changes();
            while network.changed().await.is_ok() {
                own.look();
            }
        });
        ensemble.process.spawn(Arc::clone(&ensemble).tell_leader());
        ensemble
    }

    /// The tree that they keep.
    pub fn tree(&self) -> &MemoryTree {
        &self.tree
    }

    /// Who has a server.
    pub fn servers(&self) -> Vec<Number> {
        self.lock().servers.keys().copied().collect()
    }

    /// Whether somebody leads.
    pub fn works(&self) -> bool {
        self.lock().leader.is_some()
    }

    /// One more reason for a server not to work, or one less.
    pub fn down(self: &Arc<Self>, server: Number, one_more: bool) {
        if let Some(server) = self.lock().servers.get_mut(&server) {
            server.down = if one_more { server.down + 1 } else { server.down.saturating_sub(1) };
        }
        self.look();
    }

    /// From now on requests take so long.
    pub fn set_latency(&self, latency: Option<[Duration; 2]>) {
        self.lock().latency = latency.unwrap_or(NORMAL);
    }

    /// How long one way takes.
    pub fn latency(&self) -> Duration {
        let mut state = self.lock();
        let [shortest, longest] = state.latency;
        state.rng.time(shortest, longest)
    }

    /// For how long a node's reads are old from now on: [`catch_up`](Self::catch_up) ends it.
    pub fn fall_behind(&self, node: Number) {
        for client in self.lock().clients.values().filter(|client| client.node == node) {
            client.store.fall_behind();
        }
    }

    /// See [`fall_behind`](Self::fall_behind).
    pub fn catch_up(&self, node: Number) {
        for client in self.lock().clients.values().filter(|client| client.node == node) {
            client.store.catch_up();
        }
    }

    /// Whether a server answers writes.
    pub fn writes(&self, server: Number) -> bool {
        self.serves(&self.lock(), server)
    }

    /// Whether a server answers at all.
    pub fn answers(&self, server: Number) -> bool {
        self.lock().servers.get(&server).is_some_and(|server| server.down == 0)
    }

    fn serves(&self, state: &State, server: Number) -> bool {
        let Some(leader) = state.leader else { return false };
        let up = state.servers.get(&server).is_some_and(|server| server.down == 0);
        up && self.network.passes_both_ways(Net::Store, server, leader)
    }

    /// Something has changed: who leads, and who is still served.
    fn look(self: &Arc<Self>) {
        let mut state = self.lock();
        if let Some(leader) = state.leader
            && !self.could_lead(&state, leader)
        {
            state.leader = None;
            drop(state);
            self.journal.tell(Event::Leader(None));
            state = self.lock();
        }
        if state.leader.is_none()
            && !state.electing
            && state.servers.keys().any(|n| self.could_lead(&state, *n))
        {
            state.electing = true;
            let pause = state.rng.time(ELECTION[0], ELECTION[1]);
            let own = Arc::clone(self);
            self.process.spawn(async move {
                sleep(pause).await;
                own.elect();
            });
        }
        self.tell(&mut state);
        // Whoever is connected to a server that has no leader is sent away after a while.
        let mut left = Vec::new();
        for (id, client) in &state.clients {
            if let Some((line, server, _)) = &client.line
                && client.leaves != Some(*line)
                && !self.serves(&state, *server)
            {
                client.store.fall_behind();
                left.push((*id, *line, *server));
            }
        }
        let leads_since = state.leads_since;
        for (client, line, server) in left {
            let grace = state.rng.time(GRACE[0], GRACE[1]);
            if let Some(client) = state.clients.get_mut(&client) {
                client.leaves = Some(line);
            }
            let own = Arc::clone(self);
            self.process.spawn(async move {
                sleep(grace).await;
                // Whoever follows another leader now has closed its connections in between.
                if own.writes(server) && own.lock().leads_since == leads_since {
                    own.catch_up_line(client, line);
                } else {
                    own.closed(client, line);
                }
            });
        }
        drop(state);
        self.changes.send_replace(());
    }

    fn catch_up_line(&self, client: u64, line: u64) {
        let mut state = self.lock();
        if let Some(client) = state.clients.get_mut(&client)
            && client.line.as_ref().is_some_and(|(now, ..)| *now == line)
        {
            client.leaves = None;
            client.store.catch_up();
        }
    }

    fn elect(self: &Arc<Self>) {
        let mut state = self.lock();
        state.electing = false;
        if state.leader.is_some() {
            return;
        }
        let able: Vec<Number> =
            state.servers.keys().copied().filter(|server| self.could_lead(&state, *server)).collect();
        let Some(leader) = state.rng.pick(&able).copied() else { return };
        state.leader = Some(leader);
        state.leads_since = Instant::now();
        drop(state);
        self.journal.tell(Event::Leader(Some(self.names[leader].clone())));
        self.look();
    }

    /// Whether a server has a quorum behind it.
    fn could_lead(&self, state: &State, leader: Number) -> bool {
        let up = |server: &Number| state.servers.get(server).is_some_and(|server| server.down == 0);
        let reached = |server: &&Number| self.network.passes_both_ways(Net::Store, leader, **server);
        let behind = state.servers.keys().filter(|server| up(server)).filter(reached).count();
        up(&leader) && behind * 2 > state.servers.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long one way takes if nothing is wrong.
const NORMAL: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(2)];
