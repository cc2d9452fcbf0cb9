//! Commands on nodes: flush, ready, primary, secondary, fence and its end, confirm-dead, replace, remove.
//!
//! None of them waits for the outcome, and none touches a node itself: the node's daemon, or a coordinator's, does what is
//! asked. Three of them end with VMs started elsewhere, so they are refused wherever the node may be well.

mod remove;
mod replace;
#[cfg(test)]
mod tests;

pub use remove::{Removal, remove};
pub use replace::replace;

use std::collections::BTreeSet;

use super::{Accepted, Refusal, find};
use crate::{
    model::{
        ClusterView, DaemonMode, DaemonState, DomainState, Entry, Fence, FenceJob, FenceStep, Field, Node,
        NodeName, Word,
    },
    plan::placement::{self, Asker, fit},
};

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeChange {
    /// What shall become of its VMs, decided from the version of the last desired state.
    DomainState {
        /// The node.
        node: NodeName,
        /// `flush` or `unflush`.
        state: DomainState,
        /// The version that was seen.
        version: Option<i32>,
    },
    /// Who shall be primary, decided from the last desired state.
    Primary {
        /// As it was seen.
        seen: Field<Option<NodeName>>,
        /// `None`: whoever is elected.
        node: Option<NodeName>,
    },
    /// A fence that nobody works on yet. `seen`: the node is declared dead in the version of its state that was seen.
    Fence {
        /// The node.
        seen: Box<Node>,
        /// Its record.
        job: FenceJob,
    },
    /// The end of a fence that has proven nothing yet.
    CancelFence {
        /// The node.
        seen: Box<Node>,
        /// The fence; `None`: its record cannot be read.
        fence: Option<Fence>,
    },
    /// An operator's word that a node is dead; fails if a keepalive arrives meanwhile.
    ConfirmDead {
        /// The node.
        seen: Box<Node>,
        /// The fence that goes on already.
        fence: Option<Fence>,
        /// Its record, or that of a new one.
        job: Box<FenceJob>,
    },
}

type Answer = Result<Accepted<NodeChange>, Refusal>;

/// Asks that a node sends its VMs away.
pub fn flush(view: &ClusterView, name: &str) -> Answer {
    let node = find::node_in(view, name)?;
    let what = || format!("{} was not flushed", node.name);
    match node.domain_state.value {
        _ if node.daemon_state.value == DaemonState::Dead => {
            let todo = format!("`pvc node explain {}` says what becomes of its VMs", node.name);
            return Err(Refusal::refused(what(), "it is dead: nothing can be sent away from it", todo));
        }
        // Whatever it says, it is asked for anew.
        _ if node.cannot_read("domainstate") => {}
        DomainState::Flush => return Ok(Accepted::already("it is flushing already")),
        DomainState::Flushed => return Ok(Accepted::already("it is flushed already")),
        DomainState::Ready | DomainState::Unflush => {}
    }
    let others = view.nodes.keys().filter(|other| **other != node.name);
    let others = others.filter(|other| fit(view, other, Asker::Placement).is_ok()).count();
    let runs = view.good_vms().any(|vm| vm.claim.value.names(&node.name));
    let nowhere = (others == 0 && runs).then(|| {
        "no other node takes VMs now: those that cannot go are shut down, as their migration method says"
            .to_owned()
    });
    Ok(domain_state(node, DomainState::Flush, asleep(node).into_iter().chain(nowhere)))
}

/// Asks that a node takes VMs, first those that were sent away from it.
pub fn ready(view: &ClusterView, name: &str) -> Answer {
    let node = find::node_in(view, name)?;
    let refused = |why: &str, todo: String| {
        Err(Refusal::refused(format!("{} takes no VMs as before", node.name), why, todo))
    };
    if view.fences.contains_key(&node.name) {
        return refused(
            "it is being fenced",
            format!("wait until that is over: `pvc node explain {}`", node.name),
        );
    }
    if node.daemon_state.value == DaemonState::Dead {
        return refused("it is dead", "bring it back: when its daemon runs, ask again".to_owned());
    }
    match node.domain_state.value {
        DomainState::Ready => Ok(Accepted::already("it takes VMs already")),
        DomainState::Unflush => Ok(Accepted::already("it is taking its VMs back already")),
        DomainState::Flush | DomainState::Flushed => {
            Ok(domain_state(node, DomainState::Unflush, asleep(node)))
        }
    }
}

