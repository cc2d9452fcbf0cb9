//! IP networks and interface addresses as the configuration writes them: CIDR, nothing guessed; one code for both families.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// An address of one of the two families, as a number of so many bits.
pub trait Family: Copy + Ord + fmt::Debug + fmt::Display + FromStr + 'static {
    /// An address's length.
    const BITS: u8;
    /// Whether a network's last address is everybody's.
    const BROADCAST: bool;
    /// `IPv4` or `IPv6`.
    const NAME: &'static str;
    /// The prefix length that most networks have.
    const USUAL_PREFIX: u8;
    /// The other family, for who mistakes one for the other.
    type Other: Family;

    /// The address as a number.
    fn bits(self) -> u128;

    /// The address of a number that fits.
    fn of(bits: u128) -> Self;
}

impl Family for Ipv4Addr {
    const BITS: u8 = 32;
    const BROADCAST: bool = true;
    const NAME: &'static str = "IPv4";
    const USUAL_PREFIX: u8 = 24;
    type Other = Ipv6Addr;

    fn bits(self) -> u128 {
        self.to_bits().into()
    }

    fn of(bits: u128) -> Self {
        Self::from_bits(u32::try_from(bits).unwrap_or(u32::MAX))
    }
}

impl Family for Ipv6Addr {
    const BITS: u8 = 128;
    const BROADCAST: bool = false;
    const NAME: &'static str = "IPv6";
    const USUAL_PREFIX: u8 = 64;
    type Other = Ipv4Addr;

    fn bits(self) -> u128 {
        self.to_bits()
    }

    fn of(bits: u128) -> Self {
        Self::from_bits(bits)
    }
}

/// The bits that tell hosts of a network apart.
fn host_bits<A: Family>(prefix: u8) -> u128 {
    1_u128.checked_shl(u32::from(A::BITS - prefix)).map_or(u128::MAX, |beyond| beyond - 1)
}

/// A network: `10.255.0.0/24`, `fd00:255::/64`. Host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpNet<A> {
    address: A,
    prefix: u8,
}

/// An IPv4 network.
pub type Ipv4Net = IpNet<Ipv4Addr>;
/// An IPv6 network.
pub type Ipv6Net = IpNet<Ipv6Addr>;

impl<A: Family> IpNet<A> {
    /// The network's first address.
    pub fn address(self) -> A {
        self.address
    }

    /// The prefix length, 0 to 32 or 128.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether `address` lies in the network (its first and last addresses do).
    pub fn contains(self, address: A) -> bool {
        address.bits() & !host_bits::<A>(self.prefix) == self.address.bits()
    }

    /// The first and the last address that a machine can have: not the network's own, which in IPv6 is all its routers'
    /// (RFC 4291, 2.6.1), nor an IPv4 network's broadcast address. Networks of two addresses or one have neither (RFC 3021, 6164).
    pub fn hosts(self) -> (A, A) {
        let (own, end) = (self.address.bits(), self.address.bits() | host_bits::<A>(self.prefix));
        if self.prefix >= A::BITS - 1 {
            return (A::of(own), A::of(end));
        }
        (A::of(own + 1), A::of(end - u128::from(A::BROADCAST)))
    }

    /// Whether a machine can have `address`.
    pub fn is_host(self, address: A) -> bool {
        let (first, last) = self.hosts();
        (first..=last).contains(&address)
    }

    /// Whether the networks have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// How many addresses machines can have.
    pub fn host_count(self) -> u128 {
        let (first, last) = self.hosts();
        (last.bits() - first.bits()).saturating_add(1)
    }

    /// The `number`th host address, counted from 1: of `10.0.0.0/24`, 1 is `10.0.0.1`. `None` beyond the last.
    pub fn host(self, number: u32) -> Option<A> {
        let skipped = u128::from(number.checked_sub(1)?);
        (skipped < self.host_count()).then(|| A::of(self.hosts().0.bits() + skipped))
    }
}

impl<A: Family> fmt::Display for IpNet<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl<A: Family> FromStr for IpNet<A> {
    type Err = CidrError<A>;

    fn from_str(text: &str) -> Result<Self, CidrError<A>> {
        let interface: IpInterface<A> = text.parse()?;
        let net = interface.net();
        if net.address == interface.address { Ok(net) } else { Err(CidrError::HostBits(net)) }
    }
}

/// An address together with the prefix length of its network: `10.255.0.254/24`, as it is given to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpInterface<A> {
    /// The address.
    pub address: A,
    /// The prefix length, 0 to 32 or 128.
    pub prefix: u8,
}

