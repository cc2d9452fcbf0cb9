//! Keeps this node's tables as the client networks, their rules and the cluster's nodes are: with every change of either, and whenever somebody
//! else has changed a table.
//!
//! Decides nothing itself (see `pvc_core::plan::firewall`). A daemon that stops leaves the walls standing: guests outlive it.

mod own_files;
mod publish;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_config::Config;
use pvc_core::{
    model::{ClusterView, Subject, Trouble, bridging::Bridging, rule::Body},
    plan::{
        Next, Plan,
        firewall::{Ground, Rules, Ruleset, plan},
    },
};
use pvc_host::{
    firewall::{Firewall, FirewallError, Listing, OwnFile},
    links::Bridges,
};
use tokio::{
    select,
    time::{Instant, sleep},
};
use tracing::{debug, warn};

use self::{
    publish::Published,
    rules::{Tried, Written},
};
use super::per_network::PerNetwork;
use crate::{
    controller::{Cluster, Controller, Freshness, Reconciler, Retry, StepError},
    log::chain,
    network_troubles::Teller,
};

/// The least time between two looks that others give cause to: our own changes do so, too.
const AT_LEAST_BETWEEN: Duration = Duration::from_millis(100);

/// Where no packet of a client is routed, by this node's configuration.
pub fn ground(config: &Config) -> Option<Ground> {
    let networks = config.networks.as_ref()?;
    let closed = [&networks.cluster, &networks.storage];
    let v4 = closed.iter().filter_map(|network| network.network.map(Into::into));
    let v6 = closed.iter().filter_map(|network| network.network6.map(Into::into));
    Some(Ground { closed: v4.chain(v6).collect() })
}

/// Keeps them so. It ends when this is dropped.
pub struct Walls {
    _controller: Controller<WallReconciler>,
}

impl Walls {
    /// Starts it; returns at once.
    pub fn start(
        cluster: Cluster,
        firewall: Arc<dyn Firewall>,
        bridges: Arc<dyn Bridges>,
        ground: Ground,
        teller: Teller,
    ) -> Self {
        let (mut tables, mut devices) = (firewall.changes(), bridges.changes());
        let reconciler = Arc::new(WallReconciler {
            written: PerNetwork::new(Arc::clone(&cluster.store)),
            tried: Tried::default(),
            subject: Subject::Node(cluster.me.clone()),
            cluster,
            firewall,
            bridges,
            ground,
            loaded: Mutex::default(),
            teller,
            own_files: own_files::Imported::default(),
            published: Published::default(),
        });
        let mut controller = Controller::start(Arc::clone(&reconciler));
        let poker = controller.poker();
        controller.spawn(async move {
            // Without a sender the safety net alone counts.
            while select! { told = tables.changed() => told.is_ok(), told = devices.changed() => told.is_ok() } {
                poker.poke_all();
                sleep(AT_LEAST_BETWEEN).await;
            }
        });
        let poker = controller.poker();
        controller.spawn(async move { reconciler.written.follow(|| poker.poke_all()).await });
        Self { _controller: controller }
    }
}

struct WallReconciler {
    subject: Subject,
    cluster: Cluster,
    firewall: Arc<dyn Firewall>,
    bridges: Arc<dyn Bridges>,
    ground: Ground,
    written: PerNetwork<Written>,
    tried: Tried,
    /// What was loaded last, and how it was listed then. Whoever finds another listing finds somebody else's work.
    loaded: Mutex<Option<(Ruleset, Standing)>>,
    teller: Teller,
    own_files: own_files::Imported,
    /// What was told last of what the rules count.
    published: Published,
}

type Standing = BTreeMap<String, String>;

/// What is planned from.
struct Facts {
    view: Arc<ClusterView>,
    rules: Rules,
    refused: BTreeMap<Body, String>,
    seen: Bridging,
    listing: Option<Listing>,
    own_files: Vec<OwnFile>,
}

#[derive(Debug)]
enum Step {
    /// The first is to stand, made from the second; `None`: whatever stands is not ours.
    Make(Box<(Ruleset, Option<Ruleset>)>),
    /// The text of an operator's file.
    Import(String),
}

