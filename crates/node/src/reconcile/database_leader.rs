//! While this node is primary: asks Patroni for the DNS database's leader to be here, where names are written.
//!
//! A task of its own, so that neither a hand-over nor what else runs on the primary waits for it. What it does not get is said at the primary
//! (`/pvc/explain/primary`), and asked for again.

#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_config::{Config, PerNetwork};
use pvc_core::plan::database_leader::{Ground, Wish, plan};
use pvc_host::database_cluster::{DatabaseCluster, DatabaseClusterError};
use pvc_process::JoinSet;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::info;

use super::primary::PrimaryService;
use crate::log::chain;

/// The pause after the first failure. Each one doubles it: a leader that has died is replaced after half a minute.
const AGAIN: Duration = Duration::from_secs(2);

/// The longest of these pauses.
const AT_LAST: Duration = Duration::from_mins(1);

/// How often it is looked whether the leader still is here.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// How long a leader that has moved away again is let be: what moves it has a reason. Each time doubles it.
const LET_BE: Duration = Duration::from_mins(5);

/// The longest of these.
const LET_BE_AT_LAST: Duration = Duration::from_hours(4);

/// This node's side where the database is beside its coordinators; `None`: it is elsewhere, and nobody's to lead.
pub fn ground(config: &Config) -> Option<Ground> {
    let database =
        config.dns_database.as_ref().filter(|_| config.functions.networking && config.is_coordinator())?;
    let mut own = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    let interfaces = config.interfaces.iter().flat_map(PerNetwork::iter);
    let mine = interfaces.filter_map(|(_, interface)| interface.address).map(|net| IpAddr::V4(net.addr()));
    own.extend(mine);
    let is_here = match database.host.parse::<IpAddr>() {
        Ok(host) => host.is_loopback() || own.contains(&host),
        Err(_) => database.host.eq_ignore_ascii_case("localhost"),
    };
    is_here.then(|| Ground { me: config.node.clone(), own, port: database.port })
}

/// What runs on the primary of it.
pub struct DatabaseLeader {
    wanted: watch::Sender<bool>,
    trouble: Arc<Mutex<Option<String>>>,
    _task: JoinSet<()>,
}

impl DatabaseLeader {
    /// Starts it; it asks for nothing until this node is primary.
    pub fn start(ground: Ground, database: Arc<dyn DatabaseCluster>) -> Arc<dyn PrimaryService> {
        let (wanted, told) = watch::channel(false);
        let trouble = Arc::default();
        let wisher = Wisher {
            ground,
            database,
            trouble: Arc::clone(&trouble),
            has_answered: false,
            let_be: None,
            again_at: None,
        };
        let mut task = JoinSet::new();
        task.spawn(wisher.run(told));
        Arc::new(Self { wanted, trouble, _task: task })
    }
}

#[async_trait]
impl PrimaryService for DatabaseLeader {
    fn name(&self) -> &'static str {
        "DNS database"
    }

    async fn prepare(&self) -> Result<(), String> {
        Ok(())
    }

    async fn start(&self) -> Result<(), String> {
        self.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        Ok(())
    }

    async fn stop(&self) -> Result<(), String> {
        self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, false));
        Ok(())
    }

    async fn check(&self) -> Result<(), String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        trouble.map_or(Ok(()), Err)
    }
}

struct Wisher {
    ground: Ground,
    database: Arc<dyn DatabaseCluster>,
    trouble: Arc<Mutex<Option<String>>>,
    /// Whether Patroni has ever answered: a database without it is a way to run.
    has_answered: bool,
    /// How long the leader is let be if it moves away; `None`: it was not asked for since this node is primary.
    let_be: Option<Duration>,
    /// When it is asked for again, while it is elsewhere although it was asked for.
    again_at: Option<Instant>,
}

impl Wisher {
    async fn run(mut self, mut wanted: watch::Receiver<bool>) {
        loop {
            if wanted.wait_for(|wanted| *wanted).await.is_err() {
                return;
            }
            (self.let_be, self.again_at) = (None, None);
            tokio::select! {
                biased;
                // What was asked for last may still be done, and harms nobody.
                ended = wanted.wait_for(|wanted| !*wanted) => {
                    if ended.is_err() {
                        return;
                    }
                }
                () = self.keep() => {}
            }
            self.says(None);
        }
    }

    /// While this node is primary, for ever.
    async fn keep(&mut self) {
        let mut pause = AGAIN;
        loop {
            match self.look().await {
                Ok(()) => {
                    self.says(None);
                    pause = AGAIN;
                    sleep(LOOK_EVERY).await;
                }
                Err(why) => {
                    self.says(why);
                    sleep(pause).await;
                    pause = (2 * pause).min(AT_LAST);
                }
            }
        }
    }

    /// Asks for the leader if it is not here; why it is not, if that is worth a word.
    async fn look(&mut self) -> Result<(), Option<String>> {
        let (leader, candidate) = match self.wish().await? {
            Wish::Here => {
                self.again_at = None;
                return Ok(());
            }
            Wish::Not(why) => return Err(Some(elsewhere(why))),
            Wish::Ask { leader, candidate } => (leader, candidate),
        };
        if let Some(let_be) = self.let_be {
            let left =
                self.again_at.get_or_insert_with(|| Instant::now() + let_be).duration_since(Instant::now());
            if !left.is_zero() {
                let why = format!(
                    "{leader} leads although it was asked for, which is done again after {} min",
                    let_be.as_secs() / 60
                );
                return Err(Some(elsewhere(why)));
            }
        }
        info!("primary: Patroni is asked to have {candidate} lead the DNS database, which {leader} does");
        let outcome = self.database.lead(&leader, &candidate).await;
        // What has failed may have been done, and counts; what was refused was not.
        if !matches!(outcome, Err(DatabaseClusterError::Refused { .. })) {
            let next = self.let_be.map_or(LET_BE, |last| (2 * last).min(LET_BE_AT_LAST));
            (self.let_be, self.again_at) = (Some(next), None);
        }
        outcome.map_err(|error| Some(elsewhere(chain(&error))))?;
        match self.wish().await? {
            Wish::Here => {
                info!("primary: {candidate} leads the DNS database");
                Ok(())
            }
            _ => Err(Some(elsewhere("Patroni says that it is done".to_owned()))),
        }
    }

    async fn wish(&mut self) -> Result<Wish, Option<String>> {
        match self.database.servers().await {
            Ok(servers) => {
                self.has_answered = true;
                Ok(plan(&self.ground, &servers))
            }
            Err(error @ DatabaseClusterError::Absent(_)) if !self.has_answered => {
                info!("primary: the DNS database's leader is not asked for: {error}");
                Err(None)
            }
            Err(error) => Err(Some(elsewhere(chain(&error)))),
        }
    }

    fn says(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

fn elsewhere(why: String) -> String {
    format!("its leader is not known to be here, and names may not be written: {why}")
}
