//! Carries out one step of a fence, and records it.

mod recover;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pvc_core::{
    model::{ClusterView, Fence, FenceJob, FenceStep, Moment, Node, NodeName, Proof, VmId},
    plan::fence::{Action, End, Step},
    sabotage::{self, Bug},
};
use pvc_host::power::{Bmc, Power, PowerState};
use pvc_process::JoinSet;
use pvc_store::schema;
use tokio::time::sleep;
use tracing::{error, info, warn};

use self::recover::Dead;
use super::{
    Dependencies,
    found_off::StoppedNode,
    shoot::{Outcome, PowerOff},
    tell,
};
use crate::{
    bmcs,
    controller::{Cluster, StepError},
    sizes::VmSizes,
    vm_clients::{self, AsDecided, NotShutOut},
};

/// How often, and at what intervals, a node is told to power on.
const POWER_ON_ATTEMPTS: u32 = 3;
const POWER_ON_EVERY: Duration = Duration::from_secs(3);

/// Carries out steps.
pub(super) struct Apply {
    pub(super) dependencies: Dependencies,
    pub(super) sizes: VmSizes,
    /// What nobody waits for; it ends with this.
    pub(super) background: Mutex<JoinSet<()>>,
}

/// What a step did, for the memory.
pub(super) enum Effect {
    Taken,
    Recorded,
    /// Dead, at that moment.
    Proven(Moment),
    /// There is room for VMs of it, and its machine was off still, at that moment …
    FoundOff(Moment),
    /// … or is on, or nobody can say.
    NotFoundOff(String),
    /// Of these stopped coordinators the servers serve.
    Asked(BTreeSet<NodeName>),
    /// Its machine is not known to be off, for this reason.
    NotOff(String),
    PowerOffFailed,
    ToldToPowerOn,
    StorageFailed(String),
    RecoveryFailed(String),
    /// Others are to go on with the job.
    Left,
    Finished,
}

impl Apply {
    pub(super) fn cluster(&self) -> &Cluster {
        &self.dependencies.cluster
    }

    /// Carries out a step about a node, as it was decided from a view.
    pub(super) async fn step(
        &self,
        node: &NodeName,
        step: &Step,
        why: &str,
        view: &ClusterView,
        silent: &BTreeSet<NodeName>,
    ) -> Result<Effect, StepError> {
        let seen = view.node(node);
        let fence = view.fences.get(node).and_then(|entry| entry.good());
        match (step, seen, fence) {
            (Step::Declare, Some(seen), None) => {
                self.declare(seen, FenceStep::Shooting).await?;
                warn!(%node, "declared dead: {why}; this node fences it");
                Ok(Effect::Taken)
            }
            (Step::AskPower, Some(seen), None) => self.ask_power(seen, view, why).await,
            (Step::AskServers(stopped), ..) => Ok(Effect::Asked(self.serving(stopped).await)),
            (Step::TakeOver, _, Some(fence)) => self.take_over(fence, why).await,
            (Step::Shoot, _, Some(fence)) => {
                if let Some(seen) = seen.filter(|_| sabotage::commits(Bug::BreakLocksFirst)) {
                    self.shut_out(fence, seen, view, why).await?;
                }
                if let Some(node) = seen.filter(|_| sabotage::commits(Bug::RecoverUnproven)) {
                    let (proof, action) = ("nothing".to_owned(), Action::Migrate);
                    let unproven = Dead { fence, node, proof, action, without_storage_fence: true };
                    let until = self.cluster().now() + Duration::from_mins(1);
                    self.recover(&unproven, view, silent, until).await?;
                }
                self.shoot(fence, why).await
            }
            (Step::Record(step), Some(seen), Some(fence)) => {
                self.record(fence, seen, step.clone(), why).await
            }
            (Step::Unconfirm, Some(seen), Some(fence)) => {
                let job = self.signed(fence, fence.job.step.clone());
                self.cluster().commit(schema::fence::unconfirm(fence, &job, seen)).await?;
                warn!(%node, "an operator's word that it is dead is void: {why}");
                Ok(Effect::Recorded)
            }
            (Step::PowerOn, _, Some(fence)) => self.power_on(&fence.node).await,
            (Step::ShutOutStorage, Some(seen), Some(fence)) => self.shut_out(fence, seen, view, why).await,
            (Step::Leave, _, Some(fence)) => self.leave(fence, why).await,
            (Step::Recover(until), Some(seen), Some(fence)) => {
                let Some(dead) = self.dead(fence, seen) else { return Ok(Effect::Recorded) };
                self.recover(&dead, view, silent, *until).await
            }
            (Step::AskStillOff, Some(seen), Some(fence)) => {
                let Some(dead) = self.dead(fence, seen) else { return Ok(Effect::Recorded) };
                self.ask_still_off(&dead, view, silent).await
            }
            (Step::Finish(end), seen, Some(fence)) => self.finish(fence, seen, *end, why).await,
            // Plans name no step without what it is about.
            _ => Err(StepError::Conflict("what the step was about".to_owned())),
        }
    }

