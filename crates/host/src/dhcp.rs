//! DHCP for IPv4 (RFC 2131), as a server speaks it on this machine's bridges: what guests ask is typed here, and what they are told becomes packets.
//!
//! Decides nothing: see `pvc_core::plan::dhcp`.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod message;
mod socket;

use std::io;

use async_trait::async_trait;
use pvc_core::model::dhcp::{Reply, Request};

pub use message::Envelope;
pub use socket::Kernel;

/// A request, and where it came from.
#[derive(Debug)]
pub struct Received {
    /// The device on which it came.
    pub device: String,
    /// What is asked.
    pub request: Request,
    /// What its answer needs of it.
    pub envelope: Envelope,
}

/// This machine's DHCP port.
pub trait DhcpPort: Send + Sync {
    /// Opens it. Requests on all devices are heard from then on, until what this gives is dropped.
    ///
    /// # Errors
    /// If another server has it.
    fn open(&self) -> io::Result<Box<dyn DhcpExchange>>;
}

/// The open port.
#[async_trait]
pub trait DhcpExchange: Send + Sync {
    /// The next request that can be understood.
    ///
    /// # Errors
    /// If the port is no good any more.
    async fn receive(&self) -> io::Result<Received>;

    /// Answers one. What is lost is asked for again, so nothing is told of that.
    fn answer(&self, to: &Envelope, reply: &Reply);
}
