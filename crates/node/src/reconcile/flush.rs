//! Carries out a flush or an unflush of this node, until the answer is written.
//!
//! Decides nothing itself (see `pvc_core::plan::flush`) and moves nothing itself: it writes desired states of VMs, which the VMs' own
//! reconcilers carry out, here and elsewhere. So a stuck VM does not hold it up, nor it a VM.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::{
    model::{ClusterView, DomainState, FlushProgress, Moment, NodeName, Subject, Vm, VmId},
    plan::{
        self,
        flush::{Attempts, Facts, Limits, Step, Unable, change, has_work},
        liveness::Liveness,
        placement::{Selector, Sizes},
    },
};
use pvc_store::{CommitError, StoreError, schema};
use tokio::{sync::watch, time::Instant};
use tracing::{debug, info, warn};

use super::vm::Active;
use crate::{
    ability::Ability,
    controller::{Cluster, Controller, Freshness, Reconciler, StepError},
    sizes::VmSizes,
};

/// How often a flush that goes on is looked at though nothing seems to have changed; silence is the absence of signals.
const TICK: Duration = Duration::from_secs(1);

/// Keepalives that a node may miss before it is given no VMs.
const MISSED: u32 = 3;

/// What it stands on.
pub struct Dependencies {
    /// This node, and the state tree.
    pub cluster: Cluster,
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

/// The running reconciler. It ends when this is dropped; what it has asked for goes on.
pub struct Flush(#[allow(dead_code, reason = "kept for its end")] Controller<FlushReconciler>);

impl Flush {
    /// Starts it; returns at once.
    pub fn start(dependencies: Dependencies) -> Self {
        let mut ability = dependencies.ability.clone();
        let mut controller = Controller::start(Arc::new(FlushReconciler {
            sizes: VmSizes::new(Arc::clone(&dependencies.cluster.store)),
            memory: Mutex::new(Memory {
                liveness: Liveness::new(dependencies.keepalive),
                attempts: Attempts::default(),
                began: None,
                progress: None,
                unable: None,
            }),
            dependencies,
        }));
        let poker = controller.poker();
        controller.spawn(async move {
            loop {
                ability.changed().await;
                poker.poke_all();
            }
        });
        Self(controller)
    }
}

struct FlushReconciler {
    dependencies: Dependencies,
    sizes: VmSizes,
    memory: Mutex<Memory>,
}

struct Memory {
    liveness: Liveness,
    attempts: Attempts,
    /// The desired state that is being carried out, and since when.
    began: Option<(DomainState, Instant)>,
    /// What was published last.
    progress: Option<FlushProgress>,
    /// Why no VM can be started here, and since when.
    unable: Option<(String, Moment)>,
}

/// What is known of this node.
struct Seen {
    view: Arc<ClusterView>,
    /// The desired state of it, if there is something to do.
    desired: Option<DomainState>,
    sizes: Sizes,
    running: Option<BTreeSet<VmId>>,
    /// What the plan has found beside its step.
    plan: Option<plan::flush::Plan>,
}

#[async_trait]
impl Reconciler for FlushReconciler {
    type Facts = Seen;
    type Step = Step;

    const KIND: &'static str = "flush";

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.dependencies.cluster)
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![Subject::Node(self.me().clone())]
    }

    fn concerns(&self, changed: &Subject, view: &ClusterView) -> bool {
        match changed {
            Subject::Node(_) => true,
            Subject::Keepalive(name) => name != self.me(),
            // While there is something to do, everything.
            Subject::Vm(_) | Subject::Fence(_) => self.desired(view).is_some(),
            _ => false,
        }
    }

    /// Goes on where an earlier life of this daemon stopped.
    async fn begin(&self) -> Vec<Subject> {
        let cluster = &self.dependencies.cluster;
        if let Some(node) = cluster.view().node(self.me())
            && let Ok(Some(Ok(progress))) = schema::flush::read(&*cluster.store, self.me()).await
            && progress.left > 0
        {
            let mut memory = self.memory();
            memory.attempts.desired_is(node.domain_state.value);
            memory.attempts.resume(progress.total);
        }
        self.subjects()
    }

