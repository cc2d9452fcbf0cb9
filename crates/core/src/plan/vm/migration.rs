//! Live migration: from the desired state at its source to the end of the shared claim.
//!
//! ```text
//!   claim S ──look at T: not there──► Share(T) ──► claim S T ──Migrate──► it left ──HandOver──► claim T ──► Resume at T
//!      ▲                                             │   │
//!      └──────TakeBack ◄── no migration is under way, and it is still here
//!                                                        └── off, and it did not leave ──Release──► nobody's
//! ```
//!
//! The claim is shared only while the target's daemon has a session: what arrives where nobody lets it go on is lost (decision 104).
//!
//! The source alone decides while two claim the VM; the target leaves it alone, whatever the desired state is by now. A guest arrives
//! paused, since libvirt's source lets its guest go on when the target's last answer is lost, and nothing can prevent that. So what
//! has arrived is a copy that is good only until its original executes again: it goes on when the source has handed it over, which
//! the source does only for a guest that libvirt has on record as arrived; in every other case the copy is ended. It makes no
//! difference whether this daemon began the migration or an earlier run of it did.

use std::time::Duration;

use super::{
    Answer, Facts, LocalState, Plan, Step, act, attempts,
    peer::{PeerState, TARGET_AGAIN, never_ends},
    shut_down, wait,
};
use crate::{
    model::{Halt, Migration, MigrationMethod, NodeName, Progress, Vm, VmState},
    sabotage::{self, Bug},
};

/// How long a VM waits for a target that cannot take it now.
pub const TARGET_PATIENCE: Duration = Duration::from_secs(30);

/// How often live migration is tried before it counts as impossible.
pub const LIVE_ATTEMPTS: u32 = 2;

/// A migration that sends nothing for so long is aborted.
pub const STALLED: Duration = Duration::from_secs(30);

/// How long an abort may take to show.
const ABORT_AGAIN: Duration = Duration::from_secs(5);

/// How often a target that does not answer is asked again, and how often one that tidies up.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const TIDYING: Duration = Duration::from_millis(500);

/// A target's daemon suspends what executes there too early as soon as its libvirt tells it; one that has just started takes seconds.
pub(super) const SUSPENDS_WITHIN: Duration = Duration::from_secs(10);

/// A target's libvirt ends the process whose source is gone within half a second (measured).
pub(super) const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// How often progress is looked at.
const ATTEND: Duration = Duration::from_secs(1);

/// Whether a plan needs to know of migrations under way here.
pub fn needs_migration(me: &NodeName, vm: &Vm, local_state: LocalState) -> bool {
    let source = vm.claim.value.between().is_some_and(|(from, _)| from == me);
    local_state == LocalState::Held || local_state == LocalState::Active && source
}

/// Whether a plan needs to know if it left here by a migration.
pub fn needs_record(me: &NodeName, vm: &Vm, local_state: LocalState) -> bool {
    vm.claim.value.between().is_some_and(|(from, _)| from == me)
        && matches!(local_state, LocalState::Off | LocalState::Held)
}

