//! Tells the source of a VM that is to migrate here whether it could be started here, before the source does anything to the guest.

use pvc_core::{
    model::{Vm, VmId},
    plan::vm::{LocalState, is_to_arrive},
};
use pvc_host::hypervisor::HypervisorError;
use pvc_store::schema::vm::{Arrival, say_arrival};
use tokio::time::Instant;
use tracing::{debug, info};

use super::{FIRST_RETRY, VmReconciler};

impl VmReconciler {
    /// Says it once a desired state; answers when to try again if it could not be found out.
    pub(super) async fn say_whether_it_could_start(&self, id: VmId, vm: &Vm) -> Option<Instant> {
        let is_asked =
            is_to_arrive(&self.cluster.me, vm) && self.inventory.local_state(id) == LocalState::Off;
        let desired = vm.state.version.filter(|_| is_asked)?;
        if self.remember(id, |m| m.said_of == Some(desired)) {
            return None;
        }
        match self.say_arrival(vm, desired).await {
            Ok(()) => {
                self.remember(id, |m| m.said_of = Some(desired));
                None
            }
            Err(error) => {
                debug!(vm = %vm.name, "cannot say whether it could be started here: {error}");
                Some(Instant::now() + FIRST_RETRY)
            }
        }
    }

    async fn say_arrival(&self, vm: &Vm, desired: i32) -> Result<(), String> {
        let cannot = self.cannot_start(vm).await?;
        if let Some(why) = &cannot {
            info!(vm = %vm.name, "it is to migrate here, and could not be started here: {why}");
        }
        let arrival = Arrival { by: self.cluster.me.to_string(), desired, cannot };
        say_arrival(&*self.cluster.store, vm.id, &arrival).await.map_err(|error| error.to_string())
    }

    async fn cannot_start(&self, vm: &Vm) -> Result<Option<String>, String> {
        let spec = match self.definitions.of(vm).await.map_err(|error| error.to_string())? {
            Ok(spec) => spec,
            Err(reason) => return Ok(Some(reason)),
        };
        if let Some(why) = self.lacks_storage(&spec) {
            return Ok(Some(why));
        }
        if let Ok(figures) = self.cluster.machine.figures() {
            let unused_mib = figures.mem_total_mib.saturating_sub(figures.mem_used_mib);
            if unused_mib < spec.memory_mib {
                return Ok(Some(format!(
                    "{unused_mib} MiB of memory are unused, {} MiB are needed",
                    spec.memory_mib
                )));
            }
        }
        match self.inventory.hypervisor().could_start(&spec).await {
            Ok(()) => Ok(None),
            Err(HypervisorError::Refused(why) | HypervisorError::Unusable(why)) => Ok(Some(why)),
            Err(unknown) => Err(unknown.to_string()),
        }
    }
}
