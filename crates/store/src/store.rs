//! The store as the rest of the system sees it: versioned keys, transactions, watches, a session.
//!
//! Every call has a deadline of its own (the store's request time-out) and returns an error when it passes; nothing
//! blocks for ever. A write whose answer was lost has *unknown* outcome: look again before acting.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

/// A key's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The bytes. Untrusted until `schema` typed them.
    pub data: Vec<u8>,
    /// Data version, moves by one per write.
    pub version: i32,
    /// Transaction that last wrote the data; for read-your-writes.
    pub mzxid: i64,
    /// Number of children.
    pub children: u32,
}

impl Value {
    /// What `Store::stat_many` would have said of this key.
    pub fn stat(&self) -> Stat {
        Stat { version: self.version, mzxid: self.mzxid, children: self.children }
    }
}

/// A key without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// As in [`Value`].
    pub version: i32,
    /// As in [`Value`].
    pub mzxid: i64,
    /// As in [`Value`].
    pub children: u32,
}

/// Names of a key's children, without path, unordered.
pub type Children = Vec<String>;

/// How a created key lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CreateMode {
    /// Until deleted.
    Persistent,
    /// Until deleted or the creating session ends.
    Ephemeral,
    /// As `Ephemeral`, with a ten-digit sequence number appended to the name.
    EphemeralSequential,
}

/// What must hold of a key for a transaction to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// Exists, in any version.
    Exists,
    /// Exists in exactly this data version.
    Version(i32),
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "paths, data and versions are what they say")]
pub enum Op {
    /// Requires a key's existence or version.
    Check { path: String, check: Check },
    /// Creates a key; fails if it exists or its parent does not.
    Create { path: String, data: Vec<u8>, mode: CreateMode },
    /// Writes a key; fails if it is absent or, when given, its version differs.
    Set { path: String, data: Vec<u8>, version: Option<i32> },
    /// Deletes a key; fails if it is absent, has children or, when given, its version differs.
    Delete { path: String, version: Option<i32> },
}

impl Op {
    /// The key it is about.
    pub fn path(&self) -> &str {
        match self {
            Self::Check { path, .. }
            | Self::Create { path, .. }
            | Self::Set { path, .. }
            | Self::Delete { path, .. } => path,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Create { path, data, .. } | Self::Set { path, data, .. } => path.len() + data.len(),
            Self::Check { path, .. } | Self::Delete { path, .. } => path.len(),
        }
    }
}

/// Writes that are applied together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// In order.
    pub ops: Vec<Op>,
}

impl Transaction {
    /// ZooKeeper drops the connection, without an answer, when a request exceeds `jute.maxbuffer` (1 MiB): such a write would
    /// be "unknown" for ever, and take everybody else's requests with it.
    const LARGEST: usize = 1_000_000;

    /// Refuses what would never fit into one request.
    pub(crate) fn check_size(&self) -> Result<(), StoreError> {
        // Besides its path and data, an operation takes some 40 bytes.
        let bytes: usize = self.ops.iter().map(|op| op.size() + 64).sum();
        if bytes <= Self::LARGEST {
            return Ok(());
        }
        let largest = self.ops.iter().max_by_key(|op| op.size()).map_or("", Op::path);
        Err(StoreError::Refused {
            what: format!("a write of {bytes} bytes, most of them to {largest}"),
            why: format!("at most {} bytes fit into one transaction", Self::LARGEST),
        })
    }
}

/// Proof of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The transaction's id as the written keys' `mzxid` will show it. 0 if the transaction has no `Set`: for other operations
    /// ZooKeeper does not tell (ZOOKEEPER-4026).
    pub zxid: i64,
    /// The paths of `Create`s as created (sequence numbers filled in), in the order of the operations.
    pub created: Vec<String>,
}

/// Why a read, or anything else than a commit, failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Not connected now, or no answer within the deadline. A write may or may not have happened.
    #[error("the state store did not answer: {0}")]
    Unavailable(String),
    /// The session ended; ephemeral keys and watches are gone. The store opens a new session by itself.
    #[error("the session with the state store has ended")]
    SessionLost,
    /// The store refused: authentication, an invalid path, a value that is too large.
    #[error("the state store refused {what}: {why}")]
    Refused {
        /// What was asked.
        what: String,
        /// The store's reason.
        why: String,
    },
}

/// Why a transaction was not (known to be) applied.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// A check or precondition of operation `op` (its index) failed: somebody was faster. Nothing was written. Normal.
    #[error("{path} {clash}")]
    Conflict {
        /// Index of the operation.
        op: usize,
        /// Its key.
        path: String,
        /// What it was found to be instead.
        clash: Clash,
    },
    /// Nothing is known about the outcome: look again.
    #[error("unknown whether the write was done: {0}")]
    Unknown(StoreError),
    /// Certainly not written.
    #[error(transparent)]
    Failed(StoreError),
}

