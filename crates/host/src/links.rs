//! This machine's network devices, addresses and routes, and how neighbours hear of an address that has moved here.
//!
//! Never decides anything (see `pvc_core::plan::network` and `primary`), and never starts a program: all of it is netlink and
//! raw sockets in this process.

mod announce;
mod bridges;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod netlink;
mod seen;
mod sysctl;

use std::{io, net::IpAddr, time::Duration};

use async_trait::async_trait;
use pvc_core::model::link::{HostNetwork, LinkChange};
use tokio::sync::watch;

pub use bridges::Bridges;
pub use netlink::Netlink;

/// The deadline of each call. The kernel answers within a millisecond; a call that takes longer hangs on a driver.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// When an address is announced, counted from its arrival: a switch or a neighbour may miss the first.
pub const ANNOUNCE_AFTER: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(3)];

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// There is no such device.
    #[error("could not {doing}: there is no device {device}")]
    NoDevice {
        /// What was attempted.
        doing: String,
        /// The device.
        device: String,
    },
    /// The kernel refused.
    #[error("could not {doing}")]
    Kernel {
        /// What was attempted.
        doing: String,
        /// Its reason.
        #[source]
        cause: io::Error,
    },
    /// No answer in time: whether it was done is unknown.
    #[error("no answer within {DEADLINE:?} to: {doing}")]
    Deadline {
        /// What was attempted.
        doing: String,
    },
}

/// A machine's network.
#[async_trait]
pub trait Links: Send + Sync + 'static {
    /// Devices, addresses, routes, and those of the kernel's settings that are asked for (paths below `/proc/sys`).
    async fn observe(&self, sysctls: &[String]) -> Result<HostNetwork, LinksError>;

    /// Does one change. What is so already is success.
    async fn apply(&self, change: &LinkChange) -> Result<(), LinksError>;

    /// Tells all neighbours on a device's wire that these addresses are here now: one burst of ARP requests and replies for
    /// IPv4, unsolicited neighbour advertisements for IPv6. See [`ANNOUNCE_AFTER`].
    async fn announce(&self, device: &str, addresses: &[IpAddr]) -> Result<(), LinksError>;

    /// Signalled whenever devices, addresses or routes change, by whomever. Says only: look again.
    fn changes(&self) -> watch::Receiver<()>;
}
