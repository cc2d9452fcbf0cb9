//! What Ceph has, as it is observed before anything is changed, and the changes that it is asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    NodeName,
    ceph::{ImageName, OsdId, PoolName, PoolStats, SnapshotName, VolumeName, VolumeStats},
    storage_command::{Bytes, Device, OsdFlag, PgCount, Weight},
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
    /// What the last task that changed it in several steps has written at it.
    pub mark: Option<String>,
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
    /// Who has it open keeps it.
    RenamePool { pool: PoolName, to: PoolName },
    /// With all that is in it.
    RemovePool { pool: PoolName },
    /// With the features `layering` and `exclusive-lock`.
    CreateImage { image: ImageName, size: Bytes },
    /// Larger or smaller, as it was seen. What is beyond a smaller size is lost.
    ResizeImage { image: ImageName, size: Bytes, shrinks: bool },
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
    /// Writes what a snapshot holds to a new image of the same pool, which depends on nothing, and then the mark at that.
    CopyImage { image: ImageName, snapshot: SnapshotName, to: VolumeName, mark: String },
    /// Writes what a snapshot holds over the image, which gets the first mark before and the second after. Refused while anybody has it open.
    RollBack { image: ImageName, snapshot: SnapshotName, marks: [String; 2] },
    /// Data goes to it, or leaves it.
    UseOsd { osd: OsdId, is_in: bool },
    /// How much of the data an OSD gets, beside others.
    WeighOsd { osd: OsdId, weight: Weight },
    /// Has an OSD be destroyed, whose number stays taken.
    DestroyOsd { osd: OsdId },
    /// Has Ceph forget an OSD, whose daemon must be down. One that was up is asked about first: whether all its data is elsewhere.
    PurgeOsd { osd: OsdId, was_up: bool },
    /// Sets or clears a flag.
    Flag { flag: OsdFlag, is_set: bool },
}

impl CephChange {
    /// Whether it takes as long as the image is large. A larger size takes a moment.
    pub fn is_long(&self) -> bool {
        matches!(
            self,
            Self::RemoveImage { .. }
                | Self::CopyImage { .. }
                | Self::RollBack { .. }
                | Self::ResizeImage { shrinks: true, .. }
        )
    }

    /// The image that is there already and is changed.
    pub fn of_image(&self) -> Option<&ImageName> {
        match self {
            Self::ResizeImage { image, .. }
            | Self::RenameImage { image, .. }
            | Self::RemoveImage { image }
            | Self::CreateSnapshot { image, .. }
            | Self::RenameSnapshot { image, .. }
            | Self::RemoveSnapshot { image, .. }
            | Self::CopyImage { image, .. }
            | Self::RollBack { image, .. } => Some(image),
            Self::CreatePool { .. }
            | Self::KeepCopies { .. }
            | Self::MarkForImages { .. }
            | Self::RenamePool { .. }
            | Self::RemovePool { .. }
            | Self::CreateImage { .. }
            | Self::UseOsd { .. }
            | Self::WeighOsd { .. }
            | Self::DestroyOsd { .. }
            | Self::PurgeOsd { .. }
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
            Self::RenamePool { pool, to } => write!(f, "renaming pool {pool} to {to}"),
            Self::RemovePool { pool } => write!(f, "removing pool {pool}"),
            Self::CreateImage { image, size } => write!(f, "creating image {image} of {size}"),
            Self::ResizeImage { image, size, .. } => write!(f, "resizing image {image} to {size}"),
            Self::RenameImage { image, to } => write!(f, "renaming image {image} to {to}"),
            Self::RemoveImage { image } => write!(f, "removing image {image}"),
            Self::CreateSnapshot { image, snapshot } => write!(f, "taking snapshot {image}@{snapshot}"),
            Self::RenameSnapshot { image, snapshot, to } => {
                write!(f, "renaming snapshot {image}@{snapshot} to {to}")
            }
            Self::RemoveSnapshot { image, snapshot } => write!(f, "removing snapshot {image}@{snapshot}"),
            Self::CopyImage { image, snapshot, to, .. } => write!(f, "copying {image}@{snapshot} to {to}"),
            Self::RollBack { image, snapshot, .. } => write!(f, "rolling {image} back to {snapshot}"),
            Self::UseOsd { osd, is_in: true } => write!(f, "taking OSD {osd} into use"),
            Self::UseOsd { osd, is_in: false } => write!(f, "taking OSD {osd} out of use"),
            Self::WeighOsd { osd, weight } => write!(f, "giving OSD {osd} the weight {weight}"),
            Self::DestroyOsd { osd } => write!(f, "destroying OSD {osd}"),
            Self::PurgeOsd { osd, .. } => write!(f, "purging OSD {osd}"),
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
    /// An OSD, on which node and which device.
    Osd(OsdId, Option<(NodeName, Device)>),
}
