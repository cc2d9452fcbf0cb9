//! A store that counts what is read of it, and fails when it is told to.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use pvc_store::{Children, CommitError, Committed, Layer, Stat, Store, StoreError, Transaction, Value};

pub(crate) struct Counted {
    store: Arc<dyn Store>,
    read: Mutex<Vec<String>>,
    /// Nothing is read any more once something has been written.
    pub(crate) fails_after_a_write: AtomicBool,
    fails: AtomicBool,
    /// So many keys more are read.
    pub(crate) keys_left: AtomicUsize,
}

impl Counted {
    pub(crate) fn of(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            read: Mutex::default(),
            fails_after_a_write: false.into(),
            fails: false.into(),
            keys_left: usize::MAX.into(),
        })
    }

    /// The keys that were read since this was asked last.
    pub(crate) fn read(&self) -> Vec<String> {
        std::mem::take(&mut self.read.lock().unwrap())
    }

    pub(crate) fn heal(&self) {
        self.fails.store(false, Ordering::Relaxed);
    }

    fn note(&self, paths: &[String]) -> Result<(), StoreError> {
        self.read.lock().unwrap().extend_from_slice(paths);
        let left = self.keys_left.load(Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) || paths.len() > left {
            return Err(StoreError::Unavailable("a fault was asked for".to_owned()));
        }
        self.keys_left.store(left - paths.len(), Ordering::Relaxed);
        Ok(())
    }
}

#[async_trait]
impl Layer for Counted {
    fn below(&self) -> &dyn Store {
        &*self.store
    }

    async fn get(&self, path: &str) -> Result<Option<Value>, StoreError> {
        self.note(&[path.to_owned()])?;
        self.store.get(path).await
    }

    async fn children(&self, path: &str) -> Result<Option<Children>, StoreError> {
        self.note(&[path.to_owned()])?;
        self.store.children(path).await
    }

    async fn get_many(&self, paths: &[String]) -> Result<Vec<Option<Value>>, StoreError> {
        self.note(paths)?;
        self.store.get_many(paths).await
    }

    async fn children_many(&self, paths: &[String]) -> Result<Vec<Option<Children>>, StoreError> {
        self.note(paths)?;
        self.store.children_many(paths).await
    }

    async fn stat_many(&self, paths: &[String]) -> Result<Vec<Option<Stat>>, StoreError> {
        self.note(paths)?;
        self.store.stat_many(paths).await
    }

    async fn commit(&self, txn: Transaction) -> Result<Committed, CommitError> {
        let committed = self.store.commit(txn).await;
        if self.fails_after_a_write.load(Ordering::Relaxed) {
            self.fails.store(true, Ordering::Relaxed);
        }
        committed
    }
}
