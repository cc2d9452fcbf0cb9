//! What a coordinator does next about a node that is silent: declare it dead, cut its power, have its VMs run elsewhere.
//!
//! ```text
//!   silent ──Declare──► shooting ──Shoot──► proven ──ShutOutStorage──► storage fenced ──Recover, PowerOn──► recovered ──► Finish(Done)
//!                          │  ▲                └────────(no RBD image of its VMs)──────────┘
//!                          ▼  │ every fence_intervals
//!                         failed ──(it must have reset itself, or an operator confirms it)──► proven
//! ```
//!
//! A proof is of a moment: for what waited longer than it holds the job goes back to `shooting`, once there is something to do.
//!
//! Silence is not proof of death: nothing of a node is touched before the proof, and only one at a time is powered off. A sign of life
//! ends the job at any step: before the proof it cancels it, after the proof it is another life of the node, which takes care of
//! its VMs itself. Every step is recorded before the next begins, so that another coordinator goes on where a fencer died.
//! Never talks to a BMC, never chooses targets; see [`super::recover`].

mod attempts;
mod renewal;
mod stopped;
mod suspect;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{act, settled, wait};
use super::{
    liveness::{self, Liveness},
    placement::{self, Sizes},
    recover,
};
use crate::{
    model::{ClusterView, DaemonMode, DaemonState, Entry, Fence, FenceStep, Moment, Node, NodeName, Proof},
    sabotage::{self, Bug},
};

pub use super::recover::Action;
pub use attempts::Attempts;

/// How often VMs that found no new home are tried again, and a storage fence that failed.
pub const TRY_AGAIN: Duration = Duration::from_secs(5);

/// How often a power-off that failed is repeated, where no shorter silence is death: the node may be one that speaks seldom, its BMC is
/// not.
const SHOOT_AGAIN: Duration = Duration::from_secs(30);

/// How long a node must be silent before an operator's word that it is dead is acted on, and how often a fence that an operator
/// asked for is repeated, where `fence_intervals` is 0: so many of its intervals, and so long at least.
const WITHOUT_FENCE_INTERVALS: (u32, Duration) = (6, Duration::from_secs(30));

/// The cluster's configuration, as far as fencing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Time between two keepalives of this node, and of others that have not said.
    pub keepalive: Duration,
    /// Intervals of silence after which a node is suspected; 0: nobody is.
    pub fence_intervals: u32,
    /// When its power was cut, or an operator confirmed that it is dead.
    pub successful: Action,
    /// When it could not be cut.
    pub failed: Action,
}

impl Settings {
    /// What happens to the VMs of a node that is dead by this proof.
    pub fn action(&self, proof: Proof) -> Action {
        match proof {
            Proof::PowerOff | Proof::FoundOff | Proof::ResetAccepted | Proof::Operator => self.successful,
            Proof::SelfFence => self.failed,
        }
    }

    /// After how long a node's next keepalive is due.
    pub fn interval(&self, node: &Node) -> Duration {
        liveness::interval(node, self.keepalive)
    }

    /// Silence after which a node is suspected; `None`: nobody is.
    pub fn fence_after(&self, node: &Node) -> Option<Duration> {
        (self.fence_intervals > 0).then(|| self.interval(node) * self.fence_intervals)
    }

    /// The shortest silence of a node from which anything is concluded.
    pub fn patience(&self, node: &Node) -> Duration {
        let (intervals, least) = WITHOUT_FENCE_INTERVALS;
        self.fence_after(node).unwrap_or_else(|| least.max(self.interval(node) * intervals))
    }
}