    async fn published(&self) -> Vec<Subject> {
        self.subjects()
    }

    fn is_idle(&self, _subject: &Subject) -> bool {
        let view = self.dependencies.cluster.view();
        self.note(&view);
        self.desired(&view).is_none() && self.memory().began.is_none()
    }

    async fn observe(&self, _subject: &Subject, _freshness: Freshness) -> Result<Seen, StepError> {
        let mut view = self.dependencies.cluster.view();
        if self.desired(&view).is_some() {
            view = self.dependencies.cluster.mirror.view_to_place(self.dependencies.selector).await;
        }
        let desired = self.desired(&view);
        let sizes = if desired.is_some() {
            let me = self.me();
            let concerned = |vm: &&Vm| vm.node.value == *me || vm.last_node.value.as_ref() == Some(me);
            let concerned: Vec<VmId> = view.good_vms().filter(concerned).map(|vm| vm.id).collect();
            self.sizes.of(&view, &concerned).await?
        } else {
            Sizes::default()
        };
        let active = self.dependencies.active.as_ref().and_then(|active| active.borrow().clone());
        let running = active.map(|active| active.keys().copied().collect());
        Ok(Seen { view, desired, sizes, running, plan: None })
    }

    fn plan(&self, _subject: &Subject, seen: &mut Seen) -> plan::Plan<Step> {
        self.note(&seen.view);
        let mut memory = self.memory();
        let Some(desired) = seen.desired else {
            memory.began = None;
            return plan::Plan { next: plan::Next::Settled, why: String::new() };
        };
        memory.attempts.desired_is(desired);
        if memory.began.is_none_or(|(before, _)| before != desired) {
            memory.began = Some((desired, Instant::now()));
            if is_asked_for(desired) {
                info!("{desired} of this node begins");
            }
        }
        let (cluster, now) = (&self.dependencies.cluster, self.dependencies.cluster.now());
        let plan = plan::flush::plan(&Facts {
            me: self.me(),
            view: &seen.view,
            view_is_current: cluster.is_current(),
            running: seen.running.as_ref(),
            sizes: &seen.sizes,
            unusable: &self.sizes.unusable(),
            silent: &memory.liveness.have_missed(MISSED, now),
            selector: self.dependencies.selector,
            limits: self.dependencies.limits,
            unable: memory.unable.as_ref().map(|(why, since)| Unable { why, since: *since }),
            attempts: &memory.attempts,
            now,
        });
        memory.attempts.noticed(&plan.left);
        let decided = plan::Plan { next: plan.next.clone(), why: plan.why.clone() };
        seen.plan = Some(plan);
        decided
    }

