//! Fences silent nodes and has their VMs run elsewhere: observe → plan → apply, on every coordinator.
//!
//! Decides nothing itself (see `pvc_core::plan::fence`). One node is one line of work, several go on side by side; a BMC that
//! does not answer holds up nothing but its own node's fence. Every step is recorded before the next, and every write is checked
//! against the record and against the node having said nothing: whoever is late finds a conflict, and looks again.

mod apply;
mod found_off;
mod recover;
mod shoot;
mod tell;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use pvc_config::{Config, FenceAction};
use pvc_core::{
    model::{ClusterView, Moment, Node, NodeName, Subject},
    plan::{
        fence::{Action, Attempts, Facts, Next, Settings, Step, plan},
        liveness::{Liveness, longest_gap},
        placement::Selector,
    },
    sabotage::{self, Bug},
};
use pvc_host::{machine::Machine, power::Power, storage_fence::StorageFence};
use pvc_process::JoinSet;
use pvc_store::{Session, Store, mirror::Mirror, servers::Servers};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tracing::{debug, warn};

use super::until;
use crate::{keepalive::WriteStreak, metrics, sizes::VmSizes};
use apply::{Apply, Effect, StepError};
use tell::Tell;

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// How often it is looked whether this node's keepalives are written again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long the mirror may take to read what a silent node said last.
const FIGURES_WITHIN: Duration = Duration::from_secs(1);

/// Keepalives that a node may miss before it is given no VMs.
const MISSED: u32 = 3;

/// What fencing stands on.
pub struct Dependencies {
    /// This node.
    pub me: NodeName,
    /// The state tree.
    pub store: Arc<dyn Store>,
    /// Its mirror.
    pub mirror: Mirror,
    /// This machine, for its clock.
    pub machine: Arc<dyn Machine>,
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
pub struct Fencing {
    task: JoinHandle<()>,
}

impl Fencing {
    /// Starts it; returns at once.
    pub fn start(dependencies: Dependencies) -> Self {
        Self { task: pvc_process::spawn(Fencer::new(dependencies).run()) }
    }
}

impl Drop for Fencing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Fencer {
    apply: Arc<Apply>,
    mirror: Mirror,
    liveness: Liveness,
    tell: Tell,
    memory: BTreeMap<NodeName, Memory>,
    working: JoinSet<Done>,
    /// The session whose ephemeral keys are this daemon's.
    epoch: Option<u64>,
    origin: Instant,
}

/// What is remembered of one node's fence.
#[derive(Default)]
struct Memory {
    attempts: Attempts,
    busy: bool,
    /// Failures in a row.
    failures: u32,
    not_before: Option<Instant>,
}

/// A step that has ended.
struct Done {
    node: NodeName,
    epoch: Option<u64>,
    outcome: Result<Effect, StepError>,
}

impl Fencer {
    fn new(dependencies: Dependencies) -> Self {
        Self {
            mirror: dependencies.mirror.clone(),
            liveness: Liveness::new(dependencies.settings.keepalive),
            tell: Tell::new(
                Arc::clone(&dependencies.store),
                Arc::clone(&dependencies.machine),
                dependencies.me.clone(),
            ),
            memory: BTreeMap::new(),
            working: JoinSet::new(),
            epoch: None,
            origin: Instant::now(),
            apply: Arc::new(Apply {
                sizes: VmSizes::new(Arc::clone(&dependencies.store)),
                dependencies,
                background: Mutex::default(),
            }),
        }
    }

