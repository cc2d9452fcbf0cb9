//! A client network as the state tree describes it.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{Ipv4Net, Ipv6Net};

use super::name::NameError;

/// A network's number: its VXLAN identifier, or the VLAN of a bridged network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// The largest: 24 bits (RFC 7348).
    pub const MAX: u32 = 0x00ff_ffff;

    /// The number itself.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl FromStr for Vni {
    type Err = NameError;

    /// Accepts the one decimal spelling that leads back to its key: no sign, no leading zero.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(number) if (1..=Self::MAX).contains(&number) && number.to_string() == text => Ok(Self(number)),
            _ => Err(error("network number", text, "a number from 1 to 16777215")),
        }
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || error("hardware address", text, "six bytes such as 52:54:00:12:34:56");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part.and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(wrong)?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if i > 0 { ":" } else { "" })?;
        }
        Ok(())
    }
}

/// A domain name: labels of letters, digits, `-` and `_`, at most 253 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainName(String);

impl DomainName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
                && !l.starts_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            return Ok(Self(text.to_owned()));
        }
        Err(error("domain name", text, "labels of letters, digits, '-' and '_', separated by dots"))
    }
}

/// Who provides addresses and a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkKind {
    /// This cluster.
    Managed,
    /// Somebody outside: the network is only bridged.
    Bridged,
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Managed => "managed",
            Self::Bridged => "bridged",
        })
    }
}

impl FromStr for NetworkKind {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "managed" => Ok(Self::Managed),
            "bridged" => Ok(Self::Bridged),
            _ => Err(error("network type", text, "managed or bridged")),
        }
    }
}

/// Addresses that DHCP gives out to machines that nothing is reserved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dhcp4 {
    /// Whether DHCP is served.
    pub enabled: bool,
    /// First address.
    pub start: Option<Ipv4Addr>,
    /// Last address.
    pub end: Option<Ipv4Addr>,
}

/// An address that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The name that the machine gave; anything that it likes.
    pub hostname: String,
    /// When it ends, seconds since 1970; 0 = never.
    pub expiry_unix_s: u64,
    /// The identifier that the machine gave.
    pub client_id: String,
}

/// An address that one machine always gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The address.
    pub address: Ipv4Addr,
    /// The machine's name, perhaps empty.
    pub hostname: String,
}

/// A firewall rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The key: unique per direction.
    pub description: String,
    /// Rules apply in this order.
    pub order: i64,
    /// The body of an nft rule; not checked here.
    pub rule: String,
}

/// One client network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the key of its name in the state tree")]
pub struct Network {
    pub vni: Vni,
    pub description: String,
    pub kind: NetworkKind,
    pub domain: Option<DomainName>,
    pub ip4_network: Option<Ipv4Net>,
    pub ip4_gateway: Option<Ipv4Addr>,
    pub dhcp4: Dhcp4,
    pub ip6_network: Option<Ipv6Net>,
    pub ip6_gateway: Option<Ipv6Addr>,
    pub dhcp6_enabled: bool,
    pub leases: BTreeMap<Mac, Lease>,
    pub reservations: BTreeMap<Mac, Reservation>,
    /// Into the network, in order.
    pub rules_in: Vec<Rule>,
    /// Out of the network, in order.
    pub rules_out: Vec<Rule>,
}

fn error(what: &'static str, found: &str, allowed: &'static str) -> NameError {
    NameError { what, found: found.to_owned(), allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_numbers_have_one_spelling() {
        assert_eq!("100".parse::<Vni>().unwrap().number(), 100);
        for bad in ["0", "", "+1", "0100", "16777216", "1 ", "none"] {
            assert!(bad.parse::<Vni>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_read_and_rubbish_is_refused() {
        assert_eq!("52:54:00:AB:cd:0f".parse::<Mac>().unwrap().to_string(), "52:54:00:ab:cd:0f");
        for bad in ["", "52:54:00:ab:cd", "52:54:00:ab:cd:0f:01", "+2:54:00:ab:cd:0f", "5:54:00:ab:cd:0f"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
        for bad in ["", ".", "a..b", "a b", "-a", "a\n", "a;b"] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        }
    }
}
