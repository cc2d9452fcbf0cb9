//! Makes this coordinator agree with who shall be primary: observe → plan → apply, until there is nothing to do.
//!
//! ```text
//!   mirror, session, clock ──► one look at a time ──► store (key, desired state, routerstate)
//!                                    │  └───────────► addresses ◄── guard (drops them in time, whatever the look waits for)
//!                                    └──────────────► services' runner (nobody waits for it but a moment)
//!   heartbeat ──► store: writes, from which lifetimes and deadlines count
//! ```
//!
//! Decides nothing itself (see `pvc_core::plan::primary`).

mod addresses;
mod services;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use pvc_config::Config;
use pvc_core::{
    model::{ClusterView, Explanation, NodeName, RouterState, Subject},
    plan::primary::{Attempts, Facts, Next, Plan, Step, plan, write_every},
    sabotage::{self, Bug},
};
use pvc_host::{links::Links, machine::Machine};
use pvc_process::JoinSet;
use pvc_store::{
    CommitError, Session, Store, Transaction,
    mirror::Mirror,
    schema::{explain, node, primary},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use self::{addresses::Addresses, services::Runner};
pub use self::{
    addresses::Floating,
    services::{PrimaryService, Unit},
};

/// More steps than any plan needs.
const STEPS_A_ROUND: usize = 16;

/// How long the mirror may take to show what this node wrote.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(10);

/// How long services may take before a hand-over goes on without them.
const SERVICES_WITHIN: Duration = Duration::from_secs(2);

const RETRY: Duration = Duration::from_secs(1);

/// How often it is looked at though nothing is signalled, in case a signal was lost.
const SAFETY_NET: Duration = Duration::from_mins(1);

/// The floating addresses that the configuration gives to the primary, each where its network's addresses are.
pub fn floating(config: &Config) -> Vec<Floating> {
    let (Some(networks), Some(desired)) = (&config.networks, super::network::desired(config)) else {
        return Vec::new();
    };
    let devices = [&desired.upstream.device, &desired.cluster.device, &desired.storage.device];
    let all = networks.iter().zip(devices).flat_map(|((_, network), device)| {
        let v4 = network.floating_ip.map(IpNet::from);
        let v6 = network.floating_ip6.map(IpNet::from);
        let floating = |cidr| Floating { device: desired.home(device).to_owned(), cidr };
        v4.into_iter().chain(v6).map(floating)
    });
    all.collect()
}

/// What it stands on.
pub struct Dependencies {
    /// This node: a coordinator.
    pub me: NodeName,
    /// The state tree.
    pub store: Arc<dyn Store>,
    /// The cluster.
    pub mirror: Mirror,
    /// The machine, for its clock.
    pub machine: Arc<dyn Machine>,
    /// The machine's network; `None`: it is not managed, and there are no floating addresses.
    pub links: Option<Arc<dyn Links>>,
    /// The addresses that the primary has.
    pub floating: Vec<Floating>,
    /// What runs on the primary, in the order in which it starts.
    pub services: Vec<Arc<dyn PrimaryService>>,
}

/// The running reconciler. Dropped, it ends as if it were killed: what is there stays until its lifetime ends.
pub struct Primary {
    reconciler: Arc<Reconciler>,
    stopping: watch::Sender<bool>,
    main: JoinSet<()>,
    _others: JoinSet<()>,
}

impl Primary {
    /// Starts it; returns at once. The node's `daemonstate` should be `run`.
    pub fn start(dependencies: Dependencies) -> Self {
        let addresses = Arc::new(Addresses::new(
            dependencies.links,
            dependencies.floating,
            Arc::clone(&dependencies.store),
        ));
        let runner = Runner::new(dependencies.services);
        let reconciler = Arc::new(Reconciler {
            me: dependencies.me,
            store: dependencies.store,
            mirror: dependencies.mirror,
            machine: dependencies.machine,
            addresses: Arc::clone(&addresses),
            services: Arc::clone(&runner),
            memory: Mutex::default(),
            stopping: AtomicBool::new(false),
            tenured: watch::Sender::new(false),
        });
        let (stopping, stop) = watch::channel(false);
        let mut others = JoinSet::new();
        others.spawn(addresses.guard());
        others.spawn(runner.run());
        if reconciler.addresses.any() {
            others.spawn(Arc::clone(&reconciler).write_signs_of_life());
        }
        let mut main = JoinSet::new();
        main.spawn(Arc::clone(&reconciler).run(stop));
        Self { reconciler, stopping, main, _others: others }
    }

    /// Steps down in order, within so long: services, addresses, key. What is stuck is left behind, except the addresses: they are
    /// removed in any case.
    pub async fn stop(mut self, within: Duration) {
        self.stopping.send_replace(true);
        if timeout(within, self.main.join_next()).await.is_err() {
            warn!("primary: could not step down in order within {} s", within.as_secs_f32());
        }
        self.abandon().await;
    }

    /// Removes the addresses, says nothing to anybody.
    pub async fn abandon(mut self) {
        self.main.shutdown().await;
        if let Err(error) = self.reconciler.addresses.drop_all().await {
            warn!("{error}; the kernel removes the floating addresses when their lifetime ends");
        }
    }
}

struct Reconciler {
    me: NodeName,
    store: Arc<dyn Store>,
    mirror: Mirror,
    machine: Arc<dyn Machine>,
    addresses: Arc<Addresses>,
    services: Arc<Runner>,
    memory: Mutex<Memory>,
    stopping: AtomicBool,
    /// Whether signs of life are needed.
    tenured: watch::Sender<bool>,
}

#[derive(Default)]
struct Memory {
    attempts: Attempts,
    tenure: Option<Tenure>,
    /// The last error, so that it is logged once.
    error: Option<String>,
    /// What was published last.
    explained: Option<(String, Option<String>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tenure {
    epoch: u64,
    zxid: i64,
    /// The mirror has shown it: from then on it counts only while the mirror does.
    shown: bool,
}

enum StepError {
    /// Somebody was faster: look again, nothing is wrong.
    Conflict,
    Failed(String),
}

impl From<CommitError> for StepError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::Conflict,
            CommitError::Unknown(_) | CommitError::Failed(_) => Self::Failed(error.to_string()),
        }
    }
}

