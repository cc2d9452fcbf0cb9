//! `/ceph`: OSDs, pools, volumes and snapshots.
//!
//! The primary coordinator writes them from what Ceph says. Clients read them.

mod change;
mod df;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Display};

use pvc_core::model::{
    Entry, Problem,
    ceph::{Figures, Osd, OsdId, OsdStats, Pool, PoolName, Refreshed, SnapshotName, Volume, VolumeName},
};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use change::change;
pub use df::rados_df;

use super::{SchemaError, text::Decoder};
use crate::{Store, Transaction, Value};

/// The text of `ceph status`.
pub const STATUS: &str = "/ceph";
/// The text of `rados df`.
pub const RADOS_DF: &str = "/ceph/radosdf";
/// **(ours)** How old all this is.
pub const REFRESHED: &str = "/pvc/ceph";
/// The parent of all OSDs.
pub const OSDS: &str = "/ceph/osds";
/// The parent of all pools.
pub const POOLS: &str = "/ceph/pools";
/// The parent of all pools' volumes.
pub const VOLUMES: &str = "/ceph/volumes";
/// The parent of all pools' volumes' snapshots.
pub const SNAPSHOTS: &str = "/ceph/snapshots";

/// An OSD's key.
pub fn osd_path(id: OsdId) -> String {
    format!("{OSDS}/{id}")
}

/// A pool's key.
pub fn pool_path(pool: &PoolName) -> String {
    format!("{POOLS}/{pool}")
}

/// A volume's key.
pub fn volume_path(pool: &PoolName, volume: &VolumeName) -> String {
    format!("{VOLUMES}/{pool}/{volume}")
}

/// A snapshot's key.
pub fn snapshot_path(pool: &PoolName, volume: &VolumeName, snapshot: &SnapshotName) -> String {
    format!("{SNAPSHOTS}/{pool}/{volume}/{snapshot}")
}

/// Creates an OSD's keys.
pub fn create_osd(osd: &Osd) -> Transaction {
    let path = osd_path(osd.id);
    let mut txn = Transaction::default();
    txn.create(path.as_str(), "");
    txn.create(format!("{path}/node"), osd.node.as_str());
    txn.create(format!("{path}/device"), osd.device.as_str());
    txn.create(stats_path(&path), json(osd.stats.as_ref()));
    txn
}

/// Creates a pool's keys, and the parents of its volumes and their snapshots.
pub fn create_pool(pool: &Pool) -> Transaction {
    let path = pool_path(&pool.name);
    let mut txn = Transaction::default();
    txn.create(path.as_str(), "");
    txn.create(format!("{path}/pgs"), pool.pgs.to_string());
    txn.create(stats_path(&path), json(pool.stats.as_ref()));
    txn.create(format!("{VOLUMES}/{}", pool.name), "");
    txn.create(format!("{SNAPSHOTS}/{}", pool.name), "");
    txn
}

/// Creates a volume's keys, and the parent of its snapshots.
pub fn create_volume(volume: &Volume) -> Transaction {
    let path = volume_path(&volume.pool, &volume.name);
    let mut txn = Transaction::default();
    txn.create(path.as_str(), "");
    txn.create(stats_path(&path), json(volume.stats.as_ref()));
    txn.create(format!("{SNAPSHOTS}/{}/{}", volume.pool, volume.name), "");
    txn
}

/// Creates a snapshot's keys.
pub fn create_snapshot(pool: &PoolName, volume: &VolumeName, snapshot: &SnapshotName) -> Transaction {
    let path = snapshot_path(pool, volume, snapshot);
    let mut txn = Transaction::default();
    txn.create(path.as_str(), "");
    txn.create(stats_path(&path), "{}");
    txn
}

/// Replaces the figures of the object at `path` (an OSD, a pool, a volume).
pub fn set_stats(path: &str, stats: &impl Serialize) -> Transaction {
    let mut txn = Transaction::default();
    txn.set(stats_path(path), json(Some(stats)), None);
    txn
}

/// Writes what Ceph says of itself, as far as it is not there already: its texts, and the figures of those pools that have keys.
pub async fn refresh(
    store: &dyn Store,
    figures: Option<&Figures>,
    refreshed: &Refreshed,
) -> Result<(), SchemaError> {
    let mut desired = vec![(REFRESHED.to_owned(), serde_json::to_vec(refreshed).unwrap_or_default())];
    if let Some(figures) = figures {
        desired.push((STATUS.to_owned(), figures.status.clone().into()));
        desired.push((RADOS_DF.to_owned(), rados_df(figures).into()));
        for pool in store.children(POOLS).await?.unwrap_or_default() {
            if let Some(figures) = figures.pools.get(&pool) {
                desired.push((stats_path(&format!("{POOLS}/{pool}")), json(Some(&figures.stats))));
            }
        }
    }
    write_news(store, desired).await
}

