//! Makes each VM on this node agree with its desired state.
//!
//! Decides nothing itself (see `pvc_core::plan::vm`) and remembers only what repetitions need. Every step is decided from a
//! fresh reading of libvirt, and every write is checked against the versions it was decided from. Begins with what runs here: libvirt
//! is read and running VMs are adopted before anything else is done.

mod apply;
mod arrival;
mod choose;
mod definitions;
mod facts;
mod give_away;
mod inventory;
mod kept;
mod migration;
mod start;
#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::{
    model::{Claim, ClusterView, Entry, Subject, VmId, VmKey},
    plan::{
        placement::Selector,
        vm::{Attempts, LocalState, Plan, Step, concerns, needs_definition},
    },
};
use pvc_host::{
    hypervisor::{Event, Hypervisor, HypervisorError},
    storage_fence::StorageFence,
};
use pvc_store::schema;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, timeout},
};
use tracing::{debug, info, warn};

use self::{
    definitions::Definitions,
    facts::{Local, Seen},
    inventory::Inventory,
    kept::KeptDefinitions,
    migration::Call,
};
pub use self::{
    inventory::{Active, LastEvents},
    migration::Peers,
};
use crate::{
    ability::Trouble,
    console::ConsoleLogs,
    controller::{Cluster, Controller, Freshness, Poker, Reconciler, Retry, StepError},
    metrics,
    pool_turns::PoolTurns,
    sizes::VmSizes,
};

/// So many guests are asked to shut down, or are powered off, at once: as many as libvirt is told side by side (`pvc_host`). One whose process hangs
/// takes as long as its deadline.
const SHUTDOWNS_AT_ONCE: usize = 8;
const POWER_OFFS_AT_ONCE: usize = 4;

/// So many guests leave at once; more only makes each change more memory before it has gone.
const MIGRATIONS_AT_ONCE: usize = 4;

const FIRST_RETRY: Duration = Duration::from_secs(1);

/// What VMs stand on.
pub struct Dependencies {
    /// This node, and the state tree.
    pub cluster: Cluster,
    /// How the other nodes' hypervisors are reached.
    pub peers: Peers,
    /// This machine's hypervisor.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// What shuts an earlier run of a VM out of its images; `None`: this node does not manage storage.
    pub storage: Option<Arc<dyn StorageFence>>,
    /// How a node is chosen for a VM whose desired state names none.
    pub selector: Selector,
    /// What publishes consoles; `None`: nobody.
    pub consoles: Option<Arc<ConsoleLogs>>,
}

/// The VMs of a node, looked after. Nothing that runs is touched when this is dropped.
pub struct Vms {
    vms: Arc<VmReconciler>,
    controller: Controller<VmReconciler>,
}

impl Vms {
    /// Starts it; returns at once.
    pub fn start(dependencies: Dependencies) -> Self {
        let events = dependencies.hypervisor.events();
        let vms = Arc::new_cyclic(|this| VmReconciler::new(dependencies, this));
        let mut controller = Controller::start(Arc::clone(&vms));
        let _ = vms.poker.set(controller.poker());
        controller.spawn(Arc::clone(&vms).follow_libvirt(controller.poker(), events));
        Self { vms, controller }
    }

    /// What runs here, signalled whenever it changes.
    pub fn active(&self) -> watch::Receiver<Active> {
        self.vms.inventory.subscribe()
    }

    /// What libvirt says of VMs, signalled each time.
    pub fn events(&self) -> watch::Receiver<LastEvents> {
        self.vms.inventory.events()
    }

    /// Why libvirt does not answer, if so, signalled whenever it changes.
    pub fn trouble(&self) -> watch::Receiver<Trouble> {
        self.vms.inventory.trouble()
    }

    /// Takes up nothing new and lets what is being done end, for so long at most. Nothing that runs is touched.
    pub async fn stop(self, within: Duration) {
        let end = Instant::now() + within;
        // A guest that has just arrived is handed over, too.
        let migrations = u32::try_from(MIGRATIONS_AT_ONCE).unwrap_or(u32::MAX);
        let _ = timeout(within, self.vms.migrations.acquire_many(migrations)).await;
        let left = self.controller.stop(end.saturating_duration_since(Instant::now())).await;
        if left > 0 {
            warn!(
                "{left} operation(s) on VMs were still going on at the stop; the next start looks at them anew"
            );
        }
    }
}

