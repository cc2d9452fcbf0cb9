//! Storage: what the state tree says of it. Commands on it are not built yet, and say so.

use axum::{extract::State, http::StatusCode, response::Response};
use pvc_core::model::ceph::{Osd, Pool, Volume};
use pvc_operate::storage::{self as command, Snapshot, Text};
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
    said(&api, Text::Status, "status").await
}

/// `rados df`.
pub(crate) async fn df(State(api): State<Shared>) -> Outcome {
    said(&api, Text::Df, "utilization").await
}

async fn said(api: &Shared, text: Text, kind: &str) -> Outcome {
    let said = command::said(&api.cluster, text).await?;
    json(&value!({ "type": kind, "primary_node": or_none(said.primary_node), "ceph_data": said.ceph_data }))
}

/// Whatever would change storage.
pub(crate) async fn not_yet() -> Response {
    let why = "the API cannot change storage yet: nothing was done; use ceph and rbd on a node";
    message(StatusCode::BAD_REQUEST, why)
}

fn osd_row(osd: &Osd) -> Value {
    value!({ "id": osd.id.to_string(), "stats": osd.stats })
}

fn pool_row(pool: &Pool) -> Value {
    value!({ "name": pool.name.as_str(), "stats": pool.stats })
}

fn volume_row(volume: &Volume) -> Value {
    let mut stats = value!(volume.stats);
    if let Some(known) = &volume.stats {
        stats["size"] = human(known.size).into();
    }
    value!({ "name": volume.name.as_str(), "pool": volume.pool.as_str(), "stats": stats })
}

/// All OSDs that are wanted.
pub(crate) async fn osds(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let osds = command::osds(&api.cluster).await?;
    let rows: Vec<_> = osds.iter().filter(|osd| limit.wants(&osd.id.to_string())).map(osd_row).collect();
    list(&rows, "there is no such OSD in the state tree")
}

async fn one_osd(api: &Shared, ask: &Ask) -> Result<Osd, Failed> {
    let osds = command::osds(&api.cluster).await?;
    let found = osds.into_iter().find(|osd| osd.id.to_string() == ask.part("osd"));
    found.ok_or_else(|| Failed::NotFound("there is no such OSD in the state tree".to_owned()))
}

/// One.
pub(crate) async fn osd(State(api): State<Shared>, ask: Ask) -> Outcome {
    json(&[osd_row(&one_osd(&api, &ask).await?)])
}

/// Whether it is in and up.
pub(crate) async fn osd_state(State(api): State<Shared>, ask: Ask) -> Outcome {
    let osd = one_osd(&api, &ask).await?;
    let stats =
        osd.stats.as_ref().ok_or_else(|| Failed::Bad(format!("nothing is known of OSD {} yet", osd.id)))?;
    json(&value!({ "id": osd.id.to_string(), "in": stats.r#in, "up": stats.up }))
}

/// All pools that are wanted.
pub(crate) async fn pools(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let pools = command::pools(&api.cluster).await?;
    let rows: Vec<_> = pools.iter().filter(|pool| limit.wants(pool.name.as_str())).map(pool_row).collect();
    list(&rows, "there is no such pool in the state tree")
}

/// One.
pub(crate) async fn pool(State(api): State<Shared>, ask: Ask) -> Outcome {
    let pools = command::pools(&api.cluster).await?;
    let rows: Vec<_> =
        pools.iter().filter(|pool| pool.name.as_str() == ask.part("pool")).map(pool_row).collect();
    list(&rows, "there is no such pool in the state tree")
}

/// All volumes that are wanted.
pub(crate) async fn volumes(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let pool = ask.given("pool");
    let wanted = |volume: &&Volume| {
        pool.is_none_or(|pool| pool == volume.pool.as_str()) && limit.wants(volume.name.as_str())
    };
    let volumes = command::volumes(&api.cluster).await?;
    list(&volumes.iter().filter(wanted).map(volume_row).collect::<Vec<_>>(), NO_VOLUME)
}

const NO_VOLUME: &str = "there is no such volume in the state tree";

/// One.
pub(crate) async fn volume(State(api): State<Shared>, ask: Ask) -> Outcome {
    let wanted = |volume: &&Volume| {
        volume.pool.as_str() == ask.part("pool") && volume.name.as_str() == ask.part("volume")
    };
    let volumes = command::volumes(&api.cluster).await?;
    list(&volumes.iter().filter(wanted).map(volume_row).collect::<Vec<_>>(), NO_VOLUME)
}

const NO_SNAPSHOT: &str = "there is no such snapshot in the state tree";

/// All snapshots that are wanted, as texts.
pub(crate) async fn snapshots(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let (pool, volume) = (ask.given("pool"), ask.given("volume"));
    let wanted = |snapshot: &&Snapshot| {
        pool.is_none_or(|pool| pool == snapshot.pool.as_str())
            && volume.is_none_or(|volume| volume == snapshot.volume.as_str())
            && limit.wants(snapshot.name.as_str())
    };
    let text = |snapshot: &Snapshot| format!("{}/{}@{}", snapshot.pool, snapshot.volume, snapshot.name);
    let snapshots = command::snapshots(&api.cluster).await?;
    list(&snapshots.iter().filter(wanted).map(text).collect::<Vec<_>>(), NO_SNAPSHOT)
}

/// One.
pub(crate) async fn snapshot(State(api): State<Shared>, ask: Ask) -> Outcome {
    let wanted = |snapshot: &&Snapshot| {
        snapshot.pool.as_str() == ask.part("pool")
            && snapshot.volume.as_str() == ask.part("volume")
            && snapshot.name.as_str() == ask.part("snapshot")
    };
    let row = |snapshot: &Snapshot| {
        let (pool, volume, name) = (&snapshot.pool, &snapshot.volume, &snapshot.name);
        value!({ "snapshot": name.as_str(), "pool": pool.as_str(), "volume": volume.as_str(), "stats": {} })
    };
    let snapshots = command::snapshots(&api.cluster).await?;
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
