//! While this node is primary: carries out what operators have asked of storage. Tasks that touch the same thing go one after the other, the oldest first; the
//! others beside each other, a few at a time. What is asked of OSDs has places of its own: all others may be waiting for just that.
//!
//! ```text
//!   something is asked for, a task is over ─► the list is read ─► who may go now ─► each is looked at by itself, until it is over
//! ```
//! Decides nothing itself (see `pvc_core::plan::storage`). A task that another primary has begun is carried on from what Ceph has.

mod observe;
mod taken;
#[cfg(test)]
mod tests;
mod warrant;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::{
    model::{
        ClusterView, StorageCommand, Subject,
        ceph::{Changer, ClientAddress, ShutOut, Whose},
        storage::CephChange,
        task::TaskState,
    },
    plan::{
        Next, Plan,
        storage::{
            FULLEST_PERCENT, Facts as Observed, Refused, Step, UnderWay, changed_images, is_full, plan,
            under_way,
        },
        storage_fence::Request,
    },
};
use pvc_host::{
    ceph::{Ceph, CephAdmin, CephError, OnlyIf, Progress},
    storage_fence::CephFence,
    warrant::{Void, Warrant},
};
use pvc_store::{
    WatchEvent,
    schema::{
        self,
        task::{self, Seen},
    },
};
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::{debug, info, warn};

use crate::{
    controller::{Cluster, Controller, Freshness, Poker, Reconciler, Retry, StepError},
    vm_clients::{self, AsDecided, decided_from, words_as_seen},
};

use self::{observe::may_execute_on, taken::Taken, warrant::OfTask};

/// What another primary has begun it may still be doing, and Ceph refuses it a second time: for so long that is no answer.
const BEGUN_ELSEWHERE: Duration = Duration::from_mins(1);

/// How often it is looked at how far a change is; it is written if that is another percentage.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// So many copies go on at once: each of their bytes goes through this node's network twice.
const COPIES: usize = 2;
/// So many removals and rollbacks.
const SWEEPS: usize = 2;

/// Carries them out. It ends when this is dropped.
pub struct StorageTasks {
    _rows: [Controller<TaskReconciler>; 2],
}

impl StorageTasks {
    /// Starts it; nothing is done until this node is primary.
    pub fn start(cluster: Cluster, ceph: Arc<dyn CephAdmin>) -> Self {
        let row = |of_osds| {
            let (cluster, ceph) = (cluster.clone(), Arc::clone(&ceph));
            let mut changes = cluster.store.watch(task::ROOT);
            let list = Subject::Node(cluster.me.clone());
            let machine = Arc::clone(&cluster.machine);
            let fence = CephFence::new(Arc::clone(&ceph) as Arc<dyn Ceph>, move || machine.unix_s());
            let reconciler = Arc::new(TaskReconciler {
                of_osds,
                list: list.clone(),
                cluster,
                ceph,
                fence,
                taken: Taken::default(),
                poker: OnceLock::new(),
                copies: Arc::new(Semaphore::new(COPIES)),
                sweeps: Arc::new(Semaphore::new(SWEEPS)),
            });
            let mut controller = Controller::start(Arc::clone(&reconciler));
            // It was never set before.
            let _ = reconciler.poker.set(controller.poker());
            let poker = controller.poker();
            poker.poke(list.clone());
            controller.spawn(async move {
                while let Some(event) = changes.recv().await {
                    // Whoever asks for something, or has a task end, writes the root. What is written at a task is written by who carries it out, and is no reason
                    // to try again at once.
                    if !matches!(&event, WatchEvent::Changed(path) if path != task::ROOT) {
                        poker.poke(list.clone());
                    }
                }
            });
            controller
        };
        Self { _rows: [false, true].map(row) }
    }
}

