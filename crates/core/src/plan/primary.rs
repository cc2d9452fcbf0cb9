//! What this coordinator does next about being primary: the holder of the floating addresses and of what is served on them.
//!
//! ```text
//!   free ──Take──► tenure ──Hold──► addresses ──Answer──► desired state = fact ──Say──► routerstate ──StartServices──► primary
//!   primary ──(the desired state names another, or none, or this node stops)──► StopServices ──► Release ──► free
//! ```
//!
//! At most one node has the addresses at any instant:
//! - they are added only while this node has the ephemeral key in its present session, and removed before it is given back;
//! - while the store takes no writes they are dropped at two thirds of the session time-out after the leader certainly heard of this
//!   session, before anybody else can have been given the key ([`keep_until`]). What a server without a leader answers keeps nothing;
//! - they have a lifetime that the kernel enforces and that ends before the session can ([`lifetime_s`]), so the same holds of a
//!   daemon that was killed, hangs or is frozen. That is what makes a fence unnecessary before the next one takes them.
//!
//! The desired state and the fact share a key with old clients. One that is older than this node's tenure had its chance: it is
//! answered; one that is younger is a command. Nothing that this node cannot know is waited for without bound.

mod attempts;
mod gateways;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{act, settled, wait};
use crate::{
    model::{ClusterView, DaemonMode, DaemonState, Moment, NodeName, RouterState},
    sabotage::{self, Bug},
};

pub use attempts::Attempts;
pub use gateways::{Gateways, gateways};

/// How long a node that the desired state names is waited for before somebody else is primary instead.
pub const TAKE_WITHIN: Duration = Duration::from_secs(5);

/// How long a primary that was asked to step down lets others go first.
pub const STAND_BACK: Duration = Duration::from_secs(5);

/// How often it is looked whether the store takes writes again after the addresses had to go: nobody says so.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Addresses that could not stay for so long are not announced to a whole network.
const WORTH_ADDING: Duration = Duration::from_millis(500);

/// How late the kernel may end a lifetime: it looks at most once a second, and looks early when another address changes
/// (`ADDRCONF_TIMER_FUZZ_MAX` in Linux), with some margin.
pub const KERNEL_LATE: Duration = Duration::from_millis(1250);

/// How often a holder writes. Each write shows that the leader has heard of the one before; three may be lost before the addresses
/// are.
pub fn write_every(session_timeout: Duration) -> Duration {
    session_timeout / 8
}

/// Until when a holder keeps its addresses without another sign of life from the leader: two thirds of the session time-out after the
/// servers certainly began to count it (`Store::leader_heard`). So for them there is at least a third left.
pub fn keep_until(leader_heard: Moment, session_timeout: Duration) -> Moment {
    leader_heard + session_timeout * 2 / 3
}

/// The lifetime that an address is given now, in the kernel's whole seconds; `None`: it may not be added any more. Ends later
/// than [`keep_until`] where there is time for that, so that the kernel acts only if the daemon does not, and before the session
/// by more than the kernel may be late.
pub fn lifetime_s(leader_heard: Moment, session_timeout: Duration, now: Moment) -> Option<u32> {
    let end = leader_heard + (session_timeout * 5 / 6).min(session_timeout.checked_sub(KERNEL_LATE)?);
    let left = u32::try_from(end.since(now).as_secs()).ok()?;
    (left > 0).then_some(left)
}

/// What this machine has of the floating addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Held {
    /// Any of them.
    pub any: bool,
    /// All of them, where they belong.
    pub all: bool,
    /// Their lifetimes need not be renewed yet.
    pub fresh: bool,
    /// They are from an earlier run of this daemon, and every one will be removed by the kernel in time.
    pub inherited: bool,
}

/// Everything a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// This node.
    pub me: &'a NodeName,
    /// This daemon runs and is not stopping.
    pub runs: bool,
    /// The cluster.
    pub view: &'a ClusterView,
    /// Whether the view is current: a healthy session, listed since the last reconnection.
    pub view_is_current: bool,
    /// The transaction by which this daemon took the key in its present session, if it did and still has it.
    pub tenure: Option<i64>,
    /// See [`keep_until`]; `None`: there is no session.
    pub keep_until: Option<Moment>,
    /// The floating addresses here.
    pub held: Held,
    /// What the services were last told: to run (`true`) or not.
    pub services: bool,
    /// What this daemon saw and did so far.
    pub attempts: &'a Attempts,
    /// Now, on this node's monotonic clock.
    pub now: Moment,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Take the key; `again`: from an earlier run of this daemon.
    Take {
        /// The key is there, and it is that run's.
        again: bool,
    },
    /// Take the key from a node that is proven dead.
    Discharge(NodeName),
    /// Add the addresses that are missing, announce those, renew the lifetimes of all.
    Hold,
    /// Remove all floating addresses, and keep the key if there is one.
    Drop,
    /// Make the desired state say who is primary: this node.
    Answer,
    /// Write `routerstate`.
    Say(RouterState),
    /// Tell the services to run.
    StartServices,
    /// Tell the services to stop and give them a moment.
    StopServices,
    /// Remove all floating addresses and, when the kernel has removed each, give the key back: the cluster is without them now.
    Release,
}

