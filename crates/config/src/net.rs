//! IPv4 networks and interface addresses as the configuration writes them: CIDR, nothing guessed.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// An IPv4 network: `10.255.0.0/24`. Host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv4Net {
    address: Ipv4Addr,
    prefix: u8,
}

impl Ipv4Net {
    /// The network's first address.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// The prefix length, 0 to 32.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The last address: the broadcast address of networks that have one.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !mask(self.prefix))
    }

    /// Whether `address` lies in the network (its first and last addresses do).
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.address.to_bits()
    }

    /// Whether a machine can have `address`: inside, and neither the network's own nor its broadcast address
    /// (which networks of /31 and /32 do not have, RFC 3021).
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        self.contains(address) && (self.prefix > 30 || (address != self.address && address != self.last()))
    }

    /// Whether the networks have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// How many addresses machines can have.
    pub fn hosts(self) -> u64 {
        let all = 1_u64 << (32 - u32::from(self.prefix));
        if self.prefix > 30 { all } else { all - 2 }
    }

    /// The `number`th host address, counted from 1: of `10.0.0.0/24`, 1 is `10.0.0.1`. `None` beyond the last.
    pub fn host(self, number: u32) -> Option<Ipv4Addr> {
        let skipped = u32::from(self.prefix > 30);
        (number >= 1 && u64::from(number) <= self.hosts())
            .then(|| Ipv4Addr::from_bits(self.address.to_bits() + (number - skipped)))
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Ipv4Net {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let interface: Ipv4Interface = text.parse()?;
        let net = interface.net();
        if net.address == interface.address { Ok(net) } else { Err(CidrError::HostBits(net)) }
    }
}

/// An address together with the prefix length of its network: `10.255.0.254/24`, as it is given to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv4Interface {
    /// The address.
    pub address: Ipv4Addr,
    /// The prefix length, 0 to 32.
    pub prefix: u8,
}

impl Ipv4Interface {
    /// The network it lies in.
    pub fn net(self) -> Ipv4Net {
        let bits = self.address.to_bits() & mask(self.prefix);
        Ipv4Net { address: Ipv4Addr::from_bits(bits), prefix: self.prefix }
    }
}

impl fmt::Display for Ipv4Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Ipv4Interface {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let Some((address, prefix)) = text.split_once('/') else {
            return Err(if text.parse::<Ipv4Addr>().is_ok() {
                CidrError::NoPrefix
            } else {
                CidrError::NotCidr
            });
        };
        let address = address.parse().map_err(|_| CidrError::NotCidr)?;
        if let Ok(netmask) = prefix.parse::<Ipv4Addr>() {
            return Err(CidrError::Netmask(netmask));
        }
        let digits = !prefix.is_empty() && prefix.len() <= 2 && prefix.bytes().all(|b| b.is_ascii_digit());
        match prefix.parse::<u8>() {
            Ok(prefix) if digits && prefix <= 32 => Ok(Self { address, prefix }),
            _ => Err(CidrError::Prefix),
        }
    }
}

/// Why a text is not CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CidrError {
    /// Not four decimal numbers with dots.
    NotCidr,
    /// An address without `/<prefix>`.
    NoPrefix,
    /// The prefix length is not 0 to 32.
    Prefix,
    /// A netmask where the prefix length belongs.
    Netmask(Ipv4Addr),
    /// An address inside the network where the network itself is asked for: here is the network.
    HostBits(Ipv4Net),
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_are_counted_from_the_first_address_a_machine_can_have() {
        for (network, number, host) in [
            ("10.255.0.0/24", 1, Some("10.255.0.1")),
            ("10.255.0.0/24", 254, Some("10.255.0.254")),
            ("10.255.0.0/24", 255, None),
            ("10.255.0.0/24", 0, None),
            ("10.0.0.128/30", 2, Some("10.0.0.130")),
            ("10.0.0.128/30", 3, None),
            ("10.0.0.0/31", 1, Some("10.0.0.0")),
            ("10.0.0.0/31", 2, Some("10.0.0.1")),
            ("10.0.0.0/31", 3, None),
            ("255.255.255.255/32", 1, Some("255.255.255.255")),
            ("0.0.0.0/0", u32::MAX, None),
            ("0.0.0.0/0", u32::MAX - 1, Some("255.255.255.254")),
        ] {
            let host = host.map(|h: &str| h.parse::<Ipv4Addr>().unwrap());
            assert_eq!(net(network).host(number), host, "{network} {number}");
        }
    }

    #[test]
    fn only_cidr_notation_is_a_network() {
        for (text, error) in [
            ("10.0.0.0", CidrError::NoPrefix),
            ("10.0.0.0/", CidrError::Prefix),
            ("10.0.0.0/33", CidrError::Prefix),
            ("10.0.0.0/+8", CidrError::Prefix),
            ("10.0.0.0/255.0.0.0", CidrError::Netmask(Ipv4Addr::new(255, 0, 0, 0))),
            ("10.0.0/8", CidrError::NotCidr),
            ("10.0.0.256/8", CidrError::NotCidr),
            ("fd00::/8", CidrError::NotCidr),
            ("10.0.0.1/8", CidrError::HostBits(net("10.0.0.0/8"))),
        ] {
            assert_eq!(text.parse::<Ipv4Net>(), Err(error), "{text}");
        }
    }

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        assert!(net("10.0.0.0/8").overlaps(net("10.255.0.0/24")));
        assert!(net("10.255.0.0/24").overlaps(net("10.0.0.0/8")));
        assert!(net("0.0.0.0/0").overlaps(net("1.1.1.0/24")));
        assert!(!net("10.254.0.0/24").overlaps(net("10.255.0.0/24")));
    }

    #[test]
    fn network_and_broadcast_addresses_are_no_hosts() {
        let is_host = |network: &str, address: &str| net(network).is_host(address.parse().unwrap());
        assert!(is_host("10.0.0.0/24", "10.0.0.1"));
        assert!(!is_host("10.0.0.0/24", "10.0.0.0"));
        assert!(!is_host("10.0.0.0/24", "10.0.0.255"));
        assert!(!is_host("10.0.0.0/24", "10.0.1.1"));
        assert!(is_host("10.0.0.0/31", "10.0.0.0"));
        assert!(is_host("10.0.0.7/32", "10.0.0.7"));
    }
}
