//! What is asked of storage, as a line of text: clients of the 0.5 generation write it to `/cmd/domains` and `/cmd/ceph`, ours as a task.
//!
//! Every field is validated here, before anything is done with it: nothing of a line that does not parse is ever run.

mod device;

use std::{fmt, str::FromStr};

use super::{
    ceph::{ClientAddress, OsdId, PoolName, SnapshotName, VolumeName},
    name::{NameError, NodeName},
    vm_id::VmId,
};

pub use device::Device;

/// Why a command line is answered with a failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageCommandError {
    /// No such command.
    #[error("{0:?} is not a command")]
    Unknown(String),
    /// Too many or too few arguments.
    #[error("{command} takes {wanted} arguments, found {found}")]
    Arguments {
        /// The command.
        command: &'static str,
        /// How many it takes.
        wanted: usize,
        /// How many there were.
        found: usize,
    },
    /// An argument is not what it should be.
    #[error("{command}: {error}")]
    Invalid {
        /// The command.
        command: &'static str,
        /// What is wrong.
        error: NameError,
    },
}

/// The weight of an OSD.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weight(f64);

/// It is a number, always.
impl Eq for Weight {}

impl Weight {
    /// As a number.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl FromStr for Weight {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match text.parse::<f64>() {
            Ok(weight) if plain && weight.is_finite() => Ok(Self(weight)),
            _ => Err(invalid("weight", text, "a decimal number such as 1.0")),
        }
    }
}

/// A cluster-wide flag of OSDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsdFlag(&'static str);

impl OsdFlag {
    /// As Ceph names it.
    pub fn as_str(&self) -> &'static str {
        self.0
    }

    const ALL: [&'static str; 12] = [
        "pause",
        "noup",
        "nodown",
        "noout",
        "noin",
        "nobackfill",
        "norebalance",
        "norecover",
        "noscrub",
        "nodeep-scrub",
        "notieragent",
        "nosnaptrim",
    ];
}

impl FromStr for OsdFlag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let known = Self::ALL.into_iter().find(|flag| *flag == text);
        known.map(Self).ok_or_else(|| {
            invalid(
                "OSD flag",
                text,
                "pause, noup, nodown, noout, noin, nobackfill, norebalance, norecover, noscrub, nodeep-scrub, \
                 notieragent or nosnaptrim",
            )
        })
    }
}

/// One of them, or all: `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Only<T> {
    /// All.
    All,
    /// This one.
    One(T),
}

impl<T: PartialEq> Only<T> {
    /// Whether it is one of those; what is not known is only among all.
    pub fn wants(&self, which: Option<&T>) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => which == Some(one),
        }
    }
}

impl<T> From<Option<T>> for Only<T> {
    fn from(one: Option<T>) -> Self {
        one.map_or(Self::All, Self::One)
    }
}

impl<T: FromStr<Err = NameError>> FromStr for Only<T> {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "*" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

impl<T: fmt::Display> fmt::Display for Only<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::One(one) => one.fmt(f),
        }
    }
}

/// A number of placement groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PgCount(pub u32);

impl FromStr for PgCount {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(count) if plain && (1..=65_536).contains(&count) => Ok(Self(count)),
            _ => Err(invalid("number of placement groups", text, "a number from 1 to 65536")),
        }
    }
}

/// A volume's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Bytes {
    /// `20G`, `1.5T`: in powers of 1024, with at most one tenth, rounded down.
    pub fn in_words(self) -> String {
        let units = ["B", "K", "M", "G", "T", "P"];
        let at = (self.0.max(1).ilog2() / 10).min(5);
        let unit = units.get(at as usize).copied().unwrap_or_default();
        let tenths = (u128::from(self.0) * 10) >> (10 * at);
        match (tenths / 10, tenths % 10) {
            (whole, 0) => format!("{whole}{unit}"),
            (whole, tenth) => format!("{whole}.{tenth}{unit}"),
        }
    }
}

