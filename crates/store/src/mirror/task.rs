//! The one writer of the view: gathers events, reads what they name in as few requests as possible, publishes.
//!
//! ```text
//! events ─▶ Dirty ─▶ names, if needed ─▶ one multi-read ─▶ ViewBuilder ─▶ view, then subjects
//!             ▲                              │ failed: later again
//!             └──────────────────────────────┘
//! ```

mod names;
mod read;

use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pvc_core::model::{ClusterView, NodeName};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::warn;

use super::{
    Figures, Needs, NotCaughtUp, Question, Status,
    dirty::Dirty,
    keepalives::Keepalives,
    kinds::{Form, Kind},
    refused::Refused,
    subscribers::Subscribers,
    view_builder::ViewBuilder,
};
use crate::{
    Session, Store, Watch, WatchEvent,
    schema::node::{self, Figure},
};

/// The events of one transaction usually arrive together: so often the connection is asked whether there are more before they
/// are read. A timer would gather more of those that come apart, and cost every change a millisecond and a wake.
const GATHER: usize = 8;
/// First and longest pause after a read that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Task {
    store: Arc<dyn Store>,
    session: watch::Receiver<Session>,
    watches: Vec<(Kind, Watch)>,
    /// Kinds of which the last word was `Resync`. The others may have changed without a word.
    reported: BTreeSet<Kind>,
    dirty: Dirty,
    /// The node that this runs on, if it is one: of its own figures none is news here.
    me: Option<NodeName>,
    keepalives: Keepalives,
    builder: ViewBuilder,
    questions: Vec<Question>,
    retry: Option<(Instant, Duration)>,
    refused: Refused,
    view: watch::Sender<Arc<ClusterView>>,
    status: watch::Sender<Status>,
    subscribers: Arc<Subscribers>,
}

impl Task {
    pub(super) fn new(
        store: Arc<dyn Store>,
        needs: &Needs,
        keepalives: Keepalives,
        view: watch::Sender<Arc<ClusterView>>,
        status: watch::Sender<Status>,
        subscribers: Arc<Subscribers>,
    ) -> Self {
        Self {
            session: store.session(),
            watches: Kind::needed(needs).map(|kind| (kind, store.watch(kind.root()))).collect(),
            store,
            reported: BTreeSet::new(),
            dirty: Dirty::default(),
            me: needs.me.clone(),
            keepalives,
            builder: ViewBuilder::default(),
            questions: Vec::new(),
            retry: None,
            refused: Refused::default(),
            view,
            status,
            subscribers,
        }
    }