/// Writes what Ceph says of those OSDs that have keys, as far as it is not there already.
pub async fn refresh_osds(store: &dyn Store, all: &BTreeMap<OsdId, OsdStats>) -> Result<(), SchemaError> {
    let known = store.children(OSDS).await?.unwrap_or_default();
    let known = known.iter().filter_map(|name| name.parse().ok());
    let desired = known.filter_map(|id| Some((stats_path(&osd_path(id)), json(Some(all.get(&id)?)))));
    write_news(store, desired.collect()).await
}

/// What is being removed does not come back for its figures' sake.
async fn write_news(store: &dyn Store, desired: Vec<(String, Vec<u8>)>) -> Result<(), SchemaError> {
    let paths: Vec<String> = desired.iter().map(|(path, _)| path.clone()).collect();
    let there = store.get_many(&paths).await?;
    let mut txn = Transaction::default();
    for ((path, data), there) in desired.into_iter().zip(there) {
        match there {
            Some(there) if there.data == data => {}
            Some(_) => txn.set(path, data, None),
            None if path.starts_with(POOLS) || path.starts_with(OSDS) => {}
            None => txn.create(path, data),
        }
    }
    if txn.ops.is_empty() {
        return Ok(());
    }
    store.commit(txn).await?;
    Ok(())
}

/// How old what Ceph says of itself is; `None`: nobody has said so.
pub fn refreshed(data: &[u8]) -> Option<Refreshed> {
    serde_json::from_slice(data).ok()
}

/// The keys that make an [`Osd`], in the order that [`decode_osd`] takes them.
pub fn osd_paths(id: OsdId) -> [String; 4] {
    let path = osd_path(id);
    [path.clone(), format!("{path}/node"), format!("{path}/device"), stats_path(&path)]
}

/// An OSD from the values of its keys; `None` if there is no such OSD.
pub fn decode_osd(id: OsdId, values: &[Option<Value>]) -> Option<Entry<Osd>> {
    let (keys, value) = (osd_paths(id), |i: usize| values.get(i).and_then(Option::as_ref));
    value(0)?;
    let mut d = Decoder::default();
    let node = d.text(&keys[1], value(1)).unwrap_or_default().trim().to_owned();
    let device = d.text(&keys[2], value(2)).unwrap_or_default().trim().to_owned();
    let stats = read_json(&mut d, &keys[3], value(3));
    Some(entry(d.problems, Osd { id, node, device, stats }))
}

/// The keys that make a [`Pool`], in the order that [`decode_pool`] takes them.
pub fn pool_paths(pool: &PoolName) -> [String; 3] {
    let path = pool_path(pool);
    [path.clone(), format!("{path}/pgs"), stats_path(&path)]
}

/// A pool from the values of its keys; `None` if there is no such pool.
pub fn decode_pool(name: &PoolName, values: &[Option<Value>]) -> Option<Entry<Pool>> {
    let (keys, value) = (pool_paths(name), |i: usize| values.get(i).and_then(Option::as_ref));
    value(0)?;
    let mut d = Decoder::default();
    let pgs = d.number(&keys[1], value(1));
    let stats = read_json(&mut d, &keys[2], value(2));
    Some(entry(d.problems, Pool { name: name.clone(), pgs, stats }))
}

/// The keys that make a [`Volume`], in the order that [`decode_volume`] takes them.
pub fn volume_paths(pool: &PoolName, volume: &VolumeName) -> [String; 2] {
    let path = volume_path(pool, volume);
    [path.clone(), stats_path(&path)]
}

/// A volume from the values of its keys; `None` if there is no such volume.
pub fn decode_volume(pool: &PoolName, name: &VolumeName, values: &[Option<Value>]) -> Option<Entry<Volume>> {
    let (keys, value) = (volume_paths(pool, name), |i: usize| values.get(i).and_then(Option::as_ref));
    value(0)?;
    let mut d = Decoder::default();
    let stats = read_json(&mut d, &keys[1], value(1));
    Some(entry(d.problems, Volume { pool: pool.clone(), name: name.clone(), stats }))
}

/// Sorts the names below a parent into objects and others.
pub fn names<T>(parent: &str, children: &[String]) -> (Vec<T>, Vec<Problem>)
where
    T: std::str::FromStr<Err: Display>,
{
    let mut d = Decoder::default();
    let good = children.iter().filter_map(|name| d.parse(&format!("{parent}/{name}"), name)).collect();
    (good, d.problems)
}

fn stats_path(path: &str) -> String {
    format!("{path}/stats")
}

fn entry<T>(problems: Vec<Problem>, object: T) -> Entry<T> {
    if problems.is_empty() { Entry::Good(object) } else { Entry::Bad(problems) }
}

/// `{}` until known.
fn json(stats: Option<&impl Serialize>) -> Vec<u8> {
    // Structs of numbers and text always have a JSON form.
    stats.and_then(|stats| serde_json::to_vec(stats).ok()).unwrap_or_else(|| b"{}".to_vec())
}

fn read_json<T: DeserializeOwned>(d: &mut Decoder, key: &str, value: Option<&Value>) -> Option<T> {
    let text = d.text(key, value).map(str::trim).filter(|text| !matches!(*text, "" | "{}"))?;
    serde_json::from_str(text).map_err(|e| d.problem(key, format_args!("not the expected JSON: {e}"))).ok()
}
