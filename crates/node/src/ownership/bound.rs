//! A store for who has a node's name: each write is done only if its daemon has the name in that instant.
//!
//! Without that a daemon whose session had expired could claim a VM, or say that it lives, between its new session and its finding out
//! that another machine has its name. It reads and watches like any other store.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pvc_core::model::NodeName;
use pvc_store::{Clash, CommitError, Committed, Layer, Store, Transaction, schema::machine};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::Title;

/// How long a write waits for the name to be taken anew, which it is in the first moments of a new session.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct Bound {
    store: Arc<dyn Store>,
    node: NodeName,
    title: watch::Receiver<Option<Title>>,
}

impl Bound {
    pub(super) fn new(store: Arc<dyn Store>, node: NodeName, title: watch::Receiver<Option<Title>>) -> Self {
        Self { store, node, title }
    }
}

#[async_trait]
impl Layer for Bound {
    fn below(&self) -> &dyn Store {
        &*self.store
    }

    async fn commit(&self, txn: Transaction) -> Result<Committed, CommitError> {
        let mut title = self.title.clone();
        let until = Instant::now() + TAKEN_WITHIN;
        loop {
            let Some(Title { record, .. }) = *title.borrow_and_update() else {
                let (op, path) = (txn.ops.len(), machine::path(&self.node));
                return Err(CommitError::Conflict { op, path, clash: Clash::Changed });
            };
            let mut bound = txn.clone();
            // Last, so that conflicts of the writer's own operations keep their numbers.
            bound.ops.extend(machine::expect(&self.node, record).ops);
            let outcome = self.store.commit(bound).await;
            let unnamed = matches!(&outcome, Err(CommitError::Conflict { op, .. }) if *op >= txn.ops.len());
            if !unnamed || !matches!(timeout_at(until, title.changed()).await, Ok(Ok(()))) {
                return outcome;
            }
        }
    }
}
