//! The state tree in memory: list + watch → `Arc<ClusterView>`, one writer, cheap readers.
//!
//! Events only say which object to read again; the content of an object is always what a read gave. Whatever is missed while
//! the connection is lost is found by listing again. That a node has spoken is no change of the view, but noted beside it. Never holds definitions or console logs: of the former only the version,
//! of the latter nothing, which keeps a thousand VMs within a few MiB. Never decides from being up to date: it may lag, and
//! every write is checked against versions.

mod dirty;
mod keepalives;
mod kinds;
mod objects;
mod refused;
mod subscribers;
mod task;
#[cfg(test)]
mod tests;
mod view_builder;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use pvc_core::{
    model::{ClusterView, NodeName, Subject},
    plan::{liveness::Heard, placement::Selector},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use self::{
    keepalives::{Keepalives, Noted},
    subscribers::Subscribers,
};
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
    noted: watch::Receiver<Noted>,
    subscribers: Arc<Subscribers>,
    questions: mpsc::UnboundedSender<Question>,
}

/// What a mirror is for, besides nodes, VMs, fences and what there is one of in a cluster.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// The node that it is on.
    pub me: Option<NodeName>,
    /// Client networks.
    pub networks: bool,
    /// No VMs, of which there may be thousands.
    pub no_vms: bool,
}

/// Asks the task to answer when it has read everything that was reported before, these figures included.
struct Question {
    figures: Figures,
    answer: oneshot::Sender<Result<(), NotCaughtUp>>,
}

/// Of which nodes somebody needs what their keepalives say.
enum Figures {
    Nobodys,
    Everybodys,
    Of(BTreeSet<NodeName>),
}

impl Figures {
    fn are_of(&self, node: &NodeName) -> bool {
        match self {
            Self::Nobodys => false,
            Self::Everybodys => true,
            Self::Of(nodes) => nodes.contains(node),
        }
    }
}

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
    /// Starts mirroring everything, as a client does; returns at once with an empty view. Needs a tokio runtime.
    pub fn start(store: Arc<dyn Store>) -> Self {
        Self::start_on(store, &Needs { networks: true, ..Needs::default() })
    }

    /// As [`Self::start`], of what is needed. On a node nobody waits for what its own keepalive said, so that is read together with
    /// what else changes, and by [`Self::caught_up`]. While nothing happens in the cluster, it costs a node one request a keepalive of
    /// its own, and none at another's.
    pub fn start_on(store: Arc<dyn Store>, needs: &Needs) -> Self {
        let (view_tx, view) = watch::channel(Arc::new(ClusterView::default()));
        let (status_tx, status) = watch::channel(Status::default());
        let (questions, asked) = mpsc::unbounded_channel();
        let subscribers = Arc::new(Subscribers::default());
        let session = store.session();
        let (noted_tx, noted) = watch::channel(Noted::default());
        let keepalives = Keepalives::new(noted_tx);
        let task = task::Task::new(
            Arc::clone(&store),
            needs,
            keepalives,
            view_tx,
            status_tx,
            Arc::clone(&subscribers),
        );
        pvc_process::spawn(task.run(asked));
        Self { store, view, status, session, noted, subscribers, questions }
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
        subscribers.subjects(&view, kinds::subjects(&view), Box::new(concerns))
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

    /// Read-your-writes: returns when the view holds everything that this store had committed before the call. Not what has passed in
    /// other nodes' keepalives: for that see [`Self::figures`].
    pub async fn caught_up(&self, within: Duration) -> Result<(), NotCaughtUp> {
        self.ask(Figures::Nobodys, within).await
    }

    /// As [`Self::caught_up`], and the view holds what the last keepalive of each node says that was heard before the call: its version
    /// and transaction, memory in use, the load. Until somebody asks that is read only while there is a fence; the rest of what
    /// keepalives say, such as what runs where, always.
    pub async fn figures(&self, within: Duration) -> Result<(), NotCaughtUp> {
        self.ask(Figures::Everybodys, within).await
    }

    /// As [`Self::figures`], of these nodes only.
    pub async fn figures_of(&self, nodes: BTreeSet<NodeName>, within: Duration) -> Result<(), NotCaughtUp> {
        self.ask(Figures::Of(nodes), within).await
    }

    async fn ask(&self, figures: Figures, within: Duration) -> Result<(), NotCaughtUp> {
        const CLOSED: NotCaughtUp = NotCaughtUp("the state store is closed");
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question { figures, answer }).map_err(|_| CLOSED)?;
        match timeout(within, answered).await {
            Ok(answer) => answer.unwrap_or(Err(CLOSED)),
            Err(_) => Err(NotCaughtUp("the state store does not answer in time")),
        }
    }

    /// The latest view, with everybody's load if it is by that that a node for a VM is chosen.
    pub async fn view_to_place(&self, by: Selector) -> Arc<ClusterView> {
        const WITHIN: Duration = Duration::from_secs(1);
        if by == Selector::Load {
            // Where nobody answers, what is written next fails, too; and an older load is no error.
            let _ = self.figures(WITHIN).await;
        }
        self.view()
    }

    /// When a keepalive of each node was heard last, in the time of an observer whose clock began at `origin`.
    pub fn heard(&self, origin: Instant) -> Heard {
        self.noted.borrow().since(origin)
    }

    /// Waits for a node's next keepalive; `None` if the mirror ends.
    pub async fn hears(&self, node: &NodeName) -> Option<()> {
        let mut noted = self.noted.clone();
        let before = noted.borrow_and_update().number(node);
        noted.wait_for(|noted| noted.number(node) != before).await.ok().map(drop)
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