struct TaskReconciler {
    /// Which of the two rows.
    of_osds: bool,
    /// What stands for the list of the tasks. Each of them stands for itself.
    list: Subject,
    cluster: Cluster,
    ceph: Arc<dyn CephAdmin>,
    fence: CephFence,
    taken: Taken,
    poker: OnceLock<Poker<Self>>,
    copies: Arc<Semaphore>,
    sweeps: Arc<Semaphore>,
}

/// What is planned from.
enum Facts {
    /// There is nothing to do, or another node is primary.
    Nothing,
    /// The tasks that are not over.
    List(Vec<Seen>),
    /// One that may be carried out.
    Task(Box<(Seen, Observed)>),
}

impl TaskReconciler {
    /// What Ceph has refused of this task, as far as that is its answer.
    fn answers(&self, seen: &Seen) -> Vec<Refused> {
        let begun_here =
            matches!(&seen.task.state, TaskState::Running { node, .. } if *node == self.cluster.me.as_str());
        let mut refused = self.taken.refused(seen.task.id);
        refused.retain(|refused| begun_here || refused.lasts >= BEGUN_ELSEWHERE);
        refused
    }

    /// By whom an image was to be changed for this task, unless it is known that this has ended.
    fn changer(&self, seen: &Seen) -> Option<ClientAddress> {
        let client = seen.task.changer.as_ref()?.client;
        (self.taken.ended(seen.task.id) != Some(client)).then_some(client)
    }

    /// The tasks of this row that are not over, the oldest first.
    async fn open(&self, view: &ClusterView) -> Result<Vec<Seen>, StepError> {
        let (mut tasks, problems) = task::read_all(&*self.cluster.store).await?;
        if let Some(first) = problems.first().filter(|_| !self.of_osds) {
            warn!("{} tasks cannot be read and are left alone, {} first", problems.len(), first.key);
        }
        // The monitors do what is asked of OSDs without them, and one of these may be what lets the others go on.
        tasks.retain(|seen| !seen.task.is_over());
        // What a node makes and removes is its own to end, if there is such a node.
        let nobodys = if self.of_osds { self.nobodys(view, &tasks).await } else { Ok(None) };
        tasks.retain(|seen| {
            let command = &seen.task.command;
            command.is_of_osds() == self.of_osds && !command.is_of_a_device()
        });
        match nobodys {
            Ok(nobodys) => tasks.extend(nobodys),
            Err(_) if !tasks.is_empty() => {}
            Err(error) => return Err(error),
        }
        tasks.sort_by_key(|seen| seen.task.id);
        Ok(tasks)
    }

    /// Has another daemon's client do nothing more. One that goes on is waited for.
    async fn retire(&self, seen: &Seen, client: &ClientAddress) -> Result<(), StepError> {
        if let Err(error) = self.ceph.retire(client, &changed_images(&seen.task)).await {
            return Err(self.again(seen, &error).await);
        }
        info!(
            "task {}: client {client}, by which it was being carried out before, is shut out",
            seen.task.id
        );
        let store = &*self.cluster.store;
        if let Some(Changer { node, boot, .. }) = seen.task.changer.clone() {
            let noted = ShutOut { whose: Whose::Task(seen.task.id), node, boot };
            schema::shut_out::note_one(store, client, &noted).await?;
        }
        task::changed_by(store, seen, None, &self.cluster.me).await?;
        Ok(())
    }

    /// Says at the task what it waits for.
    async fn tell(&self, seen: &Seen, trouble: Option<&str>) -> Result<(), StepError> {
        if seen.task.trouble.as_deref() != trouble {
            let told = task::tell(seen, trouble, &self.cluster.me);
            self.cluster.store.commit(told).await?;
        }
        Ok(())
    }

    /// What failed may be tried again.
    async fn again(&self, seen: &Seen, error: &CephError) -> StepError {
        let why = error.to_string();
        match self.tell(seen, Some(&why)).await {
            Ok(()) => StepError::Failed(why),
            Err(error) => error,
        }
    }

