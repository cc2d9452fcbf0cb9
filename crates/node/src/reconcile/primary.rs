//! Makes this coordinator agree with who shall be primary.
//!
//! ```text
//!   view, session, clock ──► one look at a time ──► store (key, desired state, routerstate)
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

use async_trait::async_trait;
use ipnet::IpNet;
use pvc_config::Config;
use pvc_core::{
    model::{
        ClusterView, RouterState, Subject,
        link::{HostNetwork, Placed},
    },
    plan::{
        Next, Plan,
        primary::{Attempts, Facts, Gateways, Held, Step, gateways, plan, write_every},
    },
    sabotage::{self, Bug},
};
use pvc_host::links::Links;
use pvc_process::JoinSet;
use pvc_store::schema::{node, primary};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info, warn};

pub use self::services::{PrimaryService, Unit};
use self::{addresses::Addresses, services::Runner};
use crate::controller::{Cluster, Controller, Freshness, Reconciler, Retry, StepError};

/// How long services may take before a hand-over goes on without them.
const SERVICES_WITHIN: Duration = Duration::from_secs(2);

/// The least time between two looks that swarms of devices and addresses give cause to: our own changes do so, too, and those of client networks.
const AT_LEAST_BETWEEN: Duration = Duration::from_millis(100);

/// The floating addresses that the configuration gives to the primary, each where its network's addresses are.
pub fn floating(config: &Config) -> Vec<Placed> {
    let (Some(networks), Some(desired)) = (&config.networks, super::network::desired(config)) else {
        return Vec::new();
    };
    let devices = [&desired.upstream.device, &desired.cluster.device, &desired.storage.device];
    let all = networks.iter().zip(devices).flat_map(|((_, network), device)| {
        let v4 = network.floating_ip.map(IpNet::from);
        let v6 = network.floating_ip6.map(IpNet::from);
        let floating = |cidr| Placed { device: desired.home(device).to_owned(), cidr };
        v4.into_iter().chain(v6).map(floating)
    });
    all.collect()
}

/// The networks that this node lives in.
pub fn own_networks(config: &Config) -> Vec<IpNet> {
    let networks = config.networks.iter().flat_map(|networks| networks.iter().map(|(_, network)| network));
    networks
        .flat_map(|network| {
            let v4 = network.network.map(IpNet::from);
            v4.into_iter().chain(network.network6.map(IpNet::from))
        })
        .collect()
}

/// What no client network may overlap: the networks that this node lives in, and the site's routers.
pub fn nobodys_networks(config: &Config) -> Vec<IpNet> {
    let routers = config.bgp.iter().flat_map(|site| site.routers.iter().copied().map(IpNet::from));
    own_networks(config).into_iter().chain(routers).collect()
}

/// What it stands on.
pub struct Dependencies {
    /// This node, a coordinator, and the state tree.
    pub cluster: Cluster,
    /// The machine's network; `None`: it is not managed, and there are no floating addresses.
    pub links: Option<Arc<dyn Links>>,
    /// The addresses that the primary has, besides client networks' gateways.
    pub floating: Vec<Placed>,
    /// The networks that this node lives in: no gateway of a client network is among them.
    pub own_networks: Vec<IpNet>,
    /// What runs on the primary, in the order in which it starts.
    pub services: Vec<Arc<dyn PrimaryService>>,
}

/// The running reconciler. Dropped, it ends as if it were killed: what is there stays until its lifetime ends.
pub struct Primary {
    reconciler: Arc<PrimaryReconciler>,
    controller: Controller<PrimaryReconciler>,
    _others: JoinSet<()>,
}

impl Primary {
    /// Starts it; returns at once. The node's `daemonstate` should be `run`.
    pub fn start(dependencies: Dependencies) -> Self {
        let store = Arc::clone(&dependencies.cluster.store);
        let has_links = dependencies.links.is_some();
        let addresses = Arc::new(Addresses::new(dependencies.links, dependencies.floating, store));
        let runner = Runner::new(dependencies.services);
        let reconciler = Arc::new(PrimaryReconciler {
            cluster: dependencies.cluster,
            addresses: Arc::clone(&addresses),
            own_networks: dependencies.own_networks,
            services: Arc::clone(&runner),
            memory: Mutex::default(),
            stopping: AtomicBool::new(false),
            out: watch::Sender::new(false),
            tenured: watch::Sender::new(false),
        });
        let mut others = JoinSet::new();
        let mut controller = Controller::start(Arc::clone(&reconciler));
        controller.look_at_swarms(addresses.changes(), AT_LEAST_BETWEEN);
        controller.look_at_changes(runner.troubles());
        others.spawn(addresses.guard());
        others.spawn(runner.run());
        if has_links {
            others.spawn(Arc::clone(&reconciler).write_signs_of_life());
        }
        Self { reconciler, controller, _others: others }
    }

    /// Steps down in order, within so long: services, addresses, key. What is stuck is left behind, except the addresses: they are
    /// removed in any case.
    pub async fn stop(self, within: Duration) {
        let mut out = self.reconciler.out.subscribe();
        self.reconciler.stopping.store(true, Ordering::Relaxed);
        self.controller.poker().poke_all();
        if timeout(within, out.wait_for(|out| *out)).await.is_err() {
            warn!("primary: could not step down in order within {} s", within.as_secs_f32());
        }
        self.abandon().await;
    }