/// What to do next.
pub type Next = super::Next<Step>;

/// The next step and its reason.
pub type Plan = super::Plan<Step>;

/// Decides the next step.
pub fn plan(f: &Facts<'_>) -> Plan {
    if let Some(why) = must_drop(f) {
        return act(Step::Drop, why);
    }
    if !f.view_is_current {
        return match f.keep_until {
            Some(until) if f.held.any && f.tenure.is_some() => {
                let left = until.since(f.now).as_secs_f32();
                let why = format!(
                    "the state store is out of reach: the floating addresses are dropped in {left:.1} s unless it answers"
                );
                wait(Some(until), why)
            }
            _ => wait(None, "the state store is out of reach: nobody becomes primary here before it answers"),
        };
    }
    match f.tenure {
        Some(since) => as_holder(f, since),
        None => as_other(f),
    }
}

/// Why the floating addresses may not stay on this node, if they are here and may not.
fn must_drop(f: &Facts<'_>) -> Option<String> {
    if !f.held.any {
        return None;
    }
    if f.tenure.is_some() {
        return is_late(f).then(|| format!("{UNANSWERED}: another node may become primary"));
    }
    let holder = f.view.primary_holder.as_ref();
    let mine_before = holder == Some(f.me) || holder.is_none() && desired(f) == Some(f.me);
    if f.held.inherited && (!f.view_is_current || f.runs && mine_before && desired(f) == Some(f.me)) {
        return None;
    }
    Some(match holder {
        Some(holder) if holder != f.me => format!("{holder} is primary, and floating addresses are here"),
        _ => "this node is not primary, and floating addresses are here".to_owned(),
    })
}

const UNANSWERED: &str = "the state store has taken no write for two thirds of the session time-out";

fn is_late(f: &Facts<'_>) -> bool {
    f.keep_until.is_none_or(|until| f.now >= until)
}

fn desired<'a>(f: &Facts<'a>) -> Option<&'a NodeName> {
    f.view.primary_node.value.as_ref()
}

/// Whether a node can be primary as far as it says itself.
fn is_candidate(view: &ClusterView, name: &NodeName) -> bool {
    view.node(name)
        .is_some_and(|n| n.mode == DaemonMode::Coordinator && n.daemon_state.value == DaemonState::Run)
}

fn others(f: &Facts<'_>) -> bool {
    f.view.all_nodes().any(|n| n.name != *f.me && is_candidate(f.view, &n.name))
}

fn router_state(f: &Facts<'_>) -> Option<RouterState> {
    f.view.node(f.me).map(|n| n.router_state.value)
}

fn as_holder(f: &Facts<'_>, since: i64) -> Plan {
    if !f.runs {
        return leave(f, "this daemon stops");
    }
    let desired = &f.view.primary_node;
    let is_new = desired.zxid > since;
    match &desired.value {
        Some(node) if node == f.me => be(f, None),
        Some(node) if is_new && is_candidate(f.view, node) => {
            leave(f, &format!("the desired state is {node}"))
        }
        Some(node) if is_new => {
            let until = f.attempts.desired_since(desired).unwrap_or(f.now) + TAKE_WITHIN;
            if f.now < until { be(f, Some(until)) } else { answer(f, node) }
        }
        Some(node) => answer(f, node),
        None if is_new && others(f) => leave(f, "the desired state is none"),
        None => be_first(f)
            .unwrap_or_else(|| act(Step::Answer, "the desired state is none, and this node is primary")),
    }
}

fn answer(f: &Facts<'_>, desired: &NodeName) -> Plan {
    let why = format!(
        "the desired state is {desired}, which is no running coordinator or did not take over; this node is primary"
    );
    be_first(f).unwrap_or_else(|| act(Step::Answer, why))
}

