//! Makes one VM on this node agree with its wish: observe → plan → apply, until there is nothing to do.
//!
//! Decides nothing itself (see `pvc_core::plan::vm`) and remembers only what back-offs need. Every step is decided from a
//! fresh reading of libvirt, and every write is checked against the versions it was decided from.

mod arrival;
mod choose;
mod give_away;
mod start;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pvc_core::{
    model::{ClusterView, Entry, Halt, Migration, Moment, NodeName, Vm, VmChange, VmId, VmKey, VmState},
    plan::{
        placement::{Asker, Selector, fit},
        vm::{
            Answer, Facts, Here, Next, Past, Plan, Step, change, concerns, may_execute_elsewhere,
            needs_definition, plan, proven_dead, put_back,
        },
    },
    sabotage::{self, Bug},
};
use pvc_host::{hypervisor::HypervisorError, machine::Machine};
use pvc_store::{CommitError, Store, Transaction, mirror::Mirror, schema};
use tokio::{sync::Semaphore, time::Instant};
use tracing::{debug, info, warn};

use super::{
    Parts,
    definitions::{self, Definitions},
    explain::{Explanations, Said},
    inventory::Inventory,
    kept::KeptDefinitions,
    migration::Peers,
};
use crate::{console::ConsoleLogs, metrics, sizes::VmSizes};

/// So many guests are started at once; more only makes each slower.
const STARTS_AT_ONCE: usize = 4;

/// So many guests leave at once; more only makes each change more memory before it has gone.
const MIGRATIONS_AT_ONCE: usize = 4;

/// More steps than any plan needs: if one round takes more, something disagrees with itself and is left for a second.
const STEPS_A_ROUND: usize = 16;

/// How long the mirror may take to show what this node wrote.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(10);

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// See the module's documentation.
pub(super) struct VmReconciler {
    pub(super) me: NodeName,
    pub(super) store: Arc<dyn Store>,
    pub(super) mirror: Mirror,
    pub(super) inventory: Arc<Inventory>,
    kept: KeptDefinitions,
    definitions: Definitions,
    consoles: Option<Arc<ConsoleLogs>>,
    pub(super) peers: Peers,
    selector: Selector,
    sizes: VmSizes,
    explanations: Explanations,
    machine: Arc<dyn Machine>,
    memory: Mutex<HashMap<VmId, Memory>>,
    starts: Semaphore,
    migrations: Arc<Semaphore>,
    origin: Instant,
}

/// What is remembered of one VM.
#[derive(Default, Clone)]
pub(super) struct Memory {
    pub(super) past: Past,
    /// The wish of which its source was told whether it could be started here.
    said_of: Option<i32>,
    /// Failures in a row, for the retry's back-off.
    failures: u32,
    /// The last failure, for `explain`.
    error: Option<String>,
}

/// What this node's libvirt knows of one VM.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fate {
    pub(super) here: Here,
    /// Why it executes nothing though it is here.
    pub(super) halt: Option<Halt>,
    pub(super) migration: Option<Migration>,
    /// It is on record as migrated from here.
    pub(super) left: bool,
}

/// Why a step did not succeed.
pub(super) enum StepError {
    /// Somebody was faster: look again, nothing is wrong.
    Conflict,
    /// Try again later.
    Failed(String),
}

