//! Another node for a VM that cannot be started here.

use std::collections::BTreeSet;

use pvc_core::{
    model::{NodeName, Vm},
    plan::{
        placement::{ClusterCapacity, Unfit},
        vm::give_away,
    },
};
use pvc_store::schema::{
    placement::bump,
    vm::{read_refused_by, refused_by},
};
use tracing::warn;

use super::VmReconciler;
use crate::controller::StepError;

impl VmReconciler {
    /// Writes a node that has not refused it, the one that it came from before all others, or notes that there is none.
    pub(super) async fn give_away(&self, vm: &Vm, why: &str) -> Result<(), StepError> {
        let view = self.cluster.mirror.view_to_place(self.selector).await;
        let mut refused: BTreeSet<NodeName> =
            read_refused_by(&*self.cluster.store, vm).await?.into_iter().collect();
        refused.insert(self.cluster.me.clone());
        let sizes = self.sizes.of(&view, &[vm.id]).await?;
        let size = sizes.get(&vm.id).copied().unwrap_or_default();
        let capacity = ClusterCapacity::count(&view, &sizes, &BTreeSet::new());
        let home = vm.last_node.value.as_ref().filter(|home| !refused.contains(*home));
        let home = home.filter(|home| capacity.admits(home, vm.id, size).is_ok());
        let excluded = |node: &NodeName| refused.contains(node).then_some(Unfit::Refused);
        let chosen = home.cloned().map_or_else(|| capacity.choose(vm.id, size, self.selector, excluded), Ok);
        match chosen {
            Ok(to) => {
                let mut others = bump(view.placement_version, &vm.id.to_string());
                others.ops.extend(refused_by(vm.id, &refused).ops);
                self.cluster.change(&give_away(vm, &self.cluster.me, &to, why), others).await?;
                warn!(vm = %vm.name, %to, "given away: {why}");
                Ok(())
            }
            Err(no_capacity) => {
                self.remember(vm.id, |m| {
                    m.attempts.found_no_target(vm, no_capacity.to_string(), self.cluster.now());
                });
                Ok(())
            }
        }
    }
}