    /// Shuts out what a VM has left, unless somebody may be executing it by then.
    async fn shut_out(&self, seen: &Seen, request: &Request) -> Result<(), StepError> {
        let StorageCommand::FlushLocks { vm: id } = seen.task.command else { return Ok(()) };
        let (store, me) = (&*self.cluster.store, &self.cluster.me);
        let view = self.cluster.view();
        let Some(vm) = view.vm(id).filter(|vm| may_execute_on(&view, vm).is_none()) else {
            return Err(StepError::Conflict(format!("VM {id}")));
        };
        let mut checks = task::unchanged(seen, me);
        checks.ops.extend(decided_from(vm).ops);
        checks.ops.extend(words_as_seen(&view, view.all_nodes()).ops);
        let warrant = AsDecided { store, checks };
        match vm_clients::flush(store, &self.fence, me, id, request, &warrant).await {
            Ok(()) => Ok(()),
            Err(not) => {
                let why = not.failed()?;
                self.tell(seen, Some(&why)).await?;
                Err(StepError::Failed(why))
            }
        }
    }

    /// Lets these in again, while the task is as it was seen and this node is primary. That a machine has booted since stays true.
    async fn lift(&self, seen: &Seen, clients: &BTreeSet<ClientAddress>) -> Result<(), StepError> {
        let (store, me) = (&*self.cluster.store, &self.cluster.me);
        let warrant = AsDecided { store, checks: task::unchanged(seen, me) };
        for client in clients {
            match warrant.holds().await {
                Ok(()) => {}
                Err(Void::Overtaken(what)) => return Err(StepError::Conflict(what)),
                Err(Void::Unknown(why)) => return Err(StepError::Failed(why)),
            }
            if let Err(error) = self.ceph.lift(client).await {
                return Err(self.again(seen, &error).await);
            }
            info!(%client, "let in again: its process is proven dead");
            schema::shut_out::forget(store, client).await?;
        }
        Ok(())
    }

    /// Waits for a change, and writes at its task how far it is. Answers the task as it is by then.
    async fn watched(
        &self,
        warrant: &OfTask<'_>,
        change: &CephChange,
        made: impl Future<Output = Result<(), CephError>>,
        progress: &Progress,
    ) -> (Result<(), CephError>, Seen) {
        let (mut made, mut told) = (std::pin::pin!(made), None);
        let mut looks = interval_at(Instant::now() + TOLD_EVERY, TOLD_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                made = &mut made => return (made, warrant.seen()),
                _ = looks.tick() => {}
            }
            self.hear_of_an_end(warrant, change, progress).await;
            // Before anything was told, the change may wait for its warrant, which is for the task as it was seen.
            let Some(percent) = progress.percent() else { continue };
            if matches!(change, CephChange::CopyImage { .. }) {
                self.keep_room(progress).await;
            }
            if told == Some(percent) {
                continue;
            }
            let seen = warrant.seen();
            let wrote = task::progress(&*self.cluster.store, &seen, percent, &self.cluster.me).await;
            // Another primary says it now, or the next one is told.
            if let Ok(Some(now)) = wrote {
                warrant.is_now(now);
                told = Some(percent);
            }
        }
    }

    /// Whether the task is to end before it is done. A change that still waits for its warrant does not get it: the task is another one than was seen.
    async fn hear_of_an_end(&self, warrant: &OfTask<'_>, change: &CephChange, progress: &Progress) {
        let (store, id) = (&*self.cluster.store, warrant.seen().task.id);
        let Ok(Some(now)) = task::read(store, id).await else { return };
        let Some(cancel) = now.task.is_to_end() else { return };
        match under_way(&now.task, change, progress.percent().is_some()) {
            UnderWay::IsEnded => progress.call_off(cancel.why()),
            UnderWay::Ends => {}
            UnderWay::GoesOn(why) => {
                if let Ok(told) = task::goes_on(store, &now, &why, &self.cluster.me).await {
                    warrant.is_now(told);
                }
            }
        }
    }

    /// A copy ends that would fill the cluster: one that is full takes no writes from anybody.
    async fn keep_room(&self, progress: &Progress) {
        if let Ok(figures) = self.ceph.figures().await
            && is_full(&figures.space)
        {
            progress.call_off(format!("the cluster is used to {FULLEST_PERCENT} % or more by now"));
        }
    }

    async fn change(&self, seen: &Seen, observed: &Observed, change: &CephChange) -> Result<(), StepError> {
        let (store, me) = (&*self.cluster.store, &self.cluster.me);
        let boot = self.cluster.view().node(me).and_then(|me| me.boot.clone());
        let warrant = OfTask { store, me, boot, seen: Mutex::new(seen.clone()) };
        let image = observed.id_for(&seen.task, change);
        let progress = Progress::default();
        let made = self.ceph.change(change, OnlyIf { warrant: &warrant, image }, &progress);
        let (made, seen) = self.watched(&warrant, change, made, &progress).await;
        let (seen, id) = (&seen, seen.task.id);
        self.taken.has_ended(id, seen.task.changer.as_ref().map(|changer| changer.client));
        match made {
            Err(CephError::Void(Void::Overtaken(what))) => Err(StepError::Conflict(what)),
            Ok(()) => {
                debug!("storage: {change}");
                self.taken.is_made(id, change);
                Ok(())
            }
            Err(CephError::Refused { why, .. }) => {
                self.taken.is_refused(id, change, why.clone());
                let is_answer = |refused: &[Refused]| refused.iter().any(|refused| refused.change == *change);
                if is_answer(&self.answers(seen)) && !is_answer(&observed.refused) {
                    // Decided anew from what Ceph has now.
                    return Err(StepError::Conflict(change.to_string()));
                }
                // It was asked for although Ceph had refused it, or another one may be making it.
                self.tell(seen, Some(&why)).await?;
                Err(StepError::Failed(why))
            }
            Err(error) => Err(self.again(seen, &error).await),
        }
    }
}

