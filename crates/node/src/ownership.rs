//! One daemon a node: whoever holds `/pvc/daemon/<node>` is it, anybody else of the same name is refused.
//!
//! The key is ephemeral, so a daemon that is gone lets go of it when its session expires. A daemon that was killed and started again
//! need not wait for that: it takes the key from a holder that is *proven* dead, which is a process of this very boot and
//! process namespace that does not exist any more. Of any other holder nothing is known but its key: it is waited for.
//!
//! A session that has expired says nothing about its machine: guests run on there, and the claims that name the node are about them.
//! So the key is taken together with the record of the machine (`/pvc/machine/<node>`), and another machine than the recorded one is
//! refused while anything claims the name. What the daemon writes afterwards it writes by [`Ownership::store`].

mod bound;
mod title;

use std::{fs, io, sync::Arc, time::Duration};

use pvc_core::{
    model::NodeName,
    plan::machine::Refused,
    sabotage::{self, Bug},
};
use pvc_host::machine::{Machine, ThisMachine};
use pvc_store::{
    CommitError, Session, Store, StoreError,
    schema::{
        machine,
        owner::{self, Held, Owner},
    },
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{info, warn};
use uuid::Uuid;

use bound::Bound;

/// The pause between two looks at a holder that is waited for, and after a failure.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Why this process is not the node's daemon.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// Another process on this machine is.
    #[error("another pvcd (process {pid}) runs as {node} on this machine: stop it first")]
    Here {
        /// The node.
        node: NodeName,
        /// The other process.
        pid: u32,
    },
    /// A process elsewhere is, and it lives.
    #[error(
        "another pvcd runs as {node} {place}: give this machine a name of its own in pvcd.yaml (setting pvc.node), or stop the other one"
    )]
    Elsewhere {
        /// The node.
        node: NodeName,
        /// Where it is, as far as is known.
        place: String,
    },
    /// The name is another machine's.
    #[error(
        "this machine may not run as {node}: {why}. If that machine is gone for good and its power is off, say so with \
         `pvc node replace {node}`; else give this one a name of its own in pvcd.yaml (setting pvc.node)"
    )]
    AnotherMachine {
        /// The node.
        node: NodeName,
        /// Which machine, and what it may be executing.
        why: Refused,
    },
    /// This machine is another node.
    #[error(
        "this machine may not run as {node}: {why}. Put its name right in pvcd.yaml (setting pvc.node), or empty it under the other name \
         first (`pvc node flush`)"
    )]
    HasAName {
        /// The node.
        node: NodeName,
        /// Which, and what it may be executing.
        why: Refused,
    },
    /// Somebody has said that this machine is gone.
    #[error("this machine may not run as {node}: {why}")]
    Replaced {
        /// The node.
        node: NodeName,
        /// Who, in words.
        why: Refused,
    },
    /// The store refuses.
    #[error("could not register as the daemon of {node}")]
    Store {
        /// The node.
        node: NodeName,
        /// What the store said.
        #[source]
        cause: StoreError,
    },
}

/// This process as a node's daemon, or the request to be it.
pub struct Ownership {
    store: Arc<dyn Store>,
    machine: Arc<dyn Machine>,
    node: NodeName,
    me: Owner,
    /// How the name was last taken.
    title: watch::Sender<Option<Title>>,
}

/// By what this daemon has the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Title {
    /// The version of the machine's record with which it was taken.
    record: i32,
    /// The session in which it was taken, or an earlier one if that is not known.
    session: Option<u64>,
}

/// How an attempt to take the name ended.
enum Attempt {
    Taken,
    /// Somebody wrote meanwhile: look again.
    TooSlow,
    Refused(OwnershipError),
}

/// What a holder is to us.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    /// This very run of the daemon, perhaps in an earlier session.
    Myself,
    /// A process of this boot that does not exist any more.
    Dead,
    /// Another process on this machine.
    Alive(u32),
    /// Somewhere, or not understood.
    Unknown(String),
}

