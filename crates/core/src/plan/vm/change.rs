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
        Step::Adopt | Step::TakeBack => Some(lives_on(vm, Claim::only(me))),
        Step::Claim => update(&decided_from, vec![VmSet::Claim(Claim::only(me))]),
        Step::Share(to) => update(&decided_from, vec![VmSet::Claim(Claim::only(me).with(to))]),
        Step::Release => match vm.claim.value.without(me) {
            free if free.is_empty() => update(&[VmKey::Claim], vec![VmSet::Claim(free)]),
            others => Some(lives_on(vm, others)),
        },
        Step::Answer(answer) => {
            let released = || VmSet::Claim(vm.claim.value.without(me));
            let set = match answer {
                Answer::Running => vec![VmSet::State(VmState::Start)],
                Answer::Stopped if vm.claim.value.is_empty() => vec![VmSet::State(VmState::Stop)],
                Answer::Stopped => vec![VmSet::State(VmState::Stop), released()],
                Answer::Failed(reason) => {
                    vec![VmSet::State(VmState::Failed), VmSet::FailedReason(reason.clone()), released()]
                }
                Answer::Stays(reason) => return Some(stay(vm, me, reason)),
                Answer::ReasonVoid => vec![VmSet::FailedReason(String::new())],
            };
            let unchecked = sabotage::commits(Bug::AnswerUnchecked);
            update(if unchecked { &[] } else { &decided_from }, set)
        }
        Step::Start
        | Step::AskGuestToShutDown
        | Step::PowerOff
        | Step::LookAt(_)
        | Step::Migrate(_)
        | Step::AbortMigration
        | Step::Resume => None,
    }
}

/// Who has the guest, of which this is no start: its claim does not become younger than a wish for its restart, or the guest that is to
/// be restarted would be taken for the one that was.
fn lives_on(vm: &Vm, claim: Claim) -> VmChange {
    let mut set = vec![VmSet::Claim(claim)];
    if vm.state.value == VmState::Restart {
        set.push(VmSet::State(VmState::Restart));
    }
    VmChange::update(vm, &[VmKey::State, VmKey::Claim], set)
}

/// It is where it was before the wish. A VM whose way home would lead from here to here is at home.
fn stay(vm: &Vm, me: &NodeName, reason: &str) -> VmChange {
    let mut decided_from = vec![VmKey::State, VmKey::Node, VmKey::Claim];
    let mut set =
        vec![VmSet::State(VmState::Start), VmSet::Node(me.clone()), VmSet::FailedReason(reason.to_owned())];
    if vm.last_node.value.as_ref() == Some(me) {
        decided_from.push(VmKey::LastNode);
        set.push(VmSet::LastNode(None));
    }
    VmChange::update(vm, &decided_from, set)
}
