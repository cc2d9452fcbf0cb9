//! Storage, and the tasks that its changes are.

use pvc_core::{
    model::{Problem, StorageCommand, ceph::PoolName, storage_command::Only, task::TaskId},
    text::one_line,
};
use pvc_operate::storage::{self, PoolRow, SnapshotRow, TaskRow, Texts, VolumeRow};
use serde_json::{Value, json};

use super::{Call, Client, Door, Listing, Pending, now_unix_s, pending::Told, whole};
use crate::failure::Failure;

impl Door {
    pub(crate) async fn texts(&self) -> Result<Texts, Failure> {
        match self {
            Self::Direct(cluster) => Ok(storage::texts(cluster).await?),
            Self::Api(api) => api.ask(Call::get(&["storage"])).await,
        }
    }

    pub(crate) async fn pools(&self) -> Result<(Vec<PoolRow>, Vec<Problem>), Failure> {
        match self {
            Self::Direct(cluster) => Ok(storage::pools(cluster).await?),
            Self::Api(api) => Ok(api.ask::<Listing<_>>(whole(&["storage", "pools"])).await?.into()),
        }
    }

    pub(crate) async fn volumes(
        &self,
        pool: Option<&PoolName>,
    ) -> Result<(Vec<VolumeRow>, Vec<Problem>), Failure> {
        match self {
            Self::Direct(cluster) => Ok(storage::volumes(cluster, pool).await?),
            Self::Api(api) => {
                let call = whole(&["storage", "volumes"]).query_if("pool", pool.map(PoolName::as_str));
                Ok(api.ask::<Listing<_>>(call).await?.into())
            }
        }
    }

    pub(crate) async fn snapshots(
        &self,
        pool: Option<&PoolName>,
    ) -> Result<(Vec<SnapshotRow>, Vec<Problem>), Failure> {
        match self {
            Self::Direct(cluster) => Ok(storage::snapshots(cluster, pool).await?),
            Self::Api(api) => {
                let call = whole(&["storage", "snapshots"]).query_if("pool", pool.map(PoolName::as_str));
                Ok(api.ask::<Listing<_>>(call).await?.into())
            }
        }
    }

    /// Asks for a change; answers also which task it is.
    pub(crate) async fn change_storage(
        &self,
        command: &StorageCommand,
        force: bool,
    ) -> Result<(TaskId, Pending), Failure> {
        match self {
            Self::Direct(cluster) => {
                let (task, asked) = storage::ask(cluster, command, force, &operator(), now_unix_s()).await?;
                Ok((task, asked.into()))
            }
            Self::Api(api) => api.task(call(command, force)).await,
        }
    }

    /// The same of the locks of a VM's disks.
    pub(crate) async fn flush_locks(&self, vm: &str) -> Result<(TaskId, Pending), Failure> {
        match self {
            Self::Direct(cluster) => {
                let vm = cluster.find_vm(vm).await?;
                self.change_storage(&StorageCommand::FlushLocks { vm }, false).await
            }
            // As it was named: a token may be good for that name only.
            Self::Api(api) => api.task(Call::post(&["vms", vm, "flush-locks"])).await,
        }
    }

    pub(crate) async fn tasks(&self) -> Result<(Vec<TaskRow>, Vec<Problem>), Failure> {
        match self {
            Self::Direct(cluster) => Ok(storage::tasks(cluster).await?),
            Self::Api(api) => Ok(api.ask::<Listing<_>>(whole(&["tasks"])).await?.into()),
        }
    }

    pub(crate) async fn task(&self, task: TaskId) -> Result<TaskRow, Failure> {
        match self {
            Self::Direct(cluster) => Ok(storage::info(cluster, task).await?),
            Self::Api(api) => api.ask(Call::get(&["tasks", &task.to_string()])).await,
        }
    }

    /// Follows a task.
    pub(crate) async fn follow_task(&self, task: TaskId) -> Result<Pending, Failure> {
        match self {
            Self::Direct(cluster) => Ok(storage::wait(cluster, task).await?.into()),
            Self::Api(_) => Ok(Pending::task(&self.task(task).await?)),
        }
    }

    pub(crate) async fn cancel_task(&self, task: TaskId) -> Result<Pending, Failure> {
        match self {
            Self::Direct(cluster) => {
                Ok(storage::cancel(cluster, task, &operator(), now_unix_s()).await?.into())
            }
            Self::Api(api) => api.pending(Call::delete(&["tasks", &task.to_string()])).await,
        }
    }
}

