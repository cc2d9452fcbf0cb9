//! What this node does next about a request to be emptied (`domainstate` = `flush`) or filled again (`unflush`).
//!
//! ```text
//!   ready ──flush──► its VMs leave, a few at once ──► flushed ──unflush──► its VMs return ──► ready
//!                      a VM that cannot go is shut down    a VM that cannot return stays where it is
//! ```
//!
//! A VM that was shut down and for which its node has no room at the unflush starts when there is room, here or elsewhere. What shall run
//! on a node that can start no VMs is given away.
//!
//! The opposite desired state takes over at any point: what is under way is taken back. Never migrates anything itself: it writes the
//! desired state that a client would write, and the VM's own plan carries it out. Everything but the count of attempts is in the state
//! tree, so a daemon that starts in the middle goes on. Always ends: attempts are bounded, and so is the wait for room.

mod attempts;
mod come_back;
mod give_away;
mod leave;
mod left_over;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::placement::{ClusterCapacity, Selector, Size, Sizes, Unfit};
use crate::model::{
    ClusterView, DomainState, Entry, FlushProgress, Moment, NodeName, Stuck, Vm, VmChange, VmId, VmKey,
    VmSet, VmState,
};

pub use attempts::Attempts;
pub use give_away::GIVES_AWAY_AFTER;

/// How many migrations go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Away from one node.
    pub outgoing: usize,
    /// To one node.
    pub incoming: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { outgoing: 4, incoming: 4 }
    }
}

/// How often a VM is sent before it counts as one that cannot go.
pub const ATTEMPTS: u32 = 3;

/// The pause after a VM's first failed attempt; it doubles.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long room is waited for before a VM counts as one that cannot go. Memory is freed by what an operator does, or when a
/// node's daemon comes back from its restart.
pub const ROOM_WITHIN: Duration = Duration::from_secs(15);

/// Everything a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// This node.
    pub me: &'a NodeName,
    /// The cluster.
    pub view: &'a ClusterView,
    /// Whether the view is current.
    pub view_is_current: bool,
    /// What runs on this node; `None` while libvirt does not answer, or if there is none.
    pub running: Option<&'a BTreeSet<VmId>>,
    /// How large the VMs are.
    pub sizes: &'a Sizes,
    /// VMs that could not be started again from their definitions, each with what is wrong.
    pub unusable: &'a BTreeMap<VmId, String>,
    /// Nodes whose keepalives are missed.
    pub silent: &'a BTreeSet<NodeName>,
    /// How a target is chosen.
    pub selector: Selector,
    /// How much goes on at once.
    pub limits: Limits,
    /// Why this node can start no VMs, if so.
    pub unable: Option<Unable<'a>>,
    /// What this daemon tried so far.
    pub attempts: &'a Attempts,
    /// Now, on this node's monotonic clock.
    pub now: Moment,
}

/// This node can start no VMs.
#[derive(Debug, Clone, Copy)]
pub struct Unable<'a> {
    /// Why.
    pub why: &'a str,
    /// Since when without a break, as its daemon noticed.
    pub since: Moment,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask that a VM migrates. Counts on memory that is free in the view, so it is written as a placement.
    Send {
        /// Which VM.
        vm: VmId,
        /// Where to.
        to: NodeName,
        /// `lastnode` with it: where it shall return to.
        home: Option<NodeName>,
    },
    /// Ask that a VM that cannot go shuts down, to be started again at the unflush.
    ShutDown {
        /// Which VM.
        vm: VmId,
        /// Why it cannot go.
        reason: String,
    },
    /// Ask that a VM starts that was shut down at the flush, or has failed elsewhere. Written as a placement.
    Start {
        /// Which VM.
        vm: VmId,
        /// Where.
        on: NodeName,
        /// `lastnode` with it: where it shall return to.
        home: Option<NodeName>,
    },
    /// Ask that a VM starts elsewhere that shall run here and cannot be started here. Written as a placement.
    GiveAway {
        /// Which VM.
        vm: VmId,
        /// Where.
        to: NodeName,
        /// `lastnode` with it: where it shall return to.
        home: Option<NodeName>,
        /// Why it is not started here.
        reason: String,
    },
    /// Give a VM that is off its home back. It stays off.
    TakeBack(VmId),
    /// Answer the desired state.
    Answer(DomainState),
}

impl Step {
    /// The VM that it is about.
    pub fn vm(&self) -> Option<VmId> {
        match self {
            Self::Send { vm, .. }
            | Self::ShutDown { vm, .. }
            | Self::Start { vm, .. }
            | Self::GiveAway { vm, .. }
            | Self::TakeBack(vm) => Some(*vm),
            Self::Answer(_) => None,
        }
    }
}

/// What to do next.
pub type Next = super::Next<Step>;

/// The next step, its reason in words for an operator, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to do.
    pub next: Next,
    /// Why.
    pub why: String,
    /// For clients that wait; without the time.
    pub progress: FlushProgress,
    /// VMs that have not arrived, to be remembered.
    pub left: BTreeSet<VmId>,
    /// Of these, those for which there is no room now, to be remembered with the time.
    pub no_capacity: BTreeSet<VmId>,
}

