//! The start of a VM, and what is said and done if it fails.

use std::{sync::Arc, time::Duration};

use pvc_core::{
    model::{DomainSpec, Subject, Vm, VmId},
    plan::{
        storage_fence::images,
        vm::{Answer, LocalState, Step},
    },
};
use pvc_host::{hypervisor::HypervisorError, storage_fence::StorageFence};
use pvc_store::schema;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::VmReconciler;
use crate::{
    controller::StepError,
    metrics,
    vm_clients::{self, AsDecided, NotShutOut, decided_from},
};

/// How long it may take to record the clients of a VM before it executes.
const RECORDED_WITHIN: Duration = Duration::from_secs(20);

impl VmReconciler {
    /// The turns of its start: by all the pools that it asks, those also that only an earlier run of it used. What cannot be read is not started: it waits
    /// for nothing.
    pub(super) async fn start_turns(&self, subject: &Subject) -> Arc<Semaphore> {
        let view = self.cluster.view();
        let vm = if let Subject::Vm(id) = subject { view.vm(*id) } else { None };
        let spec = match vm {
            Some(vm) => self.definitions.of(vm).await.ok().and_then(Result::ok),
            None => None,
        };
        let mut all = spec.map(|spec| images(&spec.rbd_images).0).unwrap_or_default();
        // One without disks asks nobody.
        if let Some(vm) = vm.filter(|_| !all.is_empty()) {
            let recorded = schema::vm_clients::read_vm(&*self.cluster.store, vm.id).await;
            let recorded = recorded.map(|(records, _)| records).unwrap_or_default();
            all.extend(recorded.into_iter().flat_map(|record| record.clients.images));
        }
        self.starts.of(&all)
    }

    pub(super) async fn start(&self, vm: &Vm, why: &str) -> Result<(), StepError> {
        let spec = match self.definitions.of(vm).await? {
            Ok(spec) => spec,
            Err(reason) => return self.give_up(vm, reason).await,
        };
        let begin = Instant::now();
        if let Some(reason) = self.lacks_storage(&spec) {
            self.remember(vm.id, |m| m.attempts.start_attempted(vm, self.cluster.now()));
            return self.refused(vm, reason).await;
        }
        let storage = self.storage.as_deref().filter(|_| !spec.rbd_images.is_empty());
        if let Some(storage) = storage
            && !self.shut_out_ended(vm, &spec, storage).await?
        {
            return Ok(());
        }
        self.remember(vm.id, |m| m.attempts.start_attempted(vm, self.cluster.now()));
        let started = match storage {
            Some(storage) => self.start_recorded(vm, &spec, storage).await?,
            None => self.inventory.hypervisor().start(&spec).await,
        };
        match started {
            Ok(()) => {
                metrics::vm_started(begin.elapsed());
                self.remember(vm.id, |m| m.attempts.start_succeeded());
                info!(vm = %vm.name, "started in {:.2} s: {why}", begin.elapsed().as_secs_f32());
            }
            Err(HypervisorError::Refused(reason)) => {
                // It may be there: begun by an earlier run of this daemon, which is why libvirt refuses another.
                return match self.inventory.read(vm.id).await? {
                    LocalState::Off => self.refused(vm, reason).await,
                    _ => Ok(()),
                };
            }
            Err(HypervisorError::Unusable(reason)) => return self.give_up(vm, reason).await,
            Err(unknown) => return Err(unknown.into()),
        }
        self.inventory.read(vm.id).await?;
        Ok(())
    }

    /// Nothing executes before its Ceph clients are recorded: a process that cannot be recorded soon is ended.
    async fn start_recorded(
        &self,
        vm: &Vm,
        spec: &DomainSpec,
        storage: &dyn StorageFence,
    ) -> Result<Result<(), HypervisorError>, StepError> {
        let (store, hypervisor) = (&*self.cluster.store, self.inventory.hypervisor());
        let late = || format!("no answer within {} s", RECORDED_WITHIN.as_secs());
        let there = timeout(RECORDED_WITHIN, vm_clients::written_images_are_there(storage, spec)).await;
        if let Err(why) = there.unwrap_or_else(|_| Err(late())) {
            return Ok(Err(HypervisorError::Refused(format!("its images cannot be used: {why}"))));
        }
        if let Err(error) = hypervisor.prepare(spec).await {
            return Ok(Err(error));
        }
        let decided_from = decided_from(vm);
        let view = self.cluster.view();
        let Some(me) = view.node(&self.cluster.me) else {
            return Err(StepError::Conflict(self.cluster.me.to_string()));
        };
        let record = vm_clients::record_unstarted(store, storage, me, spec, &decided_from);
        let recorded = timeout(RECORDED_WITHIN, record).await;
        let recorded = recorded.unwrap_or_else(|_| Err(NotShutOut::Failed(late())));
        let begun = match &recorded {
            Ok(()) => hypervisor.resume(vm.id).await,
            Err(not) => Err(HypervisorError::Refused(format!("its Ceph clients cannot be recorded: {not}"))),
        };
        // What executes was there before, and not made here.
        if matches!(begun, Err(HypervisorError::Refused(_)))
            && self.inventory.read(vm.id).await? == LocalState::Unstarted
        {
            self.power_off(vm, "it does not begin").await?;
        }
        match recorded {
            Err(NotShutOut::Overtaken(what)) => Err(StepError::Conflict(what)),
            _ => Ok(begun),
        }
    }

