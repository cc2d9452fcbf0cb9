//! Makes this machine's own networks as configured: observe → plan → apply, until there is nothing to do, at start-up and whenever
//! something has changed.
//!
//! Decides nothing itself (see `pvc_core::plan::network`), and needs nothing of the state tree: without the cluster network
//! there is none.

#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc, time::Duration};

use pvc_config::{Config, Interface};
use pvc_core::plan::network::{Next, Wanted, Wish, plan};
use pvc_host::links::{Links, LinksError};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::ability::Trouble;

/// How often it is looked whether all is still there, in case a change went unreported.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The least time between two looks: addresses that are renewed cause changes all the time.
const AT_LEAST_BETWEEN: Duration = Duration::from_secs(1);

/// More steps than any machine needs.
const STEPS: usize = 100;

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
        "the networks do not stay as they are set up ({STEPS} steps, the last: {0}): is another program configuring them?"
    )]
    Restless(String),
}

/// What the configuration wants; `None` on a node whose networks are not managed.
pub fn wish(config: &Config) -> Option<Wish> {
    if !config.functions.networking {
        return None;
    }
    let interfaces = config.interfaces.as_ref()?;
    let gateway = config.networks.as_ref().and_then(|n| n.upstream.gateway).map(IpAddr::V4);
    Some(Wish {
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

/// Brings the networks up; answers with the number of steps that took.
///
/// # Errors
/// If a device is missing or a step fails. What was done so far stays, and is where the next attempt begins.
pub async fn bring_up(links: &dyn Links, wish: &Wish) -> Result<usize, NetworkError> {
    let sysctls = wish.sysctls();
    let mut last = String::new();
    for step in 0..STEPS {
        match plan(wish, &links.observe(&sysctls).await?) {
            Next::Settled => return Ok(step),
            Next::Refused(reason) => return Err(NetworkError::Refused(reason)),
            Next::Do(change, why) => {
                last = change.to_string();
                links.apply(&change).await?;
                info!("network: {last}: {why}");
            }
        }
    }
    Err(NetworkError::Restless(last))
}

/// Keeps them up, for ever: what is removed comes back. Tells when they cannot be, for want of what they are made of.
pub async fn keep_up(links: Arc<dyn Links>, wish: Wish, missing: watch::Sender<Trouble>) {
    let mut changes = links.changes();
    let mut trouble = None;
    loop {
        changes.mark_unchanged();
        let outcome = bring_up(&*links, &wish).await.err();
        let refused = outcome.as_ref().filter(|error| matches!(error, NetworkError::Refused(_)));
        let refused = refused.map(ToString::to_string);
        missing.send_if_modified(|missing| std::mem::replace(missing, refused.clone()) != refused);
        let now = outcome.map(|error| crate::log::chain(&error));
        // Said when it is news: it is looked at every few seconds.
        match &now {
            Some(error) if trouble != now => warn!("{error}; looking again every {} s", LOOK_EVERY.as_secs()),
            None if trouble.is_some() => info!("the networks are as configured again"),
            _ => {}
        }
        trouble = now;
        sleep(AT_LEAST_BETWEEN).await;
        // Also when the sender has gone: then the time alone counts.
        if let Ok(Err(_)) = timeout(LOOK_EVERY, changes.changed()).await {
            sleep(LOOK_EVERY).await;
        }
    }
}