fn domain_state(
    node: &Node,
    state: DomainState,
    notes: impl IntoIterator<Item = String>,
) -> Accepted<NodeChange> {
    let change =
        NodeChange::DomainState { node: node.name.clone(), state, version: node.domain_state.version };
    Accepted::write(change, notes)
}

fn asleep(node: &Node) -> Option<String> {
    let state = node.daemon_state.value;
    (state != DaemonState::Run)
        .then(|| format!("the daemon of {} is in state {state}: nothing is done until it runs", node.name))
}

/// Asks that a coordinator becomes primary.
pub fn primary(view: &ClusterView, name: &str) -> Answer {
    let node = find::node_in(view, name)?;
    let refused = |why: String, todo: &str| {
        Err(Refusal::refused(format!("{} was not made primary", node.name), why, todo))
    };
    if node.mode == DaemonMode::Hypervisor {
        return refused("it is a hypervisor only".into(), "name a coordinator: `pvc node list` shows them");
    }
    if !placement::works(node) {
        let why = format!("its daemon is in state {}", node.daemon_state.value);
        return refused(why, "start pvcd there, or name another coordinator");
    }
    if view.fences.contains_key(&node.name) {
        return refused("it is being fenced".into(), "name another coordinator");
    }
    if view.primary_node.value.as_ref() == Some(&node.name) {
        let holds = view.primary_holder.as_ref() == Some(&node.name);
        let said =
            if holds { "it is primary already" } else { "it is to be primary already, but is not yet" };
        return Ok(Accepted::already(said));
    }
    Ok(Accepted::write(desired(view, Some(node.name.clone())), None))
}

/// Asks that a coordinator stops being primary; another one is elected.
pub fn secondary(view: &ClusterView, name: &str) -> Answer {
    let node = find::node_in(view, name)?;
    let is = |who: &Option<NodeName>| who.as_ref() == Some(&node.name);
    if !is(&view.primary_node.value) && !is(&view.primary_holder) {
        return Ok(Accepted::already("it is not primary"));
    }
    if successors(view, &node.name).next().is_none() {
        return Err(Refusal::refused(
            format!("{} stays primary", node.name),
            "no other coordinator's daemon runs",
            "start pvcd on another coordinator first",
        ));
    }
    if !is(&view.primary_node.value) && view.primary_node.value.is_none() {
        return Ok(Accepted::already("it is to step down already"));
    }
    Ok(Accepted::write(desired(view, None), None))
}

fn desired(view: &ClusterView, node: Option<NodeName>) -> NodeChange {
    NodeChange::Primary { seen: view.primary_node.clone(), node }
}

/// Coordinators that work, except one.
fn successors<'a>(view: &'a ClusterView, but: &'a NodeName) -> impl Iterator<Item = &'a Node> {
    view.all_nodes().filter(move |node| {
        node.mode == DaemonMode::Coordinator
            && node.name != *but
            && placement::works(node)
            && !view.fences.contains_key(&node.name)
    })
}

/// Who asks, and when: for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// In words: `an operator on hv1`.
    pub by: String,
    /// That machine's clock, seconds since 1970.
    pub at_unix_s: u64,
}

impl Signature {
    fn word(&self) -> Word {
        Word { by: self.by.clone(), at_unix_s: self.at_unix_s }
    }
}

