//! What is known of a VM, and the plan that follows from it.

use std::sync::Arc;

use pvc_core::{
    model::{ClusterView, DaemonState, Entry, Halt, Migration, Node, Vm, VmId, VmKey, VmState},
    plan::{
        placement::{Asker, fit},
        vm::{Facts, LocalState, Next, Plan, Standing, may_execute_elsewhere, plan},
    },
    sabotage::{self, Bug},
};
use pvc_store::schema;

use super::VmReconciler;
use crate::controller::StepError;

/// What is known of one VM.
pub(super) struct Seen {
    pub(super) view: Arc<ClusterView>,
    pub(super) local: Local,
    /// What is wrong with what it would be started from, where a plan needs to know.
    pub(super) definition: Result<(), String>,
    /// libvirt was asked to migrate it, and has not answered yet.
    pub(super) in_call: bool,
}

/// What this node's libvirt knows of one VM.
#[derive(Debug, Clone, Copy)]
pub(super) struct Local {
    pub(super) state: LocalState,
    /// Why it executes nothing though it is here.
    pub(super) halt: Option<Halt>,
    pub(super) migration: Option<Migration>,
    /// It is on record as migrated from here.
    pub(super) left: bool,
}

pub(super) fn wait(why: String) -> Plan {
    Plan { next: Next::Wait(None), why }
}

/// Whether the state tree says that this node's daemon is dead.
pub(super) fn held_for_dead(me: &Node) -> bool {
    schema::node::says(me, DaemonState::Dead)
}

impl VmReconciler {
    pub(super) async fn confirmed_view(&self) -> Result<Arc<ClusterView>, StepError> {
        if sabotage::commits(Bug::EndForAStaleClaim) {
            self.cluster.catch_up().await?;
        } else {
            self.cluster.catch_up_with_everybody().await?;
        }
        Ok(self.cluster.view())
    }

    pub(super) fn plan_of(&self, id: VmId, seen: &Seen) -> Plan {
        let Seen { view, local, definition, .. } = seen;
        if let Some(Entry::Bad(problems)) = view.vms.get(&id).map(|e| &**e) {
            let what: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let here = if matches!(local.state, LocalState::Suspended(_)) {
                "it is suspended here, and "
            } else {
                ""
            };
            return wait(format!("{here}its keys cannot be read: {}", what.join("; ")));
        }
        let (me, vm, local_state) = (&self.cluster.me, view.vm(id), local.state);
        if let Some(vm) = vm
            && self.cluster.is_current()
        {
            self.note(vm, local);
        }
        let attempts = self.memory().get(&id).map(|m| m.attempts.clone()).unwrap_or_default();
        let target = vm.map_or(Ok(()), |vm| {
            fit(view, &vm.node.value, Asker::Source).map_err(|unfit| format!("it {unfit}"))
        });
        // Asked of what may be started here only: it looks at all that runs in the cluster.
        let last_word = match vm {
            Some(vm)
                if vm.node.value == *me && matches!(local_state, LocalState::Off | LocalState::Unstarted) =>
            {
                may_execute_elsewhere(view, me, id, &vm.claim)
            }
            _ => Ok(()),
        };
        plan(&Facts {
            me,
            vm,
            orphan: view.orphan_claims.get(&id).map(|claim| &**claim),
            tidies_up: self.cluster.is_primary(view),
            last_word: last_word.as_ref().copied().map_err(String::as_str),
            local_state,
            halt: local.halt,
            migration: local.migration,
            left: local.left,
            target: target.as_ref().copied().map_err(String::as_str),
            definition: definition.as_ref().copied().map_err(String::as_str),
            standing: match view.node(me) {
                _ if !self.cluster.is_current() => Standing::OutOfReach,
                Some(me) if held_for_dead(me) => Standing::HeldForDead,
                _ => Standing::Current,
            },
            attempts: &attempts,
            now: self.cluster.now(),
        })
    }

    /// Keeps in memory what plans need to know of what was seen before.
    fn note(&self, vm: &Vm, local: &Local) {
        let (local_state, state, now) = (local.state, vm.state.value, self.cluster.now());
        if let Some(Migration::Leaving(progress)) = local.migration {
            self.remember(vm.id, |m| m.attempts.progressed(vm, progress, now));
        }
        if state != VmState::Migrate && local_state == LocalState::Active {
            // While it is not to move, where it shall return to is what its key says.
            let mut memory = self.memory();
            // What has no way home needs no memory of that.
            if vm.last_node.value.is_some() || memory.contains_key(&vm.id) {
                memory.entry(vm.id).or_default().attempts.saw_home(vm);
            }
        }
        if vm.cannot_read(VmKey::Claim) && state == VmState::Restart && local_state == LocalState::Active {
            self.remember(vm.id, |m| m.attempts.runs_unclaimed(vm));
        }
        if state == VmState::Migrate && vm.claim.value.is_only(&self.cluster.me) {
            self.remember(vm.id, |m| m.attempts.notice(vm, now));
        }
    }
}
