//! One daemon a node: whoever holds `/pvc/daemon/<node>` is it, anybody else of the same name is refused.
//!
//! The key is ephemeral, so a daemon that is gone lets go of it when its session expires. A daemon that was killed and started again
//! need not wait for that: it takes the key from a holder that is *proven* dead, which is a process of this very boot and
//! process namespace that does not exist any more. Of any other holder nothing is known but its key: it is waited for.

use std::{fs, io, sync::Arc, time::Duration};

use pvc_core::model::NodeName;
use pvc_host::machine::{Machine, ThisMachine};
use pvc_store::{
    CommitError, Session, Store, StoreError,
    schema::owner::{self, Held, Owner},
};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use uuid::Uuid;

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

/// This process as a node's daemon, or the wish to be it.
pub struct Ownership {
    store: Arc<dyn Store>,
    machine: Arc<dyn Machine>,
    node: NodeName,
    me: Owner,
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
        Self { store, machine, node, me }
    }

    /// Takes the key. Waits for a holder of whom nothing is known until its session must have expired.
    pub async fn take(&self) -> Result<(), OwnershipError> {
        let mut waiting_since = None;
        loop {
            let held = match owner::read(&*self.store, &self.node).await {
                Ok(held) => held,
                Err(error) => {
                    self.pause_after(error).await?;
                    continue;
                }
            };
            if let Some(held) = &held {
                match self.judge(held) {
                    Holder::Myself | Holder::Dead => {}
                    Holder::Alive(pid) => return Err(OwnershipError::Here { node: self.node.clone(), pid }),
                    Holder::Unknown(place) => {
                        self.wait_for(&place, &mut waiting_since)?;
                        sleep(LOOK_AGAIN).await;
                        continue;
                    }
                }
            }
            match self.store.commit(owner::take(&self.node, &self.me, held.as_ref())).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) => sleep(LOOK_AGAIN).await,
                Err(CommitError::Unknown(error) | CommitError::Failed(error)) => {
                    self.pause_after(error).await?;
                }
            }
        }
    }

    /// Keeps the key through new sessions. Returns only when somebody else has it for good.
    pub async fn keep(&self) -> OwnershipError {
        let mut session = self.store.session();
        let mut watch = self.store.watch(&owner::path(&self.node));
        let mut taken_in = epoch(*session.borrow_and_update());
        loop {
            let watch_ended = tokio::select! {
                biased;
                _ = session.changed() => false,
                event = watch.recv() => event.is_none(),
            };
            if watch_ended {
                watch = self.store.watch(&owner::path(&self.node));
                sleep(LOOK_AGAIN).await;
            }
            let now = *session.borrow_and_update();
            if !now.is_healthy() {
                continue;
            }
            let same_session = epoch(now) == taken_in;
            match owner::read(&*self.store, &self.node).await {
                Ok(Some(held)) if same_session && self.judge(&held) == Holder::Myself => {}
                Ok(_) => match self.take().await {
                    Ok(()) => taken_in = epoch(now),
                    Err(error) => return error,
                },
                // It will be looked at again when the session is healthy again.
                Err(_) => {}
            }
        }
    }

    fn wait_for(&self, place: &str, since: &mut Option<Instant>) -> Result<(), OwnershipError> {
        let longest = self.store.session_timeout() * 2 + Duration::from_secs(2);
        let Some(since) = *since else {
            *since = Some(Instant::now());
            let seconds = longest.as_secs();
            info!(
                "another pvcd is registered as {} {place}: waiting up to {seconds} s for its session to end",
                self.node
            );
            return Ok(());
        };
        if since.elapsed() > longest {
            return Err(OwnershipError::Elsewhere { node: self.node.clone(), place: place.to_owned() });
        }
        Ok(())
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
    })
}

#[cfg(test)]
mod tests;