/// See the module's documentation.
struct VmReconciler {
    cluster: Cluster,
    inventory: Inventory,
    kept: KeptDefinitions,
    definitions: Definitions,
    storage: Option<Arc<dyn StorageFence>>,
    consoles: Option<Arc<ConsoleLogs>>,
    peers: Peers,
    selector: Selector,
    sizes: VmSizes,
    memory: Mutex<HashMap<VmId, Memory>>,
    /// More at once only makes each slower.
    starts: PoolTurns,
    shutdowns: Arc<Semaphore>,
    power_offs: Arc<Semaphore>,
    migrations: Arc<Semaphore>,
    this: Weak<Self>,
    poker: OnceLock<Poker<Self>>,
}

/// What is remembered of one VM.
#[derive(Default)]
struct Memory {
    attempts: Attempts,
    /// The desired state of which its source was told whether it could be started here.
    said_of: Option<i32>,
    /// Its turn to migrate, from before its claim is shared until it has left.
    turn: Option<OwnedSemaphorePermit>,
    /// The migration that libvirt was asked for and has not answered yet.
    call: Option<Call>,
}

impl From<HypervisorError> for StepError {
    fn from(error: HypervisorError) -> Self {
        Self::Failed(error.to_string())
    }
}

#[async_trait]
impl Reconciler for VmReconciler {
    type Facts = Seen;
    type Step = Step;

    const KIND: &'static str = "vm";
    // More than libvirt is ever asked side by side: what may hang there waits for its turn first, without a place here.
    const AT_ONCE: usize = 64;
    const RETRY: Retry = Retry { first: FIRST_RETRY, longest: Duration::from_mins(1) };
    const OUTLIVES_STOP: bool = true;

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    /// The VMs that this node has a part in by the state tree, and what runs here.
    fn subjects(&self) -> Vec<Subject> {
        let view = self.cluster.view();
        let ours = view.good_vms().filter(|vm| concerns(&self.cluster.me, vm)).map(|vm| vm.id);
        let orphans = view.orphan_claims.keys().copied().filter(|id| self.is_left_to_us(*id, &view));
        ours.chain(orphans).chain(self.inventory.ids()).map(Subject::Vm).collect()
    }

    fn concerns(&self, changed: &Subject, _view: &ClusterView) -> bool {
        matches!(changed, Subject::Vm(_))
    }

    fn affected(&self, changed: Subject) -> Vec<Subject> {
        vec![changed]
    }

    async fn begin(&self) -> Vec<Subject> {
        let begin = Instant::now();
        // Ends only with the daemon: the inventory lives as long as `self`.
        let _ = self.inventory.subscribe().wait_for(Option::is_some).await;
        let running = self.inventory.ids();
        info!("{} VM(s) run here; known after {:.2} s", running.len(), begin.elapsed().as_secs_f32());
        self.tidy().await;
        running.into_iter().map(Subject::Vm).collect()
    }

    async fn published(&self) -> Vec<Subject> {
        let names = self.cluster.store.children(schema::explain::VMS).await;
        let names = names.inspect_err(|error| debug!(%error, "could not list what an earlier run published"));
        let ids = names.ok().flatten().unwrap_or_default().into_iter().filter_map(|name| name.parse().ok());
        ids.map(Subject::Vm).collect()
    }

    async fn refresh(&self) -> Vec<Subject> {
        let changed = self.inventory.read_all().await;
        let changed =
            changed.inspect_err(|error| debug!(%error, "could not list what runs here")).unwrap_or_default();
        self.tidy().await;
        changed.into_iter().map(Subject::Vm).chain(self.subjects()).collect()
    }

    fn is_idle(&self, subject: &Subject) -> bool {
        let Subject::Vm(id) = *subject else { return true };
        let view = self.cluster.view();
        let concerned = match view.vms.get(&id).map(|e| &**e) {
            Some(Entry::Good(vm)) => concerns(&self.cluster.me, vm),
            Some(Entry::Bad(_)) => false,
            None => self.is_left_to_us(id, &view),
        };
        !concerned
            && matches!(self.inventory.local_state(id), LocalState::Off | LocalState::Unknown)
            && !self.memory().contains_key(&id)
    }

