//! What guests ask for by DHCPv6 (RFC 8415), and what routers tell them (RFC 4861). All of a request comes from strangers.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use ipnet::Ipv6Net;

use super::{HostName, Mac, name::NameError};

/// Who a guest or a server says it is: 3 to 130 bytes (RFC 8415, section 11.1). Nobody reads anything in them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duid(Vec<u8>);

impl Duid {
    /// From bytes; `None`: too few or too many.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (3..=130).contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }

    /// That of the server at this gateway: whoever is primary, guests see one server (a UUID by RFC 6355, which is the address itself).
    pub fn of_gateway(gateway: Ipv6Addr) -> Self {
        Self([&[0, 4][..], &gateway.octets()].concat())
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Duid {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError {
            what: "DHCP unique identifier",
            found: text.chars().take(80).collect(),
            allowed: "3 to 130 bytes as pairs of hexadecimal digits in lower case",
        };
        let digit = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
        if text.len() > 260 || !text.len().is_multiple_of(2) || !text.as_bytes().iter().all(digit) {
            return Err(wrong());
        }
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.and_then(|bytes| Self::new(&bytes)).ok_or_else(wrong)
    }
}

/// Whom an address is given to: one of the wants of a guest at a card. Clones of a disk say the same of themselves, so the card counts, too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    /// The card from which it asks.
    pub mac: Mac,
    /// Which of its wants (`IAID`).
    pub association: u32,
    /// Who it says it is.
    pub duid: Duid,
}

/// As the key of a lease is called.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}.{}", self.mac, self.association, self.duid)
    }
}

impl FromStr for Client {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parsed = || -> Option<Self> {
            let mut parts = text.splitn(3, '.');
            let mac = parts.next()?.parse().ok()?;
            let association = u32::from_str_radix(parts.next()?, 16).ok()?;
            Some(Self { mac, association, duid: parts.next()?.parse().ok()? })
        };
        // One spelling, which leads back to its key.
        parsed().filter(|client| client.to_string() == text).ok_or_else(|| NameError {
            what: "DHCPv6 client",
            found: text.chars().take(80).collect(),
            allowed: "a hardware address, eight digits and an identifier, separated by points",
        })
    }
}

/// An address that DHCPv6 has given to a guest for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease6 {
    /// Who has it.
    pub client: Client,
    /// The address.
    pub address: Ipv6Addr,
    /// What the guest calls itself.
    pub name: Option<HostName>,
    /// When it ends, in seconds since 1970.
    pub expires_s: u64,
}

/// What a guest asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request6 {
    /// Its card.
    pub mac: Mac,
    /// Who it says it is; only [`Asks6::Inform`] may leave it out.
    pub client: Option<Duid>,
    /// Whom it asks; `None`: whoever hears it.
    pub server: Option<Duid>,
    /// What it wants.
    pub asks: Asks6,
    /// For what: each a number, and the addresses that it has or would like.
    pub wants: Vec<(u32, Vec<Ipv6Addr>)>,
    /// What it calls itself: anything.
    pub name: Option<String>,
}

/// The message's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks6 {
    /// Which addresses it could have (`SOLICIT`).
    Discover,
    /// To have what that server offered (`REQUEST`).
    Take,
    /// To keep what it has from that server (`RENEW`).
    Keep,
    /// To keep what it has, from any server (`REBIND`).
    KeepFromAny,
    /// Whether its addresses are right where it is now (`CONFIRM`).
    Confirm,
    /// It has found that somebody uses these addresses.
    Decline,
    /// It needs these addresses no more.
    Release,
    /// The rest, without addresses.
    Inform,
}

/// What it is told of one of its wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Which (`IAID`).
    pub association: u32,
    /// The address that is its own, for so many seconds.
    pub address: Option<(Ipv6Addr, u32)>,
    /// What it says it has, and has not.
    pub not: Vec<Ipv6Addr>,
    /// Why it has none.
    pub status: Option<Status>,
}

/// How a request went, by its number in RFC 8415, section 21.13.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it was asked.
    Success = 0,
    /// All addresses have somebody.
    NoAddresses = 2,
    /// The guest has none of these addresses.
    NoBinding = 3,
    /// They are addresses of another network.
    NotOnLink = 4,
}

/// What a guest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply6 {
    /// It could have so, if it asks for it; else it is so.
    pub is_offer: bool,
    /// Who says so.
    pub server: Duid,
    /// To whom.
    pub client: Option<Duid>,
    /// What became of what it wants.
    pub granted: Vec<Granted>,
    /// Of the whole.
    pub status: Option<Status>,
    /// Who resolves names.
    pub resolver: Ipv6Addr,
    /// The network's domain.
    pub domain: Option<String>,
}

/// What a network's router says of itself and the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// The addresses that are on the network. Guests make their own in it if it is of 64 bits.
    pub prefix: Ipv6Net,
    /// Who resolves names.
    pub resolver: Ipv6Addr,
    /// The network's domain.
    pub domain: Option<String>,
    /// The largest packet.
    pub mtu: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_a_guest_says_it_is_is_bounded_and_has_one_spelling() {
        let text = "52:54:00:00:00:01.0000002a.000300015254000000ff";
        let client: Client = text.parse().unwrap();
        assert_eq!((client.association, client.to_string().as_str()), (42, text));
        let long = format!("52:54:00:00:00:01.0000002a.{}", "00".repeat(131));
        for bad in [
            "",
            "52:54:00:00:00:01",
            "52:54:00:00:00:01.2a.000300015254",
            "52:54:00:00:00:01.0000002a.0003",
            "52:54:00:00:00:01.0000002a.00030",
            "52:54:00:00:00:01.0000002a.0003FF",
            "52:54:00:00:00:01.0000002a.0003+1",
            "52:54:00:00:00:0A.0000002a.000300",
            "52:54:00:00:00:01.+000002a.000300",
            "52:54:00:00:00:01.0000002a.0003é0",
            long.as_str(),
        ] {
            assert!(bad.parse::<Client>().is_err(), "{bad}");
        }
        assert!(Duid::new(&[0; 2]).is_none() && Duid::new(&[0; 131]).is_none());
    }

    #[test]
    fn all_primaries_are_one_server_and_each_gateway_another() {
        let of = |text: &str| Duid::of_gateway(text.parse().unwrap());
        assert_eq!(of("fd00::1").to_string(), "0004fd000000000000000000000000000001");
        assert_ne!(of("fd00::1"), of("fd00::2"));
    }
}
