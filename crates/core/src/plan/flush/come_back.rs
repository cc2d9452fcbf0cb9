//! The unflush: VMs whose `lastnode` is this node return.

use super::{
    ClusterCapacity, DomainState, Facts, Held, NotNow, Plan, Step, Traffic, Vm, VmState, Work, is_moving,
    largest_first, may_try, may_write, size_of,
};
use crate::sabotage::{self, Bug};

pub(super) fn plan(facts: &Facts<'_>) -> Plan {
    let mut work = survey(facts);
    work.leave_refused(facts);
    largest_first(facts, &mut work.waiting);
    let capacity = ClusterCapacity::count(facts.view, facts.sizes, facts.silent);
    let traffic = Traffic::count(facts.view);
    let mut held = Held::default();
    for vm in &work.waiting {
        match how(facts, &capacity, &traffic, vm) {
            Ok((step, why)) => {
                return work.step(facts, step, format!("{}: {why}: desired state is unflush", vm.name));
            }
            Err(not_now) => held.note(facts, vm.id, not_now),
        }
    }
    for (id, reason) in std::mem::take(&mut held.cannot) {
        work.waiting.retain(|vm| vm.id != id);
        work.stuck.insert(id, format!("it stays where it is: {reason}"));
    }
    if !work.is_over() {
        return work.wait(facts, "returned", held);
    }
    let why = format!("desired state is unflush, and {} VM(s) cannot return", work.stuck.len());
    work.step(facts, Step::Answer(DomainState::Ready), why)
}

fn survey<'a>(facts: &Facts<'a>) -> Work<'a> {
    let mut work = Work::default();
    for vm in facts.view.good_vms() {
        let local_state = vm.node.value == *facts.me;
        // A return that failed has lost its `lastnode` by the desired state, as an old client's `unmigrate` writes it. One that has another
        // by now was sent away from where it stayed, and returns there.
        let failed_return = facts.attempts.was_sent(vm.id) && !local_state && vm.last_node.value.is_none();
        if vm.last_node.value.as_ref() == Some(facts.me) || failed_return {
            sort(facts, vm, local_state, &mut work);
        } else if local_state && is_moving(vm) {
            work.moving.insert(vm.id);
        }
    }
    work
}

fn sort<'a>(facts: &Facts<'_>, vm: &'a Vm, local_state: bool, work: &mut Work<'a>) {
    let off = vm.claim.value.is_empty();
    match vm.state.value {
        _ if local_state && vm.is_shut_down_by_flush() => work.waiting.push(vm),
        VmState::Stop if local_state && off && sabotage::commits(Bug::ForgetTheStop) => work.waiting.push(vm),
        // It runs here, or it is off because somebody wants it off.
        _ if local_state => {}
        VmState::Start | VmState::Failed => work.waiting.push(vm),
        // Leaving just now: it is taken back.
        VmState::Migrate if vm.claim.value.names(facts.me) => work.waiting.push(vm),
        VmState::Stop if off => work.waiting.push(vm),
        VmState::Stop | VmState::Shutdown | VmState::Restart | VmState::Migrate => {
            work.ending.insert(vm.id);
        }
        VmState::Delete => {}
    }
}

fn how(
    facts: &Facts<'_>,
    capacity: &ClusterCapacity,
    traffic: &Traffic<'_>,
    vm: &Vm,
) -> Result<(Step, &'static str), NotNow> {
    may_write(facts, vm)?;
    let local_state = vm.node.value == *facts.me;
    if vm.state.value == VmState::Stop && !local_state {
        return Ok((Step::TakeBack(vm.id), "it was stopped meanwhile, belongs here and stays off"));
    }
    may_try(facts, vm)?;
    if let Some(unable) = facts.unable {
        return Err(NotNow::NoCapacity(format!("{} can start no VMs: {}", facts.me, unable.why)));
    }
    if let Err(unfit) = capacity.takes_back(facts.me, vm.id, size_of(facts, vm)) {
        return Err(NotNow::NoCapacity(format!("{} {unfit}", facts.me)));
    }
    let start = || Step::Start { vm: vm.id, on: facts.me.clone(), home: None };
    if local_state {
        return Ok((start(), "it was shut down by the flush and starts again"));
    }
    if vm.state.value == VmState::Failed && vm.claim.value.is_empty() {
        return Ok((start(), "it failed elsewhere and starts at home"));
    }
    // One that is just leaving runs here: calling it back takes nobody's turn.
    if !vm.claim.value.names(facts.me) {
        let source_is_busy = vm.claim.value.iter().any(|n| traffic.from(n) >= facts.limits.outgoing);
        if source_is_busy || traffic.to(facts.me) >= facts.limits.incoming {
            return Err(NotNow::Later(None, "waits for its turn".to_owned()));
        }
    }
    let to = facts.me.clone();
    Ok((Step::Send { vm: vm.id, to, home: None }, "it returns"))
}
