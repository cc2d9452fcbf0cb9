//! One task of storage: from what is asked and what Ceph has to the next step.
//!
//! A task that waits is checked first, and begun only if it can be carried out. One that was begun may be done in part, by a daemon that is no
//! more: what Ceph has says how far it is, and it is carried on from there. The state tree follows when Ceph has agreed to all of it.

mod locks;
mod shut_out;
#[cfg(test)]
mod tests;
mod volume;

pub use self::{
    locks::Locks,
    shut_out::{Entry, ShutOuts, locks},
};
use std::collections::BTreeSet;

use super::storage_fence::Request;
use crate::model::{
    StorageCommand, VmName,
    ceph::{ClientAddress, ImageName, OsdId, PoolName, Space, VolumeName},
    found::Found,
    storage::{CephChange, Hidden, ObservedImage, ObservedPool, OsdMap, TreeChange},
    storage_command::{OsdFlag, PgCount},
    task::{Task, TaskState},
};

/// How many copies of each object a pool keeps, and with how many it still takes writes.
const COPIES: (u32, u32) = (3, 2);

/// A cluster that is used to this share, in percent, gets no new volumes: one that is full takes no writes from anybody.
pub const FULLEST_PERCENT: u64 = 80;

/// What a task is planned from: of Ceph only what its command names.
#[derive(Debug, Default)]
pub struct Facts {
    /// The pool.
    pub pool: Option<ObservedPool>,
    /// The names of its images.
    pub images: Vec<String>,
    /// What else is in it.
    pub hidden: Hidden,
    /// The image.
    pub image: Option<ObservedImage>,
    /// The image by the name that it is to have.
    pub renamed: Option<ObservedImage>,
    /// The OSDs.
    pub osds: OsdMap,
    /// How full the cluster is.
    pub space: Space,
    /// Whether the state tree has the object that is to go.
    pub is_in_tree: bool,
    /// The VMs whose definitions name the volume, or a volume of the pool.
    pub used_by: Vec<VmName>,
    /// A VM that cannot be read: whether it names them nobody knows.
    pub unreadable: Option<String>,
    /// What is left of the VM.
    pub locks: Locks,
    /// Who is shut out.
    pub shut_out: ShutOuts,
    /// What was to be looked for.
    pub found: Option<Found>,
    /// What Ceph has just refused, and its words.
    pub refused: Option<(CephChange, String)>,
    /// Ceph refuses to be asked about it: nothing else is known.
    pub impossible: Option<String>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Record that it is carried out from now on.
    Begin,
    /// Have Ceph do this.
    Change(CephChange),
    /// Shut these out, and take their locks.
    ShutOut(Request),
    /// Let these in again.
    Lift(BTreeSet<ClientAddress>),
    /// It is over: write what came of it, and what the tree is to say, in one.
    End(Result<Vec<TreeChange>, String>),
}

/// What is to be done: how it stands, before it is known whether the task was begun.
enum Standing {
    /// All is as asked for; it is as the tree is to say.
    Done(Vec<TreeChange>),
    /// This comes next.
    Next(CephChange),
    /// These come first.
    ShutOut(Request),
    /// These are let in next.
    Lift(BTreeSet<ClientAddress>),
    /// It cannot be done.
    Impossible(String),
}

use Standing::{Done, Impossible, Lift, Next, ShutOut};

/// The next step of a task that is not over.
pub fn plan(task: &Task, facts: &Facts) -> Step {
    if let Some(why) = &facts.impossible {
        return Step::End(Err(why.clone()));
    }
    let begun = matches!(task.state, TaskState::Running { .. });
    match (stands(task, facts, begun), &facts.refused) {
        (Impossible(why), _) => Step::End(Err(why)),
        (Done(tree), _) => Step::End(Ok(tree)),
        (Next(_) | ShutOut(_) | Lift(_), _) if !begun => Step::Begin,
        (Lift(clients), _) => Step::Lift(clients),
        (ShutOut(request), _) => Step::ShutOut(request),
        (Next(change), Some((refused, why))) if *refused == change => Step::End(Err(why.clone())),
        (Next(change), _) => Step::Change(change),
    }
}