#[async_trait]
impl Reconciler for TaskReconciler {
    type Facts = Facts;
    type Step = Step;

    const KIND: &'static str = "storage-tasks";
    /// Of these, as many as may take hours leave some for the others.
    const AT_ONCE: usize = 2 * (COPIES + SWEEPS);
    const RETRY: Retry = Retry { first: Duration::from_secs(1), longest: Duration::from_secs(10) };

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    fn subjects(&self) -> Vec<Subject> {
        [self.list.clone()].into_iter().chain(self.taken.all()).collect()
    }

    fn concerns(&self, changed: &Subject, _view: &ClusterView) -> bool {
        matches!(changed, Subject::Primary)
    }

    async fn observe(&self, subject: &Subject, freshness: Freshness) -> Result<Facts, StepError> {
        if freshness == Freshness::Confirmed {
            self.cluster.catch_up_with_everybody().await?;
        }
        let view = self.cluster.view();
        if !self.cluster.is_primary(&view) {
            self.taken.leave_all();
            return Ok(Facts::Nothing);
        }
        let Subject::Task(id) = subject else { return Ok(Facts::List(self.open(&view).await?)) };
        if !self.taken.goes(*id) {
            return Ok(Facts::Nothing);
        }
        let read = task::read(&*self.cluster.store, *id).await?;
        let Some(seen) = read.filter(|seen| !seen.task.is_over()) else { return Ok(Facts::Nothing) };
        let is_a_nodes = seen.task.command.is_of_a_device();
        if is_a_nodes && self.nobodys(&view, std::slice::from_ref(&seen)).await?.is_none() {
            return Ok(Facts::Nothing);
        }
        let observed = match self.look(&view, &seen.task).await {
            Ok(observed) => Observed { refused: self.answers(&seen), ..observed },
            Err(observe::Error::Store(error)) => return Err(error.into()),
            Err(observe::Error::Ceph(CephError::Refused { doing, why })) => {
                Observed { impossible: Some(format!("Ceph refused {doing}: {why}")), ..Observed::default() }
            }
            Err(observe::Error::Ceph(error)) => return Err(self.again(&seen, &error).await),
        };
        let changer = self.changer(&seen);
        Ok(Facts::Task(Box::new((seen, Observed { changer, ..observed }))))
    }

