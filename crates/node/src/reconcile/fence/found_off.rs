//! Whether the machine of a node whose daemon has stopped in order is off. Its guests outlive its daemon, so more is asked than that a BMC says so:
//! it must be that machine's BMC, as far as that can be known, and the machine must stay off.

use std::time::Duration;

use pvc_core::{
    model::{ClusterView, Node, NodeName},
    sabotage::{self, Bug},
};
use pvc_host::power::{Power, PowerState};
use pvc_store::{Store, StoreError, schema};
use tokio::time::sleep;

use crate::bmcs;

/// A machine whose power is cycled is off for a moment.
const STAYS_OFF: Duration = Duration::from_secs(10);

/// The node, as it was seen.
pub(super) struct StoppedNode<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) power: &'a dyn Power,
    pub(super) seen: &'a Node,
    pub(super) view: &'a ClusterView,
}

impl StoppedNode<'_> {
    /// Why it is not known to be off, if it is not.
    pub(super) async fn is_off(&self) -> Result<Result<(), String>, StoreError> {
        if sabotage::commits(Bug::StoppedIsOff) {
            return Ok(Ok(()));
        }
        let name = &self.seen.name;
        let Some(bmc) = bmcs::read(self.store, name).await? else {
            return Ok(Err("no BMC of it is known (system.fencing.ipmi in its pvcd.yaml)".to_owned()));
        };
        if let Some(other) = self.who_else_names(&bmc.host).await? {
            return Ok(Err(format!("{other} names the same BMC, {}", bmc.host)));
        }
        let report = schema::bmc::read(self.store, name).await?.filter(|report| report.host == bmc.host);
        let on_in_boot = report.and_then(|report| report.on_in_boot);
        if on_in_boot.is_none() || on_in_boot != self.seen.boot {
            let host = &bmc.host;
            return Ok(Err(format!(
                "its BMC {host} was not asked while it last lived: it may be another machine's"
            )));
        }
        for pause in [Some(STAYS_OFF), None] {
            match self.power.status(&bmc).await {
                Ok(PowerState::Off) => {}
                Ok(PowerState::On) => return Ok(Err("its BMC says that its machine has power".to_owned())),
                Err(error) => return Ok(Err(error.to_string())),
            }
            if let Some(pause) = pause {
                sleep(pause).await;
            }
        }
        Ok(Ok(()))
    }

    async fn who_else_names(&self, host: &str) -> Result<Option<NodeName>, StoreError> {
        for other in self.view.nodes.keys().filter(|other| **other != self.seen.name) {
            let ipmi = schema::node::read_ipmi(self.store, other).await?;
            if ipmi.hostname.eq_ignore_ascii_case(host) {
                return Ok(Some(other.clone()));
            }
        }
        Ok(None)
    }
}
