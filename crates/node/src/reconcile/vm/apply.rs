//! Carries out the steps about a VM.

use pvc_core::{
    model::{ClusterView, Suspension, Vm, VmChange, VmId},
    plan::vm::{Answer, Step, change, may_execute_elsewhere, put_back},
    sabotage::{self, Bug},
};
use pvc_store::{CommitError, Transaction, schema};
use tracing::{debug, info, warn};

use super::{VmReconciler, facts::held_for_dead};
use crate::{controller::StepError, vm_clients::words_as_seen};

impl VmReconciler {
    pub(super) async fn carry_out(&self, step: &Step, vm: &Vm, why: &str) -> Result<(), StepError> {
        let name = &vm.name;
        let hypervisor = self.inventory.hypervisor();
        match step {
            Step::Start => return self.start(vm, why).await,
            Step::LookAt(node) => self.look_at(vm, node).await?,
            Step::GiveAway => return self.give_away(vm, why).await,
            Step::Choose => return self.choose(vm, why).await,
            Step::Migrate(to) => self.migrate(vm, to, why),
            Step::AbortMigration => return self.abort_migration(vm, why).await,
            Step::Resume => self.let_go(vm, why).await?,
            Step::Suspend => {
                warn!(vm = %name, "it executes here though it belongs elsewhere ({why}): suspended");
                hypervisor.suspend(vm.id, Suspension::Elsewhere).await?;
                self.inventory.read(vm.id).await?;
            }
            Step::AskGuestToShutDown => {
                self.remember(vm.id, |m| m.attempts.asked_to_shut_down(vm, self.cluster.now()));
                info!(vm = %name, "asking the guest to shut down: {why}");
                hypervisor.ask_to_shut_down(vm.id).await?;
            }
            Step::PowerOff => self.power_off(vm, why).await?,
            Step::Claim => self.claim(vm, why).await?,
            Step::Share(to) => self.share(vm, to, why).await?,
            Step::Adopt
            | Step::TakeBack
            | Step::HandOver
            | Step::Release
            | Step::Forget
            | Step::Answer(_) => {
                self.commit(step, vm).await?;
                match step {
                    Step::Adopt => info!(vm = %name, "adopted: {why}"),
                    Step::TakeBack => info!(vm = %name, "it stays here: {why}"),
                    Step::HandOver => debug!(vm = %name, "handed over: {why}"),
                    Step::Release => debug!(vm = %name, "released: {why}"),
                    Step::Answer(Answer::Failed(reason)) => warn!(vm = %name, "failed: {reason}"),
                    Step::Answer(Answer::Stays(reason) | Answer::Halted(reason)) => {
                        warn!(vm = %name, "answered start here: {reason}");
                    }
                    Step::Answer(Answer::Running) => info!(vm = %name, "answered start: {why}"),
                    Step::Answer(Answer::Stopped) => info!(vm = %name, "answered stop: {why}"),
                    _ => debug!(vm = %name, "{why}"),
                }
            }
        }
        Ok(())
    }

    /// The claim that permits a start is written only if no node has said anew what it executes since that was looked at.
    async fn claim(&self, vm: &Vm, why: &str) -> Result<(), StepError> {
        let Some(change) = change(&Step::Claim, vm, &self.cluster.me) else { return Ok(()) };
        let view = self.cluster.view();
        if let Err(why) = may_execute_elsewhere(&view, &self.cluster.me, vm.id, &vm.claim) {
            debug!(vm = %vm.name, "not claimed: {why}");
            return Ok(());
        }
        let others = view.all_nodes().filter(|node| node.name != self.cluster.me);
        let mut words = words_as_seen(&view, others);
        words.ops.extend(self.while_it_lives(&Step::Claim)?.ops);
        match schema::vm::apply_with(&*self.cluster.store, &change, words).await {
            // Heard in the next step.
            Err(CommitError::Conflict { path, .. }) if path.starts_with(schema::node::ROOT) => {
                self.cluster.catch_up().await?;
                debug!(vm = %vm.name, "not claimed: {path} has changed");
                return Ok(());
            }
            outcome => drop(outcome?),
        }
        self.cluster.catch_up().await?;
        self.remember(vm.id, |m| m.attempts.claimed(vm));
        debug!(vm = %vm.name, "claimed: {why}");
        Ok(())
    }

    /// Its keys are gone, and it is off here.
    pub(super) async fn forget(&self, id: VmId, view: &ClusterView) -> Result<(), StepError> {
        let Some(claim) = view.orphan_claim(id) else { return Ok(()) };
        let change = VmChange::orphan(id, claim, &self.cluster.me);
        self.cluster.change(&change, Transaction::default()).await?;
        info!(vm = %id, "its claim is released: its keys are gone, and it is off here");
        Ok(())
    }

    /// It is in no state tree, and has never executed.
    pub(super) async fn end_unstarted(&self, id: VmId, why: &str) -> Result<(), StepError> {
        info!(vm = %id, "powering off: {why}");
        self.inventory.hypervisor().power_off(id).await?;
        self.inventory.read(id).await?;
        Ok(())
    }

    pub(super) async fn power_off(&self, vm: &Vm, why: &str) -> Result<(), StepError> {
        info!(vm = %vm.name, "powering off: {why}");
        if sabotage::commits(Bug::ReleaseFirst) {
            self.commit(&Step::Release, vm).await?;
        }
        self.inventory.hypervisor().power_off(vm.id).await?;
        self.inventory.read(vm.id).await?;
        info!(vm = %vm.name, "powered off");
        Ok(())
    }

    /// Writes a step's transaction and waits until the mirror shows it, so that the next plan sees what was done.
    pub(super) async fn commit(&self, step: &Step, vm: &Vm) -> Result<(), StepError> {
        let Some(mut change) = change(step, vm, &self.cluster.me) else { return Ok(()) };
        if matches!(step, Step::Answer(Answer::Stays(_)))
            && let Some(home) = self.memory().get(&vm.id).and_then(|m| m.attempts.home())
        {
            change = put_back(change, vm, &self.cluster.me, home);
        }
        self.cluster.change(&change, self.while_it_lives(step)?).await
    }

    /// Part of a step that is for the living: it conflicts if somebody has declared this node dead.
    pub(super) fn while_it_lives(&self, step: &Step) -> Result<Transaction, StepError> {
        let view = self.cluster.view();
        match view.node(&self.cluster.me) {
            Some(me) if step.is_for_the_living() && !sabotage::commits(Bug::ClaimWhileDead) => {
                if held_for_dead(me) {
                    return Err(StepError::Conflict(schema::node::path(&me.name)));
                }
                Ok(schema::node::expect_daemon_state(me))
            }
            _ => Ok(Transaction::default()),
        }
    }
}
