//! What becomes of each VM of a node that is proven dead.
//!
//! Every VM that the node may have been executing, or that shall run there, gets exactly one order; an order that was carried out
//! leaves nothing of the node in the VM's claim and desired state, so a repetition finds nothing to do. Never chooses a node: who carries
//! out an order that needs one asks `plan::placement`, and the write is checked against everything it was decided from.

#[cfg(test)]
mod tests;

use super::placement::Sizes;
use crate::{
    model::{Claim, ClusterView, DaemonState, Node, NodeName, Vm, VmChange, VmId, VmKey, VmSet, VmState},
    sabotage::{self, Bug},
};

/// What to do with a fenced node's VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start them on other nodes.
    Migrate,
    /// They stay assigned to their node.
    Nothing,
}

/// What to do with one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which.
    pub id: VmId,
    /// What.
    pub what: What,
    /// Why, in words for an operator.
    pub why: String,
    /// The VM may hold locks on its images: the node must be shut out of the storage before.
    pub locked: bool,
}

/// See [`Order`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It shall run: find it a node and assign it there.
    Place,
    /// It shall run on this node, which needs no placement: it may be running there already, or the operator chose it.
    Assign(NodeName),
    /// It shall not run, or not here: the node leaves the claim, and a desired state that is thereby fulfilled is answered.
    Release,
}

/// The orders about all VMs of a dead node, which is shut out of the images of some.
pub fn orders(
    dead: &NodeName,
    view: &ClusterView,
    sizes: &Sizes,
    action: Action,
    is_shut_out_of: impl Fn(VmId) -> bool,
) -> Vec<Order> {
    let locked = |vm: &Vm| needs_storage(vm, sizes) && !is_shut_out_of(vm.id);
    view.good_vms().filter_map(|vm| order(dead, vm, view, action, locked(vm))).collect()
}

/// Whether it may have images open: by its definition, or by its list, which old clients write as they like.
fn needs_storage(vm: &Vm, sizes: &Sizes) -> bool {
    sizes.get(&vm.id).is_some_and(|size| size.needs_storage) || !vm.rbd_images.is_empty()
}

/// What is left of a dead node in the claims of VMs that are not in the tree: it executes none of them any more.
pub fn orphans(dead: &NodeName, view: &ClusterView) -> Vec<VmChange> {
    let claimed = view.orphan_claims.keys().filter_map(|id| {
        let claim = view.orphan_claim(*id).filter(|claim| claim.value.names(dead))?;
        Some(VmChange::orphan(*id, claim, dead))
    });
    claimed.collect()
}

fn order(dead: &NodeName, vm: &Vm, view: &ClusterView, action: Action, locked: bool) -> Option<Order> {
    // Who may be executing it is not known: that this node is dead does not say that it may start.
    if vm.cannot_read(VmKey::Claim) {
        return None;
    }
    let claimed = vm.claim.value.names(dead);
    let (what, why) = if claimed {
        claimed_by(dead, vm, view)
    } else if vm.node.value == *dead {
        desired_there(vm, view)?
    } else {
        return None;
    };
    // What the node never claimed it never had open.
    let locked = claimed && locked;
    if action == Action::Nothing && what == What::Place {
        let why = "it stays assigned to its node, as the configuration says, and may be moved".to_owned();
        return claimed.then_some(Order { id: vm.id, what: What::Release, why, locked });
    }
    Some(Order { id: vm.id, what, why: why.to_owned(), locked })
}

fn claimed_by(dead: &NodeName, vm: &Vm, view: &ClusterView) -> (What, &'static str) {
    let desired_there = vm.node.value == *dead;
    let others = vm.claim.value.without(dead);
    match vm.state.value {
        _ if vm.is_half_deleted() => (What::Release, "it is being deleted"),
        VmState::Stop | VmState::Shutdown | VmState::Failed | VmState::Delete => {
            (What::Release, "it is not to run")
        }
        // Its migration was under way, or over: whoever else is in the claim has it, or may start it.
        _ if !others.is_empty() => match single(&others) {
            Some(other) => {
                (What::Assign(other), "it was migrating, and the other side has it or may start it")
            }
            None => (What::Release, "others may be running it"),
        },
        VmState::Start | VmState::Restart | VmState::Migrate if desired_there => {
            (What::Place, "it was running there")
        }
        VmState::Migrate if view.node(&vm.node.value).is_some_and(Node::can_start) => {
            (What::Assign(vm.node.value.clone()), "it was to migrate from there")
        }
        VmState::Migrate => (What::Place, "it was to migrate from there to a node that does not work"),
        VmState::Start | VmState::Restart => {
            (What::Release, "it is to run on another node, which waits for it")
        }
    }
}