/// Everything a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// This node.
    pub me: &'a NodeName,
    /// The cluster.
    pub view: &'a ClusterView,
    /// Whether the view is current: a healthy session, listed since the last reconnection.
    pub view_is_current: bool,
    /// Who has been silent for how long.
    pub liveness: &'a Liveness,
    /// The configuration.
    pub settings: &'a Settings,
    /// What VMs need by their definitions; only looked for after the proof.
    pub sizes: &'a Sizes,
    /// Whether this node can shut a node out of the storage.
    pub storage: bool,
    /// What this daemon did about the job so far.
    pub attempts: &'a Attempts,
    /// Now, on this node's monotonic clock.
    pub now: Moment,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// `daemonstate` = `dead`, and take the job.
    Declare,
    /// Ask whether the ZooKeeper servers of these coordinators, whose daemons have stopped, serve.
    AskServers(Vec<NodeName>),
    /// Ask the BMC of a node whose daemon has stopped whether its machine is off; if so, declare it dead by that.
    AskPower,
    /// Take a job that nobody works on.
    TakeOver,
    /// Cut its power; record how it went.
    Shoot,
    /// Record that the node has spoken since an operator said that it is dead.
    Unconfirm,
    /// Record a proof that needs no shot, or that recovery is complete.
    Record(FenceStep),
    /// Power it on again, without waiting for it.
    PowerOn,
    /// Shut its storage clients out; record it.
    ShutOutStorage,
    /// Leave the job to a coordinator that can do what is next.
    Leave,
    /// Give its VMs new homes, until the proof is too old.
    Recover(Moment),
    /// If there is something that could be done about its VMs: ask its BMC whether it is still off.
    AskStillOff,
    /// The job is over.
    Finish(End),
}

/// How a job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It lives: nothing was done to it.
    Cancelled,
    /// It lives again, and its VMs that were not moved are its own.
    Back,
    /// Its VMs were seen running elsewhere.
    Done,
    /// Somebody removed it from the cluster.
    Removed,
}

/// What to do next.
pub type Next = super::Next<Step>;

/// The next step and its reason.
pub type Plan = super::Plan<Step>;

/// Decides the next step about one node.
pub fn plan(node: &NodeName, f: &Facts<'_>) -> Plan {
    let coordinator = f.view.node(f.me).is_some_and(|me| me.mode == DaemonMode::Coordinator);
    if !coordinator || node == f.me {
        return settled();
    }
    if !f.view_is_current {
        return wait(None, "");
    }
    match f.view.fences.get(node) {
        Some(Entry::Good(fence)) => job(fence, f),
        Some(Entry::Bad(problems)) => {
            let what: Vec<String> = problems.iter().map(ToString::to_string).collect();
            wait(None, format!("the record of its fence cannot be read: {}", what.join("; ")))
        }
        None => match f.view.node(node) {
            Some(seen) if seen.should_speak() => suspect::suspect(seen, f),
            Some(seen) if seen.daemon_state.value == DaemonState::Stop => stopped::stopped(seen, f),
            _ => settled(),
        },
    }
}

fn job(fence: &Fence, f: &Facts<'_>) -> Plan {
    // Whoever sees it may do so: its fencer may be waiting for a BMC just now.
    if let Some(over) = f.view.node(&fence.node).and_then(|node| outlived(fence, node)) {
        return over;
    }
    match &fence.fencer {
        Some(fencer) if fencer != f.me => wait(None, ""),
        Some(_) if f.attempts.holds() => work(fence, f),
        Some(_) => act(Step::TakeOver, "an earlier run of this daemon worked on it"),
        None if sabotage::commits(Bug::ForgetDeadFencer) => settled(),
        // Whoever failed to power it off has left it to the others, who may reach the BMC, and waits before it tries again.
        None => match work(fence, f) {
            asks @ Plan { next: Next::Do(Step::AskServers(_)), .. } => asks,
            Plan { next: Next::Do(_), .. } => act(Step::TakeOver, "nobody works on it"),
            waits => waits,
        },
    }
}

