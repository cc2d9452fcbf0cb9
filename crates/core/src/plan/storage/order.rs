//! Which tasks may be carried out beside each other: those that touch different things. Of two that touch the same, the older one goes first, and so it is
//! for whatever a later one may have to wait for.

use crate::model::{
    StorageCommand, VmId,
    ceph::{ImageName, PoolName, SnapshotName, VolumeName},
    storage_command::Only,
    task::{Task, TaskId},
};

/// What a task touches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// All of it.
    Pool(PoolName),
    Image(ImageName),
    Snapshot(ImageName, SnapshotName),
    /// Any image.
    Images,
    /// Which OSDs are in use, and their flags.
    Osds,
    /// Who is shut out.
    Fences,
}

/// What it does to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// It must stay.
    Needs,
    /// It stays what it is: a snapshot comes or goes, a lock is taken from who is dead.
    Stays,
    /// It is another one afterwards, or is gone.
    Changes,
}

use How::{Changes, Needs, Stays};

/// The tasks that may be carried out now, of those that are not over, the oldest first. `images_of`: of a VM; `None` if nobody knows. Who may go may go until it
/// is over, whatever is asked for later.
pub fn may_go<'t>(
    tasks: impl IntoIterator<Item = &'t Task>,
    images_of: impl Fn(VmId) -> Option<Vec<ImageName>>,
) -> Vec<TaskId> {
    let (mut older, mut may) = (Vec::new(), Vec::new());
    for task in tasks.into_iter().filter(|task| !task.is_over()) {
        let touched = touches(task, &images_of);
        let waits = touched.iter().any(|touch| older.iter().any(|other| collide(touch, other)));
        if !waits {
            may.push(task.id);
        }
        older.extend(touched);
    }
    may
}

fn collide((what, how): &(What, How), (other, its): &(What, How)) -> bool {
    let both_stay = matches!((how, its), (Needs, Needs | Stays) | (Stays, Needs));
    !both_stay && (overlap(what, other) || overlap(other, what))
}

/// A snapshot is no part of its image here: whoever touches one says of both what it does.
fn overlap(what: &What, part: &What) -> bool {
    match (what, part) {
        (What::Pool(pool), What::Image(image) | What::Snapshot(image, _)) => image.pool == *pool,
        (What::Images, What::Pool(_) | What::Image(_) | What::Snapshot(..)) => true,
        _ => what == part,
    }
}

fn touches(task: &Task, images_of: impl Fn(VmId) -> Option<Vec<ImageName>>) -> Vec<(What, How)> {
    let image =
        |pool: &PoolName, volume: &VolumeName| ImageName { pool: pool.clone(), volume: volume.clone() };
    let whole = |pool: &PoolName, volume: &VolumeName| (What::Image(image(pool, volume)), Changes);
    let own = |pool: &PoolName| whole(pool, &VolumeName::of_task(&task.mark()));
    match &task.command {
        StorageCommand::PoolAdd { pool, .. } | StorageCommand::PoolRemove { pool } => {
            vec![(What::Pool(pool.clone()), Changes)]
        }
        StorageCommand::VolumeAdd { pool, volume, .. }
        | StorageCommand::VolumeResize { pool, volume, .. }
        | StorageCommand::VolumeRemove { pool, volume } => vec![whole(pool, volume)],
        StorageCommand::SnapshotRollback { pool, volume, .. } => vec![whole(pool, volume), own(pool)],
        StorageCommand::VolumeRename { pool, volume, new } => vec![whole(pool, volume), whole(pool, new)],
        StorageCommand::VolumeClone { pool, volume, new, snapshot } => {
            let image = image(pool, volume);
            let snapshot = match snapshot {
                Only::One(snapshot) => (What::Snapshot(image.clone(), snapshot.clone()), Needs),
                Only::All => (What::Snapshot(image.clone(), SnapshotName::of_task(&task.mark())), Changes),
            };
            vec![whole(pool, new), own(pool), (What::Image(image), Needs), snapshot]
        }
        StorageCommand::SnapshotAdd { pool, volume, snapshot }
        | StorageCommand::SnapshotRemove { pool, volume, snapshot } => {
            let image = image(pool, volume);
            vec![(What::Snapshot(image.clone(), snapshot.clone()), Changes), (What::Image(image), Stays)]
        }
        StorageCommand::SnapshotRename { pool, volume, snapshot, new } => {
            let image = image(pool, volume);
            let both = [snapshot, new].map(|name| (What::Snapshot(image.clone(), name.clone()), Changes));
            both.into_iter().chain([(What::Image(image.clone()), Stays)]).collect()
        }
        StorageCommand::OsdIn { .. }
        | StorageCommand::OsdOut { .. }
        | StorageCommand::OsdSet { .. }
        | StorageCommand::OsdUnset { .. }
        | StorageCommand::OsdAdd { .. }
        | StorageCommand::OsdRemove { .. } => vec![(What::Osds, Changes)],
        StorageCommand::FlushLocks { vm } => match images_of(*vm) {
            Some(images) => {
                let images = images.into_iter().map(|image| (What::Image(image), Stays));
                images.chain([(What::Fences, Changes)]).collect()
            }
            None => vec![(What::Images, Stays), (What::Fences, Changes)],
        },
        StorageCommand::FenceLift { .. } => vec![(What::Fences, Changes)],
        StorageCommand::Locks { .. } | StorageCommand::FenceList { .. } => Vec::new(),
    }
}