    /// Removes the addresses, says nothing to anybody.
    pub async fn abandon(self) {
        self.controller.stop(Duration::ZERO).await;
        if let Err(error) = self.reconciler.addresses.drop_all().await {
            warn!("{error}; the kernel removes the floating addresses when their lifetime ends");
        }
    }
}

struct PrimaryReconciler {
    cluster: Cluster,
    addresses: Arc<Addresses>,
    own_networks: Vec<IpNet>,
    services: Arc<Runner>,
    memory: Mutex<Memory>,
    stopping: AtomicBool,
    /// It was to stop, and has nothing of a primary any more.
    out: watch::Sender<bool>,
    /// Whether signs of life are needed.
    tenured: watch::Sender<bool>,
}

#[derive(Default)]
struct Memory {
    attempts: Attempts,
    tenure: Option<Tenure>,
    /// What does not work of the addresses, so that it is logged once.
    error: Option<String>,
    /// Why networks have no gateway.
    unserved: Vec<String>,
    /// What does not work though all is done that can be.
    trouble: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tenure {
    epoch: u64,
    zxid: i64,
    /// The view has shown it: from then on it counts only while the view does.
    shown: bool,
}

/// What is known of the primary.
struct Seen {
    view: Arc<ClusterView>,
    view_is_current: bool,
    /// This machine's network; `None`: it is not managed.
    network: Option<HostNetwork>,
    held: Held,
}

#[async_trait]
impl Reconciler for PrimaryReconciler {
    type Facts = Seen;
    type Step = Step;

    const KIND: &'static str = "primary";
    // Less than any time after which addresses have to be renewed.
    const RETRY: Retry = Retry::every(Duration::from_millis(500));

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![Subject::Primary]
    }

    /// Keepalives are no news here.
    fn concerns(&self, changed: &Subject, view: &ClusterView) -> bool {
        match changed {
            Subject::Primary | Subject::Fence(_) | Subject::Network(_) => true,
            Subject::Node(name) => *name == self.cluster.me || view.primary_node.value.as_ref() == Some(name),
            _ => false,
        }
    }

    async fn published(&self) -> Vec<Subject> {
        self.subjects()
    }

    async fn observe(&self, _subject: &Subject, _freshness: Freshness) -> Result<Seen, StepError> {
        if self.memory().tenure.is_some_and(|t| !t.shown) && self.cluster.is_current() {
            self.shown().await;
        }
        let (view, view_is_current) = (self.cluster.view(), self.cluster.is_current());
        if view_is_current {
            let (all, troubles) = gateways(&self.own_networks, &view);
            let floating = |g: Gateways| {
                g.addresses.into_iter().map(move |cidr| Placed { device: g.vni.bridge(), cidr })
            };
            self.addresses.follow(all.into_iter().flat_map(floating).collect());
            self.memory().unserved = troubles.iter().map(ToString::to_string).collect();
        }
        let network = self.addresses.observe().await.map_err(StepError::Failed)?;
        let held = self.addresses.held(network.as_ref()).await;
        Ok(Seen { view, view_is_current, network, held })
    }

    fn plan(&self, _subject: &Subject, seen: &mut Seen) -> Plan<Step> {
        let Seen { view, view_is_current, held, .. } = seen;
        let view_is_current = *view_is_current;
        let now = self.addresses.now();
        let session = self.cluster.epoch();
        let mut memory = self.memory();
        if view_is_current {
            memory.attempts.saw(view, now);
        }
        let shows_me = self.cluster.is_primary(view);
        let lost = |t: Tenure| Some(t.epoch) != session || t.shown && view_is_current && !shows_me;
        if memory.tenure.is_some_and(lost) {
            memory.tenure = None;
            self.tenured.send_replace(false);
            warn!("primary: this node is not primary any more: its session with the state store has ended");
        }
        let mut planned = plan(&Facts {
            me: &self.cluster.me,
            runs: !self.stopping.load(Ordering::Relaxed),
            view,
            view_is_current,
            tenure: memory.tenure.map(|t| t.zxid),
            keep_until: self.addresses.keep_until(),
            held: *held,
            services: self.services.wanted(),
            attempts: &memory.attempts,
            now,
        });
        memory.trouble = None;
        match &mut planned.next {
            Next::Do(_) => {}
            // Moments are on the addresses' clock.
            Next::Wait(until) => {
                memory.error = None;
                *until = until.map(|until| self.cluster.moment(self.addresses.instant(until)));
            }
            Next::Settled => {
                let unserved = || (!memory.unserved.is_empty()).then(|| memory.unserved.join("; "));
                let trouble = self.services.trouble().or_else(|| memory.error.clone()).or_else(unserved);
                memory.trouble = trouble;
                if memory.trouble.is_some() {
                    planned = Plan { next: Next::Wait(None), why: "primary with trouble".to_owned() };
                }
            }
        }
        planned
    }

