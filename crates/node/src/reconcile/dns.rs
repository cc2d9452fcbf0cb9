//! While this node is primary: keeps the DNS aggregator's zones as the client networks and their guests are, with every change of either. On every
//! coordinator: has PowerDNS run, so that a hand-over moves an address and starts no server.
//!
//! Decides nothing itself (see `pvc_core::plan::dns`). Nothing waits for it: while the database is away, names stay as they were, and are
//! caught up with afterwards.

mod guests;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_config::{Config, DnsDatabase};
use pvc_core::{
    model::{ClusterView, Network, Subject, Trouble, dns::ZoneChange},
    plan::{
        Next, Plan,
        dns::{Named, Seen, plan},
    },
};
use pvc_host::{
    programs::{Identity, Kept, ProgramState, Programs, Spec},
    zones::{Address, ZoneDatabase, ZonesError, pdns},
};
use tokio::time::Instant;
use tracing::{debug, warn};

use self::guests::Guests;
use super::{per_network::PerNetwork, primary};
use crate::{
    controller::{Cluster, Controller, Freshness, Reconciler, Retry, StepError},
    log::chain,
    metrics,
    network_troubles::Teller,
};

/// Where names are asked for.
const PORT: u16 = 53;

/// Below `dynamic_directory`.
const FOLDER: &str = "pdns";

/// The database of a configuration.
pub fn address(database: &DnsDatabase) -> Address<'_> {
    Address {
        host: &database.host,
        port: database.port,
        name: &database.name,
        user: &database.user,
        password: database.pass.reveal(),
    }
}

/// What PowerDNS is told.
pub struct Server {
    folder: PathBuf,
    settings: String,
}

impl Server {
    /// By the configuration; `None` where there are no floating addresses to answer on.
    ///
    /// # Errors
    /// If the configuration has a word that PowerDNS cannot be told.
    pub fn new(config: &Config) -> Result<Option<Self>, pdns::Unsayable> {
        let listen: Vec<IpAddr> =
            primary::floating(config).iter().map(|floating| floating.cidr.addr()).collect();
        let Some(database) = config.dns_database.as_ref().filter(|_| !listen.is_empty()) else {
            return Ok(None);
        };
        let folder = config.directories.dynamic.join(FOLDER);
        let settings = pdns::settings(&address(database), &listen, PORT, &folder)?;
        Ok(Some(Self { folder, settings }))
    }

    /// Has it run from now on.
    fn run(&self, programs: &dyn Programs) -> std::io::Result<Kept> {
        pdns::write(&self.folder, &self.settings)?;
        Ok(programs.run(Spec {
            name: "pdns".into(),
            program: pdns::PROGRAM.into(),
            arguments: vec![format!("--config-dir={}", self.folder.display())],
            // It listens on a low port.
            environment: Vec::new(),
            identity: Some(Identity {
                user: pdns::USER,
                group: pdns::USER,
                capabilities: &["net_bind_service"],
            }),
        }))
    }
}

/// Keeps the zones so. It ends, and PowerDNS with it, when this is dropped.
pub struct Names {
    _controller: Controller<NameReconciler>,
    _server: Option<Kept>,
}

impl Names {
    /// Starts it; returns at once.
    pub fn start(
        cluster: Cluster,
        database: Arc<dyn ZoneDatabase>,
        server: Option<(Server, Arc<dyn Programs>)>,
        teller: Teller,
    ) -> Self {
        let of_server = teller.of("PowerDNS");
        let server = server.and_then(|(server, programs)| {
            let kept = server.run(&*programs);
            kept.inspect_err(|error| warn!("names: PowerDNS cannot be started: {error}")).ok()
        });
        let reconciler = Arc::new(NameReconciler {
            subject: Subject::Node(cluster.me.clone()),
            guests: PerNetwork::new(Arc::clone(&cluster.store)),
            cluster,
            database,
            teller,
            behind: Mutex::default(),
        });
        let mut controller = Controller::start(Arc::clone(&reconciler));
        if let Some(mut state) = server.as_ref().map(Kept::state) {
            controller.spawn(async move {
                while state.changed().await.is_ok() {
                    of_server.plans(match &*state.borrow_and_update() {
                        ProgramState::Down { why } => Some(down(why)),
                        _ => None,
                    });
                }
            });
        }
        let poker = controller.poker();
        controller.spawn(async move { reconciler.guests.follow(|| poker.poke_all()).await });
        Self { _controller: controller, _server: server }
    }
}

