//! Waits until what was asked for is so: looks, waits for the next event (or a slow safety net), looks again. Always bounded, never
//! polls in a hurry. Whoever drops the future ends the waiting, not the desired state.

use std::{fmt, future::poll_fn, task::Poll, time::Duration};

use async_trait::async_trait;
use pvc_store::Watch;
use tokio::time::Instant;

use crate::{Answer, Cluster, Failure, Goal};

/// How long to trust that no event was missed.
const LOOK_ANYWAY: Duration = Duration::from_secs(2);

/// Hears what is waited for.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

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
    /// `None`: all that was asked for is done.
    pub(crate) pursuit: Option<Box<dyn Pursuit>>,
}

/// What is looked at until it is so.
#[async_trait]
pub(crate) trait Pursuit: fmt::Debug + Send {
    /// The keys whose change is a reason to look again.
    fn paths(&self) -> Vec<String>;

    async fn look(&mut self, cluster: &Cluster) -> Result<Look<Answer>, Failure>;

    /// The same for who looks from elsewhere; `None`: that is nothing to look at only.
    fn goal(&self) -> Option<Goal>;
}

impl Asked {
    /// Whether it is done: nothing is left to wait for, and `answer` says what was done.
    pub fn is_settled(&self) -> bool {
        self.pursuit.is_none()
    }

    /// What is waited for.
    pub fn goal(&self) -> Option<Goal> {
        self.pursuit.as_ref()?.goal()
    }

    /// Waits until it is so; `progress` hears what is waited for.
    ///
    /// # Errors
    /// If it is not so in time, or cannot be so any more.
    pub async fn wait(
        self,
        cluster: &Cluster,
        within: Duration,
        progress: Progress<'_>,
    ) -> Result<Answer, Failure> {
        let Some(mut pursuit) = self.pursuit else { return Ok(self.answer) };
        match until(cluster, &mut *pursuit, within, progress).await? {
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
pub enum Look<T> {
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
    pursuit: &mut dyn Pursuit,
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
