//! What guests ask for by DHCP (RFC 2131), and what they are told. All of a request comes from strangers.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Mac, lease::ClientId};

/// What a guest asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its card.
    pub mac: Mac,
    /// What it wants.
    pub asks: Asks,
    /// What it calls itself: anything.
    pub name: Option<String>,
    /// By what else than its card it wants to be known.
    pub client_id: Option<ClientId>,
}

/// The message's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Which address it could have; it would like that one.
    Discover(Option<Ipv4Addr>),
    /// To have what that server offered.
    Take(Ipv4Addr, Ipv4Addr),
    /// To keep what it has.
    Keep(Ipv4Addr),
    /// It has found that somebody uses that address.
    Decline(Ipv4Addr),
    /// It needs its address no more.
    Release(Ipv4Addr),
    /// It has an address of its own, and asks for the rest.
    Inform,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It could have that address.
    Offer(Ipv4Addr, Settings),
    /// It has that address.
    Acknowledge(Ipv4Addr, Settings),
    /// It may not have what it asked for, says the server at that address.
    Refuse(Ipv4Addr),
    /// The rest.
    Inform(Settings),
}

/// What a guest is told besides its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The gateway, which is the name server, too, and the network.
    pub gateway: Ipv4Net,
    /// The network's domain.
    pub domain: Option<String>,
    /// The largest packet.
    pub mtu: u16,
    /// Whether the gateway is a time server, too.
    pub keeps_time: bool,
    /// For how long it has its address, in seconds.
    pub lease_s: u32,
}
