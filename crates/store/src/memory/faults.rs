//! What can go wrong, at will: each is a plain method, to be called by a test or a simulator's schedule.

use std::time::Duration;

use super::{Behind, MemoryStore, lock};
use crate::Heard;
use crate::store::{CommitError, Session, StoreError, Transaction, WatchEvent};

/// Faults that wait for the next calls.
#[derive(Debug, Default)]
pub(super) struct Faults {
    delay: Duration,
    refuse: u32,
    lose_requests: u32,
    lose_answers: u32,
    orphan: bool,
    split: bool,
}

impl Faults {
    pub(super) fn orphan(&self) -> bool {
        self.orphan
    }

    pub(super) fn split(&self) -> bool {
        self.split
    }

    pub(super) fn delay(&self) -> Duration {
        self.delay
    }

    pub(super) fn refuse_one(&mut self) -> bool {
        take_one(&mut self.refuse)
    }

    pub(super) fn lose_one_request(&mut self) -> bool {
        take_one(&mut self.lose_requests)
    }

    pub(super) fn lose_one_answer(&mut self) -> bool {
        take_one(&mut self.lose_answers)
    }
}

fn take_one(count: &mut u32) -> bool {
    let some = *count > 0;
    *count = count.saturating_sub(1);
    some
}

impl MemoryStore {
    /// Cuts the connection: calls wait for it until their deadline, the session lives on.
    pub fn suspend(&self) {
        self.cut();
        let mut world = lock(&self.world);
        let Some(client) = world.clients.get_mut(&self.id) else { return };
        if client.state.borrow().is_healthy() {
            client.tell_watches(&WatchEvent::Interrupted);
            client.state.send_replace(Session::Suspended { epoch: client.epoch });
        }
    }

    /// The first half of [`Self::suspend`]: nothing gets through any more, and the client has not noticed yet.
    pub fn cut(&self) {
        let mut world = lock(&self.world);
        if let Some(client) = world.clients.get_mut(&self.id) {
            client.signs_of_life();
            client.connected = false;
            client.watching = false;
        }
    }

    /// Heals the connection; if the session was expired meanwhile, a new one is opened.
    pub fn resume(&self) {
        self.resume_without_watches();
        self.set_watches();
    }

    /// The first half of [`Self::resume`]: calls are answered, but the watches are not set again yet.
    pub fn resume_without_watches(&self) {
        let mut world = lock(&self.world);
        let new_session = world.new_id();
        let Some(client) = world.clients.get_mut(&self.id).filter(|c| !c.connected) else { return };
        client.connected = true;
        client.said = tokio::time::Instant::now();
        if client.session == EXPIRED {
            client.session = new_session;
            client.epoch += 1;
            client.heard = Heard::opened(tokio::time::Instant::now());
            client.state.send_replace(Session::Connecting);
        }
        client.state.send_replace(Session::Healthy { epoch: client.epoch });
    }

    /// The second half of [`Self::resume`].
    pub fn set_watches(&self) {
        let mut world = lock(&self.world);
        // The real store synchronises with the leader before it says `Resync`.
        world.catch_up(self.id);
        let Some(client) = world.clients.get_mut(&self.id).filter(|c| c.connected && !c.watching) else {
            return;
        };
        client.watching = true;
        client.tell_watches(&WatchEvent::Resync);
    }

    /// Ends the session on the servers: its ephemeral keys are gone. The client learns of it now and opens a new session, or
    /// at [`Self::resume`] if it is suspended.
    pub fn expire(&self) {
        let connected = {
            let mut world = lock(&self.world);
            let Some(client) = world.clients.get_mut(&self.id) else { return };
            let connected = client.connected;
            let session = std::mem::replace(&mut client.session, EXPIRED);
            if session != EXPIRED {
                world.end_session(session);
            }
            connected
        };
        if connected {
            self.suspend();
            self.resume();
        }
    }

    /// A write that was on its way when the connection ended: done if the session lives, and nobody hears of it.
    pub fn commit_late(&self, txn: &Transaction) -> Result<(), CommitError> {
        let mut world = lock(&self.world);
        let session = world.clients.get(&self.id).map_or(EXPIRED, |client| client.session);
        if session == EXPIRED {
            return Err(CommitError::Failed(StoreError::SessionLost));
        }
        world.commit(txn, session).map(drop)
    }

