//! Storage: what the state tree says of it, its changes, and the tasks that they are. Nothing here waits for a task.

use std::{fmt::Display, str::FromStr};

use axum::{extract::State, http::StatusCode};
use pvc_core::model::{
    NodeName, StorageCommand,
    ceph::{ClientAddress, PoolName, SnapshotName},
    task::TaskId,
};
use pvc_operate::storage as command;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Asked, Nothing, Outcome, Problem, asked_for, located, outcome::Told, paged, typed};
use crate::{
    api::Shared,
    ask::Ask,
    clock::now_unix_s,
    limit::Limit,
    reply::{Said, json, json_with},
};

/// What Ceph says of itself.
pub(crate) async fn status(State(api): State<Shared>) -> Outcome {
    Ok(json(&command::texts(api.seen()).await?)?)
}

/// All pools whose names match `limit`.
pub(crate) async fn pools(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let (mut pools, problems) = command::pools(api.seen()).await?;
    pools.retain(|row| limit.wants(&row.name));
    paged::list_with(&ask, pools, &problems, |row| row.name.clone())
}

/// All volumes whose names match `limit`, of one `pool` if that is given.
pub(crate) async fn volumes(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let (mut volumes, problems) = command::volumes(api.seen(), pool(&ask)?.as_ref()).await?;
    volumes.retain(|row| limit.wants(&row.name));
    paged::list_with(&ask, volumes, &problems, |row| format!("{}/{}", row.pool, row.name))
}

/// All snapshots whose names match `limit`, of one `pool` and one `volume` if these are given.
pub(crate) async fn snapshots(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let (mut snapshots, problems) = command::snapshots(api.seen(), pool(&ask)?.as_ref()).await?;
    let volume = ask.given("volume");
    snapshots.retain(|row| limit.wants(&row.snapshot) && volume.is_none_or(|volume| volume == row.volume));
    paged::list_with(&ask, snapshots, &problems, |row| {
        format!("{}/{}@{}", row.pool, row.volume, row.snapshot)
    })
}

/// Shuts out whoever wrote for a VM that is off, and takes the locks of its disks.
pub(crate) async fn flush_locks(State(api): State<Shared>, asked: Asked) -> Outcome {
    let Nothing {} = asked.body()?;
    let vm = api.cluster.find_vm(asked.0.part("vm")).await?;
    ask(&api, &asked, StorageCommand::FlushLocks { vm }, false).await
}

/// All OSDs.
pub(crate) async fn osds(State(api): State<Shared>) -> Outcome {
    Ok(json(&command::osds(api.seen()).await?.0)?)
}

fn pool(ask: &Ask) -> Result<Option<PoolName>, Problem> {
    ask.given("pool").map(|pool| typed("pool", pool)).transpose()
}

fn part<T: FromStr<Err: Display>>(asked: &Asked, name: &str) -> Result<T, Problem> {
    typed(name, asked.0.part(name))
}

/// What was asked for, and where to look.
#[derive(Serialize)]
struct Accepted {
    task: TaskId,
    #[serde(flatten)]
    told: Told,
}

