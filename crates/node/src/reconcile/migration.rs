//! Live migration's steps: asks the other side, migrates, watches, aborts.
//!
//! Decides nothing (see `pvc_core::plan::vm`). The migration itself is the two libvirts' business and outlives this daemon; the
//! next one takes it from what it finds.

use std::{sync::Arc, time::Duration};

use pvc_config::Config;
use pvc_core::{
    model::{ClusterView, Migration, NodeName, Vm, VmId},
    plan::vm::{Here, Next, Step, There, change, needs_migration, needs_record},
    sabotage::{self, Bug},
};
use pvc_host::hypervisor::{Activity, Halt, HypervisorError, Peer};
use pvc_store::{
    CommitError, Transaction,
    schema::{self, vm::read_arrival},
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::vm::{Fate, StepError, VmReconciler};
use crate::metrics;

/// How often a migration that is waited for is looked at …
const WATCH: Duration = Duration::from_secs(1);
/// … and how often the wish, which costs nothing.
const GLANCE: Duration = Duration::from_millis(100);

/// How often the record of a guest that is held is read: it is held until its departure is found there.
const RECORD: Duration = Duration::from_millis(10);

/// A migration that is over for so long has ended, whether or not libvirt says so.
const UNREPORTED: Duration = Duration::from_secs(5);

/// How this node reaches the others' hypervisors.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    /// The cluster network's domain.
    pub domain: Option<String>,
}

impl Peers {
    /// As the configuration says; without networks, nodes are found by their bare names.
    pub fn new(config: &Config) -> Self {
        Self { domain: config.networks.as_ref().and_then(|networks| networks.cluster.domain.clone()) }
    }

    /// The hypervisor of that node.
    pub fn of(&self, node: &NodeName) -> Peer {
        Peer::new(match &self.domain {
            Some(domain) => format!("{node}.{domain}"),
            None => node.to_string(),
        })
    }
}

impl VmReconciler {
    /// The migration from or to here that is under way, where a plan needs to know.
    pub(super) async fn migration(&self, vm: &Vm, here: Here) -> Result<Option<Migration>, HypervisorError> {
        if needs_migration(&self.me, vm, here) { self.under_way(vm).await } else { Ok(None) }
    }

    /// Whether it is on record as migrated from here, where a plan needs to know. The record may be lost; what this daemon was told
    /// itself counts as much.
    pub(super) async fn left(&self, vm: &Vm, here: Here) -> Result<bool, HypervisorError> {
        if !needs_record(&self.me, vm, here) {
            return Ok(false);
        }
        let told = self.remember(vm.id, |m| m.past.has_left(vm));
        Ok(told || self.inventory.hypervisor().has_left(vm.id, &vm.name).await?)
    }

    async fn under_way(&self, vm: &Vm) -> Result<Option<Migration>, HypervisorError> {
        let migration = self.inventory.hypervisor().migration(vm.id).await?;
        if let Some(Migration::Leaving(progress)) = migration {
            self.remember(vm.id, |m| m.past.progressed(vm, progress, self.now()));
        }
        Ok(migration)
    }

    /// Asks the other side; an answer that does not come is an answer, too. Its daemon has said by itself whether the VM could be started there.
    pub(super) async fn look_at(&self, vm: &Vm, node: &NodeName) -> Result<(), StepError> {
        let word = read_arrival(&*self.store, vm, node).await;
        if let Some(word) = word.map_err(|error| StepError::Failed(error.to_string()))? {
            self.remember(vm.id, |m| m.past.heard(vm, node, word));
        }
        let there = match self.inventory.hypervisor().seen_at(&self.peers.of(node), vm.id).await {
            Ok(None) => There::Off,
            Ok(Some(seen)) => match seen.activity {
                Activity::Running | Activity::ShuttingDown | Activity::Halted(Halt::Crashed) => There::Active,
                // A process that is made ready for a guest is paused, before a migration holds it and after a restart of libvirt.
                Activity::Held
                | Activity::Arrived
                | Activity::Halted(_)
                | Activity::Unstarted
                | Activity::Suspended => There::Held,
            },
            Err(error) => There::Unknown(error.to_string()),
        };
        debug!(vm = %vm.name, "{node} says: {there:?}");
        self.remember(vm.id, |m| m.past.looked(vm, node, there, self.now()));
        Ok(())
    }

    /// The claim that permits a migration is written only while the target's daemon has a session: without one nobody there lets go on
    /// what arrives.
    pub(super) async fn share(&self, vm: &Vm, to: &NodeName, why: &str) -> Result<(), StepError> {
        let Some(change) = change(&Step::Share(to.clone()), vm, &self.me) else { return Ok(()) };
        let present = if sabotage::commits(Bug::MigrateToTheAbsent) {
            Transaction::default()
        } else {
            schema::owner::expect(to)
        };
        match schema::vm::apply_with(&*self.store, &change, present).await {
            Err(CommitError::Conflict { path, .. }) if path == schema::owner::path(to) => {
                debug!(vm = %vm.name, "not migrated to {to}: its daemon has no session");
                self.remember(vm.id, |m| m.past.found_absent(vm, to, self.now()));
                return Ok(());
            }
            outcome => drop(outcome?),
        }
        self.catch_up().await?;
        self.remember(vm.id, |m| m.past.shared(vm));
        debug!(vm = %vm.name, "claimed for {to}, too: {why}");
        Ok(())
    }

