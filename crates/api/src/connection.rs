//! What a connection is kept for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::AbortHandle, time::sleep};

/// A connection, for those who answer it.
#[derive(Clone, Default)]
pub(crate) struct Connection {
    held: Arc<AtomicUsize>,
    overdue: Arc<Notify>,
}

impl Connection {
    /// Whether somebody who may is being answered: it makes room for nobody.
    pub(crate) fn is_busy(&self) -> bool {
        self.held.load(Ordering::Relaxed) > 0
    }

    /// Returns when an answer has not been taken in time.
    pub(crate) async fn overdue(&self) {
        self.overdue.notified().await;
    }

    /// It is busy until this is dropped.
    pub(crate) fn hold(&self) -> Held {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held { connection: self.clone(), timer: None }
    }
}

/// A connection that is busy.
pub(crate) struct Held {
    connection: Connection,
    timer: Option<AbortHandle>,
}

impl Held {
    /// It ends if this is not dropped within so long.
    pub(crate) fn no_longer_than(mut self, limit: Duration) -> Self {
        let overdue = Arc::clone(&self.connection.overdue);
        let timer = tokio::spawn(async move {
            sleep(limit).await;
            overdue.notify_one();
        });
        self.timer = Some(timer.abort_handle());
        self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection.held.fetch_sub(1, Ordering::Relaxed);
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
    }
}