/// What is known of a node's life besides its keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Life {
    /// The run of its daemon that has a session with the state store now.
    pub instance: Option<String>,
    /// Its keepalive was seen to move while the operator waited.
    pub heard: bool,
    /// The others know how to reach its power controller.
    pub has_bmc: bool,
}

/// Asks the coordinators to fence a node now, be it heard of or not: its power is cut, its VMs are started elsewhere.
pub fn fence(view: &ClusterView, name: &str, life: &Life, signature: Signature) -> Answer {
    let node = find::node_in(view, name)?;
    let refused =
        |why: String, todo: String| Err(Refusal::refused(format!("{} is not fenced", node.name), why, todo));
    match view.fences.get(&node.name) {
        Some(Entry::Good(fence)) => {
            return Ok(Accepted::already(format!("it is being fenced already: {}", step_words(&fence.job))));
        }
        Some(Entry::Bad(problems)) => return Err(unreadable(&node.name, problems)),
        None => {}
    }
    if view.maintenance {
        return refused(
            "maintenance is on, which suspends fencing".into(),
            "`pvc maintenance off` first".into(),
        );
    }
    if !life.has_bmc {
        let todo = format!(
            "set system.fencing.ipmi in its pvcd.yaml; if it is off for certain, `pvc node confirm-dead {}`",
            node.name
        );
        return refused("nobody knows its power controller (IPMI)".into(), todo);
    }
    let others = successors(view, &node.name).count();
    if others == 0 {
        return refused(
            "no other coordinator's daemon runs: nobody would do it".into(),
            "start pvcd on another coordinator".into(),
        );
    }
    if let Some(needed) = quorum_lost(view, node, others) {
        let why = format!("{others} coordinators would be left, {needed} are needed for a quorum");
        return refused(why, "bring another coordinator back first".into());
    }
    let job = FenceJob {
        step: FenceStep::Shooting,
        instance: life.instance.clone(),
        asked: Some(signature.word()),
        confirmed_dead: None,
        by: signature.by,
        at_unix_s: signature.at_unix_s,
        keepalive_version: node.keepalive_version,
        boot: node.boot.clone(),
        freed: BTreeSet::new(),
        earlier: Vec::new(),
    };
    Ok(Accepted::write(NodeChange::Fence { seen: Box::new(node.clone()), job }, None))
}

/// The coordinators that a quorum needs, if fewer would be left without this node.
fn quorum_lost(view: &ClusterView, node: &Node, others: usize) -> Option<usize> {
    let all = view.all_nodes().filter(|n| n.mode == DaemonMode::Coordinator).count();
    let needed = all / 2 + 1;
    // Two coordinators never have a quorum of one; what is fenced there is the operator's choice.
    (node.mode == DaemonMode::Coordinator && all > 2 && others < needed).then_some(needed)
}

