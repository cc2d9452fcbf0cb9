//! While this node is primary: carries out what operators have asked of storage, one task at a time, the oldest first, but what is asked of OSDs before all
//! else.
//!
//! Decides nothing itself (see `pvc_core::plan::storage`). A task that another primary has begun is carried on from what Ceph has.

mod observe;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::{
    model::{
        StorageCommand, Subject,
        ceph::ClientAddress,
        storage::CephChange,
        task::{TaskId, TaskState},
    },
    plan::{
        Next, Plan,
        storage::{Facts as Observed, Step, plan},
        storage_fence::Request,
    },
};
use pvc_host::{
    ceph::{Ceph, CephAdmin, CephError, OnlyIf},
    storage_fence::CephFence,
    warrant::{Void, Warrant as _},
};
use pvc_store::schema::{
    self,
    task::{self, Seen},
};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::{
    controller::{Cluster, Controller, Freshness, Reconciler, Retry, StepError},
    vm_clients::{self, AsDecided, decided_from, words_as_seen},
};

use self::observe::may_execute_on;

/// What another primary has begun it may still be doing, and Ceph refuses it a second time: for so long that is no answer.
const BEGUN_ELSEWHERE: Duration = Duration::from_mins(1);

/// Carries them out. It ends when this is dropped.
pub struct StorageTasks {
    _controller: Controller<TaskReconciler>,
}

impl StorageTasks {
    /// Starts it; nothing is done until this node is primary.
    pub fn start(cluster: Cluster, ceph: Arc<dyn CephAdmin>) -> Self {
        let mut changes = cluster.store.watch(task::ROOT);
        let subject = Subject::Node(cluster.me.clone());
        let machine = Arc::clone(&cluster.machine);
        let fence = CephFence::new(Arc::clone(&ceph) as Arc<dyn Ceph>, move || machine.unix_s());
        let reconciler = TaskReconciler { subject, cluster, ceph, fence, refusal: Mutex::default() };
        let mut controller = Controller::start(Arc::new(reconciler));
        let poker = controller.poker();
        controller.spawn(async move {
            while changes.recv().await.is_some() {
                poker.poke_all();
            }
        });
        Self { _controller: controller }
    }
}

struct TaskReconciler {
    subject: Subject,
    cluster: Cluster,
    ceph: Arc<dyn CephAdmin>,
    fence: CephFence,
    /// What Ceph has refused last.
    refusal: Mutex<Option<Refusal>>,
}

#[derive(Clone)]
struct Refusal {
    task: TaskId,
    change: CephChange,
    why: String,
    /// Since when it refuses this.
    since: Instant,
}

/// What is planned from; `None`: there is nothing to do, or another node is primary.
type Facts = Option<(Seen, Observed)>;

impl TaskReconciler {
    fn refusal(&self) -> Option<Refusal> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_refused(&self, refusal: Option<Refusal>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }

