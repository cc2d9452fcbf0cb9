//! Guests' screens (VNC): a connection to one of this machine's guests, and who carries bytes between that and a viewer.
//!
//! Nobody here knows where QEMU listens: libvirt hands out a socket that QEMU has the other end of. Never looks at what is carried.

mod carry;

use std::{fmt, os::unix::net::UnixStream, time::Duration};

use async_trait::async_trait;
use pvc_core::model::VmId;

pub use carry::{Carried, Carriers};

/// Opens screens of this machine's guests.
#[async_trait]
pub trait Screens: Send + Sync + 'static {
    /// The screen of a guest that is active here; soon, or an error.
    async fn open(&self, id: VmId) -> Result<Screen, ScreenError>;
}

/// Why a screen is not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScreenError {
    /// The guest is not active here.
    #[error("it is not active here")]
    NotActive,
    /// It has no screen: what it lacks, and what to write.
    #[error("{0}")]
    Lacking(String),
    /// As many are being opened as may be, of this guest or of all.
    #[error("another viewer's screen is being opened, or too many are: come back in a moment")]
    Busy,
    /// No answer in time.
    #[error("libvirt did not answer within {0:?}")]
    Late(Duration),
    /// libvirt says no, or cannot be reached; in its words.
    #[error("libvirt: {0}")]
    Failed(String),
}

/// A guest's screen, as RFB (RFC 6143). Dropping it closes it.
pub struct Screen(pub(super) UnixStream);

impl Screen {
    /// The connection.
    pub fn into_stream(self) -> UnixStream {
        self.0
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}
