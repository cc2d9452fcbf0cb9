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

use std::{io, time::Duration};

use async_trait::async_trait;
use pvc_core::model::link::{HostNetwork, LinkChange, Placed};
use tokio::{sync::watch, time::Instant};

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
    /// Nothing was attempted: who asked for it said so when its turn came.
    #[error("did not {doing}: there was no time left for it")]
    TooLate {
        /// What was not attempted.
        doing: String,
    },
    /// No answer in time: whether it was done is unknown.
    #[error("no answer within {DEADLINE:?} to: {doing}")]
    Deadline {
        /// What was attempted.
        doing: String,
    },
}

impl LinksError {
    /// Whether the kernel said no. Otherwise nobody has said anything: a socket broke, or it was too late.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NoDevice { .. } => true,
            Self::Kernel { cause, .. } => cause.raw_os_error().is_some(),
            Self::TooLate { .. } | Self::Deadline { .. } => false,
        }
    }
}

/// A machine's network.
#[async_trait]
pub trait Links: Send + Sync + 'static {
    /// Devices, addresses, routes, and those of the kernel's settings that are asked for (paths below `/proc/sys`).
    async fn observe(&self, sysctls: &[String]) -> Result<HostNetwork, LinksError>;

    /// Does one change. What is so already is success.
    async fn apply(&self, change: &LinkChange) -> Result<(), LinksError>;

    /// Gives these addresses to their devices, or those that are there a new lifetime; an outcome for each, in their order: none hinders another.
    ///
    /// Many go to the kernel together. How long they may live is asked for just before, again and again; once there is no answer, nothing
    /// more is attempted ([`LinksError::TooLate`]).
    async fn hold(&self, addresses: &[Placed], lifetime_s: Lifetime<'_>) -> Vec<Result<(), LinksError>> {
        let mut outcomes = Vec::with_capacity(addresses.len());
        for address in addresses {
            outcomes.push(match lifetime_s() {
                Some(lifetime_s) => self.apply(&address.set(Some(lifetime_s))).await,
                None => Err(LinksError::TooLate { doing: address.set(None).to_string() }),
            });
        }
        outcomes
    }

    /// Removes these addresses, many together; an outcome for each, in their order: none hinders another.
    async fn remove(&self, addresses: &[Placed]) -> Vec<Result<(), LinksError>> {
        let mut outcomes = Vec::with_capacity(addresses.len());
        for address in addresses {
            outcomes.push(self.apply(&address.remove()).await);
        }
        outcomes
    }

    /// Tells all neighbours on the devices' wires that these addresses are here now: one burst of ARP requests and replies for
    /// IPv4, unsolicited neighbour advertisements for IPv6, in their order. See [`ANNOUNCE_AFTER`]. Of what fails the first is told, after all others were sent.
    /// Once it is later than `not_after` nothing is sent: somebody else may have announced them.
    async fn announce(&self, addresses: &[Placed], not_after: Instant) -> Result<(), LinksError>;

    /// Signalled whenever devices, addresses or routes change, by whomever. Says only: look again.
    fn changes(&self) -> watch::Receiver<()>;
}

/// How many seconds an address may live if it is added now; `None`: it must not be added any more.
pub type Lifetime<'a> = &'a (dyn Fn() -> Option<u32> + Send + Sync);
