//! What is made and unmade in a Ceph cluster: pools, images, snapshots, which OSDs are in use.

use async_trait::async_trait;
use pvc_core::model::{
    ceph::{ImageName, PoolName},
    storage::{CephChange, ObservedImage, ObservedPool, OsdMap},
};

use super::{Ceph, CephError};

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

    /// Makes one change. That it is made already may be refused. May take minutes.
    async fn change(&self, change: &CephChange) -> Result<(), CephError>;
}