    async fn observe(&self, subject: &Subject, freshness: Freshness) -> Result<Seen, StepError> {
        let Subject::Vm(id) = *subject else { return Err(StepError::Conflict("no VM".to_owned())) };
        let view = match freshness {
            Freshness::Known | Freshness::Observed => self.cluster.view(),
            Freshness::Confirmed => self.confirmed_view().await?,
        };
        if let Some(seen) = self.observe_call(id, &view).await {
            return Ok(seen);
        }
        let local_state = match freshness {
            Freshness::Known => self.inventory.local_state(id),
            Freshness::Observed | Freshness::Confirmed => self.inventory.read(id).await?,
        };
        let halt = self.inventory.halt(id);
        let (mut local, mut definition) =
            (Local { state: local_state, halt, migration: None, left: false }, Ok(()));
        if let Some(vm) = view.vm(id)
            && self.cluster.is_current()
        {
            local.left = self.left(vm, local_state).await?;
            // Of what has left, libvirt answers nothing until it has ended the process, and the guest waits for this node meanwhile.
            if !local.left {
                local.migration = self.migration(vm, local_state).await?;
            }
            if needs_definition(&self.cluster.me, vm, local_state, halt) {
                definition = self.definitions.of(vm).await?.map(drop);
            }
        }
        Ok(Seen { view, local, definition, in_call: false })
    }

    fn plan(&self, subject: &Subject, seen: &mut Seen) -> Plan {
        let Subject::Vm(id) = *subject else { return facts::wait("no VM".to_owned()) };
        let plan = self.plan_of(id, seen);
        if seen.in_call { migration::plan_in_call(seen.local.migration, plan) } else { plan }
    }

    fn freshness(&self, step: &Step) -> Freshness {
        match step {
            // What is on record stays so, and libvirt answers nothing about the VM while it ends its process.
            Step::HandOver => Freshness::Known,
            // A claim that names this node may be on its way here, with the guest that it is about, or a newer desired state.
            Step::PowerOff | Step::AskGuestToShutDown | Step::Resume | Step::Suspend => Freshness::Confirmed,
            _ => Freshness::Observed,
        }
    }

    async fn turns(&self, subject: &Subject, step: &Step) -> Option<Arc<Semaphore>> {
        match step {
            Step::Start => Some(self.start_turns(subject).await),
            Step::AskGuestToShutDown => Some(Arc::clone(&self.shutdowns)),
            Step::PowerOff => Some(Arc::clone(&self.power_offs)),
            _ => None,
        }
    }

    async fn apply(&self, subject: &Subject, step: &Step, seen: &Seen, why: &str) -> Result<(), StepError> {
        let Subject::Vm(id) = *subject else { return Ok(()) };
        let outcome = match (step, seen.view.vm(id)) {
            (Step::Forget, _) => self.forget(id, &seen.view).await,
            (_, Some(vm)) => self.carry_out(step, vm, why).await,
            (Step::PowerOff, None) => self.end_unstarted(id, why).await,
            (Step::Resume, None) => self.let_go_unknown(id, why).await,
            // Plans name no other step for what is not in the tree.
            (_, None) => Ok(()),
        };
        if let Err(StepError::Conflict(_)) = outcome {
            metrics::claim_conflict();
        }
        outcome
    }

    async fn rest(&self, subject: &Subject, seen: &Seen, settled: bool) -> Option<Instant> {
        let Subject::Vm(id) = *subject else { return None };
        self.follow_console(id, &seen.view);
        if let Err(error) = self.inventory.note_executes(id).await {
            debug!(vm = %id, %error, "what marks it as held could not be looked at");
        }
        if let Some(memory) = self.memory().get_mut(&id)
            && memory.call.is_none()
        {
            memory.turn = None;
        }
        if !settled {
            return self.say_whether_it_could_start(id, seen.view.vm(id)?).await;
        }
        if self.inventory.local_state(id) != LocalState::Active {
            self.memory().remove(&id);
        }
        None
    }