    async fn apply(&self, _subject: &Subject, step: &Step, seen: &Seen, why: &str) -> Result<(), StepError> {
        match step {
            // What could be done is done; the plan does not wait for what could not.
            Step::Hold => match self.addresses.hold().await {
                Ok(()) => self.memory().error = None,
                Err(error) => self.note(error),
            },
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
            Step::Take { again } => return self.take(*again, seen.network.as_ref(), why).await,
            Step::Release => {
                // Not looked at once more: the kernel has answered for each of them.
                if seen.held.any {
                    info!("primary: dropping the floating addresses: {why}");
                    self.addresses.drop_all().await.map_err(StepError::Failed)?;
                }
                self.cluster.commit(primary::release(&self.cluster.me)).await?;
                let now = self.addresses.now();
                let mut memory = self.memory();
                memory.tenure = None;
                memory.attempts.stepped_down(now);
                self.tenured.send_replace(false);
                info!("primary: this node has stepped down: {why}");
            }
            Step::Discharge(node) => {
                let Some(dead) = seen.view.node(node) else {
                    return Err(StepError::Conflict(format!("{node} is not there")));
                };
                self.cluster.commit(primary::discharge(dead)).await?;
                info!("primary: {node} is discharged: {why}");
            }
            Step::Answer => {
                let desired = primary::desired(&seen.view.primary_node, Some(&self.cluster.me));
                self.cluster.commit(desired).await?;
                info!("primary: answered {}: {why}", self.cluster.me);
            }
            Step::Say(state) => {
                self.cluster.commit(node::set_router_state(&self.cluster.me, *state)).await?;
                if *state == RouterState::Primary {
                    info!("primary: this node is primary coordinator");
                }
            }
        }
        Ok(())
    }

    /// While addresses are held, their lifetime is to be renewed.
    async fn rest(&self, _subject: &Subject, _seen: &Seen, _settled: bool) -> Option<Instant> {
        let is_tenured = self.memory().tenure.is_some();
        if self.stopping.load(Ordering::Relaxed) && !is_tenured && !self.services.wanted() {
            self.out.send_replace(true);
        }
        let holds = self.addresses.any() && is_tenured;
        holds.then(|| Instant::now() + write_every(self.cluster.store.session_timeout()))
    }

    fn doing(&self, _subject: &Subject, _seen: &Seen) -> String {
        "primary coordinator".to_owned()
    }

    fn trouble(&self, _subject: &Subject) -> Option<String> {
        self.memory().trouble.clone()
    }

    fn speaks(&self, _subject: &Subject) -> bool {
        let desired = self.cluster.view().primary_node.value.as_ref() == Some(&self.cluster.me);
        desired || self.memory().tenure.is_some()
    }
}

impl PrimaryReconciler {
    /// While this node is primary its writes are what its addresses live from. Waits for nothing but the store, and for that not longer
    /// than a connection lasts: what is sent after a write that hangs would be answered after it.
    async fn write_signs_of_life(self: Arc<Self>) {
        let store = &self.cluster.store;
        let mut tenured = self.tenured.subscribe();
        loop {
            // The sender lives as long as `self`.
            let _ = tenured.wait_for(|tenured| *tenured).await;
            let next = Instant::now() + write_every(store.session_timeout());
            if !self.addresses.any() {
                sleep_until(next).await;
                continue;
            }
            let sign = if sabotage::commits(Bug::ReadsFeedPrimary) {
                store.get(primary::HOLDER).await.map(drop)
            } else {
                store.sync().await
            };
            if let Err(error) = sign {
                debug!(%error, "the state store has not taken a sign of life");
            }
            sleep_until(next).await;
        }
    }

    /// Waits until the view shows the tenure.
    async fn shown(&self) {
        if self.cluster.catch_up().await.is_ok()
            && let Some(tenure) = &mut self.memory().tenure
        {
            tenure.shown = true;
        }
    }

    /// Takes the key and, before anything else, the addresses: the cluster is without them now.
    async fn take(&self, again: bool, network: Option<&HostNetwork>, why: &str) -> Result<(), StepError> {
        let began = Instant::now();
        let Some(epoch) = self.cluster.epoch() else {
            return Err(StepError::Conflict("there is no session".to_owned()));
        };
        let committed = self.cluster.store.commit(primary::take(&self.cluster.me, again)).await?;
        self.memory().tenure = Some(Tenure { epoch, zxid: committed.zxid, shown: false });
        self.tenured.send_replace(true);
        let held = if sabotage::commits(Bug::SayPrimaryFirst) {
            Ok(())
        } else {
            self.addresses.hold_at_once(network).await
        };
        info!("primary: this node takes over after {} ms: {why}", began.elapsed().as_millis());
        self.shown().await;
        // The plan sees what is missing, and goes on.
        if let Err(error) = held {
            self.note(error);
        }
        Ok(())
    }

    /// Logs an error if it is news.
    fn note(&self, error: String) {
        let mut memory = self.memory();
        if memory.error.as_ref() != Some(&error) {
            warn!("primary: {error}; trying again");
            memory.error = Some(error);
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