async fn ask(api: &Shared, asked: &Asked, command: StorageCommand, force: bool) -> Outcome {
    let by = asked.0.by();
    let (task, pending) = command::ask(&api.cluster, &command, force, &by, now_unix_s()).await?;
    let message = pending.answer.message.clone();
    let accepted = Accepted { task, told: pending.into() };
    let mut response = json_with(StatusCode::ACCEPTED, &accepted);
    response.extensions_mut().insert(Said(message));
    located(response, &format!("/api/v2/tasks/{task}"))
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPool {
    name: String,
    /// Placement groups.
    #[serde(default = "few")]
    pgs: u32,
}

fn few() -> u32 {
    128
}

/// Adds a pool.
pub(crate) async fn add_pool(State(api): State<Shared>, asked: Asked) -> Outcome {
    let NewPool { name, pgs } = asked.body()?;
    let (pool, pgs) = (typed("name", &name)?, typed("pgs", &pgs.to_string())?);
    ask(&api, &asked, StorageCommand::PoolAdd { pool, pgs }, false).await
}

/// Removes a pool, and what is in it.
pub(crate) async fn remove_pool(State(api): State<Shared>, asked: Asked) -> Outcome {
    ask(&api, &asked, StorageCommand::PoolRemove { pool: part(&asked, "pool")? }, false).await
}

/// Bytes, or a text such as `20G`.
#[derive(JsonSchema, Deserialize)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    fn text(&self) -> String {
        match self {
            Self::Bytes(bytes) => bytes.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewVolume {
    pool: String,
    name: String,
    size: Size,
}

/// Adds a volume.
pub(crate) async fn add_volume(State(api): State<Shared>, asked: Asked) -> Outcome {
    let NewVolume { pool, name, size } = asked.body()?;
    let (pool, volume, size) = (typed("pool", &pool)?, typed("name", &name)?, typed("size", &size.text())?);
    ask(&api, &asked, StorageCommand::VolumeAdd { pool, volume, size }, false).await
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewClone {
    /// The name of the new volume, in the same pool.
    name: String,
    /// Of this snapshot; without, of what the volume holds now.
    snapshot: Option<String>,
}

/// Makes a volume that holds what another one holds.
pub(crate) async fn clone_volume(State(api): State<Shared>, asked: Asked) -> Outcome {
    let (pool, volume) = (part(&asked, "pool")?, part(&asked, "volume")?);
    let NewClone { name, snapshot } = asked.body()?;
    let snapshot: Option<SnapshotName> = snapshot.map(|snapshot| typed("snapshot", &snapshot)).transpose()?;
    let (new, snapshot) = (typed("name", &name)?, snapshot.into());
    ask(&api, &asked, StorageCommand::VolumeClone { pool, volume, new, snapshot }, false).await
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VolumeChange {
    /// Another size …
    size: Option<Size>,
    /// … or another name.
    name: Option<String>,
    /// Also if data is lost by it: a volume that shrinks.
    #[serde(default)]
    force: bool,
}

/// Gives a volume another size, or another name.
pub(crate) async fn change_volume(State(api): State<Shared>, asked: Asked) -> Outcome {
    let (pool, volume) = (part(&asked, "pool")?, part(&asked, "volume")?);
    let change: VolumeChange = asked.body()?;
    let command = match (change.size, change.name) {
        (Some(size), None) => {
            StorageCommand::VolumeResize { pool, volume, size: typed("size", &size.text())? }
        }
        (None, Some(name)) => StorageCommand::VolumeRename { pool, volume, new: typed("name", &name)? },
        _ => {
            let why = "either size or name is changed, one at a time";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why));
        }
    };
    ask(&api, &asked, command, change.force).await
}

/// Removes a volume.
pub(crate) async fn remove_volume(State(api): State<Shared>, asked: Asked) -> Outcome {
    let (pool, volume) = (part(&asked, "pool")?, part(&asked, "volume")?);
    ask(&api, &asked, StorageCommand::VolumeRemove { pool, volume }, false).await
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSnapshot {
    pool: String,
    volume: String,
    snapshot: String,
}

/// Takes a snapshot.
pub(crate) async fn add_snapshot(State(api): State<Shared>, asked: Asked) -> Outcome {
    let NewSnapshot { pool, volume, snapshot } = asked.body()?;
    let (pool, volume) = (typed("pool", &pool)?, typed("volume", &volume)?);
    let snapshot = typed("snapshot", &snapshot)?;
    ask(&api, &asked, StorageCommand::SnapshotAdd { pool, volume, snapshot }, false).await
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotChange {
    /// Another name.
    snapshot: String,
}

/// Gives a snapshot another name.
pub(crate) async fn change_snapshot(State(api): State<Shared>, asked: Asked) -> Outcome {
    let (pool, volume) = (part(&asked, "pool")?, part(&asked, "volume")?);
    let new = typed("snapshot", &asked.body::<SnapshotChange>()?.snapshot)?;
    let snapshot = part(&asked, "snapshot")?;
    ask(&api, &asked, StorageCommand::SnapshotRename { pool, volume, snapshot, new }, false).await
}

/// Makes a volume hold what a snapshot of it holds.
pub(crate) async fn roll_back(State(api): State<Shared>, asked: Asked) -> Outcome {
    let (pool, volume) = (part(&asked, "pool")?, part(&asked, "volume")?);
    let snapshot = part(&asked, "snapshot")?;
    ask(&api, &asked, StorageCommand::SnapshotRollback { pool, volume, snapshot }, false).await
}

/// Removes a snapshot.
pub(crate) async fn remove_snapshot(State(api): State<Shared>, asked: Asked) -> Outcome {
    let (pool, volume) = (part(&asked, "pool")?, part(&asked, "volume")?);
    let snapshot = part(&asked, "snapshot")?;
    ask(&api, &asked, StorageCommand::SnapshotRemove { pool, volume, snapshot }, false).await
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewOsd {
    /// The node that has the device.
    node: String,
    /// The device, such as `/dev/sdb`, best by a name in `/dev/disk/by-id`.
    device: String,
    /// How much of the data it gets, beside others; 1 unless given.
    weight: Option<f64>,
    /// Also if it is not blank: all that is on it is lost.
    #[serde(default)]
    wipe: bool,
}

/// Makes a device of a node an OSD.
pub(crate) async fn add_osd(State(api): State<Shared>, asked: Asked) -> Outcome {
    let NewOsd { node, device, weight, wipe } = asked.body()?;
    let weight = typed("weight", &weight.unwrap_or(1.0).to_string())?;
    let (node, device) = (typed("node", &node)?, typed("device", &device)?);
    ask(&api, &asked, StorageCommand::OsdAdd { node, device, weight }, wipe).await
}

/// Removes an OSD, when its data is elsewhere.
pub(crate) async fn remove_osd(State(api): State<Shared>, asked: Asked) -> Outcome {
    let command = StorageCommand::OsdRemove { id: part(&asked, "osd")? };
    ask(&api, &asked, command, asked.0.flag("force")).await
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OsdState {
    state: InOrOut,
}

#[derive(JsonSchema, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum InOrOut {
    In,
    Out,
}

/// Takes an OSD into or out of use.
pub(crate) async fn set_osd_state(State(api): State<Shared>, asked: Asked) -> Outcome {
    let id = part(&asked, "osd")?;
    let command = match asked.body::<OsdState>()?.state {
        InOrOut::In => StorageCommand::OsdIn { id },
        InOrOut::Out => StorageCommand::OsdOut { id },
    };
    ask(&api, &asked, command, false).await
}

/// Sets a flag of all OSDs.
pub(crate) async fn set_flag(State(api): State<Shared>, asked: Asked) -> Outcome {
    ask(&api, &asked, StorageCommand::OsdSet { flag: part(&asked, "flag")? }, false).await
}

/// Clears a flag of all OSDs.
pub(crate) async fn clear_flag(State(api): State<Shared>, asked: Asked) -> Outcome {
    ask(&api, &asked, StorageCommand::OsdUnset { flag: part(&asked, "flag")? }, false).await
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LocksOf {
    /// Of this pool only.
    pool: Option<String>,
}

/// Looks who holds the locks of volumes.
pub(crate) async fn look_at_locks(State(api): State<Shared>, asked: Asked) -> Outcome {
    let pool: Option<PoolName> =
        asked.body::<LocksOf>()?.pool.map(|pool| typed("pool", &pool)).transpose()?;
    ask(&api, &asked, StorageCommand::Locks { pool: pool.into() }, false).await
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShutOutOf {
    /// Of this node only.
    node: Option<String>,
}

/// Looks who is shut out of the storage.
pub(crate) async fn look_at_shut_out(State(api): State<Shared>, asked: Asked) -> Outcome {
    let node: Option<NodeName> =
        asked.body::<ShutOutOf>()?.node.map(|node| typed("node", &node)).transpose()?;
    ask(&api, &asked, StorageCommand::FenceList { node: node.into() }, false).await
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lifted {
    /// The address of one client; without, all whose processes are proven dead.
    client: Option<String>,
}

/// Lets clients in again.
pub(crate) async fn lift(State(api): State<Shared>, asked: Asked) -> Outcome {
    let client: Option<ClientAddress> =
        asked.body::<Lifted>()?.client.map(|client| typed("client", &client)).transpose()?;
    ask(&api, &asked, StorageCommand::FenceLift { client: client.into() }, false).await
}

/// All tasks, the oldest first.
pub(crate) async fn tasks(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    let (tasks, problems) = command::tasks(api.seen()).await?;
    paged::list_with(&ask, tasks, &problems, |row| row.id)
}

/// One task.
pub(crate) async fn task(State(api): State<Shared>, asked: Asked) -> Outcome {
    Ok(json(&command::info(api.seen(), part(&asked, "task")?).await?)?)
}

/// Has a task end before it is done.
pub(crate) async fn cancel(State(api): State<Shared>, asked: Asked) -> Outcome {
    let task = part(&asked, "task")?;
    asked_for(command::cancel(&api.cluster, task, &asked.0.by(), now_unix_s()).await?)
}
