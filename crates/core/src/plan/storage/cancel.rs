//! A task that was begun, and is to end before it is done: where it can, what is left of it, and why not.
//!
//! ```text
//!   to end ──a copy is under way──► that is ended ──► what was made is removed ──► cancelled
//!     ├─between two steps, and nothing is lost ──► what was made is removed ──► cancelled
//!     ├─what is lost by now would not come back ──► refused: it goes on
//!     └─it was done already ──► done
//! ```

use super::{Facts, Standing, Step};
use crate::model::{StorageCommand, storage::CephChange, task::Task};

/// What becomes of a change that is under way when its task is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnderWay {
    /// It is ended.
    IsEnded,
    /// It ends by itself, soon; then it is decided.
    Ends,
    /// It goes on, and so does the task: why.
    GoesOn(String),
}

const ROLLED: &str = "the snapshot is being written over the volume: left now, that would hold neither";
const SHRUNK: &str = "the volume is being made smaller: what is beyond does not come back";
const REMOVED: &str = "Ceph is removing the volume: what it has removed does not come back";

/// Why a task of this kind is not cancelled once it was begun.
pub fn never_cancelled(command: &StorageCommand) -> Option<&'static str> {
    match command {
        StorageCommand::VolumeAdd { .. }
        | StorageCommand::VolumeResize { .. }
        | StorageCommand::VolumeRename { .. }
        | StorageCommand::VolumeClone { .. }
        | StorageCommand::VolumeRemove { .. }
        | StorageCommand::SnapshotAdd { .. }
        | StorageCommand::SnapshotRename { .. }
        | StorageCommand::SnapshotRemove { .. }
        | StorageCommand::SnapshotRollback { .. } => None,
        StorageCommand::PoolAdd { .. } | StorageCommand::PoolRemove { .. } => {
            Some("what Ceph's monitors were asked for they do: a pool is never left half made")
        }
        StorageCommand::OsdIn { .. }
        | StorageCommand::OsdOut { .. }
        | StorageCommand::OsdSet { .. }
        | StorageCommand::OsdUnset { .. } => {
            Some("what Ceph's monitors were asked for they do: ask for the opposite when it is done")
        }
        StorageCommand::OsdAdd { .. } | StorageCommand::OsdRemove { .. } => {
            Some("an OSD is never left half made or half removed")
        }
        StorageCommand::FlushLocks { .. }
        | StorageCommand::Locks { .. }
        | StorageCommand::FenceList { .. }
        | StorageCommand::FenceLift { .. } => Some("it takes moments"),
    }
}

/// What becomes of a change of a task that is to end. `begun`: Ceph has said how far it is.
pub fn under_way(task: &Task, change: &CephChange, begun: bool) -> UnderWay {
    match (&task.command, change) {
        (_, CephChange::CopyImage { .. }) => UnderWay::IsEnded,
        (StorageCommand::VolumeRemove { .. }, CephChange::RemoveImage { .. }) if begun => {
            UnderWay::GoesOn(REMOVED.to_owned())
        }
        // Ceph says how far it is only if it becomes smaller.
        (_, CephChange::ResizeImage { .. }) if begun => UnderWay::GoesOn(SHRUNK.to_owned()),
        (_, CephChange::RollBack { .. }) if begun => UnderWay::GoesOn(ROLLED.to_owned()),
        _ => UnderWay::Ends,
    }
}

/// What is done instead of the next step of a task that is to end; `None`: that step, which is part of the end already.
pub(super) fn instead(task: &Task, facts: &Facts, standing: &Standing) -> Option<Step> {
    let cancel = task.is_to_end()?;
    let (Standing::Next(change) | Standing::Again(change)) = standing else { return None };
    let goes_on = |why: &str| Some(Step::GoOn(why.to_owned()));
    let ended = || Some(Step::End(Err(cancel.why()), Vec::new()));
    match &task.command {
        // It plans its own end.
        StorageCommand::VolumeClone { .. } => None,
        StorageCommand::SnapshotRollback { .. } => match change {
            CephChange::RollBack { .. } => goes_on(ROLLED),
            _ => None,
        },
        // Ceph takes it out of the pool's images before it removes anything of it.
        StorageCommand::VolumeRemove { .. } => {
            match facts.image.as_ref().and_then(|image| image.id.as_ref()) {
                Some(_) => ended(),
                None => goes_on(REMOVED),
            }
        }
        // How much of it Ceph has removed, if a daemon has died over it, nobody knows.
        StorageCommand::VolumeResize { size, .. }
            if facts.image.as_ref().is_some_and(|image| image.stats.size > size.0) =>
        {
            let why =
                format!("{}. If Ceph had begun with it, what was beyond {size} may be lost", cancel.why());
            Some(Step::End(Err(why), Vec::new()))
        }
        command => match never_cancelled(command) {
            Some(why) => goes_on(why),
            None => ended(),
        },
    }
}