/// A node that has said something is not as dead as its fence has it: before the proof that ends the fence, and with it whatever an
/// operator has said; after the proof it is another life of the node. A fence that an operator asked for is of a node that may live:
/// it ends with the boot of the node that it was asked for.
fn outlived(fence: &Fence, node: &Node) -> Option<Plan> {
    let job = &fence.job;
    let sign = sign_of_life(fence, node)?;
    if let Some(proof) = job.step.proof() {
        return Some(act(Step::Finish(End::Back), format!("{sign}; it had been dead: {proof}")));
    }
    if job.asked.is_none() {
        return Some(act(Step::Finish(End::Cancelled), sign));
    }
    if sabotage::commits(Bug::WordOutlivesLife) {
        return None;
    }
    if node.boot.is_some() && node.boot != job.boot {
        let why = format!("{sign}, in another boot than the one that an operator asked to have fenced");
        return Some(act(Step::Finish(End::Cancelled), why));
    }
    let confirmed = job.confirmed_dead.as_ref()?;
    Some(act(Step::Unconfirm, format!("{sign}, though {} had said that it is dead", confirmed.by)))
}

fn sign_of_life(fence: &Fence, node: &Node) -> Option<String> {
    let state = node.daemon_state.value;
    // A word that somebody has spoilt is not the node's.
    if state != DaemonState::Dead && !node.cannot_read("daemonstate") {
        return Some(format!("its daemon says {state}"));
    }
    (fence.job.keepalive_version != node.keepalive_version).then(|| "it wrote a keepalive".to_owned())
}

/// What the job's fencer does next.
fn work(fence: &Fence, f: &Facts<'_>) -> Plan {
    let Some(node) = f.view.node(&fence.node) else {
        return act(Step::Finish(End::Removed), "it was removed from the cluster");
    };
    match (&fence.job.step, fence.job.step.proof()) {
        (FenceStep::Recovered { .. }, _) => seen_running(fence, f),
        (_, Some(proof)) => recover(fence, proof, f),
        (_, None) => unproven(fence, node, f),
    }
}

fn unproven(fence: &Fence, seen: &Node, f: &Facts<'_>) -> Plan {
    let (node, job) = (&fence.node, &fence.job);
    let patience = f.settings.patience(seen);
    let silence = f.liveness.silence(node, f.now);
    if silence < patience && (job.confirmed_dead.is_some() || job.asked.is_none()) {
        let until = f.liveness.silent_for(node, patience, f.now);
        return wait(
            until,
            format!(
                "it must be silent for {} s as this node sees it; it is for {} s",
                patience.as_secs(),
                silence.as_secs()
            ),
        );
    }
    if job.confirmed_dead.is_some() {
        let proof = Proof::Operator;
        return act(Step::Record(FenceStep::Proven { proof }), "an operator confirmed that it is dead");
    }
    let mut look_at = None;
    if let FenceStep::Failed { .. } = job.step
        && f.settings.failed == Action::Migrate
        // That it has reset itself says nothing of the boots since.
        && job.earlier.is_empty()
        && let Some(gone_after) = gone_after(node, f)
    {
        if silence >= gone_after {
            let why = format!("silent for {} s: it must have reset itself by now", silence.as_secs());
            return act(Step::Record(FenceStep::Proven { proof: Proof::SelfFence }), why);
        }
        look_at = f.liveness.silent_for(node, gone_after, f.now);
    }
    if f.view.maintenance {
        return wait(look_at, "it is not powered off: maintenance is on");
    }
    match suspect::not_now(node, f) {
        Some(suspect::Hold::Wait(until, why)) => {
            let until = look_at.into_iter().chain(until).min();
            return wait(until, format!("it is not powered off now: {why}"));
        }
        Some(suspect::Hold::Ask(stopped)) => {
            return act(Step::AskServers(stopped), "whether a quorum would be left");
        }
        None => {}
    }
    if let (FenceStep::Failed { reason, attempts }, Some(at)) = (&job.step, f.attempts.shot_at()) {
        let again = at + patience.min(SHOOT_AGAIN);
        if f.now < again {
            let left = again.since(f.now).as_secs();
            let why = format!(
                "its power could not be cut ({attempts} attempts): {reason}; next attempt in {left} s; if it is dead, say so with pvc node confirm-dead {node}"
            );
            return wait(Some(look_at.map_or(again, |at| at.min(again))), why);
        }
    }
    let why = if job.asked.is_some() { "an operator asked for it".to_owned() } else { silent(silence) };
    act(Step::Shoot, why)
}

