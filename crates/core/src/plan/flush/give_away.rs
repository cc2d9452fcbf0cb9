//! What shall run on this node while it can start no VMs: it starts elsewhere, and has a way home.
//!
//! Only what nobody claims: a node whose libvirt does not answer may still execute what it claims.

use std::time::Duration;

use super::{
    ClusterCapacity, ClusterView, Facts, NodeName, NotNow, Step, Unfit, Vm, VmKey, VmState, size_of,
};
use crate::{
    plan::vm::last_words,
    sabotage::{self, Bug},
};

/// How long a node may be unable to start VMs before it gives them away: longer than libvirt takes for its restart.
pub const GIVES_AWAY_AFTER: Duration = Duration::from_secs(30);

/// The VMs that shall run here, and that nobody may be executing by their claims.
pub(super) fn of<'a>(me: &'a NodeName, view: &'a ClusterView) -> impl Iterator<Item = &'a Vm> {
    let desired = |vm: &&Vm| matches!(vm.state.value, VmState::Start | VmState::Restart | VmState::Migrate);
    let free = |vm: &&Vm| vm.claim.value.is_empty() && !vm.cannot_read(VmKey::Claim) && !vm.is_half_deleted();
    view.good_vms().filter(|vm| vm.node.value == *me).filter(desired).filter(free)
}

/// Where such a VM goes.
pub(super) fn place(
    facts: &Facts<'_>,
    capacity: &ClusterCapacity,
    vm: &Vm,
) -> Result<(Step, String), NotNow> {
    let Some(unable) = facts.unable else {
        return Err(NotNow::Later(None, "it is started here".to_owned()));
    };
    let reason = format!("{} could not start it: {}", facts.me, unable.why);
    let gives_away_at = unable.since + GIVES_AWAY_AFTER;
    if sabotage::commits(Bug::KeepTheUnable) {
        return Err(NotNow::Later(None, reason));
    }
    if facts.now < gives_away_at {
        return Err(NotNow::Later(Some(gives_away_at), format!("{reason}; another node is chosen soon")));
    }
    if let Some(node) = last_words(facts.view, vm.id, &vm.claim).next() {
        let why = format!("{node} may be executing it by its last word (runningdomains)");
        return Err(NotNow::Later(None, format!("{reason}, and {why}")));
    }
    let local_state = |node: &NodeName| (node == facts.me).then_some(Unfit::Excluded);
    let to = capacity
        .choose(vm.id, size_of(facts, vm), facts.selector, local_state)
        .map_err(|none| NotNow::Later(None, format!("{reason}, and {none}")))?;
    let home = vm.last_node.value.as_ref().unwrap_or(facts.me);
    let home = (*home != to).then(|| home.clone());
    let why = format!("{} starts on {to}: {reason}", vm.name);
    Ok((Step::GiveAway { vm: vm.id, to, home, reason }, why))
}
