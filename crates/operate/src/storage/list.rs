//! What the state tree says of storage.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

use std::collections::BTreeMap;

use pvc_core::model::{
    Entry, NodeName, Problem,
    ceph::{Osd, OsdId, OsdStats, Pool, PoolName, PoolStats, Refreshed, Volume, VolumeName, VolumeStats},
};
use pvc_store::{
    Store, StoreError, Value,
    schema::{ceph, primary},
};
use serde::{Deserialize, Serialize};

use crate::{Cluster, Failure};

/// Bounds a request.
const AT_ONCE: usize = 500;

/// An OSD.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OsdRow {
    pub id: String,
    pub node: String,
    pub device: String,
    /// `None` until known.
    pub stats: Option<OsdStats>,
}

/// A pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PoolRow {
    pub name: String,
    /// Placement groups.
    pub pgs: u32,
    /// `None` until known.
    pub stats: Option<PoolStats>,
}

/// A volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeRow {
    pub name: String,
    pub pool: String,
    /// `None` until known.
    pub stats: Option<VolumeStats>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    pub snapshot: String,
    pub pool: String,
    pub volume: String,
}

/// What Ceph says of itself as a whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Texts {
    /// Its status.
    pub status: String,
    /// Its pools, as `rados df` shows them.
    pub df: String,
    /// How old both are; `None`: no node has asked yet.
    pub refreshed: Option<Refreshed>,
    /// Who is primary, and asks.
    pub primary_node: Option<NodeName>,
}

/// Things that were read, and what is wrong with those that cannot be.
type Found<T> = (Vec<T>, Vec<Problem>);

/// All OSDs.
pub async fn osds(cluster: &Cluster) -> Result<Found<OsdRow>, Failure> {
    let store = &*cluster.store;
    let (ids, mut problems) = names::<OsdId>(store, ceph::OSDS).await?;
    let paths = ids.iter().map(|id| ceph::osd_paths(*id));
    let mut rows = Vec::new();
    for (id, values) in ids.iter().zip(groups(store, paths).await?) {
        let row =
            |osd: Osd| OsdRow { id: id.to_string(), node: osd.node, device: osd.device, stats: osd.stats };
        keep(ceph::decode_osd(*id, &values), row, &mut rows, &mut problems);
    }
    Ok((rows, problems))
}

/// All pools.
pub async fn pools(cluster: &Cluster) -> Result<Found<PoolRow>, Failure> {
    let store = &*cluster.store;
    let (pools, mut problems) = names::<PoolName>(store, ceph::POOLS).await?;
    let paths = pools.iter().map(ceph::pool_paths);
    let mut rows = Vec::new();
    for (pool, values) in pools.iter().zip(groups(store, paths).await?) {
        let row = |found: Pool| PoolRow { name: pool.to_string(), pgs: found.pgs, stats: found.stats };
        keep(ceph::decode_pool(pool, &values), row, &mut rows, &mut problems);
    }
    Ok((rows, problems))
}

/// All volumes, or those of a pool.
pub async fn volumes(cluster: &Cluster, pool: Option<&PoolName>) -> Result<Found<VolumeRow>, Failure> {
    let store = &*cluster.store;
    let (volumes, mut problems) = below_pools(store, ceph::VOLUMES, pool).await?;
    let paths = volumes.iter().map(|(pool, volume)| ceph::volume_paths(pool, volume));
    let mut rows = Vec::new();
    for ((pool, volume), values) in volumes.iter().zip(groups(store, paths).await?) {
        let row = |found: Volume| VolumeRow {
            name: volume.to_string(),
            pool: pool.to_string(),
            stats: found.stats,
        };
        keep(ceph::decode_volume(pool, volume, &values), row, &mut rows, &mut problems);
    }
    Ok((rows, problems))
}

