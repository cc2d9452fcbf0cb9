//! What this node does next about one VM.
//!
//! ```text
//!   desired: start            off ──Claim──► claimed ──Start──► running ──(vanishes)──► off, after a back-off
//!   desired: stop, delete     running ──PowerOff──► off ──Release──► free
//!   desired: shutdown         running ──AskGuestToShutDown … PowerOff──► off ──Answer(Stopped)──► free
//!   desired: restart          as shutdown, then as start, then Answer(Running)
//!   desired: migrate          see `migration`; or as shutdown here, then as start there
//! ```
//!
//! Never starts a VM that somebody else may be executing: the claim (see [`crate::model::Claim`]) changes from nobody, or from this node
//! alone, to this node in a transaction that checks desired state, node and claim, immediately before each start. Never acts while
//! the state store is out of reach or libvirt's answer is unknown. Each plan is one step, so the next one is decided from
//! a fresh view.

mod attempts;
mod change;
mod last_word;
mod migration;
mod off;
mod peer;
#[cfg(test)]
mod tests;
mod undefined;

use std::time::Duration;

use super::{act, settled, wait};
use crate::{
    model::{Claim, Entry, Field, Halt, Migration, Moment, NodeName, Suspension, Vm, VmKey, VmState},
    sabotage::{self, Bug},
};

pub use attempts::{Attempts, ELSEWHERE_AFTER, REFUSED_FOR, START_LIMIT, START_WINDOW};
pub use change::{change, choose, give_away, put_back};
pub use last_word::{last_words, may_execute_elsewhere, proven_dead};
pub use migration::{LIVE_ATTEMPTS, STALLED, TARGET_PATIENCE, is_to_arrive, needs_migration, needs_record};
pub use peer::{COPIES, LIVE_AGAIN, PeerState, never_ends};

/// How long a guest may take to shut down before it is powered off.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(90);

/// How often a guest that does not go is asked again.
pub const SHUTDOWN_ASK_AGAIN: Duration = Duration::from_secs(15);

/// How soon it is looked again whether another node's last word has changed: that is no change of the VM.
const HEAR_AGAIN: Duration = Duration::from_millis(500);

/// What libvirt on this node says about the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalState {
    /// A process of it lives here; it executes, unless there is a [`Facts::halt`].
    Active,
    /// A process of it lives here, but executes nothing: a migration holds it, that brings it or that took it away.
    Held,
    /// A migration has brought all of it here, and it has not executed here yet.
    Arrived,
    /// A process of it lives here that has never executed: a start made it and was given up before it let it go.
    Unstarted,
    /// A process of it lives here, which a daemon of this node has suspended, for this reason.
    Suspended(Suspension),
    /// Confirmed: there is none.
    Off,
    /// libvirt did not answer: nothing may be concluded.
    Unknown,
}

/// How this node stands with the state store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The view is not current: no healthy session, or not listed since the last reconnection.
    OutOfReach,
    /// The view is current.
    Current,
    /// The view is current, and says that this node's daemon is dead: its fence is under way or over, and its VMs may be others'.
    HeldForDead,
}

