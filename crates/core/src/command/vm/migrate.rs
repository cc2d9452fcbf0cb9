//! Asks that a VM moves: `migrate` (with a way back), `unmigrate` (the way back), `move` (for good).
//!
//! What runs is moved by the daemons, which live-migrate it; of what is off only the node is changed. A target for what runs
//! is counted against the memory that is spoken for, so its change must be written together with `/pvc/placement`.

#[cfg(test)]
mod tests;

use super::{Accepted, Refusal, desired::being_deleted, find, not_running};
use crate::{
    model::{ClusterView, DomainState, NodeName, Vm, VmChange, VmKey, VmSet, VmState},
    plan::placement::{self, Asker, ClusterCapacity, Selector, Size, Unfit, fit},
};

/// Who says where to.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// The operator.
    Named(&'a str),
    /// The selector, among the nodes that can take it.
    Chosen(Selector),
}

/// A request to move a VM.
#[derive(Debug, Clone, Copy)]
pub struct Migrate<'a> {
    /// Where to.
    pub target: Target<'a>,
    /// Also if it was migrated before, and to a node that is still taking its own VMs back. Never without memory for it, nor to a
    /// flushed node: its source would not send it there.
    pub force: bool,
}

/// A VM that is to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Where to.
    pub node: NodeName,
    /// It runs and is to arrive running; else only its node was changed.
    pub live: bool,
    /// What to write. If `live`, together with `/pvc/placement` in the version of the view.
    pub accepted: Accepted,
}

/// Everything a target is chosen from.
struct Choice<'a> {
    vm: &'a Vm,
    size: Size,
    view: &'a ClusterView,
    capacity: &'a ClusterCapacity,
    what: String,
}

/// Asks that a running VM runs elsewhere, and remembers where it came from (if it does not yet).
pub fn migrate(
    vm: &Vm,
    request: Migrate<'_>,
    view: &ClusterView,
    capacity: &ClusterCapacity,
    size: Size,
) -> Result<Moved, Refusal> {
    let choice = Choice { vm, size, view, capacity, what: format!("VM {} was not migrated", vm.name) };
    choice.source_can()?;
    if let (Some(last), false) = (&vm.last_node.value, request.force) {
        let why = format!("it was migrated from {last} already");
        let todo = "`unmigrate` returns it there; `migrate --force` moves it on and keeps the way back; `move` is for good";
        return Err(choice.refused(why, todo));
    }
    let (node, notes) = choice.target(request)?;
    let from = Some(&vm.node.value).filter(|node| !node.is_nobody()).or_else(|| vm.claim.value.iter().next());
    let last = vm.last_node.value.as_ref().or(from).cloned();
    Ok(choice.live(node, last, notes))
}

/// Asks that a migrated VM returns.
pub fn unmigrate(
    vm: &Vm,
    force: bool,
    view: &ClusterView,
    capacity: &ClusterCapacity,
    size: Size,
) -> Result<Moved, Refusal> {
    let choice = Choice { vm, size, view, capacity, what: format!("VM {} was not returned", vm.name) };
    let Some(last) = vm.last_node.value.clone() else {
        return Err(choice.refused("it has not been migrated", "`migrate` or `move` it to another node"));
    };
    if is_off(vm) {
        return Ok(choice.cold(last, vec![VmSet::LastNode(None)], Vec::new()));
    }
    choice.source_can()?;
    if last == vm.node.value {
        let why = format!("it was migrated from {last}, which is where it is");
        return Err(choice.refused(why, "nothing is to be done; the next `move` forgets the way back"));
    }
    let (node, notes) = choice.target(Migrate { target: Target::Named(last.as_str()), force })?;
    Ok(choice.live(node, None, notes))
}

/// Asks that a VM belongs elsewhere from now on; if it runs, it moves running.
pub fn move_to(
    vm: &Vm,
    request: Migrate<'_>,
    view: &ClusterView,
    capacity: &ClusterCapacity,
    size: Size,
) -> Result<Moved, Refusal> {
    let choice = Choice { vm, size, view, capacity, what: format!("VM {} was not moved", vm.name) };
    if !is_off(vm) {
        choice.source_can()?;
        let (node, notes) = choice.target(request)?;
        return Ok(choice.live(node, None, notes));
    }
    let others = view.all_nodes().filter(|node| node.name != vm.node.value);
    let node = match request.target {
        Target::Named(name) => choice.named(name)?,
        Target::Chosen(selector) => {
            let other = placement::choose(others, selector);
            let other = other.ok_or_else(|| {
                choice.refused("no other node's daemon runs", "start pvcd on one, or name one with --target")
            })?;
            other.name.clone()
        }
    };
    let trouble = view.node(&node).and_then(not_running);
    let notes = trouble.map(|trouble| format!("{trouble}; the VM cannot start before"));
    Ok(choice.cold(node, Vec::new(), notes.into_iter().collect()))
}

/// Whether it is asked to be off and nobody may be executing it any more.
fn is_off(vm: &Vm) -> bool {
    matches!(vm.state.value, VmState::Stop | VmState::Failed) && vm.claim.value.is_empty()
}

