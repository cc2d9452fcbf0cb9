//! The OSDs of this node: what is on a device, how one is written to it, started, stopped and taken away.
//!
//! Decides nothing (see `core/plan/storage/osd`), but never touches a device that is in use, whatever it is asked.

mod contents;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod kernel;
mod lvm;
mod outside;
mod real;

use async_trait::async_trait;
use pvc_core::model::{
    HostDevice,
    ceph::OsdId,
    osd::{LocalOsd, ObservedDevice, OsdUuid},
    storage_command::Device,
};
use serde::{Deserialize, Serialize};

pub use outside::{LONGEST_REQUEST, ThisNode, serve};

/// Why nothing is known, or was done, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum OsdError {
    /// This node lacks what is needed.
    #[error("{0}")]
    Missing(String),
    /// It was refused.
    #[error("could not {doing}: {why}")]
    Refused {
        /// What was tried.
        doing: String,
        /// In whose words ever.
        why: String,
    },
    /// There is something on the device that is not to be lost: nothing was changed.
    #[error("{device} holds {what} by now: nothing was changed on it")]
    NotBlank {
        /// Which.
        device: String,
        /// What is on it.
        what: String,
    },
    /// By that name there is another device than was looked at, or none.
    #[error("{0} is another device by now: nothing was changed on it")]
    Another(String),
    /// It may have been done in part.
    #[error("{0} did not end in time")]
    Late(String),
}

/// What may be on a device that is cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MayHold {
    /// It must be blank.
    Nothing,
    /// What a part of making it an OSD may have left, and nothing that was certainly made by others.
    Own,
    /// All of it may be lost.
    Anything,
}

/// See the module's documentation.
#[async_trait]
pub trait OsdHost: Send + Sync + 'static {
    /// What a device is like, and whether one of these names, which are others' for devices, is its own; `None`: there is none.
    async fn device(&self, device: &Device, names: &[HostDevice])
    -> Result<Option<ObservedDevice>, OsdError>;

    /// What this node has of an OSD; `None`: nothing.
    async fn local(&self, osd: OsdId) -> Result<Option<LocalOsd>, OsdError>;

    /// Clears a device that nobody uses, if it has this identity, and makes it that OSD, whose number is taken. `key` is Ceph's for making OSDs.
    async fn write(
        &self,
        device: &Device,
        identity: &str,
        may: MayHold,
        osd: OsdId,
        key: &str,
    ) -> Result<(), OsdError>;

    /// Stops an OSD that was not finished, and takes away its folder and, if a device with its identity is given, what lvm has made of that.
    async fn take_away(&self, osd: OsdId, device: Option<(&Device, &str)>) -> Result<(), OsdError>;

    /// Starts its daemon, now and at each boot.
    async fn start(&self, osd: OsdId) -> Result<(), OsdError>;

    /// Stops its daemon, now and for all boots. One that does not run is success.
    async fn stop(&self, osd: OsdId) -> Result<(), OsdError>;

    /// Clears the device of an OSD that has this UUID and runs no more, unless `device_too` is false, and takes its folder away.
    async fn clear(&self, osd: OsdId, uuid: &OsdUuid, device_too: bool) -> Result<(), OsdError>;
}