/// Decides the next step.
pub fn plan(facts: &Facts<'_>) -> Plan {
    let desired = facts.view.node(facts.me).map(|node| node.domain_state.value);
    let plan = |next, why: &str| Work::default().plan(facts, next, why.to_owned());
    match desired {
        Some(_) if !facts.view_is_current => {
            plan(Next::Wait(None), "the state store is out of reach: nothing is changed until it answers")
        }
        Some(DomainState::Flush) => leave::plan(facts),
        Some(DomainState::Unflush) => come_back::plan(facts),
        Some(DomainState::Ready | DomainState::Flushed) => left_over::plan(facts),
        None => plan(Next::Settled, ""),
    }
}

/// Whether a node has something to do: its desired state is to be emptied or filled, or what a flush has shut down waits for room, or what
/// shall run here waits though the node is `unable` to start it.
pub fn has_work(me: &NodeName, view: &ClusterView, unable: bool) -> bool {
    view.node(me).is_some_and(|node| match node.domain_state.value {
        DomainState::Flush | DomainState::Unflush => true,
        DomainState::Ready | DomainState::Flushed => !left_over::waiting(me, view, unable).is_empty(),
    })
}

/// The VMs that a plan has to bring somewhere.
#[derive(Debug, Default)]
struct Work<'a> {
    /// To be sent now or later.
    waiting: Vec<&'a Vm>,
    /// On their way.
    moving: BTreeSet<VmId>,
    /// Doing something that must end first.
    ending: BTreeSet<VmId>,
    /// Not to be moved any more, each with its reason.
    stuck: BTreeMap<VmId, String>,
}

impl Work<'_> {
    fn plan(&self, facts: &Facts<'_>, next: Next, why: String) -> Plan {
        Plan {
            next,
            why,
            progress: self.progress(facts.attempts),
            left: self.left(),
            no_capacity: BTreeSet::new(),
        }
    }

    fn step(&self, facts: &Facts<'_>, step: Step, why: String) -> Plan {
        self.plan(facts, Next::Do(step), why)
    }

    fn progress(&self, attempts: &Attempts) -> FlushProgress {
        let left = self.left();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let given_up = attempts.reasons().filter(|(id, _)| !self.stuck.contains_key(*id));
        let stuck = given_up.chain(&self.stuck);
        FlushProgress {
            total: count(attempts.total(&left)),
            left: count(left.len()),
            moving: count(self.moving.len()),
            stuck: stuck.map(|(vm, reason)| Stuck { vm: vm.to_string(), reason: reason.clone() }).collect(),
            at_unix_s: 0,
        }
    }

    /// All that have not arrived.
    fn left(&self) -> BTreeSet<VmId> {
        let waiting = self.waiting.iter().map(|vm| vm.id);
        waiting.chain(self.moving.iter().chain(&self.ending).chain(self.stuck.keys()).copied()).collect()
    }

    /// What cannot be written, however often it was tried, is left as it is: it holds up nothing else, and is told.
    fn leave_refused(&mut self, facts: &Facts<'_>) {
        let stuck = &mut self.stuck;
        self.waiting.retain(|vm| match facts.attempts.refusal(vm.id) {
            Some(refused) if refused.again_at().is_none() => {
                stuck.insert(vm.id, format!("{} is left as it is: {}", vm.name, refused.why));
                false
            }
            _ => true,
        });
    }

    /// Whether there is nothing to wait for.
    fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.moving.is_empty() && self.ending.is_empty()
    }

    /// Nothing can be done now: says what is waited for.
    fn wait(&self, facts: &Facts<'_>, what: &str, held: Held) -> Plan {
        let progress = self.progress(facts.attempts);
        let done = progress.total.saturating_sub(progress.left);
        let mut why =
            format!("{done} of {} VM(s) have {what}, {} on their way", progress.total, progress.moving);
        let ending = self.ending.iter().map(|id| (*id, "must end what it does first".to_owned()));
        for (id, reason) in held.reasons.into_iter().chain(ending) {
            why.push_str("; ");
            why.push_str(&name_of(facts.view, id));
            why.push_str(": ");
            why.push_str(&reason);
        }
        Plan { next: Next::Wait(held.until), why, progress, left: self.left(), no_capacity: held.no_capacity }
    }
}

/// Why a VM is not sent now.
enum NotNow {
    /// Something that goes on must end, or a pause pass.
    Later(Option<Moment>, String),
    /// There is no room for it.
    NoCapacity(String),
    /// It cannot go.
    Never(String),
}

/// What keeps VMs from being sent.
#[derive(Debug, Default)]
struct Held {
    until: Option<Moment>,
    reasons: Vec<(VmId, String)>,
    no_capacity: BTreeSet<VmId>,
    /// Those that have waited or tried for long enough.
    cannot: BTreeMap<VmId, String>,
}

