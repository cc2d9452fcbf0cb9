//! Makes and removes the OSDs of this node, as tasks ask for it: one at a time, the oldest first. Whichever node is primary. What is removed has a row of its
//! own: its data may leave for days, and a new OSD may be what it needs. The primary removes OSDs of nodes that are dead, if it is forced to.
//!
//! Decides nothing itself (see `pvc_core::plan::storage::osd`). A task that a daemon of this node has begun which died is carried on from what Ceph and the node have.

mod definitions;
mod look;
mod mine;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::{
    model::{
        ClusterView, StorageCommand, Subject,
        ceph::OsdId,
        osd::{OsdUuid, TasksOsd},
        storage::{CephChange, TreeChange},
        storage_command::Device,
        task::{Task, TaskId, TaskState},
    },
    plan::{
        Next, Plan,
        storage::osd::{self, Facts, Step},
    },
};
use pvc_host::{
    ceph::{CephAdmin, CephError, OnlyIf, Progress},
    osds::{MayHold, OsdError, OsdHost},
    warrant::Void,
};
use pvc_store::{
    WatchEvent,
    schema::task::{self, Seen},
};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    controller::{Cluster, Controller, Freshness, Reconciler, Retry, StepError},
    vm_clients::AsDecided,
};

use self::mine::Mine;

/// How often it is tried to write a device.
const ATTEMPTS: u32 = 3;

/// Carries them out. It ends when this is dropped.
pub struct OsdTasks {
    _rows: [Controller<OsdReconciler>; 2],
}

impl OsdTasks {
    /// Starts it.
    pub fn start(cluster: Cluster, ceph: Arc<dyn CephAdmin>, host: Arc<dyn OsdHost>) -> Self {
        let row = |removes| {
            let (cluster, ceph, host) = (cluster.clone(), Arc::clone(&ceph), Arc::clone(&host));
            let mut changes = cluster.store.watch(task::ROOT);
            let subject = Subject::Node(cluster.me.clone());
            let reconciler =
                OsdReconciler { removes, subject, cluster, ceph, host, memory: Mutex::default() };
            let mut controller = Controller::start(Arc::new(reconciler));
            let poker = controller.poker();
            controller.spawn(async move {
                while let Some(event) = changes.recv().await {
                    // What is written at a task is no reason to try again at once: see `StorageTasks`.
                    if !matches!(&event, WatchEvent::Changed(path) if path != task::ROOT) {
                        poker.poke_all();
                    }
                }
            });
            controller
        };
        Self { _rows: [false, true].map(row) }
    }
}

struct OsdReconciler {
    /// Which of the two rows.
    removes: bool,
    subject: Subject,
    cluster: Cluster,
    ceph: Arc<dyn CephAdmin>,
    host: Arc<dyn OsdHost>,
    memory: Mutex<Memory>,
}

/// What this daemon knows of the task at hand. All of it may be lost: what is not known to be whole is made anew.
#[derive(Default)]
struct Memory {
    of: Option<TaskId>,
    is_written: bool,
    started: Option<Instant>,
    /// Since when Ceph has not heard of it any more.
    silent: Option<Instant>,
    /// How often it was tried to write it, to look at its device, to take away what is left of it; and why it is tried no more.
    attempts: u32,
    looks: u32,
    removals: u32,
    given_up: Option<String>,
    /// The most placement groups that the OSD was seen with.
    most_pgs: u64,
}

/// `None`: there is nothing to do.
type Found = Option<(Mine, Facts)>;

impl OsdReconciler {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says at the task what keeps it from going on, and how far it is.
    async fn tell(&self, seen: &Seen, trouble: &str, progress: Option<u8>) -> Result<(), StepError> {
        let task = &seen.task;
        if task.trouble.as_deref() == Some(trouble) && task.progress == progress {
            return Ok(());
        }
        let told = Task { trouble: Some(trouble.to_owned()), progress, ..task.clone() };
        task::by_node(&*self.cluster.store, seen, told, &[]).await?;
        Ok(())
    }

    /// What failed may be tried again.
    async fn again(&self, seen: &Seen, why: String) -> StepError {
        match self.tell(seen, &why, seen.task.progress).await {
            Ok(()) => StepError::Failed(why),
            Err(error) => error,
        }
    }

