//! Who may be executing a VM by what the nodes said last, whatever its claim says.
//!
//! The claim is written by daemons that made it; what was started behind their backs, or was executing when a client deleted the claim, is
//! known only from `runningdomains`. A word older than the claim's last write is answered by it: who released the claim, or was proven dead, was
//! heard of in the meantime. Silence, a stopped daemon or a broken key take back no word; only a proof of death does.

use crate::{
    model::{Claim, ClusterView, DaemonState, Entry, Field, Node, NodeName, VmId},
    sabotage::{self, Bug},
};

/// The nodes, other than those that the claim names, whose last word is that they execute the VM, or whose word cannot be read while
/// no claim says more.
pub fn last_words<'a>(
    view: &'a ClusterView,
    id: VmId,
    claim: &'a Field<Claim>,
) -> impl Iterator<Item = &'a NodeName> {
    let unclaimed = claim.version.is_none();
    let says_so = move |node: &&Node| {
        let says = node.report.running.contains(&id) && (unclaimed || node.last_word.zxid > claim.zxid);
        (says || (unclaimed && !is_readable(node))) && !proven_dead(view, node)
    };
    let others = view.all_nodes().filter(move |node| !claim.value.names(&node.name));
    others.filter(says_so).map(|node| &node.name)
}

/// Why a VM must not be started by `me` now.
pub fn may_execute_elsewhere(
    view: &ClusterView,
    me: &NodeName,
    id: VmId,
    claim: &Field<Claim>,
) -> Result<(), String> {
    if sabotage::commits(Bug::IgnoreLastWord) {
        return Ok(());
    }
    let others: Vec<&str> =
        last_words(view, id, claim).filter(|name| *name != me).map(NodeName::as_str).collect();
    let Some(first) = others.first() else { return Ok(()) };
    Err(format!(
        "{} may be executing it by its last word (runningdomains): it must say that it does not, or be proven dead; if it is dead, say so \
         with pvc node confirm-dead {first}",
        others.join(", ")
    ))
}

fn is_readable(node: &Node) -> bool {
    !node.problems.iter().any(|problem| problem.key.ends_with("/runningdomains"))
}

/// A fence of it has a proof, or is over.
pub fn proven_dead(view: &ClusterView, node: &Node) -> bool {
    let proven = match view.fences.get(&node.name) {
        None => true,
        Some(Entry::Good(fence)) => fence.job.step.proof().is_some(),
        Some(Entry::Bad(_)) => false,
    };
    node.daemon_state.value == DaemonState::Dead && proven
}
