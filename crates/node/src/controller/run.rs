//! The loop.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use pvc_core::{
    model::{ClusterView, Subject},
    plan::{Next, Plan},
};
use pvc_process::JoinSet;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::{debug, warn};

use super::{
    Freshness, Reconciler, StepError,
    queue::{Look, Queue},
    status::{Status, Statuses},
};
use crate::metrics;

/// More steps than any plan needs at once; whoever needs more lets others have their turn.
const STEPS_A_ROUND: usize = 64;

/// The first pause in a swarm of changes.
const SHORTEST: Duration = Duration::from_millis(10);

/// How long rounds that are cut may take to let go of what they hold: they end at their next await.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// The running reconciler of one kind. It ends when this is dropped.
pub(crate) struct Controller<R> {
    core: Arc<Core<R>>,
    tasks: JoinSet<()>,
}

struct Core<R> {
    kind: Arc<R>,
    queue: Arc<Queue>,
    attempts: Mutex<HashMap<Subject, Attempts>>,
    statuses: Statuses,
}

/// Failures in a row.
#[derive(Clone, Default)]
struct Attempts {
    failures: u32,
    error: String,
}

/// Has subjects looked at, while the controller is there.
pub(crate) struct Poker<R>(Weak<Core<R>>);

impl<R: Reconciler> Poker<R> {
    /// Look at this one.
    pub(crate) fn poke(&self, subject: Subject) {
        if let Some(core) = self.0.upgrade() {
            core.queue.poke(subject);
        }
    }

    /// Look at all there is.
    pub(crate) fn poke_all(&self) {
        if let Some(core) = self.0.upgrade() {
            core.poke(core.kind.subjects());
        }
    }
}

impl<R: Reconciler> Controller<R> {
    /// Starts it; returns at once.
    pub(crate) fn start(kind: Arc<R>) -> Self {
        let core = Arc::new(Core {
            kind,
            queue: Arc::new(Queue::new(R::AT_ONCE)),
            attempts: Mutex::default(),
            statuses: Statuses::default(),
        });
        let mut controller = Self { core: Arc::clone(&core), tasks: JoinSet::new() };
        if let Some(cluster) = core.kind.cluster() {
            // Weak, since the kind has a handle of the mirror that keeps this.
            let kind = Arc::downgrade(&core.kind);
            let concerns = move |changed: &Subject, view: &ClusterView| {
                kind.upgrade().is_some_and(|kind| kind.concerns(changed, view))
            };
            let changes = cluster.mirror.changes(concerns);
            controller.spawn(Arc::clone(&core).follow_the_view(changes));
            // What waits for the store to come back is looked at when the view is current again, and what counts silence learns of each gap.
            controller.look_at_changes(cluster.mirror.signal(|_, _| false));
            controller.look_at_changes(cluster.store.session());
        }
        controller.spawn(Arc::clone(&core).keep_a_safety_net());
        controller.spawn(core.work());
        controller
    }

    /// For what pokes by itself.
    pub(crate) fn poker(&self) -> Poker<R> {
        Poker(Arc::downgrade(&self.core))
    }

    /// A task that ends with this.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Everything is looked at whenever this changes.
    pub(crate) fn look_at_changes<T: Send + Sync + 'static>(&mut self, mut changes: watch::Receiver<T>) {
        let poker = self.poker();
        self.spawn(async move {
            while changes.changed().await.is_ok() {
                poker.poke_all();
            }
        });
    }

    /// The same, but what changes in swarms, also by what is done here, is looked at less and less often, down to once in that time.
    pub(crate) fn look_at_swarms<T: Send + Sync + 'static>(
        &mut self,
        mut changes: watch::Receiver<T>,
        longest: Duration,
    ) {
        let poker = self.poker();
        self.spawn(async move {
            let (mut last, mut pause) = (None::<Instant>, SHORTEST);
            while changes.changed().await.is_ok() {
                let is_swarm = last.is_some_and(|at| at.elapsed() < 2 * longest);
                pause = if is_swarm { longest.min(2 * pause) } else { SHORTEST };
                last = Some(Instant::now());
                poker.poke_all();
                sleep(pause).await;
            }
        });
    }

    /// Takes up nothing new and lets what is being done end, for so long at most; answers how many were left.
    pub(crate) async fn stop(mut self, within: Duration) -> usize {
        self.core.queue.close();
        self.core.queue.idle(Instant::now() + within).await;
        let left = self.core.queue.busy();
        self.tasks.shutdown().await;
        if !R::OUTLIVES_STOP {
            // They are cut; what they have begun is let go of before this returns.
            self.core.queue.idle(Instant::now() + CUT_WITHIN).await;
        }
        left
    }
}