/// The desired state is to migrate what executes here, claimed by this node alone.
pub(super) fn leave(facts: &Facts<'_>, vm: &Vm) -> Plan {
    let to = &vm.node.value;
    if facts.attempts.asking(vm).is_some() {
        // A guest that was asked to shut down for its move cannot be asked to stay.
        return shut_down(facts, vm);
    }
    if to.is_nobody() {
        let Some(why) = facts.attempts.no_target(vm, facts.now) else {
            return act(Step::Choose, "desired state is migrate to no node in particular");
        };
        return stay_in_the_end(facts, vm, attempts::CHOOSE_AGAIN, why.to_owned());
    }
    if let Err(why) = facts.target {
        return stay_in_the_end(facts, vm, TARGET_AGAIN, format!("{to} cannot take it: {why}"));
    }
    if facts.attempts.is_absent(vm, to, facts.now) {
        let why = format!("{to} cannot take it: its daemon has no session with ZooKeeper");
        return stay_in_the_end(facts, vm, TARGET_AGAIN, why);
    }
    match facts.attempts.peer_state(vm, to, facts.now) {
        None => return act(Step::LookAt(to.clone()), format!("desired state is migrate to {to}")),
        Some(PeerState::Unknown(why)) => {
            let why = format!("the libvirt of {to} does not answer: {why}");
            return stay_in_the_end(facts, vm, LOOK_AGAIN, why);
        }
        Some(PeerState::Active | PeerState::Held) => {
            let why = format!("{to} has an instance that nobody claims, which it has to end first");
            return stay_in_the_end(facts, vm, TIDYING, why);
        }
        Some(PeerState::Off) => {}
    }
    if let Some(Halt::Crashed) = facts.halt {
        // There is nothing to keep alive.
        return leave_by_shutdown(facts, vm);
    }
    let tries = facts.attempts.tries(vm);
    let impossible = tries.impossible || tries.failures >= LIVE_ATTEMPTS;
    match (vm.migration_method, &tries.reason) {
        (MigrationMethod::Shutdown, _) => leave_by_shutdown(facts, vm),
        (MigrationMethod::Live, Some(reason)) if impossible => {
            act(Step::Answer(Answer::Stays(not_migrated(to, reason))), "it is to migrate live or not at all")
        }
        (MigrationMethod::None, Some(_)) if impossible => leave_by_shutdown(facts, vm),
        (_, reason) => match tries.again_at.filter(|at| *at > facts.now) {
            Some(at) => {
                let reason = reason.as_deref().unwrap_or_default();
                wait(Some(at), format!("live migration to {to} failed and is tried again soon: {reason}"))
            }
            None => act(Step::Share(to.clone()), format!("desired state is migrate to {to}")),
        },
    }
}

/// Nothing is done to the guest before its target has said that it could start it.
fn leave_by_shutdown(facts: &Facts<'_>, vm: &Vm) -> Plan {
    let to = &vm.node.value;
    if let Some(stays) = super::kept_running(facts, &format!("not migrated to {to}")) {
        return stays;
    }
    match facts.attempts.word_of(vm, to) {
        _ if sabotage::commits(Bug::MoveUnasked) => shut_down(facts, vm),
        Some(Ok(())) => shut_down(facts, vm),
        Some(Err(why)) => {
            let why = format!("it could not be started there: {why}");
            let live =
                facts.attempts.tries(vm).reason.map(|live| format!("; live: {live}")).unwrap_or_default();
            act(Step::Answer(Answer::Stays(not_migrated(to, &format!("{why}{live}")))), why)
        }
        None => {
            let why = format!("{to} has not said whether it could be started there");
            stay_in_the_end(facts, vm, TARGET_AGAIN, why)
        }
    }
}

/// Whether a VM is to come here from a node that may be executing it, which wants to know whether it could be started here.
pub fn is_to_arrive(me: &NodeName, vm: &Vm) -> bool {
    let claim = &vm.claim.value;
    vm.state.value == VmState::Migrate && vm.node.value == *me && !claim.is_empty() && !claim.names(me)
}

/// Waits for a target that cannot take the VM now, but not for ever.
fn stay_in_the_end(facts: &Facts<'_>, vm: &Vm, again: Duration, why: String) -> Plan {
    let until = facts.attempts.noticed(vm, facts.now) + TARGET_PATIENCE;
    if facts.now >= until {
        return act(Step::Answer(Answer::Stays(not_migrated(&vm.node.value, &why))), why);
    }
    wait(Some(until.min(facts.now + again)), why)
}

fn not_migrated(to: &NodeName, why: &str) -> String {
    if to.is_nobody() { format!("not migrated: {why}") } else { format!("not migrated to {to}: {why}") }
}

/// It was to be moved by a shutdown, is off here, and its target cannot take it after all.
pub(super) fn not_taken(facts: &Facts<'_>, vm: &Vm) -> Option<Plan> {
    let to = &vm.node.value;
    let why = facts.target.err()?;
    let why = format!("{to} cannot take it: {why}");
    Some(act(Step::Answer(Answer::Stays(not_migrated(to, &why))), why))
}