impl Client {
    /// Asks for a task.
    async fn task(&self, call: Call) -> Result<(TaskId, Pending), Failure> {
        let told: Told = self.ask(call).await?;
        let none = || Failure::Rubbish("the API's answer names no task".to_owned());
        Ok((told.task.ok_or_else(none)?, told.into()))
    }
}

/// The call that asks for a change.
fn call(command: &StorageCommand, force: bool) -> Call {
    use StorageCommand as Ask;
    /// One of them, or `null` for all.
    fn one<T: ToString>(only: &Only<T>) -> Value {
        match only {
            Only::All => Value::Null,
            Only::One(one) => one.to_string().into(),
        }
    }
    let post = |parts: &[&str], body: Value| Call::post(&[&["storage"], parts].concat()).json(&body);
    let patch = |parts: &[&str], body: Value| Call::patch(&[&["storage"], parts].concat()).json(&body);
    let delete = |parts: &[&str]| Call::delete(&[&["storage"], parts].concat());
    let osd = |id: &dyn ToString, state: &str| {
        Call::put(&["storage", "osds", &id.to_string(), "state"]).json(&json!({ "state": state }))
    };
    match command {
        Ask::FlushLocks { vm } => Call::post(&["vms", &vm.to_string(), "flush-locks"]),
        Ask::Locks { pool } => post(&["locks"], json!({ "pool": one(pool) })),
        Ask::FenceList { node } => post(&["shut-out"], json!({ "node": one(node) })),
        Ask::FenceLift { client } => post(&["shut-out", "lift"], json!({ "client": one(client) })),
        Ask::OsdAdd { node, device, weight } => post(
            &["osds"],
            json!({ "node": node, "device": device.to_string(), "weight": weight.value(), "wipe": force }),
        ),
        Ask::OsdRemove { id } => {
            delete(&["osds", &id.to_string()]).query_if("force", force.then_some("true"))
        }
        Ask::OsdIn { id } => osd(id, "in"),
        Ask::OsdOut { id } => osd(id, "out"),
        Ask::OsdSet { flag } => Call::put(&["storage", "flags", flag.as_str()]),
        Ask::OsdUnset { flag } => delete(&["flags", flag.as_str()]),
        Ask::PoolAdd { pool, pgs } => {
            let pgs = pgs.to_string().parse::<u32>().unwrap_or_default();
            post(&["pools"], json!({ "name": pool.as_str(), "pgs": pgs }))
        }
        Ask::PoolRemove { pool } => delete(&["pools", pool.as_str()]),
        Ask::VolumeAdd { pool, volume, size } => post(
            &["volumes"],
            json!({ "pool": pool.as_str(), "name": volume.as_str(), "size": size.to_string() }),
        ),
        Ask::VolumeResize { pool, volume, size } => patch(
            &["volumes", pool.as_str(), volume.as_str()],
            json!({ "size": size.to_string(), "force": force }),
        ),
        Ask::VolumeRename { pool, volume, new } => {
            patch(&["volumes", pool.as_str(), volume.as_str()], json!({ "name": new.as_str() }))
        }
        Ask::VolumeClone { pool, volume, new, snapshot } => post(
            &["volumes", pool.as_str(), volume.as_str(), "clone"],
            json!({ "name": new.as_str(), "snapshot": one(snapshot) }),
        ),
        Ask::VolumeRemove { pool, volume } => delete(&["volumes", pool.as_str(), volume.as_str()]),
        Ask::SnapshotAdd { pool, volume, snapshot } => post(
            &["snapshots"],
            json!({ "pool": pool.as_str(), "volume": volume.as_str(), "snapshot": snapshot.as_str() }),
        ),
        Ask::SnapshotRename { pool, volume, snapshot, new } => patch(
            &["snapshots", pool.as_str(), volume.as_str(), snapshot.as_str()],
            json!({ "snapshot": new.as_str() }),
        ),
        Ask::SnapshotRollback { pool, volume, snapshot } => Call::post(&[
            "storage",
            "snapshots",
            pool.as_str(),
            volume.as_str(),
            snapshot.as_str(),
            "rollback",
        ]),
        Ask::SnapshotRemove { pool, volume, snapshot } => {
            delete(&["snapshots", pool.as_str(), volume.as_str(), snapshot.as_str()])
        }
    }
}

/// Who asks, for whoever reads it later: not checked by anybody. Over the API that is its token.
fn operator() -> String {
    let user =
        std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "somebody".into());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    one_line(format!("{user} on {}", host.trim()).as_str())
}