    /// The servers grant this session time-out from now on.
    pub fn grant(&self, session_timeout: Duration) {
        if let Some(client) = lock(&self.world).clients.get_mut(&self.id) {
            client.session_timeout = session_timeout;
        }
    }

    /// Every call takes this long from now on. A call that would take longer than its deadline fails then.
    pub fn delay(&self, by: Duration) {
        self.fault(|f| f.delay = by);
    }

    /// Many values are asked for one by one from now on, each at its own moment, as more than fit into one request of ZooKeeper's are in parts.
    pub fn split_reads(&self) {
        self.fault(|f| f.split = true);
    }

    /// The next `count` commits are done, but their answers are lost.
    pub fn lose_answers(&self, count: u32) {
        self.fault(|f| f.lose_answers = count);
    }

    /// The next `count` commits are lost on their way: not done, and nobody says so.
    pub fn lose_requests(&self, count: u32) {
        self.fault(|f| f.lose_requests = count);
    }

    /// The server of this client has lost its leader, or found it again: meanwhile it answers what is read, and no write.
    pub fn orphan(&self, orphan: bool) {
        self.fault(|f| f.orphan = orphan);
        if orphan {
            self.fall_behind();
        } else {
            self.catch_up();
        }
    }

    /// The next `count` calls fail: certainly not done.
    pub fn refuse(&self, count: u32) {
        self.fault(|f| f.refuse = count);
    }

    /// From now on the server that this client reads from hears of changes only when this client commits one itself, or
    /// sets a watch, or [`Self::catch_up`] is called: stale reads and late events, within ZooKeeper's guarantees.
    pub fn fall_behind(&self) {
        let mut world = lock(&self.world);
        let tree = world.leader.clone();
        if let Some(client) = world.clients.get_mut(&self.id).filter(|c| c.behind.is_none()) {
            client.behind = Some(Behind { tree, pending: Vec::new() });
        }
    }

    /// Ends [`Self::fall_behind`].
    pub fn catch_up(&self) {
        let mut world = lock(&self.world);
        world.catch_up(self.id);
        if let Some(client) = world.clients.get_mut(&self.id) {
            client.behind = None;
        }
    }

    fn fault(&self, set: impl FnOnce(&mut Faults)) {
        if let Some(client) = lock(&self.world).clients.get_mut(&self.id) {
            set(&mut client.faults);
        }
    }
}

/// In place of a session number: the servers have ended the session, the client does not know.
pub(super) const EXPIRED: u64 = 0;

#[cfg(test)]
mod tests {
    use crate::{Check, CreateMode, Op, Store, Transaction, WatchEvent, memory::MemoryTree};

    fn set(path: &str, data: &str) -> Transaction {
        Transaction { ops: vec![Op::Set { path: path.into(), data: data.into(), version: None }] }
    }

    #[tokio::test]
    async fn a_client_behind_reads_old_values_until_its_own_write_is_answered() {
        let tree = MemoryTree::new();
        let (behind, other) = (tree.client(), tree.client());
        let create =
            |path: &str| Op::Create { path: path.into(), data: vec![], mode: CreateMode::Persistent };
        other.commit(Transaction { ops: vec![create("/a"), create("/b")] }).await.unwrap();
        let mut watch = behind.watch("/");
        assert_eq!(watch.recv().await, Some(WatchEvent::Resync));
        behind.fall_behind();
        other.commit(set("/a", "new")).await.unwrap();
        assert_eq!(behind.get("/a").await.unwrap().unwrap().data, b"", "a stale read");
        assert!(watch.try_recv().is_err(), "a late event");

        // Versions are checked where the truth is.
        let check = Op::Check { path: "/a".into(), check: Check::Version(0) };
        assert!(behind.commit(Transaction { ops: vec![check] }).await.is_err());
        behind.commit(set("/b", "own")).await.unwrap();
        assert_eq!(behind.get("/b").await.unwrap().unwrap().data, b"own");
        assert_eq!(behind.get("/a").await.unwrap().unwrap().data, b"new", "and everything before it");
        assert_eq!(watch.try_recv().unwrap(), WatchEvent::Changed("/a".into()));
        assert_eq!(watch.try_recv().unwrap(), WatchEvent::Changed("/b".into()));

        other.commit(set("/a", "newer")).await.unwrap();
        behind.catch_up();
        assert_eq!(behind.get("/a").await.unwrap().unwrap().data, b"newer");
    }
}