/// This node and `to` claim it, this node first; its process is here.
pub(super) fn between(facts: &Facts<'_>, vm: &Vm, to: &NodeName) -> Plan {
    let wanted_there = vm.state.value == VmState::Migrate && vm.node.value == *to;
    if facts.left && facts.local_state == LocalState::Held {
        return act(Step::HandOver, format!("it has arrived on {to}, and its process here is being ended"));
    }
    if matches!(vm.state.value, VmState::Stop | VmState::Delete) {
        return act(Step::PowerOff, format!("desired state is {}", vm.state.value));
    }
    match facts.migration {
        Some(Migration::Leaving(progress)) if wanted_there => attend(facts, vm, to, progress),
        Some(Migration::Leaving(_)) => {
            abort(facts, vm, format!("desired state is now {} on {}", vm.state.value, vm.node.value))
        }
        Some(Migration::Arriving) => wait(Some(facts.now + ATTEND), "it arrives here from elsewhere"),
        None => decide(facts, vm, to, wanted_there),
    }
}

/// A migration is under way, as desired.
fn attend(facts: &Facts<'_>, vm: &Vm, to: &NodeName, progress: Progress) -> Plan {
    let quiet = facts.attempts.quiet_for(vm, facts.now);
    if quiet >= STALLED {
        return abort(facts, vm, format!("nothing was sent to {to} for {} s", quiet.as_secs()));
    }
    if let Some(reason) = never_ends(progress) {
        return abort(facts, vm, reason);
    }
    let elapsed = progress.elapsed.as_secs();
    let why = format!("migrating to {to}: {} % copied in {elapsed} s", progress.percent());
    wait(Some(facts.now + ATTEND), why)
}

fn abort(facts: &Facts<'_>, vm: &Vm, why: String) -> Plan {
    match facts.attempts.aborted(vm).map(|at| at + ABORT_AGAIN).filter(|until| *until > facts.now) {
        Some(until) => {
            wait(Some(until.min(facts.now + TIDYING)), format!("the migration is being aborted: {why}"))
        }
        None => act(Step::AbortMigration, why),
    }
}

/// No migration is under way: it has not begun, or it has failed, or it has come to its end without an end here.
fn decide(facts: &Facts<'_>, vm: &Vm, to: &NodeName, wanted_there: bool) -> Plan {
    let desired = vm.state.value;
    if facts.local_state == LocalState::Active {
        if desired == VmState::Shutdown {
            return shut_down(facts, vm);
        }
        // What cannot be started again is taken back first, and answered then.
        if desired != VmState::Migrate && vm.node.value != *facts.me && facts.definition.is_ok() {
            return act(Step::PowerOff, format!("it was moved to {} without migration", vm.node.value));
        }
        if wanted_there && facts.attempts.may_migrate(vm) {
            return act(Step::Migrate(to.clone()), format!("desired state is migrate to {to}"));
        }
    }
    match facts.attempts.peer_state(vm, to, facts.now) {
        None => act(Step::LookAt(to.clone()), format!("{to} claims it, too, and no migration is under way")),
        Some(PeerState::Active) => executes_on_both(facts, vm, to),
        Some(PeerState::Off) if sabotage::commits(Bug::EndAtTheSource) => {
            act(Step::PowerOff, format!("it is not on {to}"))
        }
        Some(PeerState::Off) => act(Step::TakeBack, format!("it is not on {to}")),
        Some(PeerState::Held) => take_back_from_what_is_left(
            facts,
            vm,
            to,
            format!("what is on {to} was not let go on and never will be"),
        ),
        Some(PeerState::Unknown(why)) => {
            let why =
                format!("whatever is on {to} was not let go on and never will be; its libvirt says: {why}");
            take_back_from_what_is_left(facts, vm, to, why)
        }
    }
}

