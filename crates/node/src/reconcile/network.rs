//! Makes this machine's own networks as configured, at start-up and whenever something has changed.
//!
//! Decides nothing itself (see `pvc_core::plan::network`), and needs nothing of the state tree: without the cluster network
//! there is none.

#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use pvc_config::{Config, Interface};
use pvc_core::{
    model::{NodeName, Subject, link::HostNetwork},
    plan::{
        Next, Plan,
        network::{Batch, Desired, Wanted, plan},
    },
};
use pvc_host::links::{Links, LinksError};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    ability::Trouble,
    controller::{Cluster, Controller, Freshness, Reconciler, Retry, StepError},
};

/// The least time between two looks: addresses that are renewed cause changes all the time.
const AT_LEAST_BETWEEN: Duration = Duration::from_secs(1);

/// More looks than any machine needs.
const LOOKS: usize = 32;

/// Why the networks are not as configured.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The machine and the configuration do not fit together.
    #[error("the networks cannot be set up: {0}")]
    Refused(String),
    /// A step failed.
    #[error("the networks cannot be set up")]
    Failed(#[from] LinksError),
    /// Something undoes what is done.
    #[error(
        "the networks do not stay as they are set up ({LOOKS} looks, the last change: {0}): is another program configuring them?"
    )]
    Restless(String),
}

/// What the configuration wants; `None` on a node whose networks are not managed.
pub fn desired(config: &Config) -> Option<Desired> {
    if !config.functions.networking {
        return None;
    }
    let interfaces = config.interfaces.as_ref()?;
    let gateway = config.networks.as_ref().and_then(|n| n.upstream.gateway).map(IpAddr::V4);
    Some(Desired {
        upstream: wanted(&interfaces.upstream),
        cluster: wanted(&interfaces.cluster),
        storage: wanted(&interfaces.storage),
        gateway,
        routes: config.is_coordinator(),
    })
}

fn wanted(interface: &Interface) -> Wanted {
    Wanted {
        device: interface.device.clone(),
        mtu: interface.mtu.into(),
        address: interface.address.map(Into::into),
    }
}

/// Brings the networks up; answers with the number of changes that took.
///
/// # Errors
/// If a device is missing or a change fails. What was done so far stays, and is where the next attempt begins.
pub async fn bring_up(links: &dyn Links, desired: &Desired) -> Result<usize, NetworkError> {
    let sysctls = desired.sysctls();
    let (mut changes, mut last) = (0, String::new());
    for _ in 0..LOOKS {
        let plan = plan(desired, &links.observe(&sysctls).await?);
        match plan.next {
            Next::Settled => return Ok(changes),
            Next::Wait(_) => return Err(NetworkError::Refused(plan.why)),
            Next::Do(batch) => {
                make(links, &batch).await?;
                changes += batch.len();
                last = batch.last().map(|(change, _)| change.to_string()).unwrap_or_default();
            }
        }
    }
    Err(NetworkError::Restless(last))
}

async fn make(links: &dyn Links, batch: &Batch) -> Result<(), LinksError> {
    for (change, why) in batch {
        links.apply(change).await?;
        info!("network: {change}: {why}");
    }
    Ok(())
}

/// Keeps them up: what is removed comes back.
pub struct Networks {
    reconciler: Arc<NetworkReconciler>,
    _controller: Controller<NetworkReconciler>,
}

impl Networks {
    /// Starts it; returns at once.
    pub fn start(me: &NodeName, links: Arc<dyn Links>, desired: Desired) -> Self {
        // Without the sender the safety net alone counts.
        let changes = links.changes();
        let (subject, missing) = (Subject::Node(me.clone()), watch::Sender::new(None));
        let reconciler = Arc::new(NetworkReconciler { subject, links, desired, missing });
        let mut controller = Controller::start(Arc::clone(&reconciler));
        controller.look_at_swarms(changes, AT_LEAST_BETWEEN);
        Self { reconciler, _controller: controller }
    }

    /// Why they cannot be as configured, for want of what they are made of.
    pub fn trouble(&self) -> watch::Receiver<Trouble> {
        self.reconciler.missing.subscribe()
    }
}

struct NetworkReconciler {
    subject: Subject,
    links: Arc<dyn Links>,
    desired: Desired,
    missing: watch::Sender<Trouble>,
}

#[async_trait]
impl Reconciler for NetworkReconciler {
    type Facts = HostNetwork;
    type Step = Batch;

    const KIND: &'static str = "host-network";
    const RETRY: Retry = Retry::every(Duration::from_secs(10));
    // In case a change went unreported.
    const SAFETY_NET: Duration = Duration::from_secs(10);

    fn cluster(&self) -> Option<&Cluster> {
        None
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![self.subject.clone()]
    }

    async fn observe(&self, _subject: &Subject, _freshness: Freshness) -> Result<HostNetwork, StepError> {
        Ok(self.links.observe(&self.desired.sysctls()).await?)
    }

    fn plan(&self, _subject: &Subject, seen: &mut HostNetwork) -> Plan<Batch> {
        let plan = plan(&self.desired, seen);
        let missing = matches!(plan.next, Next::Wait(_)).then(|| plan.why.clone());
        self.missing.send_if_modified(|before| {
            let is_news = *before != missing;
            // Said when it is news: it is looked at every few seconds.
            match &missing {
                Some(why) if is_news => warn!("{}", NetworkError::Refused(why.clone())),
                None if is_news => info!("the networks can be as configured again"),
                _ => {}
            }
            before.clone_from(&missing);
            is_news
        });
        plan
    }

    async fn apply(
        &self,
        _subject: &Subject,
        batch: &Batch,
        _seen: &HostNetwork,
        _why: &str,
    ) -> Result<(), StepError> {
        Ok(make(&*self.links, batch).await?)
    }
}

impl From<LinksError> for StepError {
    fn from(error: LinksError) -> Self {
        Self::Failed(crate::log::chain(&NetworkError::Failed(error)))
    }
}
