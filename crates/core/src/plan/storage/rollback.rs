//! A volume that holds again what it held when a snapshot was taken.
//!
//! ```text
//!   give the image the task's own name ──► mark it as begun ──► roll it back ──► mark it as done ──► give it its name again
//! ```
//! Whoever opened the image in between would read what is partly old and partly new, and write that back. By its other name nobody finds it: a VM that is started meanwhile waits until its volume is there again.
//! One that could be rolled back in part only stays under that name. What Ceph refuses while the image has the task's name is tried again for a while.

use super::{
    Facts, Refused,
    Standing::{self, Again, Impossible, Left, Next},
    users,
    volume::{as_observed, has, missing},
};
use crate::model::{
    ceph::{ImageName, SnapshotName, VolumeName},
    storage::{CephChange, TreeChange},
    task::Task,
};

pub(super) fn roll_back(
    task: &Task,
    image: &ImageName,
    snapshot: &SnapshotName,
    facts: &Facts,
    begun: bool,
) -> Standing {
    let mark = task.mark();
    let marks = ["begun", "done"].map(|state| format!("{mark} {state}"));
    let [is_begun, is_done] = &marks;
    let aside = ImageName { pool: image.pool.clone(), volume: VolumeName::of_task(&mark) };
    let (away, back) = (
        CephChange::RenameImage { image: image.clone(), to: aside.volume.clone() },
        CephChange::RenameImage { image: aside.clone(), to: image.volume.clone() },
    );
    let of_rolling = facts.refusal(|change| matches!(change, CephChange::RollBack { .. }));
    if let Some(found) = facts.aside.as_ref().filter(|_| begun) {
        let left = |why: String| {
            let there = TreeChange::Volume(aside.clone(), Some(found.clone()));
            Left(why, vec![TreeChange::Volume(image.clone(), facts.image.clone()), there])
        };
        let named_again = || match (facts.refusal(|change| *change == back), &facts.image) {
            (_, Some(_)) => left(format!(
                "the volume cannot have its name again, since somebody has made another {image} meanwhile: it is {aside} now; \
                 `pvc storage volume rename` renames it"
            )),
            (None, None) => Next(back.clone()),
            (Some(refused), None) if refused.may_pass() => Again(back.clone()),
            (Some(Refused { why, .. }), None) => left(format!(
                "the volume cannot have its name again, since {why}: it is {aside} now; `pvc storage volume rename` renames it"
            )),
        };
        let rolled =
            CephChange::RollBack { image: aside.clone(), snapshot: snapshot.clone(), marks: marks.clone() };
        let in_part = |why: &str| {
            left(format!(
                "the volume was rolled back in part, and then {why}: it is {aside} now, so that no VM uses it; roll \
                 that back to a snapshot that is whole, then rename it"
            ))
        };
        return match (&found.mark, of_rolling) {
            (Some(mark), _) if mark == is_done => named_again(),
            (Some(mark), None) if mark == is_begun && !has(found, snapshot) => {
                in_part("somebody has removed the snapshot")
            }
            (Some(mark), Some(refused)) if mark == is_begun && refused.may_pass() => Again(rolled),
            (Some(mark), Some(refused)) if mark == is_begun => in_part(&refused.why),
            // Nothing was written, and it is not to be.
            (_, Some(_)) => named_again(),
            (mark, None) if mark.as_ref() != Some(is_begun) && task.is_to_end().is_some() => named_again(),
            (_, None) => Next(rolled),
        };
    }
    let Some(found) = &facts.image else { return missing(image) };
    if begun && found.mark.as_ref() == Some(is_done) {
        return as_observed(image, found);
    }
    if let Some(cancel) = task.is_to_end().filter(|_| begun) {
        return Impossible(cancel.why());
    }
    match (of_rolling, users(facts), facts.open.first()) {
        (Some(refused), ..) => Impossible(refused.why.clone()),
        _ if !has(found, snapshot) => Impossible(format!("there is no snapshot {image}@{snapshot}")),
        (None, Some(users), _) => {
            Impossible(format!("volume {image} is used by {users}, which may be executing: stop it first"))
        }
        (None, None, Some(client)) => {
            Impossible(format!("client {client} has {image} open and answers Ceph: end it there"))
        }
        (None, None, None) => Next(away),
    }
}
