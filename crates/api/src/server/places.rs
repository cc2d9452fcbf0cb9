//! How many may be connected at once, and who makes room.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::task::{AbortHandle, JoinSet};
use tracing::debug;

/// The connections; all end when this is dropped.
pub(super) struct Places {
    most: usize,
    tasks: JoinSet<()>,
    /// The oldest first.
    taken: VecDeque<(AbortHandle, Busy)>,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most, tasks: JoinSet::new(), taken: VecDeque::new() }
    }

    /// Serves a new connection, in the place of one that asks nothing if there is no other; if all are asking, not at all.
    pub(super) fn admit<F: Future<Output = ()> + Send + 'static>(&mut self, serve: impl FnOnce(Busy) -> F) {
        while self.tasks.try_join_next().is_some() {}
        self.taken.retain(|(task, _)| !task.is_finished());
        if self.taken.len() >= self.most {
            let Some(idle) = self.taken.iter().position(|(_, busy)| !busy.is_so()) else {
                debug!("a connection is refused: all places are taken");
                return;
            };
            if let Some((task, _)) = self.taken.remove(idle) {
                task.abort();
            }
        }
        let busy = Busy::default();
        let task = self.tasks.spawn(serve(busy.clone()));
        self.taken.push_back((task, busy));
    }
}

/// Whether a connection is being answered.
#[derive(Clone, Default)]
pub(super) struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// It is, until this is dropped.
    pub(super) fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }
}

pub(super) struct Held(Busy);

impl Held {
    /// Until the answer has been taken.
    pub(super) fn until_the_end_of(self, body: Body) -> Answering {
        Answering { body, _held: self }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that is being taken.
pub(super) struct Answering {
    body: Body,
    _held: Held,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