impl WallReconciler {
    fn loaded(&self) -> MutexGuard<'_, Option<(Ruleset, Standing)>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn make(&self, ruleset: &Ruleset, from: Option<&Ruleset>) -> Result<(), FirewallError> {
        // Until it is known what stands, nothing of it is.
        let known = self.loaded().take();
        match from {
            Some(before) => self.firewall.change(before, ruleset).await?,
            None => {
                self.firewall.load(ruleset).await?;
                // Whoever took ours away may have taken an operator's, too.
                self.own_files.forget();
                if known.is_some() {
                    warn!("firewall: another program had changed our tables: they are as they were");
                }
            }
        }
        let standing = self.firewall.listing().await?.map(|listing| listing.standing);
        *self.loaded() = standing.map(|standing| (ruleset.clone(), standing));
        Ok(())
    }
}

#[async_trait]
impl Reconciler for WallReconciler {
    type Facts = Facts;
    type Step = Step;

    const KIND: &'static str = "firewall";
    const RETRY: Retry = Retry { first: Duration::from_secs(1), longest: Duration::from_secs(10) };

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![self.subject.clone()]
    }

    fn concerns(&self, changed: &Subject, _view: &ClusterView) -> bool {
        matches!(changed, Subject::Network(_) | Subject::Node(_))
    }

    async fn observe(&self, _subject: &Subject, _freshness: Freshness) -> Result<Facts, StepError> {
        let failed = |error: &dyn std::error::Error| StepError::Failed(chain(error));
        let view = self.cluster.view();
        let rules = self.written.of(&view, Rules::clone).await?;
        let refused = self.tried.refused(&*self.firewall, &rules).await.map_err(|e| failed(&e))?;
        let seen = self.bridges.observe().await.map_err(|e| failed(&e))?;
        let listing = self.firewall.listing().await.map_err(|e| failed(&e))?;
        let own_files = self.firewall.own_files();
        Ok(Facts { view, rules, refused, seen, listing, own_files })
    }

    fn plan(&self, _subject: &Subject, facts: &mut Facts) -> Plan<Step> {
        let planned = plan(&self.ground, &facts.view, &facts.rules, &facts.seen, &facts.refused);
        let troubles = self.own_files.troubles(&facts.own_files);
        self.teller.plans(planned.troubles.into_iter().chain(troubles));
        let loaded = self.loaded();
        let standing = facts.listing.as_ref().map(|listing| &listing.standing);
        let from = loaded.as_ref().filter(|(_, listed)| standing == Some(listed)).map(|(ruleset, _)| ruleset);
        let next = match from {
            Some(ruleset) if *ruleset == planned.ruleset => self
                .own_files
                .next(&facts.own_files)
                .map_or(Next::Settled, |text| Next::Do(Step::Import(text))),
            from => Next::Do(Step::Make(Box::new((planned.ruleset, from.cloned())))),
        };
        Plan { next, why: String::new() }
    }

    async fn apply(
        &self,
        _subject: &Subject,
        step: &Step,
        _facts: &Facts,
        _why: &str,
    ) -> Result<(), StepError> {
        let done = match step {
            Step::Make(step) => self.make(&step.0, step.1.as_ref()).await,
            Step::Import(text) => {
                let ours = self.loaded().as_ref().map(|(_, standing)| standing.clone());
                self.own_files.import(&*self.firewall, text, ours.as_ref()).await
            }
        };
        done.map_err(|error| StepError::Failed(chain(&error)))
    }

    fn failed(&self, _subject: &Subject, error: &str) {
        let what = format!("the firewall cannot be brought up to date, and stands as it stood: {error}");
        self.teller.failed([Trouble::of_all(what)]);
    }

    /// Packets are routed by the primary: what its rules count is what counts.
    async fn rest(&self, _subject: &Subject, facts: &Facts, settled: bool) -> Option<Instant> {
        self.teller.works();
        let standing = self.loaded().as_ref().map(|(ruleset, _)| ruleset.clone());
        let (Some(ruleset), Some(listing)) = (standing, &facts.listing) else { return None };
        if settled
            && self.cluster.is_primary(&facts.view)
            && let Err(error) = self.published.publish(&*self.cluster.store, &ruleset, listing).await
        {
            debug!("what the rules count was not published: {error}");
        }
        None
    }

    /// The node's own status says other things.
    fn speaks(&self, _subject: &Subject) -> bool {
        false
    }
}