/// Only its desired state names the dead node, which cannot answer it.
fn desired_there(vm: &Vm, view: &ClusterView) -> Option<(What, &'static str)> {
    let is_off = vm.claim.value.is_empty();
    match vm.state.value {
        VmState::Start | VmState::Restart => {
            Some((at_a_claimant(vm, view).unwrap_or(What::Place), "it is to run there"))
        }
        VmState::Migrate if is_off => Some((What::Place, "it was to migrate there, and is off")),
        VmState::Shutdown if is_off => Some((What::Release, "it is off")),
        _ => None,
    }
}

/// A working node that claims a VM of which nothing else is to be feared has it already.
fn at_a_claimant(vm: &Vm, view: &ClusterView) -> Option<What> {
    let claimant = single(&vm.claim.value)?;
    view.node(&claimant).is_some_and(super::placement::works).then_some(What::Assign(claimant))
}

fn single(claim: &Claim) -> Option<NodeName> {
    let mut nodes = claim.iter();
    let first = nodes.next()?;
    nodes.next().is_none().then(|| first.clone())
}

/// The transaction of an order; `target` is where [`What::Place`] goes. `None`: there is nothing to write.
pub fn change(order: &What, dead: &NodeName, vm: &Vm, target: Option<&NodeName>) -> Option<VmChange> {
    let decided_from = [VmKey::State, VmKey::Node, VmKey::Claim];
    let claim = vm.claim.value.after_the_end_on(dead);
    // Whoever has it already has the guest that is to be restarted.
    let desired = match (order, vm.state.value) {
        (What::Assign(node), VmState::Restart) if claim.names(node) => VmState::Restart,
        _ => VmState::Start,
    };
    let run_on = |node: &NodeName| vec![VmSet::Node(node.clone()), VmSet::State(desired)];
    let from_there = || VmSet::LastNode(Some(dead.clone()));
    let mut set = match order {
        What::Place => [run_on(target?), vec![from_there()]].concat(),
        // One that was to migrate there never lived there.
        What::Assign(node) if vm.node.value == *dead && vm.state.value != VmState::Migrate => {
            [run_on(node), vec![from_there()]].concat()
        }
        What::Assign(node) => run_on(node),
        What::Release if claim.is_empty() && vm.state.value == VmState::Shutdown => {
            let mark = vm.is_shut_down_by_flush().then(|| VmSet::LastNode(vm.last_node.value.clone()));
            [VmSet::State(VmState::Stop)].into_iter().chain(mark).collect()
        }
        What::Release => Vec::new(),
    };
    if claim != vm.claim.value {
        if sabotage::commits(Bug::RecoverInHalves) {
            set.clear();
        }
        set.push(VmSet::Claim(claim));
    }
    (!set.is_empty()).then(|| VmChange::update(vm, &decided_from, set))
}

/// The VMs that were moved from a dead node and are not known to run yet, each with what is known.
pub fn not_seen_running(dead: &NodeName, view: &ClusterView) -> Vec<String> {
    let moved = view.good_vms().filter(|vm| {
        vm.state.value == VmState::Start
            && vm.last_node.value.as_ref() == Some(dead)
            && vm.node.value != *dead
    });
    moved
        .filter_map(|vm| {
            let node = view.node(&vm.node.value)?;
            // One that does not work any more is a case of its own. One whose daemon starts over will have them.
            let expected = matches!(node.daemon_state.value, DaemonState::Run | DaemonState::Init);
            // What it said before the move may be of an instance that has ended since: one that had it already, and lost its power.
            let said_since = node.keepalive_zxid > vm.node.zxid;
            // Without libvirt it repeats what it knew, and does not see it.
            let sees = said_since && node.can_start();
            let seen = sees && vm.claim.value.names(&node.name) && node.report.running.contains(&vm.id);
            (expected && !seen).then(|| format!("{} on {}", vm.name, node.name))
        })
        .collect()
}
