//! The steps by which a VM's keys go away.
//!
//! ```text
//!   any state ──Change(stop)──► stop, claimed ──WaitFor──► stop, free ──Change(delete)──► delete, free ──Last(remove)
//! ```
//!
//! Never removes the keys of a VM that somebody may be executing: the last change checks `state` and `claim`, and a node
//! starts a VM only by a transaction that changes `claim`. Each step is an ordinary starting point after a crash.

use crate::model::{DaemonState, Node, NodeName, Vm, VmChange, VmKey, VmSet, VmState};

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undefine {
    /// Commit this, read the VM again, ask again.
    Change(VmChange),
    /// These may be executing it: look again when its keys change.
    WaitFor(Vec<NodeName>),
    /// Commit this, and all is done.
    Last(VmChange),
}

/// The next step. A node that has no notion of claims (of the 0.5 generation) is known by what it reports to run.
pub fn undefine<'a>(vm: &Vm, nodes: impl Iterator<Item = &'a Node>) -> Undefine {
    let set = |state, keys: &[VmKey]| Undefine::Change(VmChange::update(vm, keys, vec![VmSet::State(state)]));
    if !matches!(vm.state.value, VmState::Stop | VmState::Delete) {
        return set(VmState::Stop, &[VmKey::State]);
    }
    let reports =
        |node: &&Node| node.daemon_state.value == DaemonState::Run && node.report.running.contains(&vm.id);
    let mut holders: Vec<NodeName> = vm.claim.value.iter().cloned().collect();
    holders.extend(nodes.filter(reports).map(|node| node.name.clone()));
    holders.sort();
    holders.dedup();
    if !holders.is_empty() {
        return Undefine::WaitFor(holders);
    }
    if vm.state.value == VmState::Stop {
        return set(VmState::Delete, &[VmKey::State, VmKey::Claim]);
    }
    Undefine::Last(VmChange::remove(vm, &[VmKey::State, VmKey::Claim]))
}