impl Choice<'_> {
    fn refused(&self, why: impl Into<String>, todo: impl Into<String>) -> Refusal {
        Refusal::refused(self.what.clone(), why, todo)
    }

    /// Whether it runs, or is to, and whoever may be executing it can send it away.
    fn source_can(&self) -> Result<(), Refusal> {
        let (vm, state) = (self.vm, self.vm.state.value);
        match state {
            VmState::Start => {}
            VmState::Migrate => {
                let why = format!("it is migrating to {} already", vm.node.value);
                return Err(self.refused(why, "wait until it has arrived, or `stop` it"));
            }
            VmState::Restart | VmState::Shutdown => {
                let why = format!("its {state} is going on");
                return Err(self.refused(why, "wait until it is done, or `start` it to call that off"));
            }
            VmState::Delete => return Err(being_deleted(self.what.clone())),
            VmState::Stop | VmState::Failed if vm.claim.value.is_empty() => {
                let why = format!("it does not run: its state is {state}");
                return Err(self.refused(why, "`move` gives it another node, `start` starts it where it is"));
            }
            VmState::Stop | VmState::Failed => {
                let why = format!("its state is {state}, but {} may still be executing it", vm.claim.value);
                return Err(self.refused(why, "wait until it is off, or `start` it"));
            }
        }
        let trouble = vm
            .claim
            .value
            .iter()
            .find_map(|node| Some((node, fit(self.view, node, Asker::Departure).err()?)));
        trouble.map_or(Ok(()), |(node, unfit)| {
            let why = format!("{node}, which may be executing it, {unfit}");
            let todo = format!(
                "bring its daemon back; `pvc node explain {node}` says what becomes of its VMs if it is dead"
            );
            Err(self.refused(why, todo))
        })
    }

    /// A node by its name that is not the VM's own.
    fn named(&self, name: &str) -> Result<NodeName, Refusal> {
        let node = find::node_in(self.view, name).map_err(|r| Refusal {
            what: self.what.clone(),
            why: r.what,
            ..r
        })?;
        if node.name == self.vm.node.value {
            let why = format!("{} is its node already", node.name);
            return Err(self.refused(why, "name another node, or none and one is chosen"));
        }
        Ok(node.name.clone())
    }

    /// The node for what runs, and what to say of it.
    fn target(&self, request: Migrate<'_>) -> Result<(NodeName, Vec<String>), Refusal> {
        let (vm, capacity) = (self.vm, self.capacity);
        let name = match request.target {
            Target::Named(name) => self.named(name)?,
            Target::Chosen(selector) => {
                let left = |node: &NodeName| {
                    (*node == vm.node.value || vm.claim.value.names(node)).then_some(Unfit::Excluded)
                };
                return capacity
                    .choose(vm.id, self.size, selector, left)
                    .map(|node| (node, Vec::new()))
                    .map_err(|none| {
                        self.refused(none.to_string(), "`pvc node ready NODE` lets a node take VMs again")
                    });
            }
        };
        let unfit = match capacity.admits(&name, vm.id, self.size) {
            Ok(()) => return Ok((name, Vec::new())),
            Err(Unfit::Domains(DomainState::Unflush)) if request.force => {
                match capacity.takes_back(&name, vm.id, self.size) {
                    Ok(()) => {
                        let note = format!("{name} is still taking its own VMs back");
                        return Ok((name, vec![note]));
                    }
                    Err(unfit) => unfit,
                }
            }
            Err(unfit) => unfit,
        };
        let todo = match unfit {
            Unfit::Domains(DomainState::Unflush) => {
                "wait until it has its own VMs back, or use --force".to_owned()
            }
            Unfit::Domains(_) => format!("`pvc node ready {name}` first"),
            Unfit::Daemon(_) | Unfit::Silent | Unfit::Hypervisor(_) => {
                format!("`pvc node explain {name}` says what is wrong with it")
            }
            _ => "name another node, or none and one is chosen".to_owned(),
        };
        Err(self.refused(format!("{name} {unfit}"), todo))
    }

    fn live(&self, node: NodeName, last: Option<NodeName>, notes: Vec<String>) -> Moved {
        let set = vec![VmSet::State(VmState::Migrate), VmSet::Node(node.clone()), VmSet::LastNode(last)];
        let change = VmChange::update(self.vm, &[VmKey::State, VmKey::Node, VmKey::LastNode], set);
        Moved { node, live: true, accepted: Accepted::write(change, notes) }
    }

    /// It stays off: with `state` = `migrate` a daemon would start it.
    fn cold(&self, node: NodeName, mut set: Vec<VmSet>, notes: Vec<String>) -> Moved {
        set.insert(0, VmSet::Node(node.clone()));
        let keys = [VmKey::State, VmKey::Node, VmKey::LastNode, VmKey::Claim];
        let change = VmChange::update(self.vm, &keys, set);
        Moved { node, live: false, accepted: Accepted::write(change, notes) }
    }
}
