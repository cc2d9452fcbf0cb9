//! Carries out a flush or an unflush of this node: observe → plan → write one wish, until the answer is written.
//!
//! Decides nothing itself (see `pvc_core::plan::flush`) and moves nothing itself: it writes wishes about VMs, which the VMs' own
//! reconcilers carry out, here and elsewhere. A task of its own, so that a stuck VM does not hold it up, nor it a VM.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use pvc_core::{
    model::{ClusterView, DomainState, Explanation, FlushProgress, Moment, NodeName, Subject, Vm, VmId},
    plan::{
        flush::{Facts, Limits, Next, Past, Plan, Step, Unable, change, has_work, plan},
        liveness::Liveness,
        placement::Selector,
    },
};
use pvc_host::machine::Machine;
use pvc_store::{CommitError, Store, StoreError, mirror::Mirror, schema};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tracing::{debug, info, warn};

use super::{until, vm::Active};
use crate::{ability::Ability, sizes::VmSizes};

/// How often a flush that goes on is looked at though nothing seems to have changed; silence is the absence of signals.
const TICK: Duration = Duration::from_secs(1);

/// Keepalives that a node may miss before it is given no VMs.
const MISSED: u32 = 3;

/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// More steps than there is usually to do at once; then the others get a turn.
const STEPS_A_ROUND: usize = 64;

/// How long the mirror may take to show what this node wrote.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(10);

/// What it stands on.
pub struct Parts {
    /// This node.
    pub me: NodeName,
    /// The state tree.
    pub store: Arc<dyn Store>,
    /// The view of it.
    pub mirror: Mirror,
    /// The machine, for its clock.
    pub machine: Arc<dyn Machine>,
    /// What runs here; `None` on a node without a hypervisor.
    pub active: Option<watch::Receiver<Active>>,
    /// Whether VMs can be started here.
    pub ability: Ability,
    /// The configured `target_selector`.
    pub selector: Selector,
    /// How many migrations go on at once.
    pub limits: Limits,
    /// How often each node says that it lives.
    pub keepalive: Duration,
}

/// The running reconciler. It ends when this is dropped; what it has wished goes on.
pub struct Flush {
    task: JoinHandle<()>,
}

impl Flush {
    /// Starts it; returns at once.
    pub fn start(parts: Parts) -> Self {
        let sizes = VmSizes::new(Arc::clone(&parts.store));
        let state = State {
            liveness: Liveness::new(parts.keepalive),
            parts,
            sizes,
            past: Past::default(),
            began: None,
            progress: None,
            explained: None,
            unable: None,
            origin: Instant::now(),
        };
        Self { task: pvc_process::spawn(state.run()) }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct State {
    parts: Parts,
    sizes: VmSizes,
    liveness: Liveness,
    past: Past,
    /// The wish that is being carried out, and since when.
    began: Option<(DomainState, Instant)>,
    progress: Option<FlushProgress>,
    explained: Option<Said>,
    /// Why no VM can be started here, and since when.
    unable: Option<(String, Moment)>,
    origin: Instant,
}

/// What is published, without when.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    doing: String,
    because: String,
    error: Option<String>,
}

impl State {
    async fn run(mut self) {
        let (me, mut ability) = (self.parts.me.clone(), self.parts.ability.clone());
        let looked_up = ability.clone();
        let concerned = move |subject: &Subject, view: &ClusterView| concerns(&me, subject, view, &looked_up);
        let mut news = self.parts.mirror.signal(concerned);
        self.parts.mirror.ready().await;
        self.take_over().await;
        loop {
            news.mark_unchanged();
            self.liveness.observe(&self.parts.mirror.view(), self.parts.mirror.synced(), self.now());
            let since = self.unable.take().map_or_else(|| self.now(), |(_, since)| since);
            self.unable = self.parts.ability.why_not().map(|why| (why, since));
            let again = self.look().await;
            let tick = self.began.map(|_| Instant::now() + TICK);
            tokio::select! {
                biased;
                changed = news.changed() => if changed.is_err() { return },
                () = ability.changed() => {}
                () = until(again.into_iter().chain(tick).min()) => {}
            }
        }
    }

