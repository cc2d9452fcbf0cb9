//! The transactions of a plan's steps.

use super::{Answer, Step};
use crate::{
    model::{Claim, NodeName, Vm, VmChange, VmKey, VmSet, VmState},
    sabotage::{self, Bug},
};

/// The transaction of a step, or `None` for a step that is not one. It is checked against every field that the step was
/// decided from, so a newer command of a client is never overwritten.
pub fn change(step: &Step, vm: &Vm, me: &NodeName) -> Option<VmChange> {
    let decided_from = [VmKey::State, VmKey::Node, VmKey::Claim];
    let update = |keys: &[VmKey], set| Some(VmChange::update(vm, keys, set));
    match step {
        Step::Adopt if runs_since_before(vm) && !sabotage::commits(Bug::AdoptThenStop) => {
            let shall_run = vm.is_as_defined().then_some(VmSet::State(VmState::Start));
            let claim = [VmSet::Claim(Claim::only(me))].into_iter();
            update(&decided_from, claim.chain(shall_run).chain(node_is(vm, me)).collect())
        }
        Step::Adopt | Step::TakeBack => Some(lives_on(vm, Claim::only(me))),
        Step::Claim => {
            let node = vm.cannot_read(VmKey::Node).then(|| VmSet::Node(me.clone()));
            update(&decided_from, [VmSet::Claim(Claim::only(me))].into_iter().chain(node).collect())
        }
        Step::Share(to) => update(&decided_from, vec![VmSet::Claim(Claim::only(me).with(to))]),
        Step::Release => match vm.claim.value.after_the_end_on(me) {
            free if free.is_empty() => update(&[VmKey::Claim], vec![VmSet::Claim(free)]),
            others => Some(lives_on(vm, others)),
        },
        Step::HandOver => Some(lives_on(vm, vm.claim.value.without(me))),
        Step::Answer(answer) => {
            let released = || VmSet::Claim(vm.claim.value.without(me));
            let set = match answer {
                Answer::Stopped => return Some(stopped(vm, me)),
                Answer::Running => {
                    let at_home = vm.cannot_read(VmKey::LastNode).then_some(VmSet::LastNode(None));
                    let running = [state_is(vm, VmState::Start), node_is(vm, me), at_home];
                    running.into_iter().flatten().collect()
                }
                Answer::Failed(reason) => {
                    let why = [VmSet::FailedReason(reason.clone()), released()];
                    state_is(vm, VmState::Failed).into_iter().chain(why).collect()
                }
                Answer::Stays(reason) => return Some(stay(vm, me, reason)),
                Answer::Halted(reason) => {
                    let at_home = vm.cannot_read(VmKey::LastNode).then_some(VmSet::LastNode(None));
                    let why = Some(VmSet::FailedReason(reason.clone()));
                    let halted = [state_is(vm, VmState::Start), node_is(vm, me), at_home, why];
                    halted.into_iter().flatten().collect()
                }
                Answer::NotYet(reason) => vec![VmSet::FailedReason(reason.clone())],
                Answer::ReasonVoid => vec![VmSet::FailedReason(String::new())],
            };
            let unchecked = sabotage::commits(Bug::AnswerUnchecked);
            update(if unchecked { &[] } else { &decided_from }, set)
        }
        Step::Forget
        | Step::Start
        | Step::AskGuestToShutDown
        | Step::PowerOff
        | Step::Suspend
        | Step::LookAt(_)
        | Step::Migrate(_)
        | Step::AbortMigration
        | Step::Choose
        | Step::GiveAway
        | Step::Resume => None,
    }
}

/// Who has the guest, of which this is no start: its claim does not become younger than a request for its restart, or the guest that is to
/// be restarted would be taken for the one that was.
fn lives_on(vm: &Vm, claim: Claim) -> VmChange {
    let mut set = vec![VmSet::Claim(claim)];
    if vm.state.value == VmState::Restart {
        set.push(VmSet::State(VmState::Restart));
    }
    VmChange::update(vm, &[VmKey::State, VmKey::Claim], set)
}

