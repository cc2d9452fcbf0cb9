//! The arguments of `pvc storage …` and `pvc task …`.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use pvc_core::model::{
    NodeName,
    ceph::{ClientAddress, OsdId, PoolName, SnapshotName, VolumeName},
    name::NameError,
    storage_command::{Bytes, Device, Only, OsdFlag, PgCount, Weight},
    task::TaskId,
};
use regex_lite::Regex;

use super::{regex, seconds};

#[derive(Debug, Subcommand)]
pub(crate) enum Storage {
    /// Show what Ceph says of itself.
    Status,
    /// Show how much each pool holds.
    Df,
    /// Work with pools.
    #[command(subcommand)]
    Pool(Pool),
    /// Work with volumes, the disks of VMs.
    #[command(subcommand)]
    Volume(Volume),
    /// Work with snapshots of volumes.
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Work with OSDs, the disks that hold it all.
    #[command(subcommand)]
    Osd(Osd),
    /// Show who holds the locks of volumes, those who are not heard any more first.
    Locks {
        #[command(flatten)]
        change: Change,
        /// Only of this pool.
        #[arg(short, long, value_name = "POOL")]
        pool: Option<PoolName>,
    },
    /// Work with the clients of dead nodes and ended VMs, which are shut out of the storage.
    #[command(subcommand)]
    Fence(StorageFence),
}

#[derive(Debug, Subcommand)]
pub(crate) enum StorageFence {
    /// Show who is shut out, whose each is, until when, and whether it may be let in again.
    List {
        #[command(flatten)]
        change: Change,
        /// Only clients of this node.
        #[arg(short, long, value_name = "NODE")]
        node: Option<NodeName>,
    },
    /// Let clients in again. Refused unless their machine has booted since: a process that lives goes on writing where it stopped.
    Lift {
        #[command(flatten)]
        removal: Removal,
        /// A client's address as `list` shows it, or `all`: all whose processes are proven dead.
        #[arg(value_parser = client)]
        client: Only<ClientAddress>,
    },
}

fn client(text: &str) -> Result<Only<ClientAddress>, String> {
    if text == "all" {
        Ok(Only::All)
    } else {
        text.parse().map(Only::One).map_err(|error: NameError| error.to_string())
    }
}

/// A change is a task of the primary coordinator.
#[derive(Debug, ClapArgs)]
pub(crate) struct Change {
    /// Return when the task is asked for.
    #[arg(long, conflicts_with = "within")]
    pub(crate) no_wait: bool,
    /// How long to wait until it is done.
    #[arg(long, default_value = "600", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) within: Duration,
}

