//! A reset of this machine that comes by itself unless the daemon keeps it off: what ends guests when nobody else can.
//!
//! [`Watchdog`] is what the daemon holds; [`Guard`] is the real one, a thread of its own over [`Hardware`]. Never decides when to arm, feed or
//! disarm; see `pvc_core::plan::selffence`.

mod device;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod guard;
mod machine;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, time::Duration};

use async_trait::async_trait;
use pvc_core::plan::selffence::Promise;

pub use guard::Guard;
pub use machine::{MachineHardware, Paths};

/// The longest that arming or disarming takes.
pub const SWITCH_WITHIN: Duration = Duration::from_secs(2);

/// What guards the machine from now on, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Armed {
    /// What the others may count on.
    pub promise: Promise,
    /// What it is, in words for the log.
    pub by: String,
}

/// Why the guard is not as asked.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// The guard's thread is gone or does not answer.
    #[error("the thread that guards this machine does not answer")]
    Stuck,
    /// The device could not be disarmed: the machine will be reset.
    #[error("{} could not be disarmed", device.display())]
    Disarm {
        /// The device.
        device: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
}

/// A reset that comes by itself.
#[async_trait]
pub trait Watchdog: Send + Sync + 'static {
    /// From now on the machine is reset `within` after the last keepalive that was fed; one that was sent `age` ago counts as fed.
    async fn arm(&self, within: Duration, age: Duration) -> Result<Armed, WatchdogError>;

    /// A keepalive that was sent `age` ago has been acknowledged. Never waits.
    fn feed(&self, age: Duration);

    /// No reset comes any more. Not armed is success.
    async fn disarm(&self) -> Result<(), WatchdogError>;
}

/// What a [`Guard`] acts on. Called from its thread only; nothing of it may wait for a disk, but for [`Self::last_resort`], which
/// bounds that.
pub trait Hardware: Send + 'static {
    /// Arms what resets the machine without any program; says what there is.
    fn arm(&mut self, within: Duration) -> Found;

    /// Puts that off.
    fn feed(&mut self) -> io::Result<()>;

    /// Disarms it.
    fn disarm(&mut self) -> Result<(), WatchdogError>;

    /// Says why, then resets the machine. Returns only if it could not.
    fn last_resort(&mut self, reason: &str);
}

/// What [`Hardware::arm`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// How it behaves.
    pub device: pvc_core::plan::selffence::Device,
    /// What it is, or why there is none, in words for the log.
    pub what: String,
}
