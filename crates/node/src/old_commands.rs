//! Answers what clients of the 0.5 generation write to `/cmd/domains` and `/cmd/ceph`: each command becomes a task (`reconcile::storage_tasks`), and
//! its outcome the answer. Where nothing serves it, it is answered with a failure at once, so that its client says so instead of waiting for
//! nothing.
//!
//! A client waits half a second, then waits for a read lock, then takes what it finds for the answer. So the write lock comes first, and
//! is held until every such client had time to read. What was written before this began, or while the connection was lost, is left as it
//! is: nobody waits for it, and it may ask for something that is no longer wanted.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::model::{StorageCommand, ceph::PoolName, task::TaskState};
use pvc_host::machine::Machine;
use pvc_process::JoinSet;
use pvc_store::{
    CommitError, Store, Watch, WatchEvent,
    lock::{Kind, Lock},
    schema::{
        ceph,
        cmd::{self, Pipeline},
        task,
    },
};
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::reconcile::primary::PrimaryService;

/// How long the lock is waited for. By then the client that wrote the command has long given up.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
/// How long a task may take. Its client waits as long for its turn to read; what is not done by then is answered as failed, and goes on.
const DONE_WITHIN: Duration = Duration::from_mins(5);
/// How long an answer is kept under the lock, as the daemons of that generation did.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// Who asks for such a task.
const ASKED_BY: &str = "a client of the 0.5 generation";

/// The service, which runs on the primary coordinator.
pub(crate) struct OldCommands {
    server: Server,
    running: Mutex<Option<JoinSet<()>>>,
}

impl OldCommands {
    /// On a node that manages storage, or not.
    pub(crate) fn new(store: Arc<dyn Store>, machine: Arc<dyn Machine>, has_storage: bool) -> Self {
        Self { server: Server { store, machine, has_storage }, running: Mutex::default() }
    }

    fn is_running(&self, tasks: Option<JoinSet<()>>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
    }
}

#[async_trait]
impl PrimaryService for OldCommands {
    fn name(&self) -> &'static str {
        "old clients' commands"
    }

    async fn prepare(&self) -> Result<(), String> {
        Ok(())
    }

    async fn start(&self) -> Result<(), String> {
        let mut tasks = JoinSet::new();
        for key in [cmd::DOMAINS, cmd::CEPH] {
            tasks.spawn(self.server.clone().serve(key, self.server.store.watch(key)));
        }
        self.is_running(Some(tasks));
        Ok(())
    }

    async fn stop(&self) -> Result<(), String> {
        self.is_running(None);
        Ok(())
    }
}

#[derive(Clone)]
struct Server {
    store: Arc<dyn Store>,
    machine: Arc<dyn Machine>,
    has_storage: bool,
}

impl Server {
    async fn serve(self, key: &'static str, mut changes: Watch) {
        while let Some(event) = changes.recv().await {
            // The lock's own keys are below.
            if event == WatchEvent::Changed(key.to_owned())
                && matches!(self.asked(key).await, Ok(Pipeline::Asked { .. }))
            {
                self.answer(key).await;
            }
        }
    }

    async fn asked(&self, key: &str) -> Result<Pipeline, String> {
        let value = self.store.get(key).await.map_err(|error| error.to_string())?;
        Ok(cmd::decode(value.as_ref()))
    }

    async fn answer(&self, key: &str) {
        let lock = match Lock::acquire(Arc::clone(&self.store), key, Kind::Write, LOCK_WITHIN).await {
            Ok(lock) => lock,
            Err(error) => return warn!("a command in {key} is not answered: {error}"),
        };
        match self.carry_out(key).await {
            Ok(true) => sleep(READ_WITHIN).await,
            // Its client has changed it meanwhile, which is signalled again.
            Ok(false) => {}
            Err(error) => warn!("a command in {key} is not answered: {error}"),
        }
        lock.release().await;
    }

