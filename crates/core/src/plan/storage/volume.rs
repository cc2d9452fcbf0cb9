//! Volumes and their snapshots.

use super::{
    FULLEST_PERCENT, Facts,
    Standing::{self, Done, Impossible, Next},
    counted, is_full, users,
};
use crate::model::{
    ceph::{ImageName, SnapshotName, VolumeName},
    storage::{CephChange, ObservedImage, TreeChange},
    storage_command::Bytes,
};

/// The tree says what Ceph has.
pub(super) fn as_observed(image: &ImageName, observed: &ObservedImage) -> Standing {
    Done(vec![TreeChange::Volume(image.clone(), Some(observed.clone()))])
}

pub(super) fn missing(image: &ImageName) -> Standing {
    Impossible(format!("there is no volume {image}"))
}

pub(super) fn add(image: &ImageName, size: Bytes, facts: &Facts, begun: bool) -> Standing {
    let Some(_) = &facts.pool else { return Impossible(format!("there is no pool {}", image.pool)) };
    match &facts.image {
        Some(found) if begun && found.stats.size == size.0 => as_observed(image, found),
        Some(_) => Impossible(format!("there is a volume {image} already")),
        None => match no_room(size, facts) {
            Some(why) => Impossible(why),
            None => Next(CephChange::CreateImage { image: image.clone(), size }),
        },
    }
}

/// Why no new volume is made.
pub(super) fn full(facts: &Facts) -> Option<String> {
    let space = &facts.space;
    is_full(space).then(|| {
        format!(
            "the cluster is used to {FULLEST_PERCENT} % or more ({} of {} GiB): it gets no new volumes; \
             remove some, or add OSDs",
            space.used_bytes >> 30,
            space.total_bytes >> 30
        )
    })
}

/// Why a new volume of that size is not made.
fn no_room(size: Bytes, facts: &Facts) -> Option<String> {
    let (space, full) = (&facts.space, full(facts));
    if full.is_some() {
        return full;
    }
    // It would take Ceph more than an hour to remove one that is much larger, object by object.
    (size.0 > space.total_bytes).then(|| {
        format!(
            "it would be larger than the whole cluster, which has {}",
            Bytes(space.total_bytes).in_words()
        )
    })
}

pub(super) fn resize(image: &ImageName, size: Bytes, force: bool, facts: &Facts) -> Standing {
    match &facts.image {
        None => missing(image),
        Some(found) if found.stats.size == size.0 => as_observed(image, found),
        Some(found) if found.stats.size > size.0 && !force => Impossible(format!(
            "volume {image} has {}: what is beyond {} would be lost; --force shrinks it all the same",
            Bytes(found.stats.size).in_words(),
            size.in_words()
        )),
        Some(found) => match users(facts).filter(|_| found.stats.size > size.0) {
            Some(users) => {
                Impossible(format!("volume {image} is used by {users}: no volume of a VM is shrunk"))
            }
            None => {
                let shrinks = found.stats.size > size.0;
                Next(CephChange::ResizeImage { image: image.clone(), size, shrinks })
            }
        },
    }
}

pub(super) fn rename(image: &ImageName, to: &VolumeName, facts: &Facts, begun: bool) -> Standing {
    let renamed = ImageName { pool: image.pool.clone(), volume: to.clone() };
    let rename = || Next(CephChange::RenameImage { image: image.clone(), to: to.clone() });
    match (&facts.image, &facts.renamed) {
        (None, Some(found)) if begun => Done(vec![
            TreeChange::Volume(image.clone(), None),
            TreeChange::Volume(renamed, Some(found.clone())),
        ]),
        (None, _) => missing(image),
        (Some(_), Some(_)) => Impossible(format!("there is a volume {renamed} already")),
        (Some(_), None) => match users(facts) {
            Some(users) => Impossible(format!("volume {image} is used by {users}, by this name")),
            None => rename(),
        },
    }
}

pub(super) fn remove(image: &ImageName, facts: &Facts, begun: bool) -> Standing {
    match &facts.image {
        None if begun || facts.is_in_tree => Done(vec![TreeChange::Volume(image.clone(), None)]),
        None => missing(image),
        Some(found) => match (users(facts), found.snapshots.len()) {
            (Some(users), _) => Impossible(format!("volume {image} is used by {users}")),
            (None, 0) => Next(CephChange::RemoveImage { image: image.clone() }),
            (None, count) => Impossible(format!(
                "volume {image} has {}: remove {} first",
                counted(count, "snapshot"),
                if count == 1 { "it" } else { "them" }
            )),
        },
    }
}

pub(super) fn has(observed: &ObservedImage, snapshot: &SnapshotName) -> bool {
    observed.snapshots.iter().any(|name| name == snapshot.as_str())
}

pub(super) fn add_snapshot(
    image: &ImageName,
    snapshot: &SnapshotName,
    facts: &Facts,
    begun: bool,
) -> Standing {
    match &facts.image {
        None => missing(image),
        Some(found) if has(found, snapshot) && begun => as_observed(image, found),
        Some(found) if has(found, snapshot) => {
            Impossible(format!("there is a snapshot {image}@{snapshot} already"))
        }
        Some(_) => Next(CephChange::CreateSnapshot { image: image.clone(), snapshot: snapshot.clone() }),
    }
}

pub(super) fn rename_snapshot(
    image: &ImageName,
    snapshot: &SnapshotName,
    to: &SnapshotName,
    facts: &Facts,
    begun: bool,
) -> Standing {
    let Some(found) = &facts.image else { return missing(image) };
    match (has(found, snapshot), has(found, to)) {
        (false, true) if begun => as_observed(image, found),
        (false, _) => Impossible(format!("there is no snapshot {image}@{snapshot}")),
        (true, true) => Impossible(format!("there is a snapshot {image}@{to} already")),
        (true, false) => Next(CephChange::RenameSnapshot {
            image: image.clone(),
            snapshot: snapshot.clone(),
            to: to.clone(),
        }),
    }
}

pub(super) fn remove_snapshot(
    image: &ImageName,
    snapshot: &SnapshotName,
    facts: &Facts,
    begun: bool,
) -> Standing {
    match &facts.image {
        None => missing(image),
        Some(found) if has(found, snapshot) => {
            Next(CephChange::RemoveSnapshot { image: image.clone(), snapshot: snapshot.clone() })
        }
        Some(found) if begun || facts.is_in_tree => as_observed(image, found),
        Some(_) => Impossible(format!("there is no snapshot {image}@{snapshot}")),
    }
}
