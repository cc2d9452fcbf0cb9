//! A volume that holds what another one holds, and depends on nothing.
//!
//! ```text
//!   take a snapshot, if none is named ──► copy it to an image with the task's own name ──► mark that ──► give it the new name ──► remove the snapshot
//! ```
//! The copy has its new name only when it is whole, and its mark tells it from another image that somebody has made by that name meanwhile. A copy without a mark is what a daemon has left that died:
//! it is removed, and made anew. What cannot be done to the end leaves nothing behind.

use super::{
    Facts,
    Standing::{self, Again, Done, Impossible, Left, Next},
    volume::{full, has, missing},
};
use crate::model::{
    ceph::{ImageName, SnapshotName, VolumeName},
    storage::{CephChange, ObservedImage, TreeChange},
    storage_command::Only,
    task::Task,
};

pub(super) fn clone(
    task: &Task,
    (from, snapshot): (&ImageName, &Only<SnapshotName>),
    new: &ImageName,
    facts: &Facts,
    begun: bool,
) -> Standing {
    let mark = task.mark();
    let copy = ImageName { pool: from.pool.clone(), volume: VolumeName::of_task(&mark) };
    let own = match snapshot {
        Only::All => Some(SnapshotName::of_task(&mark)),
        Only::One(_) => None,
    };
    let is_ours = |image: &&ObservedImage| begun && image.mark == Some(mark.to_string());
    // What is left of our own, once it is needed no more.
    let leftover = facts.image.as_ref().zip(own.clone()).filter(|(image, own)| begun && has(image, own));
    let leftover = leftover.map(|(_, snapshot)| CephChange::RemoveSnapshot { image: from.clone(), snapshot });
    // What keeps Ceph from removing it may pass, as a VM that hangs.
    let last =
        |change: CephChange, why: String, stays: String| match facts.refusal(|refused| *refused == change) {
            None => Next(change),
            Some(refused) if refused.may_pass() => Again(change),
            Some(refused) => {
                let tree =
                    facts.image.as_ref().map(|source| TreeChange::Volume(from.clone(), Some(source.clone())));
                Left(
                    format!("{why}. What is left of it stays, since {}: {stays}", refused.why),
                    Vec::from_iter(tree),
                )
            }
        };
    let undo = |why: String| match (&facts.aside, &leftover) {
        (Some(_), _) if begun => {
            let stays = format!("`rbd rm {copy}` removes it");
            last(CephChange::RemoveImage { image: copy.clone() }, why, stays)
        }
        (_, Some(remove)) => {
            let stays = format!(
                "{from} keeps the snapshot pvc-task-{mark}, `pvc storage snapshot remove` removes it"
            );
            last(remove.clone(), why, stays)
        }
        _ => Impossible(why),
    };
    if let Some(made) = facts.renamed.as_ref().filter(is_ours) {
        let tree = vec![TreeChange::Volume(new.clone(), Some(made.clone()))];
        let refused = facts.refusal(|change| leftover.as_ref() == Some(change));
        return match (leftover, refused, &facts.image) {
            (Some(_), Some(refused), Some(source)) => Left(
                format!(
                    "volume {new} is made, but {from} keeps the snapshot pvc-task-{mark}, since {}: \
                     `pvc storage snapshot remove` removes it",
                    refused.why
                ),
                [tree, vec![TreeChange::Volume(from.clone(), Some(source.clone()))]].concat(),
            ),
            (Some(remove), ..) => Next(remove),
            (None, ..) => Done(tree),
        };
    }
    if let Some(cancel) = task.is_to_end() {
        return undo(cancel.why());
    }
    if facts.renamed.is_some() {
        return undo(format!("there is a volume {new} already"));
    }
    let of_copy =
        |change: &CephChange| matches!(change, CephChange::CopyImage { .. } | CephChange::RenameImage { .. });
    if let Some(refused) = facts.refusal(of_copy) {
        return undo(refused.why.clone());
    }
    if facts.aside.as_ref().is_some_and(|image| is_ours(&image)) {
        return Next(CephChange::RenameImage { image: copy, to: new.volume.clone() });
    }
    let Some(source) = &facts.image else {
        return match missing(from) {
            Impossible(why) => undo(why),
            other => other,
        };
    };
    if let Some(why) = full(facts) {
        return undo(why);
    }
    if facts.aside.is_some() {
        return Next(CephChange::RemoveImage { image: copy });
    }
    let copied = |snapshot: &SnapshotName| {
        Next(CephChange::CopyImage {
            image: from.clone(),
            snapshot: snapshot.clone(),
            to: copy.volume.clone(),
            mark: mark.to_string(),
        })
    };
    match (snapshot, own) {
        (Only::One(named), _) if !has(source, named) => undo(format!("there is no snapshot {from}@{named}")),
        (Only::One(named), _) => copied(named),
        (Only::All, Some(own)) if has(source, &own) => copied(&own),
        (Only::All, _) => {
            Next(CephChange::CreateSnapshot { image: from.clone(), snapshot: SnapshotName::of_task(&mark) })
        }
    }
}
