//! Storage: what the state tree says of it, and its changes, which are tasks of the primary.

use std::{fmt::Display, str::FromStr, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use pvc_core::model::StorageCommand;
use pvc_operate::{
    Failure,
    storage::{self as command, OsdRow, PoolRow, SnapshotRow, VolumeRow},
};
use serde_json::{Value, json as value};

use super::or_none;
use crate::{
    api::Shared,
    ask::Ask,
    clock::now_unix_s,
    limit::Limit,
    reply::{Failed, Outcome, done, json, list, message},
};

/// Says that this is the storage.
pub(crate) async fn greeting() -> Response {
    message(StatusCode::OK, "Parallel Virtual Cluster API: storage")
}

/// `ceph status`.
pub(crate) async fn status(State(api): State<Shared>) -> Outcome {
    let texts = command::texts(api.seen()).await?;
    json(
        &value!({ "type": "status", "primary_node": or_none(texts.primary_node), "ceph_data": texts.status }),
    )
}

/// `rados df`.
pub(crate) async fn df(State(api): State<Shared>) -> Outcome {
    let texts = command::texts(api.seen()).await?;
    json(
        &value!({ "type": "utilization", "primary_node": or_none(texts.primary_node), "ceph_data": texts.df }),
    )
}

/// How long a change may take before its task is left to itself.
const WITHIN: Duration = Duration::from_secs(30);

/// Has the primary do it, and says what came of it.
pub(super) async fn change(api: &Shared, ask: &Ask, command: StorageCommand) -> Outcome {
    let (_, asked) = command::ask(&api.cluster, &command, false, &ask.by(), now_unix_s()).await?;
    match asked.wait(&api.cluster, WITHIN, &|_| ()).await {
        // It is accepted, and goes on: whoever took it for failed would ask twice.
        Err(later @ Failure::NotYet { .. }) => Ok(message(StatusCode::OK, later.to_string())),
        outcome => done(outcome?),
    }
}

fn typed<T: FromStr<Err: Display>>(text: &str) -> Result<T, Failed> {
    text.parse().map_err(|error: T::Err| Failed::Bad(error.to_string()))
}

fn required<T: FromStr<Err: Display>>(ask: &Ask, name: &'static str) -> Result<T, Failed> {
    typed(ask.required(name)?)
}

fn part<T: FromStr<Err: Display>>(ask: &Ask, name: &str) -> Result<T, Failed> {
    typed(ask.part(name))
}

/// Whoever removes all that is in something says so.
fn insist(ask: &Ask) -> Result<(), Failed> {
    if ask.flag("yes_i_really_mean_it") { Ok(()) } else { Err(Failed::Missing("yes_i_really_mean_it")) }
}

/// Sets or clears a flag of all OSDs.
pub(crate) async fn set_option(State(api): State<Shared>, ask: Ask) -> Outcome {
    let flag = required(&ask, "option")?;
    match ask.required("action")? {
        "set" => change(&api, &ask, StorageCommand::OsdSet { flag }).await,
        "unset" => change(&api, &ask, StorageCommand::OsdUnset { flag }).await,
        other => Err(Failed::Bad(format!("{other:?} is neither set nor unset"))),
    }
}

/// Makes a device an OSD.
pub(crate) async fn add_osd(State(api): State<Shared>, ask: Ask) -> Outcome {
    let (node, device) = (required(&ask, "node")?, required(&ask, "device")?);
    change(&api, &ask, StorageCommand::OsdAdd { node, device, weight: required(&ask, "weight")? }).await
}

/// Removes an OSD.
pub(crate) async fn remove_osd(State(api): State<Shared>, ask: Ask) -> Outcome {
    insist(&ask)?;
    change(&api, &ask, StorageCommand::OsdRemove { id: part(&ask, "osd")? }).await
}

/// Takes an OSD into or out of use.
pub(crate) async fn set_osd_state(State(api): State<Shared>, ask: Ask) -> Outcome {
    let id = part(&ask, "osd")?;
    match ask.required("state")? {
        "in" => change(&api, &ask, StorageCommand::OsdIn { id }).await,
        "out" => change(&api, &ask, StorageCommand::OsdOut { id }).await,
        other => Err(Failed::Bad(format!("{other:?} is neither in nor out"))),
    }
}

/// Adds a pool.
pub(crate) async fn add_pool(State(api): State<Shared>, ask: Ask) -> Outcome {
    let pgs = typed(ask.given("pgs").unwrap_or("128"))?;
    change(&api, &ask, StorageCommand::PoolAdd { pool: required(&ask, "pool")?, pgs }).await
}

/// Removes a pool.
pub(crate) async fn remove_pool(State(api): State<Shared>, ask: Ask) -> Outcome {
    insist(&ask)?;
    change(&api, &ask, StorageCommand::PoolRemove { pool: part(&ask, "pool")? }).await
}

/// Adds a volume.
pub(crate) async fn add_volume(State(api): State<Shared>, ask: Ask) -> Outcome {
    let (pool, volume) = (required(&ask, "pool")?, required(&ask, "volume")?);
    change(&api, &ask, StorageCommand::VolumeAdd { pool, volume, size: required(&ask, "size")? }).await
}

/// Gives a volume another size, or another name.
pub(crate) async fn change_volume(State(api): State<Shared>, ask: Ask) -> Outcome {
    let (pool, volume) = (part(&ask, "pool")?, part(&ask, "volume")?);
    match (ask.given("size"), ask.given("name")) {
        (Some(size), None) => {
            change(&api, &ask, StorageCommand::VolumeResize { pool, volume, size: typed(size)? }).await
        }
        (None, Some(name)) => {
            change(&api, &ask, StorageCommand::VolumeRename { pool, volume, new: typed(name)? }).await
        }
        (None, None) => Err(Failed::Missing("size")),
        (Some(_), Some(_)) => Err(Failed::Bad("size and name are changed one at a time".to_owned())),
    }
}

/// Removes a volume.
pub(crate) async fn remove_volume(State(api): State<Shared>, ask: Ask) -> Outcome {
    let (pool, volume) = (part(&ask, "pool")?, part(&ask, "volume")?);
    change(&api, &ask, StorageCommand::VolumeRemove { pool, volume }).await
}

/// Takes a snapshot.
pub(crate) async fn add_snapshot(State(api): State<Shared>, ask: Ask) -> Outcome {
    let (pool, volume) = (required(&ask, "pool")?, required(&ask, "volume")?);
    change(&api, &ask, StorageCommand::SnapshotAdd { pool, volume, snapshot: required(&ask, "snapshot")? })
        .await
}

/// Gives a snapshot another name.
pub(crate) async fn rename_snapshot(State(api): State<Shared>, ask: Ask) -> Outcome {
    let (pool, volume) = (part(&ask, "pool")?, part(&ask, "volume")?);
    let (snapshot, new) = (part(&ask, "snapshot")?, required(&ask, "name")?);
    change(&api, &ask, StorageCommand::SnapshotRename { pool, volume, snapshot, new }).await
}

/// Removes a snapshot.
pub(crate) async fn remove_snapshot(State(api): State<Shared>, ask: Ask) -> Outcome {
    let (pool, volume) = (part(&ask, "pool")?, part(&ask, "volume")?);
    change(&api, &ask, StorageCommand::SnapshotRemove { pool, volume, snapshot: part(&ask, "snapshot")? })
        .await
}

fn volume_row(volume: &VolumeRow) -> Value {
    let mut stats = value!(volume.stats);
    if let Some(known) = &volume.stats {
        stats["size"] = human(known.size).into();
    }
    value!({ "name": volume.name, "pool": volume.pool, "stats": stats })
}

/// All OSDs that are wanted.
pub(crate) async fn osds(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let (osds, _) = command::osds(api.seen()).await?;
    let rows: Vec<&OsdRow> = osds.iter().filter(|osd| limit.wants(&osd.id)).collect();
    list(&rows, "there is no such OSD in the state tree")
}

async fn one_osd(api: &Shared, ask: &Ask) -> Result<OsdRow, Failed> {
    let (osds, _) = command::osds(api.seen()).await?;
    let found = osds.into_iter().find(|osd| osd.id == ask.part("osd"));
    found.ok_or_else(|| Failed::NotFound("there is no such OSD in the state tree".to_owned()))
}

/// One.
pub(crate) async fn osd(State(api): State<Shared>, ask: Ask) -> Outcome {
    json(&[one_osd(&api, &ask).await?])
}

/// Whether it is in and up.
pub(crate) async fn osd_state(State(api): State<Shared>, ask: Ask) -> Outcome {
    let osd = one_osd(&api, &ask).await?;
    let stats =
        osd.stats.as_ref().ok_or_else(|| Failed::Bad(format!("nothing is known of OSD {} yet", osd.id)))?;
    json(&value!({ "id": osd.id, "in": stats.r#in, "up": stats.up }))
}

/// All pools that are wanted.
pub(crate) async fn pools(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let (pools, _) = command::pools(api.seen()).await?;
    let rows: Vec<&PoolRow> = pools.iter().filter(|pool| limit.wants(&pool.name)).collect();
    list(&rows, "there is no such pool in the state tree")
}

/// One.
pub(crate) async fn pool(State(api): State<Shared>, ask: Ask) -> Outcome {
    let (pools, _) = command::pools(api.seen()).await?;
    let rows: Vec<&PoolRow> = pools.iter().filter(|pool| pool.name == ask.part("pool")).collect();
    list(&rows, "there is no such pool in the state tree")
}

/// All volumes that are wanted.
pub(crate) async fn volumes(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let pool = ask.given("pool");
    let wanted =
        |volume: &&VolumeRow| pool.is_none_or(|pool| pool == volume.pool) && limit.wants(&volume.name);
    let (volumes, _) = command::volumes(api.seen(), None).await?;
    list(&volumes.iter().filter(wanted).map(volume_row).collect::<Vec<_>>(), NO_VOLUME)
}

const NO_VOLUME: &str = "there is no such volume in the state tree";

/// One.
pub(crate) async fn volume(State(api): State<Shared>, ask: Ask) -> Outcome {
    let wanted = |volume: &&VolumeRow| volume.pool == ask.part("pool") && volume.name == ask.part("volume");
    let (volumes, _) = command::volumes(api.seen(), None).await?;
    list(&volumes.iter().filter(wanted).map(volume_row).collect::<Vec<_>>(), NO_VOLUME)
}

const NO_SNAPSHOT: &str = "there is no such snapshot in the state tree";

/// All snapshots that are wanted, as texts.
pub(crate) async fn snapshots(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let (pool, volume) = (ask.given("pool"), ask.given("volume"));
    let wanted = |row: &&SnapshotRow| {
        pool.is_none_or(|pool| pool == row.pool)
            && volume.is_none_or(|volume| volume == row.volume)
            && limit.wants(&row.snapshot)
    };
    let text = |row: &SnapshotRow| format!("{}/{}@{}", row.pool, row.volume, row.snapshot);
    let (snapshots, _) = command::snapshots(api.seen(), None).await?;
    list(&snapshots.iter().filter(wanted).map(text).collect::<Vec<_>>(), NO_SNAPSHOT)
}

/// One.
pub(crate) async fn snapshot(State(api): State<Shared>, ask: Ask) -> Outcome {
    let wanted = |row: &&SnapshotRow| {
        row.pool == ask.part("pool")
            && row.volume == ask.part("volume")
            && row.snapshot == ask.part("snapshot")
    };
    let row = |row: &SnapshotRow| {
        let mut shown = value!(row);
        shown["stats"] = value!({});
        shown
    };
    let (snapshots, _) = command::snapshots(api.seen(), None).await?;
    list(&snapshots.iter().filter(wanted).map(row).collect::<Vec<_>>(), NO_SNAPSHOT)
}

/// Bytes as people say them: `20G`.
fn human(bytes: u64) -> String {
    let (mut amount, mut unit) = (bytes, "B");
    for larger in ["K", "M", "G", "T", "P"] {
        if amount < 1024 || amount % 1024 != 0 {
            break;
        }
        (amount, unit) = (amount / 1024, larger);
    }
    format!("{amount}{unit}")
}
