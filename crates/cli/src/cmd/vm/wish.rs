//! `pvc vm start|stop|shutdown|restart`: writes the wish, then waits until it is seen to be so.
//!
//! Success is reported after it was observed, or with `--no-wait` as a wish that was written.

#[cfg(test)]
mod tests;

use std::time::Duration;

use pvc_core::{
    command::{self, Accepted, Refusal},
    model::{Halt, Vm, VmId, VmState},
};
use pvc_store::{
    CommitError,
    schema::{
        node::{self, Reported},
        vm,
    },
};

use tokio::time::timeout;

use crate::{
    args,
    connect::Connection,
    failure::Failure,
    print::Out,
    read::Nodes,
    wait::{self, Look, Waited},
};

/// How long the cluster's memory is counted.
const COUNT_WITHIN: Duration = Duration::from_secs(3);
/// How often a wish is decided anew because the VM's keys moved meanwhile.
const ATTEMPTS: usize = 5;

/// Which wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Start,
    Stop,
    Shutdown,
    Restart,
}

impl Kind {
    fn decide(self, vm: &Vm, nodes: &Nodes) -> Result<Accepted, Refusal> {
        match self {
            Self::Start => command::vm::start(vm, nodes.all.iter()),
            Self::Stop => command::vm::stop(vm),
            Self::Shutdown => command::vm::shutdown(vm),
            Self::Restart => command::vm::restart(vm),
        }
    }

    /// The word for a wish that was written.
    fn wished(self) -> &'static str {
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

pub(super) async fn wish(
    cluster: &Connection,
    out: &Out,
    kind: Kind,
    args: &args::Wish,
) -> Result<(), Failure> {
    let id = cluster.find_vm(&args.vm.vm).await?;
    let (vm, notes) = write(cluster, id, kind).await?;
    let name = vm.name.to_string();
    if args.no_wait {
        return out.message(&format!("VM {name} {}", kind.wished()), &notes);
    }
    for note in &notes {
        out.aside(&format!("{name}: {note}"));
    }
    if kind == Kind::Start {
        for warning in strained(cluster, &vm).await {
            out.aside(&format!("{name}: {warning}"));
        }
    }
    let within = args.wait.unwrap_or(kind.patience());
    let paths = [vm::path(id), vm::explain_path(id), node::path(&vm.node.value)];
    let look = async || look(cluster, id, kind).await;
    match wait::until(&*cluster.store, &paths, within, out, look).await? {
        Waited::Done(done) => out.message(&format!("VM {name} {done}"), &[]),
        Waited::TimedOut(waiting) => Err(Failure::Failed(format!(
            "VM {name} {}, but is not yet after {} s: {waiting}. The wish stands; `pvc vm explain {name}` says more",
            kind.wished(),
            within.as_secs()
        ))),
        Waited::Interrupted(waiting) => {
            Err(Failure::Interrupted(format!("VM {name} {} all the same ({waiting})", kind.wished())))
        }
    }
}

/// What a start takes from the cluster. Nothing is refused for it, and a start waits for nobody's counting: what cannot be read in time is
/// not said.
async fn strained(cluster: &Connection, vm: &Vm) -> Vec<String> {
    let count = async {
        let view = cluster.view().await.ok()?;
        Some(cluster.rooms(&view).await.ok()?.reserve(&view))
    };
    let Ok(Some(reserve)) = timeout(COUNT_WITHIN, count).await else { return Vec::new() };
    command::vm::strained(vm, &reserve)
}

/// Decides and writes, anew if somebody else was faster.
async fn write(cluster: &Connection, id: VmId, kind: Kind) -> Result<(Vm, Vec<String>), Failure> {
    let nodes = cluster.nodes().await?;
    let mut attempt = 1;
    loop {
        let vm = cluster.vm(id).await?;
        let accepted = kind.decide(&vm, &nodes)?;
        let Some(change) = accepted.change else { return Ok((vm, accepted.notes)) };
        match vm::apply(&*cluster.store, &change).await {
            Ok(_) => return Ok((vm, accepted.notes)),
            Err(CommitError::Conflict { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(e) => return Err(e.into()),
        }
    }
}

async fn look(cluster: &Connection, id: VmId, kind: Kind) -> Result<Look<String>, Failure> {
    let vm = cluster.vm(id).await?;
    let store = &*cluster.store;
    // A report from before the claim may tell of the instance before this one.
    let reported = node::reported(store, &vm.node.value, id, vm.claim.zxid).await?;
    let said = vm::read_explanation(store, id).await?.and_then(Result::ok);
    let said = said.map(|e| format!("{} is {}: {}", e.by, e.doing, e.because));
    judge(kind, &vm, reported, said)
}

/// Whether it is so, cannot be so any more, or not yet. `reported`: what the VM's node has said since it claimed it.
fn judge(kind: Kind, vm: &Vm, reported: Reported, said: Option<String>) -> Result<Look<String>, Failure> {
    let not_yet = |what: String| Ok(Look::NotYet(said.unwrap_or(what)));
    let node = &vm.node.value;
    let state = vm.state.value;
    if state == VmState::Failed {
        return Err(Failure::Failed(format!("VM {} failed: {}", vm.name, vm.failed_reason.value)));
    }
    let in_progress = match kind {
        Kind::Start => state == VmState::Start,
        Kind::Stop => state == VmState::Stop,
        Kind::Shutdown => matches!(state, VmState::Shutdown | VmState::Stop),
        Kind::Restart => matches!(state, VmState::Restart | VmState::Start),
    };
    if !in_progress {
        let what = format!("VM {}: somebody else has wished {state} meanwhile, which counts", vm.name);
        return Err(Failure::Failed(what));
    }
    if kind.ends_running() {
        let is_there = state == VmState::Start && vm.claim.value.names(node);
        return match reported {
            Reported::Executes if is_there => Ok(Look::Done(format!("runs on {node}"))),
            // What has crashed is about to be started anew.
            Reported::Halted(halt) if is_there && halt != Halt::Crashed && halt != Halt::Busy => {
                Err(Failure::halted(vm, node, halt))
            }
            _ => not_yet(format!("waiting for {node}")),
        };
    }
    if state == VmState::Stop && vm.claim.value.is_empty() {
        return Ok(Look::Done("is off".into()));
    }
    not_yet(format!(
        "waiting for {}",
        if vm.claim.value.is_empty() { node.to_string() } else { vm.claim.value.to_string() }
    ))
}