/// Everything a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// This node.
    pub me: &'a NodeName,
    /// The VM as the state tree has it; `None`: it has no such VM.
    pub vm: Option<&'a Vm>,
    /// Its claim, if it is not in the state tree but claimed.
    pub orphan: Option<&'a Entry<Field<Claim>>>,
    /// Whether this node does what is nobody else's: removes empty claims without a VM, and chooses a node for what shall run and names
    /// none. It is the primary coordinator.
    pub tidies_up: bool,
    /// Whether no other node may be executing it by its last word; if one may, why (see [`may_execute_elsewhere`]).
    pub last_word: Result<(), &'a str>,
    /// What runs on this node.
    pub local_state: LocalState,
    /// Why it executes nothing though a process of it is here and no daemon has stopped it, if so: it is [`LocalState::Active`] all the
    /// same.
    pub halt: Option<Halt>,
    /// The migration from or to here that is under way; only looked for where [`needs_migration`] says so.
    pub migration: Option<Migration>,
    /// Whether libvirt has it on record that its last run here ended by its arrival elsewhere; only looked for where
    /// [`needs_record`] says so.
    pub left: bool,
    /// Whether the node that it is desired on takes VMs now; if not, why (see [`crate::plan::placement::fit`]).
    pub target: Result<(), &'a str>,
    /// Whether it could be started again from its definition; if not, why. Only looked at where [`needs_definition`] says so.
    pub definition: Result<(), &'a str>,
    /// How this node stands with the state store.
    pub standing: Standing,
    /// What this daemon did about the VM so far.
    pub attempts: &'a Attempts,
    /// Now, on this node's monotonic clock.
    pub now: Moment,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Put this node in the claim of what already runs here unclaimed.
    Adopt,
    /// Put this node in the empty claim (or confirm its own), to start the VM next.
    Claim,
    /// Start it.
    Start,
    /// Send the power button's event.
    AskGuestToShutDown,
    /// Stop it from executing, and lose nothing: it is another node's turn.
    Suspend,
    /// End it at once.
    PowerOff,
    /// It is confirmed off: take this node out of the claim. What its migration has left elsewhere is thereby nobody's.
    Release,
    /// It has arrived at the other claimant: leave the claim to that one, which then lets it go on.
    HandOver,
    /// Its keys are gone and it is confirmed off: take this node out of the claim, and remove that if it names nobody.
    Forget,
    /// The desired state names no node: choose one, and write it.
    Choose,
    /// It cannot be started here: choose another node that has not refused it, the one that it came from before all others, and write that.
    GiveAway,
    /// Ask that node's libvirt whether the VM is there.
    LookAt(NodeName),
    /// Put that node in the claim after this one, to migrate the VM there next.
    Share(NodeName),
    /// Migrate it there, live.
    Migrate(NodeName),
    /// End the migration that is under way.
    AbortMigration,
    /// It stays here: make the claim this node's alone. What is held is let go on after that.
    TakeBack,
    /// Let it go on.
    Resume,
    /// Tell the clients an outcome.
    Answer(Answer),
}

/// An outcome that was observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It runs as desired: `state` = `start`.
    Running,
    /// It is off as desired: `state` = `stop`, claim released.
    Stopped,
    /// It could not be done: `state` = `failed` with the reason, claim released.
    Failed(String),
    /// It is not moved or restarted, but runs on here: `state` = `start`, `node` = this one, and why.
    Stays(String),
    /// It is here as desired and does not execute: `state` = `start`, and why.
    Halted(String),
    /// It runs: an old failure's reason is void.
    ReasonVoid,
    /// It could not be started, for this reason, and is tried again.
    NotYet(String),
}

/// What to do next.
pub type Next = super::Next<Step>;

/// The next step and its reason.
pub type Plan = super::Plan<Step>;

impl Step {
    /// Whether something comes to execute here by it, or goes on for this node's claim.
    pub fn is_for_the_living(&self) -> bool {
        match self {
            Self::Adopt
            | Self::Claim
            | Self::Start
            | Self::Share(_)
            | Self::Migrate(_)
            | Self::TakeBack
            | Self::Resume => true,
            Self::AskGuestToShutDown
            | Self::Suspend
            | Self::PowerOff
            | Self::Release
            | Self::HandOver
            | Self::Forget
            | Self::Choose
            | Self::GiveAway
            | Self::LookAt(_)
            | Self::AbortMigration
            | Self::Answer(_) => false,
        }
    }
}

/// Decides the next step about one VM on this node.
pub fn plan(facts: &Facts<'_>) -> Plan {
    let plan = alive(facts);
    match &plan.next {
        // Whoever recovers its VMs counts on that it has said nothing: a claim would be taken from it again, with the guest running.
        Next::Do(step)
            if facts.standing == Standing::HeldForDead
                && step.is_for_the_living()
                && !sabotage::commits(Bug::ClaimWhileDead) =>
        {
            wait(
                Some(facts.now + HEAR_AGAIN),
                format!(
                    "{}; but the cluster holds this node for dead until its daemon has said that it lives",
                    plan.why
                ),
            )
        }
        _ => plan,
    }
}

