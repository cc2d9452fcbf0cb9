//! What the state tree says of storage: figures of Ceph, and what has keys there. Nothing is asked of Ceph.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

use pvc_core::model::{
    Entry, NodeName,
    ceph::{Osd, OsdId, Pool, PoolName, SnapshotName, Volume, VolumeName},
};
use pvc_store::schema::{ceph, primary};
use serde::Serialize;

use crate::{Cluster, Failure};

/// One of Ceph's own texts, as the primary read it.
#[derive(Debug, Serialize)]
pub struct Said {
    /// Who is primary.
    pub primary_node: Option<NodeName>,
    pub ceph_data: String,
}

/// Which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// `ceph status`.
    Status,
    /// `rados df`.
    Df,
}

/// A snapshot that has keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub pool: PoolName,
    pub volume: VolumeName,
    pub name: SnapshotName,
}

/// One of Ceph's texts.
pub async fn said(cluster: &Cluster, text: Text) -> Result<Said, Failure> {
    let key = match text {
        Text::Status => ceph::STATUS,
        Text::Df => ceph::RADOS_DF,
    };
    let value = cluster.store.get(key).await?;
    let data = value.map(|value| String::from_utf8_lossy(&value.data).into_owned()).unwrap_or_default();
    let holder = cluster.store.get(primary::HOLDER).await?;
    Ok(Said { primary_node: primary::decode_holder(holder.as_ref()), ceph_data: data })
}

/// The names below a parent; what is none is nobody's object.
async fn names<T: std::str::FromStr<Err: std::fmt::Display>>(
    cluster: &Cluster,
    parent: &str,
) -> Result<Vec<T>, Failure> {
    let mut children = cluster.store.children(parent).await?.unwrap_or_default();
    children.sort_unstable();
    Ok(ceph::names(parent, &children).0)
}

/// The OSDs that have keys and can be read.
pub async fn osds(cluster: &Cluster) -> Result<Vec<Osd>, Failure> {
    let mut ids: Vec<OsdId> = names(cluster, ceph::OSDS).await?;
    ids.sort_unstable();
    let paths: Vec<_> = ids.iter().map(|id| ceph::osd_paths(*id)).collect();
    let values = cluster.store.get_many(&paths.concat()).await?;
    let each = ids.iter().zip(values.chunks(4));
    Ok(each.filter_map(|(id, values)| good(ceph::decode_osd(*id, values))).collect())
}

/// The pools that have keys and can be read.
pub async fn pools(cluster: &Cluster) -> Result<Vec<Pool>, Failure> {
    let names: Vec<PoolName> = names(cluster, ceph::POOLS).await?;
    let paths: Vec<_> = names.iter().map(ceph::pool_paths).collect();
    let values = cluster.store.get_many(&paths.concat()).await?;
    let each = names.iter().zip(values.chunks(3));
    Ok(each.filter_map(|(name, values)| good(ceph::decode_pool(name, values))).collect())
}

/// The volumes that have keys and can be read.
pub async fn volumes(cluster: &Cluster) -> Result<Vec<Volume>, Failure> {
    let mut volumes = Vec::new();
    for pool in names::<PoolName>(cluster, ceph::VOLUMES).await? {
        let names: Vec<VolumeName> = names(cluster, &format!("{}/{pool}", ceph::VOLUMES)).await?;
        let paths: Vec<_> = names.iter().map(|name| ceph::volume_paths(&pool, name)).collect();
        let values = cluster.store.get_many(&paths.concat()).await?;
        let each = names.iter().zip(values.chunks(2));
        volumes.extend(each.filter_map(|(name, values)| good(ceph::decode_volume(&pool, name, values))));
    }
    Ok(volumes)
}

/// The snapshots that have keys.
pub async fn snapshots(cluster: &Cluster) -> Result<Vec<Snapshot>, Failure> {
    let mut snapshots = Vec::new();
    for pool in names::<PoolName>(cluster, ceph::SNAPSHOTS).await? {
        let below = format!("{}/{pool}", ceph::SNAPSHOTS);
        for volume in names::<VolumeName>(cluster, &below).await? {
            let of = names::<SnapshotName>(cluster, &format!("{below}/{volume}")).await?;
            snapshots.extend(of.into_iter().map(|name| Snapshot {
                pool: pool.clone(),
                volume: volume.clone(),
                name,
            }));
        }
    }
    Ok(snapshots)
}

fn good<T>(entry: Option<Entry<T>>) -> Option<T> {
    match entry {
        Some(Entry::Good(object)) => Some(object),
        Some(Entry::Bad(_)) | None => None,
    }
}