    fn plan(&self, _subject: &Subject, facts: &mut Facts) -> Plan<Step> {
        let next = match facts {
            Facts::Task(task) => Next::Do(plan(&task.0.task, &task.1)),
            Facts::Nothing | Facts::List(_) => Next::Settled,
        };
        Plan { next, why: String::new() }
    }

    /// Who may go now is looked at; when a task is over, others may.
    async fn rest(&self, subject: &Subject, facts: &Facts, _settled: bool) -> Option<Instant> {
        let Some(poker) = self.poker.get() else { return Some(Instant::now() + Self::RETRY.first) };
        match (facts, subject) {
            (Facts::List(open), _) => {
                for task in self.taken.take_up(&self.cluster.view(), open) {
                    poker.poke(task);
                }
            }
            (Facts::Nothing, Subject::Task(_)) => poker.poke(self.list.clone()),
            _ => {}
        }
        None
    }

    async fn turns(&self, _subject: &Subject, step: &Step) -> Option<Arc<Semaphore>> {
        match step {
            Step::Change(CephChange::CopyImage { .. }) => Some(Arc::clone(&self.copies)),
            Step::Change(change) if change.is_long() => Some(Arc::clone(&self.sweeps)),
            _ => None,
        }
    }

    /// A VM that was defined a moment ago keeps its volume.
    fn freshness(&self, step: &Step) -> Freshness {
        match step {
            Step::Begin | Step::Retire(_) | Step::Change(_) | Step::ShutOut(_) | Step::Lift(_) => {
                Freshness::Confirmed
            }
            Step::GoOn(_) | Step::End(..) => Freshness::Known,
        }
    }

    async fn apply(
        &self,
        _subject: &Subject,
        step: &Step,
        facts: &Facts,
        _why: &str,
    ) -> Result<(), StepError> {
        let Facts::Task(task) = facts else { return Ok(()) };
        let (seen, observed) = &**task;
        let (store, me) = (&*self.cluster.store, &self.cluster.me);
        let (id, command, by) = (seen.task.id, &seen.task.command, &seen.task.by);
        let now = self.cluster.machine.unix_s();
        let (state, tree) = match step {
            Step::Retire(client) => return self.retire(seen, client).await,
            Step::Change(change) => return self.change(seen, observed, change).await,
            Step::ShutOut(request) => return self.shut_out(seen, request).await,
            Step::Lift(clients) => return self.lift(seen, clients).await,
            Step::GoOn(why) => {
                task::goes_on(store, seen, why, me).await?;
                return Ok(());
            }
            Step::Begin => {
                let running = TaskState::Running { node: me.to_string(), since_unix_s: now };
                store.commit(task::move_on(seen, running, me)).await?;
                info!("task {id} of {by} begins: {command}");
                return Ok(());
            }
            Step::End(Ok(()), tree) => (TaskState::Done { at_unix_s: now }, tree),
            Step::End(Err(why), tree) => {
                let refused = matches!(seen.task.state, TaskState::Waiting);
                (TaskState::Failed { at_unix_s: now, why: why.clone(), refused }, tree)
            }
        };
        let found = observed.found.clone();
        task::end(store, seen, (state, found), tree, me).await?;
        self.taken.is_over(id);
        match step {
            Step::End(Err(why), _) => warn!("task {id} of {by} has failed: {command}: {why}"),
            _ => info!("task {id} of {by} is done: {command}"),
        }
        Ok(())
    }

    /// The node's own status says other things; a task says by itself what it waits for.
    fn speaks(&self, _subject: &Subject) -> bool {
        false
    }
}