fn alive(facts: &Facts<'_>) -> Plan {
    let Some(vm) = facts.vm else { return undefined::without_keys(facts) };
    if facts.standing == Standing::OutOfReach {
        return wait(None, "the state store is out of reach: nothing is changed until it answers");
    }
    match facts.local_state {
        LocalState::Unknown if concerns(facts.me, vm) => {
            wait(None, "libvirt does not answer: nothing is known about this node")
        }
        LocalState::Unknown => settled(),
        _ if vm.cannot_read(VmKey::Claim) => unclaimable(facts, vm),
        LocalState::Active | LocalState::Held | LocalState::Arrived | LocalState::Suspended(_) => {
            while_here(facts, vm)
        }
        LocalState::Unstarted => while_unstarted(facts, vm),
        LocalState::Off => off::while_off(facts, vm),
    }
}

/// Whether a plan needs to know of the definition: it may end the guest in order to start it again.
pub fn needs_definition(me: &NodeName, vm: &Vm, local_state: LocalState, halt: Option<Halt>) -> bool {
    let moves = vm.node.value != *me;
    local_state == LocalState::Active
        && vm.claim.value.names(me)
        && match vm.state.value {
            VmState::Restart => moves || !claimed_after_desired(vm),
            VmState::Start if halt == Some(Halt::Crashed) => true,
            VmState::Start | VmState::Migrate => moves,
            VmState::Stop | VmState::Shutdown | VmState::Failed | VmState::Delete => false,
        }
}

/// Whether the state tree ties the VM to this node, or to no node at all.
pub fn concerns(me: &NodeName, vm: &Vm) -> bool {
    vm.node.value == *me || vm.claim.value.names(me) || vm.node.value.is_nobody()
}

/// Its claim says nothing: it neither starts nor is it ended for the claim's sake, and the claim stays as it is.
fn unclaimable(facts: &Facts<'_>, vm: &Vm) -> Plan {
    let ends = matches!(vm.state.value, VmState::Stop | VmState::Delete) && !vm.cannot_read(VmKey::State);
    match facts.local_state {
        LocalState::Active if ends => act(Step::PowerOff, format!("desired state is {}", vm.state.value)),
        LocalState::Active if vm.state.value == VmState::Shutdown => shut_down(facts, vm),
        LocalState::Off if !concerns(facts.me, vm) => settled(),
        LocalState::Suspended(_) => wait(
            None,
            "it is suspended here, and its claim cannot be read: it goes on, or is ended, when the name of the node that may be \
             executing it is written there, or nothing if none may",
        ),
        _ => wait(
            None,
            "its claim cannot be read, so who may be executing it is not known: write the name of the node that runs it there, or \
             nothing if none does",
        ),
    }
}