    fn doing(&self, _subject: &Subject, seen: &Seen) -> String {
        if seen.in_call { "migrating" } else { "waiting" }.to_owned()
    }

    /// Only the node that the VM is tied to by claim, or by desired state where nobody claims it: others only wait for it.
    fn speaks(&self, subject: &Subject) -> bool {
        let Subject::Vm(id) = *subject else { return false };
        if self.is_quiet(id) {
            return false;
        }
        let (view, me) = (self.cluster.view(), &self.cluster.me);
        match view.vms.get(&id).map(|e| &**e) {
            Some(Entry::Good(vm)) => {
                // Of several claimants the first decides, so it also explains.
                let first = vm.claim.value.iter().next();
                let desired =
                    || vm.node.value == *me || vm.node.value.is_nobody() && self.cluster.is_primary(&view);
                first.map_or_else(desired, |first| first == me || vm.cannot_read(VmKey::Claim) && desired())
            }
            Some(Entry::Bad(_)) | None => {
                matches!(self.inventory.local_state(id), LocalState::Active | LocalState::Suspended(_))
            }
        }
    }
}

impl VmReconciler {
    fn new(dependencies: Dependencies, this: &Weak<Self>) -> Self {
        let Dependencies { cluster, peers, hypervisor, storage, selector, consoles } = dependencies;
        Self {
            definitions: Definitions::new(Arc::clone(&cluster.store)),
            sizes: VmSizes::new(Arc::clone(&cluster.store)),
            selector,
            cluster,
            inventory: Inventory::new(hypervisor),
            kept: KeptDefinitions::default(),
            storage,
            consoles,
            peers,
            memory: Mutex::default(),
            starts: PoolTurns::default(),
            shutdowns: Arc::new(Semaphore::new(SHUTDOWNS_AT_ONCE)),
            power_offs: Arc::new(Semaphore::new(POWER_OFFS_AT_ONCE)),
            migrations: Arc::new(Semaphore::new(MIGRATIONS_AT_ONCE)),
            this: this.clone(),
            poker: OnceLock::new(),
        }
    }

    async fn follow_libvirt(self: Arc<Self>, poker: Poker<Self>, mut events: mpsc::UnboundedReceiver<Event>) {
        let read_all = async || match self.inventory.read_all().await {
            Ok(_) => poker.poke_all(),
            Err(error) => debug!(%error, "could not list what runs here"),
        };
        read_all().await;
        while let Some(event) = events.recv().await {
            match event {
                Event::Domain(id) => {
                    if let Err(error) = self.inventory.read(id).await {
                        debug!(vm = %id, %error, "could not read it after an event");
                    }
                    self.inventory.had_event(id);
                    poker.poke(Subject::Vm(id));
                }
                Event::Connected => read_all().await,
                Event::Disconnected => self.inventory.forget("the connection to libvirt is lost"),
            }
        }
    }

    /// Takes away what libvirt keeps beside the cluster's definitions.
    async fn tidy(&self) {
        if self.cluster.is_current() {
            self.kept.tidy(&**self.inventory.hypervisor(), &self.cluster.view()).await;
        }
    }

    /// Whether it is this node's to take care of the claim of a VM that is not in the state tree.
    fn is_left_to_us(&self, id: VmId, view: &ClusterView) -> bool {
        let ours = |claim: &Claim| {
            claim.names(&self.cluster.me) || claim.is_empty() && self.cluster.is_primary(view)
        };
        view.orphan_claim(id).is_some_and(|claim| ours(&claim.value))
    }

    /// The console is followed by the node that runs the VM and claims it.
    fn follow_console(&self, id: VmId, view: &ClusterView) {
        let Some(consoles) = &self.consoles else { return };
        let runs_here = self.inventory.local_state(id) == LocalState::Active;
        match view.vm(id) {
            Some(vm) if runs_here && vm.claim.value.names(&self.cluster.me) => {
                consoles.follow(vm.id, &vm.name);
            }
            _ if !runs_here => consoles.forget(id),
            _ => (),
        }
    }

    fn remember<T>(&self, id: VmId, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(self.memory().entry(id).or_default())
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<VmId, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