impl<R: Reconciler> Core<R> {
    async fn work(self: Arc<Self>) {
        self.begin().await;
        let mut looks = JoinSet::new();
        while let Some(look) = self.queue.next().await {
            if self.is_idle(look.subject()) {
                continue;
            }
            let round = Arc::clone(&self).look(look);
            if R::OUTLIVES_STOP {
                pvc_process::spawn(round);
            } else {
                while looks.try_join_next().is_some() {}
                looks.spawn(round);
            }
        }
        while looks.join_next().await.is_some() {}
    }

    async fn begin(&self) {
        if let Some(cluster) = self.kind.cluster() {
            cluster.mirror.ready().await;
        }
        let first = self.kind.begin().await;
        if let Some(cluster) = self.kind.cluster() {
            self.statuses.take_over(cluster, self.kind.published().await).await;
        }
        self.poke(first);
        self.poke(self.kind.subjects());
    }

    fn poke(&self, subjects: Vec<Subject>) {
        for subject in subjects {
            self.queue.poke(subject);
        }
    }

    async fn follow_the_view(self: Arc<Self>, mut changes: mpsc::UnboundedReceiver<Subject>) {
        while let Some(changed) = changes.recv().await {
            self.poke(self.kind.affected(changed));
        }
    }

    async fn keep_a_safety_net(self: Arc<Self>) {
        sleep(R::SAFETY_NET).await;
        let mut tick = interval(R::SAFETY_NET);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.poke(self.kind.refresh().await);
        }
    }

    fn is_idle(&self, subject: &Subject) -> bool {
        let unfinished = self.attempts().contains_key(subject) || self.statuses.has(subject);
        self.kind.is_idle(subject) && !unfinished
    }

    async fn look(self: Arc<Self>, look: Look) {
        let again = self.round(&look).await;
        look.again_at(again);
    }

    /// Goes as far as it goes now; answers when to look again at the latest.
    async fn round(&self, look: &Look) -> Option<Instant> {
        let subject = look.subject();
        let (mut was_late, mut turn) = (false, None::<OwnedSemaphorePermit>);
        for _ in 0..STEPS_A_ROUND {
            let (facts, plan) = match self.decide(subject).await {
                Ok(decided) => decided,
                Err((why, error)) => return Some(self.failed(subject, &why, error).await),
            };
            let step = match plan.next {
                Next::Do(step) => step,
                Next::Settled => {
                    let again = self.kind.rest(subject, &facts, true).await;
                    self.attempts().remove(subject);
                    self.publish(subject, None).await;
                    let withdrawn = !self.statuses.has(subject);
                    let retry = (!withdrawn).then(|| Instant::now() + R::RETRY.first);
                    return again.into_iter().chain(retry).min();
                }
                Next::Wait(until) => {
                    if plan.why.is_empty() {
                        self.publish(subject, None).await;
                    } else {
                        self.explain(subject, self.kind.doing(subject, &facts), plan.why).await;
                    }
                    let again = self.kind.rest(subject, &facts, false).await;
                    let until = until.zip(self.kind.cluster()).map(|(until, cluster)| cluster.at(until));
                    return again.into_iter().chain(until).min();
                }
            };
            let turns = self.kind.turns(subject, &step).await;
            // One of another sort is given back.
            turn =
                turn.filter(|turn| turns.as_ref().is_some_and(|turns| Arc::ptr_eq(turn.semaphore(), turns)));
            if let Some(turns) = turns
                && turn.is_none()
            {
                turn = Arc::clone(&turns).try_acquire_owned().ok();
                if turn.is_none() {
                    // With news of the subject it is looked at again at once.
                    turn = Some(look.turn(&turns).await?);
                    continue;
                }
            }
            let outcome = self.kind.apply(subject, &step, &facts, &plan.why).await;
            turn = None;
            match outcome {
                Ok(()) => {
                    was_late = false;
                    self.attempts().remove(subject);
                }
                Err(StepError::Conflict(what)) => {
                    debug!(%subject, what, "somebody was faster: looking again");
                    if let Some(cluster) = self.kind.cluster()
                        && let Err(error) = cluster.catch_up().await
                    {
                        return Some(self.failed(subject, &plan.why, error).await);
                    }
                    // Late twice: what this node sees is behind, and nobody tells it for how long.
                    if std::mem::replace(&mut was_late, true) {
                        return Some(Instant::now() + R::RETRY.first);
                    }
                }
                Err(StepError::Later(why)) => {
                    self.explain(subject, self.kind.doing(subject, &facts), why).await;
                    return Some(Instant::now() + R::RETRY.first);
                }
                Err(error) => return Some(self.failed(subject, &plan.why, error).await),
            }
        }
        debug!(%subject, "not settled after {STEPS_A_ROUND} steps: looking again soon");
        Some(Instant::now() + R::RETRY.first)
    }

    /// A plan, from facts as fresh as its step needs. Each degree is observed after the one before: what takes its time to observe shall
    /// not make old what was confirmed.
    async fn decide(&self, subject: &Subject) -> Result<(R::Facts, Plan<R::Step>), (String, StepError)> {
        let (mut freshness, mut why) = (Freshness::Known, "it could not be looked at".to_owned());
        loop {
            let mut facts = match self.kind.observe(subject, freshness).await {
                Ok(facts) => facts,
                Err(error) => return Err((why, error)),
            };
            let begin = Instant::now();
            let plan = self.kind.plan(subject, &mut facts);
            metrics::planned(R::KIND, begin.elapsed());
            let needed = match &plan.next {
                Next::Do(step) => self.kind.freshness(step),
                Next::Settled | Next::Wait(_) => freshness,
            };
            if needed <= freshness {
                return Ok((facts, plan));
            }
            freshness =
                if freshness == Freshness::Known { Freshness::Observed } else { Freshness::Confirmed };
            why = plan.why;
        }
    }

    async fn failed(&self, subject: &Subject, why: &str, error: StepError) -> Instant {
        let (StepError::Failed(error) | StepError::Conflict(error) | StepError::Later(error)) = error;
        let (failures, is_news) = {
            let mut attempts = self.attempts();
            let attempts = attempts.entry(subject.clone()).or_default();
            attempts.failures = attempts.failures.saturating_add(1);
            let is_news = attempts.error != error;
            attempts.error.clone_from(&error);
            (attempts.failures, is_news)
        };
        self.kind.failed(subject, &error);
        let pause = R::RETRY.after(failures);
        let seconds = pause.as_secs_f32();
        if is_news {
            warn!(%subject, "{error}; {why}; trying again in {seconds} s");
        } else {
            debug!(%subject, "{error}; {why}; trying again in {seconds} s");
        }
        self.explain(subject, "trying again".to_owned(), why.to_owned()).await;
        Instant::now() + pause
    }

    async fn explain(&self, subject: &Subject, doing: String, because: String) {
        let error = self.attempts().get(subject).map(|attempts| attempts.error.clone());
        let error = error.or_else(|| self.kind.trouble(subject));
        if self.kind.speaks(subject) {
            self.publish(subject, Some(Status { doing, because, error })).await;
        }
    }

    async fn publish(&self, subject: &Subject, status: Option<Status>) {
        if let Some(cluster) = self.kind.cluster().filter(|cluster| cluster.is_current()) {
            self.statuses.publish(&*self.kind, cluster, subject, status).await;
        }
    }

    fn attempts(&self) -> MutexGuard<'_, HashMap<Subject, Attempts>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
