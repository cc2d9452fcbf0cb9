//! Reads what the cluster says of itself, in four questions to the monitors.

use std::collections::BTreeMap;

use pvc_core::model::ceph::{Figures, PoolFigures, PoolStats, Space};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::super::{
    CephError,
    cluster::Cluster,
    ffi::{ClusterStat, PoolStat},
};

/// Of the answer to `status`.
#[derive(Deserialize)]
struct Status {
    health: Health,
    osdmap: OsdMap,
}

#[derive(Deserialize)]
struct Health {
    status: String,
}

#[derive(Deserialize)]
#[allow(clippy::struct_field_names, reason = "Ceph's words")]
struct OsdMap {
    num_osds: u64,
    num_up_osds: u64,
    num_in_osds: u64,
}

/// Of the answer to `osd lspools`.
#[derive(Deserialize)]
struct Pool {
    poolnum: u64,
    poolname: String,
}

pub(super) fn ask(cluster: &Cluster) -> Result<Figures, CephError> {
    let status = cluster.ask_monitors(&json!({"prefix": "status"}).to_string())?;
    let Status { health, osdmap } = read(cluster, "status")?;
    let mut pools = BTreeMap::new();
    for Pool { poolnum, poolname } in read::<Vec<Pool>>(cluster, "osd lspools")? {
        // One that has been removed meanwhile.
        let Some(stat) = cluster.pool_stat(&poolname)? else { continue };
        pools.insert(poolname, pool(poolnum, &stat));
    }
    Ok(Figures {
        status: String::from_utf8_lossy(&status).into_owned(),
        health: health.status,
        osds: [osdmap.num_osds, osdmap.num_up_osds, osdmap.num_in_osds],
        space: space(&cluster.stat()?),
        pools,
    })
}

/// The answer to a question to the monitors.
pub(super) fn read<T: DeserializeOwned>(cluster: &Cluster, command: &str) -> Result<T, CephError> {
    let answer = cluster.ask_monitors(&json!({"prefix": command, "format": "json"}).to_string())?;
    serde_json::from_slice(&answer).map_err(|error| CephError::Strange(format!("{command}: {error}")))
}

fn kib(kib: u64) -> u64 {
    kib.saturating_mul(1024)
}

fn space(stat: &ClusterStat) -> Space {
    Space {
        objects: stat.num_objects,
        used_bytes: kib(stat.kb_used),
        free_bytes: kib(stat.kb_avail),
        total_bytes: kib(stat.kb),
    }
}

fn pool(id: u64, stat: &PoolStat) -> PoolFigures {
    PoolFigures {
        stats: stats(id, stat),
        compressed_bytes: stat.compressed_bytes_alloc,
        uncompressed_bytes: stat.compressed_bytes_orig,
    }
}

/// As old clients read them.
pub(super) fn stats(id: u64, stat: &PoolStat) -> PoolStats {
    PoolStats {
        id,
        size_bytes: stat.num_bytes,
        num_objects: stat.num_objects,
        num_object_clones: stat.num_object_clones,
        num_object_copies: stat.num_object_copies,
        num_objects_missing_on_primary: stat.num_objects_missing_on_primary,
        num_objects_unfound: stat.num_objects_unfound,
        num_objects_degraded: stat.num_objects_degraded,
        read_ops: stat.num_rd,
        read_bytes: kib(stat.num_rd_kb),
        write_ops: stat.num_wr,
        write_bytes: kib(stat.num_wr_kb),
    }
}
