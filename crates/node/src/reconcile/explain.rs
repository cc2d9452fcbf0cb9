//! Publishes why a VM is not settled, for `pvc vm explain`. Best effort: it never holds up or fails a reconciler.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pvc_core::model::{Explanation, NodeName, VmId};
use pvc_host::machine::Machine;
use pvc_store::{Store, schema};
use tracing::debug;

/// The explanations this node has published.
pub(super) struct Explanations {
    store: Arc<dyn Store>,
    machine: Arc<dyn Machine>,
    me: NodeName,
    published: Mutex<HashMap<VmId, Said>>,
}

/// What an explanation says, without when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// What is being done or waited for.
    pub(super) doing: &'static str,
    /// Why.
    pub(super) because: String,
    /// The last attempt's error.
    pub(super) error: Option<String>,
}

impl Explanations {
    /// Nothing published yet.
    pub(super) fn new(store: Arc<dyn Store>, machine: Arc<dyn Machine>, me: NodeName) -> Self {
        Self { store, machine, me, published: Mutex::default() }
    }

    /// Takes over what an earlier run of this daemon left behind, so that it is removed when its VM is settled.
    pub(super) async fn take_over(&self) {
        let names = self.store.children(schema::vm::EXPLAIN_ROOT).await;
        let ids = match names {
            Ok(names) => names.unwrap_or_default().into_iter().filter_map(|name| name.parse::<VmId>().ok()),
            Err(error) => return debug!(%error, "could not read the explanations of an earlier run"),
        };
        for id in ids {
            if let Ok(Some(Ok(left))) = schema::vm::read_explanation(&*self.store, id).await
                && left.by == self.me.as_str()
            {
                self.lock().insert(id, Said { doing: "", because: left.because, error: left.error });
            }
        }
    }

    /// Publishes what is going on with a VM, if it is news.
    pub(super) async fn say(&self, id: VmId, said: Said) {
        if self.lock().get(&id) == Some(&said) {
            return;
        }
        let explanation = Explanation {
            by: self.me.to_string(),
            at_unix_s: self.machine.unix_s(),
            doing: said.doing.to_owned(),
            because: said.because.clone(),
            error: said.error.clone(),
        };
        match schema::vm::explain(&*self.store, id, Some(&explanation)).await {
            Ok(()) => {
                self.lock().insert(id, said);
            }
            Err(error) => debug!(vm = %id, %error, "could not publish why it is not settled"),
        }
    }

    /// There is nothing to explain any more.
    pub(super) async fn settled(&self, id: VmId) {
        if !self.lock().contains_key(&id) {
            return;
        }
        match schema::vm::explain(&*self.store, id, None).await {
            Ok(()) => {
                self.lock().remove(&id);
            }
            Err(error) => debug!(vm = %id, %error, "could not withdraw an explanation"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VmId, Said>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
