//! What is done about a VM of which nothing is on this node.

use super::{
    Answer, ELSEWHERE_AFTER, Facts, HEAR_AGAIN, Plan, REFUSED_FOR, START_LIMIT, START_WINDOW, Step, act,
    attempts, migration, settled, wait,
};
use crate::{
    model::{Claim, Vm, VmState},
    sabotage::{self, Bug},
};

pub(super) fn while_off(facts: &Facts<'_>, vm: &Vm) -> Plan {
    let claim = &vm.claim.value;
    match claim.between() {
        Some((from, to)) if from == facts.me => return migration::ended(facts, to),
        Some((from, _)) if claim.names(facts.me) => return migration::arriving(facts, from),
        _ => {}
    }
    let desired_here = vm.node.value == *facts.me;
    let shall_run = matches!(vm.state.value, VmState::Start | VmState::Restart | VmState::Migrate)
        && !vm.is_half_deleted();
    if claim.names(facts.me) && !(desired_here && shall_run) {
        return match vm.state.value {
            VmState::Shutdown if claim.is_only(facts.me) => act(Step::Answer(Answer::Stopped), "it is off"),
            VmState::Migrate if let Some(plan) = migration::not_taken(facts, vm) => plan,
            _ => act(Step::Release, "it is off here"),
        };
    }
    if vm.node.value.is_nobody() && shall_run && claim.is_empty() {
        return homeless(facts, vm);
    }
    if !desired_here {
        return settled();
    }
    let mut others = claim.without(facts.me);
    if sabotage::commits(Bug::ClaimDiesWithItsVm) && vm.last_node.zxid > vm.claim.zxid {
        // As if it had been deleted with the VM that was defined anew since.
        others = Claim::none();
    }
    match vm.state.value {
        VmState::Stop | VmState::Failed | VmState::Delete => settled(),
        _ if !others.is_empty() => {
            wait(None, format!("{others} may still be running it: the claim names it"))
        }
        VmState::Shutdown => act(Step::Answer(Answer::Stopped), "it is off"),
        // Its guest ended on the way: what was to arrive here is started here, and answered when it runs.
        VmState::Migrate if claim.is_only(facts.me) => start(facts, vm),
        VmState::Migrate => act(Step::Answer(Answer::Running), "nothing to migrate: nobody runs it"),
        VmState::Start | VmState::Restart => start(facts, vm),
    }
}

/// It shall run, nobody has it, and its desired state names no node.
fn homeless(facts: &Facts<'_>, vm: &Vm) -> Plan {
    if !facts.tidies_up {
        return settled();
    }
    match facts.attempts.no_target(vm, facts.now) {
        None => act(Step::Choose, "its desired state names no node"),
        Some(why) => wait(
            Some(facts.now + attempts::CHOOSE_AGAIN),
            format!("its desired state names no node, and {why}"),
        ),
    }
}

fn start(facts: &Facts<'_>, vm: &Vm) -> Plan {
    if let Err(why) = facts.last_word {
        return wait(Some(facts.now + HEAR_AGAIN), why);
    }
    if let Some(refused) = facts.attempts.refused(vm) {
        let (given_up_at, again_at) = (refused.since + REFUSED_FOR, refused.again_at);
        let (times, why) = (refused.times, &refused.why);
        if facts.now >= given_up_at {
            let minutes = REFUSED_FOR.as_secs() / 60;
            let reason =
                format!("{} could not start it for {minutes} minutes, {times} times: {why}", facts.me);
            return act(Step::Answer(Answer::Failed(reason)), "it cannot be started here");
        }
        let is_stuck = times > 1 && facts.now >= refused.since + ELSEWHERE_AFTER;
        let nowhere = facts.attempts.no_target(vm, facts.now);
        if is_stuck && nowhere.is_none() && !sabotage::commits(Bug::KeepTheRefused) {
            return act(Step::GiveAway, format!("{} could not start it, {times} times: {why}", facts.me));
        }
        if again_at > facts.now {
            let (again, left) =
                (again_at.since(facts.now).as_secs(), given_up_at.since(facts.now).as_secs() / 60);
            let elsewhere = nowhere.map(|why| format!("; elsewhere: {why}")).unwrap_or_default();
            let why = format!(
                "it could not be started, {times} time(s): {why}; tried again in {again} s, and for {left} more minutes{elsewhere}"
            );
            return wait(Some(again_at.min(given_up_at)), why);
        }
    }
    if let Some(until) = facts.attempts.start_not_before(vm, facts.now) {
        let left = until.since(facts.now).as_secs_f32();
        let times = facts.attempts.starts(vm, facts.now);
        return wait(
            Some(until),
            format!("it ended {times} time(s) after a start; next start in {left:.0} s"),
        );
    }
    if facts.attempts.starts(vm, facts.now) >= START_LIMIT {
        let minutes = START_WINDOW.as_secs() / 60;
        let reason = format!(
            "started {START_LIMIT} times in {minutes} minutes and ended each time; see its console log"
        );
        return act(Step::Answer(Answer::Failed(reason)), "it does not stay up");
    }
    if facts.attempts.may_start(vm) || sabotage::commits(Bug::StartWithoutClaim) {
        return act(Step::Start, format!("desired state is {}", vm.state.value));
    }
    act(Step::Claim, format!("desired state is {}, nobody else claims it", vm.state.value))
}
