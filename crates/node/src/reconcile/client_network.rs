//! Makes this node's bridges and tunnels as the client networks, and where their guests are: with every change of either, and of the devices.
//!
//! Decides nothing itself (see `pvc_core::plan::client_network`). A daemon that stops leaves all of it: guests outlive it.

pub(super) mod cards;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pvc_config::Config;
use pvc_core::{
    model::{
        ClusterView, Subject, Trouble,
        bridging::{Bridging, BridgingChange},
    },
    plan::{
        Next, Plan,
        client_network::{Batch, Cards, Ground, network_of, plan},
    },
};
use pvc_host::links::Bridges;
use tokio::time::Instant;
use tracing::{debug, info};

pub use self::cards::Definitions;
use super::network;
use crate::{
    controller::{Cluster, Controller, Freshness, Reconciler, Retry, StepError},
    log::chain,
    metrics,
    network_troubles::Teller,
};

/// The least time between two looks that devices give cause to: our own changes do so, too.
const AT_LEAST_BETWEEN: Duration = Duration::from_millis(100);

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
    pub fn start(
        cluster: Cluster,
        bridges: Arc<dyn Bridges>,
        definitions: Arc<Definitions>,
        ground: Ground,
        teller: Teller,
    ) -> Self {
        // Without the sender the safety net alone counts.
        let changes = bridges.changes();
        let reconciler = Arc::new(ClientNetworkReconciler {
            subject: Subject::Node(ground.me.clone()),
            definitions,
            cluster,
            bridges,
            ground,
            has_tunnels: AtomicBool::new(false),
            teller,
        });
        let mut controller = Controller::start(reconciler);
        controller.look_at_swarms(changes, AT_LEAST_BETWEEN);
        Self { _controller: controller }
    }
}

struct ClientNetworkReconciler {
    subject: Subject,
    cluster: Cluster,
    bridges: Arc<dyn Bridges>,
    ground: Ground,
    definitions: Arc<Definitions>,
    /// Whether there were tunnels when it was looked last.
    has_tunnels: AtomicBool,
    teller: Teller,
}

/// What a batch is planned from.
struct Facts {
    view: Arc<ClusterView>,
    cards: Cards,
    seen: Bridging,
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
        let seen = self.bridges.observe().await.map_err(|error| {
            let error = chain(&error);
            self.teller
                .failed([Trouble::of_all(format!("bridges and tunnels cannot be looked at: {error}"))]);
            StepError::Failed(error)
        })?;
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
        self.teller.plans(planned.troubles);
        let next = if planned.batch.is_empty() { Next::Settled } else { Next::Do(planned.batch) };
        Plan { next, why: String::new() }
    }

    async fn apply(
        &self,
        _subject: &Subject,
        batch: &Batch,
        _facts: &Facts,
        _why: &str,
    ) -> Result<(), StepError> {
        let changes: Vec<BridgingChange> = batch.iter().map(|(change, _)| change.clone()).collect();
        let mut failures = BTreeMap::new();
        for ((change, why), outcome) in batch.iter().zip(self.bridges.apply(&changes).await) {
            let is_entry = matches!(change, BridgingChange::Forward(_) | BridgingChange::Unforward(_));
            match outcome {
                // What fails first on a device has the others fail.
                Err(error) => {
                    let network = network_of(change.device());
                    let trouble = || Trouble { network, ..Trouble::of_all(chain(&error)) };
                    failures.entry(change.device()).or_insert_with(trouble);
                }
                // As many as there are guests.
                Ok(()) if is_entry => debug!("client networks: {change}: {why}"),
                Ok(()) => info!("client networks: {change}: {why}"),
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        let count = failures.len();
        self.teller.failed(failures.into_values());
        Err(StepError::Failed(format!("{count} bridges or tunnels cannot be as desired")))
    }

    async fn rest(&self, _subject: &Subject, facts: &Facts, _settled: bool) -> Option<Instant> {
        let seen = &facts.seen;
        metrics::forwards(seen.forwards.len(), seen.learnt.len(), seen.routed.len());
        self.teller.works();
        None
    }

    /// The node's own status says other things.
    fn speaks(&self, _subject: &Subject) -> bool {
        false
    }
}
