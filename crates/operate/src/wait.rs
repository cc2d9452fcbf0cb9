//! Waits until what was asked for is so: looks, waits for the next event (or a slow safety net), looks again. Always bounded, never
//! polls in a hurry. Whoever drops the future ends the waiting, not the desired state.

use std::{future::poll_fn, task::Poll, time::Duration};

use pvc_store::Watch;
use serde::Serialize;
use tokio::time::Instant;

use crate::{Cluster, Failure, node, vm};

/// How long to trust that no event was missed.
const LOOK_ANYWAY: Duration = Duration::from_secs(2);

/// Hears what is waited for.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Answer {
    /// One sentence: `VM web1 runs on hv1`.
    pub message: String,
    /// What to know besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Answer {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), notes: Vec::new() }
    }
}

/// A command that was accepted, and written if it was not so already. What it asks for takes time.
#[derive(Debug)]
pub struct Asked {
    /// Who is to do it, or with whom: `web1`, `hv1`.
    pub subject: String,
    /// What is asked: `VM web1 is to start`.
    pub answer: Answer,
    /// Whether something was written.
    pub written: bool,
    /// What becomes of it when nobody waits, and where to look.
    pub more: String,
    /// How long it may take if all is well.
    pub patience: Duration,
    pub(crate) pursuit: Pursuit,
}

/// What is looked at until it is so.
#[derive(Debug)]
pub(crate) enum Pursuit {
    /// All that was asked for is done.
    Settled,
    Desired(vm::DesiredPursuit),
    Arrival(vm::Arrival),
    Undefinition(vm::Undefinition),
    DomainState(node::Flushing),
    Primary(node::HandOver),
    Fence(node::Fencing),
    Life(node::Hearing),
}

impl Pursuit {
    fn paths(&self) -> Vec<String> {
        match self {
            Self::Settled => Vec::new(),
            Self::Desired(desired) => desired.paths(),
            Self::Arrival(arrival) => arrival.paths(),
            Self::Undefinition(undefinition) => undefinition.paths(),
            Self::DomainState(flushing) => flushing.paths(),
            Self::Primary(_) => node::HandOver::paths(),
            Self::Fence(fencing) => fencing.paths(),
            Self::Life(hearing) => hearing.paths(),
        }
    }

    async fn look(&mut self, cluster: &Cluster) -> Result<Look<Answer>, Failure> {
        match self {
            Self::Settled => Ok(Look::Done(Answer::default())),
            Self::Desired(desired) => desired.look(cluster).await,
            Self::Arrival(arrival) => arrival.look(cluster).await,
            Self::Undefinition(undefinition) => undefinition.look(cluster).await,
            Self::DomainState(flushing) => flushing.look(cluster).await,
            Self::Primary(hand_over) => hand_over.look(cluster).await,
            Self::Fence(fencing) => fencing.look(cluster).await,
            Self::Life(hearing) => hearing.look(cluster).await,
        }
    }
}

impl Asked {
    /// Whether it is done: nothing is left to wait for, and `answer` says what was done.
    pub fn is_settled(&self) -> bool {
        matches!(self.pursuit, Pursuit::Settled)
    }

    /// Waits until it is so; `progress` hears what is waited for.
    ///
    /// # Errors
    /// If it is not so in time, or cannot be so any more.
    pub async fn wait(
        mut self,
        cluster: &Cluster,
        within: Duration,
        progress: Progress<'_>,
    ) -> Result<Answer, Failure> {
        if self.is_settled() {
            return Ok(self.answer);
        }
        match until(cluster, &mut self.pursuit, within, progress).await? {
            Waited::Done(answer) => Ok(answer),
            Waited::TimedOut(waiting) => Err(Failure::NotYet {
                message: self.answer.message,
                after_s: within.as_secs(),
                waiting,
                more: self.more,
            }),
        }
    }
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look<T> {
    /// It is so.
    Done(T),
    /// Not yet; what is waited for.
    NotYet(String),
}

/// How the waiting ended.
pub(crate) enum Waited {
    /// It is so.
    Done(Answer),
    /// Not in time; what was waited for last.
    TimedOut(String),
}

/// Looks until it is so, whenever a key of interest changes.
pub(crate) async fn until(
    cluster: &Cluster,
    pursuit: &mut Pursuit,
    within: Duration,
    progress: Progress<'_>,
) -> Result<Waited, Failure> {
    let mut watches: Vec<Watch> = pursuit.paths().iter().map(|path| cluster.store.watch(path)).collect();
    let began = Instant::now();
    loop {
        let waiting_for = match pursuit.look(cluster).await? {
            Look::Done(done) => return Ok(Waited::Done(done)),
            Look::NotYet(what) => what,
        };
        let left = within.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(Waited::TimedOut(waiting_for));
        }
        progress(&waiting_for);
        let _ = tokio::time::timeout(left.min(LOOK_ANYWAY), changed(&mut watches)).await;
    }
}

/// Returns when one of the watches has something to say; drains all of them.
pub(crate) async fn changed(watches: &mut [Watch]) {
    poll_fn(|cx| {
        let mut any = false;
        for watch in watches.iter_mut() {
            // A watch that ended says nothing any more: the store is closed.
            while let Poll::Ready(Some(_)) = watch.poll_recv(cx) {
                any = true;
            }
        }
        if any { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
