//! OSDs as they are made and removed: what Ceph says of each, what is on a node's devices.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    ceph::{OsdId, TaskMark},
    domain::HostDevice,
    storage_command::{Device, Weight},
};

/// Tells an OSD from every other that had its number before, or will have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OsdUuid(String);

impl OsdUuid {
    /// By which a task takes the number of a new OSD: always the same one.
    pub fn of_task(mark: &TaskMark) -> Self {
        let (asked, id) = (mark.asked_unix_s, mark.id);
        let part = |shift: u32| (asked >> shift) & 0xffff;
        Self(format!("70766364-{:04x}-{:04x}-{:04x}-{id:012x}", part(32), part(16), part(0)))
    }

    /// What Ceph has instead of that of an OSD that was destroyed.
    pub fn none() -> Self {
        Self("00000000-0000-0000-0000-000000000000".to_owned())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for OsdUuid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let groups = text.split('-').map(str::len);
        let plain = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b) || b == b'-');
        if plain && groups.eq([8, 4, 4, 4, 12]) {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is no UUID"))
        }
    }
}

impl From<OsdUuid> for String {
    fn from(uuid: OsdUuid) -> Self {
        uuid.0
    }
}

impl fmt::Display for OsdUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The OSD that a task makes or removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TasksOsd {
    /// Of one that is to go: its own. Of a new one: the one by which its number was taken.
    pub uuid: OsdUuid,
    /// Its number, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// Of a new one: the task has begun to write to the device, which was as it should be before, and what is on it is this task's. Of one that is to go: it was
    /// taken out of use.
    #[serde(default)]
    pub writes: bool,
    /// Of a new one: the device that it writes to, see [`ObservedDevice::identity`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl TasksOsd {
    /// Whether this is the device that the task writes to. After a boot its name may be another one's: then nothing of it is known.
    pub fn may_touch(&self, device: Option<&ObservedDevice>) -> bool {
        device.is_some_and(|device| self.device.as_ref() == Some(&device.identity))
    }
}

/// What Ceph says of an OSD.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "Ceph says each of them by itself")]
pub struct ObservedOsd {
    /// See [`OsdUuid`].
    pub uuid: OsdUuid,
    /// Data is on it, or goes to it.
    pub is_in: bool,
    /// Its daemon is heard.
    pub is_up: bool,
    /// Its daemon was heard once.
    pub was_up: bool,
    /// Its number is taken, and nothing else is left of it.
    pub is_destroyed: bool,
    /// How much of the data it gets, beside others.
    pub weight: Option<f64>,
    /// The short name of the host that its daemon was on last.
    pub host: Option<String>,
    /// Placement groups that it has.
    pub pgs: u64,
    /// What it can hold, in KiB.
    pub kib: u64,
    /// What of it is used, in KiB.
    pub kib_used: u64,
    /// What would have to go elsewhere, in KiB.
    pub kib_data: u64,
}

/// All OSDs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Osds {
    /// By number.
    pub all: BTreeMap<OsdId, ObservedOsd>,
    /// The most copies that a pool keeps, and which.
    pub most_copies: Option<(u32, String)>,
    /// The same of pools that keep each copy on another host.
    pub most_hosts: Option<(u32, String)>,
}

/// A device of this node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ObservedDevice {
    /// Tells it from every other of this node until that boots.
    pub identity: String,
    /// Who uses it now, or a part of it: `it is mounted on /srv`.
    pub used: Option<String>,
    /// What is on it: `a partition table`.
    pub holds: Option<String>,
    /// The OSD that it holds.
    pub osd: Option<OsdUuid>,
    /// Of the names that were asked about, the first that is this device's, or one's that it is a part of, or that is a part of it.
    pub named: Option<HostDevice>,
    /// In bytes.
    pub size: u64,
}

/// What this node has of an OSD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalOsd {
    /// As its folder says; none if it was not finished.
    pub uuid: Option<OsdUuid>,
    /// Its daemon runs.
    pub runs: bool,
    /// The device behind it; none if the folder names none, or there is none by that name.
    pub device: Option<Device>,
}

/// A share of the data.
pub fn is_weight(found: Option<f64>, wanted: Weight) -> bool {
    // Ceph keeps 16 bits behind the point.
    found.is_some_and(|found| (found - wanted.value()).abs() < 1.5 / 65536.0)
}