fn down(why: &str) -> Trouble {
    let what = format!("PowerDNS has ended and is started again and again: {why}");
    Trouble::of_all(what).with_todo("its own words are in the journal: `journalctl -u pvcd`")
}

struct NameReconciler {
    subject: Subject,
    cluster: Cluster,
    database: Arc<dyn ZoneDatabase>,
    guests: PerNetwork<Guests>,
    teller: Teller,
    /// Since when names are missing that are to be served.
    behind: Mutex<Option<Instant>>,
}

impl NameReconciler {
    /// Whether names are missing.
    fn note(&self, are_missing: bool) {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if are_missing {
            let since = *behind.get_or_insert_with(Instant::now);
            metrics::names_behind(Some(since.elapsed()));
        } else {
            if let Some(since) = behind.take() {
                metrics::names_caught_up(since.elapsed());
            }
            metrics::names_behind(None);
        }
    }

    /// What the database's refusal means for the step.
    fn refused(&self, error: &ZonesError) -> StepError {
        if let ZonesError::Conflict(zone) = error {
            return StepError::Conflict(zone.clone());
        }
        self.note(true);
        StepError::Failed(chain(error))
    }
}

/// What is planned from; `None`: another node is primary.
type Facts = Option<(Arc<ClusterView>, Vec<Named>, Seen)>;

#[async_trait]
impl Reconciler for NameReconciler {
    type Facts = Facts;
    type Step = Vec<ZoneChange>;

    const KIND: &'static str = "names";
    const RETRY: Retry = Retry { first: Duration::from_secs(1), longest: Duration::from_secs(10) };

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![self.subject.clone()]
    }

    fn concerns(&self, changed: &Subject, _view: &ClusterView) -> bool {
        matches!(changed, Subject::Network(_) | Subject::Primary)
    }

    async fn observe(&self, _subject: &Subject, _freshness: Freshness) -> Result<Facts, StepError> {
        let view = self.cluster.view();
        if !self.cluster.is_primary(&view) {
            return Ok(None);
        }
        let guests = guests::at(&self.guests, self.cluster.machine.unix_s(), &view).await?;
        let seen = self.database.observe().await.map_err(|error| self.refused(&error))?;
        Ok(Some((view, guests, seen)))
    }

    fn plan(&self, _subject: &Subject, facts: &mut Facts) -> Plan<Vec<ZoneChange>> {
        let Some((view, guests, seen)) = facts else {
            // They are another's to write.
            *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = None;
            metrics::names_behind(None);
            self.teller.plans([]);
            return Plan { next: Next::Settled, why: String::new() };
        };
        let planned = plan(view.networks.values().map(AsRef::<Network>::as_ref), guests, seen);
        self.note(!planned.changes.is_empty());
        self.teller.plans(planned.troubles);
        let next = if planned.changes.is_empty() { Next::Settled } else { Next::Do(planned.changes) };
        Plan { next, why: String::new() }
    }

    async fn apply(
        &self,
        _subject: &Subject,
        changes: &Vec<ZoneChange>,
        _facts: &Facts,
        _why: &str,
    ) -> Result<(), StepError> {
        for change in changes {
            self.database.apply(change).await.map_err(|error| self.refused(&error))?;
            debug!("names: {change}");
        }
        Ok(())
    }

    fn failed(&self, _subject: &Subject, error: &str) {
        let what = format!("guests' names stay as they were: {error}");
        let todo = "see to the database of coordinator.dns.database in pvcd.yaml; names are caught up with by themselves";
        self.teller.failed([Trouble::of_all(what).with_todo(todo)]);
    }

    async fn rest(&self, _subject: &Subject, _facts: &Facts, _settled: bool) -> Option<Instant> {
        self.teller.works();
        None
    }

    /// The node's own status says other things.
    fn speaks(&self, _subject: &Subject) -> bool {
        false
    }
}