/// All snapshots, or those of a pool.
pub async fn snapshots(cluster: &Cluster, pool: Option<&PoolName>) -> Result<Found<SnapshotRow>, Failure> {
    let store = &*cluster.store;
    let (volumes, problems) = below_pools(store, ceph::SNAPSHOTS, pool).await?;
    let parents: Vec<String> =
        volumes.iter().map(|(pool, volume)| format!("{}/{pool}/{volume}", ceph::SNAPSHOTS)).collect();
    let mut rows = Vec::new();
    for (volumes, parents) in volumes.chunks(AT_ONCE).zip(parents.chunks(AT_ONCE)) {
        for ((pool, volume), names) in volumes.iter().zip(store.children_many(parents).await?) {
            let row = |snapshot| SnapshotRow { snapshot, pool: pool.to_string(), volume: volume.to_string() };
            rows.extend(names.into_iter().flatten().map(row));
        }
    }
    rows.sort_by(|a, b| (&a.pool, &a.volume, &a.snapshot).cmp(&(&b.pool, &b.volume, &b.snapshot)));
    Ok((rows, problems))
}

/// What Ceph says of itself.
pub async fn texts(cluster: &Cluster) -> Result<Texts, Failure> {
    let paths = [ceph::STATUS, ceph::RADOS_DF, ceph::REFRESHED].map(str::to_owned);
    let holder = cluster.store.get(primary::HOLDER).await?;
    let primary_node = primary::decode_holder(holder.as_ref());
    let mut values = cluster.store.get_many(&paths).await?.into_iter();
    let mut next = || values.next().flatten().map(|value| value.data).unwrap_or_default();
    let text = |data: Vec<u8>| String::from_utf8_lossy(&data).into_owned();
    Ok(Texts { status: text(next()), df: text(next()), refreshed: ceph::refreshed(&next()), primary_node })
}

async fn names<T>(store: &dyn Store, parent: &str) -> Result<Found<T>, StoreError>
where
    T: std::str::FromStr<Err: std::fmt::Display> + Ord,
{
    let mut names = store.children(parent).await?.unwrap_or_default();
    names.sort_unstable();
    let (mut found, problems) = ceph::names::<T>(parent, &names);
    found.sort_unstable();
    Ok((found, problems))
}

/// The volumes that have a key below a root, with their pools.
async fn below_pools(
    store: &dyn Store,
    root: &str,
    pool: Option<&PoolName>,
) -> Result<Found<(PoolName, VolumeName)>, StoreError> {
    let (pools, mut problems) = match pool {
        Some(pool) => (vec![pool.clone()], Vec::new()),
        None => names::<PoolName>(store, root).await?,
    };
    let mut found = BTreeMap::<PoolName, Vec<VolumeName>>::new();
    for pool in pools {
        let (volumes, strange) = names::<VolumeName>(store, &format!("{root}/{pool}")).await?;
        problems.extend(strange);
        found.insert(pool, volumes);
    }
    let flat = found
        .into_iter()
        .flat_map(|(pool, volumes)| volumes.into_iter().map(move |volume| (pool.clone(), volume)));
    Ok((flat.collect(), problems))
}

/// The values of many objects, each with so many keys.
async fn groups<const N: usize>(
    store: &dyn Store,
    paths: impl Iterator<Item = [String; N]>,
) -> Result<Vec<Vec<Option<Value>>>, StoreError> {
    let paths: Vec<[String; N]> = paths.collect();
    let mut groups = Vec::with_capacity(paths.len());
    for some in paths.chunks(AT_ONCE) {
        let values = store.get_many(some.as_flattened()).await?;
        groups.extend(values.chunks(N).map(<[Option<Value>]>::to_vec));
    }
    Ok(groups)
}

fn keep<T, R>(
    entry: Option<Entry<T>>,
    row: impl FnOnce(T) -> R,
    rows: &mut Vec<R>,
    problems: &mut Vec<Problem>,
) {
    match entry {
        Some(Entry::Good(found)) => rows.push(row(found)),
        Some(Entry::Bad(strange)) => problems.extend(strange),
        // It was removed meanwhile.
        None => {}
    }
}
