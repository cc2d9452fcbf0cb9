//! The engine that makes things agree with what is desired: one trait for what is particular to a kind of object, one loop for the rest.
//!
//! ```text
//!   the view changes ─┐                       ┌─► observe ─► plan ─► apply ─┐
//!   a signal ─────────┼─► queue (by Subject) ─┤      ▲                      │   until there is nothing to do now;
//!   a booked time ────┤                       │      └──────────────────────┘   then the status is published
//!   safety net ───────┘                       └─► other subjects, at most so many at once
//! ```
//!
//! The engine owns the order: what a step needs to be decided from, how many steps a round has, that a conflict means *look again*, the pause
//! after a failure, the safety net, the stop, and the published status. A kind says what is true, what its plan is, and how a
//! step is carried out. Never runs on the thread that says that the node lives.

mod cluster;
mod queue;
mod run;
mod status;
#[cfg(test)]
mod tests;

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use pvc_core::{
    model::{ClusterView, Subject},
    plan::Plan,
};
use pvc_store::{CommitError, StoreError, schema};
use tokio::{sync::Semaphore, time::Instant};

pub use self::cluster::Cluster;
pub(crate) use self::run::{Controller, Poker};

/// How fresh what a plan was made from is. A step that needs more than it was planned from is planned again before it is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Freshness {
    /// What was known before this round. Costs nothing.
    Known,
    /// Read from the machine in this round.
    Observed,
    /// As `Observed`, and the view holds everything that anybody had committed before. For what cannot be undone.
    Confirmed,
}

/// Why a step did not succeed.
#[derive(Debug)]
pub(crate) enum StepError {
    /// Somebody was faster: nothing is wrong, look again.
    Conflict(String),
    /// It has to wait for others: nothing is wrong.
    Later(String),
    /// Try again later.
    Failed(String),
}

impl From<CommitError> for StepError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { path, .. } => Self::Conflict(path),
            CommitError::Unknown(_) | CommitError::Failed(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The pause after a failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    /// After the first; it doubles.
    pub(crate) first: Duration,
    /// The longest.
    pub(crate) longest: Duration,
}

impl Retry {
    /// Always the same.
    pub(crate) const fn every(pause: Duration) -> Self {
        Self { first: pause, longest: pause }
    }

    fn after(self, failures: u32) -> Duration {
        self.first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(self.longest)
    }
}

/// What is particular to one kind of object. Only the first five methods have to be written.
#[async_trait]
pub(crate) trait Reconciler: Send + Sync + 'static {
    /// What a plan is made from and a step is carried out on.
    type Facts: Send + Sync;
    /// What a plan asks for.
    type Step: Debug + Send + Sync;

    /// The kind's name in figures.
    const KIND: &'static str;
    /// How many subjects are looked at side by side.
    const AT_ONCE: usize = 1;
    /// The pause after a failure.
    const RETRY: Retry = Retry::every(Duration::from_secs(1));
    /// How often everything is looked at, in case a signal was lost.
    const SAFETY_NET: Duration = Duration::from_mins(1);
    /// Whether a status is published anew when only figures in it have moved.
    const FIGURES_ARE_NEWS: bool = true;
    /// Whether a step that has begun goes on when the daemon stops. Otherwise it is cut.
    const OUTLIVES_STOP: bool = false;

    /// The state tree, and this node in it; `None`: the kind needs neither, and publishes no status.
    fn cluster(&self) -> Option<&Cluster>;

    /// All that there is to look at.
    fn subjects(&self) -> Vec<Subject>;

    /// Finds out what is true.
    async fn observe(&self, subject: &Subject, freshness: Freshness) -> Result<Self::Facts, StepError>;

    /// Decides, by a plan of `pvc_core`. May keep beside the facts what else the plan has found.
    fn plan(&self, subject: &Subject, facts: &mut Self::Facts) -> Plan<Self::Step>;

    /// Carries out one step.
    async fn apply(
        &self,
        subject: &Subject,
        step: &Self::Step,
        facts: &Self::Facts,
        why: &str,
    ) -> Result<(), StepError>;

    /// Whether a change in the state tree matters here.
    fn concerns(&self, _changed: &Subject, _view: &ClusterView) -> bool {
        false
    }

    /// Which subjects are looked at after a change that matters.
    fn affected(&self, _changed: Subject) -> Vec<Subject> {
        self.subjects()
    }

    /// Before the first look, when the view is complete: goes on where an earlier run stopped. Answers what is looked at first.
    async fn begin(&self) -> Vec<Subject> {
        Vec::new()
    }

    /// What an earlier run may have published a status of.
    async fn published(&self) -> Vec<Subject> {
        Vec::new()
    }

    /// The safety net: reads everything again, and answers what has to be looked at.
    async fn refresh(&self) -> Vec<Subject> {
        self.subjects()
    }

    /// Whether there is certainly nothing to do, told without waiting for anything.
    fn is_idle(&self, _subject: &Subject) -> bool {
        false
    }

    /// The turns of which a step needs one, if only few like it are carried out at once. Whoever waits for one holds up nobody, and is
    /// decided anew when it has it.
    async fn turns(&self, _subject: &Subject, _step: &Self::Step) -> Option<Arc<Semaphore>> {
        None
    }

    /// What a step has to be decided from.
    fn freshness(&self, _step: &Self::Step) -> Freshness {
        Freshness::Known
    }

    /// After the last plan of a round, which asks for nothing now. Answers when to look again at the latest.
    async fn rest(&self, _subject: &Subject, _facts: &Self::Facts, _settled: bool) -> Option<Instant> {
        None
    }

    /// What is being waited for, in a word or two, for the status.
    fn doing(&self, _subject: &Subject, _facts: &Self::Facts) -> String {
        "waiting".to_owned()
    }

    /// What does not work though nothing is to be done about it now, for the status.
    fn trouble(&self, _subject: &Subject) -> Option<String> {
        None
    }

    /// A look or a step of it has failed.
    fn failed(&self, _subject: &Subject, _error: &str) {}

    /// Whether the status is this node's to publish.
    fn speaks(&self, _subject: &Subject) -> bool {
        true
    }

    /// Removes the published status: there is nothing to explain any more. Answers whether that is done.
    async fn withdraw(&self, subject: &Subject) -> bool {
        let Some(cluster) = self.cluster() else { return true };
        schema::explain::write(&*cluster.store, subject, None).await.is_ok()
    }
}
