//! A store on another: it says only what it does differently, and all else is asked of the one below.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{Children, CommitError, Committed, Session, Stat, Store, StoreError, Transaction, Value, Watch};

/// See the module's documentation. The methods are those of [`Store`], whose documentation counts.
#[async_trait]
#[allow(missing_docs, reason = "they are documented at the trait of which they are the part that may differ")]
pub trait Layer: Send + Sync + 'static {
    /// The store below.
    fn below(&self) -> &dyn Store;

    async fn get(&self, path: &str) -> Result<Option<Value>, StoreError> {
        self.below().get(path).await
    }

    async fn children(&self, path: &str) -> Result<Option<Children>, StoreError> {
        self.below().children(path).await
    }

    async fn get_many(&self, paths: &[String]) -> Result<Vec<Option<Value>>, StoreError> {
        self.below().get_many(paths).await
    }

    async fn children_many(&self, paths: &[String]) -> Result<Vec<Option<Children>>, StoreError> {
        self.below().children_many(paths).await
    }

    async fn stat_many(&self, paths: &[String]) -> Result<Vec<Option<Stat>>, StoreError> {
        self.below().stat_many(paths).await
    }

    async fn commit(&self, txn: Transaction) -> Result<Committed, CommitError> {
        self.below().commit(txn).await
    }

    async fn close(&self) {
        self.below().close().await;
    }
}

#[async_trait]
impl<L: Layer> Store for L {
    async fn get(&self, path: &str) -> Result<Option<Value>, StoreError> {
        Layer::get(self, path).await
    }

    async fn children(&self, path: &str) -> Result<Option<Children>, StoreError> {
        Layer::children(self, path).await
    }

    async fn get_many(&self, paths: &[String]) -> Result<Vec<Option<Value>>, StoreError> {
        Layer::get_many(self, paths).await
    }

    async fn children_many(&self, paths: &[String]) -> Result<Vec<Option<Children>>, StoreError> {
        Layer::children_many(self, paths).await
    }

    async fn stat_many(&self, paths: &[String]) -> Result<Vec<Option<Stat>>, StoreError> {
        Layer::stat_many(self, paths).await
    }

    async fn commit(&self, txn: Transaction) -> Result<Committed, CommitError> {
        Layer::commit(self, txn).await
    }

    /// The one below is asked: a question changes nothing that a layer may bind, note or forget.
    async fn sync(&self) -> Result<(), StoreError> {
        self.below().sync().await
    }

    async fn show_events(&self) {
        self.below().show_events().await;
    }

    fn watch(&self, path: &str) -> Watch {
        self.below().watch(path)
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.below().session()
    }

    fn session_timeout(&self) -> Duration {
        self.below().session_timeout()
    }

    fn leader_heard(&self) -> Option<Instant> {
        self.below().leader_heard()
    }

    async fn close(&self) {
        Layer::close(self).await;
    }
}