    /// What Ceph has refused of this task, if that is its answer.
    fn answer(&self, seen: &Seen) -> Option<(CephChange, String)> {
        let Refusal { task, change, why, since } = self.refusal()?;
        let begun_here =
            matches!(&seen.task.state, TaskState::Running { node, .. } if *node == self.cluster.me.as_str());
        let counts = begun_here || since.elapsed() >= BEGUN_ELSEWHERE;
        (task == seen.task.id && counts).then_some((change, why))
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

    async fn change(&self, seen: &Seen, observed: &Observed, change: &CephChange) -> Result<(), StepError> {
        let warrant =
            AsDecided { store: &*self.cluster.store, checks: task::unchanged(seen, &self.cluster.me) };
        let image = observed.image.as_ref().and_then(|image| image.id.as_deref());
        match self.ceph.change(change, OnlyIf { warrant: &warrant, image }).await {
            Err(CephError::Void(Void::Overtaken(what))) => Err(StepError::Conflict(what)),
            Ok(()) => {
                debug!("storage: {change}");
                self.is_refused(None);
                Ok(())
            }
            Err(CephError::Refused { why, .. }) => {
                let task = seen.task.id;
                let before = self.refusal().filter(|before| before.task == task && before.change == *change);
                let since = before.map_or_else(Instant::now, |before| before.since);
                self.is_refused(Some(Refusal { task, change: change.clone(), why: why.clone(), since }));
                match self.answer(seen) {
                    // Decided anew from what Ceph has now.
                    Some(_) => Err(StepError::Conflict(change.to_string())),
                    None => Err(StepError::Failed(why)),
                }
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
    const RETRY: Retry = Retry { first: Duration::from_secs(1), longest: Duration::from_secs(10) };

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![self.subject.clone()]
    }

    fn concerns(&self, changed: &Subject, _view: &pvc_core::model::ClusterView) -> bool {
        matches!(changed, Subject::Primary)
    }

    async fn observe(&self, _subject: &Subject, freshness: Freshness) -> Result<Facts, StepError> {
        if freshness == Freshness::Confirmed {
            self.cluster.catch_up_with_everybody().await?;
        }
        let view = self.cluster.view();
        if !self.cluster.is_primary(&view) {
            return Ok(None);
        }
        let (tasks, problems) = task::read_all(&*self.cluster.store).await?;
        if let Some(first) = problems.first() {
            warn!("{} tasks cannot be read and are left alone, {} first", problems.len(), first.key);
        }
        let waiting = || tasks.iter().filter(|seen| !seen.task.is_over());
        // The monitors do them without the OSDs, and one of them may be what lets the others go on.
        let first = waiting().find(|seen| seen.task.command.is_of_osds()).or_else(|| waiting().next());
        let Some(seen) = first.cloned() else { return Ok(None) };
        match self.look(&view, &seen.task.command).await {
            Ok(observed) => {
                let refused = self.answer(&seen);
                Ok(Some((seen, Observed { refused, ..observed })))
            }
            Err(observe::Error::Store(error)) => Err(error.into()),
            Err(observe::Error::Ceph(CephError::Refused { doing, why })) => {
                let impossible = Some(format!("Ceph refused {doing}: {why}"));
                Ok(Some((seen, Observed { impossible, ..Observed::default() })))
            }
            Err(observe::Error::Ceph(error)) => Err(self.again(&seen, &error).await),
        }
    }

    fn plan(&self, _subject: &Subject, facts: &mut Facts) -> Plan<Step> {
        let next = match facts {
            Some((seen, observed)) => Next::Do(plan(&seen.task, observed)),
            None => Next::Settled,
        };
        Plan { next, why: String::new() }
    }

    /// A VM that was defined a moment ago keeps its volume.
    fn freshness(&self, step: &Step) -> Freshness {
        match step {
            Step::Begin | Step::Change(_) | Step::ShutOut(_) | Step::Lift(_) => Freshness::Confirmed,
            Step::End(_) => Freshness::Known,
        }
    }

    async fn apply(
        &self,
        _subject: &Subject,
        step: &Step,
        facts: &Facts,
        _why: &str,
    ) -> Result<(), StepError> {
        let Some((seen, observed)) = facts else { return Ok(()) };
        let (store, me) = (&*self.cluster.store, &self.cluster.me);
        let (id, command, by) = (seen.task.id, &seen.task.command, &seen.task.by);
        let now = self.cluster.machine.unix_s();
        let (state, tree) = match step {
            Step::Change(change) => return self.change(seen, observed, change).await,
            Step::ShutOut(request) => return self.shut_out(seen, request).await,
            Step::Lift(clients) => return self.lift(seen, clients).await,
            Step::Begin => {
                let running = TaskState::Running { node: me.to_string(), since_unix_s: now };
                store.commit(task::move_on(seen, running, me)).await?;
                info!("task {id} of {by} begins: {command}");
                return Ok(());
            }
            Step::End(Ok(tree)) => (TaskState::Done { at_unix_s: now }, tree.as_slice()),
            Step::End(Err(why)) => {
                let refused = matches!(seen.task.state, TaskState::Waiting);
                (TaskState::Failed { at_unix_s: now, why: why.clone(), refused }, &[][..])
            }
        };
        let found = observed.found.clone();
        task::end(store, seen, (state, found), tree, me).await?;
        self.is_refused(None);
        match step {
            Step::End(Err(why)) => warn!("task {id} of {by} has failed: {command}: {why}"),
            _ => info!("task {id} of {by} is done: {command}"),
        }
        Ok(())
    }

    /// The node's own status says other things; a task says by itself what it waits for.
    fn speaks(&self, _subject: &Subject) -> bool {
        false
    }
}
