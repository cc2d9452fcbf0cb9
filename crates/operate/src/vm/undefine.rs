//! Undefines a VM: takes the steps of [`pvc_core::command::vm::undefine`] until its keys are gone, and waits for whoever executes it
//! between them. Whoever drops it in the middle leaves the VM off and defined.

use std::time::Duration;

use async_trait::async_trait;
use pvc_core::{
    command::vm::{Undefine, undefine as next},
    model::{Entry, NodeName, Vm, VmId, VmState},
};
use pvc_store::{
    CommitError,
    schema::{node, vm},
};

use crate::{
    Answer, Asked, Cluster, Failure, Goal, Nodes,
    wait::{Look, Pursuit},
};

/// How many steps to take at once: three are needed, the others are for conflicts.
const STEPS: usize = 8;

/// How far off a VM was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Nobody executes it, and nobody is asked to.
    Off,
    /// It is asked to be off, or to be gone.
    ToBeOff,
    /// It is asked to run.
    On,
}

impl Power {
    /// Of a VM in that state, which somebody may execute or not.
    pub fn of(state: VmState, is_claimed: bool) -> Self {
        match (state, is_claimed) {
            (VmState::Stop | VmState::Delete, false) => Self::Off,
            (VmState::Stop | VmState::Delete, true) => Self::ToBeOff,
            _ => Self::On,
        }
    }
}

/// Undefines a VM, which happens while that is waited for. Answers also how far off it is: what is not asked to be on now is not powered off if somebody starts it
/// meanwhile.
pub async fn undefine(cluster: &Cluster, id: VmId) -> Result<(Power, Asked), Failure> {
    let vm = cluster.vm(id).await?;
    let name = vm.name.to_string();
    let power = Power::of(vm.state.value, !vm.claim.value.is_empty());
    let asked = Asked {
        answer: Answer::new(format!("VM {name} is to be undefined")),
        written: false,
        more: format!("`pvc vm undefine {name}` finishes that when it is settled"),
        patience: Duration::from_secs(30),
        pursuit: Some(Box::new(Undefinition {
            id,
            node: node::path(&vm.node.value),
            stopped: power != Power::On,
            done: format!("VM {name} ({id}) is undefined"),
        })),
        subject: name,
    };
    Ok((power, asked))
}

/// An undefinition that goes on.
#[derive(Debug)]
struct Undefinition {
    id: VmId,
    node: String,
    /// It was off, or our command that it is to be was written: whoever starts it now has the last word.
    stopped: bool,
    done: String,
}

#[async_trait]
impl Pursuit for Undefinition {
    fn paths(&self) -> Vec<String> {
        vec![vm::path(self.id), self.node.clone()]
    }

    fn goal(&self) -> Option<Goal> {
        None
    }

    /// Takes all the steps that can be taken now.
    async fn look(&mut self, cluster: &Cluster) -> Result<Look<Answer>, Failure> {
        let done = || Ok(Look::Done(Answer::new(self.done.clone())));
        for _ in 0..STEPS {
            let vm: Vm = match vm::read(&*cluster.store, self.id).await? {
                Some(Entry::Good(vm)) => vm,
                Some(Entry::Bad(_)) => cluster.vm(self.id).await?,
                // Somebody else undefined it at the same time.
                None => return done(),
            };
            let state = vm.state.value;
            if self.stopped && !matches!(state, VmState::Stop | VmState::Delete) {
                let what = format!(
                    "VM {} was not undefined: somebody else has asked for {state} meanwhile",
                    vm.name
                );
                return Err(Failure::Failed(what));
            }
            let nodes = cluster.nodes().await?;
            let (change, last) = match next(&vm, nodes.all.iter()) {
                Undefine::Change(change) => (change, false),
                Undefine::Last(change) => (change, true),
                Undefine::WaitFor(holders) => {
                    self.stopped = true;
                    return Ok(Look::NotYet(waiting_for(&nodes, &holders)));
                }
            };
            match vm::apply(&*cluster.store, &change).await {
                Ok(_) if last => return done(),
                Ok(_) => self.stopped = true,
                // A key has moved: decide anew.
                Err(CommitError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Look::NotYet("its keys keep changing".into()))
    }
}

/// Who holds up an undefinition, and what is known of them.
fn waiting_for(nodes: &Nodes, holders: &[NodeName]) -> String {
    let names: Vec<&str> = holders.iter().map(NodeName::as_str).collect();
    let say = |name: &NodeName| match nodes.get(name) {
        Some(node) => format!("the daemon of {name} is in state {}", node.daemon_state.value),
        None => format!("{name} is no node"),
    };
    let words: Vec<String> = holders.iter().map(say).collect();
    format!("{} may still be executing it ({})", names.join(", "), words.join(", "))
}
