//! Fences silent nodes and has their VMs run elsewhere, on every coordinator.
//!
//! ```text
//!   view, session, own keepalives ──► silence (a task of its own) ──► one look a node ──► power, storage, store
//! ```
//!
//! Decides nothing itself (see `pvc_core::plan::fence`). Each node is a subject of its own, and all are looked at side by side: a BMC that
//! does not answer holds up nothing but its own node's fence, and nothing holds up who measures silence. Every step is recorded before the
//! next, and every write is checked against the record and against the node having said nothing: whoever is late finds a conflict, and
//! looks again.

mod apply;
mod found_off;
mod shoot;
mod silence;
mod tell;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_config::{Config, FenceAction};
use pvc_core::{
    model::{Entry, NodeName, Subject},
    plan::{
        Next, Plan,
        fence::{Action, Attempts, Facts, Settings, Step, plan},
        placement::{Selector, Sizes},
    },
};
use pvc_host::{power::Power, storage_fence::StorageFence};
use pvc_store::servers::Servers;
use tokio::{sync::watch, time::Instant};
use tracing::{debug, warn};

use crate::{
    controller::{Cluster, Controller, Freshness, Reconciler, Retry, StepError},
    metrics,
    sizes::VmSizes,
    write_streak::WriteStreak,
};
use apply::{Apply, Effect};
use silence::{Look, Silence};

/// Keepalives that a node may miss before it is given no VMs.
const MISSED: u32 = 3;

/// What fencing stands on.
pub struct Dependencies {
    /// This node, a coordinator, and the state tree.
    pub cluster: Cluster,
    /// For how long this node's keepalives were written without a gap.
    pub write_streak: watch::Receiver<Option<WriteStreak>>,
    /// The other machines' power.
    pub power: Arc<dyn Power>,
    /// The storage's side of a fence.
    pub storage: Arc<dyn StorageFence>,
    /// The coordinators' ZooKeeper servers.
    pub servers: Arc<dyn Servers>,
    /// The configuration.
    pub settings: Settings,
    /// Where VMs go.
    pub selector: Selector,
}

/// The configuration, as fencing understands it.
pub fn settings(config: &Config) -> Settings {
    let action = |action| match action {
        FenceAction::Migrate => Action::Migrate,
        FenceAction::Nothing => Action::Nothing,
    };
    Settings {
        keepalive: config.intervals.keepalive(),
        fence_intervals: config.intervals.fence_intervals,
        successful: action(config.fencing.successful),
        failed: action(config.fencing.failed),
    }
}

