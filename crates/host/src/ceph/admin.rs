//! What is made and unmade in a Ceph cluster: pools, images, snapshots, which OSDs are in use.

use async_trait::async_trait;
use pvc_core::model::{
    ceph::{ClientAddress, ImageName, OsdId, PoolName},
    osd::{OsdUuid, Osds},
    storage::{CephChange, Hidden, ObservedImage, ObservedPool, OsdMap},
};

use super::{Ceph, CephError, Progress};
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

    /// All OSDs, with what is needed to make and remove some.
    async fn osd_map(&self) -> Result<Osds, CephError>;

    /// Takes a number for a new OSD. That this UUID has one already is success.
    async fn take_osd_number(&self, uuid: &OsdUuid) -> Result<(), CephError>;

    /// Why data would be lost, or nobody knows, if an OSD were no more; `None`: it is safe.
    async fn unsafe_to_destroy(&self, osd: OsdId) -> Result<Option<String>, CephError>;

    /// The keyring by which OSDs are made.
    async fn osd_key(&self) -> Result<String, CephError>;

    /// What else is in a pool than its images: it goes with the pool.
    async fn hidden(&self, pool: &PoolName) -> Result<Hidden, CephError>;

    /// Sees to it that nothing more is done by a client by which one of these images was to be changed. One that has one of them open and executes is
    /// left to end its change: [`CephError::Late`] until then.
    async fn retire(&self, client: &ClientAddress, images: &[ImageName]) -> Result<(), CephError>;

    /// Makes one change, of an image by a client of its own, for which the warrant is asked. When this returns, that client does nothing any more. That it is made already may be refused. May take hours: `progress` tells how far it is, if Ceph does.
    async fn change(
        &self,
        change: &CephChange,
        only_if: OnlyIf<'_>,
        progress: &Progress,
    ) -> Result<(), CephError>;
}
