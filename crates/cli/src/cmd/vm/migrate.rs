//! `pvc vm migrate|unmigrate|move`: gives a VM another node, then waits until it is seen to run there.
//!
//! What runs is moved by the daemons. A failed migration leaves the VM where it was; that is a failure here too, with its
//! reason.

#[cfg(test)]
mod tests;

use std::time::Duration;

use pvc_core::{
    command::vm::{self as command, Moved, Target},
    model::{NodeName, Vm, VmId, VmState},
};
use pvc_store::{
    CommitError,
    schema::{
        node::{self, Reported},
        placement, vm,
    },
};

use crate::{
    args,
    connect::{self, Connection},
    failure::Failure,
    print::Out,
    read::gone,
    wait::{self, Look, Waited},
};

/// How often a target is chosen anew because something moved meanwhile. Other placements count, too, and they come in bursts.
const ATTEMPTS: usize = 20;

/// How long a migration may take before one stops watching: a large guest that writes a lot takes minutes.
const PATIENCE: Duration = Duration::from_mins(10);

/// Which move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Migrate,
    Unmigrate,
    Move,
}

impl Kind {
    fn wished(self) -> &'static str {
        match self {
            Self::Migrate => "migrates",
            Self::Unmigrate => "returns",
            Self::Move => "moves",
        }
    }
}

pub(super) async fn migrate(
    cluster: &Connection,
    out: &Out,
    kind: Kind,
    args: &args::Migrate,
) -> Result<(), Failure> {
    let id = cluster.find_vm(&args.wish.vm.vm).await?;
    let (vm, moved) = write(cluster, id, kind, args).await?;
    let (name, notes) = (vm.name.to_string(), &moved.accepted.notes);
    let (from, to) = (&vm.node.value, &moved.node);
    if !moved.live {
        return out.message(&format!("VM {name} is off and belongs to {to} now"), notes);
    }
    let wished = format!("{} from {from} to {to}", kind.wished());
    if args.wish.no_wait {
        return out.message(&format!("VM {name} {wished}"), notes);
    }
    for note in notes {
        out.aside(&format!("{name}: {note}"));
    }
    let within = args.wish.wait.unwrap_or(PATIENCE);
    let paths = [vm::path(id), vm::explain_path(id), node::path(to)];
    let look = async || look(cluster, id, from, to).await;
    match wait::until(&*cluster.store, &paths, within, out, look).await? {
        Waited::Done(()) => out.message(&format!("VM {name} runs on {to}"), &[]),
        Waited::TimedOut(waiting) => Err(Failure::Failed(format!(
            "VM {name} {wished}, but has not arrived after {} s: {waiting}. It goes on; `pvc vm explain {name}` says more",
            within.as_secs()
        ))),
        Waited::Interrupted(waiting) => Err(Failure::Interrupted(format!(
            "VM {name} {wished} all the same ({waiting}); `pvc vm explain {name}` shows how it goes"
        ))),
    }
}

/// Decides and writes, anew if somebody else was faster.
async fn write(
    cluster: &Connection,
    id: VmId,
    kind: Kind,
    args: &args::Migrate,
) -> Result<(Vm, Moved), Failure> {
    let target = args
        .target
        .as_deref()
        .map_or_else(|| Target::Chosen(connect::selector(args.selector)), Target::Named);
    let request = command::Migrate { target, force: args.force };
    let mut attempt = 1;
    loop {
        let view = cluster.view().await?;
        let vm = match view.vm(id) {
            Some(vm) => vm.clone(),
            // Unreadable, or gone: this says which.
            None => cluster.vm(id).await.and(Err(gone(id).into()))?,
        };
        let ground = cluster.rooms(&view).await?;
        let size = cluster.size(&ground, &vm).await?;
        let rooms = &ground.rooms;
        let moved = match kind {
            Kind::Migrate => command::migrate(&vm, request, &view, rooms, size),
            Kind::Unmigrate => command::unmigrate(&vm, args.force, &view, rooms, size),
            Kind::Move => command::move_to(&vm, request, &view, rooms, size),
        }?;
        let Some(change) = &moved.accepted.change else { return Ok((vm, moved)) };
        let store = &*cluster.store;
        let written = if moved.live {
            placement::apply_placed(store, change, view.placement_version).await
        } else {
            vm::apply(store, change).await
        };
        match written {
            Ok(_) => return Ok((vm, moved)),
            Err(CommitError::Conflict { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(e) => return Err(e.into()),
        }
    }
}

async fn look(cluster: &Connection, id: VmId, from: &NodeName, to: &NodeName) -> Result<Look<()>, Failure> {
    let vm = cluster.vm(id).await?;
    let store = &*cluster.store;
    // The target may report it before its claim says so; what is reported from before it was claimed there is another matter.
    let reported = node::reported(store, to, id, vm.node.zxid).await?;
    let said = vm::read_explanation(store, id).await?.and_then(Result::ok);
    let said = said.map(|e| format!("{} is {}: {}", e.by, e.doing, e.because));
    judge(&vm, from, to, reported, said)
}

/// Whether it has arrived, cannot arrive any more, or not yet. `reported`: what the target has said since it was its node.
fn judge(
    vm: &Vm,
    from: &NodeName,
    to: &NodeName,
    reported: Reported,
    said: Option<String>,
) -> Result<Look<()>, Failure> {
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
            _ => Ok(Look::Done(())),
        },
        VmState::Start | VmState::Migrate => Ok(Look::NotYet(said.unwrap_or_else(|| {
            let on_its_way = vm.claim.value.names(to);
            format!("waiting for {}", if on_its_way || vm.claim.value.is_empty() { to } else { from })
        }))),
        other => failed(format!("VM {}: somebody else has wished {other} meanwhile, which counts", vm.name)),
    }
}