fn stands(task: &Task, facts: &Facts, begun: bool) -> Standing {
    let image =
        |pool: &PoolName, volume: &VolumeName| ImageName { pool: pool.clone(), volume: volume.clone() };
    match &task.command {
        StorageCommand::PoolAdd { pool, pgs } => pool_add(pool, *pgs, facts, begun),
        StorageCommand::PoolRemove { pool } => pool_remove(pool, facts, begun),
        StorageCommand::VolumeAdd { pool, volume, size } => {
            volume::add(&image(pool, volume), *size, facts, begun)
        }
        StorageCommand::VolumeResize { pool, volume, size } => {
            volume::resize(&image(pool, volume), *size, task.force, facts)
        }
        StorageCommand::VolumeRename { pool, volume, new } => {
            volume::rename(&image(pool, volume), new, facts, begun)
        }
        StorageCommand::VolumeRemove { pool, volume } => volume::remove(&image(pool, volume), facts, begun),
        StorageCommand::SnapshotAdd { pool, volume, snapshot } => {
            volume::add_snapshot(&image(pool, volume), snapshot, facts, begun)
        }
        StorageCommand::SnapshotRename { pool, volume, snapshot, new } => {
            volume::rename_snapshot(&image(pool, volume), snapshot, new, facts, begun)
        }
        StorageCommand::SnapshotRemove { pool, volume, snapshot } => {
            volume::remove_snapshot(&image(pool, volume), snapshot, facts, begun)
        }
        StorageCommand::OsdIn { id } => use_osd(*id, true, facts),
        StorageCommand::OsdOut { id } => use_osd(*id, false, facts),
        StorageCommand::OsdSet { flag } => set_flag(flag, true, facts),
        StorageCommand::OsdUnset { flag } => set_flag(flag, false, facts),
        StorageCommand::OsdAdd { .. } | StorageCommand::OsdRemove { .. } => Impossible(
            "pvcd does not make or remove OSDs: use `ceph-volume lvm create` on the node, or `ceph osd out`, \
             `ceph osd safe-to-destroy` and `ceph osd purge`"
                .to_owned(),
        ),
        StorageCommand::FlushLocks { vm } => locks::flush(*vm, facts),
        StorageCommand::Locks { .. } | StorageCommand::FenceList { .. } => Done(Vec::new()),
        StorageCommand::FenceLift { client } => shut_out::lift(client, facts, begun),
    }
}

fn pool_add(pool: &PoolName, pgs: PgCount, facts: &Facts, begun: bool) -> Standing {
    match &facts.pool {
        Some(_) if !begun => Impossible(format!("there is a pool {pool} already")),
        None => Next(CephChange::CreatePool { pool: pool.clone(), pgs }),
        Some(found) if (found.copies, found.min_copies) != COPIES => {
            let (copies, min_copies) = COPIES;
            Next(CephChange::KeepCopies { pool: pool.clone(), copies, min_copies })
        }
        Some(found) if !found.is_for_images => Next(CephChange::MarkForImages { pool: pool.clone() }),
        Some(found) => Done(vec![TreeChange::Pool(pool.clone(), Some(found.clone()))]),
    }
}

fn pool_remove(pool: &PoolName, facts: &Facts, begun: bool) -> Standing {
    match &facts.pool {
        None if begun || facts.is_in_tree => Done(vec![TreeChange::Pool(pool.clone(), None)]),
        None => Impossible(format!("there is no pool {pool}")),
        Some(found) if !found.is_for_images && !facts.is_in_tree && found.stats.num_objects > 0 => {
            Impossible(format!("pool {pool} is no pool of images: pvcd does not know what is in it"))
        }
        Some(_) => match (users(facts), facts.images.len(), &facts.hidden) {
            (Some(users), ..) => Impossible(format!("pool {pool} has volumes of {users}")),
            (None, 0, Hidden { namespaces: 0, trash: 0 }) => {
                Next(CephChange::RemovePool { pool: pool.clone() })
            }
            (None, 0, Hidden { namespaces: 0, trash }) => Impossible(format!(
                "pool {pool} has {} in its trash: `rbd trash ls {pool}` shows what, `rbd trash purge {pool}` removes it",
                counted(*trash, "image")
            )),
            (None, 0, Hidden { namespaces, .. }) => Impossible(format!(
                "pool {pool} has {}: `rbd namespace ls {pool}` shows which, and `rbd namespace remove` removes one without images",
                counted(*namespaces, "namespace")
            )),
            (None, count, _) => {
                Impossible(format!("pool {pool} has {}: remove them first", counted(count, "volume")))
            }
        },
    }
}

/// `1 volume`, `2 volumes`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Whose it is: `VM web1`, or several; `None` if nobody's.
fn users(facts: &Facts) -> Option<String> {
    /// More are counted.
    const MOST: usize = 5;
    let vms = &facts.used_by;
    if let Some(vm) = facts.unreadable.as_ref().filter(|_| vms.is_empty()) {
        return Some(format!("perhaps VM {vm}, which cannot be read"));
    }
    let names = vms.iter().take(MOST).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match vms.len() {
        0 => None,
        1 => Some(format!("VM {names}")),
        count if count > MOST => Some(format!("VMs {names} and {} more", count - MOST)),
        _ => Some(format!("VMs {names}")),
    }
}

fn use_osd(osd: OsdId, is_in: bool, facts: &Facts) -> Standing {
    match facts.osds.is_in.get(&osd) {
        None => Impossible(format!("there is no OSD {osd}")),
        Some(now) if *now == is_in => Done(Vec::new()),
        Some(_) => Next(CephChange::UseOsd { osd, is_in }),
    }
}

fn set_flag(flag: &OsdFlag, is_set: bool, facts: &Facts) -> Standing {
    if facts.osds.has(flag) == is_set {
        return Done(Vec::new());
    }
    Next(CephChange::Flag { flag: flag.clone(), is_set })
}