    /// Lets a process go on that has arrived by a migration, or that was suspended, when its Ceph clients are recorded; or one execute that an earlier start has left. One that
    /// has executed nothing is ended if its Ceph clients are to be recorded: what it has open is not known, and nothing is lost with it.
    pub(super) async fn let_go(&self, vm: &Vm, why: &str) -> Result<(), StepError> {
        if self.inventory.read(vm.id).await? == LocalState::Unstarted {
            let definition = self.definitions.of(vm).await?;
            if definition.map_or(true, |spec| !spec.rbd_images.is_empty()) {
                self.power_off(vm, "a start was given up before its Ceph clients were recorded").await?;
                let why = "its process was made and not let go: libvirt or its storage did not answer in time, or the daemon ended meanwhile";
                // It has not executed: that is no start that ended.
                return self.refused(vm, why.to_owned()).await;
            }
        } else {
            self.record_arrived(vm).await?;
        }
        info!(vm = %vm.name, "lets it go on: {why}");
        self.inventory.hypervisor().resume(vm.id).await?;
        self.inventory.read(vm.id).await?;
        Ok(())
    }

    /// Where Ceph does not answer here the guest could not use its disks anyway, and whoever fenced this node could not shut it out of them.
    async fn record_arrived(&self, vm: &Vm) -> Result<(), StepError> {
        let Some(storage) = self.storage.as_deref() else { return Ok(()) };
        let view = self.cluster.view();
        let Some(me) = view.node(&self.cluster.me) else {
            return Err(StepError::Conflict(self.cluster.me.to_string()));
        };
        let decided_from = decided_from(vm);
        let record = vm_clients::record_arrived(&*self.cluster.store, storage, me, vm, &decided_from);
        let late = || NotShutOut::Failed(format!("no answer within {} s", RECORDED_WITHIN.as_secs()));
        let recorded = timeout(RECORDED_WITHIN, record).await.unwrap_or_else(|_| Err(late()));
        let Err(not) = recorded else { return Ok(()) };
        Err(StepError::Failed(format!(
            "it does not go on before its Ceph clients are recorded, and they cannot be: {}",
            not.failed()?
        )))
    }

    /// Lets what is not in the state tree go on.
    pub(super) async fn let_go_unknown(&self, id: VmId, why: &str) -> Result<(), StepError> {
        info!(vm = %id, "lets it go on: {why}");
        self.inventory.hypervisor().resume(id).await?;
        self.inventory.read(id).await?;
        Ok(())
    }

    /// Why a VM with RBD disks is not started here, whoever asks, if so: nobody here would shut an earlier run of it out of them.
    pub(super) fn lacks_storage(&self, spec: &DomainSpec) -> Option<String> {
        (self.storage.is_none() && !spec.rbd_images.is_empty()).then(|| {
            "it has RBD disks, and this node does not manage storage (enable_storage in its pvcd.yaml)"
                .to_owned()
        })
    }

    /// What an earlier instance had begun to write must not land after the new one's first look. Whether it may start now: not if that
    /// failed, and not on facts that are as old as that took.
    async fn shut_out_ended(
        &self,
        vm: &Vm,
        spec: &DomainSpec,
        storage: &dyn StorageFence,
    ) -> Result<bool, StepError> {
        let (store, me) = (&*self.cluster.store, &self.cluster.me);
        // Another node that has it by now has recorded its own clients.
        let warrant = AsDecided { store, checks: decided_from(vm) };
        match vm_clients::shut_out_ended(store, storage, me, spec, &warrant).await {
            Ok(false) => Ok(true),
            Ok(true) => {
                Err(StepError::Conflict("an earlier run of it was shut out of its images".to_owned()))
            }
            Err(not) => {
                let why = not.failed()?;
                self.remember(vm.id, |m| m.attempts.start_attempted(vm, self.cluster.now()));
                self.refused(vm, format!("an earlier run of it may still be writing to its images: {why}"))
                    .await?;
                Ok(false)
            }
        }
    }

    /// What this node or this moment lacks may come: the plan tries again.
    async fn refused(&self, vm: &Vm, reason: String) -> Result<(), StepError> {
        metrics::vm_start_failed();
        let is_news = vm.failed_reason.value != reason;
        self.remember(vm.id, |m| m.attempts.start_refused(vm, reason.clone(), self.cluster.now()));
        if !is_news {
            return Ok(());
        }
        warn!(vm = %vm.name, "could not be started, and is tried again: {reason}");
        self.commit(&Step::Answer(Answer::NotYet(reason)), vm).await
    }

    async fn give_up(&self, vm: &Vm, reason: String) -> Result<(), StepError> {
        metrics::vm_start_failed();
        warn!(vm = %vm.name, "could not be started: {reason}");
        self.commit(&Step::Answer(Answer::Failed(reason)), vm).await
    }
}
