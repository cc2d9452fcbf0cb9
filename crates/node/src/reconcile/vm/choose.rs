//! A node for a VM whose wish names none.

use std::collections::BTreeSet;

use pvc_core::{
    model::{NodeName, Vm},
    plan::{
        placement::{Rooms, Unfit},
        vm::choose,
    },
};
use pvc_store::schema;
use tracing::info;

use super::{CATCH_UP_WITHIN, StepError, VmReconciler};

impl VmReconciler {
    /// Writes a node that can take it, or notes that there is none.
    pub(super) async fn choose(&self, vm: &Vm, why: &str) -> Result<(), StepError> {
        let view = self.mirror.view();
        let failed = |error: String| StepError::Failed(error);
        let sizes = self.sizes.of(&view, &[vm.id]).await.map_err(|e| failed(e.to_string()))?;
        let size = sizes.get(&vm.id).copied().unwrap_or_default();
        let here = |node: &NodeName| vm.claim.value.names(node).then_some(Unfit::Excluded);
        let rooms = Rooms::count(&view, &sizes, &BTreeSet::new());
        match rooms.choose(vm.id, size, self.selector, here) {
            Ok(node) => {
                let change = choose(vm, &node);
                schema::placement::apply_placed(&*self.store, &change, view.placement_version).await?;
                info!(vm = %vm.name, to = %node, "chosen for it: {why}");
                self.mirror.caught_up(CATCH_UP_WITHIN).await.map_err(|e| failed(e.to_string()))
            }
            Err(no_room) => {
                self.remember(vm.id, |m| m.past.found_no_target(vm, no_room.to_string(), self.now()));
                Ok(())
            }
        }
    }
}