impl Ownership {
    /// Does nothing yet.
    pub fn new(store: Arc<dyn Store>, machine: Arc<dyn Machine>, node: NodeName, me: Owner) -> Self {
        Self { store, machine, node, me, title: watch::Sender::new(None) }
    }

    /// The store as the node's daemon uses it: each of its writes is done only if the daemon has the name in that instant, and none
    /// before it has taken it.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(Bound::new(Arc::clone(&self.store), self.node.clone(), self.title.subscribe()))
    }

    /// The store for what is written under no node's name.
    pub fn nameless_store(&self) -> &dyn Store {
        &*self.store
    }

    /// Takes the name. Waits for a holder of whom nothing is known until its session must have expired, and as long for what ties the
    /// name to another machine.
    pub async fn take(&self) -> Result<(), OwnershipError> {
        let mut waiting_since = None;
        loop {
            match self.attempt().await {
                Ok(Attempt::Taken) => return Ok(()),
                Ok(Attempt::TooSlow) => {}
                Ok(Attempt::Refused(error @ OwnershipError::Here { .. })) => return Err(error),
                Ok(Attempt::Refused(error)) => self.wait_out(error, &mut waiting_since)?,
                Err(error) => {
                    self.pause_after(error).await?;
                    continue;
                }
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn attempt(&self) -> Result<Attempt, StoreError> {
        let held = owner::read(&*self.store, &self.node).await?;
        let seen = machine::read(&*self.store, &self.node).await?;
        let allowed = match held.as_ref().map(|held| self.judge(held)) {
            // Whoever has the key has the name, and is or was a process of this very boot.
            Some(Holder::Myself | Holder::Dead) => Ok(self.record(&seen)),
            Some(Holder::Alive(pid)) => Err(OwnershipError::Here { node: self.node.clone(), pid }),
            Some(Holder::Unknown(place)) => Err(OwnershipError::Elsewhere { node: self.node.clone(), place }),
            // What claims the name is read while nobody holds the key, so nobody adds to it before the key is ours or somebody else's.
            None => self.successor(&seen).await?,
        };
        let record = match allowed {
            Ok(record) => record,
            Err(OwnershipError::AnotherMachine { .. }) if sabotage::commits(Bug::AnyMachine) => {
                self.record(&seen)
            }
            Err(error) => return Ok(Attempt::Refused(error)),
        };
        let mut txn = owner::take(&self.node, &self.me, held.as_ref());
        txn.ops.extend(machine::write(&self.node, &record, &seen).ops);
        let session = epoch(*self.store.session().borrow());
        match self.store.commit(txn).await {
            Ok(_) => {
                self.title.send_replace(Some(Title { record: seen.next_version(), session }));
                Ok(Attempt::Taken)
            }
            Err(CommitError::Conflict { .. }) => Ok(Attempt::TooSlow),
            Err(CommitError::Unknown(error) | CommitError::Failed(error)) => Err(error),
        }
    }

    /// Keeps the key through new sessions, from when it has been taken on: also while what follows on that is still under way, which
    /// waits for what nobody can write without it. Returns only when somebody else has it, or the name, for good.
    pub async fn keep(&self) -> OwnershipError {
        // An error would be that this daemon is no more.
        let _ = self.title.subscribe().wait_for(Option::is_some).await;
        let mut session = self.store.session();
        let (owner, machine) = (owner::path(&self.node), machine::path(&self.node));
        let watched = || (self.store.watch(&owner), self.store.watch(&machine));
        let mut watches = watched();
        let mut unread = epoch(*session.borrow_and_update()) != self.taken_in();
        loop {
            let watch_ended = tokio::select! {
                biased;
                _ = session.changed() => false,
                event = watches.0.recv() => event.is_none(),
                event = watches.1.recv() => event.is_none(),
                () = sleep(LOOK_AGAIN), if unread => false,
            };
            if watch_ended {
                watches = watched();
                sleep(LOOK_AGAIN).await;
            }
            let now = *session.borrow_and_update();
            if !now.is_healthy() {
                continue;
            }
            let has_it = self.still_has_it(epoch(now) == self.taken_in()).await;
            let unheard = has_it.is_err();
            match has_it {
                Ok(Ok(false)) => {
                    if let Err(error) = self.take().await {
                        return error;
                    }
                }
                Ok(Err(error)) => return error,
                Ok(Ok(true)) | Err(_) => {}
            }
            // A server that answers too late ends no session, so nothing else would have this looked at again; and without the key nothing is
            // written, no keepalive either.
            unread = unheard || epoch(now) != self.taken_in();
        }
    }

    fn taken_in(&self) -> Option<u64> {
        self.title.borrow().and_then(|title| title.session)
    }

    /// Whether the name needs no taking; an error if it is lost.
    async fn still_has_it(&self, same_session: bool) -> Result<Result<bool, OwnershipError>, StoreError> {
        let held = owner::read(&*self.store, &self.node).await?;
        let seen = machine::read(&*self.store, &self.node).await?;
        if held.is_some_and(|held| self.judge(&held) == Holder::Myself) {
            let record = self.title.borrow().map(|title| title.record);
            return Ok(Ok(same_session && seen.version == record));
        }
        Ok(self.lost(&seen).await?.map_or(Ok(false), Err))
    }

    /// Waits for others to go, for so long as an unheard session may last and be missed.
    fn wait_out(&self, error: OwnershipError, since: &mut Option<Instant>) -> Result<(), OwnershipError> {
        let longest = self.store.session_timeout() * 2 + Duration::from_secs(2);
        let Some(since) = *since else {
            *since = Some(Instant::now());
            let seconds = longest.as_secs();
            match &error {
                OwnershipError::Elsewhere { node, place } => info!(
                    "another pvcd is registered as {node} {place}: waiting up to {seconds} s for its session to end"
                ),
                _ => info!("{error}; waiting up to {seconds} s for that to change"),
            }
            return Ok(());
        };
        if since.elapsed() > longest { Err(error) } else { Ok(()) }
    }

    fn judge(&self, held: &Held) -> Holder {
        let Some(by) = &held.by else { return Holder::Unknown("by a key that is not understood".into()) };
        if by.instance == self.me.instance {
            return Holder::Myself;
        }
        if by.boot != self.me.boot || by.pid_namespace != self.me.pid_namespace {
            return Holder::Unknown(format!("on the machine {} (process {})", by.host, by.pid));
        }
        if self.machine.process_started(by.pid).is_ok_and(|started| started == Some(by.started)) {
            return Holder::Alive(by.pid);
        }
        Holder::Dead
    }

    /// A store that is away comes back; one that refuses does not change its mind.
    async fn pause_after(&self, error: StoreError) -> Result<(), OwnershipError> {
        match error {
            StoreError::Unavailable(_) | StoreError::SessionLost => {
                let mut session = self.store.session();
                let _ = session.wait_for(|s| s.is_healthy()).await;
                sleep(LOOK_AGAIN).await;
                Ok(())
            }
            StoreError::Refused { .. } => {
                warn!(error = %error, "cannot register as the daemon of {}", self.node);
                Err(OwnershipError::Store { node: self.node.clone(), cause: error })
            }
        }
    }
}

fn epoch(session: Session) -> Option<u64> {
    match session {
        Session::Connecting => None,
        Session::Healthy { epoch } | Session::Suspended { epoch } => Some(epoch),
    }
}

/// This process, as others see it.
///
/// # Errors
/// If `/proc` is not what it is on Linux.
pub fn this_process(host: String) -> io::Result<Owner> {
    let pid = std::process::id();
    Ok(Owner {
        host,
        boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
        pid_namespace: fs::read_link("/proc/self/ns/pid")?.to_string_lossy().into_owned(),
        pid,
        started: ThisMachine
            .process_started(pid)?
            .ok_or_else(|| io::Error::other("this process is not in /proc"))?,
        instance: Uuid::new_v4().to_string(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
    })
}

#[cfg(test)]
mod tests;
