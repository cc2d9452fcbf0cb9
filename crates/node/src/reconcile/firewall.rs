//! Keeps this node's tables as the client networks, their rules and the cluster's nodes are: with every change of either, and whenever somebody
//! else has changed a table.
//!
//! Decides nothing itself (see `pvc_core::plan::firewall`). A daemon that stops leaves the walls standing: guests outlive it.

mod figures;
mod own_files;
mod publish;
mod rules;
mod senders;
mod standing;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use pvc_config::Config;
use pvc_core::{
    model::{ClusterView, Subject, Trouble, bridging::Bridging, rule::Body},
    plan::{
        Next, Plan,
        firewall::{Ground, Known, Rules, Ruleset, plan},
    },
};
use pvc_host::{
    firewall::{Firewall, OwnFile},
    links::Bridges,
};
use tokio::{
    select,
    sync::Notify,
    time::{Instant, sleep},
};
use tracing::{debug, warn};

use self::{
    publish::Published,
    rules::{Tried, Written},
    senders::Given,
    standing::{Listed, Made, Standing},
};
use super::{client_network::cards::Definitions, per_network::PerNetwork, primary::own_networks};
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
    Some(Ground { closed: v4.chain(v6).collect(), own: own_networks(config) })
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
        definitions: Arc<Definitions>,
        ground: Ground,
        teller: Teller,
    ) -> Self {
        let (mut tables, mut devices) = (firewall.changes(), bridges.changes());
        let reconciler = Arc::new(WallReconciler {
            written: PerNetwork::new(Arc::clone(&cluster.store)),
            tried: Tried::default(),
            given: PerNetwork::new(Arc::clone(&cluster.store)),
            definitions,
            subject: Subject::Node(cluster.me.clone()),
            cluster,
            firewall,
            bridges,
            ground,
            standing: Standing::default(),
            teller,
            own_files: own_files::Imported::default(),
            published: Published::default(),
            figures: figures::Figures::default(),
        });
        let mut controller = Controller::start(Arc::clone(&reconciler));
        let poker = controller.poker();
        // Leases come in swarms, and all of a network's are read.
        let (leased, given) = (Arc::new(Notify::new()), Arc::clone(&reconciler));
        let walls = Arc::clone(&reconciler);
        let tells = Arc::clone(&leased);
        controller.spawn(async move { given.given.follow(|| tells.notify_one()).await });
        controller.spawn(async move {
            // Without a sender the safety net alone counts.
            loop {
                let is_news = select! {
                    biased;
                    told = tables.changed() => told.map(|()| false),
                    told = devices.changed() => told.map(|()| true),
                    () = leased.notified() => Ok(true),
                };
                let Ok(is_news) = is_news else { return };
                // Tables change by us as a rule.
                if is_news || !walls.standing.is_untouched(&*walls.firewall).await {
                    poker.poke_all();
                    sleep(AT_LEAST_BETWEEN).await;
                }
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
    given: PerNetwork<Given>,
    definitions: Arc<Definitions>,
    /// What was made last.
    standing: Standing,
    teller: Teller,
    own_files: own_files::Imported,
    /// What was told last of what the rules count.
    published: Published,
    figures: figures::Figures,
}

/// What is planned from.
struct Facts {
    view: Arc<ClusterView>,
    rules: Rules,
    refused: BTreeMap<Body, String>,
    seen: Bridging,
    known: Known,
    stands: Option<Arc<Ruleset>>,
    own_files: Vec<OwnFile>,
}

#[derive(Debug)]
enum Step {
    /// The first is to stand, made from the second; `None`: whatever stands is not ours.
    Make(Arc<Ruleset>, Option<Arc<Ruleset>>),
    /// The text of an operator's file.
    Import(String),
}

impl WallReconciler {
    async fn make(&self, ruleset: &Arc<Ruleset>, from: Option<&Ruleset>) -> Result<(), StepError> {
        let made = self.standing.make(&*self.firewall, ruleset, from).await;
        let made = made.map_err(|error| StepError::Failed(chain(&error)))?;
        if from.is_none() {
            // Whoever took ours away may have taken an operator's, too.
            self.own_files.forget();
        }
        match made {
            Made::Stands => Ok(()),
            Made::Mended => {
                warn!("firewall: another program had changed our tables: they are as they were");
                Ok(())
            }
            Made::Disturbed => {
                Err(StepError::Later("another program changes our tables at the same time".to_owned()))
            }
        }
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
        let known = senders::known(&self.given, &self.definitions, &view, &seen).await?;
        let stands = self.standing.look(&*self.firewall).await.map_err(|e| failed(&e))?;
        let own_files = self.firewall.own_files();
        Ok(Facts { view, rules, refused, seen, known, stands, own_files })
    }

    fn plan(&self, _subject: &Subject, facts: &mut Facts) -> Plan<Step> {
        let planned =
            plan(&self.ground, &facts.view, &facts.rules, &facts.seen, &facts.known, &facts.refused);
        let troubles = self.own_files.troubles(&facts.own_files);
        self.teller.plans(planned.troubles.into_iter().chain(troubles));
        let next = match &facts.stands {
            Some(ruleset) if **ruleset == planned.ruleset => self
                .own_files
                .next(&facts.own_files)
                .map_or(Next::Settled, |text| Next::Do(Step::Import(text))),
            from => Next::Do(Step::Make(Arc::new(planned.ruleset), from.clone())),
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
        match step {
            Step::Make(ruleset, from) => self.make(ruleset, from.as_deref()).await,
            Step::Import(text) => {
                let imported = self.own_files.import(&*self.firewall, &self.standing, text).await;
                imported.map_err(|error| StepError::Failed(chain(&error)))
            }
        }
    }

    fn failed(&self, _subject: &Subject, error: &str) {
        let what = format!("the firewall cannot be brought up to date, and stands as it stood: {error}");
        self.teller.failed([Trouble::of_all(what)]);
    }

    /// Packets are routed by the primary: what its rules count is what counts.
    async fn rest(&self, _subject: &Subject, facts: &Facts, settled: bool) -> Option<Instant> {
        self.teller.works();
        let ruleset = facts.stands.as_ref().filter(|_| settled)?;
        let listing = match self.standing.list_if_due(&*self.firewall).await {
            Ok(Listed::Ours(listing)) => listing,
            Ok(Listed::Spoilt) => return Some(Instant::now()),
            Ok(Listed::At(then)) => return Some(then),
            Err(error) => {
                debug!("what the firewall counts is not known: {}", chain(&error));
                return None;
            }
        };
        self.figures.tell(&listing);
        if self.cluster.is_primary(&facts.view)
            && let Err(error) = self.published.publish(&*self.cluster.store, ruleset, &listing).await
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
