//! One task of storage: from what is asked and what Ceph has to the next step.
//!
//! A task that waits is checked first, and begun only if it can be carried out. One that was begun may be done in part, by a daemon that is no
//! more: what Ceph has says how far it is, and it is carried on from there. The state tree follows when Ceph has agreed to all of it.

mod cancel;
mod clone;
mod locks;
mod order;
pub mod osd;
mod pool;
mod rollback;
mod shut_out;
#[cfg(test)]
mod tests;
mod volume;

pub use self::{
    cancel::{UnderWay, never_cancelled, under_way},
    locks::Locks,
    order::may_go,
    shut_out::{Entry, ShutOuts, locks},
};
use std::{collections::BTreeSet, time::Duration};

use super::storage_fence::Request;
use crate::model::{
    StorageCommand, VmName,
    ceph::{ClientAddress, ImageName, OsdId, PoolName, Space, VolumeName},
    found::Found,
    storage::{CephChange, Hidden, ObservedImage, ObservedPool, OsdMap, TreeChange},
    storage_command::OsdFlag,
    task::{Task, TaskState},
};

/// How many copies of each object a pool keeps, and with how many it still takes writes.
const COPIES: (u32, u32) = (3, 2);

/// A cluster that is used to this share, in percent, gets no new volumes: one that is full takes no writes from anybody.
pub const FULLEST_PERCENT: u64 = 80;

/// Whether a cluster gets no more volumes.
pub fn is_full(space: &Space) -> bool {
    space.used_bytes.saturating_mul(100) >= space.total_bytes.saturating_mul(FULLEST_PERCENT)
}

/// What a task is planned from: of Ceph only what its command names.
#[derive(Debug, Default)]
pub struct Facts {
    /// The pool.
    pub pool: Option<ObservedPool>,
    /// The pool by the name that it has while the task removes it: see [`PoolName::of_task`].
    pub pool_aside: Option<ObservedPool>,
    /// The names of the images of the one that is set aside, or else of the pool.
    pub images: Vec<String>,
    /// What else is in that.
    pub hidden: Hidden,
    /// The image.
    pub image: Option<ObservedImage>,
    /// The image by the name that it is to have.
    pub renamed: Option<ObservedImage>,
    /// The image by the name that it has while the task works on it: see [`VolumeName::of_task`].
    pub aside: Option<ObservedImage>,
    /// Who has the image open.
    pub open: Vec<ClientAddress>,
    /// By whom an image was to be changed for this task, if it is not known that this has ended.
    pub changer: Option<ClientAddress>,
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
    /// What Ceph has refused of this task, and has not done since.
    pub refused: Vec<Refused>,
    /// Ceph refuses to be asked about it: nothing else is known.
    pub impossible: Option<String>,
}

/// A refusal of Ceph.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Of what.
    pub change: CephChange,
    /// In its words.
    pub why: String,
    /// Since when it has refused just this.
    pub lasts: Duration,
}

impl Refused {
    /// For so long a change is tried again without which an image stays where nobody looks for it: what keeps Ceph from it may pass, as a client that hangs.
    pub const PATIENCE: Duration = Duration::from_mins(10);

    fn may_pass(&self) -> bool {
        self.lasts < Self::PATIENCE
    }
}

impl Facts {
    fn refusal(&self, of: impl Fn(&CephChange) -> bool) -> Option<&Refused> {
        self.refused.iter().find(|refused| of(&refused.change))
    }

