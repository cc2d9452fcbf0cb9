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
    CommitError,
    schema::{self, vm::read_arrival},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::{debug, info, warn};

use super::{
    MIGRATIONS_AT_ONCE, VmReconciler,
    facts::{Local, Seen, wait},
};
use crate::{controller::StepError, metrics};

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
    /// The versions of `state` and `node` for which libvirt was asked.
    desired: Option<Versions>,
    /// How far it was when that was last known.
    under_way: Option<Migration>,
    /// Its sender is gone when the call has ended.
    ended: watch::Receiver<()>,
}

type Versions = (Option<i32>, Option<i32>);

/// While the call goes on it can be ended; everything else is decided when it has. Whoever follows it has it looked at.
pub(super) fn plan_in_call(under_way: Option<Migration>, plan: Plan) -> Plan {
    match (under_way, plan.next) {
        (None, _) => wait("libvirt migrates it".to_owned()),
        (_, Next::Do(step @ (Step::AbortMigration | Step::PowerOff))) => {
            Plan { next: Next::Do(step), why: plan.why }
        }
        (_, next) => {
            debug!("while it migrates: {next:?}");
            wait(plan.why)
        }
    }
}

fn versions(vm: &Vm) -> Versions {
    (vm.state.version, vm.node.version)
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

    /// What is true of a VM while a call is going on, if one is. With another desired state libvirt is asked how far it is, and nothing but
    /// that may hold up the end of the call.
    pub(super) async fn observe_call(&self, id: VmId, view: &Arc<ClusterView>) -> Option<Seen> {
        let (mut ended, desired, mut migration) = {
            let memory = self.memory();
            let call = memory.get(&id)?.call.as_ref()?;
            (call.ended.clone(), call.desired, call.under_way)
        };
        if migration.is_none() && view.vm(id).is_some_and(|vm| Some(versions(vm)) != desired) {
            migration = tokio::select! {
                biased;
                _ = ended.changed() => None,
                asked = self.inventory.hypervisor().migration(id) => asked.ok().flatten(),
            };
        }
        let (local_state, halt) = (self.inventory.local_state(id), self.inventory.halt(id));
        let local = Local { state: local_state, halt, migration, left: false };
        Some(Seen { view: Arc::clone(view), local, definition: Ok(()), in_call: true })
    }

    /// Whether a call is going on of which nothing is known yet that is news to anybody.
    pub(super) fn is_quiet(&self, id: VmId) -> bool {
        let memory = self.memory();
        let call = memory.get(&id).and_then(|m| m.call.as_ref());
        call.is_some_and(|call| call.under_way.is_none())
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
                | Activity::Suspended(_) => PeerState::Held,
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
        let step = Step::Share(to.clone());
        let Some(change) = change(&step, vm, &self.cluster.me) else { return Ok(()) };
        let turn = match self.remember(vm.id, |m| m.turn.take()) {
            Some(turn) => Some(turn),
            None => Arc::clone(&self.migrations).try_acquire_owned().ok(),
        };
        if turn.is_none() {
            return Err(StepError::Later(format!(
                "{MIGRATIONS_AT_ONCE} others migrate from here; it is not its turn yet"
            )));
        }
        let mut as_decided = self.while_it_lives(&step)?;
        if !sabotage::commits(Bug::MigrateToTheAbsent) {
            as_decided.ops.extend(schema::owner::expect(to).ops);
        }
        match schema::vm::apply_with(&*self.cluster.store, &change, as_decided).await {
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
        let (going_on, ended) = watch::channel(());
        let turn = self.remember(vm.id, |m| {
            m.attempts.migrates(vm, self.cluster.now());
            m.call = Some(Call { desired: Some(versions(vm)), under_way: None, ended });
            m.turn.take()
        });
        info!(vm = %vm.name, "migrating to {to}: {why}");
        let (vm, to) = (vm.clone(), to.clone());
        // Not cut in the middle by the daemon's stop.
        pvc_process::spawn(async move {
            this.wait_for_libvirt(&vm, &to).await;
            this.remember(vm.id, |m| m.call = None);
            drop((turn, going_on));
            this.poke(vm.id);
        });
    }

    fn poke(&self, id: VmId) {
        if let Some(poker) = self.poker.get() {
            poker.poke(Subject::Vm(id));
        }
    }

    /// Asks libvirt how far a migration is, once a second, and has the VM looked at. Returns when it has been over for long.
    async fn follow(&self, id: VmId) {
        let mut seen = Instant::now();
        while seen.elapsed() < UNREPORTED {
            sleep(WATCH).await;
            let under_way = match self.inventory.hypervisor().migration(id).await {
                Ok(under_way) => under_way,
                Err(error) => {
                    debug!(vm = %id, %error, "could not find out how far its migration is");
                    seen = Instant::now();
                    None
                }
            };
            if under_way.is_some() {
                seen = Instant::now();
            }
            if let Some(call) = self.memory().get_mut(&id).and_then(|memory| memory.call.as_mut()) {
                call.under_way = under_way;
            }
            self.poke(id);
        }
    }

    async fn wait_for_libvirt(&self, vm: &Vm, to: &NodeName) {
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
            () = self.follow(vm.id) => {
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
