//! What a Ceph cluster says of itself.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::PoolStats;

/// At one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// The text of `ceph status`.
    pub status: String,
    /// `HEALTH_OK` …
    pub health: String,
    /// OSDs that there are, that are up, that are in.
    pub osds: [u64; 3],
    /// Of all OSDs together.
    pub space: Space,
    /// By name, as Ceph has it.
    pub pools: BTreeMap<String, PoolFigures>,
}

/// When they were refreshed last, or why they were not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// The node that asked Ceph.
    pub by: String,
    /// When Ceph answered last, by that node's clock, seconds since 1970: for people.
    pub at_unix_s: Option<u64>,
    /// Why it has not answered since; `None`: it has.
    pub trouble: Option<String>,
}

/// Bytes, and what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the fields are what they are called")]
pub struct Space {
    pub objects: u64,
    pub used_bytes: u64,
    pub free_bytes: u64,
    pub total_bytes: u64,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolFigures {
    /// What clients are shown.
    pub stats: PoolStats,
    /// Bytes that compressed data takes.
    pub compressed_bytes: u64,
    /// Bytes that it would take.
    pub uncompressed_bytes: u64,
}

impl fmt::Display for Figures {
    /// `HEALTH_OK; 3 OSDs: 3 up, 3 in; 12 of 300 GiB used`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GIB: u64 = 1 << 30;
        let (health, [all, up, taking], space) = (&self.health, self.osds, self.space);
        let (used, total) = (space.used_bytes / GIB, space.total_bytes / GIB);
        write!(f, "{health}; {all} OSDs: {up} up, {taking} in; {used} of {total} GiB used")
    }
}