/// The addresses, before anything else that a primary does. They may be added for a while after [`keep_until`], as far as their
/// lifetime goes, and would have to go at once; as would those that are added just before.
fn be_first(f: &Facts<'_>) -> Option<Plan> {
    if f.held.all && f.held.fresh {
        return None;
    }
    let stay = f.keep_until.is_some_and(|until| f.now + WORTH_ADDING < until);
    if is_late(f) || !f.held.any && !stay {
        return Some(wait(
            Some(f.now + LOOK_AGAIN),
            format!("{UNANSWERED}: no address is added before it does"),
        ));
    }
    if !f.held.all {
        return Some(act(Step::Hold, "this node is primary"));
    }
    Some(act(Step::Hold, "their lifetime is to be renewed"))
}

fn be(f: &Facts<'_>, until: Option<Moment>) -> Plan {
    let says_so = router_state(f).is_none_or(|state| state == RouterState::Primary);
    let too_early = !says_so && sabotage::commits(Bug::SayPrimaryFirst);
    if let Some(first) = be_first(f).filter(|_| !too_early) {
        return first;
    }
    if !says_so {
        return act(Step::Say(RouterState::Primary), "this node is primary");
    }
    if !f.services {
        return act(Step::StartServices, "this node is primary");
    }
    match (until, desired(f)) {
        (Some(until), Some(node)) => {
            wait(Some(until), format!("the desired state is {node}, which is not running as a coordinator"))
        }
        _ => settled(),
    }
}

fn leave(f: &Facts<'_>, why: &str) -> Plan {
    if f.services {
        return act(Step::StopServices, why);
    }
    act(Step::Release, why)
}

fn as_other(f: &Facts<'_>) -> Plan {
    if f.services {
        return act(Step::StopServices, "this node is not primary");
    }
    match &f.view.primary_holder {
        Some(holder) if holder == f.me => {
            let unwanted = match desired(f) {
                Some(node) => node != f.me && is_candidate(f.view, node),
                None => others(f),
            };
            if unwanted || !f.runs {
                return act(
                    Step::Release,
                    "an earlier run of this daemon was primary, and the desired state is another now",
                );
            }
            act(Step::Take { again: true }, "an earlier run of this daemon was primary")
        }
        _ if router_state(f) == Some(RouterState::Primary) => {
            act(Step::Say(RouterState::Secondary), "this node is not primary")
        }
        _ if !f.runs => settled(),
        Some(holder) if is_proven_dead(f.view, holder) => {
            act(Step::Discharge(holder.clone()), format!("{holder} was primary and is proven dead"))
        }
        Some(holder) if desired(f) == Some(f.me) => wait(None, format!("waiting for {holder} to hand over")),
        Some(_) => settled(),
        None => contend(f),
    }
}

/// A proof that counts is of the life that it was declared dead in: a node that came back says `init` or `run`.
fn is_proven_dead(view: &ClusterView, node: &NodeName) -> bool {
    let dead = view.node(node).is_some_and(|n| n.daemon_state.value == DaemonState::Dead);
    let fence = view.fences.get(node).and_then(|entry| entry.good());
    dead && fence.is_some_and(|fence| fence.job.step.proof().is_some())
}

/// Nobody is primary.
fn contend(f: &Facts<'_>) -> Plan {
    let take = |why: String| act(Step::Take { again: false }, why);
    match desired(f) {
        Some(node) if node == f.me => take("the desired state is this node, and nobody is primary".into()),
        Some(node) if !is_candidate(f.view, node) => take(format!(
            "nobody is primary, and {node}, which the desired state names, is no running coordinator"
        )),
        // An orderly release says `secondary` in the same transaction.
        Some(node) if f.view.node(node).is_some_and(|n| n.router_state.value == RouterState::Primary) => {
            take(format!("{node} was primary, and its session with the state store has ended"))
        }
        Some(node) => {
            let until = f.attempts.free_since().unwrap_or(f.now) + TAKE_WITHIN;
            if f.now < until {
                return wait(
                    Some(until),
                    format!("the desired state is {node}, which has not taken over yet"),
                );
            }
            let seconds = TAKE_WITHIN.as_secs();
            take(format!(
                "nobody is primary, and {node}, which the desired state names, has not taken over in {seconds} s"
            ))
        }
        None => match f.attempts.stepped_down_at().map(|at| at + STAND_BACK) {
            Some(until) if f.now < until && others(f) => {
                wait(Some(until), "this node stepped down: the others go first")
            }
            _ => take("nobody is primary".into()),
        },
    }
}