/// Takes an operator's word that a node executes nothing any more: what is done within a minute needs no other proof.
pub fn confirm_dead(view: &ClusterView, name: &str, life: &Life, signature: Signature) -> Answer {
    let node = find::node_in(view, name)?;
    let refused = |why: &str, todo: String| {
        Err(Refusal::refused(format!("{} was not taken for dead", node.name), why, todo))
    };
    if life.heard {
        let todo = format!(
            "it lives; to put it out of the cluster, `pvc node flush {0}` or `pvc node fence {0}`",
            node.name
        );
        return refused("its keepalives arrive", todo);
    }
    if life.instance.is_some() {
        return refused(
            "its daemon is connected to the state store",
            format!(
                "if it has just died, its session ends within seconds: try again; else `pvc node fence {}`",
                node.name
            ),
        );
    }
    let fence = match view.fences.get(&node.name) {
        Some(Entry::Bad(problems)) => return Err(unreadable(&node.name, problems)),
        Some(Entry::Good(fence)) => Some(fence.clone()),
        None => None,
    };
    match &fence {
        // A word that was said before the node spoke again is said anew.
        Some(Fence { job, .. })
            if job.step.proof().is_none()
                && job.confirmed_dead.is_some()
                && job.keepalive_version == node.keepalive_version =>
        {
            return Ok(Accepted::already("an operator has confirmed that already"));
        }
        Some(Fence { job, .. }) if matches!(job.step, FenceStep::Recovered { .. }) => {
            return Ok(Accepted::already(format!("it is proven already: {}", step_words(job))));
        }
        _ => {}
    }
    if successors(view, &node.name).next().is_none() {
        return refused(
            "no other coordinator's daemon runs: nobody would act on it now, and such a word holds for a minute",
            "start pvcd on another coordinator first".into(),
        );
    }
    let record = || FenceJob {
        step: FenceStep::Failed {
            reason: "not attempted: an operator says that it is dead".into(),
            attempts: 0,
        },
        instance: None,
        by: signature.by.clone(),
        at_unix_s: signature.at_unix_s,
        confirmed_dead: None,
        asked: None,
        keepalive_version: None,
        boot: None,
        freed: BTreeSet::new(),
        earlier: Vec::new(),
    };
    let before = match &fence {
        None => record(),
        // It may have been switched on since.
        Some(Fence { job, .. }) if job.step.proof().is_some() => job.clone().to_be_proven_again(),
        Some(fence) => fence.job.clone(),
    };
    let job = FenceJob {
        confirmed_dead: Some(signature.word()),
        // What was asked of another boot is over.
        asked: before.asked.filter(|_| before.boot == node.boot),
        keepalive_version: node.keepalive_version,
        boot: node.boot.clone(),
        ..before
    };
    let change = NodeChange::ConfirmDead { seen: Box::new(node.clone()), fence, job: Box::new(job) };
    Ok(Accepted::write(change, None))
}

/// Ends a fence that has proven nothing yet, and whatever an operator has said in it.
pub fn cancel_fence(view: &ClusterView, name: &str) -> Answer {
    let node = find::node_in(view, name)?;
    let fence = match view.fences.get(&node.name) {
        None => return Ok(Accepted::already("it is not being fenced")),
        Some(Entry::Bad(_)) => None,
        Some(Entry::Good(fence)) if fence.job.step.proof().is_some() => {
            return Err(Refusal::refused(
                format!("the fence of {} goes on", node.name),
                format!("it is proven dead: {}", step_words(&fence.job)),
                format!("bring it back when that is over: `pvc node explain {}`", node.name),
            ));
        }
        Some(Entry::Good(fence)) => Some(fence.clone()),
    };
    let notes = [
        "it counts as running again: if it is silent, it is fenced anew after a whole silence".to_owned(),
        "a command to its BMC that is under way is not called back".to_owned(),
    ];
    Ok(Accepted::write(NodeChange::CancelFence { seen: Box::new(node.clone()), fence }, notes))
}

/// How far a fence has come, in words.
pub fn step_words(job: &FenceJob) -> String {
    let words = match &job.step {
        FenceStep::Shooting => "its power is being cut".to_owned(),
        FenceStep::Failed { reason, attempts: 0 } => reason.clone(),
        FenceStep::Failed { reason, attempts } => {
            format!("its power could not be cut in {attempts} attempt(s): {reason}")
        }
        FenceStep::Proven { proof } => format!("{proof}; its storage clients are being shut out"),
        FenceStep::StorageFenced { proof } => format!("{proof}; its VMs are being given new homes"),
        FenceStep::Recovered { proof } => format!("{proof}; its VMs are starting elsewhere"),
    };
    match job.earlier.last().filter(|_| job.step.proof().is_none()) {
        Some(earlier) => {
            format!("{words} (before: {earlier}; VMs of it had to wait since, and it may be on again)")
        }
        None => words,
    }
}

fn unreadable(node: &NodeName, problems: &[crate::model::Problem]) -> Refusal {
    let why = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Refusal::refused(
        format!("nothing was done with {node}"),
        why,
        format!("`pvc node fence {node} --cancel` ends it"),
    )
}