impl From<CommitError> for StepError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::Conflict,
            CommitError::Unknown(_) | CommitError::Failed(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<HypervisorError> for StepError {
    fn from(error: HypervisorError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl VmReconciler {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { me, peers, store, mirror, machine, hypervisor, selector, consoles } = parts;
        Self {
            explanations: Explanations::new(Arc::clone(&store), Arc::clone(&machine), me.clone()),
            machine,
            definitions: Definitions::new(Arc::clone(&store)),
            sizes: VmSizes::new(Arc::clone(&store)),
            selector,
            me,
            store,
            mirror,
            inventory: Arc::new(Inventory::new(hypervisor)),
            kept: KeptDefinitions::default(),
            consoles,
            peers,
            memory: Mutex::default(),
            starts: Semaphore::new(STARTS_AT_ONCE),
            migrations: Arc::new(Semaphore::new(MIGRATIONS_AT_ONCE)),
            origin: Instant::now(),
        }
    }

    /// Takes away what libvirt keeps beside the cluster's definitions.
    pub(super) async fn tidy(&self) {
        if self.mirror.synced() {
            self.kept.tidy(&**self.inventory.hypervisor(), &self.mirror.view()).await;
        }
    }

    pub(super) fn explanations(&self) -> &Explanations {
        &self.explanations
    }

    /// Whether there may be anything to do here, told without waiting for anything.
    pub(super) fn is_settled(&self, id: VmId) -> bool {
        let view = self.mirror.view();
        let concerned = match view.vms.get(&id).map(|e| &**e) {
            Some(Entry::Good(vm)) => concerns(&self.me, vm),
            Some(Entry::Bad(_)) => false,
            None => self.is_left_to_us(id, &view),
        };
        !concerned
            && matches!(self.inventory.here(id), Here::Off | Here::Unknown)
            && !self.memory().contains_key(&id)
    }

    /// Whether it is this node's to take care of the claim of a VM that is not in the state tree.
    fn is_left_to_us(&self, id: VmId, view: &ClusterView) -> bool {
        let tidies_up = view.primary_holder.as_ref() == Some(&self.me);
        view.orphan_claim(id).is_some_and(|c| c.value.names(&self.me) || (c.value.is_empty() && tidies_up))
    }

    /// The VMs that this node has a part in by the state tree.
    pub(super) fn concerned(&self) -> Vec<VmId> {
        let view = self.mirror.view();
        let ours = view.good_vms().filter(|vm| concerns(&self.me, vm)).map(|vm| vm.id);
        let orphans = view.orphan_claims.keys().copied().filter(|id| self.is_left_to_us(*id, &view));
        ours.chain(orphans).collect()
    }

    /// Brings one VM as far as it goes now; answers when to look again at the latest.
    pub(super) async fn reconcile(&self, id: VmId) -> Option<Instant> {
        // A migration's turn lasts from before the claim is shared until it is over.
        let mut turn = None;
        for _ in 0..STEPS_A_ROUND {
            let (view, next) = match self.observe(id).await {
                Ok(observed) => observed,
                Err((why, error)) => return self.failed(id, &why, error).await,
            };
            match next.next {
                Next::Settled => {
                    self.settle(id, &view).await;
                    return None;
                }
                Next::Wait(until) => {
                    self.follow_console(id, &view);
                    self.explain(id, &view, "waiting", next.why).await;
                    let again = match view.vm(id) {
                        Some(vm) => self.say_whether_it_could_start(id, vm).await,
                        None => None,
                    };
                    return until.map(|moment| self.origin + moment.0).into_iter().chain(again).min();
                }
                Next::Do(Step::Forget) => match self.forget(id, &view).await {
                    Ok(()) => {}
                    Err(error) => return self.failed(id, &next.why, error).await,
                },
                Next::Do(step) => {
                    let vm = view.vm(id)?;
                    if matches!(step, Step::Share(_)) && turn.is_none() {
                        turn = Arc::clone(&self.migrations).try_acquire_owned().ok();
                        if turn.is_none() {
                            let why = format!(
                                "{MIGRATIONS_AT_ONCE} others migrate from here; it is not its turn yet"
                            );
                            self.explain(id, &view, "waiting", why).await;
                            return Some(Instant::now() + FIRST_RETRY);
                        }
                    }
                    match self.apply(&step, vm, &next.why).await {
                        Ok(()) => self.succeeded(id),
                        Err(error) => return self.failed(id, &next.why, error).await,
                    }
                }
            }
        }
        warn!(vm = %id, "still not settled after {STEPS_A_ROUND} steps: looking again in a second");
        Some(Instant::now() + FIRST_RETRY)
    }

    /// A view and the plan that follows from it. What is done next is decided from a fresh reading of libvirt; and what ends a guest or lets one go
    /// on, which cannot be undone, from a view that holds everything that was committed before.
    async fn observe(&self, id: VmId) -> Result<(Arc<ClusterView>, Plan), (String, StepError)> {
        let view = self.mirror.view();
        let first = self.look(id, &view, self.inventory.here(id)).await;
        let first = first.map_err(|error| ("how does it migrate".to_owned(), error))?;
        let Next::Do(step) = &first.next else { return Ok((view, first)) };
        if *step == Step::HandOver {
            // What is on record stays so, and libvirt answers nothing about the VM while it ends its process.
            return Ok((view, first));
        }
        let afresh = async {
            // Also before the view is confirmed: a libvirt that takes its time shall not make that old again.
            let plan = self.look_afresh(id, &view).await?;
            if !cannot_be_undone(&plan) {
                return Ok((view, plan));
            }
            let view = self.confirmed_view().await?;
            let plan = self.look_afresh(id, &view).await?;
            Ok((view, plan))
        };
        afresh.await.map_err(|error: StepError| (first.why, error))
    }

    /// A claim that names this node may be on its way here, with the guest that it is about, or a newer wish; the server that this
    /// node reads from may even have missed it.
    pub(super) async fn confirmed_view(&self) -> Result<Arc<ClusterView>, StepError> {
        let caught_up = if sabotage::commits(Bug::EndForAStaleClaim) {
            self.mirror.caught_up(CATCH_UP_WITHIN).await
        } else {
            self.mirror.caught_up_with_everybody(CATCH_UP_WITHIN).await
        };
        caught_up.map_err(|error| StepError::Failed(error.to_string()))?;
        Ok(self.mirror.view())
    }

    async fn look_afresh(&self, id: VmId, view: &ClusterView) -> Result<Plan, StepError> {
        let here = self.inventory.read(id).await?;
        self.look(id, view, here).await
    }

    async fn look(&self, id: VmId, view: &ClusterView, here: Here) -> Result<Plan, StepError> {
        let halt = self.inventory.halt(id);
        let fate = match view.vm(id) {
            Some(vm) if self.mirror.synced() => {
                self.notice_home(vm, here);
                if vm.cannot_read(VmKey::Claim) && vm.state.value == VmState::Restart && here == Here::Active
                {
                    self.remember(id, |m| m.past.runs_unclaimed(vm));
                }
                if vm.state.value == VmState::Migrate && vm.claim.value.is_only(&self.me) {
                    self.remember(id, |m| m.past.notice(vm, self.now()));
                }
                Fate {
                    here,
                    halt,
                    migration: self.migration(vm, here).await?,
                    left: self.left(vm, here).await?,
                }
            }
            _ => Fate { here, halt, migration: None, left: false },
        };
        let definition = match view.vm(id) {
            Some(vm) if self.mirror.synced() && needs_definition(&self.me, vm, here, halt) => {
                self.definition(vm).await?.map(drop)
            }
            _ => Ok(()),
        };
        Ok(self.plan(id, view, fate, definition.as_ref().copied().map_err(String::as_str)))
    }

    /// What it is started from; or what is wrong with that, and what to do.
    async fn definition(&self, vm: &Vm) -> Result<definitions::Read, StepError> {
        self.definitions.of(vm).await.map_err(|error| StepError::Failed(error.to_string()))
    }

    pub(super) fn plan(
        &self,
        id: VmId,
        view: &ClusterView,
        fate: Fate,
        definition: Result<(), &str>,
    ) -> Plan {
        let Fate { here, halt, migration, left } = fate;
        if let Some(Entry::Bad(problems)) = view.vms.get(&id).map(|e| &**e) {
            let what: Vec<String> = problems.iter().map(ToString::to_string).collect();
            return Plan {
                next: Next::Wait(None),
                why: format!("its keys cannot be read: {}", what.join("; ")),
            };
        }
        let past = self.memory().get(&id).map(|m| m.past.clone()).unwrap_or_default();
        let vm = view.vm(id);
        let begin = Instant::now();
        let target = vm.map_or(Ok(()), |vm| {
            fit(view, &vm.node.value, Asker::Source).map_err(|unfit| format!("it {unfit}"))
        });
        // Asked of what may be started here only: it looks at all that runs in the cluster.
        let last_word = match vm {
            Some(vm) if vm.node.value == self.me && matches!(here, Here::Off | Here::Unstarted) => {
                may_execute_elsewhere(view, &self.me, id, &vm.claim)
            }
            _ => Ok(()),
        };
        let plan = plan(&Facts {
            me: &self.me,
            vm,
            orphan: view.orphan_claim(id),
            tidies_up: view.primary_holder.as_ref() == Some(&self.me),
            last_word: last_word.as_ref().copied().map_err(String::as_str),
            here,
            halt,
            migration,
            left,
            target: target.as_ref().copied().map_err(String::as_str),
            definition,
            view_is_current: self.mirror.synced(),
            past: &past,
            now: self.now(),
        });
        metrics::planned("vm", begin.elapsed());
        plan
    }

    pub(super) async fn apply(&self, step: &Step, vm: &Vm, why: &str) -> Result<(), StepError> {
        let name = &vm.name;
        let hypervisor = self.inventory.hypervisor();
        match step {
            Step::Start => return self.start(vm, why).await,
            Step::LookAt(node) => self.look_at(vm, node).await?,
            Step::GiveAway => return self.give_away(vm, why).await,
            Step::Choose => return self.choose(vm, why).await,
            Step::Migrate(to) => return self.migrate(vm, to, why).await,
            Step::AbortMigration => return self.abort_migration(vm, why).await,
            Step::Resume => {
                info!(vm = %name, "lets it go on: {why}");
                hypervisor.resume(vm.id).await?;
                self.inventory.read(vm.id).await?;
            }
            Step::Suspend => {
                warn!(vm = %name, "it executes here though it belongs elsewhere ({why}): suspended");
                hypervisor.suspend(vm.id).await?;
                self.inventory.read(vm.id).await?;
            }
            Step::AskGuestToShutDown => {
                self.remember(vm.id, |m| m.past.asked_to_shut_down(vm, self.now()));
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
        let Some(change) = change(&Step::Claim, vm, &self.me) else { return Ok(()) };
        let view = self.mirror.view();
        if let Err(why) = may_execute_elsewhere(&view, &self.me, vm.id, &vm.claim) {
            debug!(vm = %vm.name, "not claimed: {why}");
            return Ok(());
        }
        let mut words = Transaction::default();
        for node in view.all_nodes().filter(|node| node.name != self.me) {
            let expected = if proven_dead(&view, node) {
                schema::node::expect_daemon_state(node)
            } else {
                schema::node::expect_last_word(node)
            };
            words.ops.extend(expected.ops);
        }
        match schema::vm::apply_with(&*self.store, &change, words).await {
            // Heard in the next step.
            Err(CommitError::Conflict { path, .. }) if path.starts_with(schema::node::ROOT) => {
                self.catch_up().await?;
                debug!(vm = %vm.name, "not claimed: {path} has changed");
                return Ok(());
            }
            outcome => drop(outcome?),
        }
        self.catch_up().await?;
        self.remember(vm.id, |m| m.past.claimed(vm));
        debug!(vm = %vm.name, "claimed: {why}");
        Ok(())
    }

    /// Its keys are gone, and it is off here.
    async fn forget(&self, id: VmId, view: &ClusterView) -> Result<(), StepError> {
        let Some(claim) = view.orphan_claim(id) else { return Ok(()) };
        schema::vm::apply(&*self.store, &VmChange::orphan(id, claim, &self.me)).await?;
        self.catch_up().await?;
        info!(vm = %id, "its claim is released: its keys are gone, and it is off here");
        Ok(())
    }

    pub(super) async fn catch_up(&self) -> Result<(), StepError> {
        self.mirror.caught_up(CATCH_UP_WITHIN).await.map_err(|e| StepError::Failed(e.to_string()))
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
    async fn commit(&self, step: &Step, vm: &Vm) -> Result<(), StepError> {
        let Some(mut change) = change(step, vm, &self.me) else { return Ok(()) };
        if matches!(step, Step::Answer(Answer::Stays(_)))
            && let Some(home) = self.memory().get(&vm.id).and_then(|m| m.past.home())
        {
            change = put_back(change, vm, &self.me, home);
        }
        schema::vm::apply(&*self.store, &change).await?;
        self.catch_up().await
    }

    /// While it is not to move, where it shall return to is what its key says.
    fn notice_home(&self, vm: &Vm, here: Here) {
        if vm.state.value == VmState::Migrate || here != Here::Active {
            return;
        }
        let mut memory = self.memory();
        // What has no way home needs no memory of that.
        if vm.last_node.value.is_some() || memory.contains_key(&vm.id) {
            memory.entry(vm.id).or_default().past.saw_home(vm);
        }
    }

    async fn settle(&self, id: VmId, view: &ClusterView) {
        self.follow_console(id, view);
        if self.inventory.here(id) == Here::Active {
            self.succeeded(id);
        } else {
            self.memory().remove(&id);
        }
        self.explanations.settled(id).await;
    }

    /// The console is followed by the node that runs the VM and claims it.
    fn follow_console(&self, id: VmId, view: &ClusterView) {
        let Some(consoles) = &self.consoles else { return };
        let runs_here = self.inventory.here(id) == Here::Active;
        match view.vm(id) {
            Some(vm) if runs_here && vm.claim.value.names(&self.me) => consoles.follow(vm.id, &vm.name),
            _ if !runs_here => consoles.forget(id),
            _ => (),
        }
    }

    fn succeeded(&self, id: VmId) {
        if let Some(memory) = self.memory().get_mut(&id) {
            memory.failures = 0;
            memory.error = None;
        }
    }

    async fn failed(&self, id: VmId, why: &str, error: StepError) -> Option<Instant> {
        let StepError::Failed(error) = error else {
            metrics::claim_conflict();
            // The mirror pokes when it sees the other's change; this is for the case that it already had.
            return Some(Instant::now() + FIRST_RETRY);
        };
        let failures = self.remember(id, |m| {
            m.failures = m.failures.saturating_add(1);
            m.error = Some(error.clone());
            m.failures
        });
        let pause = FIRST_RETRY.saturating_mul(2u32.saturating_pow(failures - 1)).min(LONGEST_RETRY);
        warn!(vm = %id, "{error}; {why}; trying again in {} s", pause.as_secs());
        let view = self.mirror.view();
        self.explain(id, &view, "trying again", why.to_owned()).await;
        Some(Instant::now() + pause)
    }

    /// Only the node that the VM is tied to by claim, or by wish where nobody claims it, explains: others only wait for it.
    pub(super) async fn explain(&self, id: VmId, view: &ClusterView, doing: &'static str, because: String) {
        let ours = match view.vms.get(&id).map(|e| &**e) {
            Some(Entry::Good(vm)) => {
                // Of several claimants the first decides, so it also explains.
                let first = vm.claim.value.iter().next();
                let primary = view.primary_holder.as_ref() == Some(&self.me);
                let wished = || vm.node.value == self.me || vm.node.value.is_nobody() && primary;
                first.map_or_else(wished, |first| {
                    *first == self.me || vm.cannot_read(VmKey::Claim) && wished()
                })
            }
            Some(Entry::Bad(_)) | None => self.inventory.here(id) == Here::Active,
        };
        if ours && self.mirror.synced() {
            let error = self.memory().get(&id).and_then(|m| m.error.clone());
            self.explanations.say(id, Said { doing, because, error }).await;
        }
    }

    pub(super) fn now(&self) -> Moment {
        Moment(self.origin.elapsed())
    }

    pub(super) fn remember<T>(&self, id: VmId, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(self.memory().entry(id).or_default())
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<VmId, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cannot_be_undone(plan: &Plan) -> bool {
    matches!(plan.next, Next::Do(Step::PowerOff | Step::AskGuestToShutDown | Step::Resume | Step::Suspend))
}
