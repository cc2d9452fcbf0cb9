//! Storage: what the state tree says of it. Commands on it are not built yet, and say so.

use axum::{extract::State, http::StatusCode, response::Response};
use pvc_operate::storage::{self as command, OsdRow, PoolRow, SnapshotRow, VolumeRow};
use serde_json::{Value, json as value};

use super::or_none;
use crate::{
    api::Shared,
    ask::Ask,
    limit::Limit,
    reply::{Failed, Outcome, json, list, message},
};

/// Says that this is the storage.
pub(crate) async fn greeting() -> Response {
    message(StatusCode::OK, "Parallel Virtual Cluster API: storage")
}

/// `ceph status`.
pub(crate) async fn status(State(api): State<Shared>) -> Outcome {
    let texts = command::texts(&api.cluster).await?;
    json(
        &value!({ "type": "status", "primary_node": or_none(texts.primary_node), "ceph_data": texts.status }),
    )
}

/// `rados df`.
pub(crate) async fn df(State(api): State<Shared>) -> Outcome {
    let texts = command::texts(&api.cluster).await?;
    json(
        &value!({ "type": "utilization", "primary_node": or_none(texts.primary_node), "ceph_data": texts.df }),
    )
}

/// Whatever would change storage.
pub(crate) async fn not_yet() -> Response {
    let why = "the API cannot change storage yet: nothing was done; use ceph and rbd on a node";
    message(StatusCode::BAD_REQUEST, why)
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
    let (osds, _) = command::osds(&api.cluster).await?;
    let rows: Vec<&OsdRow> = osds.iter().filter(|osd| limit.wants(&osd.id)).collect();
    list(&rows, "there is no such OSD in the state tree")
}

async fn one_osd(api: &Shared, ask: &Ask) -> Result<OsdRow, Failed> {
    let (osds, _) = command::osds(&api.cluster).await?;
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
    let (pools, _) = command::pools(&api.cluster).await?;
    let rows: Vec<&PoolRow> = pools.iter().filter(|pool| limit.wants(&pool.name)).collect();
    list(&rows, "there is no such pool in the state tree")
}

/// One.
pub(crate) async fn pool(State(api): State<Shared>, ask: Ask) -> Outcome {
    let (pools, _) = command::pools(&api.cluster).await?;
    let rows: Vec<&PoolRow> = pools.iter().filter(|pool| pool.name == ask.part("pool")).collect();
    list(&rows, "there is no such pool in the state tree")
}

/// All volumes that are wanted.
pub(crate) async fn volumes(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let pool = ask.given("pool");
    let wanted =
        |volume: &&VolumeRow| pool.is_none_or(|pool| pool == volume.pool) && limit.wants(&volume.name);
    let (volumes, _) = command::volumes(&api.cluster, None).await?;
    list(&volumes.iter().filter(wanted).map(volume_row).collect::<Vec<_>>(), NO_VOLUME)
}

const NO_VOLUME: &str = "there is no such volume in the state tree";

/// One.
pub(crate) async fn volume(State(api): State<Shared>, ask: Ask) -> Outcome {
    let wanted = |volume: &&VolumeRow| volume.pool == ask.part("pool") && volume.name == ask.part("volume");
    let (volumes, _) = command::volumes(&api.cluster, None).await?;
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
    let (snapshots, _) = command::snapshots(&api.cluster, None).await?;
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
    let (snapshots, _) = command::snapshots(&api.cluster, None).await?;
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
