//! Start, stop, shutdown, restart: writes the desired state, and looks until it is so.

#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use pvc_core::{
    command::{self, Accepted, Refusal},
    model::{Halt, Vm, VmId, VmState},
};
use pvc_store::schema::{
    explain,
    node::{self, Reported},
    vm,
};
use tokio::time::timeout;

pub use crate::goal::Desired;
use crate::{
    Answer, Asked, Cluster, Failure, Goal, Nodes,
    wait::{Look, Pursuit},
    write::{ATTEMPTS, Tries},
};

/// How long the cluster's memory is counted.
const COUNT_WITHIN: Duration = Duration::from_secs(3);

impl Desired {
    fn decide(self, vm: &Vm, nodes: &Nodes) -> Result<Accepted, Refusal> {
        match self {
            Self::Start => command::vm::start(vm, nodes.all.iter()),
            Self::Stop => command::vm::stop(vm),
            Self::Shutdown => command::vm::shutdown(vm),
            Self::Restart => command::vm::restart(vm),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Start => "is to start",
            Self::Stop => "is to stop",
            Self::Shutdown => "is to shut down",
            Self::Restart => "is to restart",
        }
    }

    /// How long a healthy VM may take: a guest has 90 s to shut down.
    fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Start | Self::Stop => 30,
            Self::Shutdown => 105,
            Self::Restart => 135,
        })
    }

    fn ends_running(self) -> bool {
        matches!(self, Self::Start | Self::Restart)
    }
}

/// A command that stands.
#[derive(Debug)]
pub struct Written {
    /// The VM that it was decided from.
    pub vm: Vm,
    /// The desired state.
    pub asked: Asked,
}

/// Writes what shall become of a VM.
pub async fn set_state(cluster: &Cluster, id: VmId, desired: Desired) -> Result<Written, Failure> {
    let nodes = cluster.nodes().await?;
    let mut tries = Tries::of(ATTEMPTS);
    let (vm, accepted) = loop {
        let vm = cluster.vm(id).await?;
        let accepted = desired.decide(&vm, &nodes)?;
        let Some(change) = &accepted.change else { break (vm, accepted) };
        if tries.wrote(vm::apply(&*cluster.store, change).await)? {
            break (vm, accepted);
        }
    };
    let name = vm.name.to_string();
    let asked = Asked {
        answer: Answer { message: format!("VM {name} {}", desired.words()), notes: accepted.notes },
        written: accepted.change.is_some(),
        more: format!("The command stands; `pvc vm explain {name}` says more"),
        patience: desired.patience(),
        pursuit: Some(Box::new(DesiredPursuit {
            node: Some(node::path(&vm.node.value)),
            ..DesiredPursuit::of(id, desired)
        })),
        subject: name,
    };
    Ok(Written { vm, asked })
}

/// What a start takes from the cluster. Nothing is refused for it, and a start waits for nobody's counting: what cannot be read in time is
/// not said.
pub async fn strained(cluster: &Cluster, vm: &Vm) -> Vec<String> {
    let count = async {
        let view = cluster.view().await.ok()?;
        Some(cluster.capacity(&view).await.ok()?.reserve(&view))
    };
    let Ok(Some(reserve)) = timeout(COUNT_WITHIN, count).await else { return Vec::new() };
    command::vm::strained(vm, &reserve)
}

/// A command that is looked after.
#[derive(Debug)]
pub(crate) struct DesiredPursuit {
    desired: Desired,
    id: VmId,
    /// The key of the node that is to do it.
    node: Option<String>,
}

impl DesiredPursuit {
    pub(crate) fn of(id: VmId, desired: Desired) -> Self {
        Self { desired, id, node: None }
    }
}

#[async_trait]
impl Pursuit for DesiredPursuit {
    fn paths(&self) -> Vec<String> {
        [vm::path(self.id), explain::vm_path(self.id)].into_iter().chain(self.node.clone()).collect()
    }

    fn goal(&self) -> Option<Goal> {
        Some(Goal::Vm(self.id, self.desired))
    }

    async fn look(&mut self, cluster: &Cluster) -> Result<Look<Answer>, Failure> {
        let vm = cluster.vm(self.id).await?;
        let store = &*cluster.store;
        // A report from before the claim may tell of the instance before this one.
        let reported = node::reported(store, &vm.node.value, self.id, vm.claim.zxid).await?;
        let said = vm::read_explanation(store, self.id).await?.and_then(Result::ok);
        judge(self.desired, &vm, reported, said.as_ref().map(super::said))
    }
}

/// Whether it is so, cannot be so any more, or not yet. `reported`: what the VM's node has said since it claimed it.
fn judge(
    desired: Desired,
    vm: &Vm,
    reported: Reported,
    said: Option<String>,
) -> Result<Look<Answer>, Failure> {
    let not_yet = |what: String| Ok(Look::NotYet(said.unwrap_or(what)));
    let done = |what: String| Ok(Look::Done(Answer::new(format!("VM {} {what}", vm.name))));
    let (node, state, claim) = (&vm.node.value, vm.state.value, &vm.claim.value);
    if state == VmState::Failed {
        return Err(Failure::Failed(format!("VM {} failed: {}", vm.name, vm.failed_reason.value)));
    }
    let in_progress = match desired {
        Desired::Start => state == VmState::Start,
        Desired::Stop => state == VmState::Stop,
        Desired::Shutdown => matches!(state, VmState::Shutdown | VmState::Stop),
        Desired::Restart => matches!(state, VmState::Restart | VmState::Start),
    };
    if !in_progress {
        let what = format!("VM {}: somebody else has asked for {state} meanwhile, which counts", vm.name);
        return Err(Failure::Failed(what));
    }
    if desired.ends_running() {
        let is_there = state == VmState::Start && claim.names(node);
        return match reported {
            Reported::Executes if is_there => done(format!("runs on {node}")),
            // What has crashed is about to be started anew.
            Reported::Halted(halt) if is_there && halt != Halt::Crashed && halt != Halt::Busy => {
                Err(Failure::halted(vm, node, halt))
            }
            _ => not_yet(format!("waiting for {node}")),
        };
    }
    if state == VmState::Stop && claim.is_empty() {
        return done("is off".to_owned());
    }
    not_yet(format!("waiting for {}", if claim.is_empty() { node.to_string() } else { claim.to_string() }))
}
