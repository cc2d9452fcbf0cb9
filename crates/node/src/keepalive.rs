//! Says every few seconds that this node lives, and how it is. The other nodes fence a node that does not.
//!
//! A task of its own, in a place of its own ([`Place`]), that waits for nothing but the store: not for libvirt, not for a disk, not for an
//! operation on a VM, nor for a turn after whoever plans, parses or lists. What it reports of those is what was last known. The node's
//! `daemonstate` goes the same way, so that a change of it and a keepalive never cross: the next keepalive is early, and carries it.

mod attention;
mod line;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use pvc_core::model::{DaemonState, NodeReport};
use pvc_host::{hypervisor::Seen, machine::Machine};
use pvc_process::{JoinSet, Place};
use pvc_store::{
    Clash, CommitError, Store, StoreError,
    mirror::Mirror,
    schema::{
        SchemaError, machine,
        node::{self, Registration},
        root,
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tracing::{debug, error, info, warn};

use crate::{
    ability::Ability, log, metrics, notify::Notify, reconcile::vm::Active, storage_figures::Told,
    write_streak::WriteStreak,
};

use attention::Attention;

/// The longest pause after a failure; a quarter of the time between keepalives if that is shorter, or the next one came sooner than the
/// one that is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long one may take at least.
const WITHIN: Duration = Duration::from_secs(1);

/// The pause between two keepalives of which the second is early, because what runs here has changed: whoever waits for a VM
/// waits for that.
const EARLY_AFTER: Duration = Duration::from_millis(200);

/// How long own keys may take to be written again.
const REPAIR_WITHIN: Duration = Duration::from_secs(10);

/// Every so many keepalives all figures are written, also those that did not change: somebody may have spoilt a key.
const WHOLE_EVERY: u32 = 12;

/// Where a keepalive's figures come from. All of it is at hand: nothing is waited for.
pub struct Facts {
    /// Memory, load and the time.
    pub machine: Arc<dyn Machine>,
    /// What runs here; `None` on a node without a hypervisor.
    pub active: Option<watch::Receiver<Active>>,
    /// Whether VMs can be started here.
    pub ability: Ability,
    /// The cluster, for what is counted in it.
    pub mirror: Mirror,
    /// What Ceph said last; `None`: it is not logged.
    pub storage: Option<Told>,
}

/// What is logged of each keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The status of the cluster, too.
    pub cluster_details: bool,
}

/// The running keepalive. It ends when this is dropped.
pub struct Keepalive {
    declarations: mpsc::UnboundedSender<Declaration>,
    acknowledged: watch::Receiver<Option<Instant>>,
    write_streak: watch::Receiver<Option<WriteStreak>>,
    task: JoinHandle<()>,
}

struct Declaration {
    state: DaemonState,
    done: oneshot::Sender<()>,
}

impl Keepalive {
    /// Starts the task, to be called once the mirror is ready. It writes nothing before the first [`Self::declare`], but tells the service
    /// manager that it lives.
    pub fn start(
        store: Arc<dyn Store>,
        registration: Registration,
        every: Duration,
        facts: Facts,
        shown: Option<Shown>,
        notify: Notify,
        place: &Place,
    ) -> Self {
        let (declarations, orders) = mpsc::unbounded_channel();
        let (sent, acknowledged) = watch::channel(None);
        let (taken, write_streak) = watch::channel(None);
        // Until it is known what runs here, what was last reported stands: it may keep a VM from being started twice.
        let last = facts.mirror.view().node(&registration.name).map(|me| me.report.clone());
        let beats = KeepaliveTask {
            writer: Arc::new(Writer { store, registration }),
            every,
            last: last.unwrap_or_default(),
            facts,
            repair: JoinSet::new(),
            shown,
            // Answered where the rest of the daemon runs, which is here.
            attention: notify.sign_of_life_every().map(|_| Attention::of_here()),
            notify,
            state: None,
            declared: Vec::new(),
            acknowledged: None,
            since_whole: 0,
            acknowledged_at: Instant::now(),
            missed: 0,
            sent,
            taken,
        };
        Self { declarations, acknowledged, write_streak, task: place.spawn(beats.run(orders)) }
    }

    /// Makes this the node's `daemonstate`, with a keepalive at once; returns when the store has it. While the store is away that
    /// takes as long as it is: bound it if it matters.
    pub async fn declare(&self, state: DaemonState) {
        let (done, wait) = oneshot::channel();
        // The task ends only with this value or by a bug, which whoever awaits `ended` learns of.
        let _ = self.declarations.send(Declaration { state, done });
        let _ = wait.await;
    }

    /// When the last keepalive that ZooKeeper has acknowledged was sent; signalled at each.
    pub fn acknowledged(&self) -> watch::Receiver<Option<Instant>> {
        self.acknowledged.clone()
    }

    /// For how long none was missed.
    pub fn write_streak(&self) -> watch::Receiver<Option<WriteStreak>> {
        self.write_streak.clone()
    }

    /// Returns when the task has ended, which it does not while this exists, unless there is a bug.
    pub async fn ended(&mut self) {
        let _ = (&mut self.task).await;
    }
}

impl Drop for Keepalive {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task's state.
struct KeepaliveTask {
    writer: Arc<Writer>,
    every: Duration,
    facts: Facts,
    shown: Option<Shown>,
    attention: Option<Attention>,
    notify: Notify,
    /// What the node's state shall be; nothing is written before it is known.
    state: Option<DaemonState>,
    declared: Vec<Declaration>,
    last: NodeReport,
    /// Own keys that say something else are being written again: one at a time, and no keepalive waits for it.
    repair: JoinSet<()>,
    /// What the store is known to hold.
    acknowledged: Option<NodeReport>,
    since_whole: u32,
    acknowledged_at: Instant,
    /// Keepalives that failed since the last that did not.
    missed: u64,
    /// Tells whoever wants to know when the last acknowledged one was sent.
    sent: watch::Sender<Option<Instant>>,
    /// … and for how long none was missed.
    taken: watch::Sender<Option<WriteStreak>>,
}

/// One keepalive under way.
struct Beat {
    write: Pin<Box<dyn Future<Output = Result<Written, String>> + Send>>,
    regular: bool,
    declared: Vec<Declaration>,
    report: NodeReport,
    sent: Instant,
}

impl KeepaliveTask {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Declaration>) {
        let mut life = self.notify.sign_of_life_every().map(|every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let (mut active, mut ability) = (self.facts.active.clone(), self.facts.ability.clone());
        let mut regular_at = Instant::now();
        let mut early_at: Option<Instant> = None;
        let mut beat: Option<Beat> = None;
        loop {
            let next = early_at.map_or(regular_at, |early| early.min(regular_at));
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(declaration) => {
                        self.state = Some(declaration.state);
                        self.declared.push(declaration);
                        early_at = Some(Instant::now());
                    }
                    None => return,
                },
                () = tick(&mut life) => if self.attention.as_mut().is_none_or(Attention::lasts) {
                    self.notify.alive();
                },
                outcome = written(&mut beat) => {
                    let Some(done) = beat.take() else { continue };
                    if !self.settle(done, outcome) {
                        early_at = Some(Instant::now() + RETRY.min(self.every / 4));
                    }
                }
                () = news(&mut active, &mut ability) => {
                    let soon = (self.acknowledged_at + EARLY_AFTER).max(Instant::now());
                    early_at = Some(early_at.map_or(soon, |early| early.min(soon)));
                }
                () = sleep_until(next), if beat.is_none() && self.state.is_some() => {
                    let now = Instant::now();
                    let regular = now >= regular_at;
                    if regular {
                        regular_at = now + self.every;
                    }
                    early_at = None;
                    beat = self.begin(regular);
                }
            }
        }
    }

    /// Collects the figures and starts to write them.
    fn begin(&mut self, regular: bool) -> Option<Beat> {
        let state = self.state?;
        let declared = std::mem::take(&mut self.declared);
        let report = self.report();
        self.since_whole += 1;
        let name = &self.writer.registration.name;
        let view = self.facts.mirror.view();
        let me = view.node(name);
        let spoilt = me.is_some_and(node::has_broken_figures);
        let whole = spoilt || self.since_whole >= WHOLE_EVERY;
        let known = self.acknowledged.take().filter(|_| !whole);
        if whole {
            self.since_whole = 0;
        }
        // Somebody declared us dead, or spoilt the key, or another daemon wrote before it was refused: we live, so we say it again.
        let seen = me.is_some_and(|me| node::says(me, state));
        let say_state = !declared.is_empty() || !seen;
        let write = Arc::clone(&self.writer).write(report.clone(), known, say_state.then_some(state), state);
        let within = self.every.max(WITHIN);
        let write = Box::pin(async move {
            timeout(within, write)
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {} s", within.as_secs())))
        });
        Some(Beat { write, regular, declared, report, sent: Instant::now() })
    }

    /// Takes note of how it went; answers whether it went well.
    fn settle(&mut self, beat: Beat, outcome: Result<Written, String>) -> bool {
        match outcome {
            Ok(written) => {
                // What was declared just now is not in the view yet.
                let worth_showing = beat.regular && beat.declared.is_empty();
                if self.missed > 0 {
                    let gap = self.acknowledged_at.elapsed().as_secs();
                    info!("keepalives are written again, after {gap} s without");
                    self.missed = 0;
                }
                self.acknowledged_at = Instant::now();
                metrics::keepalive(beat.sent.elapsed());
                self.sent.send_replace(Some(beat.sent));
                self.taken
                    .send_modify(|taken| *taken = Some(WriteStreak::go_on(*taken, beat.sent, self.every)));
                for declaration in beat.declared {
                    let _ = declaration.done.send(());
                }
                if let Some(shown) = self.shown
                    && worth_showing
                {
                    self.show(&beat.report, shown);
                }
                if beat.regular {
                    self.repair();
                }
                self.acknowledged = (written == Written::All).then_some(beat.report);
                true
            }
            Err(why) => {
                if self.missed == 0 {
                    warn!(
                        error = why,
                        "the keepalive could not be written; guests are not affected, it is tried again until it can"
                    );
                }
                metrics::keepalive_failed();
                self.missed += 1;
                self.declared.extend(beat.declared);
                false
            }
        }
    }

    /// Writes own keys again that say something else than this daemon does.
    fn repair(&mut self) {
        while self.repair.try_join_next().is_some() {}
        let (view, writer) = (self.facts.mirror.view(), Arc::clone(&self.writer));
        let me = &self.writer.registration.name;
        let Some(seen) = view.node(me).filter(|_| self.repair.is_empty()) else { return };
        let (seen, is_primary) = (seen.clone(), view.primary_holder.as_ref() == Some(me));
        self.repair.spawn(async move {
            let repair = node::repair(&*writer.store, &writer.registration, &seen, is_primary);
            for key in timeout(REPAIR_WITHIN, repair).await.unwrap_or_default() {
                info!(key, "wrote it again: it said something else than this daemon");
            }
        });
    }

    fn report(&mut self) -> NodeReport {
        let report = &mut self.last;
        match self.facts.machine.figures() {
            Ok(figures) => {
                report.mem_total_mib = figures.mem_total_mib;
                report.mem_used_mib = figures.mem_used_mib;
                report.mem_free_mib = figures.mem_free_mib;
                report.cpu_load = figures.load;
            }
            Err(why) => error!(error = &why as &dyn std::error::Error, "cannot tell memory and load"),
        }
        let active = self.facts.active.as_ref().map(|a| a.borrow().clone());
        // While libvirt does not answer, guests still run: the last that was known is reported.
        if let Some(Some(active)) = active {
            // What is on its way here takes memory already, but does not run.
            let runs = |vm: &&Seen| !vm.activity.is_held();
            report.running = active.values().filter(runs).map(|vm| vm.id).collect();
            report.domains_count = report.running.len() as u64;
            let halted = |vm: &Seen| Some((vm.id, vm.activity.halt()?));
            report.halted = active.values().filter_map(halted).collect();
            report.mem_alloc_mib = active.values().map(|vm| vm.memory_mib).sum();
            report.vcpu_alloc = active.values().map(|vm| u64::from(vm.vcpus)).sum();
        }
        report.cannot_start = self.facts.ability.why_not();
        report.networks_count = self.facts.mirror.view().networks.len() as u64;
        report.keepalive_unix_s = self.facts.machine.unix_s();
        report.clone()
    }

    fn show(&self, report: &NodeReport, shown: Shown) {
        let mut text = line::node(report);
        let view = self.facts.mirror.view();
        if shown.cluster_details {
            text.push_str("; ");
            text.push_str(&line::cluster(&view));
        }
        if let Some(storage) = &self.facts.storage {
            text.push_str("; ");
            text.push_str(&storage.words());
        }
        if view.maintenance {
            text.push_str("; maintenance is on: nobody is fenced");
        }
        info!(target: log::KEEPALIVE, "{text}");
    }
}