    async fn declare(&self, seen: &Node, step: FenceStep) -> Result<(), StepError> {
        let owner = schema::owner::read(&*self.cluster().store, &seen.name).await?;
        let job = FenceJob {
            step,
            instance: owner.and_then(|held| held.by).map(|owner| owner.instance),
            by: self.cluster().me.to_string(),
            at_unix_s: self.cluster().machine.unix_s(),
            confirmed_dead: None,
            asked: None,
            keepalive_version: seen.keepalive_version,
            boot: seen.boot.clone(),
            freed: BTreeSet::new(),
            earlier: Vec::new(),
        };
        self.cluster().commit(schema::fence::begin(seen, &self.cluster().me, &job)).await
    }

    /// Nothing is switched. What the node says after it was seen, be it that its machine boots, is a conflict.
    async fn ask_power(&self, seen: &Node, view: &ClusterView, why: &str) -> Result<Effect, StepError> {
        let node = &seen.name;
        let asked =
            StoppedNode { store: &*self.cluster().store, power: &*self.dependencies.power, seen, view };
        if let Err(why) = asked.is_off().await? {
            return Ok(Effect::NotOff(why));
        }
        self.declare(seen, FenceStep::Proven { proof: Proof::FoundOff }).await?;
        warn!(%node, "declared dead: {why}, and its BMC reports power off; this node has its VMs run elsewhere");
        Ok(Effect::Taken)
    }

    async fn serving(&self, stopped: &[NodeName]) -> BTreeSet<NodeName> {
        let mut asked = JoinSet::new();
        for node in stopped {
            let (node, servers) = (node.clone(), Arc::clone(&self.dependencies.servers));
            asked.spawn(async move { servers.serves(&node).await.then_some(node) });
        }
        let mut serving = BTreeSet::new();
        while let Some(answer) = asked.join_next().await {
            serving.extend(answer.ok().flatten());
        }
        info!(
            "of the coordinators whose daemons have stopped the ZooKeeper servers of these serve: {serving:?}"
        );
        serving
    }

    async fn take_over(&self, fence: &Fence, why: &str) -> Result<Effect, StepError> {
        let job = self.signed(fence, fence.job.step.clone());
        self.cluster().commit(schema::fence::take_over(fence, &self.cluster().me, &job)).await?;
        warn!(node = %fence.node, "this node goes on with its fence ({}, last by {}): {why}", words(&job.step), fence.job.by);
        Ok(Effect::Taken)
    }

    async fn shoot(&self, fence: &Fence, why: &str) -> Result<Effect, StepError> {
        let (node, store) = (&fence.node, &*self.cluster().store);
        info!(%node, "cutting its power: {why}");
        let at = self.cluster().now();
        let outcome = match bmcs::read(store, node).await? {
            Some(bmc) => {
                let (me, power) = (&self.cluster().me, &*self.dependencies.power);
                PowerOff { me, store, power, bmc: &bmc, fence }.fire().await?
            }
            None => Outcome::Alive("no BMC of it is known (system.fencing.ipmi in its pvcd.yaml)".to_owned()),
        };
        match outcome {
            Outcome::NotOurs(why) => {
                self.cluster().catch_up().await?;
                Err(StepError::Conflict(why.to_owned()))
            }
            Outcome::Dead { proof, seen } => {
                let job = self.signed(fence, FenceStep::Proven { proof });
                self.cluster().commit(schema::fence::record_proof(fence, &job, &seen)).await?;
                warn!(%node, "is dead: {proof}");
                Ok(Effect::Proven(at))
            }
            Outcome::Alive(reason) => {
                let attempts = match &fence.job.step {
                    FenceStep::Failed { attempts, .. } => attempts.saturating_add(1),
                    _ => 1,
                };
                error!(
                    %node, alert = true,
                    "COULD NOT BE FENCED (attempt {attempts}): {reason}; its VMs stay where they are until it is proven dead"
                );
                let job = self.signed(fence, FenceStep::Failed { reason, attempts });
                self.cluster().commit(schema::fence::leave(fence, &job)).await?;
                Ok(Effect::PowerOffFailed)
            }
        }
    }

