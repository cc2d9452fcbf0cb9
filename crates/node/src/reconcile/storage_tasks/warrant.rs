//! What a change of a task is made by.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use pvc_core::model::{
    NodeName,
    ceph::{Changer, ClientAddress},
};
use pvc_host::warrant::{Void, Warrant};
use pvc_store::{
    CommitError, Store,
    schema::task::{self, Seen},
};

use crate::vm_clients::AsDecided;

/// Holds while this node is primary and the task is as it was seen, or was written since by this very change.
pub(super) struct OfTask<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) me: &'a NodeName,
    /// In which boot this machine is, if that is known.
    pub(super) boot: Option<String>,
    pub(super) seen: Mutex<Seen>,
}

impl OfTask<'_> {
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_now(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

#[async_trait]
impl Warrant for OfTask<'_> {
    async fn holds(&self) -> Result<(), Void> {
        AsDecided { store: self.store, checks: task::unchanged(&self.seen(), self.me) }.holds().await
    }

    /// The leader decides about the write as it does about checks.
    async fn holds_for(&self, client: &ClientAddress) -> Result<(), Void> {
        let changer = Changer { client: *client, node: self.me.clone(), boot: self.boot.clone() };
        match task::changed_by(self.store, &self.seen(), Some(changer), self.me).await {
            Ok(now) => {
                self.is_now(now);
                Ok(())
            }
            Err(CommitError::Conflict { path, .. }) => Err(Void::Overtaken(path)),
            Err(error) => Err(Void::Unknown(error.to_string())),
        }
    }
}