/// Whether a guest under an empty claim ran before the cluster had the VM: then it runs on where it is, whatever node the definition
/// named, which could not know.
fn runs_since_before(vm: &Vm) -> bool {
    let never_claimed = vm.claim.version.is_none_or(|version| version == 0);
    vm.is_as_defined() || never_claimed && vm.state.value == VmState::Start
}

/// Off as desired. One that a flush has shut down keeps that mark; see [`Vm::is_shut_down_by_flush`].
fn stopped(vm: &Vm, me: &NodeName) -> VmChange {
    let mut decided_from = vec![VmKey::State, VmKey::Node, VmKey::Claim];
    let mut set: Vec<_> = state_is(vm, VmState::Stop).into_iter().collect();
    if !vm.claim.value.is_empty() {
        set.push(VmSet::Claim(vm.claim.value.without(me)));
    }
    if vm.is_shut_down_by_flush() {
        decided_from.push(VmKey::LastNode);
        set.push(VmSet::LastNode(vm.last_node.value.clone()));
    }
    VmChange::update(vm, if sabotage::commits(Bug::AnswerUnchecked) { &[] } else { &decided_from }, set)
}

/// `state` as it shall be. A value that is there already is not written again: an old client reads a key, writes its next version, and
/// says nothing if that fails (decision 92). One that a flush has shut down keeps the age of its mark.
fn state_is(vm: &Vm, state: VmState) -> Option<VmSet> {
    let is_there = vm.state.value == state && !vm.cannot_read(VmKey::State) && !vm.is_shut_down_by_flush();
    (!is_there).then_some(VmSet::State(state))
}

/// `node` = this one, unless it says so already; see [`state_is`].
fn node_is(vm: &Vm, me: &NodeName) -> Option<VmSet> {
    (vm.node.value != *me || vm.cannot_read(VmKey::Node)).then(|| VmSet::Node(me.clone()))
}

/// It shall run on, or migrate to, the node that was chosen, since its desired state names none.
pub fn choose(vm: &Vm, node: &NodeName) -> VmChange {
    VmChange::update(vm, &[VmKey::State, VmKey::Node, VmKey::Claim], vec![VmSet::Node(node.clone())])
}

/// It is off here, where it could not be started for this reason, and shall be started on another node, with a way home.
pub fn give_away(vm: &Vm, me: &NodeName, to: &NodeName, reason: &str) -> VmChange {
    let home = vm.last_node.value.as_ref().unwrap_or(me);
    let home = (home != to).then(|| home.clone());
    let decided_from = [VmKey::State, VmKey::Node, VmKey::LastNode, VmKey::Claim];
    // The desired state stays what it is: who starts the VM answers it.
    let set = vec![
        VmSet::State(vm.state.value),
        VmSet::Node(to.clone()),
        VmSet::LastNode(home),
        VmSet::FailedReason(reason.to_owned()),
        VmSet::Claim(vm.claim.value.without(me)),
    ];
    VmChange::update(vm, &decided_from, set)
}

/// The answer that a VM stays where it is, with the way home that the refused desired state has cleared.
pub fn put_back(change: VmChange, vm: &Vm, me: &NodeName, home: &NodeName) -> VmChange {
    match change {
        VmChange::Update { id, mut expect, mut set } if vm.last_node.value.is_none() && home != me => {
            expect.push((VmKey::LastNode, vm.last_node.version));
            set.push(VmSet::LastNode(Some(home.clone())));
            VmChange::Update { id, expect, set }
        }
        other => other,
    }
}

/// It is where it was before the desired state. A VM whose way home would lead from here to here is at home.
fn stay(vm: &Vm, me: &NodeName, reason: &str) -> VmChange {
    let mut decided_from = vec![VmKey::State, VmKey::Node, VmKey::Claim];
    let mut set: Vec<_> = state_is(vm, VmState::Start).into_iter().chain(node_is(vm, me)).collect();
    set.push(VmSet::FailedReason(reason.to_owned()));
    if vm.last_node.value.as_ref() == Some(me) {
        decided_from.push(VmKey::LastNode);
        set.push(VmSet::LastNode(None));
    }
    VmChange::update(vm, &decided_from, set)
}
