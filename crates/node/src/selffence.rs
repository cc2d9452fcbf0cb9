//! Has this machine reset itself when it has lost the cluster: arms the watchdog with the first acknowledged keepalive, feeds it with
//! the others, disarms it for maintenance and for a stop in order. Says when maintenance begins and ends.
//!
//! Decides nothing (see `pvc_core::plan::selffence`) and watches nothing itself: the guard does, which has nothing in common with this
//! runtime. If this task hangs, nothing is fed, as it should be.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use pvc_core::{
    model::{NodeName, Subject},
    plan::selffence::{Facts, Promise, Step, Told, plan},
    sabotage::{self, Bug},
};
use pvc_host::watchdog::Watchdog;
use pvc_process::Place;
use pvc_store::{Store, mirror::Mirror, schema::node};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tracing::{debug, error, info, warn};

use crate::until::until;

/// How long a write may take: meanwhile nothing is fed.
const TELL_WITHIN: Duration = Duration::from_secs(1);

/// The pause after a step that failed.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What it stands on.
pub struct Dependencies {
    /// This node.
    pub me: NodeName,
    /// The state tree.
    pub store: Arc<dyn Store>,
    /// The cluster, for its maintenance mode.
    pub mirror: Mirror,
    /// What resets this machine; `None`: nothing does.
    pub watchdog: Option<Arc<dyn Watchdog>>,
    /// `suicide_intervals` × `keepalive_interval`; `None`: this node never resets itself.
    pub within: Option<Duration>,
    /// When the last keepalive that was acknowledged was sent.
    pub acknowledged: watch::Receiver<Option<Instant>>,
    /// Where the task runs.
    pub place: Place,
}

/// The running task. Dropping it disarms nothing.
pub struct SelfFence {
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl SelfFence {
    /// Starts the task, to be called once the mirror is ready.
    pub fn start(dependencies: Dependencies) -> Self {
        let (stopping, asked) = watch::channel(false);
        let task = Task {
            switches: dependencies.mirror.signal({
                let me = dependencies.me.clone();
                move |subject, _| match subject {
                    Subject::Cluster => true,
                    Subject::Node(name) => *name == me,
                    _ => false,
                }
            }),
            mirror: dependencies.mirror,
            within: dependencies.within.filter(|_| dependencies.watchdog.is_some()),
            me: dependencies.me,
            store: dependencies.store,
            watchdog: dependencies.watchdog,
            acknowledged: dependencies.acknowledged,
            stopping: asked,
            armed: None,
            // The registration, which was acknowledged, has taken back what an earlier daemon promised.
            told: Told::Nothing,
            maintenance: false,
            said_why_not: false,
        };
        Self { stopping, task: dependencies.place.spawn(task.run()) }
    }

    /// Disarms for a stop in order, once the state tree does not promise a reset any more. Without ZooKeeper, the machine stays
    /// armed: the others may take its silence for its death, and the guests run on.
    pub async fn disarm(mut self, within: Duration) {
        self.stopping.send_replace(true);
        if timeout(within, &mut self.task).await.is_err() {
            warn!(
                "ZooKeeper does not know that this node stops in order: its watchdog stays armed and may reset this machine, unless pvcd is started again"
            );
            self.task.abort();
        }
    }
}

impl Drop for SelfFence {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    me: NodeName,
    store: Arc<dyn Store>,
    mirror: Mirror,
    /// Signals maintenance, and that this node's keys are not as they were.
    switches: watch::Receiver<()>,
    watchdog: Option<Arc<dyn Watchdog>>,
    within: Option<Duration>,
    acknowledged: watch::Receiver<Option<Instant>>,
    stopping: watch::Receiver<bool>,
    armed: Option<Promise>,
    told: Told,
    maintenance: bool,
    /// That it cannot be armed was said.
    said_why_not: bool,
}

impl Task {
    async fn run(mut self) {
        // A keepalive that was acknowledged before counts, too.
        self.acknowledged.mark_changed();
        loop {
            let mut try_again = None;
            let facts = self.facts();
            if let Some(step) = plan(&facts) {
                if matches!(step, Step::Arm(_) | Step::Feed) {
                    self.acknowledged.mark_unchanged();
                }
                if self.apply(step, &facts).await {
                    continue;
                }
                try_again = Some(Instant::now() + TRY_AGAIN);
            } else {
                // Nothing wants it: the next one is news again.
                self.acknowledged.mark_unchanged();
            }
            if facts.stopping && self.armed.is_none() && self.told == Told::Nothing {
                return;
            }
            let gone = tokio::select! {
                biased;
                stopping = self.stopping.changed() => stopping.is_err(),
                acknowledged = self.acknowledged.changed(), if self.within.is_some() => {
                    self.acknowledged.mark_changed();
                    acknowledged.is_err()
                }
                switches = self.switches.changed() => {
                    self.doubt();
                    switches.is_err()
                }
                () = until(try_again) => false,
            };
            if gone {
                return;
            }
        }
    }

