//! What is made and unmade in a Ceph cluster: pools, images, snapshots, which OSDs are in use.

use async_trait::async_trait;
use pvc_core::model::{
    ceph::{ImageName, PoolName},
    storage::{CephChange, Hidden, ObservedImage, ObservedPool, OsdMap},
};

use super::{Ceph, CephError};
use crate::warrant::Warrant;

/// What a change was decided from, which may not be so any more when Ceph gets to it.
#[derive(Clone, Copy)]
pub struct OnlyIf<'a> {
    /// Asked when nothing is left to wait for before the change.
    pub warrant: &'a dyn Warrant,
    /// The id of the image that is changed, as it was looked at: another of its name is left alone.
    pub image: Option<&'a str>,
}

/// Looks at what is there, and changes it. Decides nothing: see `core/plan/storage`.
#[async_trait]
pub trait CephAdmin: Ceph {
    /// A pool; `None` if there is none.
    async fn pool(&self, pool: &PoolName) -> Result<Option<ObservedPool>, CephError>;

    /// The names of a pool's images, those in its trash not among them; none if there is no such pool.
    async fn images(&self, pool: &PoolName) -> Result<Vec<String>, CephError>;

    /// An image; `None` if there is none, or no such pool.
    async fn image(&self, image: &ImageName) -> Result<Option<ObservedImage>, CephError>;

    /// The OSDs.
    async fn osds(&self) -> Result<OsdMap, CephError>;

    /// What else is in a pool than its images: it goes with the pool.
    async fn hidden(&self, pool: &PoolName) -> Result<Hidden, CephError>;

    /// Makes one change. That it is made already may be refused. May take minutes.
    async fn change(&self, change: &CephChange, only_if: OnlyIf<'_>) -> Result<(), CephError>;
}