    async fn record(
        &self,
        fence: &Fence,
        seen: &Node,
        step: FenceStep,
        why: &str,
    ) -> Result<Effect, StepError> {
        let node = &fence.node;
        let job = self.signed(fence, step);
        match &job.step {
            FenceStep::Proven { .. } => {
                let at = self.cluster().now();
                self.cluster().commit(schema::fence::record_proof(fence, &job, seen)).await?;
                warn!(%node, "is taken for dead: {why}");
                return Ok(Effect::Proven(at));
            }
            FenceStep::Shooting => {
                let job = job.to_be_proven_again();
                self.cluster().commit(schema::fence::record(fence, &job)).await?;
                warn!(%node, "its VMs could start elsewhere, and its death has to be proven again: {why}");
            }
            FenceStep::Recovered { proof }
                if self.dependencies.settings.action(*proof) == Action::Migrate =>
            {
                self.cluster().commit(schema::fence::record_recovered(fence, &job, seen)).await?;
                info!(%node, "its VMs have new homes, it is flushed: {why}");
            }
            _ => {
                self.cluster().commit(schema::fence::record(fence, &job)).await?;
                info!(%node, "{}: {why}", words(&job.step));
            }
        }
        Ok(Effect::Recorded)
    }

    /// Asks nobody while there is nothing that could be done.
    async fn ask_still_off(
        &self,
        dead: &Dead<'_>,
        view: &ClusterView,
        silent: &BTreeSet<NodeName>,
    ) -> Result<Effect, StepError> {
        let node = &dead.fence.node;
        if let Some(stuck) = self.nothing_to_do(dead, view, silent).await? {
            return Ok(Effect::RecoveryFailed(stuck));
        }
        let Some(bmc) = bmcs::read(&*self.cluster().store, node).await? else {
            return Ok(Effect::NotFoundOff("no BMC of it is known".to_owned()));
        };
        let at = self.cluster().now();
        Ok(match self.dependencies.power.status(&bmc).await {
            Ok(PowerState::Off) => {
                info!(%node, "its BMC says that it is off still, and there is room for VMs of it");
                Effect::FoundOff(at)
            }
            Ok(PowerState::On) => Effect::NotFoundOff("its BMC says that it is on again".to_owned()),
            Err(error) => Effect::NotFoundOff(error.to_string()),
        })
    }

    /// Tells it to power on, in the background: nobody waits for its boot.
    async fn power_on(&self, node: &NodeName) -> Result<Effect, StepError> {
        if let Some(bmc) = bmcs::read(&*self.cluster().store, node).await? {
            let (power, node) = (Arc::clone(&self.dependencies.power), node.clone());
            let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
            while background.try_join_next().is_some() {}
            background.spawn(async move { power_on(&*power, &bmc, &node).await });
        }
        Ok(Effect::ToldToPowerOn)
    }

    /// While Ceph does not answer, another node may take the job over, and whoever it is about may be back.
    async fn shut_out(
        &self,
        fence: &Fence,
        seen: &Node,
        view: &ClusterView,
        why: &str,
    ) -> Result<Effect, StepError> {
        let node = &fence.node;
        let (store, storage) = (&*self.cluster().store, &*self.dependencies.storage);
        let warrant = AsDecided { store, checks: schema::fence::expect_dead(fence, seen) };
        let images = self.sizes.images(view).await?;
        let shut_out = vm_clients::shut_out_node(store, storage, seen, view, &images, &warrant).await;
        let waiting = match shut_out {
            Ok(waiting) => waiting,
            Err(overtaken @ NotShutOut::Overtaken(_)) => {
                self.cluster().catch_up().await?;
                return overtaken.failed().map(Effect::StorageFailed);
            }
            Err(NotShutOut::Failed(failed)) => {
                error!(%node, alert = true, "could not be shut out of the storage: {failed}; {why}, which wait for it");
                return Ok(Effect::StorageFailed(failed));
            }
        };
        let Some(proof) = fence.job.step.proof() else { return Ok(Effect::Recorded) };
        if !waiting.is_empty() {
            return self.shut_out_of_some(fence, seen, view, &waiting).await;
        }
        let job = self.signed(fence, FenceStep::StorageFenced { proof });
        self.cluster().commit(schema::fence::record_shut_out(fence, &job, seen)).await?;
        warn!(%node, "is shut out of the storage: {why}");
        Ok(Effect::Recorded)
    }