impl Held {
    fn note(&mut self, facts: &Facts<'_>, id: VmId, not_now: NotNow) {
        let (until, why) = match not_now {
            NotNow::Never(why) => {
                self.cannot.insert(id, why);
                return;
            }
            NotNow::Later(until, why) => (until, why),
            NotNow::NoCapacity(why) => {
                self.no_capacity.insert(id);
                let until = facts.attempts.room_until(id, facts.now);
                if until <= facts.now {
                    self.cannot.insert(id, why);
                    return;
                }
                (Some(until), format!("{why}; room is waited for"))
            }
        };
        self.until = match (self.until, until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.reasons.push((id, why));
    }
}

/// Whether a VM may be written about at all now.
fn may_write(facts: &Facts<'_>, vm: &Vm) -> Result<(), NotNow> {
    match facts.attempts.refusal(vm.id) {
        Some(refused) if refused.again_at().is_none_or(|at| at > facts.now) => {
            Err(NotNow::Later(refused.again_at(), format!("{}; trying again soon", refused.why)))
        }
        _ => Ok(()),
    }
}

/// Whether a VM that was sent before may be sent again.
fn may_try(facts: &Facts<'_>, vm: &Vm) -> Result<(), NotNow> {
    may_write(facts, vm)?;
    let failure = match vm.failed_reason.value.as_str() {
        "" => "it did not arrive where it was sent",
        reason => reason,
    };
    if facts.attempts.is_exhausted(vm.id) {
        return Err(NotNow::Never(format!("{ATTEMPTS} attempts failed: {failure}")));
    }
    match facts.attempts.not_before(vm.id, facts.now) {
        Some(until) => Err(NotNow::Later(Some(until), format!("{failure}; trying again soon"))),
        None => Ok(()),
    }
}

/// A VM that is to leave one node for another and has not arrived.
fn is_moving(vm: &Vm) -> bool {
    vm.state.value == VmState::Migrate
        && !vm.claim.value.is_empty()
        && !vm.claim.value.is_only(&vm.node.value)
}

/// How many VMs are on their way, by node.
#[derive(Debug, Default)]
struct Traffic<'a> {
    incoming: BTreeMap<&'a NodeName, usize>,
    outgoing: BTreeMap<&'a NodeName, usize>,
}

impl<'a> Traffic<'a> {
    fn count(view: &'a ClusterView) -> Self {
        let mut traffic = Self::default();
        for vm in view.good_vms().filter(|vm| is_moving(vm)) {
            let to = &vm.node.value;
            *traffic.incoming.entry(to).or_default() += 1;
            for from in vm.claim.value.iter().filter(|from| *from != to) {
                *traffic.outgoing.entry(from).or_default() += 1;
            }
        }
        traffic
    }

    fn to(&self, node: &NodeName) -> usize {
        self.incoming.get(node).copied().unwrap_or_default()
    }

    fn from(&self, node: &NodeName) -> usize {
        self.outgoing.get(node).copied().unwrap_or_default()
    }
}

fn size_of(facts: &Facts<'_>, vm: &Vm) -> Size {
    facts.sizes.get(&vm.id).copied().unwrap_or_default()
}

/// Largest first, so that the small ones fill what is left.
fn largest_first(facts: &Facts<'_>, vms: &mut [&Vm]) {
    vms.sort_by_key(|vm| (std::cmp::Reverse(size_of(facts, vm).memory_mib), vm.id));
}

fn name_of(view: &ClusterView, id: VmId) -> String {
    view.vm(id).map_or_else(|| id.to_string(), |vm| vm.name.to_string())
}

/// The transaction of a step that is one about a VM, checked against every field it was decided from.
pub fn change(step: &Step, view: &ClusterView, me: &NodeName) -> Option<VmChange> {
    let decided_from = [VmKey::State, VmKey::Node, VmKey::LastNode, VmKey::Claim];
    let update = |id: &VmId, set| Some(VmChange::update(view.vm(*id)?, &decided_from, set));
    match step {
        Step::Send { vm, to, home } => update(
            vm,
            vec![VmSet::State(VmState::Migrate), VmSet::Node(to.clone()), VmSet::LastNode(home.clone())],
        ),
        // `lastnode` = this node, though it is here: so the unflush knows which of those that are off to start.
        Step::ShutDown { vm, reason } => update(
            vm,
            vec![
                VmSet::State(VmState::Shutdown),
                VmSet::LastNode(Some(me.clone())),
                VmSet::FailedReason(reason.clone()),
            ],
        ),
        Step::Start { vm, on, home } => update(
            vm,
            vec![
                VmSet::State(VmState::Start),
                VmSet::Node(on.clone()),
                VmSet::LastNode(home.clone()),
                VmSet::FailedReason(String::new()),
            ],
        ),
        // The desired state stays what it is: who starts the VM answers it.
        Step::GiveAway { vm, to, home, reason } => update(
            vm,
            vec![
                VmSet::State(view.vm(*vm)?.state.value),
                VmSet::Node(to.clone()),
                VmSet::LastNode(home.clone()),
                VmSet::FailedReason(reason.clone()),
            ],
        ),
        Step::TakeBack(vm) => update(vm, vec![VmSet::Node(me.clone()), VmSet::LastNode(None)]),
        Step::Answer(_) => None,
    }
}
