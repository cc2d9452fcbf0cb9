//! Starts at the daemon's start what the node's functions need and nobody else may have started: ZooKeeper, libvirtd, Patroni, FRR,
//! Ceph. Each only where its function is enabled and its unit installed; running already is fine.
//!
//! Never holds up or fails the daemon, and never stops any of them: guests and other nodes live from them.

use std::sync::Arc;

use pvc_config::Config;
use pvc_host::services::{Services, ServicesError, UnitState};
use pvc_process::JoinSet;
use tracing::{debug, info, warn};

/// The units that this node's functions need, in the order in which they matter.
pub fn needed(config: &Config) -> Vec<String> {
    let functions = config.functions;
    let coordinator = config.is_coordinator();
    let node = &config.node;
    let all = [
        (coordinator, "zookeeper.service".to_owned()),
        (functions.hypervisor, "libvirtd.service".to_owned()),
        (functions.networking && coordinator, "patroni.service".to_owned()),
        (functions.networking, "frr.service".to_owned()),
        (functions.storage && coordinator, format!("ceph-mon@{node}.service")),
        (functions.storage && coordinator, format!("ceph-mgr@{node}.service")),
    ];
    all.into_iter().filter(|(needed, _)| *needed).map(|(_, unit)| unit).collect()
}

/// Starts them, side by side. Says what does not run, once.
pub async fn start(services: Arc<dyn Services>, service_units: Vec<String>) {
    if let Some(first) = service_units.first()
        && let Err(ServicesError::Unavailable(why)) = services.state(first).await
    {
        info!("services are not managed here: {why}");
        return;
    }
    let mut starting = JoinSet::new();
    for unit in service_units {
        let services = Arc::clone(&services);
        starting.spawn(async move {
            match start_one(&*services, &unit).await {
                Ok(Some(started)) => info!("service {unit} {started}"),
                Ok(None) => debug!("service {unit} runs already"),
                Err(error) => warn!("service {unit}: {error}"),
            }
        });
    }
    while starting.join_next().await.is_some() {}
}

async fn start_one(services: &dyn Services, unit: &str) -> Result<Option<&'static str>, ServicesError> {
    match services.state(unit).await? {
        UnitState::Active => Ok(None),
        UnitState::Absent => Ok(Some("is not installed")),
        UnitState::Inactive | UnitState::Failed | UnitState::Changing => {
            services.start(unit).await?;
            Ok(Some("was started"))
        }
    }
}

#[cfg(test)]
mod tests {
    use pvc_host::services::fake::FakeServices;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_installed_is_started_and_nothing_waits_for_what_hangs_or_is_missing() {
        let services = FakeServices::new(&["zookeeper.service", "libvirtd.service", "frr.service"]);
        services.start("libvirtd.service").await.unwrap();
        services.hang("zookeeper.service", true);
        let service_units = ["zookeeper.service", "libvirtd.service", "patroni.service", "frr.service"];
        start(services.clone(), service_units.map(str::to_owned).into()).await;
        assert_eq!(services.unit("frr.service"), UnitState::Active);
        let mut history = services.history();
        history.sort();
        assert_eq!(history, ["start frr.service", "start libvirtd.service", "start zookeeper.service"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_without_a_service_manager_is_left_alone() {
        let services = FakeServices::new(&["zookeeper.service"]);
        services.away(true);
        start(services.clone(), vec!["zookeeper.service".into()]).await;
        assert_eq!(services.history(), [""; 0]);
    }
}