/// Why an operation does not fit what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// The key has another version.
    #[error("has changed meanwhile")]
    Changed,
    /// There is no such key; or none above it, if it was to be created.
    #[error("is not there, or what is above it")]
    Missing,
    /// The key to create exists.
    #[error("exists already")]
    Present,
    /// The key to delete has children.
    #[error("has keys below it")]
    NotEmpty,
}

/// The state of the session, as far as this client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// Never connected so far, or between two sessions.
    Connecting,
    /// Connected.
    Healthy {
        /// Counts sessions, from 1: in a new epoch the ephemeral keys of the last one are gone.
        epoch: u64,
    },
    /// The connection is lost, the session may still live on the server.
    Suspended {
        /// As in `Healthy`.
        epoch: u64,
    },
}

impl Session {
    /// Whether requests can be expected to be answered now.
    pub fn is_healthy(self) -> bool {
        matches!(self, Self::Healthy { .. })
    }
}

/// Why waiting for a healthy session ended without one.
pub(crate) enum NoSession {
    /// The deadline passed.
    Late,
    /// The store was closed.
    Closed,
}

/// Waits for a healthy session.
pub(crate) async fn healthy_by(
    session: &mut watch::Receiver<Session>,
    deadline: tokio::time::Instant,
) -> Result<(), NoSession> {
    match tokio::time::timeout_at(deadline, session.wait_for(|s| s.is_healthy())).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(NoSession::Closed),
        Err(_) => Err(NoSession::Late),
    }
}

/// What a watch reports. Events only say *look again*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// Everything below the watched path may have changed: list again. The first event of every watch, and the first
    /// after every reconnection.
    Resync,
    /// The connection is lost: from here to the next `Resync` changes go unreported.
    Interrupted,
    /// This key, or its list of children, changed, was created or was deleted.
    Changed(String),
}

/// A subscription to a subtree; ends when dropped.
pub type Watch = mpsc::UnboundedReceiver<WatchEvent>;

/// The state store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// A key's content, or `None` if there is none.
    async fn get(&self, path: &str) -> Result<Option<Value>, StoreError>;

    /// The names of a key's children, or `None` if there is no such key.
    async fn children(&self, path: &str) -> Result<Option<Children>, StoreError>;

    /// Many keys' contents in as few requests as possible, in the order asked.
    async fn get_many(&self, paths: &[String]) -> Result<Vec<Option<Value>>, StoreError>;

    /// Many keys' children in as few requests as possible, in the order asked.
    async fn children_many(&self, paths: &[String]) -> Result<Vec<Option<Children>>, StoreError>;

    /// Many keys' versions without their contents, in the order asked: for keys whose contents are large.
    async fn stat_many(&self, paths: &[String]) -> Result<Vec<Option<Stat>>, StoreError>;

    /// Applies a transaction, all or nothing. When it returns, the events of this transaction are already in the watches of
    /// this store.
    async fn commit(&self, txn: Transaction) -> Result<Committed, CommitError>;

    /// Returns when reads of this store show everything that anybody had committed before the call, and its events are in the
    /// watches. An answer also says that a quorum of servers took part after the call.
    ///
    /// It is a transaction that changes nothing, which costs each server a line in its log. ZooKeeper's own `sync` would be cheaper,
    /// but a leader whose followers have left it, and perhaps elected another, goes on answering that for up to `syncLimit`.
    async fn sync(&self) -> Result<(), StoreError> {
        let check = Op::Check { path: "/".to_owned(), check: Check::Exists };
        match self.commit(Transaction { ops: vec![check] }).await {
            // A root that is not there is an answer as well.
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
            Err(CommitError::Unknown(error) | CommitError::Failed(error)) => Err(error),
        }
    }

    /// Returns when the events of everything that an answer has shown so far are in the watches of this store. For who must not
    /// take one key's new value for news without the changes that came with it.
    async fn show_events(&self);

    /// Watches a path and everything below it, across reconnections and sessions. The path need not exist yet.
    fn watch(&self, path: &str) -> Watch;

    /// The session's state; changes are signalled.
    fn session(&self) -> watch::Receiver<Session>;

    /// The session time-out as the server grants it now; before there is a session, as it is asked for. Another session, or another
    /// server, may grant another.
    fn session_timeout(&self) -> Duration;

    /// A lower bound, by this process's clock, of when the servers began to count the time of the present session's end last: it
    /// cannot end before this and [`Self::session_timeout`]. Moved by acknowledged writes, not by reads: those are answered by
    /// servers that have lost their leader. See [`Heard`](crate::Heard). `None`: there is no session.
    fn leader_heard(&self) -> Option<Instant>;

    /// Ends the session in order: ephemeral keys go at once. Further calls fail.
    async fn close(&self);
}