fn while_here(facts: &Facts<'_>, vm: &Vm) -> Plan {
    let claim = &vm.claim.value;
    if claim.is_empty() {
        return match facts.local_state {
            // From a node of the 0.5 generation, which makes no claims.
            LocalState::Held => wait(None, "a migration that nobody claims brings it here"),
            LocalState::Arrived => {
                act(Step::PowerOff, "its migration was given up: what arrived here is an old copy")
            }
            _ => act(Step::Adopt, "it runs here and nobody claims it"),
        };
    }
    if !claim.names(facts.me) {
        let what = match facts.local_state {
            LocalState::Held | LocalState::Arrived => "a migration has left this here",
            // Nothing tells these apart: a migration by hand has no claim, and a fenced node may not know that it was.
            _ => {
                "this node was fenced and survived, or somebody has started it here or brought it here by hand"
            }
        };
        return act(Step::PowerOff, format!("the claim names only {claim}: {what}"));
    }
    let held = matches!(facts.local_state, LocalState::Held | LocalState::Arrived | LocalState::Unstarted);
    match claim.between() {
        Some((from, to)) if from == facts.me => match to {
            [to] => return migration::between(facts, vm, to),
            _ => {
                return wait(
                    None,
                    format!("{claim} claim it: one of them has to be fenced or confirmed dead"),
                );
            }
        },
        Some((from, _)) => return migration::arriving(facts, from),
        None if held => return migration::held(facts, vm),
        None if vm.is_as_defined() && !sabotage::commits(Bug::AdoptThenStop) => {
            return act(Step::Adopt, "it was defined anew while it ran here");
        }
        None if matches!(facts.local_state, LocalState::Suspended(_)) => return suspended(facts, vm),
        None => {}
    }
    if vm.is_half_deleted() {
        return wait(
            None,
            "it runs, and its key state is gone: left alone; `undefine` ends its deletion, `start` keeps it",
        );
    }
    let desired_here = vm.node.value == *facts.me;
    match vm.state.value {
        VmState::Stop => act(Step::PowerOff, "desired state is stop"),
        VmState::Delete => act(Step::PowerOff, "desired state is delete"),
        VmState::Shutdown => shut_down(facts, vm),
        VmState::Migrate if !desired_here => migration::leave(facts, vm),
        VmState::Migrate => answer(facts, vm, "it runs here, where it was to migrate to"),
        VmState::Start | VmState::Restart if !desired_here => {
            let to = &vm.node.value;
            let moved = || act(Step::PowerOff, format!("it was moved to {to} without migration"));
            kept_running(facts, &format!("not moved to {to}")).unwrap_or_else(moved)
        }
        VmState::Failed if !desired_here => {
            act(Step::PowerOff, format!("it was moved to {} without migration", vm.node.value))
        }
        VmState::Restart if claimed_after_desired(vm) && facts.attempts.ran_unclaimed(vm) => {
            act(Step::TakeBack, "it was to restart while its claim could not be read, and has not")
        }
        VmState::Restart if claimed_after_desired(vm) => {
            answer(facts, vm, "it was started after the desired state")
        }
        // Once it was asked to go there is no way back.
        VmState::Restart if facts.attempts.asking(vm).is_some() => shut_down(facts, vm),
        VmState::Restart => kept_running(facts, "not restarted").unwrap_or_else(|| shut_down(facts, vm)),
        VmState::Start if vm.cannot_read(VmKey::Node) && !vm.cannot_read(VmKey::State) => {
            answer(facts, vm, "it is here, and its `node` names no node")
        }
        VmState::Start if let Some(halt) = facts.halt => halted(facts, vm, halt),
        VmState::Start if reason_is_old(vm) || tells_of_a_halt(vm) => {
            act(Step::Answer(Answer::ReasonVoid), "it runs: the old failure is over")
        }
        VmState::Start | VmState::Failed => settled(),
    }
}

/// How a reason begins that says why a guest does not execute: it is void once it does.
const DOES_NOT_EXECUTE: &str = "it does not execute: ";

fn tells_of_a_halt(vm: &Vm) -> bool {
    vm.failed_reason.value.starts_with(DOES_NOT_EXECUTE)
}

/// It is where it shall be; whether it executes there is another matter.
fn answer(facts: &Facts<'_>, vm: &Vm, done: &str) -> Plan {
    let Some(halt) = facts.halt else { return act(Step::Answer(Answer::Running), done) };
    let (what, way_out) = (halt.what(), halt.way_out(&vm.name, facts.me));
    act(Step::Answer(Answer::Halted(format!("{DOES_NOT_EXECUTE}{what}; {way_out}"))), what)
}

/// It shall run here, and its process executes nothing. What has crashed is started anew, as what has ended is; all else is somebody's
/// command, or holds what would be lost.
fn halted(facts: &Facts<'_>, vm: &Vm, halt: Halt) -> Plan {
    let way_out = halt.way_out(&vm.name, facts.me);
    match (halt, facts.definition) {
        (Halt::Crashed, Ok(())) if !sabotage::commits(Bug::LeaveCrashed) => {
            act(Step::PowerOff, "its guest has crashed, and it shall run")
        }
        (Halt::Crashed, Err(why)) => {
            wait(None, format!("its guest has crashed, and could not be started again: {why}"))
        }
        _ => wait(None, format!("{}, and it is left alone: {way_out}", halt.what())),
    }
}

