//! A store for who has a node's name: each write is done only if its daemon has the name in that instant.
//!
//! Without that a daemon whose session had expired could claim a VM, or say that it lives, between its new session and its finding out
//! that another machine has its name. It reads and watches like any other store.

use std::time::Duration;

use async_trait::async_trait;
use pvc_core::model::NodeName;
use pvc_store::{
    Children, Clash, CommitError, Committed, Session, Stat, Store, StoreError, Transaction, Value, Watch,
    schema::machine,
};
use std::sync::Arc;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// How long a write waits for the name to be taken anew, which it is in the first moments of a new session.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct Bound {
    store: Arc<dyn Store>,
    node: NodeName,
    title: watch::Receiver<Option<i32>>,
}

impl Bound {
    pub(super) fn new(store: Arc<dyn Store>, node: NodeName, title: watch::Receiver<Option<i32>>) -> Self {
        Self { store, node, title }
    }
}

#[async_trait]
impl Store for Bound {
    async fn commit(&self, txn: Transaction) -> Result<Committed, CommitError> {
        let mut title = self.title.clone();
        let until = Instant::now() + TAKEN_WITHIN;
        loop {
            let Some(version) = *title.borrow_and_update() else {
                let (op, path) = (txn.ops.len(), machine::path(&self.node));
                return Err(CommitError::Conflict { op, path, clash: Clash::Changed });
            };
            let mut bound = txn.clone();
            // Last, so that conflicts of the writer's own operations keep their numbers.
            bound.ops.extend(machine::expect(&self.node, version).ops);
            let outcome = self.store.commit(bound).await;
            let unnamed = matches!(&outcome, Err(CommitError::Conflict { op, .. }) if *op >= txn.ops.len());
            if !unnamed || !matches!(timeout_at(until, title.changed()).await, Ok(Ok(()))) {
                return outcome;
            }
        }
    }

    async fn get(&self, path: &str) -> Result<Option<Value>, StoreError> {
        self.store.get(path).await
    }

    async fn children(&self, path: &str) -> Result<Option<Children>, StoreError> {
        self.store.children(path).await
    }

    async fn get_many(&self, paths: &[String]) -> Result<Vec<Option<Value>>, StoreError> {
        self.store.get_many(paths).await
    }

    async fn children_many(&self, paths: &[String]) -> Result<Vec<Option<Children>>, StoreError> {
        self.store.children_many(paths).await
    }

    async fn stat_many(&self, paths: &[String]) -> Result<Vec<Option<Stat>>, StoreError> {
        self.store.stat_many(paths).await
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.store.sync().await
    }

    async fn show_events(&self) {
        self.store.show_events().await;
    }

    fn watch(&self, path: &str) -> Watch {
        self.store.watch(path)
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.store.session()
    }

    fn session_timeout(&self) -> Duration {
        self.store.session_timeout()
    }

    fn leader_heard(&self) -> Option<std::time::Instant> {
        self.store.leader_heard()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
