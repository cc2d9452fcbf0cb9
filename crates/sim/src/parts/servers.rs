//! The ZooKeeper servers, as one asks each by itself: who is cut off from one, or asks one that is down, waits in vain.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pvc_core::model::NodeName;
use pvc_process::Process;
use pvc_store::servers::Servers;
use tokio::time::sleep;

use super::in_flight;
use crate::{
    event::Net,
    physics::{
        ensemble::Ensemble,
        network::{Network, Number},
    },
};

const TAKES: Duration = Duration::from_millis(5);
const GIVES_UP: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub struct SimServers {
    /// The world's process.
    pub world: Process,
    /// Who asks.
    pub me: Number,
    /// The nodes' names, by number.
    pub names: Arc<Vec<NodeName>>,
    /// Who reaches whom.
    pub network: Arc<Network>,
    /// The servers.
    pub ensemble: Arc<Ensemble>,
}

#[async_trait]
impl Servers for SimServers {
    async fn serves(&self, coordinator: &NodeName) -> bool {
        let Some(of) = self.names.iter().position(|name| name == coordinator) else { return false };
        let (me, network, ensemble) = (self.me, Arc::clone(&self.network), Arc::clone(&self.ensemble));
        in_flight(&self.world, async move {
            if network.passes_both_ways(Net::Store, me, of) && ensemble.answers(of) {
                sleep(TAKES).await;
                return ensemble.writes(of);
            }
            sleep(GIVES_UP).await;
            false
        })
        .await
    }
}
