//! Storage as the state tree describes it: OSDs, pools, volumes, snapshots.

mod figures;

pub use figures::{Figures, PoolFigures, Refreshed, Space};

use std::{collections::BTreeSet, fmt, net::SocketAddr, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    name::{NameError, NodeName},
    vm_id::VmId,
};

macro_rules! storage_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                // Narrower than Ceph's own rules: `/` and `@` separate parts of an image's name, a comma ends an argument,
                // a leading `-` would be an option.
                let first_ok = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
                let rest_ok = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
                if first_ok && rest_ok && text.len() <= 96 {
                    return Ok(Self(text.to_owned()));
                }
                Err(NameError {
                    what: $what,
                    found: text.to_owned(),
                    allowed: "letters, digits, '.', '_' and '-', beginning with a letter, digit or '_', at most 96 characters",
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

storage_name! {
    /// A pool's name.
    PoolName, "pool name"
}
storage_name! {
    /// A volume's (RBD image's) name.
    VolumeName, "volume name"
}
storage_name! {
    /// A snapshot's name.
    SnapshotName, "snapshot name"
}

impl PoolName {
    /// How a pool is named while a task removes it; `mark` is the task's.
    pub fn of_task(mark: &TaskMark) -> Self {
        Self(format!("pvc-task-{mark}"))
    }
}

impl VolumeName {
    /// How an image is named while a task of several steps works on it; `mark` is the task's.
    pub fn of_task(mark: &TaskMark) -> Self {
        Self(format!("pvc-task-{mark}"))
    }
}

impl SnapshotName {
    /// How a snapshot is named that a task takes for itself.
    pub fn of_task(mark: &TaskMark) -> Self {
        Self(format!("pvc-task-{mark}"))
    }
}

/// Distinguishes a task from every other of this Ceph cluster, also if the state tree was made anew since: its number, and when it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskMark {
    /// Its number.
    pub id: u32,
    /// In seconds since 1970.
    pub asked_unix_s: u64,
}

impl fmt::Display for TaskMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.id, self.asked_unix_s)
    }
}

/// An RBD image: `pool/image`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName {
    /// The pool that it is in.
    pub pool: PoolName,
    /// Its name there.
    pub volume: VolumeName,
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError {
            what: "RBD image",
            found: text.to_owned(),
            allowed: "a pool's name, '/', a volume's name",
        };
        let (pool, volume) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Self { pool: pool.parse()?, volume: volume.parse()? })
    }
}

impl TryFrom<String> for ImageName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(value: ImageName) -> Self {
        value.to_string()
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.volume)
    }
}

/// The address of one client of Ceph: `10.0.0.1:0/1234567`. The number behind the slash tells the clients of one host apart; a client
/// that connects anew has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientAddress {
    /// Of the host, in the network of the storage.
    pub host: SocketAddr,
    /// Tells the clients of one host apart; 0 would be all of them, and is no client's.
    nonce: NonZeroU32,
}

impl FromStr for ClientAddress {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError {
            what: "address of a Ceph client",
            found: text.chars().take(80).collect(),
            allowed: "an address, ':', a port, '/', a number that is not 0",
        };
        // How it speaks to the monitors does not make it another client.
        let bare = ["v1:", "v2:", "any:"].iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text);
        let (host, nonce) = bare.split_once('/').ok_or_else(wrong)?;
        Ok(Self { host: host.parse().map_err(|_| wrong())?, nonce: nonce.parse().map_err(|_| wrong())? })
    }
}

impl TryFrom<String> for ClientAddress {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ClientAddress> for String {
    fn from(value: ClientAddress) -> Self {
        value.to_string()
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.nonce)
    }
}

/// The lock of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lock {
    /// Its holder, in Ceph's words (`client.4123`).
    pub client: String,
    /// Which of the holder's locks.
    pub cookie: String,
    /// Where its holder is.
    pub address: ClientAddress,
}

/// Who uses an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Users {
    /// Those that have it open for writing and have been heard within the last half minute.
    pub watchers: Vec<ClientAddress>,
    /// Who may write: one, unless the image is shared on purpose. It outlives its holder.
    pub locks: Vec<Lock>,
}

impl Users {
    /// Where all of them are, doubled where one watches and holds the lock.
    pub fn addresses(&self) -> impl Iterator<Item = ClientAddress> {
        self.watchers.iter().copied().chain(self.locks.iter().map(|lock| lock.address))
    }
}

/// The clients of Ceph by which one instance of a VM writes: recorded after its start, so that exactly these can be shut out when it
/// must not write any more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VmClients {
    /// Where they are, one a disk as a rule.
    pub clients: BTreeSet<ClientAddress>,
    /// What they have open.
    pub images: BTreeSet<ImageName>,
    /// The boot of their machine in which the last of them was recorded: none of them lives in a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

