//! What is off on a node whose flush is over, or that has none, and shall run.
//!
//! What a flush has shut down and the unflush could not start for want of room starts as soon as there is room, on this node or
//! on another, from which it returns as any VM that a flush has sent away. What this node cannot start it gives away.

use super::{
    ClusterCapacity, ClusterView, DomainState, Facts, Held, Next, NodeName, NotNow, Plan, Step, Unfit, Vm,
    VmState, Work, give_away, largest_first, may_write, size_of,
};

/// The VMs that wait.
pub(super) fn waiting<'a>(me: &'a NodeName, view: &'a ClusterView, unable: bool) -> Vec<&'a Vm> {
    let is_ready = view.node(me).is_some_and(|node| node.domain_state.value == DomainState::Ready);
    let shut_down = |vm: &&Vm| is_ready && vm.node.value == *me && vm.is_shut_down_by_flush();
    view.good_vms().filter(shut_down).chain(give_away::of(me, view).filter(|_| unable)).collect()
}

pub(super) fn plan(facts: &Facts<'_>) -> Plan {
    let waiting = waiting(facts.me, facts.view, facts.unable.is_some());
    let mut work = Work { waiting, ..Work::default() };
    work.leave_refused(facts);
    largest_first(facts, &mut work.waiting);
    let capacity = ClusterCapacity::count(facts.view, facts.sizes, facts.silent);
    let mut held = Held::default();
    for vm in &work.waiting {
        match place(facts, &capacity, vm) {
            Ok((step, why)) => return work.step(facts, step, why),
            Err(not_now) => held.note(facts, vm.id, not_now),
        }
    }
    if work.waiting.is_empty() && work.stuck.is_empty() {
        return work.plan(facts, Next::Settled, String::new());
    }
    let mut plan = work.wait(facts, "started again", held);
    for reason in work.stuck.values() {
        plan.why.push_str("; ");
        plan.why.push_str(reason);
    }
    plan
}

fn place(facts: &Facts<'_>, capacity: &ClusterCapacity, vm: &Vm) -> Result<(Step, String), NotNow> {
    may_write(facts, vm)?;
    if !vm.is_shut_down_by_flush() {
        return give_away::place(facts, capacity, vm);
    }
    if vm.state.value == VmState::Shutdown || !vm.claim.value.is_empty() {
        return Err(NotNow::Later(None, "it is not off yet".to_owned()));
    }
    let size = size_of(facts, vm);
    let on = if facts.unable.is_none() && capacity.takes_back(facts.me, vm.id, size).is_ok() {
        facts.me.clone()
    } else {
        let local_state =
            |node: &NodeName| (facts.unable.is_some() && node == facts.me).then_some(Unfit::Excluded);
        capacity
            .choose(vm.id, size, facts.selector, local_state)
            .map_err(|refused| NotNow::Later(None, refused.to_string()))?
    };
    let why = format!("{} was shut down by the flush and starts on {on}: there is room now", vm.name);
    let home = (on != *facts.me).then(|| facts.me.clone());
    Ok((Step::Start { vm: vm.id, on, home }, why))
}
