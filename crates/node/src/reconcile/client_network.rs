//! Makes this node's bridges and tunnels as the client networks, and where their guests are: with every change of either, and of the devices.
//!
//! Decides nothing itself (see `pvc_core::plan::client_network`). A daemon that stops leaves all of it: guests outlive it.

mod cards;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pvc_config::Config;
use pvc_core::{
    model::{
        ClusterView, Subject,
        bridging::{Bridging, BridgingChange},
    },
    plan::{
        Next, Plan,
        client_network::{Batch, Cards, Ground, plan},
    },
};
use pvc_host::links::Bridges;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use self::cards::Definitions;
use super::network;
use crate::{
    controller::{Cluster, Controller, Freshness, Reconciler, Retry, StepError},
    log::chain,
};

/// The least time between two looks that devices give cause to: our own changes do so, too.
const AT_LEAST_BETWEEN: Duration = Duration::from_millis(100);

/// So many failures are told at once.
const TOLD: usize = 3;

/// This node's side, by its configuration; `None` on a node whose networks are not managed.
pub fn ground(config: &Config) -> Option<Ground> {
    let cluster = network::desired(config)?.cluster;
    let address = cluster.address.map(|cidr| cidr.addr());
    Some(Ground { me: config.node.clone(), uplink: cluster.device, mtu: cluster.mtu, address })
}

/// Where this node's tunnels end, if it has any.
pub fn vtep(config: &Config) -> Option<IpAddr> {
    ground(config)?.address
}

/// Keeps them so. It ends when this is dropped.
pub struct ClientNetworks {
    _controller: Controller<ClientNetworkReconciler>,
}

impl ClientNetworks {
    /// Starts it; returns at once.
    pub fn start(cluster: Cluster, bridges: Arc<dyn Bridges>, ground: Ground) -> Self {
        let mut changes = bridges.changes();
        let reconciler = Arc::new(ClientNetworkReconciler {
            subject: Subject::Node(ground.me.clone()),
            definitions: Definitions::new(Arc::clone(&cluster.store)),
            cluster,
            bridges,
            ground,
            has_tunnels: AtomicBool::new(false),
            told: Mutex::default(),
        });
        let mut controller = Controller::start(reconciler);
        let poker = controller.poker();
        controller.spawn(async move {
            // Without the sender the safety net alone counts.
            while changes.changed().await.is_ok() {
                poker.poke_all();
                sleep(AT_LEAST_BETWEEN).await;
            }
        });
        Self { _controller: controller }
    }
}

struct ClientNetworkReconciler {
    subject: Subject,
    cluster: Cluster,
    bridges: Arc<dyn Bridges>,
    ground: Ground,
    definitions: Definitions,
    /// Whether there were tunnels when it was looked last.
    has_tunnels: AtomicBool,
    /// The troubles that were told last.
    told: Mutex<Vec<String>>,
}

/// What a batch is planned from.
struct Facts {
    view: Arc<ClusterView>,
    cards: Cards,
    seen: Bridging,
}

impl ClientNetworkReconciler {
    /// Says what cannot be as desired when that is news: it is looked at often.
    fn tell(&self, troubles: Vec<String>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for trouble in troubles.iter().filter(|trouble| !told.contains(trouble)) {
            warn!("client networks: {trouble}");
        }
        if troubles.is_empty() && !told.is_empty() {
            info!("client networks: all can be as desired again");
        }
        *told = troubles;
    }
}

#[async_trait]
impl Reconciler for ClientNetworkReconciler {
    type Facts = Facts;
    type Step = Batch;

    const KIND: &'static str = "client-network";
    const RETRY: Retry = Retry::every(Duration::from_secs(10));

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![self.subject.clone()]
    }

    fn concerns(&self, changed: &Subject, view: &ClusterView) -> bool {
        match changed {
            Subject::Network(_) | Subject::Cluster => true,
            // A network that has been deleted under its guests is there without being in the view.
            Subject::Vm(_) | Subject::Node(_) => {
                !view.networks.is_empty() || self.has_tunnels.load(Ordering::Relaxed)
            }
            _ => false,
        }
    }

    async fn observe(&self, _subject: &Subject, _freshness: Freshness) -> Result<Facts, StepError> {
        let view = self.cluster.view();
        let seen = self.bridges.observe().await.map_err(|error| StepError::Failed(chain(&error)))?;
        self.has_tunnels.store(seen.has_tunnels(), Ordering::Relaxed);
        let cards = if view.networks.is_empty() && !seen.has_tunnels() {
            Cards::default()
        } else {
            self.definitions.cards(&view).await?
        };
        Ok(Facts { view, cards, seen })
    }

    fn plan(&self, _subject: &Subject, facts: &mut Facts) -> Plan<Batch> {
        let planned = plan(&self.ground, &facts.view, &facts.cards, &facts.seen);
        let why = planned.troubles.join("; ");
        self.tell(planned.troubles);
        let next = if !planned.batch.is_empty() {
            Next::Do(planned.batch)
        } else if why.is_empty() {
            Next::Settled
        } else {
            Next::Wait(None)
        };
        Plan { next, why }
    }

    async fn apply(
        &self,
        _subject: &Subject,
        batch: &Batch,
        _facts: &Facts,
        _why: &str,
    ) -> Result<(), StepError> {
        let changes: Vec<BridgingChange> = batch.iter().map(|(change, _)| change.clone()).collect();
        let mut failures = Vec::new();
        for ((change, why), outcome) in batch.iter().zip(self.bridges.apply(&changes).await) {
            let is_entry = matches!(change, BridgingChange::Forward(_) | BridgingChange::Unforward(_));
            match outcome {
                Err(error) => failures.push(chain(&error)),
                // As many as there are guests.
                Ok(()) if is_entry => debug!("client networks: {change}: {why}"),
                Ok(()) => info!("client networks: {change}: {why}"),
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        let more = failures.len().saturating_sub(TOLD);
        failures.truncate(TOLD);
        if more > 0 {
            failures.push(format!("and {more} more"));
        }
        let failures = failures.join("; ");
        warn!("client networks: {failures}; trying again");
        Err(StepError::Failed(failures))
    }

    /// The node's own status says other things.
    fn speaks(&self, _subject: &Subject) -> bool {
        false
    }
}
