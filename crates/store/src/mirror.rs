//! The state tree in memory: list + watch → `Arc<ClusterView>`, one writer, cheap readers.
//!
//! Events only say which object to read again; the content of an object is always what a read gave. Whatever is missed while
//! the connection is lost is found by listing again. Never holds definitions or console logs: of the former only the version,
//! of the latter nothing, which keeps a thousand VMs within a few MiB. Never decides from being up to date: it may lag, and
//! every write is checked against versions.

mod dirty;
mod picture;
mod refused;
mod subscribers;
mod task;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use pvc_core::model::{ClusterView, NodeName, Subject};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use self::subscribers::Subscribers;
use crate::{Session, Store};

/// Why the mirror cannot promise to be up to date.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the view of the cluster is not up to date: {0}")]
pub struct NotCaughtUp(pub &'static str);

/// A mirror of the nodes, VMs and root keys. Cheap to clone; all clones share one task, which ends with the last clone.
#[derive(Clone)]
pub struct Mirror {
    store: Arc<dyn Store>,
    view: watch::Receiver<Arc<ClusterView>>,
    status: watch::Receiver<Status>,
    session: watch::Receiver<Session>,
    subscribers: Arc<Subscribers>,
    questions: mpsc::UnboundedSender<Question>,
}

/// Asks the task to answer when it has read everything that was reported before.
type Question = oneshot::Sender<Result<(), NotCaughtUp>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Status {
    /// The first listing is complete.
    ready: bool,
    /// Nothing can have been missed since the last listing.
    current: bool,
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Mirror {
    /// Starts mirroring; returns at once with an empty view. Needs a tokio runtime.
    pub fn start(store: Arc<dyn Store>) -> Self {
        Self::begin(store, None)
    }

    /// As [`Self::start`], on a node: nobody there waits for what its own keepalive said, so that is read together with what else
    /// changes, and by [`Self::caught_up`]. While nothing else happens in the cluster, a node costs it one request a keepalive.
    pub fn start_on(store: Arc<dyn Store>, me: NodeName) -> Self {
        Self::begin(store, Some(me))
    }

    fn begin(store: Arc<dyn Store>, me: Option<NodeName>) -> Self {
        let (view_tx, view) = watch::channel(Arc::new(ClusterView::default()));
        let (status_tx, status) = watch::channel(Status::default());
        let (questions, asked) = mpsc::unbounded_channel();
        let subscribers = Arc::new(Subscribers::default());
        let session = store.session();
        let task = task::Task::new(Arc::clone(&store), me, view_tx, status_tx, Arc::clone(&subscribers));
        pvc_process::spawn(task.run(asked));
        Self { store, view, status, session, subscribers, questions }
    }

    /// The latest view. May lag behind: check versions when writing.
    pub fn view(&self) -> Arc<ClusterView> {
        self.view.borrow().clone()
    }

    /// The latest view, and a signal at each new one, whatever is new in it.
    pub fn views(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.clone()
    }

    /// Which subjects changed, of those that concern the caller as the view now is: first everything there is, then each that is
    /// added, changed or deleted. The view that shows a change is always published before its subject is sent.
    pub fn changes(
        &self,
        concerns: impl Fn(&Subject, &ClusterView) -> bool + Send + 'static,
    ) -> mpsc::UnboundedReceiver<Subject> {
        let mut subscribers = self.subscribers.lock();
        let view = self.view();
        subscribers.subjects(&view, picture::subjects(&view), Box::new(concerns))
    }

    /// Signals that something changed that concerns the caller as the view now is, or that the view became current, or is not any
    /// more. The view that shows a change is always published before the signal.
    pub fn signal(
        &self,
        concerns: impl Fn(&Subject, &ClusterView) -> bool + Send + 'static,
    ) -> watch::Receiver<()> {
        self.subscribers.lock().signal(Box::new(concerns))
    }

    /// Returns when the first listing is complete, or the store is closed.
    pub async fn ready(&self) {
        let mut status = self.status.clone();
        let _closed = status.wait_for(|s| s.ready).await;
    }

    /// Read-your-writes: returns when the view holds everything that this store had committed before the call.
    pub async fn caught_up(&self, within: Duration) -> Result<(), NotCaughtUp> {
        const CLOSED: NotCaughtUp = NotCaughtUp("the state store is closed");
        let (question, answer) = oneshot::channel();
        self.questions.send(question).map_err(|_| CLOSED)?;
        match timeout(within, answer).await {
            Ok(answer) => answer.unwrap_or(Err(CLOSED)),
            Err(_) => Err(NotCaughtUp("the state store does not answer in time")),
        }
    }

    /// Returns when the view holds everything that anybody had committed before the call, through whatever server. For who is about
    /// to do what cannot be undone, such as ending a guest whose claim names others: the server that this client reads from may
    /// be behind.
    pub async fn caught_up_with_everybody(&self, within: Duration) -> Result<(), NotCaughtUp> {
        let begin = Instant::now();
        match timeout(within, self.store.sync()).await {
            Ok(Ok(())) => self.caught_up(within.saturating_sub(begin.elapsed())).await,
            Ok(Err(_)) => Err(NotCaughtUp("the state store commits nothing now")),
            Err(_) => Err(NotCaughtUp("the state store does not answer in time")),
        }
    }

    /// Whether the view is complete and the session has been healthy ever since it became so. It may still lag by what is
    /// on its way.
    pub fn synced(&self) -> bool {
        self.status.borrow().current && self.session.borrow().is_healthy()
    }
}
