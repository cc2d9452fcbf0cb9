//! The flush: VMs leave this node.

use std::time::Duration;

use super::{
    ClusterCapacity, DomainState, Entry, Facts, Held, Next, NodeName, NotNow, Plan, Step, Traffic, Unfit, Vm,
    VmId, VmKey, VmState, Work, largest_first, may_try, name_of, size_of,
};
use crate::{
    model::MigrationMethod,
    sabotage::{self, Bug},
};

/// How often the own keepalive is looked at. It is early when what runs here has changed.
const REPORT_AGAIN: Duration = Duration::from_millis(250);

pub(super) fn plan(facts: &Facts<'_>) -> Plan {
    let mut work = survey(facts);
    work.leave_refused(facts);
    largest_first(facts, &mut work.waiting);
    let capacity = ClusterCapacity::count(facts.view, facts.sizes, facts.silent);
    let traffic = Traffic::count(facts.view);
    let mut held = Held::default();
    for vm in &work.waiting {
        match target(facts, &capacity, &traffic, vm) {
            Ok(to) => {
                let home = vm.last_node.value.as_ref().unwrap_or(facts.me);
                // One whose home is where it goes has come home.
                let home = (*home != to).then(|| home.clone());
                let why = format!("{} leaves for {to}: desired state is flush", vm.name);
                return work.step(facts, Step::Send { vm: vm.id, to, home }, why);
            }
            Err(not_now) => held.note(facts, vm.id, not_now),
        }
    }
    for (id, reason) in std::mem::take(&mut held.cannot) {
        let name = name_of(facts.view, id);
        let Some(keeps_running) = keeps_running(facts, id) else {
            let why = format!("{name} cannot go and is shut down: {reason}");
            let reason = format!("shut down by the flush of {}: {reason}", facts.me);
            return work.step(facts, Step::ShutDown { vm: id, reason }, why);
        };
        work.waiting.retain(|vm| vm.id != id);
        work.stuck.insert(id, format!("{name} keeps running: {keeps_running}, and {reason}"));
    }
    if !work.is_over() {
        return work.wait(facts, "left", held);
    }
    if let Some(id) = still_reported(facts) {
        let why = format!("all have left; the next keepalive says so of {}", name_of(facts.view, id));
        return work.plan(facts, Next::Wait(Some(facts.now + REPORT_AGAIN)), why);
    }
    let mut why = format!("desired state is flush, and {} VM(s) are left", work.stuck.len());
    for reason in work.stuck.values() {
        why.push_str("; ");
        why.push_str(reason);
    }
    work.step(facts, Step::Answer(DomainState::Flushed), why)
}

/// Why a VM that cannot go is not shut down either, if so.
fn keeps_running(facts: &Facts<'_>, id: VmId) -> Option<String> {
    let vm = facts.view.vm(id)?;
    if vm.migration_method == MigrationMethod::Live {
        return Some("its migration method is live".to_owned());
    }
    // It is healthy where it is, and ending it would keep it down until the unflush (decision 116).
    if facts.attempts.is_exhausted(id) && vm.claim.value.names(facts.me) {
        return Some("no node took it over".to_owned());
    }
    let unusable = match facts.unusable.get(&id) {
        None if vm.xml_version.is_some() => return None,
        None => "it has no definition",
        Some(what) => what,
    };
    Some(format!("it could not be started again: {unusable}"))
}

/// What the last keepalive says to run here and does not any more. Who waits for the flush reads that.
fn still_reported(facts: &Facts<'_>) -> Option<VmId> {
    let running = facts.running?;
    let me = facts.view.node(facts.me)?;
    me.report.running.iter().find(|id| !running.contains(id)).copied()
}

/// What is still here, or shall be.
fn survey<'a>(facts: &Facts<'a>) -> Work<'a> {
    let mut work = Work::default();
    for (id, entry) in facts.view.vms.iter() {
        let runs_here = facts.running.is_some_and(|running| running.contains(id));
        match &**entry {
            Entry::Good(vm) if runs_here && vm.cannot_read(VmKey::Claim) => {
                if sabotage::commits(Bug::FlushInSilence) {
                    continue;
                }
                work.stuck.insert(*id, format!("{} runs here, and its claim cannot be read", vm.name));
            }
            Entry::Good(vm) if vm.is_half_deleted() => {
                if runs_here {
                    work.stuck.insert(*id, format!("{} runs here, and is half deleted", vm.name));
                }
            }
            Entry::Good(vm) => sort(facts, vm, runs_here, &mut work),
            Entry::Bad(_) if runs_here => {
                work.stuck.insert(*id, format!("{id} runs here, and its keys cannot be read"));
            }
            Entry::Bad(_) => {}
        }
    }
    for id in facts.running.into_iter().flatten().filter(|id| !facts.view.vms.contains_key(id)) {
        work.stuck.insert(*id, format!("{id} runs here, and is not in the state tree"));
    }
    work
}

fn sort<'a>(facts: &Facts<'_>, vm: &'a Vm, runs_here: bool, work: &mut Work<'a>) {
    let claimed = vm.claim.value.names(facts.me);
    let desired_here = vm.node.value == *facts.me;
    match vm.state.value {
        VmState::Start | VmState::Migrate if desired_here => work.waiting.push(vm),
        // It runs, though something about it has failed.
        VmState::Failed if desired_here && claimed => work.waiting.push(vm),
        VmState::Restart | VmState::Shutdown if desired_here => drop(work.ending.insert(vm.id)),
        VmState::Migrate if claimed => drop(work.moving.insert(vm.id)),
        // About to be ended here, or just being so; also what somebody else than this daemon has started, and it has not claimed yet.
        _ if claimed || runs_here => drop(work.ending.insert(vm.id)),
        // Off: it stays assigned to this node, as a client's `flush` has always left it.
        _ => {}
    }
}

fn target(
    facts: &Facts<'_>,
    capacity: &ClusterCapacity,
    traffic: &Traffic<'_>,
    vm: &Vm,
) -> Result<NodeName, NotNow> {
    may_try(facts, vm)?;
    let size = size_of(facts, vm);
    // On its way here: it goes back to where it runs, which costs no memory there, nor a turn.
    let comes_from = vm.claim.value.without(facts.me);
    if let Some(back) = comes_from.iter().find(|node| capacity.admits(node, vm.id, size).is_ok()) {
        return Ok(back.clone());
    }
    let turn = || NotNow::Later(None, "waits for its turn".to_owned());
    if traffic.from(facts.me) >= facts.limits.outgoing {
        return Err(turn());
    }
    let excluded = |node: &NodeName| {
        if node == facts.me {
            return Some(Unfit::Excluded);
        }
        (traffic.to(node) >= facts.limits.incoming).then_some(Unfit::Busy)
    };
    let tried = |node: &NodeName| {
        excluded(node).or_else(|| facts.attempts.was_sent_to(vm.id, node).then_some(Unfit::Excluded))
    };
    let choose = |excluded: &dyn Fn(&NodeName) -> Option<Unfit>| {
        capacity.choose(vm.id, size, facts.selector, excluded)
    };
    match choose(&tried).or_else(|_| choose(&excluded)) {
        Ok(node) => Ok(node),
        Err(refused) if refused.is_busy() => Err(turn()),
        Err(refused) => Err(NotNow::NoCapacity(refused.to_string())),
    }
}
