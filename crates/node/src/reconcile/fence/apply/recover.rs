//! Carries out the orders about a dead node's VMs, one transaction each.

use std::collections::BTreeSet;

use pvc_core::{
    model::{ClusterView, Fence, Moment, Node, NodeName, Vm},
    plan::{
        fence::Action,
        placement::{ClusterCapacity, NoCapacity, Unfit},
        recover::{Order, What, change, orders, orphans},
    },
};
use pvc_store::{
    CommitError, StoreError,
    schema::{self, placement::bump},
};
use tracing::{error, info, warn};

use super::{Apply, Effect};
use crate::{controller::StepError, reconcile::fence::tell};

/// The dead node, as it was seen.
pub(super) struct Dead<'a> {
    pub(super) fence: &'a Fence,
    pub(super) node: &'a Node,
    pub(super) proof: String,
    pub(super) action: Action,
    /// By a deliberate bug.
    pub(super) without_storage_fence: bool,
}

/// An order that can be carried out.
struct Assigned<'v> {
    order: Order,
    vm: &'v Vm,
    /// Its new home, if it needs one.
    target: Option<NodeName>,
}

impl Apply {
    pub(super) async fn recover(
        &self,
        dead: &Dead<'_>,
        view: &ClusterView,
        silent: &BTreeSet<NodeName>,
        until: Moment,
    ) -> Result<Effect, StepError> {
        let name = &dead.fence.node;
        let (assigned, mut stuck) = self.assign(dead, view, silent, false).await?;
        let mut placed = view.placement_version;
        let mut conflict = None;
        // What is left then is planned anew.
        let is_too_old = || self.cluster().now() >= until;
        for Assigned { order, vm, target } in assigned {
            if is_too_old() {
                break;
            }
            match self.carry_out(dead, vm, &order, target.as_ref(), &mut placed).await {
                Ok(()) => {}
                // What one VM's keys do not take holds up no other's recovery.
                Err(CommitError::Failed(refusal @ StoreError::Refused { .. })) => {
                    stuck.push(self.refused(dead, vm, &refusal).await);
                }
                Err(CommitError::Conflict { path, .. }) if path.contains(&vm.id.to_string()) => {
                    conflict = conflict.or(Some(path));
                }
                Err(error) => return Err(error.into()),
            }
        }
        for change in orphans(name, view) {
            if is_too_old() {
                break;
            }
            let others = schema::fence::expect_dead(dead.fence, dead.node);
            schema::vm::apply_with(&*self.cluster().store, &change, others).await?;
            info!(vm = %change.id(), from = %name, "released, it is not in the state tree any more; {name} is dead: {}", dead.proof);
        }
        self.cluster().catch_up().await?;
        if let Some(path) = conflict {
            return Err(StepError::Conflict(path));
        }
        Ok(if stuck.is_empty() { Effect::Recorded } else { Effect::RecoveryFailed(stuck.join("; ")) })
    }

    /// Why nothing can be done about any of its VMs; `None`: something can.
    pub(super) async fn nothing_to_do(
        &self,
        dead: &Dead<'_>,
        view: &ClusterView,
        silent: &BTreeSet<NodeName>,
    ) -> Result<Option<String>, StepError> {
        let (assigned, stuck) =
            self.assign(dead, view, silent, self.dependencies.storage.is_available()).await?;
        let nothing = assigned.is_empty() && orphans(&dead.fence.node, view).is_empty();
        Ok(nothing.then(|| stuck.join("; ")))
    }

    /// The orders that can be carried out, with a node for each that needs one, and why the others cannot be. `also_locked`: and those that can
    /// once the node is shut out of the storage.
    async fn assign<'v>(
        &self,
        dead: &Dead<'_>,
        view: &'v ClusterView,
        silent: &BTreeSet<NodeName>,
        also_locked: bool,
    ) -> Result<(Vec<Assigned<'v>>, Vec<String>), StepError> {
        let name = &dead.fence.node;
        let sizes = self.sizes.of(view, &[]).await?;
        let shut_out = |id| dead.without_storage_fence || dead.fence.job.is_shut_out_of(id);
        let orders = orders(name, view, &sizes, dead.action, shut_out);
        let mut capacity = ClusterCapacity::count(view, &sizes, silent);
        let (mut assigned, mut stuck) = (Vec::new(), Vec::new());
        for order in orders.into_iter().filter(|order| also_locked || !order.locked) {
            let Some(vm) = view.vm(order.id) else { continue };
            let mut target = None;
            if order.what == What::Place {
                let size = sizes.get(&order.id).copied().unwrap_or_default();
                let excluded = |node: &NodeName| (node == name).then_some(Unfit::Excluded);
                match capacity.choose(order.id, size, self.dependencies.selector, excluded) {
                    Ok(node) => {
                        capacity.reserve(&node, order.id, size);
                        target = Some(node);
                    }
                    Err(no_capacity) => {
                        stuck.push(self.no_capacity(dead, vm, &no_capacity).await);
                        continue;
                    }
                }
            }
            assigned.push(Assigned { order, vm, target });
        }
        Ok((assigned, stuck))
    }

    async fn no_capacity(&self, dead: &Dead<'_>, vm: &Vm, why: &NoCapacity) -> String {
        let because = format!("{} is dead ({}), and {why}", dead.fence.node, dead.proof);
        if tell::vm(self.cluster(), vm, &because).await {
            warn!(vm = %vm.name, "not recovered yet: {because}");
        }
        format!("{}: {why}", vm.name)
    }

    async fn refused(&self, dead: &Dead<'_>, vm: &Vm, why: &StoreError) -> String {
        let because = format!("{} is dead ({}), and {why}", dead.fence.node, dead.proof);
        if tell::vm(self.cluster(), vm, &because).await {
            error!(vm = %vm.name, alert = true, "not recovered: {because}");
        }
        format!("{}: {why}", vm.name)
    }

    async fn carry_out(
        &self,
        dead: &Dead<'_>,
        vm: &Vm,
        order: &Order,
        target: Option<&NodeName>,
        placed: &mut Option<i32>,
    ) -> Result<(), CommitError> {
        let name = &dead.fence.node;
        let Some(change) = change(&order.what, name, vm, target) else { return Ok(()) };
        let mut others = schema::fence::expect_dead(dead.fence, dead.node);
        if target.is_some() {
            others.ops.extend(bump(*placed, &vm.id.to_string()).ops);
        }
        schema::vm::apply_with(&*self.cluster().store, &change, others).await?;
        if target.is_some() {
            // This was the next placement, or it would have been a conflict.
            *placed = Some(placed.map_or(0, |version| version.wrapping_add(1)));
        }
        let (why, proof) = (&order.why, &dead.proof);
        match (&order.what, target) {
            (_, Some(to)) | (What::Assign(to), _) => {
                info!(vm = %vm.name, from = %name, %to, "recovered: {why}; {name} is dead: {proof}");
            }
            _ => info!(vm = %vm.name, from = %name, "released: {why}; {name} is dead: {proof}"),
        }
        tell::vm_settled(self.cluster(), vm).await;
        Ok(())
    }
}
