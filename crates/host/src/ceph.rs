//! The Ceph cluster that holds the VMs' images, as one of its clients sees it.
//!
//! Never decides who is to be shut out of it; see `core/plan/storage_fence`. Knows nothing of the state tree.

mod admin;
mod cluster;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod ffi;
mod librados;
mod progress;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::model::ceph::{ClientAddress, Figures, ImageName, Lock, OsdId, OsdStats, Users};

use crate::warrant::Void;

pub use admin::{CephAdmin, OnlyIf};
pub use librados::{Access, Librados, all_have_left, exit, exit_at_once};
pub use progress::Progress;

/// How long a client stays blocklisted: longer than any machine stays frozen. An entry that expires lets its client write again.
pub const BLOCKLIST_FOR: Duration = Duration::from_hours(24 * 365 * 10);

/// Why Ceph did not do, or say, what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CephError {
    /// This machine lacks the libraries.
    #[error("this node has no Ceph: {0}")]
    Missing(String),
    /// There is no connection.
    #[error("Ceph cannot be reached: {0}")]
    Unavailable(String),
    /// It answered no.
    #[error("Ceph refused {doing}: {why}")]
    Refused {
        /// What was asked.
        doing: String,
        /// In its words.
        why: String,
    },
    /// Nothing was heard in time: it may have been done or not.
    #[error("Ceph did not answer in time: {doing}")]
    Late {
        /// What was asked.
        doing: String,
    },
    /// This node's own connection was blocklisted; the next call makes another.
    #[error("this node's own connection to Ceph was blocklisted")]
    ShutOut,
    /// It is not for this node to do any more.
    #[error(transparent)]
    Void(#[from] Void),
    /// Its answer is not what its documentation says.
    #[error("Ceph's answer cannot be read: {0}")]
    Strange(String),
}

/// A connection to Ceph, kept for as long as this lives. What fails may be tried again at once.
#[async_trait]
pub trait Ceph: Send + Sync + 'static {
    /// Where this client is.
    async fn own_address(&self) -> Result<ClientAddress, CephError>;

    /// The hosts that the addresses of this host's clients may have: of several addresses, each client has the one by which it reached Ceph first.
    async fn own_hosts(&self) -> Result<BTreeSet<IpAddr>, CephError>;

    /// Who uses an image; `None` if there is no such image. This client is never among them.
    async fn users(&self, image: &ImageName) -> Result<Option<Users>, CephError>;

    /// Shuts a client out, for [`BLOCKLIST_FOR`] from now. One that is shut out already stays so.
    async fn blocklist(&self, client: &ClientAddress) -> Result<(), CephError>;

    /// Lets a client in again, which must be proven dead: it would go on writing where it stopped. One that is not shut out is success.
    async fn lift(&self, client: &ClientAddress) -> Result<(), CephError>;

    /// Who is shut out, and until when (seconds since 1970). Entries for more than one client are not told.
    async fn blocklisted(&self) -> Result<BTreeMap<ClientAddress, u64>, CephError>;

    /// Returns when what the monitors have decided before is known here. Whoever connects from now on knows it too, and the OSDs learn it
    /// from whoever they hear of first.
    async fn await_latest_map(&self) -> Result<(), CephError>;

    /// What the cluster says of itself.
    async fn figures(&self) -> Result<Figures, CephError>;

    /// What it says of each OSD. Words that only a module of the manager knows are empty where that is off.
    async fn osd_stats(&self) -> Result<BTreeMap<OsdId, OsdStats>, CephError>;

    /// Takes a lock from its holder, who is blocklisted by that if it was not. That it is not held any more, or that there is no such image, is success.
    async fn break_lock(&self, image: &ImageName, lock: &Lock) -> Result<(), CephError>;
}
