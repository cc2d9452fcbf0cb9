//! DHCP for IPv4 (RFC 2131) and IPv6 (RFC 8415), and router advertisements (RFC 4861), as a server and router speaks them on this machine's bridges: what guests ask is typed
//! here, and what they are told becomes packets.
//!
//! Decides nothing: see `pvc_core::plan::dhcp` and `dhcp6`.

mod clock;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod message;
mod message6;
mod socket;
mod socket6;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use async_trait::async_trait;
use pvc_core::model::{
    Mac,
    dhcp::{Reply, Request},
    dhcp6::{Advertisement, Reply6, Request6},
};

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

/// This machine's DHCP ports.
pub trait DhcpPort: Send + Sync {
    /// Opens it. Requests on all devices are heard from then on, until what this gives is dropped.
    ///
    /// # Errors
    /// If another server has it.
    fn open(&self) -> io::Result<Box<dyn DhcpExchange>>;

    /// Opens that of IPv6. What guests ask on all devices is heard from then on, until what this gives is dropped.
    ///
    /// # Errors
    /// If another server has it.
    fn open6(&self) -> io::Result<Box<dyn Dhcp6Exchange>>;
}

/// Where to a guest is answered over IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The device on which it asked.
    pub device: String,
    /// Its address there; `None`: it has none yet.
    pub address: Option<Ipv6Addr>,
}

/// What a guest asks over IPv6, or is heard to say.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked6 {
    /// By DHCPv6, with the number of its exchange.
    Dhcp(Request6, [u8; 3]),
    /// Which router there is.
    Router,
    /// Nothing: it is heard that a card has this address, which it has made of itself.
    Has(Mac, Ipv6Addr),
}

/// The open port of IPv6.
#[async_trait]
pub trait Dhcp6Exchange: Send + Sync {
    /// The next that can be understood, and who asks.
    ///
    /// # Errors
    /// If the port is no good any more.
    async fn receive(&self) -> io::Result<(Asked6, Asker)>;

    /// Answers one. What is lost is asked for again, so nothing is told of that.
    fn answer(&self, to: &Asker, number: [u8; 3], reply: &Reply6);

    /// Says what the router is to one guest, or to all on the device.
    ///
    /// # Errors
    /// If the device, or the address that all routers have, is not there.
    fn advertise(&self, to: &Asker, advertisement: &Advertisement) -> io::Result<()>;

    /// Asks who has an address: whoever has it is heard then.
    fn look_for(&self, whom: &Asker);
}

/// The open port.
#[async_trait]
pub trait DhcpExchange: Send + Sync {
    /// The next request that can be understood.
    ///
    /// # Errors
    /// If the port is no good any more.
    async fn receive(&self) -> io::Result<Received>;

    /// Whether guests can take the time from a server at this address of the machine.
    async fn time_is_kept_at(&self, address: Ipv4Addr) -> bool;

    /// Answers one. What is lost is asked for again, so nothing is told of that.
    fn answer(&self, to: &Envelope, reply: &Reply);
}