/// What a keepalive has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    All,
    /// That the node lives, while the store refuses to have other keys of it written.
    Life,
}

/// Writes keepalives, and the node's other keys when somebody deleted them.
struct Writer {
    store: Arc<dyn Store>,
    registration: Registration,
}

impl Writer {
    async fn write(
        self: Arc<Self>,
        report: NodeReport,
        known: Option<NodeReport>,
        say: Option<DaemonState>,
        state: DaemonState,
    ) -> Result<Written, String> {
        match self.commit(&report, known.as_ref(), say).await {
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Failed(error @ StoreError::Refused { .. })) => {
                return self.write_life(&report, say, &error).await;
            }
            outcome => return outcome.map(|()| Written::All).map_err(|e| e.to_string()),
        }
        // Keys are missing: somebody removed the node from the cluster while it lives. An old client's init removes the
        // parents, too, and with them whatever lies below.
        let created = root::init(&*self.store).await.map_err(|e| self.not_made_again(&e))?;
        if !created.is_empty() {
            error!(alert = true, "ROOT KEYS WERE MISSING, and are made again: {}", created.join(", "));
        }
        node::register(&*self.store, &self.registration).await.map_err(|e| log::chain(&e))?;
        let outcome = self.commit(&report, None, Some(state)).await;
        outcome.map(|()| Written::All).map_err(|e| e.to_string())
    }

    /// Also the record that ties the name to this machine is gone, perhaps everything: what was in it no daemon can know.
    fn not_made_again(&self, error: &SchemaError) -> String {
        let why = log::chain(error);
        let record = machine::path(&self.registration.name);
        match error {
            SchemaError::Commit(CommitError::Conflict { path, clash: Clash::Missing, .. })
                if *path == record =>
            {
                format!(
                    "the state tree, or a part of it, is gone: {why}; restore it, or make an empty one by `pvc init`"
                )
            }
            _ => why,
        }
    }

    /// A key that nobody may write costs what it says, not the node's life: with its state if that can be written, or without.
    async fn write_life(
        &self,
        report: &NodeReport,
        say: Option<DaemonState>,
        refusal: &StoreError,
    ) -> Result<Written, String> {
        debug!(error = %refusal, "a key of this node cannot be written");
        if say.is_some() && self.commit(report, Some(report), say).await.is_ok() {
            return Ok(Written::Life);
        }
        let life = self.commit(report, Some(report), None).await;
        life.map(|()| Written::Life).map_err(|error| error.to_string())
    }

    async fn commit(
        &self,
        report: &NodeReport,
        known: Option<&NodeReport>,
        say: Option<DaemonState>,
    ) -> Result<(), CommitError> {
        let name = &self.registration.name;
        let mut txn = node::report(name, report, known);
        if let Some(state) = say {
            txn.ops.extend(node::set_daemon_state(name, state).ops);
        }
        self.store.commit(txn).await.map(|_| ())
    }
}

async fn tick(ticks: &mut Option<tokio::time::Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

async fn written(beat: &mut Option<Beat>) -> Result<Written, String> {
    match beat {
        Some(beat) => beat.write.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Returns when what runs here changed, or whether anything can be started here.
async fn news(active: &mut Option<watch::Receiver<Active>>, ability: &mut Ability) {
    tokio::select! {
        biased;
        () = changed(active) => {}
        () = ability.changed() => {}
    }
}

/// Returns when what runs here changed; never if nobody will say so any more.
async fn changed(active: &mut Option<watch::Receiver<Active>>) {
    match active {
        Some(receiver) => {
            if receiver.changed().await.is_err() {
                *active = None;
            }
        }
        None => std::future::pending().await,
    }
}
