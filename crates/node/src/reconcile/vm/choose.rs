//! A node for a VM whose desired state names none.

use std::collections::BTreeSet;

use pvc_core::{
    model::{NodeName, Vm},
    plan::{
        placement::{ClusterCapacity, Unfit},
        vm::choose,
    },
};
use pvc_store::schema;
use tracing::info;

use super::VmReconciler;
use crate::controller::StepError;

impl VmReconciler {
    /// Writes a node that can take it, or notes that there is none.
    pub(super) async fn choose(&self, vm: &Vm, why: &str) -> Result<(), StepError> {
        let view = self.cluster.mirror.view_to_place(self.selector).await;
        let sizes = self.sizes.of(&view, &[vm.id]).await?;
        let size = sizes.get(&vm.id).copied().unwrap_or_default();
        let local_state = |node: &NodeName| vm.claim.value.names(node).then_some(Unfit::Excluded);
        let capacity = ClusterCapacity::count(&view, &sizes, &BTreeSet::new());
        match capacity.choose(vm.id, size, self.selector, local_state) {
            Ok(node) => {
                let change = choose(vm, &node);
                schema::placement::apply_placed(&*self.cluster.store, &change, view.placement_version)
                    .await?;
                info!(vm = %vm.name, to = %node, "chosen for it: {why}");
                self.cluster.catch_up().await
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