    /// What is `waiting` stays where it is, and is tried again; the other VMs start elsewhere.
    async fn shut_out_of_some(
        &self,
        fence: &Fence,
        seen: &Node,
        view: &ClusterView,
        waiting: &BTreeMap<VmId, String>,
    ) -> Result<Effect, StepError> {
        let node = &fence.node;
        let claimed = view.good_vms().filter(|vm| vm.claim.value.names(node));
        let freed: BTreeSet<VmId> = claimed.map(|vm| vm.id).filter(|id| !waiting.contains_key(id)).collect();
        if !freed.is_subset(&fence.job.freed) {
            let mut job = self.signed(fence, fence.job.step.clone());
            job.freed.extend(freed);
            self.cluster().commit(schema::fence::record_shut_out(fence, &job, seen)).await?;
        }
        let mut told = Vec::new();
        for (id, why) in waiting {
            let Some(vm) = view.vm(*id) else { continue };
            let because = format!("{node} is dead, and may still be writing to its images: {why}");
            if tell::vm(self.cluster(), vm, &because).await {
                error!(%node, vm = %vm.name, alert = true, "not recovered yet: {because}");
            }
            told.push(format!("{}: {why}", vm.name));
        }
        Ok(Effect::StorageFailed(told.join("; ")))
    }

    async fn leave(&self, fence: &Fence, why: &str) -> Result<Effect, StepError> {
        let job = self.signed(fence, fence.job.step.clone());
        self.cluster().commit(schema::fence::leave(fence, &job)).await?;
        info!(node = %fence.node, "its fence is left to others: {why}");
        Ok(Effect::Left)
    }

    async fn finish(
        &self,
        fence: &Fence,
        seen: Option<&Node>,
        end: End,
        why: &str,
    ) -> Result<Effect, StepError> {
        let node = &fence.node;
        let txn = match (end, seen) {
            (End::Cancelled | End::Back, Some(seen)) => schema::fence::call_off(fence, seen),
            (End::Cancelled | End::Back | End::Done | End::Removed, _) => schema::fence::finish(fence),
        };
        self.cluster().commit(txn).await?;
        tell::settled(&*self.cluster().store, node).await;
        match end {
            End::Cancelled => warn!(%node, "its fence is cancelled: {why}"),
            End::Back => info!(%node, "its fence is over, it is back: {why}"),
            End::Done => info!(%node, "its fence is over: {why}"),
            End::Removed => warn!(%node, "its fence is over: {why}"),
        }
        Ok(Effect::Finished)
    }

    fn dead<'a>(&self, fence: &'a Fence, node: &'a Node) -> Option<Dead<'a>> {
        let proof: Proof = fence.job.step.proof()?;
        Some(Dead {
            fence,
            node,
            proof: proof.to_string(),
            action: self.dependencies.settings.action(proof),
            without_storage_fence: false,
        })
    }

    fn signed(&self, fence: &Fence, step: FenceStep) -> FenceJob {
        FenceJob {
            step,
            by: self.cluster().me.to_string(),
            at_unix_s: self.cluster().machine.unix_s(),
            ..fence.job.clone()
        }
    }
}

async fn power_on(power: &dyn Power, bmc: &Bmc, node: &NodeName) {
    for attempt in 1..=POWER_ON_ATTEMPTS {
        match power.on(bmc).await {
            Ok(()) => return info!(%node, "told to power on again"),
            Err(error) if attempt == POWER_ON_ATTEMPTS => {
                warn!(%node, %error, "could not be powered on again: somebody has to");
            }
            Err(_) => sleep(POWER_ON_EVERY).await,
        }
    }
}

fn words(step: &FenceStep) -> &'static str {
    match step {
        FenceStep::Shooting => "its power is to be cut",
        FenceStep::Failed { .. } => "its power could not be cut",
        FenceStep::Proven { .. } => "it is proven dead",
        FenceStep::StorageFenced { .. } => "it is shut out of the storage",
        FenceStep::Recovered { .. } => "its VMs have new homes",
    }
}