    /// Migrates, and watches meanwhile. A failure is only noted: where the VM is, is asked afterwards.
    pub(super) async fn migrate(&self, vm: &Vm, to: &NodeName, why: &str) -> Result<(), StepError> {
        self.remember(vm.id, |m| m.past.migrates(vm, self.now()));
        info!(vm = %vm.name, "migrating to {to}: {why}");
        let (began, peer) = (Instant::now(), self.peers.of(to));
        let hypervisor = Arc::clone(self.inventory.hypervisor());
        let mut call = hypervisor.migrate(vm.id, &peer);
        let mut libvirt_is_done = true;
        let outcome = tokio::select! {
            biased;
            outcome = &mut call => outcome,
            () = self.departure(vm) => {
                libvirt_is_done = false;
                Ok(())
            }
            () = self.watch_over(vm.id) => {
                Err(HypervisorError::Unavailable("it has ended, but libvirt does not say how".into()))
            }
        };
        drop(call);
        metrics::vm_migrated(outcome.is_ok(), began.elapsed());
        match outcome {
            Ok(()) => {
                self.remember(vm.id, |m| m.past.leaves(vm));
                self.tell_tempo(vm, to, began.elapsed());
            }
            Err(error) => {
                let took = began.elapsed().as_secs_f32();
                warn!(vm = %vm.name, "migration to {to} ended after {took:.2} s: {error}");
                self.remember(vm.id, |m| m.past.migration_failed(vm, error.to_string(), self.now()));
            }
        }
        // While libvirt ends the process it answers nothing about it, and the guest waits to be handed over.
        if libvirt_is_done {
            self.inventory.read(vm.id).await?;
        }
        Ok(())
    }

    /// Returns as soon as a guest that is held is on record as migrated: libvirt takes 200 ms to notice that its process has ended, and
    /// as long as a big one needs to give its memory back.
    async fn departure(&self, vm: &Vm) {
        let mut tick = interval(RECORD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let is_held = self.inventory.here(vm.id) == Here::Held;
            if is_held && matches!(self.inventory.hypervisor().has_left(vm.id, &vm.name).await, Ok(true)) {
                return;
            }
        }
    }

    /// Looks after a migration that is waited for, until there is none any more though nobody says so.
    async fn watch_over(&self, id: VmId) {
        let (mut glance, mut wish) = (interval(GLANCE), None);
        let (mut watched, mut seen) = (Instant::now(), Instant::now());
        loop {
            glance.tick().await;
            let view = self.mirror.view();
            let now_wished = view.vm(id).map(|vm| (vm.state.version, vm.node.version));
            let news = wish.replace(now_wished).is_some_and(|before| before != now_wished);
            let Some(vm) = view.vm(id).filter(|_| news || watched.elapsed() >= WATCH) else { continue };
            watched = Instant::now();
            match self.attend(vm, &view).await {
                Ok(true) => seen = watched,
                Ok(false) if seen.elapsed() >= UNREPORTED => return,
                Err(StepError::Failed(error)) => {
                    debug!(vm = %vm.name, %error, "could not look after its migration");
                    seen = watched;
                }
                Ok(false) | Err(StepError::Conflict) => {}
            }
        }
    }

    /// One look at a migration that is under way: tells how far it is, and ends it if that is the plan. Answers whether it is.
    async fn attend(&self, vm: &Vm, view: &ClusterView) -> Result<bool, StepError> {
        let migration = self.under_way(vm).await?;
        if migration.is_none() {
            return Ok(false);
        }
        let (here, halt) = (self.inventory.here(vm.id), self.inventory.halt(vm.id));
        let fate = Fate { here, halt, migration, left: false };
        let plan = self.plan(vm.id, view, fate, Ok(()));
        match plan.next {
            Next::Wait(_) => self.explain(vm.id, view, "migrating", plan.why).await,
            Next::Do(Step::AbortMigration) => self.abort_migration(vm, &plan.why).await?,
            Next::Do(Step::PowerOff) => {
                let view = self.confirmed_view().await?;
                let plan = self.plan(vm.id, &view, fate, Ok(()));
                if let (Next::Do(Step::PowerOff), Some(vm)) = (plan.next, view.vm(vm.id)) {
                    self.power_off(vm, &plan.why).await?;
                }
            }
            // Everything else is decided when the call has ended.
            Next::Do(_) | Next::Settled => {}
        }
        Ok(true)
    }

    pub(super) async fn abort_migration(&self, vm: &Vm, why: &str) -> Result<(), StepError> {
        self.remember(vm.id, |m| m.past.aborts(vm, self.now()));
        info!(vm = %vm.name, "aborting its migration: {why}");
        Ok(self.inventory.hypervisor().abort_migration(vm.id).await?)
    }

    /// One line for the log, when the target has said for how long the guest was held; nobody waits for it.
    fn tell_tempo(&self, vm: &Vm, to: &NodeName, took: Duration) {
        let (hypervisor, peer) = (Arc::clone(self.inventory.hypervisor()), self.peers.of(to));
        let (id, name, to, took) = (vm.id, vm.name.clone(), to.clone(), took.as_secs_f32());
        pvc_process::spawn(async move {
            match hypervisor.pause_at(&peer, id).await {
                Ok(Some(pause)) => {
                    info!(vm = %name, "migrated to {to} in {took:.2} s, paused {} ms before its arrival", pause.as_millis());
                }
                Ok(None) => info!(vm = %name, "migrated to {to} in {took:.2} s"),
                Err(error) => {
                    info!(vm = %name, "migrated to {to} in {took:.2} s");
                    debug!(vm = %name, %error, "could not find out for how long it was paused");
                }
            }
        });
    }
}