    /// Goes on where an earlier life of this daemon stopped.
    async fn take_over(&mut self) {
        let Parts { me, store, mirror, .. } = &self.parts;
        if let Ok(Some(Ok(left))) = schema::node::read_explanation(&**store, me).await
            && left.by == me.as_str()
        {
            self.explained = Some(Said { doing: left.doing, because: left.because, error: left.error });
        }
        let Some(wish) = mirror.view().node(me).map(|node| node.domain_state.value) else { return };
        if let Ok(Some(Ok(progress))) = schema::flush::read(&**store, me).await
            && progress.left > 0
        {
            self.past.wish_is(wish);
            self.past.resume(progress.total);
        }
    }

    /// Does what there is to do now; answers when to look again at the latest, if that is known.
    async fn look(&mut self) -> Option<Instant> {
        for _ in 0..STEPS_A_ROUND {
            let view = self.parts.mirror.view();
            let Some(wish) = wish(&self.parts.me, &view, self.unable.is_some()) else {
                self.began = None;
                self.explain(None).await;
                return self.explained.is_some().then(|| Instant::now() + RETRY);
            };
            self.begin(wish);
            let plan = match self.plan(&view).await {
                Ok(plan) => plan,
                Err(error) => return Some(self.failed("cannot read how large the VMs are", &error).await),
            };
            self.past.noticed(&plan.left);
            let told = self.publish(&plan).await;
            match plan.next {
                // Whoever reads the answer reads what is left, too.
                Next::Do(Step::Answer(_)) if !told => return Some(Instant::now() + RETRY),
                Next::Settled => return None,
                Next::Wait(until) => {
                    if plan.left.is_empty() {
                        // Only what the own keepalive says is waited for, which the view shows when it is asked for.
                        self.catch_up().await;
                    }
                    self.past.no_room(&plan.no_room, self.now());
                    let doing = match wish {
                        DomainState::Ready | DomainState::Flushed => {
                            "waiting to start what is off and shall run".to_owned()
                        }
                        wish => format!("waiting to complete the {wish}"),
                    };
                    self.explain(Some(Said { doing, because: plan.why, error: None })).await;
                    let until = until.map(|moment| self.origin + moment.0);
                    return until;
                }
                Next::Do(step) => match self.apply(&step, &view, &plan.why).await {
                    Ok(()) => {}
                    Err(CommitError::Conflict { path, .. }) => {
                        debug!(key = path, "somebody was faster: looking again");
                        self.catch_up().await;
                    }
                    Err(CommitError::Failed(refusal @ StoreError::Refused { .. }))
                        if let Some(vm) = step.vm() =>
                    {
                        let why = refusal.to_string();
                        warn!(%vm, error = why, "{}: the others go on", plan.why);
                        self.past.refused(vm, why, self.now());
                    }
                    Err(error) => return Some(self.failed(&plan.why, &error).await),
                },
            }
        }
        Some(Instant::now() + RETRY)
    }

    fn begin(&mut self, wish: DomainState) {
        self.past.wish_is(wish);
        if self.began.is_none_or(|(before, _)| before != wish) {
            self.began = Some((wish, Instant::now()));
            if is_asked_for(wish) {
                info!("{wish} of this node begins");
            }
        }
    }

    async fn plan(&self, view: &ClusterView) -> Result<Plan, StoreError> {
        let me = &self.parts.me;
        let concerned = |vm: &&Vm| vm.node.value == *me || vm.last_node.value.as_ref() == Some(me);
        let concerned: Vec<VmId> = view.good_vms().filter(concerned).map(|vm| vm.id).collect();
        let sizes = self.sizes.of(view, &concerned).await?;
        let active = self.parts.active.as_ref().and_then(|active| active.borrow().clone());
        let running: Option<BTreeSet<VmId>> = active.map(|active| active.keys().copied().collect());
        let silent = self.liveness.have_missed(MISSED, self.now());
        Ok(plan(&Facts {
            me,
            view,
            view_is_current: self.parts.mirror.synced(),
            running: running.as_ref(),
            sizes: &sizes,
            unusable: &self.sizes.unusable(),
            silent: &silent,
            selector: self.parts.selector,
            limits: self.parts.limits,
            unable: self.unable.as_ref().map(|(why, since)| Unable { why, since: *since }),
            past: &self.past,
            now: self.now(),
        }))
    }