/// An IPv4 address of an interface.
pub type Ipv4Interface = IpInterface<Ipv4Addr>;
/// An IPv6 address of an interface.
pub type Ipv6Interface = IpInterface<Ipv6Addr>;

impl<A: Family> IpInterface<A> {
    /// The network it lies in.
    pub fn net(self) -> IpNet<A> {
        let bits = self.address.bits() & !host_bits::<A>(self.prefix);
        IpNet { address: A::of(bits), prefix: self.prefix }
    }
}

impl<A: Family> fmt::Display for IpInterface<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl<A: Family> FromStr for IpInterface<A> {
    type Err = CidrError<A>;

    fn from_str(text: &str) -> Result<Self, CidrError<A>> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let Ok(address) = address.parse::<A>() else {
            let other = address.parse::<A::Other>().is_ok();
            return Err(if other { CidrError::OtherFamily } else { CidrError::NotCidr });
        };
        let prefix = prefix.ok_or(CidrError::NoPrefix)?;
        if let Ok(netmask) = prefix.parse::<Ipv4Addr>() {
            return Err(CidrError::Netmask(netmask));
        }
        let digits = prefix.bytes().all(|b| b.is_ascii_digit()) && prefix.len() <= A::BITS.to_string().len();
        match prefix.parse::<u8>() {
            Ok(prefix) if digits && prefix <= A::BITS => Ok(Self { address, prefix }),
            _ => Err(CidrError::Prefix),
        }
    }
}

/// Why a text is not CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CidrError<A> {
    /// No address, or more than one and a prefix length.
    NotCidr,
    /// IPv6 where IPv4 is asked for, or the other way round.
    OtherFamily,
    /// An address without `/<prefix>`.
    NoPrefix,
    /// The prefix length is not 0 to 32 or 128.
    Prefix,
    /// A netmask where the prefix length belongs.
    Netmask(Ipv4Addr),
    /// An address inside the network where the network itself is asked for: here is the network.
    HostBits(IpNet<A>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn net6(text: &str) -> Ipv6Net {
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
            ("fd00::/8", CidrError::OtherFamily),
            ("fd00::1", CidrError::OtherFamily),
            ("10.0.0.0/008", CidrError::Prefix),
            ("10.0.0.1/8", CidrError::HostBits(net("10.0.0.0/8"))),
        ] {
            assert_eq!(text.parse::<Ipv4Net>(), Err(error), "{text}");
        }
        for (text, error) in [
            ("fd00::", CidrError::NoPrefix),
            ("fd00::/129", CidrError::Prefix),
            ("fd00::/0064", CidrError::Prefix),
            ("fd00::/", CidrError::Prefix),
            ("fd00:::/8", CidrError::NotCidr),
            ("[fd00::]/8", CidrError::NotCidr),
            ("fe80::%eth0/64", CidrError::NotCidr),
            ("10.0.0.0/8", CidrError::OtherFamily),
            ("fd00::1/64", CidrError::HostBits(net6("fd00::/64"))),
        ] {
            assert_eq!(text.parse::<Ipv6Net>(), Err(error), "{text}");
        }
    }

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        assert!(net("10.0.0.0/8").overlaps(net("10.255.0.0/24")));
        assert!(net("10.255.0.0/24").overlaps(net("10.0.0.0/8")));
        assert!(net("0.0.0.0/0").overlaps(net("1.1.1.0/24")));
        assert!(!net("10.254.0.0/24").overlaps(net("10.255.0.0/24")));
        assert!(net6("fd00::/32").overlaps(net6("fd00:0:5::/64")));
        assert!(net6("::/0").overlaps(net6("fd00::/128")));
        assert!(!net6("fd00:0:0:1::/64").overlaps(net6("fd00:0:0:2::/64")));
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

    #[test]
    fn an_ipv6_network_has_an_address_of_its_own_and_no_broadcast_address() {
        for (network, first, last, count) in [
            ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff", u128::from(u64::MAX)),
            ("fd00::/126", "fd00::1", "fd00::3", 3),
            ("fd00::/127", "fd00::", "fd00::1", 2),
            ("fd00::7/128", "fd00::7", "fd00::7", 1),
            ("::/0", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", u128::MAX),
        ] {
            let ends = (first.parse().unwrap(), last.parse().unwrap());
            assert_eq!((net6(network).hosts(), net6(network).host_count()), (ends, count), "{network}");
        }
        assert!(!net6("fd00::/64").is_host("fd00::".parse().unwrap()));
        assert!(!net6("fd00::/64").is_host("fd00:0:0:1::1".parse().unwrap()));
    }
}
