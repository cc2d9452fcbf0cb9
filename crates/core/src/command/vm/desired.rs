//! The desired states of a VM's state. What is so already is success; what makes no sense in the present state is refused.

use super::{Accepted, Refusal, not_running};
use crate::{
    model::{Node, Vm, VmChange, VmKey, VmSet, VmState},
    plan::placement::{self, Reserve},
};

/// Asks that the VM runs.
pub fn start<'a>(vm: &Vm, mut nodes: impl Iterator<Item = &'a Node> + Clone) -> Result<Accepted, Refusal> {
    let what = || format!("VM {} was not started", vm.name);
    let named = nodes.clone().find(|node| node.name == vm.node.value);
    if named.is_none() && vm.node.value.is_nobody() && vm.state.value != VmState::Delete {
        let note = "its desired state names no node: one will be chosen";
        return Ok(desired(vm, VmState::Start, Some(note.to_owned())));
    }
    let node = named.ok_or_else(|| {
        let why = format!("its node {} does not exist", vm.node.value);
        Refusal::refused(
            what(),
            why,
            "undefine it (its disks stay) and define it on a node that `pvc node list` shows",
        )
    })?;
    if !nodes.any(placement::works) {
        return Err(Refusal::refused(what(), "no node's daemon runs", "start pvcd on the nodes"));
    }
    match vm.state.value {
        _ if vm.cannot_read(VmKey::State) => Ok(desired(vm, VmState::Start, not_running(node))),
        VmState::Start => {
            let runs = vm.claim.value.names(&node.name);
            let already =
                if runs { "it is to run already" } else { "it is to run already, but does not yet" };
            Ok(Accepted {
                change: None,
                notes: [already.to_owned()].into_iter().chain(not_running(node)).collect(),
            })
        }
        VmState::Migrate => Err(busy_migrating(what(), vm)),
        VmState::Delete => Err(being_deleted(what())),
        VmState::Stop | VmState::Shutdown | VmState::Restart | VmState::Failed => {
            Ok(desired(vm, VmState::Start, not_running(node)))
        }
    }
}

/// What the start of a VM takes from a cluster that does not have it: its node's memory, or the others' to take over from a node that dies.
pub fn strained(vm: &Vm, reserve: &Reserve) -> Vec<String> {
    let over = reserve.overcommitted.iter().find(|over| over.node == vm.node.value).map(|over| {
        let (node, takes, has) = (&over.node, over.reserved_mib, over.total_mib);
        format!("the VMs of {node} may take {takes} MiB of memory now, it has {has}")
    });
    let lost = reserve.not_absorbed.iter().filter(|(_, vms)| vms.contains(&vm.id));
    let lost = lost.map(|(node, _)| format!("if {node} dies, no other node has room for it"));
    over.into_iter().chain(lost).collect()
}

/// Whether nobody starts a VM that is off, or about to be. One that a flush has shut down is started by the unflush, and the `stop` that a
/// definition begins with is no command to who finds the guest running (decision 75): whoever wants it off writes his desired state though
/// it reads the same.
fn stays_off(vm: &Vm) -> bool {
    !vm.is_shut_down_by_flush() && !vm.is_as_defined()
}

/// Asks that the VM is off at once, as if its power was cut.
pub fn stop(vm: &Vm) -> Result<Accepted, Refusal> {
    match vm.state.value {
        _ if vm.cannot_read(VmKey::State) => Ok(desired(vm, VmState::Stop, None)),
        VmState::Stop if stays_off(vm) => Ok(Accepted::already("it is to be off already")),
        VmState::Delete => Err(being_deleted(format!("VM {} was not stopped", vm.name))),
        _ => Ok(desired(vm, VmState::Stop, None)),
    }
}

/// Asks that the guest is asked to shut down.
pub fn shutdown(vm: &Vm) -> Result<Accepted, Refusal> {
    let what = || format!("VM {} was not shut down", vm.name);
    match vm.state.value {
        _ if vm.cannot_read(VmKey::State) => Ok(desired(vm, VmState::Shutdown, None)),
        VmState::Shutdown if stays_off(vm) => Ok(Accepted::already("it is shutting down already")),
        VmState::Stop if stays_off(vm) => Ok(Accepted::already("it is to be off already")),
        VmState::Stop => Ok(desired(vm, VmState::Stop, None)),
        VmState::Migrate => Err(busy_migrating(what(), vm)),
        VmState::Delete => Err(being_deleted(what())),
        VmState::Failed if vm.claim.value.is_empty() => Err(Refusal::refused(
            what(),
            "it has failed and does not run",
            "use `stop` to give up, `start` to try again",
        )),
        VmState::Start | VmState::Restart | VmState::Shutdown | VmState::Failed => {
            Ok(desired(vm, VmState::Shutdown, None))
        }
    }
}

/// Asks that the guest is asked to shut down and is then started again.
pub fn restart(vm: &Vm) -> Result<Accepted, Refusal> {
    let what = || format!("VM {} was not restarted", vm.name);
    match vm.state.value {
        VmState::Restart => Ok(Accepted::already("it is restarting already")),
        VmState::Start => Ok(desired(vm, VmState::Restart, None)),
        VmState::Migrate => Err(busy_migrating(what(), vm)),
        VmState::Delete => Err(being_deleted(what())),
        VmState::Stop | VmState::Shutdown | VmState::Failed => {
            let why = format!("it is not to run: its state is {}", vm.state.value);
            Err(Refusal::refused(what(), why, "use `start`"))
        }
    }
}

/// Decided from the state alone: nothing else that may change meanwhile would make the desired state wrong.
fn desired(vm: &Vm, state: VmState, note: Option<String>) -> Accepted {
    let change = VmChange::update(vm, &[VmKey::State], vec![VmSet::State(state)]);
    Accepted { change: Some(change), notes: note.into_iter().collect() }
}

fn busy_migrating(what: String, vm: &Vm) -> Refusal {
    let why = format!("it is migrating to {}", vm.node.value);
    Refusal::refused(what, why, "wait until it has arrived, or `stop` it")
}

pub(super) fn being_deleted(what: String) -> Refusal {
    Refusal::refused(what, "it is being deleted", "finish with `undefine`")
}