/// Silence after which a node has reset itself for certain: what it promised, half of it more, and 10 s. One that promised nothing
/// may live on in silence for ever.
fn gone_after(node: &NodeName, f: &Facts<'_>) -> Option<Duration> {
    let promised = f.view.node(node)?.self_fence_s?;
    Some(Duration::from_secs(promised.into()) * 3 / 2 + Duration::from_secs(10))
}

fn silent(silence: Duration) -> String {
    format!("silent for {:.1} s", silence.as_secs_f32())
}

fn recover(fence: &Fence, proof: Proof, f: &Facts<'_>) -> Plan {
    let node = &fence.node;
    let action = f.settings.action(proof);
    let orders = recover::orders(node, f.view, f.sizes, action, |vm| fence.job.is_shut_out_of(vm));
    let locked = orders.iter().filter(|o| o.locked).count();
    if locked > 0
        && !f.storage
        && let Some(able) = manages_storage(node, f)
    {
        let left = format!(
            "{proof}; {locked} VM(s) with RBD disks wait until {able}, which manages storage, goes on"
        );
        return if f.attempts.holds() { act(Step::Leave, left) } else { wait(None, left) };
    }
    let to_do = orders.len() - locked + recover::orphans(node, f.view).len();
    if let Some(until) = renewal::holds_until(proof, f) {
        if locked > 0 && f.storage && f.attempts.storage_due(f.now) {
            return act(Step::ShutOutStorage, format!("{locked} VM(s) of it use RBD images"));
        }
        if to_do > 0 && f.attempts.recovery_due(f.now) {
            return act(Step::Recover(until), format!("{proof}; {to_do} VM(s)"));
        }
    } else if (to_do > 0 || locked > 0 && f.storage) && f.attempts.recovery_due(f.now) {
        return renewal::renewal(fence, proof, f);
    }
    // Not before its storage clients are shut out, and what has room is elsewhere: what boots may start its VMs itself. But whatever
    // of the storage runs on it, or its own room, may be what the rest waits for.
    if proof == Proof::PowerOff && !f.attempts.powered_on() {
        return act(Step::PowerOn, "its power was cut");
    }
    let (homeless, shut_in) = (f.attempts.homeless(), f.attempts.not_shut_out());
    let words = |(_, why): (Moment, &str)| why.to_owned();
    let mut waits = Vec::new();
    if to_do > 0 {
        waits.push(format!("{to_do} VM(s) wait for a new home: {}", homeless.map(words).unwrap_or_default()));
    }
    if locked > 0 {
        waits.push(match shut_in.or(homeless.filter(|_| f.storage)).map(words) {
            Some(why) => format!("{locked} VM(s) wait until it is shut out of the storage: {why}"),
            None => format!("{locked} VM(s) with RBD disks wait: no coordinator that works manages storage"),
        });
    }
    if !waits.is_empty() {
        // What a proof that is too old held up was due long ago.
        let until = homeless.into_iter().chain(shut_in).map(|(at, _)| at).filter(|at| *at > f.now).min();
        return wait(until, format!("{proof}; {}", waits.join("; ")));
    }
    let left = match action {
        Action::Nothing => "; its VMs stay assigned to it, as the configuration says",
        Action::Migrate => "",
    };
    act(Step::Record(FenceStep::Recovered { proof }), format!("{proof}{left}"))
}

/// Another coordinator that works and can shut the dead one out of the storage.
fn manages_storage<'a>(dead: &NodeName, f: &'a Facts<'_>) -> Option<&'a NodeName> {
    let able = |node: &&Node| {
        let other = node.name != *f.me && node.name != *dead;
        other && node.mode == DaemonMode::Coordinator && placement::works(node) && node.storage == Some(true)
    };
    f.view.all_nodes().find(able).map(|node| &node.name)
}

fn seen_running(fence: &Fence, f: &Facts<'_>) -> Plan {
    let waiting = recover::not_seen_running(&fence.node, f.view);
    match waiting.first() {
        None => act(Step::Finish(End::Done), "its VMs that were moved to nodes that work were seen running"),
        Some(first) => wait(None, format!("{} VM(s) not seen running yet: {first}", waiting.len())),
    }
}