    /// The id of the image that is changed, as it was looked at.
    pub fn id_for(&self, task: &Task, change: &CephChange) -> Option<&str> {
        let is_aside =
            change.of_image().is_some_and(|image| image.volume == VolumeName::of_task(&task.mark()));
        let found = if is_aside { &self.aside } else { &self.image };
        found.as_ref().and_then(|image| image.id.as_deref())
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Record that it is carried out from now on.
    Begin,
    /// See to it that nothing more is done by this client, by which another daemon was to change an image.
    Retire(ClientAddress),
    /// Have Ceph do this.
    Change(CephChange),
    /// Shut these out, and take their locks.
    ShutOut(Request),
    /// Let these in again.
    Lift(BTreeSet<ClientAddress>),
    /// It is to end, and cannot: record why it goes on.
    GoOn(String),
    /// It is over: write what came of it, and what the tree is to say, in one.
    End(Result<(), String>, Vec<TreeChange>),
}

/// What is to be done: how it stands, before it is known whether the task was begun.
enum Standing {
    /// All is as asked for; it is as the tree is to say.
    Done(Vec<TreeChange>),
    /// This comes next.
    Next(CephChange),
    /// So does this, though Ceph has refused it.
    Again(CephChange),
    /// These come first.
    ShutOut(Request),
    /// These are let in next.
    Lift(BTreeSet<ClientAddress>),
    /// It cannot be done.
    Impossible(String),
    /// It cannot be done to the end, and something stays as the tree is to say.
    Left(String, Vec<TreeChange>),
}

use Standing::{Again, Done, Impossible, Left, Lift, Next, ShutOut};

/// The next step of a task that is not over.
pub fn plan(task: &Task, facts: &Facts) -> Step {
    let begun = matches!(task.state, TaskState::Running { .. });
    // Nothing that is seen counts as long as somebody may change it, and the task ends for nobody who goes on with it.
    if let Some(client) = facts.changer {
        return Step::Retire(client);
    }
    if let Some(why) = &facts.impossible {
        let aside = if begun { own_name(task) } else { None };
        let left =
            aside.map(|name| format!(". What it was about may be called {name} now: look with `rbd ls`"));
        return Step::End(Err(format!("{why}{}", left.unwrap_or_default())), Vec::new());
    }
    if let Some(step) = of_names(task, facts, begun) {
        return step;
    }
    let standing = stands(task, facts, begun);
    if let Some(step) = cancel::instead(task, facts, &standing).filter(|_| begun) {
        return step;
    }
    match standing {
        Impossible(why) => Step::End(Err(why), Vec::new()),
        Left(why, tree) => Step::End(Err(why), tree),
        Done(tree) => Step::End(Ok(()), tree),
        Next(_) | Again(_) | ShutOut(_) | Lift(_) if !begun => Step::Begin,
        Lift(clients) => Step::Lift(clients),
        ShutOut(request) => Step::ShutOut(request),
        Next(change) => match facts.refusal(|refused| *refused == change) {
            Some(refused) => Step::End(Err(refused.why.clone()), Vec::new()),
            None => Step::Change(change),
        },
        Again(change) => Step::Change(change),
    }
}

/// The name of the image of a task that works on one under a name of its own.
fn own_name(task: &Task) -> Option<VolumeName> {
    let has_one =
        matches!(task.command, StorageCommand::VolumeClone { .. } | StorageCommand::SnapshotRollback { .. });
    has_one.then(|| VolumeName::of_task(&task.mark()))
}

/// What comes before all else: somebody else's image has the task's own name; or the image has two names, since Ceph renames in steps and was cut off
/// between them: whoever opens it by the one name would write to what the other one changes.
fn of_names(task: &Task, facts: &Facts, begun: bool) -> Option<Step> {
    let no = |why| Some(Step::End(Err(why), Vec::new()));
    if let Some(name) = own_name(task).filter(|_| facts.aside.is_some() && !begun) {
        return no(format!(
            "there is a volume {name} already, which is the name for what this task works on: rename it"
        ));
    }
    let is_one = |one: &Option<ObservedImage>, other: &Option<ObservedImage>| {
        one.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| one.id.is_some() && one.id == other.id)
    };
    let (name, to) = match &task.command {
        _ if !begun => return None,
        StorageCommand::VolumeRename { volume, new, .. } if is_one(&facts.image, &facts.renamed) => {
            (volume.clone(), new)
        }
        StorageCommand::VolumeClone { new, .. } if is_one(&facts.aside, &facts.renamed) => {
            (own_name(task)?, new)
        }
        StorageCommand::SnapshotRollback { volume, .. } if is_one(&facts.aside, &facts.image) => {
            (own_name(task)?, volume)
        }
        _ => return None,
    };
    let pool = changed_images(task).into_iter().next()?.pool;
    let rename = CephChange::RenameImage { image: ImageName { pool, volume: name.clone() }, to: to.clone() };
    match facts.refusal(|refused| *refused == rename) {
        None => Some(Step::Change(rename)),
        Some(Refused { why, .. }) => no(format!(
            "its renaming was cut off, and one image has two names, {to} and {name}: {why}. Remove neither with Ceph's tools: both would remove the data"
        )),
    }
}

/// The images that a task changes: as long as it does, by the client that stands at it, that has one of them open.
pub fn changed_images(task: &Task) -> Vec<ImageName> {
    let (StorageCommand::VolumeAdd { pool, volume, .. }
    | StorageCommand::VolumeResize { pool, volume, .. }
    | StorageCommand::VolumeRename { pool, volume, .. }
    | StorageCommand::VolumeClone { pool, volume, .. }
    | StorageCommand::VolumeRemove { pool, volume }
    | StorageCommand::SnapshotAdd { pool, volume, .. }
    | StorageCommand::SnapshotRename { pool, volume, .. }
    | StorageCommand::SnapshotRemove { pool, volume, .. }
    | StorageCommand::SnapshotRollback { pool, volume, .. }) = &task.command
    else {
        return Vec::new();
    };
    let names = [Some(volume.clone()), own_name(task)].into_iter().flatten();
    names.map(|volume| ImageName { pool: pool.clone(), volume }).collect()
}

fn stands(task: &Task, facts: &Facts, begun: bool) -> Standing {
    let image =
        |pool: &PoolName, volume: &VolumeName| ImageName { pool: pool.clone(), volume: volume.clone() };
    match &task.command {
        StorageCommand::PoolAdd { pool, pgs } => pool::add(pool, *pgs, facts, begun),
        StorageCommand::PoolRemove { pool } => pool::remove(task, pool, facts, begun),
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
        StorageCommand::VolumeClone { pool, volume, new, snapshot } => {
            clone::clone(task, (&image(pool, volume), snapshot), &image(pool, new), facts, begun)
        }
        StorageCommand::SnapshotRollback { pool, volume, snapshot } => {
            rollback::roll_back(task, &image(pool, volume), snapshot, facts, begun)
        }
        StorageCommand::OsdIn { id } => use_osd(*id, true, facts),
        StorageCommand::OsdOut { id } => use_osd(*id, false, facts),
        StorageCommand::OsdSet { flag } => set_flag(flag, true, facts),
        StorageCommand::OsdUnset { flag } => set_flag(flag, false, facts),
        // What there is, its node carries out.
        StorageCommand::OsdAdd { node, .. } => Impossible(format!("there is no node {node}")),
        StorageCommand::OsdRemove { id } if facts.is_in_tree => Done(vec![TreeChange::Osd(*id, None)]),
        StorageCommand::OsdRemove { id } => Impossible(format!("there is no OSD {id}")),
        StorageCommand::FlushLocks { vm } => locks::flush(*vm, facts),
        StorageCommand::Locks { .. } | StorageCommand::FenceList { .. } => Done(Vec::new()),
        StorageCommand::FenceLift { client } => shut_out::lift(client, facts, begun),
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