    async fn run(mut self) {
        let me = self.apply.dependencies.me.clone();
        let mut news = self.mirror.signal(move |subject, view| concerns(&me, subject, view));
        let mut session = self.apply.dependencies.store.session();
        loop {
            let state = *session.borrow_and_update();
            if let Session::Healthy { epoch } = state
                && self.epoch != Some(epoch)
            {
                self.epoch = Some(epoch);
                // The jobs that were this daemon's are nobody's now.
                self.memory.retain(|_, memory| memory.busy);
            }
            news.mark_unchanged();
            let next = self.look().await;
            tokio::select! {
                biased;
                changed = session.changed() => if changed.is_err() { return },
                Some(done) = self.working.join_next() => match done {
                    Ok(done) => self.settle(done),
                    Err(error) => warn!(%error, "a step of a fence ended unexpectedly"),
                },
                changed = news.changed() => if changed.is_err() { return },
                () = until(next) => {}
            }
        }
    }

    /// Takes note of who is silent. Answers with the view, whether it is current, and when that was.
    fn observe(&mut self) -> (Arc<ClusterView>, bool, Moment) {
        let write_streak = self.write_streak();
        let gaps_count = sabotage::commits(Bug::CountGapAsSilence);
        let (view, heard) = (self.mirror.view(), self.mirror.heard(self.origin));
        let current = self.mirror.synced() && (write_streak.is_some() || gaps_count);
        let now = Moment(self.origin.elapsed());
        self.liveness.observe(&view, &heard, current, now);
        if let Some(write_streak) = write_streak.filter(|_| !gaps_count) {
            let moment = |at: Instant| Moment(at.saturating_duration_since(self.origin));
            self.liveness.writes_were_taken(moment(write_streak.since), moment(write_streak.until));
        }
        if sabotage::commits(Bug::TrustWallClock) {
            self.liveness.trust_wall_clocks(&view, self.apply.dependencies.machine.unix_s(), now);
        }
        (view, current, now)
    }

    fn write_streak(&self) -> Option<WriteStreak> {
        let keepalive = self.apply.dependencies.settings.keepalive;
        self.apply.dependencies.write_streak.borrow().filter(|write_streak| write_streak.lasts(keepalive))
    }

    /// Who has been silent for so long that something may follow from it.
    fn late(&self, view: &ClusterView, now: Moment) -> BTreeSet<NodeName> {
        let settings = &self.apply.dependencies.settings;
        let late = |node: &&Node| {
            let patience = settings.patience(node).min(longest_gap(settings.interval(node)));
            self.liveness.silence(&node.name, now) >= patience
        };
        view.all_nodes().filter(late).map(|node| node.name.clone()).collect()
    }

    /// Looks at every node; returns when to look again at the latest, though nothing is signalled.
    async fn look(&mut self) -> Option<Instant> {
        if sabotage::commits(Bug::TrustWallClock) {
            let _ = self.mirror.figures(FIGURES_WITHIN).await;
        }
        let (mut view, mut current, mut now) = self.observe();
        let late = self.late(&view, now);
        // What is done about a silent node is done only if its last keepalive is still the one that was seen.
        if current && !late.is_empty() && self.mirror.figures_of(late, FIGURES_WITHIN).await.is_ok() {
            (view, current, now) = self.observe();
        }
        let view = &view;
        let Dependencies { me, settings, .. } = &self.apply.dependencies;
        let look_by = self.liveness.look_by(me, view, |node| settings.patience(node), now);
        let mut next = look_by.map(|Moment(at)| self.origin + at);
        if !current {
            // Nobody says so when this node's next keepalive is written.
            return next.or_else(|| self.write_streak().is_none().then(|| Instant::now() + LOOK_AGAIN));
        }
        let mut by = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        let nodes: BTreeSet<&NodeName> = view.nodes.keys().chain(view.fences.keys()).collect();
        for node in nodes {
            let memory = self.memory.entry(node.clone()).or_default();
            if memory.busy {
                continue;
            }
            if let Some(at) = memory.not_before.filter(|at| *at > Instant::now()) {
                by(at);
                continue;
            }
            let begin = Instant::now();
            let planned = plan(
                node,
                &Facts {
                    me: &self.apply.dependencies.me,
                    view,
                    view_is_current: current,
                    liveness: &self.liveness,
                    settings: &self.apply.dependencies.settings,
                    storage: self.apply.dependencies.storage.is_available(),
                    attempts: &memory.attempts,
                    now,
                },
            );
            metrics::planned("fence", begin.elapsed());
            match planned.next {
                Next::Do(step) => {
                    memory.busy = true;
                    let kind = kind(&step);
                    let silent = self.liveness.have_missed(MISSED, now);
                    let (apply, view) = (Arc::clone(&self.apply), Arc::clone(view));
                    let (node, epoch) = (node.clone(), self.epoch);
                    self.working.spawn(async move {
                        let outcome = apply.step(&node, step, &planned.why, &view, &silent).await;
                        count(kind, &outcome);
                        Done { node, epoch, outcome }
                    });
                }
                Next::Wait(until) => {
                    if let Some(Moment(at)) = until {
                        by(self.origin + at);
                    }
                    self.tell.waits(node, &planned.why, view).await;
                }
                Next::Settled => self.tell.waits(node, "", view).await,
            }
        }
        self.memory.retain(|node, memory| memory.busy || view.nodes.contains_key(node));
        next
    }