/// The running work. It ends when this is dropped, at whatever step: another coordinator goes on from there.
pub struct Fencing(#[allow(dead_code, reason = "kept for its end")] Controller<Fencer>);

impl Fencing {
    /// Starts it; returns at once.
    pub fn start(dependencies: Dependencies) -> Self {
        let Dependencies { cluster, settings, write_streak, .. } = &dependencies;
        let silence = Arc::new(Silence::new(cluster.clone(), *settings, write_streak.clone()));
        let mut controller = Controller::start(Arc::new(Fencer {
            silence: Arc::clone(&silence),
            memory: Mutex::default(),
            apply: Apply {
                sizes: VmSizes::new(Arc::clone(&cluster.store)),
                dependencies,
                background: Mutex::default(),
            },
        }));
        let poker = controller.poker();
        controller.spawn(silence.measure(move || poker.poke_all()));
        Self(controller)
    }
}

struct Fencer {
    apply: Apply,
    silence: Arc<Silence>,
    memory: Mutex<BTreeMap<NodeName, Memory>>,
}

/// What is remembered of one node's fence.
#[derive(Default)]
struct Memory {
    attempts: Attempts,
    /// The session in which they were made: what an earlier one took is nobody's now.
    epoch: Option<u64>,
    /// What was last said that it waits for, without figures.
    said: String,
}

/// What is known of one node.
struct Seen {
    look: Look,
    /// What VMs need; nothing is known of it before the proof, when nobody asks.
    sizes: Sizes,
    epoch: Option<u64>,
    /// What it waits for.
    why: String,
}

#[async_trait]
impl Reconciler for Fencer {
    type Facts = Seen;
    type Step = Step;

    const KIND: &'static str = "fence";
    // As many as there are nodes: the fence of one waits for no other's.
    const AT_ONCE: usize = usize::MAX;
    const RETRY: Retry = Retry { first: Duration::from_millis(250), longest: Duration::from_secs(10) };
    const FIGURES_ARE_NEWS: bool = false;

    fn cluster(&self) -> Option<&Cluster> {
        Some(self.apply.cluster())
    }

    fn subjects(&self) -> Vec<Subject> {
        let view = self.apply.cluster().view();
        let without_keys = view.fences.keys().filter(|node| !view.nodes.contains_key(*node));
        view.nodes.keys().chain(without_keys).cloned().map(Subject::Fence).collect()
    }

    async fn refresh(&self) -> Vec<Subject> {
        let view = self.apply.cluster().view();
        self.memory().retain(|node, _| view.nodes.contains_key(node) || view.fences.contains_key(node));
        self.subjects()
    }

    /// A node that speaks. The one who measures silence has it looked at long before anything follows from that.
    fn is_idle(&self, subject: &Subject) -> bool {
        let Subject::Fence(node) = subject else { return true };
        let look = self.silence.known();
        let attempts = self.attempts(node, self.apply.cluster().epoch());
        // What the VMs need makes no difference to whether there is something to do.
        let plan = self.plan_of(node, &look, &Sizes::new(), &attempts);
        match plan.next {
            Next::Do(_) => false,
            Next::Settled => true,
            Next::Wait(_) => plan.why.is_empty() && self.silence.speaks(node, &look),
        }
    }

    async fn observe(&self, subject: &Subject, _freshness: Freshness) -> Result<Seen, StepError> {
        let Subject::Fence(node) = subject else { return Err(StepError::Conflict("no node".to_owned())) };
        let epoch = self.apply.cluster().epoch();
        let look = self.silence.look_at(node).await;
        let fence = look.view.fences.get(node).and_then(|entry| entry.good());
        let sizes = match fence.and_then(|fence| fence.job.step.proof()) {
            Some(_) => self.apply.sizes.of(&look.view, &[]).await?,
            None => Sizes::new(),
        };
        Ok(Seen { look, sizes, epoch, why: String::new() })
    }

    fn plan(&self, subject: &Subject, seen: &mut Seen) -> Plan<Step> {
        let Subject::Fence(node) = subject else { return Plan { next: Next::Settled, why: String::new() } };
        let plan = self.plan_of(node, &seen.look, &seen.sizes, &self.attempts(node, seen.epoch));
        self.see_unproven(node, &seen.look);
        seen.why.clone_from(&plan.why);
        plan
    }

    async fn apply(&self, subject: &Subject, step: &Step, seen: &Seen, why: &str) -> Result<(), StepError> {
        let Subject::Fence(node) = subject else { return Ok(()) };
        let Look { view, liveness, now, .. } = &seen.look;
        let outcome = self.apply.step(node, step, why, view, &liveness.have_missed(MISSED, *now)).await;
        count(step, &outcome);
        self.note(node, seen.epoch, outcome?);
        Ok(())
    }

    async fn rest(&self, subject: &Subject, seen: &Seen, _settled: bool) -> Option<Instant> {
        let Subject::Fence(node) = subject else { return None };
        let said: String = seen.why.chars().filter(|c| !c.is_ascii_digit()).collect();
        let is_news = {
            let mut memory = self.memory();
            let before = &mut memory.entry(node.clone()).or_default().said;
            std::mem::replace(before, said.clone()) != said
        };
        match &seen.why {
            why if !is_news || why.is_empty() => {}
            why if self.speaks(subject) => warn!(%node, "{why}"),
            why => debug!(%node, "{why}"),
        }
        None
    }

    fn doing(&self, _subject: &Subject, _seen: &Seen) -> String {
        "fencing".to_owned()
    }

    /// The fencer speaks, and where there is none the first of the coordinators that work.
    fn speaks(&self, subject: &Subject) -> bool {
        let Subject::Fence(node) = subject else { return false };
        tell::speaks(&self.apply.cluster().me, node, &self.apply.cluster().view())
    }

    /// What is told of a fence under way, by whomever, is true until its end.
    async fn withdraw(&self, subject: &Subject) -> bool {
        let Subject::Fence(node) = subject else { return true };
        let look = self.silence.known();
        if !look.current {
            return false;
        }
        look.view.fences.contains_key(node) || tell::settled(&*self.apply.cluster().store, node).await
    }
}

impl Fencer {
    fn plan_of(&self, node: &NodeName, look: &Look, sizes: &Sizes, attempts: &Attempts) -> Plan<Step> {
        let Dependencies { cluster, settings, storage, .. } = &self.apply.dependencies;
        plan(
            node,
            &Facts {
                me: &cluster.me,
                view: &look.view,
                view_is_current: look.current,
                liveness: &look.liveness,
                settings,
                sizes,
                storage: storage.is_available(),
                attempts,
                now: look.now,
            },
        )
    }

    /// What was attempted about a node in this session.
    fn attempts(&self, node: &NodeName, epoch: Option<u64>) -> Attempts {
        let mut memory = self.memory();
        let memory = memory.entry(node.clone()).or_default();
        if memory.epoch != epoch {
            (memory.epoch, memory.attempts) = (epoch, Attempts::default());
        }
        memory.attempts.clone()
    }

    /// A proof that is recorded later, by whomever, is no older than this look.
    fn see_unproven(&self, node: &NodeName, look: &Look) {
        let is_proven = look.view.fences.get(node).is_some_and(|entry| match entry {
            Entry::Good(fence) => fence.job.step.proof().is_some(),
            Entry::Bad(_) => true,
        });
        if look.current && !is_proven {
            self.memory().entry(node.clone()).or_default().attempts.proven_no_sooner_than(look.now);
        }
    }

    /// Keeps what a step did that was begun in that session.
    fn note(&self, node: &NodeName, epoch: Option<u64>, effect: Effect) {
        let now = self.apply.cluster().now();
        let mut memory = self.memory();
        let Some(memory) = memory.get_mut(node).filter(|memory| memory.epoch == epoch) else { return };
        let attempts = &mut memory.attempts;
        match effect {
            Effect::Taken => attempts.taken(),
            Effect::Recorded => {}
            Effect::Proven(at) => attempts.proven(at),
            Effect::FoundOff(at) => attempts.found_off(at),
            Effect::NotFoundOff(why) => attempts.not_found_off(why, now),
            Effect::Asked(serving) => attempts.asked_servers(serving, now),
            Effect::NotOff(why) => attempts.asked_power(why, now),
            Effect::PowerOffFailed => attempts.power_off_failed(now),
            Effect::ToldToPowerOn => attempts.told_to_power_on(now),
            Effect::StorageFailed(why) => attempts.storage_failed(why, now),
            Effect::RecoveryFailed(why) => attempts.recovery_failed(why, now),
            Effect::Left => attempts.left(),
            Effect::Finished => *attempts = Attempts::default(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, BTreeMap<NodeName, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A step's name among the figures.
fn kind(step: &Step) -> &'static str {
    match step {
        Step::Declare => "declare",
        Step::TakeOver => "take-over",
        Step::Shoot => "shoot",
        Step::AskServers(_) => "ask-servers",
        Step::AskPower => "ask-power",
        Step::Unconfirm => "unconfirm",
        Step::Record(_) => "record",
        Step::PowerOn => "power-on",
        Step::ShutOutStorage => "shut-out-storage",
        Step::Leave => "leave",
        Step::Recover(_) => "recover",
        Step::AskStillOff => "ask-still-off",
        Step::Finish(_) => "finish",
    }
}

fn count(step: &Step, outcome: &Result<Effect, StepError>) {
    match outcome {
        Ok(Effect::PowerOffFailed | Effect::StorageFailed(_) | Effect::RecoveryFailed(_))
        | Err(StepError::Failed(_)) => metrics::fence_step(kind(step), false),
        Ok(_) => metrics::fence_step(kind(step), true),
        // Nothing was done.
        Err(StepError::Conflict(_) | StepError::Later(_)) => {}
    }
}