/// Whose a client is that was shut out: kept until it is let in again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutOut {
    /// What wrote by it.
    #[serde(flatten)]
    pub whose: Whose,
    /// Where.
    pub node: NodeName,
    /// See [`VmClients::boot`].
    pub boot: Option<String>,
}

/// What wrote by a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// A VM.
    Vm(VmId),
    /// The task of this number, for which a daemon changed an image.
    Task(u32),
}

/// The client by which a daemon changes an image for a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changer {
    /// Where it is.
    pub client: ClientAddress,
    /// On which node.
    pub node: NodeName,
    /// See [`VmClients::boot`].
    pub boot: Option<String>,
}

/// One record of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Whose.
    pub vm: VmId,
    /// Where that executes, or executed.
    pub node: NodeName,
    /// What is recorded.
    pub clients: VmClients,
    /// The record's version, for compare-and-set.
    pub version: i32,
}

/// An OSD's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OsdId(pub u32);

impl FromStr for OsdId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse::<u32>() {
            Ok(id) if id.to_string() == text => Ok(Self(id)),
            _ => Err(NameError { what: "OSD number", found: text.to_owned(), allowed: "a decimal number" }),
        }
    }
}

impl fmt::Display for OsdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `/ceph/osds/<id>`.
#[derive(Debug, Clone, PartialEq)]
pub struct Osd {
    /// The key.
    pub id: OsdId,
    /// The short name of the host it is on; any text, as Ceph says it.
    pub node: String,
    /// Its block device.
    pub device: String,
    /// `None` until known.
    pub stats: Option<OsdStats>,
}

/// What Ceph says of an OSD, in the JSON form of old clients.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the words of old clients' JSON")]
pub struct OsdStats {
    pub uuid: String,
    /// 0 or 1.
    pub up: u8,
    /// 0 or 1.
    pub r#in: u8,
    pub primary_affinity: f64,
    pub utilization: f64,
    pub var: f64,
    pub pgs: u64,
    pub kb: u64,
    pub weight: f64,
    pub reweight: f64,
    pub node: String,
    pub used: String,
    pub avail: String,
    pub wr_ops: String,
    pub wr_data: String,
    pub rd_ops: String,
    pub rd_data: String,
    pub state: String,
}

/// `/ceph/pools/<pool>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The key.
    pub name: PoolName,
    /// Placement groups.
    pub pgs: u32,
    /// `None` until known.
    pub stats: Option<PoolStats>,
}

/// What Ceph says of a pool, in the JSON form of old clients.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the words of old clients' JSON")]
pub struct PoolStats {
    pub id: u64,
    pub size_bytes: u64,
    pub num_objects: u64,
    pub num_object_clones: u64,
    pub num_object_copies: u64,
    pub num_objects_missing_on_primary: u64,
    pub num_objects_unfound: u64,
    pub num_objects_degraded: u64,
    pub read_ops: u64,
    pub read_bytes: u64,
    pub write_ops: u64,
    pub write_bytes: u64,
}

/// What `rbd info` says of a volume, as far as clients need it; its other words are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeStats {
    /// Bytes.
    pub size: u64,
    /// Objects that it may take.
    pub objects: u64,
    /// An object has 2^order bytes.
    pub order: u8,
    /// Image format.
    pub format: u8,
    /// By name.
    pub features: Vec<String>,
}

/// `/ceph/volumes/<pool>/<volume>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The pool that it is in.
    pub pool: PoolName,
    /// Its name there.
    pub name: VolumeName,
    /// `None` until known.
    pub stats: Option<VolumeStats>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_clients_are_those_of_one_client_and_images_have_a_pool() {
        for (text, told) in [
            ("10.0.0.1:0/4711", Some("10.0.0.1:0/4711")),
            ("v1:10.0.0.1:0/4711", Some("10.0.0.1:0/4711")),
            ("[fd00::1]:0/4711", Some("[fd00::1]:0/4711")),
            // Every client of a host, and a range of hosts.
            ("10.0.0.1:0/0", None),
            ("10.0.0.0:0/4711/24", None),
            ("10.0.0.1:0", None),
            ("", None),
        ] {
            let read = text.parse::<ClientAddress>().map(|client| client.to_string());
            assert_eq!(read.ok().as_deref(), told, "{text}");
        }
        for (text, good) in
            [("vms/one", true), ("vms/one@old", false), ("one", false), ("/", false), ("vms/a/b", false)]
        {
            assert_eq!(
                text.parse::<ImageName>().is_ok_and(|image| image.to_string() == text),
                good,
                "{text}"
            );
        }
    }
}