    fn settle(&mut self, done: Done) {
        let now = Moment(self.origin.elapsed());
        let memory = self.memory.entry(done.node.clone()).or_default();
        memory.busy = false;
        memory.not_before = None;
        if done.epoch != self.epoch {
            // What it took was taken by a session that is over.
            memory.attempts = Attempts::default();
            return;
        }
        match done.outcome {
            Ok(effect) => {
                memory.failures = 0;
                match effect {
                    Effect::Taken => memory.attempts.taken(),
                    Effect::Recorded => {}
                    Effect::Asked(serving) => memory.attempts.asked_servers(serving, now),
                    Effect::NotOff(why) => memory.attempts.asked_power(why, now),
                    Effect::PowerOffFailed => memory.attempts.power_off_failed(now),
                    Effect::ToldToPowerOn => memory.attempts.told_to_power_on(),
                    Effect::StorageFailed(why) => memory.attempts.storage_failed(why, now),
                    Effect::RecoveryFailed(why) => memory.attempts.recovery_failed(why, now),
                    Effect::Finished => memory.attempts = Attempts::default(),
                }
            }
            Err(error) => {
                memory.failures = memory.failures.saturating_add(1);
                let doubled = FIRST_RETRY.saturating_mul(2u32.saturating_pow(memory.failures - 1));
                let pause = doubled.min(LONGEST_RETRY);
                memory.not_before = Some(Instant::now() + pause);
                let node = &done.node;
                match error {
                    StepError::Conflict(what) => debug!(%node, what, "somebody was faster: looking again"),
                    StepError::Failed(why) => {
                        warn!(%node, error = why, "a step of its fence failed; trying again in {:.1} s", pause.as_secs_f32());
                    }
                }
            }
        }
    }
}

/// What says that somebody lives or works, and what a fence under way waits for. This node's own keepalive is no news to it, and others'
/// are told while there is a fence.
fn concerns(me: &NodeName, subject: &Subject, view: &ClusterView) -> bool {
    match subject {
        Subject::Keepalive(name) => name != me,
        Subject::Node(_) | Subject::Fence(_) | Subject::Cluster => true,
        Subject::Vm(_) => !view.fences.is_empty(),
        Subject::Primary => false,
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
        Step::Recover => "recover",
        Step::Finish(_) => "finish",
    }
}

fn count(kind: &'static str, outcome: &Result<Effect, StepError>) {
    match outcome {
        Ok(Effect::PowerOffFailed | Effect::StorageFailed(_) | Effect::RecoveryFailed(_))
        | Err(StepError::Failed(_)) => metrics::fence_step(kind, false),
        Ok(_) => metrics::fence_step(kind, true),
        // Nothing was done.
        Err(StepError::Conflict(_)) => {}
    }
}
