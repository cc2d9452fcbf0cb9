//! Whether a silent node may be declared dead, or shot, now. The fault may be ours: rather nobody is fenced than too many.

use std::time::Duration;

use super::{Facts, Plan, Step, act, settled, silent, wait};
use crate::model::{DaemonMode, DaemonState, FenceStep, Node, NodeName};

/// About a node without a fence.
pub(super) fn suspect(node: &NodeName, f: &Facts<'_>) -> Plan {
    let Some(fence_after) = f.settings.fence_after else { return settled() };
    let runs = f.view.node(node).is_some_and(runs);
    if !runs {
        return settled();
    }
    let silence = f.liveness.silence(node, f.now);
    if silence < fence_after {
        return wait(f.liveness.silent_for(node, fence_after), "");
    }
    if f.view.maintenance {
        return wait(None, format!("{}, and not fenced: maintenance is on", silent(silence)));
    }
    if let Some(why) = too_many(fence_after, f).or_else(|| not_now(node, f)) {
        return wait(None, format!("{}, and not fenced now: {why}", silent(silence)));
    }
    act(Step::Declare, silent(silence))
}

/// Only a node that said it works is missed when it does not.
fn runs(node: &Node) -> bool {
    node.daemon_state.value == DaemonState::Run
}

/// If more than half of the others fell silent within one interval, the fault is rather this node's. A single one is no majority.
fn too_many(fence_after: Duration, f: &Facts<'_>) -> Option<String> {
    // Whose last keepalive was due in the same interval as that of the first one to be silent for so long.
    let silent_for = fence_after.saturating_sub(f.settings.keepalive.min(fence_after / 2));
    let others = || f.view.good_nodes().filter(|n| n.name != *f.me && runs(n));
    let silent = others().filter(|n| f.liveness.silence(&n.name, f.now) >= silent_for).count();
    let others = others().count();
    (silent > 1 && silent * 2 > others)
        .then(|| format!("{silent} of {others} other nodes are silent: the fault may be this node's"))
}

/// Why a node may not be shot now, whoever wants it.
pub(super) fn not_now(node: &NodeName, f: &Facts<'_>) -> Option<String> {
    another_fence(node, f).or_else(|| quorum_would_be_lost(node, f))
}

/// One at a time: while it is not known how another one ends, nobody else is shot. Of two that wait, the first by name goes on.
fn another_fence(node: &NodeName, f: &Facts<'_>) -> Option<String> {
    let mine = f.view.fences.contains_key(node);
    let other = f.view.fences.iter().find(|(other, entry)| {
        let shooting = entry.good().is_some_and(|fence| fence.job.step == FenceStep::Shooting);
        *other != node && shooting && (!mine || *other < node)
    })?;
    Some(format!("{} is being fenced", other.0))
}

/// A coordinator is shot only if the others that can be there are a majority of all: who just fell silent may have taken its
/// ZooKeeper with it, while that of the one to be shot still holds the quorum together.
fn quorum_would_be_lost(node: &NodeName, f: &Facts<'_>) -> Option<String> {
    let coordinators = || f.view.good_nodes().filter(|n| n.mode == DaemonMode::Coordinator);
    if !coordinators().any(|n| n.name == *node) {
        return None;
    }
    let silent = |n: &Node| n.name != *f.me && f.liveness.silence(&n.name, f.now) >= f.settings.keepalive * 2;
    let gone = |n: &Node| matches!(n.daemon_state.value, DaemonState::Dead | DaemonState::Stop) || silent(n);
    let left = coordinators().filter(|n| n.name != *node && !gone(n)).count();
    let all = coordinators().count();
    (left * 2 <= all).then(|| format!("{left} of {all} coordinators would be left, which is no quorum"))
}