/// Keepalives are no news here.
fn concerns(me: &NodeName, subject: &Subject, view: &ClusterView) -> bool {
    match subject {
        Subject::Primary | Subject::Fence(_) => true,
        Subject::Node(name) => name == me || view.primary_node.value.as_ref() == Some(name),
        Subject::Keepalive(_) | Subject::Vm(_) | Subject::Cluster => false,
    }
}

fn epoch(session: Session) -> Option<u64> {
    match session {
        Session::Connecting => None,
        Session::Healthy { epoch } | Session::Suspended { epoch } => Some(epoch),
    }
}

impl Reconciler {
    async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let me = self.me.clone();
        let mut news = self.mirror.signal(move |subject, view| concerns(&me, subject, view));
        let mut session = self.store.session();
        let mut trouble = self.services.troubles();
        let mut addresses = self.addresses.changes();
        self.mirror.ready().await;
        loop {
            news.mark_unchanged();
            session.mark_unchanged();
            trouble.mark_unchanged();
            addresses.mark_unchanged();
            let stopping = *stop.borrow_and_update();
            self.stopping.store(stopping, Ordering::Relaxed);
            let at = self.round().await;
            if stopping && self.is_out() {
                return;
            }
            let pause = Instant::now() + self.pause();
            let at = at.map_or(pause, |at| at.min(pause));
            // A sender that has gone says nothing any more: then the time alone counts.
            tokio::select! {
                biased;
                Ok(()) = stop.changed(), if !stopping => {}
                Ok(()) = session.changed() => {}
                Ok(()) = addresses.changed() => {}
                Ok(()) = news.changed() => {}
                Ok(()) = trouble.changed() => {}
                () = tokio::time::sleep_until(at) => {}
            }
        }
    }

    fn is_out(&self) -> bool {
        self.memory().tenure.is_none() && !self.services.wanted()
    }

    /// How long at most until it is looked at again: while addresses are held, their lifetime is to be renewed.
    fn pause(&self) -> Duration {
        let holds = self.addresses.any() && self.memory().tenure.is_some();
        if holds { write_every(self.store.session_timeout()) } else { SAFETY_NET }
    }

    /// While this node is primary its writes are what its addresses live from. Waits for nothing but the store, and for that not longer
    /// than a connection lasts: what is sent after a write that hangs would be answered after it.
    async fn write_signs_of_life(self: Arc<Self>) {
        let mut tenured = self.tenured.subscribe();
        loop {
            // The sender lives as long as `self`.
            let _ = tenured.wait_for(|tenured| *tenured).await;
            let next = Instant::now() + write_every(self.store.session_timeout());
            let sign = if sabotage::commits(Bug::ReadsFeedPrimary) {
                self.store.get(primary::HOLDER).await.map(drop)
            } else {
                self.store.sync().await
            };
            if let Err(error) = sign {
                debug!(%error, "the state store has not taken a sign of life");
            }
            sleep_until(next).await;
        }
    }

    /// Goes as far as it goes now; answers when to look again at the latest.
    async fn round(&self) -> Option<Instant> {
        for _ in 0..STEPS_A_ROUND {
            let (next, view) = match self.plan().await {
                Ok(planned) => planned,
                Err(error) => return self.failed(error).await,
            };
            match next.next {
                Next::Settled => {
                    let trouble = self.services.trouble().or_else(|| self.memory().error.clone());
                    self.explain(trouble.map(|t| ("primary with trouble".to_owned(), Some(t)))).await;
                    return None;
                }
                Next::Wait(until) => {
                    self.explain(Some((next.why, None))).await;
                    return until.map(|moment| self.addresses.instant(moment));
                }
                Next::Do(step) => match self.apply(&step, &view, &next.why).await {
                    Ok(()) if step == Step::Hold => self.memory().error = None,
                    Ok(()) => {}
                    Err(StepError::Conflict) => {
                        debug!("primary: {step:?}: somebody was faster");
                        // The mirror pokes when it sees the other's change.
                        let _ = self.mirror.caught_up(CATCH_UP_WITHIN).await;
                    }
                    // What could be done is done; the plan does not wait for what could not.
                    Err(StepError::Failed(error)) if step == Step::Hold => self.note(&error),
                    Err(StepError::Failed(error)) => return self.failed(error).await,
                },
            }
        }
        Some(Instant::now() + RETRY)
    }

    async fn plan(&self) -> Result<(Plan, Arc<ClusterView>), String> {
        if self.memory().tenure.is_some_and(|t| !t.shown) && self.mirror.synced() {
            self.shown().await;
        }
        let held = self.addresses.held().await?;
        let view = self.mirror.view();
        let view_is_current = self.mirror.synced();
        let now = self.addresses.now();
        let session = epoch(*self.store.session().borrow());
        let mut memory = self.memory();
        if view_is_current {
            memory.attempts.saw(&view, now);
        }
        let shows_me = view.primary_holder.as_ref() == Some(&self.me);
        let lost = |t: Tenure| Some(t.epoch) != session || t.shown && view_is_current && !shows_me;
        if memory.tenure.is_some_and(lost) {
            memory.tenure = None;
            self.tenured.send_replace(false);
            warn!("primary: this node is not primary any more: its session with the state store has ended");
        }
        let planned = plan(&Facts {
            me: &self.me,
            runs: !self.stopping.load(Ordering::Relaxed),
            view: &view,
            view_is_current,
            tenure: memory.tenure.map(|t| t.zxid),
            keep_until: self.addresses.keep_until(),
            held,
            services: self.services.wanted(),
            attempts: &memory.attempts,
            now,
        });
        Ok((planned, Arc::clone(&view)))
    }

    /// Waits until the mirror shows the tenure.
    async fn shown(&self) {
        if self.mirror.caught_up(CATCH_UP_WITHIN).await.is_ok()
            && let Some(tenure) = &mut self.memory().tenure
        {
            tenure.shown = true;
        }
    }

    async fn apply(&self, step: &Step, view: &ClusterView, why: &str) -> Result<(), StepError> {
        match step {
            Step::Hold => self.addresses.hold().await.map_err(StepError::Failed)?,
            Step::Drop => {
                info!("primary: dropping the floating addresses: {why}");
                self.addresses.drop_all().await.map_err(StepError::Failed)?;
            }
            Step::StartServices => {
                info!("primary: starting what runs on the primary: {why}");
                self.services.start();
            }
            Step::StopServices => {
                info!("primary: stopping what runs on the primary: {why}");
                self.services.stop(SERVICES_WITHIN).await;
            }
            Step::Take { again } => return self.take(*again, why).await,
            Step::Release => {
                self.commit(primary::release(&self.me)).await?;
                let now = self.addresses.now();
                let mut memory = self.memory();
                memory.tenure = None;
                memory.attempts.stepped_down(now);
                self.tenured.send_replace(false);
                info!("primary: this node has stepped down: {why}");
            }
            Step::Discharge(node) => {
                let Some(dead) = view.node(node) else { return Err(StepError::Conflict) };
                self.commit(primary::discharge(dead)).await?;
                info!("primary: {node} is discharged: {why}");
            }
            Step::Answer => {
                self.commit(primary::desired(&view.primary_node, Some(&self.me))).await?;
                info!("primary: answered {}: {why}", self.me);
            }
            Step::Say(state) => {
                self.commit(node::set_router_state(&self.me, *state)).await?;
                if *state == RouterState::Primary {
                    info!("primary: this node is primary coordinator");
                }
            }
        }
        Ok(())
    }

    /// Takes the key and, before anything else, the addresses: the cluster is without them now.
    async fn take(&self, again: bool, why: &str) -> Result<(), StepError> {
        let began = Instant::now();
        let session = self.store.session();
        let Some(epoch) = epoch(*session.borrow()) else { return Err(StepError::Conflict) };
        let committed = self.store.commit(primary::take(&self.me, again)).await?;
        self.memory().tenure = Some(Tenure { epoch, zxid: committed.zxid, shown: false });
        self.tenured.send_replace(true);
        let held = if sabotage::commits(Bug::SayPrimaryFirst) { Ok(()) } else { self.addresses.hold().await };
        info!("primary: this node takes over after {} ms: {why}", began.elapsed().as_millis());
        self.shown().await;
        // The plan sees what is missing, and goes on.
        if let Err(error) = held {
            self.note(&error);
        }
        Ok(())
    }

    /// Writes, and waits until the mirror shows it.
    async fn commit(&self, txn: Transaction) -> Result<(), StepError> {
        self.store.commit(txn).await?;
        self.mirror.caught_up(CATCH_UP_WITHIN).await.map_err(|e| StepError::Failed(e.to_string()))
    }

    async fn failed(&self, error: String) -> Option<Instant> {
        self.note(&error);
        self.explain(Some(("trying again".into(), Some(error)))).await;
        Some(Instant::now() + RETRY.min(self.pause()))
    }

    /// Logs an error if it is news.
    fn note(&self, error: &str) {
        let mut memory = self.memory();
        if memory.error.as_deref() != Some(error) {
            warn!("primary: {error}; trying again");
            memory.error = Some(error.to_owned());
        }
    }

    /// Publishes what is not as it should be, if it is this node's to say; `None`: all is well.
    async fn explain(&self, said: Option<(String, Option<String>)>) {
        let (ours, changed) = {
            let mut memory = self.memory();
            if said.as_ref().is_none_or(|(_, error)| error.is_none()) {
                memory.error = None;
            }
            let desired = self.mirror.view().primary_node.value.as_ref() == Some(&self.me);
            (memory.tenure.is_some() || desired, memory.explained != said)
        };
        if !changed || !self.mirror.synced() || !ours && said.is_some() {
            return;
        }
        let at_unix_s = self.machine.unix_s();
        let explanation = said.clone().map(|(because, error)| Explanation {
            by: self.me.to_string(),
            at_unix_s,
            doing: "primary coordinator".into(),
            because,
            error,
        });
        match explain::write(&*self.store, &Subject::Primary, explanation.as_ref()).await {
            Ok(()) => self.memory().explained = said,
            Err(error) => debug!(%error, "could not publish what is the matter with the primary"),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