    fn facts(&mut self) -> Facts {
        let maintenance = self.mirror.view().maintenance;
        if maintenance != self.maintenance {
            self.maintenance = maintenance;
            if maintenance {
                info!(
                    "maintenance is on (pvc maintenance off ends it): no node is fenced, and none resets itself"
                );
            } else {
                info!("maintenance is off: silent nodes are fenced again");
            }
        }
        let acknowledged = self.acknowledged.has_changed().unwrap_or(false);
        Facts {
            within: self.within,
            maintenance,
            stopping: *self.stopping.borrow_and_update(),
            acknowledged: acknowledged && self.acknowledged.borrow().is_some(),
            armed: self.armed,
            told: self.told,
        }
    }

    /// Does it; answers whether it is done.
    async fn apply(&mut self, step: Step, facts: &Facts) -> bool {
        let Some(watchdog) = self.watchdog.clone() else { return false };
        match step {
            Step::Arm(within) => match watchdog.arm(within, self.age()).await {
                Ok(armed) => {
                    let (seconds, by) = (within.as_secs(), &armed.by);
                    info!(
                        "this machine resets itself after {seconds} s without an acknowledged keepalive: armed is {by}"
                    );
                    if armed.promise.0.is_none() && !self.said_why_not {
                        self.said_why_not = true;
                        warn!(
                            "a reset that does not outlive the daemon or comes from the kernel that hangs (softdog), or of which nobody knows when it comes, is no proof of death for others: with failed_fence: migrate they wait for pvc node confirm-dead; load a driver of this machine's own watchdog"
                        );
                    }
                    self.armed = Some(armed.promise);
                    true
                }
                Err(error) => {
                    if !self.said_why_not {
                        self.said_why_not = true;
                        error!(
                            error = &error as &dyn std::error::Error,
                            "this machine does not guard itself"
                        );
                    }
                    false
                }
            },
            Step::Feed => {
                watchdog.feed(self.age());
                true
            }
            Step::Tell(promise) => self.tell(promise).await,
            Step::Disarm => match watchdog.disarm().await {
                Ok(()) => {
                    let why = if facts.stopping { "the daemon stops in order" } else { "maintenance is on" };
                    info!("the watchdog is disarmed: {why}");
                    self.armed = None;
                    true
                }
                Err(error) => {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "the watchdog could not be disarmed, this machine may be reset; trying again"
                    );
                    false
                }
            },
        }
    }

    /// Somebody may have written over what this daemon has told.
    fn doubt(&mut self) {
        let view = self.mirror.view();
        let Some(me) = view.node(&self.me) else { return };
        let told = match self.told {
            Told::Nothing => None,
            Told::Known(promise) => promise.0,
            Told::Unknown => return,
        };
        if !node::promises(me, told) {
            self.told = Told::Unknown;
        }
    }

    async fn tell(&mut self, promise: Option<Promise>) -> bool {
        let seconds = promise.and_then(|Promise(seconds)| seconds);
        let known = match self.told {
            Told::Nothing => Some(None),
            Told::Known(before) => Some(before.0),
            Told::Unknown => None,
        };
        if known != Some(seconds) {
            let before = std::mem::replace(&mut self.told, Told::Unknown);
            match timeout(TELL_WITHIN, node::promise(&*self.store, &self.me, seconds)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    debug!(error = &error as &dyn std::error::Error, "cannot say what guards this node");
                    return self.not_told(before);
                }
                Err(_) => return self.not_told(before),
            }
        }
        self.told = Told::written(promise);
        true
    }

    /// What was not answered may have been done all the same.
    fn not_told(&mut self, before: Told) -> bool {
        if sabotage::commits(Bug::ForgetTold) {
            self.told = before;
        }
        false
    }

    /// How long ago the last acknowledged keepalive was sent.
    fn age(&self) -> Duration {
        self.acknowledged.borrow().map_or(Duration::ZERO, |sent| sent.elapsed())
    }
}
