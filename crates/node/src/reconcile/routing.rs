//! Keeps this node's routing daemon told whom it speaks with, where the cluster's overlay is EVPN or the site's routers are told of client networks,
//! and tells what keeps it from that.
//!
//! Decides nothing itself (see `pvc_core::plan::routing`). A daemon that stops leaves all of it: FRR is a service of the machine.

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_config::Config;
use pvc_core::{
    model::{ClusterView, Subject, Trouble},
    plan::{
        Next, Plan,
        routing::{Bfd, Ground, Routing, Seen, Speaking, is_asked, plan},
    },
};
use pvc_host::routing::{RoutingDaemon, RoutingError};
use tokio::time::Instant;
use tracing::info;

use super::{client_network, primary};
use crate::{
    controller::{Cluster, Controller, Freshness, Reconciler, Retry, StepError},
    log::chain,
    metrics,
    network_troubles::Teller,
};

/// How often it is asked what it does: it tells nobody by itself.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// This node's side, by its configuration; `None` on a node whose networks are not managed.
pub fn ground(config: &Config) -> Option<Ground> {
    let ground = client_network::ground(config)?;
    // Others are never the gateway of a network.
    let site = config.bgp.clone().filter(|_| config.is_coordinator());
    Some(Ground {
        me: ground.me,
        address: ground.address,
        site,
        own_networks: primary::nobodys_networks(config),
    })
}

/// Keeps it so. It ends when this is dropped.
pub struct RoutingNeighbours {
    _controller: Controller<RoutingReconciler>,
}

impl RoutingNeighbours {
    /// Starts it; returns at once.
    pub fn start(cluster: Cluster, daemon: Arc<dyn RoutingDaemon>, ground: Ground, teller: Teller) -> Self {
        let reconciler = Arc::new(RoutingReconciler {
            subject: Subject::Node(ground.me.clone()),
            cluster,
            daemon,
            ground,
            known: Mutex::default(),
            teller,
        });
        Self { _controller: Controller::start(reconciler) }
    }
}

/// What is remembered.
#[derive(Default)]
struct Known {
    /// What it was told last, as a text; `None`: nobody knows.
    told: Option<String>,
    /// What was desired when it was looked last.
    desired: Routing,
}

struct RoutingReconciler {
    subject: Subject,
    cluster: Cluster,
    daemon: Arc<dyn RoutingDaemon>,
    ground: Ground,
    known: Mutex<Known>,
    teller: Teller,
}

/// What is planned from.
struct Facts {
    view: Arc<ClusterView>,
    seen: Seen,
}

impl RoutingReconciler {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn see(&self, view: &ClusterView) -> Result<Seen, RoutingError> {
        let Some(file) = self.daemon.file().await? else { return Ok(Seen::Absent) };
        let speaking =
            if is_asked(&self.ground, view, &file) { Some(self.daemon.speaking().await?) } else { None };
        let is_watched = self.ground.site.as_ref().is_some_and(|site| site.bfd);
        let bfd = match speaking {
            // One that hangs or says what nobody understands keeps nothing else from being seen.
            Some(Speaking::As { .. }) if is_watched => {
                Some(self.daemon.bfd().await.unwrap_or_else(|error| Bfd::Gone(chain(&error))))
            }
            _ => None,
        };
        Ok(Seen::Installed { file, speaking, told: self.known().told.clone(), bfd })
    }
}

#[async_trait]
impl Reconciler for RoutingReconciler {
    type Facts = Facts;
    type Step = Routing;

    const KIND: &'static str = "routing";
    const RETRY: Retry = Retry::every(Duration::from_secs(10));

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![self.subject.clone()]
    }

    /// Nodes change with each of their keepalives, and asking costs a program.
    fn concerns(&self, changed: &Subject, view: &ClusterView) -> bool {
        match changed {
            Subject::Network(_) if self.ground.site.is_none() => false,
            Subject::Cluster | Subject::Node(_) | Subject::Network(_) => {
                Routing::desired(&self.ground, view) != self.known().desired
            }
            _ => false,
        }
    }

    async fn observe(&self, _subject: &Subject, _freshness: Freshness) -> Result<Facts, StepError> {
        let view = self.cluster.view();
        self.known().desired = Routing::desired(&self.ground, &view);
        let seen = self.see(&view).await.map_err(|error| StepError::Failed(chain(&error)))?;
        Ok(Facts { view, seen })
    }

    fn plan(&self, _subject: &Subject, facts: &mut Facts) -> Plan<Routing> {
        let planned = plan(&self.ground, &facts.view, &facts.seen);
        self.teller.plans(planned.troubles);
        metrics::routing(planned.counted);
        match planned.load {
            Some((routing, why)) => Plan { next: Next::Do(routing), why: why.to_owned() },
            None => Plan { next: Next::Settled, why: String::new() },
        }
    }

    async fn apply(
        &self,
        _subject: &Subject,
        routing: &Routing,
        _facts: &Facts,
        why: &str,
    ) -> Result<(), StepError> {
        // Until it has said that it took it, nobody knows.
        self.known().told = None;
        let speaker = routing.speaker.as_ref();
        let (nodes, routers) = speaker.map_or((0, 0), |s| (s.nodes().count(), s.routers().count()));
        let networks = speaker.and_then(|s| s.site.as_ref()).map_or(0, |site| site.prefixes.len());
        info!(
            "routing: FRR is told to speak with {nodes} nodes, and with {routers} routers of {networks} networks: {why}"
        );
        let failed = |error: RoutingError| StepError::Failed(chain(&error));
        self.daemon.load(routing).await.map_err(failed)?;
        let speaking = self.daemon.speaking().await.map_err(failed)?;
        // One that is started reads its file.
        if !matches!(speaking, Speaking::Gone(_)) && !routing.is_so(&speaking) {
            return Err(StepError::Failed("it does not do as it was told".to_owned()));
        }
        self.known().told = Some(routing.to_string());
        Ok(())
    }

    fn failed(&self, _subject: &Subject, error: &str) {
        self.teller.failed([Trouble::of_all(format!("FRR cannot be brought up to date: {error}"))]);
    }

    async fn rest(&self, _subject: &Subject, facts: &Facts, _settled: bool) -> Option<Instant> {
        self.teller.works();
        let is_asked = matches!(facts.seen, Seen::Installed { speaking: Some(_), .. });
        is_asked.then(|| Instant::now() + ASK_EVERY)
    }

    /// The node's own status says other things.
    fn speaks(&self, _subject: &Subject) -> bool {
        false
    }
}