    /// Does what is asked now, and says what came of it; false if nothing is asked any more.
    async fn carry_out(&self, key: &str) -> Result<bool, String> {
        let Pipeline::Asked { line, command, version } = self.asked(key).await? else { return Ok(false) };
        let command = match command {
            Ok(command) => Ok(command),
            Err(error) => self.renamed_snapshot(&line).await.ok_or_else(|| error.to_string()),
        };
        let outcome = match command {
            Ok(command) => self.outcome(&command).await,
            Err(why) => Err(why),
        };
        if let Err(why) = &outcome {
            warn!("the command in {key} is answered with a failure: {why}: {line}");
        }
        match self.store.commit(cmd::answer(key, &line, outcome.is_ok(), version)).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What came of a command as a task.
    async fn outcome(&self, command: &StorageCommand) -> Result<(), String> {
        if !self.has_storage {
            return Err(
                "the primary coordinator does not manage storage (functions.enable_storage)".to_owned()
            );
        }
        let (store, now) = (&*self.store, self.machine.unix_s());
        let id = task::ask(store, command, false, ASKED_BY, now).await.map_err(|error| error.to_string())?;
        let over = async {
            let mut changes = self.store.watch(&task::path(id));
            loop {
                match task::read(store, id).await {
                    Ok(Some(seen)) => match seen.task.state {
                        TaskState::Done { .. } => return Ok(()),
                        TaskState::Failed { why, .. } => return Err(why),
                        TaskState::Waiting | TaskState::Running { .. } => {}
                    },
                    Ok(None) => return Err(format!("somebody has deleted task {id}")),
                    // It is read again when the watch is.
                    Err(_) => {}
                }
                if changes.recv().await.is_none() {
                    return Err("this daemon stops".to_owned());
                }
            }
        };
        let late = |_| Err(format!("task {id} is not done within {} s, and goes on", DONE_WITHIN.as_secs()));
        timeout(DONE_WITHIN, over).await.unwrap_or_else(late)
    }

    /// An old client names a snapshot that it renames by its pool alone: it is that of the one volume which has such a snapshot.
    async fn renamed_snapshot(&self, line: &str) -> Option<StorageCommand> {
        let arguments: Vec<&str> = line.strip_prefix("snapshot_rename ")?.split(',').collect();
        let [pool, snapshot, new] = arguments[..] else { return None };
        let pool: PoolName = pool.parse().ok()?;
        let parent = format!("{}/{pool}", ceph::SNAPSHOTS);
        let volumes = self.store.children(&parent).await.ok()??;
        let paths: Vec<String> = volumes.iter().map(|volume| format!("{parent}/{volume}")).collect();
        let all = self.store.children_many(&paths).await.ok()?;
        let has = |names: &Option<Vec<String>>| names.iter().flatten().any(|name| name == snapshot);
        let mut with = volumes.iter().zip(&all).filter(|(_, names)| has(names)).map(|(volume, _)| volume);
        let (volume, None) = (with.next()?, with.next()) else { return None };
        format!("snapshot_rename {pool},{volume},{snapshot},{new}").parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use pvc_host::{ceph::fake::FakeCeph, machine::FakeMachine};
    use pvc_store::{Op, Transaction, memory::MemoryTree, schema::root};
    use tokio::time::timeout;

    use super::*;
    use crate::reconcile::{network_world::NetworkWorld, storage_tasks::StorageTasks};

    async fn write(store: &dyn Store, key: &str, line: &str) {
        let op = Op::Set { path: key.into(), data: line.into(), version: None };
        store.commit(Transaction { ops: vec![op] }).await.unwrap();
    }

    /// As a client of that generation does it.
    async fn ask(store: &Arc<dyn Store>, key: &str, line: &str) -> String {
        write(&**store, key, line).await;
        sleep(Duration::from_millis(500)).await;
        let within = Duration::from_secs(10);
        let lock = Lock::acquire(Arc::clone(store), key, Kind::Read, within).await.unwrap();
        let answer = store.get(key).await.unwrap().unwrap().data;
        lock.release().await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_nothing_serves_is_refused_at_once_while_it_runs_and_what_is_stale_stays() {
        let tree = MemoryTree::new();
        let (store, client): (Arc<dyn Store>, Arc<dyn Store>) = (tree.client(), tree.client());
        root::init(&*client).await.unwrap();
        write(&*client, cmd::CEPH, "osd_remove 3").await;
        let commands = OldCommands::new(store, Arc::new(FakeMachine::default()), false);
        commands.start().await.unwrap();
        sleep(Duration::from_secs(3)).await;
        assert_eq!(client.get(cmd::CEPH).await.unwrap().unwrap().data, b"osd_remove 3"[..], "stale");

        for (key, line) in [
            (cmd::CEPH, "osd_add hv1,/dev/sdb,1.0"),
            (cmd::CEPH, "no such thing"),
            (cmd::DOMAINS, "flush_locks 11111111-0000-4000-8000-000000000001"),
        ] {
            let answer = timeout(Duration::from_secs(2), ask(&client, key, line)).await.expect("at once");
            assert_eq!(answer, format!("failure-{line}"));
            write(&*client, key, "").await;
        }

        commands.stop().await.unwrap();
        let line = "osd_out 1";
        assert_eq!(ask(&client, cmd::CEPH, line).await, line, "it has stopped");
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_client_has_its_commands_done_and_is_told_what_failed() {
        let world = NetworkWorld::new().await;
        let ceph = FakeCeph::new();
        ceph.has_room();
        let _tasks = StorageTasks::start(world.cluster.clone(), ceph.clone());
        world.primary("hv1").await;
        let (store, client): (Arc<dyn Store>, Arc<dyn Store>) = (world.store.clone(), world.tree.client());
        let commands = OldCommands::new(store, Arc::new(FakeMachine::default()), true);
        commands.start().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        for (line, done) in [
            ("pool_add vms,8", true),
            ("volume_add vms,a,1048576B", true),
            ("volume_add vms,a,1048576B", false),
            ("snapshot_add vms,a,daily", true),
            // Without the volume's name.
            ("snapshot_rename vms,daily,weekly", true),
            ("snapshot_rename vms,daily,weekly", false),
            ("volume_remove vms,a", false),
            ("snapshot_remove vms,a,weekly", true),
            ("volume_remove vms,a", true),
            ("osd_in 7", false),
        ] {
            let answer = timeout(Duration::from_secs(10), ask(&client, cmd::CEPH, line)).await.expect("soon");
            assert_eq!(answer, format!("{}-{line}", if done { "success" } else { "failure" }));
            write(&*client, cmd::CEPH, "").await;
        }
    }
}
