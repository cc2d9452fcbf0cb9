//! `pvc vm undefine`: steps of `pvc_core::command::vm::undefine`, with a bounded wait for whoever executes the VM.

use std::time::Duration;

use pvc_core::{
    command::vm::{Undefine, undefine as next},
    model::{Entry, NodeName, Vm, VmId, VmState},
};
use pvc_store::{
    CommitError,
    schema::{node, vm},
};

use crate::{
    cmd::confirm::{self, Otherwise},
    connect::Connection,
    failure::Failure,
    print::Out,
    read::Nodes,
    wait::{self, Look, Waited},
};

/// How many steps to take at once: three are needed, the others are for conflicts.
const ATTEMPTS: usize = 8;

pub(super) async fn undefine(
    cluster: &Connection,
    out: &Out,
    reference: &str,
    yes: bool,
    within: Duration,
) -> Result<(), Failure> {
    let id = cluster.find_vm(reference).await?;
    let vm = cluster.vm(id).await?;
    let (name, is_off) = (vm.name.to_string(), vm.state.value == VmState::Stop && vm.claim.value.is_empty());
    if !yes
        && !is_off
        && !confirm::ask(&format!("VM {name} is not off. Power it off and undefine it?"), Otherwise::Go)?
    {
        return Err(Failure::Failed(format!("VM {name} was not undefined: not confirmed")));
    }
    let paths = [vm::path(id), node::path(&vm.node.value)];
    let mut progress = Progress::default();
    let look = async || step(cluster, id, &mut progress).await;
    match wait::until(&*cluster.store, &paths, within, out, look).await? {
        Waited::Done(()) => out.message(&format!("VM {name} ({id}) is undefined"), &[]),
        Waited::TimedOut(waiting) => {
            let holders = describe(&cluster.nodes().await?, &progress.waiting_for);
            Err(Failure::Failed(format!(
                "VM {name} was stopped but not undefined: {waiting} after {} s{holders}. Run `pvc vm undefine {name}` \
                 again when that is settled",
                within.as_secs()
            )))
        }
        Waited::Interrupted(waiting) => Err(Failure::Interrupted(format!(
            "VM {name} is to be off and is not undefined ({waiting}); run the command again to finish"
        ))),
    }
}

/// How far an undefinition has got.
#[derive(Debug, Default)]
struct Progress {
    /// Our wish that it is off was written.
    stopped: bool,
    /// Who may be executing it.
    waiting_for: Vec<NodeName>,
}

/// Takes all the steps that can be taken now.
async fn step(cluster: &Connection, id: VmId, progress: &mut Progress) -> Result<Look<()>, Failure> {
    for _ in 0..ATTEMPTS {
        let vm: Vm = match vm::read(&*cluster.store, id).await? {
            Some(Entry::Good(vm)) => vm,
            Some(Entry::Bad(_)) => cluster.vm(id).await?,
            // Somebody else undefined it at the same time.
            None => return Ok(Look::Done(())),
        };
        let state = vm.state.value;
        if progress.stopped && !matches!(state, VmState::Stop | VmState::Delete) {
            let what =
                format!("VM {} was not undefined: somebody else has wished {state} meanwhile", vm.name);
            return Err(Failure::Failed(what));
        }
        let nodes = cluster.nodes().await?;
        let (change, last) = match next(&vm, nodes.all.iter()) {
            Undefine::Change(change) => (change, false),
            Undefine::Last(change) => (change, true),
            Undefine::WaitFor(holders) => {
                let names: Vec<&str> = holders.iter().map(NodeName::as_str).collect();
                let what = format!("{} may still be executing it", names.join(", "));
                *progress = Progress { stopped: true, waiting_for: holders };
                return Ok(Look::NotYet(what));
            }
        };
        match vm::apply(&*cluster.store, &change).await {
            Ok(_) if last => return Ok(Look::Done(())),
            Ok(_) => progress.stopped = true,
            // A key has moved: decide anew.
            Err(CommitError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Look::NotYet("its keys keep changing".into()))
}

/// What is known of those who hold up an undefinition.
fn describe(nodes: &Nodes, holders: &[NodeName]) -> String {
    let say = |name: &NodeName| match nodes.get(name) {
        Some(node) => format!("the daemon of {name} is in state {}", node.daemon_state.value),
        None => format!("{name} is no node"),
    };
    let words: Vec<String> = holders.iter().map(say).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}
