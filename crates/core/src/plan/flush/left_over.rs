//! What a flush has shut down and the unflush could not start for want of room: it starts as soon as there is room, on this node or
//! on another, from which it returns as any VM that a flush has sent away.

use super::{
    ClusterView, Facts, Held, Next, NodeName, NotNow, Plan, Rooms, Step, Unfit, Vm, VmState, Work,
    largest_first, may_write, size_of,
};

/// The VMs that wait.
pub(super) fn of<'a>(me: &'a NodeName, view: &'a ClusterView) -> impl Iterator<Item = &'a Vm> {
    view.good_vms().filter(move |vm| vm.node.value == *me && vm.is_shut_down_by_flush())
}

pub(super) fn plan(facts: &Facts<'_>) -> Plan {
    let mut work = Work { waiting: of(facts.me, facts.view).collect(), ..Work::default() };
    work.leave_refused(facts);
    largest_first(facts, &mut work.waiting);
    let rooms = Rooms::count(facts.view, facts.sizes, facts.silent);
    let mut held = Held::default();
    for vm in &work.waiting {
        match place(facts, &rooms, vm) {
            Ok(on) => {
                let why =
                    format!("{} was shut down by the flush and starts on {on}: there is room now", vm.name);
                let home = (on != *facts.me).then(|| facts.me.clone());
                return work.step(facts, Step::Start { vm: vm.id, on, home }, why);
            }
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

fn place(facts: &Facts<'_>, rooms: &Rooms, vm: &Vm) -> Result<NodeName, NotNow> {
    may_write(facts, vm)?;
    if vm.state.value == VmState::Shutdown || !vm.claim.value.is_empty() {
        return Err(NotNow::Later(None, "it is not off yet".to_owned()));
    }
    let size = size_of(facts, vm);
    if rooms.has_memory(facts.me, vm.id, size).is_ok() {
        return Ok(facts.me.clone());
    }
    rooms
        .choose(vm.id, size, facts.selector, |_| None::<Unfit>)
        .map_err(|refused| NotNow::Later(None, refused.to_string()))
}