/// The target has, or may have, a process that does not execute. Its claim lasts, if that costs the guest nothing, until its libvirt has had
/// the time to end it: what executes here needs no other claim.
fn take_back_from_what_is_left(facts: &Facts<'_>, vm: &Vm, to: &NodeName, why: String) -> Plan {
    let until = facts.attempts.peer_state_since(vm, facts.now) + ENDS_WITHIN;
    if facts.local_state == LocalState::Active && facts.now < until {
        let again = until.min(facts.now + TIDYING);
        return wait(
            Some(again),
            format!("the libvirt of {to} is to end what a failed migration left there"),
        );
    }
    act(Step::TakeBack, why)
}

/// It executes on the target, and not by our doing. What executes here is the guest, and the target suspends what libvirt's autostart or
/// somebody's hand has started there; if it does not, one of the two has to end. What is only held here was left behind.
fn executes_on_both(facts: &Facts<'_>, vm: &Vm, to: &NodeName) -> Plan {
    let until = facts.attempts.peer_state_since(vm, facts.now) + SUSPENDS_WITHIN;
    if facts.local_state == LocalState::Active && facts.now < until {
        return wait(
            Some(until.min(facts.now + TIDYING)),
            format!("it executes on {to}, too, which has to suspend what nobody has handed over to it"),
        );
    }
    act(Step::PowerOff, format!("it executes on {to}: this is what was left here"))
}

/// This node and others claim it, this node first, and it is off here.
pub(super) fn ended(facts: &Facts<'_>, to: &[NodeName]) -> Plan {
    match to {
        [to] if facts.left => act(Step::HandOver, format!("it has arrived on {to}")),
        _ => act(Step::Release, "it ended here before it arrived elsewhere"),
    }
}

/// This node and others claim it, another one first: what is here is that node's business.
pub(super) fn arriving(facts: &Facts<'_>, from: &NodeName) -> Plan {
    if facts.local_state == LocalState::Arrived && sabotage::commits(Bug::ArriveRunning) {
        return act(Step::Resume, "it has arrived");
    }
    if facts.local_state == LocalState::Active && facts.halt.is_none() {
        // What arrives is paused: somebody else has started this, or let it go on.
        return act(Step::Suspend, format!("{from} has not handed it over"));
    }
    wait(
        None,
        match facts.local_state {
            LocalState::Arrived => format!("it has arrived from {from}, which has to let go of its claim"),
            LocalState::Held => format!("it is arriving from {from}"),
            LocalState::Suspended(_) => format!("it was suspended here: {from} decides"),
            LocalState::Active if facts.halt.is_some() => {
                format!("it does not execute here, and {from} has not let go of its claim")
            }
            LocalState::Off | LocalState::Unstarted | LocalState::Active | LocalState::Unknown => {
                format!("it may be migrating here from {from}")
            }
        },
    )
}

/// A migration holds it here or has brought it, and this node alone claims it: what is here is the guest, not an old copy.
pub(super) fn held(facts: &Facts<'_>, vm: &Vm) -> Plan {
    if !shall_go_on(facts.me, vm) {
        return act(Step::PowerOff, format!("desired state is {} on {}", vm.state.value, vm.node.value));
    }
    match facts.migration {
        Some(Migration::Arriving) => {
            // libvirt ends it when its source is gone, and without its source it is nothing.
            wait(Some(facts.now + ATTEND), "the rest of it has not arrived")
        }
        Some(Migration::Leaving(_)) => abort(facts, vm, "it migrates without a claim of its target".into()),
        None => act(Step::Resume, "its migration is over, and nobody else claims it"),
    }
}

/// Whether what is stopped here, claimed by this node alone, is to execute: what shall shut down or move has to, for that.
pub(super) fn shall_go_on(me: &NodeName, vm: &Vm) -> bool {
    match vm.state.value {
        VmState::Stop | VmState::Delete => false,
        VmState::Shutdown | VmState::Migrate => true,
        VmState::Start | VmState::Restart | VmState::Failed => vm.node.value == *me,
    }
}