    async fn apply(&self, _subject: &Subject, step: &Step, seen: &Seen, why: &str) -> Result<(), StepError> {
        let told = self.publish_progress(seen).await;
        if matches!(step, Step::Answer(_)) && !told {
            // Whoever reads the answer reads what is left, too.
            return Err(StepError::Later("it is not published yet how far this has come".to_owned()));
        }
        match self.write(step, &seen.view).await {
            Ok(()) => {}
            // What one VM's keys do not take holds up no other.
            Err(CommitError::Failed(refusal @ StoreError::Refused { .. })) if let Some(vm) = step.vm() => {
                let reason = refusal.to_string();
                warn!(%vm, error = reason, "{why}: the others go on");
                self.memory().attempts.refused(vm, reason, self.dependencies.cluster.now());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        self.done(step, why);
        self.dependencies.cluster.catch_up().await
    }

    async fn rest(&self, _subject: &Subject, seen: &Seen, settled: bool) -> Option<Instant> {
        self.publish_progress(seen).await;
        let plan = seen.plan.as_ref()?;
        if !settled {
            if plan.left.is_empty() {
                // Only what the own keepalive says is waited for, which the view shows when it is asked for.
                if let Err(error) = self.dependencies.cluster.catch_up().await {
                    debug!(?error, "the view lags behind");
                }
            }
            self.memory().attempts.no_capacity(&plan.no_capacity, self.dependencies.cluster.now());
        }
        Some(Instant::now() + TICK)
    }

    fn doing(&self, _subject: &Subject, seen: &Seen) -> String {
        match seen.desired {
            Some(desired) if is_asked_for(desired) => format!("waiting to complete the {desired}"),
            _ => "waiting to start what is off and shall run".to_owned(),
        }
    }
}

impl FlushReconciler {
    fn me(&self) -> &NodeName {
        &self.dependencies.cluster.me
    }

    /// The desired state of this node, if there is something to do for it.
    fn desired(&self, view: &ClusterView) -> Option<DomainState> {
        let desired = view.node(self.me()).map(|node| node.domain_state.value);
        desired.filter(|_| has_work(self.me(), view, self.dependencies.ability.why_not().is_some()))
    }

    /// Keeps in memory who speaks, and since when nothing can be started here.
    fn note(&self, view: &ClusterView) {
        let (cluster, mut memory) = (&self.dependencies.cluster, self.memory());
        let now = cluster.now();
        memory.liveness.observe(view, &cluster.heard(), cluster.is_current(), now);
        let since = memory.unable.take().map_or(now, |(_, since)| since);
        memory.unable = self.dependencies.ability.why_not().map(|why| (why, since));
    }

    async fn write(&self, step: &Step, view: &ClusterView) -> Result<(), CommitError> {
        let (me, store) = (self.me(), &*self.dependencies.cluster.store);
        match (step, change(step, view, me)) {
            (Step::Answer(state), _) => {
                let version = view.node(me).and_then(|node| node.domain_state.version);
                store.commit(schema::node::set_domain_state(me, *state, version)).await?;
            }
            (Step::Send { .. } | Step::Start { .. } | Step::GiveAway { .. }, Some(change)) => {
                schema::placement::apply_placed(store, &change, view.placement_version).await?;
            }
            (_, Some(change)) => drop(schema::vm::apply(store, &change).await?),
            (_, None) => {}
        }
        Ok(())
    }

    fn done(&self, step: &Step, why: &str) {
        let (now, mut memory) = (self.dependencies.cluster.now(), self.memory());
        match step {
            Step::Send { vm, to, .. } | Step::Start { vm, on: to, .. } => {
                memory.attempts.sent(*vm, to, now);
                info!("{why}");
            }
            Step::ShutDown { vm, reason } => {
                memory.attempts.gave_up(*vm, reason);
                warn!("{why}");
            }
            Step::GiveAway { .. } => warn!("{why}"),
            Step::TakeBack(_) => info!("{why}"),
            Step::Answer(state) => {
                let took = memory.began.map_or(0.0, |(_, since)| since.elapsed().as_secs_f32());
                info!("this node is {state} after {took:.1} s: {why}");
            }
        }
    }

    /// Answers whether the tree tells how far it has come, or never will: what the store refuses to take holds up nothing.
    async fn publish_progress(&self, seen: &Seen) -> bool {
        let (cluster, Some(plan)) = (&self.dependencies.cluster, &seen.plan) else { return true };
        let is_news = self.memory().progress.as_ref() != Some(&plan.progress);
        if !seen.desired.is_some_and(is_asked_for) || !is_news {
            return true;
        }
        if !cluster.is_current() {
            return false;
        }
        let progress = FlushProgress { at_unix_s: cluster.machine.unix_s(), ..plan.progress.clone() };
        match schema::flush::publish(&*cluster.store, self.me(), &progress).await {
            Ok(()) => {
                self.memory().progress = Some(plan.progress.clone());
                true
            }
            Err(error) => {
                debug!(%error, "could not publish the progress");
                matches!(error, CommitError::Failed(StoreError::Refused { .. }))
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is a desired state, and no answer: then its progress is told.
fn is_asked_for(desired: DomainState) -> bool {
    matches!(desired, DomainState::Flush | DomainState::Unflush)
}