    /// Runs until the mirror is dropped or the store closed.
    pub(super) async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Question>) {
        loop {
            let (retry, again_at) = (self.retry, self.refused.again_at());
            let hurry = tokio::select! {
                biased;
                question = asked.recv() => match question {
                    Some(question) => {
                        self.questions.push(question);
                        true
                    }
                    None => break,
                },
                event = next_event(&mut self.watches) => match event {
                    Some((kind, event)) => {
                        self.note(kind, event);
                        false
                    }
                    None => break,
                },
                () = sleep_until(retry.map_or_else(Instant::now, |(at, _)| at)), if retry.is_some() => true,
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {
                    let refused = self.refused.take();
                    self.dirty.merge(refused);
                    true
                }
            };
            if !hurry {
                self.gather().await;
            }
            if !self.note_all() {
                break;
            }
            self.refresh().await;
            self.answer();
        }
        self.not_current();
    }

    /// Waits as long as more events come without waiting for them.
    async fn gather(&mut self) {
        for _ in 0..GATHER {
            tokio::task::yield_now().await;
            if self.watches.iter().all(|(_, watch)| watch.is_empty()) {
                return;
            }
            // A store that is closed is noticed by whoever waits for the next event.
            self.note_all();
        }
    }

    /// Notes what is queued; false if the store is closed.
    fn note_all(&mut self) -> bool {
        for i in 0..self.watches.len() {
            loop {
                let (kind, watch) = &mut self.watches[i];
                let kind = *kind;
                match watch.try_recv() {
                    Ok(event) => self.note(kind, event),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return false,
                }
            }
        }
        true
    }

    fn note(&mut self, kind: Kind, event: WatchEvent) {
        match event {
            WatchEvent::Changed(path) => {
                let waits = matches!(kind.row().form, Form::Nodes) && self.note_figure(&path);
                if !waits {
                    self.dirty.key(kind, &path);
                }
            }
            WatchEvent::Resync => {
                self.reported.insert(kind);
                self.dirty.everything(kind);
            }
            WatchEvent::Interrupted => {
                self.reported.remove(&kind);
                self.not_current();
            }
        }
    }

    /// Notes a figure of a node; whether it is read only when somebody asks for it, or in the node's own case together with something
    /// else. While there is a fence it is seen from each keepalive who lives, and since when what runs where is told.
    fn note_figure(&mut self, path: &str) -> bool {
        let Some((name, figure)) = node::figure(path) else { return false };
        let Ok(name) = name.parse::<NodeName>() else { return false };
        let mine = self.me.as_ref() == Some(&name);
        let waits = mine || (figure != Figure::Lasting && self.builder.view().fences.is_empty());
        if figure == Figure::Keepalive {
            self.keepalives.heard(name.clone());
        }
        if waits {
            self.keepalives.is_unread(name);
        }
        waits
    }

    /// What was asked for and not read yet.
    fn unread(&self) -> BTreeSet<NodeName> {
        let unread = self.keepalives.unread();
        let asked = |name: &&NodeName| self.questions.iter().any(|question| question.figures.are_of(name));
        let mut due: BTreeSet<NodeName> = unread.iter().filter(asked).cloned().collect();
        let of_others = |question: &Question| matches!(question.figures, Figures::Of(_));
        if !self.dirty.is_empty() || !self.questions.iter().all(of_others) {
            due.extend(self.me.iter().filter(|me| unread.contains(*me)).cloned());
        }
        due
    }

    /// Reads what is dirty and publishes what differs. On failure it stays dirty.
    async fn refresh(&mut self) {
        let unread = self.unread();
        self.dirty.nodes.extend(unread);
        while !self.dirty.is_empty() {
            let mut dirty = std::mem::take(&mut self.dirty);
            let outcome = self.read(&mut dirty).await;
            if outcome.is_ok() {
                self.publish();
            }
            // Part of what belongs together may be missing in what was read: it is shown with the rest.
            if let Err(error) = outcome {
                self.dirty.merge(dirty);
                let pause = self.retry.map_or(FIRST_PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
                if self.retry.is_none() {
                    warn!("the view of the cluster is not up to date: {error}: trying again");
                }
                self.retry = Some((Instant::now() + pause, pause));
                self.not_current();
                break;
            }
            self.retry = None;
        }
        if self.dirty.is_empty() && self.all_reported() {
            self.status_is(Status { ready: true, current: true });
        }
    }

    fn all_reported(&self) -> bool {
        self.reported.len() == self.watches.len()
    }

    fn not_current(&self) {
        let Status { ready, current } = *self.status.borrow();
        if current {
            self.keepalives.gap();
        }
        self.status_is(Status { ready, current: false });
    }

    fn status_is(&self, now: Status) {
        if self.status.send_if_modified(|status| std::mem::replace(status, now) != now) {
            self.subscribers.lock().tell_all();
        }
    }

    fn publish(&mut self) {
        let Some((view, changed)) = self.builder.take_changes() else { return };
        let mut subscribers = self.subscribers.lock();
        let view = Arc::new(view);
        self.view.send_replace(Arc::clone(&view));
        subscribers.tell(&changed, &view);
    }

    /// Answers the questions that can be answered now.
    fn answer(&mut self) {
        let outcome = if !self.session.borrow().is_healthy() {
            Err(NotCaughtUp("the connection to the state store is lost"))
        } else if self.dirty.is_empty() && self.status.borrow().current {
            Ok(())
        } else {
            // Being listed again: the answer comes with it.
            self.questions.retain(|question| !question.answer.is_closed());
            return;
        };
        for question in self.questions.drain(..) {
            let _asker_may_be_gone = question.answer.send(outcome.clone());
        }
    }
}

/// The next event of any watch; `None` if the store is closed.
async fn next_event(watches: &mut [(Kind, Watch)]) -> Option<(Kind, WatchEvent)> {
    poll_fn(|cx: &mut Context<'_>| {
        for (kind, watch) in watches.iter_mut() {
            if let Poll::Ready(event) = watch.poll_recv(cx) {
                return Poll::Ready(event.map(|event| (*kind, event)));
            }
        }
        Poll::Pending
    })
    .await
}