    async fn apply(&mut self, step: &Step, view: &ClusterView, why: &str) -> Result<(), CommitError> {
        let Parts { me, store, .. } = &self.parts;
        match (step, change(step, view, me)) {
            (Step::Answer(state), _) => {
                let version = view.node(me).and_then(|node| node.domain_state.version);
                store.commit(schema::node::set_domain_state(me, *state, version)).await?;
            }
            (Step::Send { .. } | Step::Start { .. } | Step::GiveAway { .. }, Some(change)) => {
                schema::placement::apply_placed(&**store, &change, view.placement_version).await?;
            }
            (_, Some(change)) => drop(schema::vm::apply(&**store, &change).await?),
            (_, None) => {}
        }
        let now = self.now();
        match step {
            Step::Send { vm, to, .. } | Step::Start { vm, on: to, .. } => {
                self.past.sent(*vm, to, now);
                info!("{why}");
            }
            Step::ShutDown { vm, reason } => {
                self.past.gave_up(*vm, reason);
                warn!("{why}");
            }
            Step::GiveAway { .. } => warn!("{why}"),
            Step::TakeBack(_) => info!("{why}"),
            Step::Answer(state) => {
                let took = self.began.map_or(0.0, |(_, since)| since.elapsed().as_secs_f32());
                info!("this node is {state} after {took:.1} s: {why}");
            }
        }
        self.catch_up().await;
        Ok(())
    }

    /// Waits until the view shows what was written; if it does not, the next write conflicts, and nothing is lost.
    async fn catch_up(&self) {
        if let Err(error) = self.parts.mirror.caught_up(CATCH_UP_WITHIN).await {
            debug!(%error, "the view lags behind");
        }
    }

    async fn failed(
        &mut self,
        what: &str,
        error: &(dyn std::error::Error + Send + Sync + 'static),
    ) -> Instant {
        warn!(error = crate::log::chain(error), "{what}; trying again");
        let said = Said {
            doing: "trying again".to_owned(),
            because: what.to_owned(),
            error: Some(crate::log::chain(error)),
        };
        self.explain(Some(said)).await;
        Instant::now() + RETRY
    }

    /// Answers whether the tree tells how far it has come, or never will: what the store refuses to take holds up nothing.
    async fn publish(&mut self, plan: &Plan) -> bool {
        let of_a_wish = self.began.is_some_and(|(wish, _)| is_asked_for(wish));
        if !of_a_wish || self.progress.as_ref() == Some(&plan.progress) {
            return true;
        }
        if !self.parts.mirror.synced() {
            return false;
        }
        let progress = FlushProgress { at_unix_s: self.parts.machine.unix_s(), ..plan.progress.clone() };
        match schema::flush::publish(&*self.parts.store, &self.parts.me, &progress).await {
            Ok(()) => {
                self.progress = Some(plan.progress.clone());
                true
            }
            Err(error) => {
                debug!(%error, "could not publish the progress");
                matches!(error, CommitError::Failed(StoreError::Refused { .. }))
            }
        }
    }

    async fn explain(&mut self, said: Option<Said>) {
        if self.explained == said || !self.parts.mirror.synced() {
            return;
        }
        let explanation = said.as_ref().map(|said| Explanation {
            by: self.parts.me.to_string(),
            at_unix_s: self.parts.machine.unix_s(),
            doing: said.doing.clone(),
            because: said.because.clone(),
            error: said.error.clone(),
        });
        let store = &*self.parts.store;
        match schema::explain::write(store, &Subject::Node(self.parts.me.clone()), explanation.as_ref()).await {
            Ok(()) => self.explained = said,
            Err(error) => debug!(%error, "could not publish why the node is not as wished"),
        }
    }

    fn now(&self) -> Moment {
        Moment(self.origin.elapsed())
    }
}

/// The wish about this node, and how the others are; while there is something to do, everything.
fn concerns(me: &NodeName, subject: &Subject, view: &ClusterView, ability: &Ability) -> bool {
    match subject {
        Subject::Node(_) => true,
        Subject::Keepalive(name) => name != me,
        Subject::Vm(_) | Subject::Fence(_) => wish(me, view, ability.why_not().is_some()).is_some(),
        Subject::Primary | Subject::Cluster => false,
    }
}

/// What is wished of this node, if there is something to do for it.
fn wish(me: &NodeName, view: &ClusterView, unable: bool) -> Option<DomainState> {
    let wish = view.node(me).map(|node| node.domain_state.value);
    wish.filter(|_| has_work(me, view, unable))
}

/// Whether it is a wish, and no answer: then its progress is told.
fn is_asked_for(wish: DomainState) -> bool {
    matches!(wish, DomainState::Flush | DomainState::Unflush)
}
