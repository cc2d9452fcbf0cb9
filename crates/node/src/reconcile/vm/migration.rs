//! Live migration's steps: asks the other side, has libvirt migrate, aborts.
//!
//! Decides nothing (see `pvc_core::plan::vm`). The migration itself is the two libvirts' business and outlives this daemon; the
//! next one takes it from what it finds. Who waits for libvirt's answer is a task of its own, whose end has the VM looked at.

use std::{sync::Arc, time::Duration};

use pvc_config::Config;
use pvc_core::{
    model::{ClusterView, Migration, NodeName, Subject, Vm, VmId},
    plan::vm::{LocalState, Next, PeerState, Plan, Step, change, needs_migration, needs_record},
    sabotage::{self, Bug},
};
use pvc_host::hypervisor::{Activity, Halt, HypervisorError, Peer};
use pvc_store::{
    CommitError, Transaction,
    schema::{self, vm::read_arrival},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use super::{Local, MIGRATIONS_AT_ONCE, Seen, VmReconciler};
use crate::{
    controller::{Freshness, StepError},
    metrics,
};

/// How often libvirt is asked how far a migration is.
const WATCH: Duration = Duration::from_secs(1);

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

/// A migration that libvirt was asked for and has not answered yet.
pub(super) struct Call {
    /// The versions of `state` and `node` for which libvirt was asked last how far it is.
    desired: Option<(Option<i32>, Option<i32>)>,
    watched: Instant,
    /// When it was under way for certain.
    seen: Instant,
    last: InCall,
    give_up: Arc<Notify>,
    /// Its sender is gone when the call has ended.
    ended: watch::Receiver<()>,
}

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InCall {
    /// Nothing new: libvirt says that it has begun, or that it has ended, when the call ends. Look again by then.
    Quiet(Instant),
    /// It is under way.
    UnderWay(Migration),
}

pub(super) fn wait(until: Option<pvc_core::model::Moment>, why: String) -> Plan {
    Plan { next: Next::Wait(until), why }
}

impl VmReconciler {
    /// The migration from or to here that is under way, where a plan needs to know.
    pub(super) async fn migration(
        &self,
        vm: &Vm,
        local_state: LocalState,
    ) -> Result<Option<Migration>, HypervisorError> {
        if !needs_migration(&self.cluster.me, vm, local_state) {
            return Ok(None);
        }
        self.inventory.hypervisor().migration(vm.id).await
    }

    /// Whether it is on record as migrated from here, where a plan needs to know. The record may be lost; what this daemon was told
    /// itself counts as much.
    pub(super) async fn left(&self, vm: &Vm, local_state: LocalState) -> Result<bool, HypervisorError> {
        if !needs_record(&self.cluster.me, vm, local_state) {
            return Ok(false);
        }
        let told = self.memory().get(&vm.id).is_some_and(|m| m.attempts.has_left(vm));
        Ok(told || self.inventory.hypervisor().has_left(vm.id, &vm.name).await?)
    }

    /// What is true of a VM while a call is going on, if one is. libvirt is asked once a second, and when the desired state has changed;
    /// nothing but that may hold up the end of the call.
    pub(super) async fn observe_call(
        &self,
        id: VmId,
        view: &Arc<ClusterView>,
        freshness: Freshness,
    ) -> Option<Seen> {
        let desired = view.vm(id).map(|vm| (vm.state.version, vm.node.version));
        let (ended, last) = {
            let mut memory = self.memory();
            let call = memory.get_mut(&id)?.call.as_mut()?;
            let is_due = call.desired != desired || call.watched.elapsed() >= WATCH;
            let asks = freshness == Freshness::Known && is_due && desired.is_some();
            if freshness == Freshness::Known {
                call.last = InCall::Quiet(call.watched + WATCH);
            }
            (asks.then(|| call.ended.clone()), call.last)
        };
        let in_call = match ended {
            Some(mut ended) => {
                let asked = tokio::select! {
                    biased;
                    _ = ended.changed() => Ok(None),
                    migration = self.inventory.hypervisor().migration(id) => migration,
                };
                self.watched(id, desired, asked)
            }
            None => last,
        };
        let migration = match in_call {
            InCall::Quiet(_) => None,
            InCall::UnderWay(migration) => Some(migration),
        };
        let (local_state, halt) = (self.inventory.local_state(id), self.inventory.halt(id));
        let local = Local { state: local_state, halt, migration, left: false };
        Some(Seen { view: Arc::clone(view), local, definition: Ok(()), in_call: Some(in_call) })
    }

    fn watched(
        &self,
        id: VmId,
        desired: Option<(Option<i32>, Option<i32>)>,
        asked: Result<Option<Migration>, HypervisorError>,
    ) -> InCall {
        let now = Instant::now();
        let quiet = InCall::Quiet(now + WATCH);
        let mut memory = self.memory();
        let Some(call) = memory.get_mut(&id).and_then(|m| m.call.as_mut()) else { return quiet };
        (call.desired, call.watched) = (desired, now);
        call.last = match asked {
            Ok(Some(migration)) => {
                call.seen = now;
                InCall::UnderWay(migration)
            }
            Ok(None) => {
                if call.seen.elapsed() >= UNREPORTED {
                    call.give_up.notify_one();
                }
                quiet
            }
            Err(error) => {
                debug!(vm = %id, %error, "could not find out how far its migration is");
                call.seen = now;
                quiet
            }
        };
        call.last
    }

    /// Whether nothing is known of a call that is news to anybody.
    pub(super) fn is_quiet(&self, id: VmId) -> bool {
        let memory = self.memory();
        let call = memory.get(&id).and_then(|m| m.call.as_ref());
        call.is_some_and(|call| matches!(call.last, InCall::Quiet(_)))
    }

    /// While the call goes on it can be ended; everything else is decided when it has.
    pub(super) fn plan_in_call(&self, id: VmId, in_call: InCall, plan: Plan) -> Plan {
        let (again, why) = match (in_call, plan.next) {
            (InCall::Quiet(again), _) => (again, "libvirt migrates it".to_owned()),
            (_, Next::Do(step @ (Step::AbortMigration | Step::PowerOff))) => {
                return Plan { next: Next::Do(step), why: plan.why };
            }
            (_, next) => {
                debug!(vm = %id, "while it migrates: {next:?}");
                (Instant::now() + WATCH, plan.why)
            }
        };
        wait(Some(self.cluster.moment(again)), why)
    }

    /// Asks the other side; an answer that does not come is an answer, too. Its daemon has said by itself whether the VM could be started there.
    pub(super) async fn look_at(&self, vm: &Vm, node: &NodeName) -> Result<(), StepError> {
        if let Some(word) = read_arrival(&*self.cluster.store, vm, node).await? {
            self.remember(vm.id, |m| m.attempts.heard(vm, node, word));
        }
        let peer_state = match self.inventory.hypervisor().seen_at(&self.peers.of(node), vm.id).await {
            Ok(None) => PeerState::Off,
            Ok(Some(seen)) => match seen.activity {
                Activity::Running | Activity::ShuttingDown | Activity::Halted(Halt::Crashed) => {
                    PeerState::Active
                }
                // A process that is made ready for a guest is paused, before a migration holds it and after a restart of libvirt.
                Activity::Held
                | Activity::Arrived
                | Activity::Halted(_)
                | Activity::Unstarted
                | Activity::Suspended => PeerState::Held,
            },
            Err(error) => PeerState::Unknown(error.to_string()),
        };
        debug!(vm = %vm.name, "{node} says: {peer_state:?}");
        self.remember(vm.id, |m| m.attempts.looked(vm, node, peer_state, self.cluster.now()));
        Ok(())
    }

    /// The claim that permits a migration is written only while the target's daemon has a session: without one nobody there lets go on
    /// what arrives.
    pub(super) async fn share(&self, vm: &Vm, to: &NodeName, why: &str) -> Result<(), StepError> {
        let Some(change) = change(&Step::Share(to.clone()), vm, &self.cluster.me) else { return Ok(()) };
        let turn = match self.remember(vm.id, |m| m.turn.take()) {
            Some(turn) => Some(turn),
            None => Arc::clone(&self.migrations).try_acquire_owned().ok(),
        };
        if turn.is_none() {
            return Err(StepError::Later(format!(
                "{MIGRATIONS_AT_ONCE} others migrate from here; it is not its turn yet"
            )));
        }
        let present = if sabotage::commits(Bug::MigrateToTheAbsent) {
            Transaction::default()
        } else {
            schema::owner::expect(to)
        };
        match schema::vm::apply_with(&*self.cluster.store, &change, present).await {
            Err(CommitError::Conflict { path, .. }) if path == schema::owner::path(to) => {
                debug!(vm = %vm.name, "not migrated to {to}: its daemon has no session");
                self.remember(vm.id, |m| m.attempts.found_absent(vm, to, self.cluster.now()));
                return Ok(());
            }
            outcome => drop(outcome?),
        }
        self.cluster.catch_up().await?;
        self.remember(vm.id, |m| {
            m.attempts.shared(vm);
            m.turn = turn;
        });
        debug!(vm = %vm.name, "claimed for {to}, too: {why}");
        Ok(())
    }

    /// Has libvirt migrate it, and waits for nothing. A failure is only noted: where the VM is, is asked afterwards.
    pub(super) fn migrate(&self, vm: &Vm, to: &NodeName, why: &str) {
        // It is there while somebody carries out its steps.
        let Some(this) = self.this.upgrade() else { return };
        let (began, give_up) = (Instant::now(), Arc::new(Notify::new()));
        let (going_on, ended) = watch::channel(());
        let turn = self.remember(vm.id, |m| {
            m.attempts.migrates(vm, self.cluster.now());
            m.call = Some(Call {
                desired: Some((vm.state.version, vm.node.version)),
                watched: began,
                seen: began,
                last: InCall::Quiet(began),
                give_up: Arc::clone(&give_up),
                ended,
            });
            m.turn.take()
        });
        info!(vm = %vm.name, "migrating to {to}: {why}");
        let (vm, to) = (vm.clone(), to.clone());
        // Not cut in the middle by the daemon's stop.
        pvc_process::spawn(async move {
            this.wait_for_libvirt(&vm, &to, &give_up).await;
            this.remember(vm.id, |m| m.call = None);
            drop((turn, going_on));
            if let Some(poker) = this.poker.get() {
                poker.poke(Subject::Vm(vm.id));
            }
        });
    }

    async fn wait_for_libvirt(&self, vm: &Vm, to: &NodeName, give_up: &Notify) {
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
            () = give_up.notified() => {
                Err(HypervisorError::Unavailable("it has ended, but libvirt does not say how".into()))
            }
        };
        drop(call);
        metrics::vm_migrated(outcome.is_ok(), began.elapsed());
        match outcome {
            Ok(()) => {
                self.remember(vm.id, |m| m.attempts.leaves(vm));
                self.log_duration(vm, to, began.elapsed());
            }
            Err(error) => {
                let took = began.elapsed().as_secs_f32();
                warn!(vm = %vm.name, "migration to {to} ended after {took:.2} s: {error}");
                let now = self.cluster.now();
                self.remember(vm.id, |m| m.attempts.migration_failed(vm, error.to_string(), now));
            }
        }
        // While libvirt ends the process it answers nothing about it, and the guest waits to be handed over.
        if libvirt_is_done && let Err(error) = self.inventory.read(vm.id).await {
            debug!(vm = %vm.name, %error, "could not read it after its migration");
        }
    }

    /// Returns as soon as a guest that is held is on record as migrated: libvirt takes 200 ms to notice that its process has ended, and
    /// as long as a big one needs to give its memory back.
    async fn departure(&self, vm: &Vm) {
        let mut tick = interval(RECORD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let is_held = self.inventory.local_state(vm.id) == LocalState::Held;
            if is_held && matches!(self.inventory.hypervisor().has_left(vm.id, &vm.name).await, Ok(true)) {
                return;
            }
        }
    }

    pub(super) async fn abort_migration(&self, vm: &Vm, why: &str) -> Result<(), StepError> {
        self.remember(vm.id, |m| m.attempts.aborts(vm, self.cluster.now()));
        info!(vm = %vm.name, "aborting its migration: {why}");
        Ok(self.inventory.hypervisor().abort_migration(vm.id).await?)
    }

    /// One line for the log, when the target has said for how long the guest was held; nobody waits for it.
    fn log_duration(&self, vm: &Vm, to: &NodeName, took: Duration) {
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
