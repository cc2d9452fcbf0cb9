//! What Ceph has, as it is observed before anything is changed, and the changes that it is asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    ceph::{ImageName, OsdId, PoolName, PoolStats, SnapshotName, VolumeName, VolumeStats},
    storage_command::{Bytes, OsdFlag, PgCount},
};

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedPool {
    /// Placement groups.
    pub pgs: u32,
    /// How many copies of each object it keeps.
    pub copies: u32,
    /// With fewer copies nothing is written.
    pub min_copies: u32,
    /// Whether it is marked as a pool of RBD images.
    pub is_for_images: bool,
    /// Its figures.
    pub stats: PoolStats,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedImage {
    /// Tells it from another that had its name before, or will have it; none if it is of the old format, or its removal was broken off.
    pub id: Option<String>,
    /// Its figures.
    pub stats: VolumeStats,
    /// Its snapshots, by whatever names they have.
    pub snapshots: Vec<String>,
}

/// What is in a pool beside the images that it lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hidden {
    /// Namespaces, which may have images.
    pub namespaces: usize,
    /// Images in its trash.
    pub trash: usize,
}

/// The OSDs and their flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OsdMap {
    /// Whether each is in use for data.
    pub is_in: BTreeMap<OsdId, bool>,
    /// The cluster-wide flags that are set.
    pub flags: BTreeSet<String>,
}

/// One change that Ceph is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "what is changed, and to what")]
pub enum CephChange {
    /// A replicated pool.
    CreatePool { pool: PoolName, pgs: PgCount },
    /// How many copies it keeps, and with how many it still takes writes.
    KeepCopies { pool: PoolName, copies: u32, min_copies: u32 },
    /// Marks it as a pool of images.
    MarkForImages { pool: PoolName },
    /// With all that is in it.
    RemovePool { pool: PoolName },
    /// With the features `layering` and `exclusive-lock`.
    CreateImage { image: ImageName, size: Bytes },
    /// Larger or smaller. What is beyond a smaller size is lost.
    ResizeImage { image: ImageName, size: Bytes },
    /// Within its pool.
    RenameImage { image: ImageName, to: VolumeName },
    /// Refused while anybody has it open or it has snapshots.
    RemoveImage { image: ImageName },
    /// As the image is now.
    CreateSnapshot { image: ImageName, snapshot: SnapshotName },
    /// Of the same image.
    RenameSnapshot { image: ImageName, snapshot: SnapshotName, to: SnapshotName },
    /// Refused while it is protected.
    RemoveSnapshot { image: ImageName, snapshot: SnapshotName },
    /// Data goes to it, or leaves it.
    UseOsd { osd: OsdId, is_in: bool },
    /// Sets or clears a flag.
    Flag { flag: OsdFlag, is_set: bool },
}

impl CephChange {
    /// The image that is there already and is changed.
    pub fn of_image(&self) -> Option<&ImageName> {
        match self {
            Self::ResizeImage { image, .. }
            | Self::RenameImage { image, .. }
            | Self::RemoveImage { image }
            | Self::CreateSnapshot { image, .. }
            | Self::RenameSnapshot { image, .. }
            | Self::RemoveSnapshot { image, .. } => Some(image),
            Self::CreatePool { .. }
            | Self::KeepCopies { .. }
            | Self::MarkForImages { .. }
            | Self::RemovePool { .. }
            | Self::CreateImage { .. }
            | Self::UseOsd { .. }
            | Self::Flag { .. } => None,
        }
    }
}

impl fmt::Display for CephChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreatePool { pool, pgs } => write!(f, "creating pool {pool} with {pgs} placement groups"),
            Self::KeepCopies { pool, copies, min_copies } => {
                write!(f, "having pool {pool} keep {copies} copies, and at least {min_copies}")
            }
            Self::MarkForImages { pool } => write!(f, "marking pool {pool} for images"),
            Self::RemovePool { pool } => write!(f, "removing pool {pool}"),
            Self::CreateImage { image, size } => write!(f, "creating image {image} of {size}"),
            Self::ResizeImage { image, size } => write!(f, "resizing image {image} to {size}"),
            Self::RenameImage { image, to } => write!(f, "renaming image {image} to {to}"),
            Self::RemoveImage { image } => write!(f, "removing image {image}"),
            Self::CreateSnapshot { image, snapshot } => write!(f, "taking snapshot {image}@{snapshot}"),
            Self::RenameSnapshot { image, snapshot, to } => {
                write!(f, "renaming snapshot {image}@{snapshot} to {to}")
            }
            Self::RemoveSnapshot { image, snapshot } => write!(f, "removing snapshot {image}@{snapshot}"),
            Self::UseOsd { osd, is_in: true } => write!(f, "taking OSD {osd} into use"),
            Self::UseOsd { osd, is_in: false } => write!(f, "taking OSD {osd} out of use"),
            Self::Flag { flag, is_set: true } => write!(f, "setting {flag}"),
            Self::Flag { flag, is_set: false } => write!(f, "clearing {flag}"),
        }
    }
}

impl OsdMap {
    /// Whether a flag is set.
    pub fn has(&self, flag: &OsdFlag) -> bool {
        // Ceph lists this one as what it stops.
        let listed = if flag.as_str() == "pause" { "pauserd" } else { flag.as_str() };
        self.flags.contains(listed)
    }
}

/// What the state tree is to say of an object from now on; `None`: there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeChange {
    /// A pool, with the parents of what is in it.
    Pool(PoolName, Option<ObservedPool>),
    /// A volume, with its snapshots.
    Volume(ImageName, Option<ObservedImage>),
}