    async fn change(&self, seen: &Seen, change: CephChange) -> Result<(), StepError> {
        let warrant = AsDecided { store: &*self.cluster.store, checks: task::as_seen(seen) };
        let only_if = OnlyIf { warrant: &warrant, image: None };
        match self.ceph.change(&change, only_if, &Progress::default()).await {
            Ok(()) => Ok(()),
            Err(CephError::Void(Void::Overtaken(what))) => Err(StepError::Conflict(what)),
            Err(error) => Err(self.again(seen, error.to_string()).await),
        }
    }

    /// What is done on this node; what is refused ends the task, if it says so.
    async fn here(
        &self,
        seen: &Seen,
        done: impl Future<Output = Result<(), OsdError>> + Send,
    ) -> Result<(), StepError> {
        match done.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.again(seen, error.to_string()).await),
        }
    }

    /// Records at the task which OSD is its own.
    async fn own(&self, seen: &Seen, own: TasksOsd, state: Option<TaskState>) -> Result<Seen, StepError> {
        let state = state.unwrap_or_else(|| seen.task.state.clone());
        let task = Task { osd: Some(own), state, trouble: None, ..seen.task.clone() };
        Ok(task::by_node(&*self.cluster.store, seen, task, &[]).await?)
    }

    fn running(&self) -> TaskState {
        TaskState::Running { node: self.cluster.me.to_string(), since_unix_s: self.cluster.machine.unix_s() }
    }

    async fn begin(&self, seen: &Seen, facts: &Facts) -> Result<(), StepError> {
        let uuid = match &seen.task.command {
            StorageCommand::OsdRemove { id } => {
                facts.osds.all.get(id).map(|osd| (osd.uuid.clone(), Some(id.0)))
            }
            _ => Some((OsdUuid::of_task(&seen.task.mark()), None)),
        };
        let Some((uuid, id)) = uuid else { return Err(StepError::Conflict("the OSD".to_owned())) };
        self.own(seen, TasksOsd { uuid, id, writes: false, device: None }, Some(self.running())).await?;
        info!("task {} of {} begins: {}", seen.task.id, seen.task.by, seen.task.command);
        Ok(())
    }

    async fn write(&self, seen: &Seen, facts: &Facts, device: &Device, id: OsdId) -> Result<(), StepError> {
        let (Some(own), Some(there)) = (&facts.own, &facts.device) else {
            return Err(StepError::Conflict(device.to_string()));
        };
        let key = match self.ceph.osd_key().await {
            Ok(key) => key,
            Err(error) => return Err(self.again(seen, error.to_string()).await),
        };
        if self.is_tried_out(device) {
            return Ok(());
        }
        let writes = TasksOsd { writes: true, device: Some(there.identity.clone()), ..own.clone() };
        let seen = self.own(seen, writes, None).await?;
        let holds = match own.writes {
            _ if seen.task.force => MayHold::Anything,
            true => MayHold::Own,
            false => MayHold::Nothing,
        };
        let Err(error) = self.host.write(device, &there.identity, holds, id, &key).await else {
            self.memory().is_written = true;
            return Ok(());
        };
        if let OsdError::NotBlank { .. } | OsdError::Another(_) = error {
            self.memory().given_up = Some(error.to_string());
            let seen = self.own(&seen, own.clone(), None).await?;
            return Err(self.again(&seen, error.to_string()).await);
        }
        {
            let mut memory = self.memory();
            memory.is_written = false;
            if memory.attempts >= ATTEMPTS {
                memory.given_up = Some(error.to_string());
            }
        }
        Err(self.again(&seen, error.to_string()).await)
    }

    /// It was written often enough. That nothing has failed, and there is no OSD all the same, is as bad.
    fn is_tried_out(&self, device: &Device) -> bool {
        let mut memory = self.memory();
        memory.attempts += 1;
        if memory.attempts > ATTEMPTS {
            memory.given_up = Some(format!(
                "ceph-volume says that it has made {device} an OSD, and Ceph has none: /var/log/ceph/ceph-volume.log may say why"
            ));
        }
        memory.given_up.is_some()
    }

    /// What is left of an OSD that was not finished; only what this task has written.
    async fn take_away(&self, seen: &Seen, facts: &Facts, id: OsdId) -> Result<(), StepError> {
        let StorageCommand::OsdAdd { device, .. } = &seen.task.command else { return Ok(()) };
        if let Some(own) = facts.own.as_ref().filter(|own| own.writes) {
            // Ceph may have come to hear of it since it was looked at: then it stays.
            if facts.local.is_some() {
                self.here(seen, self.host.stop(id)).await?;
                let osds = self.ceph.osd_map().await.map_err(|error| StepError::Failed(error.to_string()))?;
                if osds.all.get(&id).is_some_and(|osd| osd.was_up) {
                    return Err(StepError::Conflict(format!("OSD {id}")));
                }
            }
            // A VM has been given the device meanwhile: nothing on it is touched.
            let there = facts.device.as_ref().filter(|_| facts.disk_of.is_none());
            let there = there.filter(|_| own.may_touch(facts.device.as_ref()));
            let is_in_vain = self.memory().removals >= ATTEMPTS;
            let there = there.filter(|_| !is_in_vain).map(|there| (device, there.identity.as_str()));
            if let Err(error) = self.host.take_away(id, there).await {
                {
                    let mut memory = self.memory();
                    memory.removals += 1;
                    if memory.removals >= ATTEMPTS {
                        let left = || format!("{device} could not be cleared again: {error}");
                        memory.given_up.get_or_insert_with(left);
                    }
                }
                return Err(self.again(seen, error.to_string()).await);
            }
        }
        if facts.osds.all.get(&id).is_some_and(|osd| !osd.is_destroyed) {
            self.change(seen, CephChange::DestroyOsd { osd: id }).await?;
        }
        let mut memory = self.memory();
        (memory.is_written, memory.started) = (false, None);
        Ok(())
    }

    async fn clear(&self, seen: &Seen, own: &TasksOsd, id: OsdId) -> Result<(), StepError> {
        let Err(error) = self.host.clear(id, &own.uuid, true).await else { return Ok(()) };
        {
            let mut memory = self.memory();
            memory.attempts += 1;
            memory.given_up = (memory.attempts >= ATTEMPTS).then(|| error.to_string());
        }
        Err(self.again(seen, error.to_string()).await)
    }

    async fn end(
        &self,
        seen: &Seen,
        outcome: Result<(), String>,
        tree: &[TreeChange],
    ) -> Result<(), StepError> {
        let (Task { id, by, command, .. }, now) = (&seen.task, self.cluster.machine.unix_s());
        let refused = matches!(seen.task.state, TaskState::Waiting);
        let state = match &outcome {
            Ok(()) => TaskState::Done { at_unix_s: now },
            Err(why) => TaskState::Failed { at_unix_s: now, why: why.clone(), refused },
        };
        let over = Task { state, trouble: None, progress: None, ..seen.task.clone() };
        task::by_node(&*self.cluster.store, seen, over, tree).await?;
        match outcome {
            Ok(()) => info!("task {id} of {by} is done: {command}"),
            Err(why) => warn!("task {id} of {by} has failed: {command}: {why}"),
        }
        Ok(())
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

#[async_trait]
impl Reconciler for OsdReconciler {
    type Facts = Found;
    type Step = Step;

    const KIND: &'static str = "osd-tasks";
    const RETRY: Retry = Retry { first: Duration::from_secs(2), longest: Duration::from_secs(10) };

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![self.subject.clone()]
    }

    /// The primary has what a dead node leaves.
    fn concerns(&self, changed: &Subject, _view: &ClusterView) -> bool {
        self.removes && matches!(changed, Subject::Primary | Subject::Node(_))
    }

    async fn observe(&self, _subject: &Subject, _freshness: Freshness) -> Result<Found, StepError> {
        let Some(mine) = self.mine().await? else { return Ok(None) };
        let task = &mine.seen.task;
        let found = match &mine.to_end {
            None => self.look(task).await,
            // What it names is on another node.
            Some(_) => {
                let osds = self.ceph.osd_map().await.map_err(text);
                osds.map(|osds| Facts { own: task.osd.clone(), osds, ..Facts::default() })
            }
        };
        match found {
            Ok(facts) => Ok(Some((mine, facts))),
            Err(why) => Err(self.again(&mine.seen, why).await),
        }
    }

    fn plan(&self, _subject: &Subject, found: &mut Found) -> Plan<Step> {
        let step = found.as_ref().and_then(|(mine, facts)| {
            let Task { command, force, .. } = &mine.seen.task;
            let own = facts.own.as_ref();
            match (command, &mine.to_end) {
                (StorageCommand::OsdAdd { device, weight, .. }, None) => {
                    Some(osd::add(device, *weight, *force, facts))
                }
                (StorageCommand::OsdAdd { .. }, Some(why)) => {
                    Some(osd::leave_add(why, own, &facts.osds, mine.is_others_number))
                }
                (StorageCommand::OsdRemove { id }, None) => Some(osd::remove(*id, facts)),
                (StorageCommand::OsdRemove { id }, Some(why)) => {
                    Some(osd::leave_removal(why, *id, own, &facts.osds))
                }
                _ => None,
            }
        });
        Plan { next: step.map_or(Next::Settled, Next::Do), why: String::new() }
    }

    /// Each is written only if the task is as it was seen, and Ceph and the device are asked anew before each.
    fn freshness(&self, _step: &Step) -> Freshness {
        Freshness::Known
    }

    async fn apply(
        &self,
        _subject: &Subject,
        step: &Step,
        found: &Found,
        _why: &str,
    ) -> Result<(), StepError> {
        let Some((Mine { seen, to_end, .. }, facts)) = found else { return Ok(()) };
        let own = facts.own.as_ref();
        if to_end.is_none() && seen.task.is_to_end().is_some() {
            return self.goes_on(seen).await;
        }
        if let (TaskState::Running { node, .. }, Some(own)) = (&seen.task.state, own)
            && *node != self.cluster.me.as_str()
        {
            // Planned anew as this node's.
            self.own(seen, own.clone(), Some(self.running())).await?;
            return Err(StepError::Conflict(seen.task.id.to_string()));
        }
        match (step, &seen.task.command, own) {
            (Step::Begin, ..) => self.begin(seen, facts).await,
            (Step::TakeNumber, _, Some(own)) => match self.ceph.take_osd_number(&own.uuid).await {
                Ok(()) => Ok(()),
                Err(error) => Err(self.again(seen, error.to_string()).await),
            },
            (Step::Number(id), _, Some(own)) => {
                self.own(seen, TasksOsd { id: Some(id.0), ..own.clone() }, None).await.map(drop)
            }
            (Step::Write(id), StorageCommand::OsdAdd { device, .. }, _) => {
                self.write(seen, facts, device, *id).await
            }
            (Step::TakeAway(id), ..) => self.take_away(seen, facts, *id).await,
            (Step::Start(id), ..) => {
                self.here(seen, self.host.start(*id)).await?;
                self.memory().started = Some(Instant::now());
                Ok(())
            }
            (Step::Weigh(osd, weight), ..) => {
                self.change(seen, CephChange::WeighOsd { osd: *osd, weight: *weight }).await
            }
            (Step::Out(osd), ..) => self.change(seen, CephChange::UseOsd { osd: *osd, is_in: false }).await,
            (Step::IsOut, _, Some(own)) => {
                self.own(seen, TasksOsd { writes: true, ..own.clone() }, None).await.map(drop)
            }
            (Step::Stop(id), ..) => self.here(seen, self.host.stop(*id)).await,
            (Step::Purge(osd), command, _) => {
                let was_up = !matches!(command, StorageCommand::OsdAdd { .. });
                self.change(seen, CephChange::PurgeOsd { osd: *osd, was_up }).await
            }
            (Step::Clear(id), _, Some(own)) => self.clear(seen, own, *id).await,
            (Step::Forget(id), _, Some(own)) => self.here(seen, self.host.clear(*id, &own.uuid, false)).await,
            (Step::Left(id, why), ..) => {
                let why = format!("OSD {id} is removed; its device is as it was: {why}");
                self.end(seen, Err(why), &[TreeChange::Osd(*id, None)]).await
            }
            (Step::Wait(why), command, _) => {
                let most = self.memory().most_pgs;
                let now = match command {
                    StorageCommand::OsdRemove { id } => facts.osds.all.get(id).map(|osd| osd.pgs),
                    _ => None,
                };
                self.tell(seen, why, now.map(|now| osd::percent(most, now))).await?;
                Err(StepError::Later(why.clone()))
            }
            (Step::Done(id, told), command, _) => {
                let tree = match (told, command) {
                    (Some(true), StorageCommand::OsdAdd { node, device, .. }) => {
                        vec![TreeChange::Osd(*id, Some((node.clone(), device.clone())))]
                    }
                    (Some(false), _) => vec![TreeChange::Osd(*id, None)],
                    _ => Vec::new(),
                };
                self.end(seen, Ok(()), &tree).await
            }
            (Step::GiveUp(why), ..) => {
                self.memory().given_up = Some(why.clone());
                Ok(())
            }
            (Step::Fail(why), ..) => self.end(seen, Err(why.clone()), &[]).await,
            _ => Ok(()),
        }
    }

    /// The node's own status says other things; a task says by itself what it waits for.
    fn speaks(&self, _subject: &Subject) -> bool {
        false
    }
}
