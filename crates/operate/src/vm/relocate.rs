//! Migrate, unmigrate, move: gives a VM another node, and looks until it is seen to run there.
//!
//! What runs is moved by the daemons. A failed migration leaves the VM where it was; that is a failure here too, with its reason.

#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use pvc_core::{
    command::vm::{self as command, Migrate, Target},
    model::{NodeName, Vm, VmId, VmState},
    plan::placement::Selector,
};
use pvc_store::schema::{
    explain,
    node::{self, Reported},
    placement, vm,
};

use crate::{
    Answer, Asked, Cluster, Failure, Goal,
    wait::{Look, Pursuit},
    write::{PLACEMENTS, Tries},
};

/// How long a migration may take before one stops watching: a large guest that writes a lot takes minutes.
const PATIENCE: Duration = Duration::from_mins(10);

/// Which move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relocation {
    /// To another node, with a way back.
    Migrate,
    /// The way back.
    Unmigrate,
    /// To another node, for good.
    Move,
}

/// Where to. A way back has its own target.
#[derive(Debug, Clone, Copy)]
pub struct To<'a> {
    /// A node by name, or none and one is chosen …
    pub node: Option<&'a str>,
    /// … by this.
    pub selector: Selector,
    /// See [`Migrate::force`].
    pub force: bool,
}

/// A VM that has another node.
#[derive(Debug)]
pub struct Relocated {
    /// Which.
    pub node: NodeName,
    /// What is asked of the daemons; settled if it is off.
    pub asked: Asked,
}

/// Gives a VM another node.
pub async fn relocate(
    cluster: &Cluster,
    id: VmId,
    relocation: Relocation,
    to: To<'_>,
) -> Result<Relocated, Failure> {
    let target = to.node.map_or(Target::Chosen(to.selector), Target::Named);
    let request = Migrate { target, force: to.force };
    let mut tries = Tries::of(PLACEMENTS);
    let (vm, moved) = loop {
        let view = cluster.view().await?;
        let vm = match view.vm(id) {
            Some(vm) => vm.clone(),
            // Unreadable, or gone: this says which.
            None => return Err(cluster.vm(id).await.err().unwrap_or_else(|| Failure::gone(id))),
        };
        let ground = cluster.capacity(&view).await?;
        let size = cluster.size(&ground, &vm).await?;
        let capacity = &ground.capacity;
        let moved = match relocation {
            Relocation::Migrate => command::migrate(&vm, request, &view, capacity, size),
            Relocation::Unmigrate => command::unmigrate(&vm, to.force, &view, capacity, size),
            Relocation::Move => command::move_to(&vm, request, &view, capacity, size),
        }?;
        let store = &*cluster.store;
        let Some(change) = &moved.accepted.change else { break (vm, moved) };
        let written = if moved.live {
            placement::apply_placed(store, change, view.placement_version).await
        } else {
            vm::apply(store, change).await
        };
        if tries.wrote(written)? {
            break (vm, moved);
        }
    };
    let (name, from, node) = (vm.name.to_string(), vm.node.value.clone(), moved.node);
    let verb = match relocation {
        Relocation::Migrate => "migrates",
        Relocation::Unmigrate => "returns",
        Relocation::Move => "moves",
    };
    let (message, pursuit) = if moved.live {
        let arrival = Arrival { id, from: from.clone(), to: node.clone() };
        (format!("VM {name} {verb} from {from} to {node}"), Some(Box::new(arrival) as Box<dyn Pursuit>))
    } else {
        (format!("VM {name} is off and belongs to {node} now"), None)
    };
    let asked = Asked {
        answer: Answer { message, notes: moved.accepted.notes },
        written: moved.accepted.change.is_some(),
        more: format!("It goes on; `pvc vm explain {name}` says more"),
        patience: PATIENCE,
        pursuit,
        subject: name,
    };
    Ok(Relocated { node, asked })
}

/// A VM that is looked for at its target.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) id: VmId,
    pub(crate) from: NodeName,
    pub(crate) to: NodeName,
}

#[async_trait]
impl Pursuit for Arrival {
    fn paths(&self) -> Vec<String> {
        vec![vm::path(self.id), explain::vm_path(self.id), node::path(&self.to)]
    }

    fn goal(&self) -> Option<Goal> {
        Some(Goal::Moved { vm: self.id, from: self.from.clone(), to: self.to.clone() })
    }

    async fn look(&mut self, cluster: &Cluster) -> Result<Look<Answer>, Failure> {
        let vm = cluster.vm(self.id).await?;
        let store = &*cluster.store;
        // The target may report it before its claim says so; what is reported from before it was claimed there is another matter.
        let reported = node::reported(store, &self.to, self.id, vm.node.zxid).await?;
        let said = vm::read_explanation(store, self.id).await?.and_then(Result::ok);
        judge(&vm, &self.from, &self.to, reported, said.as_ref().map(super::said))
    }
}

/// Whether it has arrived, cannot arrive any more, or not yet. `reported`: what the target has said since it was its node.
fn judge(
    vm: &Vm,
    from: &NodeName,
    to: &NodeName,
    reported: Reported,
    said: Option<String>,
) -> Result<Look<Answer>, Failure> {
    let failed = |what: String| Err(Failure::Failed(what));
    let node = &vm.node.value;
    let reason = vm.failed_reason.value.trim_end_matches('.');
    let reason = reason.strip_prefix(&format!("not migrated to {to}: ")).unwrap_or(reason);
    match vm.state.value {
        VmState::Failed => failed(format!("VM {} failed: {reason}", vm.name)),
        VmState::Start | VmState::Migrate if node != to => {
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            let stays =
                if node == from { format!("stays on {from}") } else { format!("belongs to {node} now") };
            failed(format!("VM {} did not go to {to} and {stays}{why}", vm.name))
        }
        VmState::Start if vm.claim.value.is_only(to) && reported != Reported::Nothing => match reported {
            // It has arrived as it was.
            Reported::Halted(halt) => Err(Failure::halted(vm, to, halt)),
            _ => Ok(Look::Done(Answer::new(format!("VM {} runs on {to}", vm.name)))),
        },
        VmState::Start | VmState::Migrate => Ok(Look::NotYet(said.unwrap_or_else(|| {
            let on_its_way = vm.claim.value.names(to);
            format!("waiting for {}", if on_its_way || vm.claim.value.is_empty() { to } else { from })
        }))),
        other => {
            failed(format!("VM {}: somebody else has asked for {other} meanwhile, which counts", vm.name))
        }
    }
}