/// Why an instance that executes on this node shall not, if so: the state tree has the VM, and gives it to another.
pub fn belongs_elsewhere(me: &NodeName, vm: &Vm) -> Option<String> {
    let (claim, node) = (&vm.claim.value, &vm.node.value);
    if vm.cannot_read(VmKey::Claim) {
        return None;
    }
    if claim.is_empty() {
        return (node != me).then(|| format!("nobody claims it, and it is to run on {node}"));
    }
    match claim.between() {
        _ if !claim.names(me) => Some(format!("the claim names only {claim}")),
        Some((from, _)) if from != me => {
            Some(format!("it migrates here from {from}, which has not handed it over"))
        }
        _ => None,
    }
}

/// It turned out to be this node's.
fn suspended(facts: &Facts<'_>, vm: &Vm) -> Plan {
    let desired = vm.state.value;
    if migration::shall_go_on(facts.me, vm) {
        return act(Step::Resume, "it was suspended, and belongs here");
    }
    act(Step::PowerOff, format!("it was suspended, and the desired state is {desired} on {}", vm.node.value))
}

/// What could not be started again is not ended.
fn kept_running(facts: &Facts<'_>, not_done: &str) -> Option<Plan> {
    let why = facts.definition.err()?;
    let reason = format!("{not_done}, since it could not be started again: {why}");
    Some(act(Step::Answer(Answer::Stays(reason)), why))
}

/// Nothing is lost with a process that has never executed: it is let go where it would be started now, and ended everywhere else.
fn while_unstarted(facts: &Facts<'_>, vm: &Vm) -> Plan {
    let ours = vm.claim.value.is_only(facts.me) && vm.node.value == *facts.me;
    let shall_run = match vm.state.value {
        VmState::Start => true,
        VmState::Restart => claimed_after_desired(vm),
        _ => false,
    };
    if ours && shall_run {
        if let Err(why) = facts.last_word {
            return wait(Some(facts.now + HEAR_AGAIN), why);
        }
        return act(Step::Resume, "its start was given up, and its process is here after all");
    }
    act(Step::PowerOff, "a start that was given up left its process here, which executes nothing")
}

/// A reason that was written together with the last answer or desired state, or after it, is still what an operator has to know; unless the
/// VM was claimed to be started since then.
fn reason_is_old(vm: &Vm) -> bool {
    !vm.failed_reason.value.is_empty() && vm.failed_reason.zxid < vm.state.zxid.max(vm.claim.zxid)
}

/// A claim written after the desired state was taken for a start that followed the desired state: what runs is the new instance. (Whoever
/// writes the claim of a guest that lives on, at an adoption or a migration's end, writes a request for `restart` again in the same
/// transaction, so an old instance never looks new.)
fn claimed_after_desired(vm: &Vm) -> bool {
    vm.claim.zxid > vm.state.zxid
}

fn shut_down(facts: &Facts<'_>, vm: &Vm) -> Plan {
    let desired = vm.state.value;
    // Nothing of it reaches its disks while one waits, so nothing is lost by not waiting.
    if let Some(halt) = facts.halt.filter(|halt| halt.is_deaf()) {
        return act(
            Step::PowerOff,
            format!("desired state is {desired}; {}, so it hears no power button", halt.what()),
        );
    }
    let Some(asking) = facts.attempts.asking(vm) else {
        return act(Step::AskGuestToShutDown, format!("desired state is {desired}"));
    };
    let power_off_at = asking.since + SHUTDOWN_GRACE;
    let ask_again_at = asking.last + SHUTDOWN_ASK_AGAIN;
    if facts.now >= power_off_at {
        let grace = SHUTDOWN_GRACE.as_secs();
        return act(
            Step::PowerOff,
            format!("desired state is {desired}; the guest has not gone in {grace} s"),
        );
    }
    if facts.now >= ask_again_at {
        return act(
            Step::AskGuestToShutDown,
            format!("desired state is {desired}; the guest has not gone yet"),
        );
    }
    let left = power_off_at.since(facts.now).as_secs();
    let why = format!(
        "desired state is {desired}; the guest was asked {} time(s), power off in {left} s",
        asking.times
    );
    wait(Some(power_off_at.min(ask_again_at)), why)
}
