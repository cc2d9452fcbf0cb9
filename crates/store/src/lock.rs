//! The lock recipe of Python's kazoo, which clients of the 0.5 generation use on their command keys.
//!
//! A contender is an ephemeral sequential child of the locked key itself: `<32 hex digits>__lock__<10 digits>` to write,
//! `…__rlock__…` to read. A writer waits for every earlier contender, a reader only for earlier writers. Never waits
//! without a deadline: kazoo 2.8's readers wait, against their own documentation, also for *later* writers, so that a reader
//! of theirs and a later writer can wait for each other until one of them gives up. And it never protects by itself: a holder whose session is gone has lost the lock, which [`Lock::held`]
//! tells; what must not be overwritten is checked by version.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::{
    CommitError, CreateMode, Op, Session, Store, StoreError, Transaction, WatchEvent, put::remove_if_present,
};

/// How long giving a lock back may take.
const RELEASE_WITHIN: Duration = Duration::from_secs(10);
/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// How often a waiter looks again although it was told nothing: a safety net.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What a lock is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Shared with other readers.
    Read,
    /// Held by one alone.
    Write,
}

impl Kind {
    fn infix(self) -> &'static str {
        match self {
            Self::Read => "__rlock__",
            Self::Write => "__lock__",
        }
    }
}

/// Why a lock was not acquired.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LockError {
    /// Others held it for the whole time.
    #[error("{key} was locked by others for {waited:?}")]
    Busy {
        /// The locked key.
        key: String,
        /// How long was waited.
        waited: Duration,
    },
    /// There is nothing to lock.
    #[error("{key} cannot be locked: there is no such key")]
    NoSuchKey {
        /// The key.
        key: String,
    },
    /// The session ended meanwhile, and with it the place in the queue.
    #[error("the place in the queue for {key} was lost with the session")]
    Lost {
        /// The key.
        key: String,
    },
    /// The store failed.
    #[error("could not lock {key}")]
    Store {
        /// The key.
        key: String,
        /// Why.
        #[source]
        cause: StoreError,
    },
}

/// A lock that is held until it is released or dropped.
#[derive(Debug)]
pub struct Lock {
    place: Place,
}

impl Lock {
    /// Waits for a lock, at most `within`. If that fails nothing is left behind; without a connection making sure of that takes
    /// another ten seconds at most.
    pub async fn acquire(
        store: Arc<dyn Store>,
        key: &str,
        kind: Kind,
        within: Duration,
    ) -> Result<Self, LockError> {
        let mut place = Place::new(store, key, kind);
        let deadline = Instant::now() + within;
        match timeout_at(deadline, place.reach_the_front()).await {
            Ok(Ok(())) => Ok(Self { place }),
            Ok(Err(error)) => {
                place.leave().await;
                Err(error)
            }
            Err(_) => {
                place.leave().await;
                Err(LockError::Busy { key: key.to_owned(), waited: within })
            }
        }
    }

    /// Whether the lock can still be relied on: the session in which it was acquired is healthy.
    pub fn held(&self) -> bool {
        *self.place.store.session().borrow() == Session::Healthy { epoch: self.place.epoch }
    }

    /// Gives the lock back; returns when it is. Without a connection the end of the session does it.
    pub async fn release(mut self) {
        self.place.leave().await;
    }
}

/// A place in the queue.
struct Place {
    store: Arc<dyn Store>,
    key: String,
    /// Ours alone: also finds a place of which we were never told.
    prefix: String,
    kind: Kind,
    epoch: u64,
    taken: bool,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} lock on {} as {}", self.kind, self.key, self.prefix)
    }
}

impl Place {
    fn new(store: Arc<dyn Store>, key: &str, kind: Kind) -> Self {
        let prefix = format!("{}{}", Uuid::new_v4().simple(), kind.infix());
        Self { store, key: key.to_owned(), prefix, kind, epoch: 0, taken: false }
    }

    async fn reach_the_front(&mut self) -> Result<(), LockError> {
        self.queue().await?;
        loop {
            let Some(before) = self.next_before().await? else { return Ok(()) };
            self.wait_for(&before).await;
        }
    }