impl FromStr for Bytes {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor: Option<u64> = match &text[digits.len()..] {
            "" | "B" => Some(1),
            "K" => Some(1 << 10),
            "M" => Some(1 << 20),
            "G" => Some(1 << 30),
            "T" => Some(1 << 40),
            _ => None,
        };
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let bytes = factor.filter(|_| plain).and_then(|f| digits.parse::<u64>().ok()?.checked_mul(f));
        match bytes {
            Some(bytes) if bytes > 0 => Ok(Self(bytes)),
            _ => Err(invalid("size", text, "a number of bytes such as 20971520B, or with K, M, G or T")),
        }
    }
}

macro_rules! displayed {
    ($($name:ident $suffix:literal),+) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{}", $suffix), self.0)
            }
        })+
    };
}
displayed!(Device "", Weight "", OsdFlag "", PgCount "", Bytes "B");

macro_rules! commands {
    ($($(#[$doc:meta])* $variant:ident = $word:literal ($($field:ident: $type:ty),+),)+) => {
        /// One command with its arguments.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs, reason = "the arguments are the contract's")]
        pub enum StorageCommand {
            $($(#[$doc])* $variant { $($field: $type),+ },)+
        }

        impl FromStr for StorageCommand {
            type Err = StorageCommandError;

            fn from_str(line: &str) -> Result<Self, StorageCommandError> {
                let (word, arguments) = line.split_once(' ').unwrap_or((line, ""));
                let arguments: Vec<&str> = arguments.split(',').collect();
                match word {
                    $($word => {
                        let mut given = arguments.iter();
                        let wanted = [$(stringify!($field)),+].len();
                        if arguments.len() != wanted {
                            return Err(StorageCommandError::Arguments { command: $word, wanted, found: arguments.len() });
                        }
                        Ok(Self::$variant {
                            $($field: given.next().copied().unwrap_or_default().parse()
                                .map_err(|error| StorageCommandError::Invalid { command: $word, error })?,)+
                        })
                    })+
                    other => Err(StorageCommandError::Unknown(other.chars().take(64).collect())),
                }
            }
        }

        impl fmt::Display for StorageCommand {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant { $($field),+ } => {
                        let arguments = [$($field.to_string()),+];
                        write!(f, concat!($word, " {}"), arguments.join(","))
                    })+
                }
            }
        }
    };
}

commands! {
    /// Breaks the RBD locks of a VM's volumes. In `/cmd/domains`, all others in `/cmd/ceph`.
    FlushLocks = "flush_locks" (vm: VmId),
    /// Looks who holds the locks of images. **(ours)**, as are the next two.
    Locks = "locks" (pool: Only<PoolName>),
    /// Looks who is shut out of the storage.
    FenceList = "fence_list" (node: Only<NodeName>),
    /// Lets clients in again whose processes are proven dead.
    FenceLift = "fence_lift" (client: Only<ClientAddress>),
    /// Makes a device an OSD.
    OsdAdd = "osd_add" (node: NodeName, device: Device, weight: Weight),
    /// Destroys an OSD.
    OsdRemove = "osd_remove" (id: OsdId),
    /// Takes an OSD into use.
    OsdIn = "osd_in" (id: OsdId),
    /// Takes an OSD out of use.
    OsdOut = "osd_out" (id: OsdId),
    /// Sets a flag.
    OsdSet = "osd_set" (flag: OsdFlag),
    /// Clears a flag.
    OsdUnset = "osd_unset" (flag: OsdFlag),
    /// Creates a pool.
    PoolAdd = "pool_add" (pool: PoolName, pgs: PgCount),
    /// Destroys a pool.
    PoolRemove = "pool_remove" (pool: PoolName),
    /// Creates a volume.
    VolumeAdd = "volume_add" (pool: PoolName, volume: VolumeName, size: Bytes),
    /// Changes a volume's size.
    VolumeResize = "volume_resize" (pool: PoolName, volume: VolumeName, size: Bytes),
    /// Renames a volume.
    VolumeRename = "volume_rename" (pool: PoolName, volume: VolumeName, new: VolumeName),
    /// Makes a volume that holds what another one holds now, or what a snapshot of it holds. **(ours)**
    VolumeClone = "volume_clone" (pool: PoolName, volume: VolumeName, new: VolumeName, snapshot: Only<SnapshotName>),
    /// Destroys a volume.
    VolumeRemove = "volume_remove" (pool: PoolName, volume: VolumeName),
    /// Takes a snapshot.
    SnapshotAdd = "snapshot_add" (pool: PoolName, volume: VolumeName, snapshot: SnapshotName),
    /// Renames a snapshot.
    SnapshotRename = "snapshot_rename" (pool: PoolName, volume: VolumeName, snapshot: SnapshotName, new: SnapshotName),
    /// Destroys a snapshot.
    SnapshotRemove = "snapshot_remove" (pool: PoolName, volume: VolumeName, snapshot: SnapshotName),
    /// Makes a volume hold what it held then. **(ours)**
    SnapshotRollback = "snapshot_rollback" (pool: PoolName, volume: VolumeName, snapshot: SnapshotName),
}

impl StorageCommand {
    /// Whether it is about which OSDs are in use, or their flags.
    pub fn is_of_osds(&self) -> bool {
        matches!(self, Self::OsdIn { .. } | Self::OsdOut { .. } | Self::OsdSet { .. } | Self::OsdUnset { .. })
    }

    /// Whether the node that has the device carries it out, and not the primary.
    pub fn is_of_a_device(&self) -> bool {
        matches!(self, Self::OsdAdd { .. } | Self::OsdRemove { .. })
    }

    /// What is asked for, in words: `add volume vms/web1 of 20G`.
    pub fn in_words(&self) -> String {
        match self {
            Self::FlushLocks { vm } => format!("take the locks of the volumes of VM {vm}"),
            Self::Locks { pool: Only::All } => "look who holds locks of images".to_owned(),
            Self::Locks { pool: Only::One(pool) } => format!("look who holds locks of images of pool {pool}"),
            Self::FenceList { node: Only::All } => "look who is shut out of the storage".to_owned(),
            Self::FenceList { node: Only::One(node) } => {
                format!("look which clients of {node} are shut out of the storage")
            }
            Self::FenceLift { client: Only::All } => {
                "let in again all clients whose processes are proven dead".to_owned()
            }
            Self::FenceLift { client: Only::One(client) } => format!("let client {client} in again"),
            Self::OsdAdd { node, device, weight } => {
                format!("make {device} of {node} an OSD of weight {weight}")
            }
            Self::OsdRemove { id } => format!("remove OSD {id}"),
            Self::OsdIn { id } => format!("take OSD {id} into use"),
            Self::OsdOut { id } => format!("take OSD {id} out of use"),
            Self::OsdSet { flag } => format!("set the OSDs' flag {flag}"),
            Self::OsdUnset { flag } => format!("clear the OSDs' flag {flag}"),
            Self::PoolAdd { pool, pgs } => format!("add pool {pool} with {pgs} placement groups"),
            Self::PoolRemove { pool } => format!("remove pool {pool}"),
            Self::VolumeAdd { pool, volume, size } => {
                format!("add volume {pool}/{volume} of {}", size.in_words())
            }
            Self::VolumeResize { pool, volume, size } => {
                format!("resize volume {pool}/{volume} to {}", size.in_words())
            }
            Self::VolumeRename { pool, volume, new } => format!("rename volume {pool}/{volume} to {new}"),
            Self::VolumeClone { pool, volume, new, snapshot: Only::All } => {
                format!("clone volume {pool}/{volume} as {new}")
            }
            Self::VolumeClone { pool, volume, new, snapshot: Only::One(snapshot) } => {
                format!("clone snapshot {pool}/{volume}@{snapshot} as {new}")
            }
            Self::VolumeRemove { pool, volume } => format!("remove volume {pool}/{volume}"),
            Self::SnapshotAdd { pool, volume, snapshot } => {
                format!("take snapshot {pool}/{volume}@{snapshot}")
            }
            Self::SnapshotRename { pool, volume, snapshot, new } => {
                format!("rename snapshot {pool}/{volume}@{snapshot} to {new}")
            }
            Self::SnapshotRollback { pool, volume, snapshot } => {
                format!("roll volume {pool}/{volume} back to snapshot {snapshot}")
            }
            Self::SnapshotRemove { pool, volume, snapshot } => {
                format!("remove snapshot {pool}/{volume}@{snapshot}")
            }
        }
    }
}

fn invalid(what: &'static str, found: &str, allowed: &'static str) -> NameError {
    NameError { what, found: found.to_owned(), allowed }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1K"),
            (1536, "1.5K"),
            (20 << 30, "20G"),
            (u64::MAX, "16383.9P"),
        ] {
            assert_eq!(Bytes(bytes).in_words(), text);
        }
    }

    #[test]
    fn every_command_of_the_contract_is_read_and_written_back() {
        for line in [
            "flush_locks 11111111-0000-4000-8000-000000000001",
            "osd_add node1,/dev/disk/by-id/scsi-0QEMU_x:1,1.5",
            "osd_remove 3",
            "osd_in 0",
            "osd_out 12",
            "osd_set noout",
            "osd_unset nodeep-scrub",
            "pool_add vms,128",
            "pool_remove vms",
            "volume_add vms,web_sda,20971520B",
            "volume_resize vms,web_sda,20971520B",
            "volume_rename vms,web_sda,web_sdb",
            "volume_clone vms,web_sda,web2_sda,*",
            "volume_clone vms,web_sda,web2_sda,daily",
            "volume_remove vms,web_sda",
            "snapshot_add vms,web_sda,before-1.0",
            "snapshot_rename vms,web_sda,a,b",
            "snapshot_remove vms,web_sda,a",
            "snapshot_rollback vms,web_sda,a",
        ] {
            assert_eq!(line.parse::<StorageCommand>().unwrap().to_string(), line);
        }
        let short: StorageCommand = "volume_add vms,x,2G".parse().unwrap();
        assert_eq!(short.to_string(), "volume_add vms,x,2147483648B");
    }

    #[test]
    fn hostile_and_malformed_lines_are_refused() {
        for line in [
            "",
            "osd_add",
            "osd_add node1,/dev/sdb",
            "osd_add node1,/dev/../etc/passwd,1",
            "osd_add node1,/etc/passwd,1",
            "osd_add node1,/dev/sdb;reboot,1",
            "osd_add node1,/dev/sdb,NaN",
            "osd_add node1,/dev/sdb,-1",
            "osd_remove -1",
            "osd_remove 01",
            "osd_set full",
            "pool_add $(reboot),1",
            "pool_add vms,0",
            "pool_remove -x",
            "volume_add vms,a/b,1B",
            "volume_add vms,a@b,1B",
            "volume_add vms,a,99999999999999999999B",
            "volume_add vms,a,99999999T",
            "volume_add vms,a,0B",
            "volume_remove vms,a,b",
            "flush_locks x",
            "reboot now",
        ] {
            assert!(line.parse::<StorageCommand>().is_err(), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_never_panics_and_what_is_accepted_is_stable(line in "\\PC{0,60}|[a-z_]{3,15} [\\PC,]{0,30}") {
            if let Ok(command) = line.parse::<StorageCommand>() {
                prop_assert_eq!(command.to_string().parse::<StorageCommand>().unwrap(), command);
            }
        }
    }
}