/// A change that cannot be taken back.
#[derive(Debug, ClapArgs)]
pub(crate) struct Removal {
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) change: Change,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pool {
    /// Add a pool, which keeps three copies of everything.
    Add {
        #[command(flatten)]
        change: Change,
        /// Its name.
        pool: PoolName,
        /// How many placement groups it has.
        #[arg(default_value = "128")]
        pgs: PgCount,
    },
    /// Remove a pool. Refused while it has volumes.
    Remove {
        #[command(flatten)]
        removal: Removal,
        /// Its name.
        pool: PoolName,
    },
    /// List pools.
    List {
        /// Only pools whose name matches this regular expression.
        #[arg(value_parser = regex)]
        limit: Option<Regex>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// Add a volume.
    Add {
        #[command(flatten)]
        change: Change,
        /// The pool that it is in.
        pool: PoolName,
        /// Its name there.
        volume: VolumeName,
        /// How large it is: a number with K, M, G or T (powers of 1024), or with B for bytes.
        size: Bytes,
    },
    /// Make a volume larger, or smaller with --force.
    Resize {
        #[command(flatten)]
        change: Change,
        /// Also make it smaller: what is beyond the new size is lost. Refused for a volume of a VM.
        #[arg(long)]
        force: bool,
        /// The pool that it is in.
        pool: PoolName,
        /// Its name there.
        volume: VolumeName,
        /// The new size, as for `add`.
        size: Bytes,
    },
    /// Give a volume another name. Refused for a volume of a VM.
    Rename {
        #[command(flatten)]
        change: Change,
        /// The pool that it is in.
        pool: PoolName,
        /// Its name there.
        volume: VolumeName,
        /// Its new name.
        new: VolumeName,
    },
    /// Make a volume that holds what another one holds now, also while its VM runs, or what a snapshot of it holds. It depends on neither.
    Clone {
        #[command(flatten)]
        change: Change,
        /// Copy this snapshot; without, one is taken for it, and removed when it is copied.
        #[arg(long, value_name = "SNAPSHOT")]
        snapshot: Option<SnapshotName>,
        /// The pool that it is in, and the new one will be.
        pool: PoolName,
        /// The volume that is copied.
        volume: VolumeName,
        /// The name of the new volume.
        new: VolumeName,
    },
    /// Remove a volume with all that is on it. Refused while a VM is defined that has it, and while it has snapshots.
    Remove {
        #[command(flatten)]
        removal: Removal,
        /// The pool that it is in.
        pool: PoolName,
        /// Its name there.
        volume: VolumeName,
    },
    /// List volumes.
    List {
        /// Only those of this pool.
        #[arg(short, long, value_name = "POOL")]
        pool: Option<PoolName>,
        /// Only volumes whose name matches this regular expression.
        #[arg(value_parser = regex)]
        limit: Option<Regex>,
    },
    /// The same as `pvc storage snapshot`, for older scripts.
    #[command(subcommand, hide = true)]
    Snapshot(Snapshot),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Take a snapshot of a volume, as it is now.
    Add {
        #[command(flatten)]
        change: Change,
        /// The pool.
        pool: PoolName,
        /// The volume.
        volume: VolumeName,
        /// The snapshot's name.
        snapshot: SnapshotName,
    },
    /// Give a snapshot another name.
    Rename {
        #[command(flatten)]
        change: Change,
        /// The pool.
        pool: PoolName,
        /// The volume.
        volume: VolumeName,
        /// The snapshot's name.
        snapshot: SnapshotName,
        /// Its new name.
        new: SnapshotName,
    },
    /// Remove a snapshot.
    Remove {
        #[command(flatten)]
        removal: Removal,
        /// The pool.
        pool: PoolName,
        /// The volume.
        volume: VolumeName,
        /// The snapshot's name.
        snapshot: SnapshotName,
    },
    /// Make a volume hold again what it held when a snapshot was taken: what was written since is lost. Refused while a VM uses it.
    Rollback {
        #[command(flatten)]
        removal: Removal,
        /// The pool.
        pool: PoolName,
        /// The volume.
        volume: VolumeName,
        /// The snapshot's name.
        snapshot: SnapshotName,
    },
    /// List snapshots.
    List {
        /// Only those of this pool.
        #[arg(short, long, value_name = "POOL")]
        pool: Option<PoolName>,
        /// Only those of this volume.
        #[arg(short, long, value_name = "VOLUME")]
        volume: Option<VolumeName>,
        /// Only snapshots whose name matches this regular expression.
        #[arg(value_parser = regex)]
        limit: Option<Regex>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Osd {
    /// Make a device of a node an OSD. It must be blank.
    Add {
        #[command(flatten)]
        removal: Removal,
        /// How much of the data it gets, beside others.
        #[arg(short, long, default_value = "1.0")]
        weight: Weight,
        /// Clear the device first, whatever is on it. One that is in use, or that a VM has for a disk, is left alone all the same.
        #[arg(long)]
        wipe: bool,
        /// The node that has the device.
        node: NodeName,
        /// The device, such as `/dev/sdb`, best by a name in `/dev/disk/by-id`.
        device: Device,
    },
    /// Remove an OSD, and all that is on its device, when its data is elsewhere.
    Remove {
        #[command(flatten)]
        removal: Removal,
        /// Also if its node is dead, or none of the cluster: Ceph forgets it, and its device stays as it is.
        #[arg(long)]
        force: bool,
        /// Its number.
        osd: OsdId,
    },
    /// Let data be on an OSD.
    In {
        #[command(flatten)]
        change: Change,
        /// Its number.
        osd: OsdId,
    },
    /// Have all data leave an OSD, which goes on working.
    Out {
        #[command(flatten)]
        change: Change,
        /// Its number.
        osd: OsdId,
    },
    /// Set a flag of all OSDs, such as noout.
    Set {
        #[command(flatten)]
        change: Change,
        /// The flag.
        flag: OsdFlag,
    },
    /// Clear a flag of all OSDs.
    Unset {
        #[command(flatten)]
        change: Change,
        /// The flag.
        flag: OsdFlag,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// List tasks, the oldest first: those that are not over, and the last hundred that are.
    List,
    /// Show one task.
    Info {
        /// Its number.
        task: TaskId,
    },
    /// Wait until a task is over.
    Wait {
        /// How long to wait at most.
        #[arg(long, default_value = "3600", value_parser = seconds, value_name = "SECONDS")]
        within: Duration,
        /// Its number.
        task: TaskId,
    },
    /// End a task before it is done: at once if nobody has begun it, otherwise as soon as that is safe.
    Cancel {
        #[command(flatten)]
        change: Change,
        /// Its number.
        task: TaskId,
    },
}