    /// Takes a place at the end of the queue.
    async fn queue(&mut self) -> Result<(), LockError> {
        let path = format!("{}/{}", self.key, self.prefix);
        let create = Op::Create { path, data: Vec::new(), mode: CreateMode::EphemeralSequential };
        loop {
            self.epoch = self.healthy_epoch().await?;
            // From now on there may be something to clean up.
            self.taken = true;
            match self.store.commit(Transaction { ops: vec![create.clone()] }).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {
                    self.taken = false;
                    return Err(LockError::NoSuchKey { key: self.key.clone() });
                }
                Err(CommitError::Failed(cause)) => return Err(self.failed(cause)),
                // Perhaps done, perhaps not, perhaps later: whatever there is begins with our prefix.
                Err(CommitError::Unknown(_)) if self.is_queued().await? => return Ok(()),
                Err(CommitError::Unknown(_)) => {}
            }
        }
    }

    async fn healthy_epoch(&self) -> Result<u64, LockError> {
        let mut session = self.store.session();
        let state = session.wait_for(|s| s.is_healthy()).await.map(|s| *s);
        match state {
            Ok(Session::Healthy { epoch }) => Ok(epoch),
            _ => Err(self.failed(StoreError::Unavailable("the store was closed".into()))),
        }
    }

    async fn is_queued(&self) -> Result<bool, LockError> {
        Ok(self.children().await?.iter().any(|child| child.starts_with(&self.prefix)))
    }

    async fn children(&self) -> Result<Vec<String>, LockError> {
        let children = self.store.children(&self.key).await.map_err(|cause| self.failed(cause))?;
        children.ok_or_else(|| LockError::NoSuchKey { key: self.key.clone() })
    }

    /// The last contender that this one must wait for; `None` when it is its turn.
    async fn next_before(&self) -> Result<Option<String>, LockError> {
        let children = self.children().await?;
        let own = children.iter().filter(|c| c.starts_with(&self.prefix)).filter_map(|c| contender(c));
        let Some(own) = own.map(|(_, sequence)| sequence).min() else {
            return Err(LockError::Lost { key: self.key.clone() });
        };
        let blocks = |kind: Kind| self.kind == Kind::Write || kind == Kind::Write;
        let before = children.iter().filter_map(|child| {
            let (kind, sequence) = contender(child)?;
            (sequence < own && blocks(kind)).then_some((sequence, child))
        });
        Ok(before.max().map(|(_, child)| format!("{}/{child}", self.key)))
    }

    /// Returns when the contender is gone, or it is worth looking.
    async fn wait_for(&self, contender: &str) {
        let mut watch = self.store.watch(contender);
        let event = async {
            // The watch is set before it says `Resync`: what is there then is reported when it goes.
            while let Some(event) = watch.recv().await {
                match event {
                    WatchEvent::Resync => {
                        let gone = self.store.stat_many(&[contender.to_owned()]).await;
                        if !matches!(gone.as_deref(), Ok([Some(_)])) {
                            return;
                        }
                    }
                    WatchEvent::Changed(_) => return,
                    WatchEvent::Interrupted => {}
                }
            }
        };
        let _silence = timeout_at(Instant::now() + LOOK_AGAIN, event).await;
    }

    /// Leaves the queue, also where it was joined without our knowing.
    async fn leave(&mut self) {
        if std::mem::take(&mut self.taken) {
            leave(&*self.store, &self.key, &self.prefix).await;
        }
    }

    fn failed(&self, cause: StoreError) -> LockError {
        LockError::Store { key: self.key.clone(), cause }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.taken {
            return;
        }
        // Without a runtime the end of the session does it.
        if tokio::runtime::Handle::try_current().is_ok() {
            let (store, key, prefix) = (Arc::clone(&self.store), self.key.clone(), self.prefix.clone());
            pvc_process::spawn(async move { leave(&*store, &key, &prefix).await });
        }
    }
}

/// Deletes every contender with that prefix.
async fn leave(store: &dyn Store, key: &str, prefix: &str) {
    let deadline = Instant::now() + RELEASE_WITHIN;
    while Instant::now() < deadline {
        match timeout_at(deadline, delete_all(store, key, prefix)).await {
            Ok(Ok(())) => return,
            Ok(Err(_)) => sleep(RETRY).await,
            Err(_) => break,
        }
    }
    tracing::warn!("could not give back the lock on {key} in time: it ends with the session");
}

async fn delete_all(store: &dyn Store, key: &str, prefix: &str) -> Result<(), CommitError> {
    let children = store.children(key).await.map_err(CommitError::Failed)?.unwrap_or_default();
    for child in children.iter().filter(|child| child.starts_with(prefix)) {
        remove_if_present(store, &format!("{key}/{child}")).await?;
    }
    Ok(())
}

/// What kazoo would make of a child's name; others are no contenders.
fn contender(name: &str) -> Option<(Kind, u64)> {
    let (head, sequence) = name.split_at_checked(name.len().checked_sub(10)?)?;
    let digits = sequence.bytes().all(|b| b.is_ascii_digit());
    let kind = [Kind::Write, Kind::Read].into_iter().find(|kind| head.ends_with(kind.infix()))?;
    digits.then(|| sequence.parse().ok()).flatten().map(|sequence| (kind, sequence))
}

#[cfg(test)]
mod tests;
