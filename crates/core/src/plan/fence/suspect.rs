//! Whether a silent node may be declared dead, or shot, now. The fault may be ours: rather nobody is fenced than too many.

use super::{Facts, Plan, Step, act, settled, silent, wait};
use crate::{
    model::{DaemonMode, DaemonState, Entry, Fence, FenceStep, Moment, Node, NodeName},
    plan::liveness::longest_gap,
    sabotage::{self, Bug},
};

/// About a node without a fence whose daemon should speak.
pub(super) fn suspect(seen: &Node, f: &Facts<'_>) -> Plan {
    let node = &seen.name;
    if sabotage::commits(Bug::UnreadableIsUnfenced) && !seen.problems.is_empty() {
        return settled();
    }
    let Some(fence_after) = f.settings.fence_after(seen) else { return settled() };
    let silence = f.liveness.silence(node, f.now);
    if silence < fence_after {
        return wait(f.liveness.silent_for(node, fence_after, f.now), "");
    }
    if f.view.maintenance {
        return wait(None, format!("{}, and not fenced: maintenance is on", silent(silence)));
    }
    match too_many(seen, f).map(|why| Hold::Wait(None, why)).or_else(|| not_now(node, f)) {
        Some(Hold::Wait(until, why)) => {
            return wait(until, format!("{}, and not fenced now: {why}", silent(silence)));
        }
        Some(Hold::Ask(stopped)) => return act(Step::AskServers(stopped), silent(silence)),
        None => {}
    }
    act(Step::Declare, silent(silence))
}

/// If more than half of the others fell silent within one interval, the fault is rather this node's. A single one is no majority.
fn too_many(suspect: &Node, f: &Facts<'_>) -> Option<String> {
    // Whose last keepalive was due in the same interval as that of the first one to be silent for so long.
    let same_interval = |n: &Node| {
        let after = f.settings.fence_after(n)?;
        Some(after.saturating_sub(f.settings.interval(n).min(after / 2)))
    };
    let suspected = same_interval(suspect)?;
    // One that speaks less often than the suspect is silent with it as soon as it has missed a keepalive.
    let is_silent = |n: &Node| {
        let after = same_interval(n)?.min(suspected.max(longest_gap(f.settings.interval(n))));
        Some(f.liveness.silence(&n.name, f.now) >= after)
    };
    let others = || f.view.all_nodes().filter(|n| n.name != *f.me && n.should_speak());
    let silent = others().filter(|n| is_silent(n) == Some(true)).count();
    let others = others().count();
    (silent > 1 && silent * 2 > others)
        .then(|| format!("{silent} of {others} other nodes are silent: the fault may be this node's"))
}

/// Why a node may not be powered off now, whoever wants it.
pub(super) enum Hold {
    /// For this reason; looked at again then, if nothing is signalled before.
    Wait(Option<Moment>, String),
    /// Only these coordinators' servers know.
    Ask(Vec<NodeName>),
}

/// Whether a node may be powered off now, whoever wants it.
pub(super) fn not_now(node: &NodeName, f: &Facts<'_>) -> Option<Hold> {
    another_fence(node, f).map(|why| Hold::Wait(None, why)).or_else(|| quorum_would_be_lost(node, f))
}

/// One at a time: while it is not known how another one ends, nobody else is powered off. Of two that wait, the first by name goes on.
/// One that nobody works on, because no quorum would be left, may wait for hours: it holds up no other.
fn another_fence(node: &NodeName, f: &Facts<'_>) -> Option<String> {
    let mine = f.view.fences.contains_key(node);
    let held =
        |fence: &Fence| !worked_on_by_another(fence, f) && quorum_would_be_lost(&fence.node, f).is_some();
    let (other, _) = f.view.fences.iter().find(|(other, entry)| {
        let shooting = |fence: &Fence| fence.job.step == FenceStep::Shooting && !held(fence);
        *other != node && (!mine || *other < node) && entry.good().is_some_and(shooting)
    })?;
    Some(format!("{other} is being fenced"))
}

fn worked_on_by_another(fence: &Fence, f: &Facts<'_>) -> bool {
    fence.fencer.as_ref().is_some_and(|fencer| fencer != f.me)
}

/// A coordinator is powered off only if the others that can be there are a majority of all: who just fell silent may have taken its
/// ZooKeeper with it, while that of the one to be powered off still holds the quorum together. A coordinator whose daemon has stopped in
/// order may serve all the same; its server is asked when it matters.
fn quorum_would_be_lost(node: &NodeName, f: &Facts<'_>) -> Option<Hold> {
    let coordinators = || f.view.all_nodes().filter(|n| n.mode == DaemonMode::Coordinator);
    if !coordinators().any(|n| n.name == *node) || sabotage::commits(Bug::ShootTheLast) {
        return None;
    }
    let others = || coordinators().filter(|n| n.name != *node);
    // Another node may be cutting its power just now, though it still speaks.
    let goes = |name: &NodeName| {
        let fence = f.view.fences.get(name).and_then(Entry::good);
        fence.is_some_and(|fence| fence.job.step == FenceStep::Shooting && worked_on_by_another(fence, f))
    };
    // A fencer that has just begun to listen has missed nothing yet of one that has long been off.
    let heard = |n: &Node| {
        f.liveness.spoke(&n.name) && f.liveness.silence(&n.name, f.now) < f.settings.interval(n) * 2
    };
    let works = |n: &&Node| n.should_speak() && (n.name == *f.me || heard(n)) && !goes(&n.name);
    let stopped = || others().filter(|n| n.daemon_state.value == DaemonState::Stop);
    let all = coordinators().count();
    let suffice = |left: usize| left * 2 > all;
    let left = others().filter(works).count();
    let mut again = None;
    let left = if suffice(left) || !suffice(left + stopped().count()) {
        left
    } else {
        let Some((serving, at)) = f.attempts.serving(f.now) else {
            return Some(Hold::Ask(stopped().map(|n| n.name.clone()).collect()));
        };
        again = Some(at);
        left + stopped().filter(|n| serving.contains(&n.name)).count()
    };
    let why = || format!("{left} of {all} coordinators would be left, which is no quorum");
    (!suffice(left)).then(|| Hold::Wait(again, why()))
}
