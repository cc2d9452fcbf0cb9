//! IP networks and interface addresses as the configuration writes them: CIDR, nothing guessed; one code for both families.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{Ipv4Net, Ipv6Net};

/// One of the two families, by the type of its networks. An interface's address with its prefix length has the same type.
pub(crate) trait Family: Copy + fmt::Debug + fmt::Display + 'static {
    /// An address.
    type Address: Copy + Ord + fmt::Display + FromStr;
    /// The other family, for who mistakes one for the other.
    type Other: Family;
    /// An address's length.
    const BITS: u8;
    /// Whether a network's last address is everybody's.
    const BROADCAST: bool;
    /// `IPv4` or `IPv6`.
    const NAME: &'static str;
    /// The prefix length that most networks have.
    const USUAL_PREFIX: u8;

    fn new(address: Self::Address, prefix: u8) -> Option<Self>;
    /// As written: host bits may be set.
    fn address(self) -> Self::Address;
    fn prefix(self) -> u8;
    /// Without host bits.
    fn network(self) -> Self;
    fn contains(self, address: Self::Address) -> bool;
    /// The first and the last address of all, as numbers.
    fn ends(self) -> (u128, u128);
    /// The address of a number that fits.
    fn at(number: u128) -> Self::Address;

    /// The first and the last address that a machine can have, as numbers: not the network's own, which in IPv6 is all its routers'
    /// (RFC 4291, 2.6.1), nor an IPv4 network's broadcast address. Networks of two addresses or one have neither (RFC 3021, 6164).
    fn host_numbers(self) -> (u128, u128) {
        let (first, last) = self.ends();
        if self.prefix() >= Self::BITS - 1 {
            (first, last)
        } else {
            (first + 1, last - u128::from(Self::BROADCAST))
        }
    }

    /// The first and the last address that a machine can have.
    fn hosts(self) -> (Self::Address, Self::Address) {
        let (first, last) = self.host_numbers();
        (Self::at(first), Self::at(last))
    }

    /// Whether a machine can have `address`.
    fn is_host(self, address: Self::Address) -> bool {
        let (first, last) = self.hosts();
        (first..=last).contains(&address)
    }

    /// Whether the networks have an address in common.
    fn overlaps(self, other: Self) -> bool {
        self.contains(other.address()) || other.contains(self.address())
    }

    /// How many addresses machines can have.
    fn host_count(self) -> u128 {
        let (first, last) = self.host_numbers();
        (last - first).saturating_add(1)
    }

    /// The `number`th host address, counted from 1: of `10.0.0.0/24`, 1 is `10.0.0.1`. `None` beyond the last.
    fn host(self, number: u32) -> Option<Self::Address> {
        let skipped = u128::from(number.checked_sub(1)?);
        (skipped < self.host_count()).then(|| Self::at(self.host_numbers().0 + skipped))
    }
}

macro_rules! family {
    ($net:ty, $address:ty, $other:ty, $bits:literal, $name:literal, usual $usual:literal, broadcast $broadcast:literal) => {
        impl Family for $net {
            type Address = $address;
            type Other = $other;
            const BITS: u8 = $bits;
            const BROADCAST: bool = $broadcast;
            const NAME: &'static str = $name;
            const USUAL_PREFIX: u8 = $usual;

            fn new(address: $address, prefix: u8) -> Option<Self> {
                Self::new(address, prefix).ok()
            }

            fn address(self) -> $address {
                self.addr()
            }

            fn prefix(self) -> u8 {
                self.prefix_len()
            }

            fn network(self) -> Self {
                self.trunc()
            }

            fn contains(self, address: $address) -> bool {
                Self::contains(&self, &address)
            }

            fn ends(self) -> (u128, u128) {
                (Self::network(&self).to_bits().into(), self.broadcast().to_bits().into())
            }

            fn at(number: u128) -> $address {
                <$address>::from_bits(number.try_into().unwrap_or_default())
            }
        }
    };
}

family!(Ipv4Net, Ipv4Addr, Ipv6Net, 32, "IPv4", usual 24, broadcast true);
family!(Ipv6Net, Ipv6Addr, Ipv4Net, 128, "IPv6", usual 64, broadcast false);

/// A network: `10.255.0.0/24`, `fd00:255::/64`. Host bits are zero.
pub(crate) fn network<N: Family>(text: &str) -> Result<N, CidrError<N>> {
    let interface: N = interface(text)?;
    let network = interface.network();
    if network.address() == interface.address() { Ok(network) } else { Err(CidrError::HostBits(network)) }
}

/// An address together with the prefix length of its network: `10.255.0.254/24`, as it is given to an interface.
pub(crate) fn interface<N: Family>(text: &str) -> Result<N, CidrError<N>> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
    let Ok(address) = address.parse::<N::Address>() else {
        let other = address.parse::<<N::Other as Family>::Address>().is_ok();
        return Err(if other { CidrError::OtherFamily } else { CidrError::NotCidr });
    };
    let prefix = prefix.ok_or(CidrError::NoPrefix)?;
    if let Ok(netmask) = prefix.parse::<Ipv4Addr>() {
        return Err(CidrError::Netmask(netmask));
    }
    let digits = prefix.bytes().all(|b| b.is_ascii_digit()) && prefix.len() <= N::BITS.to_string().len();
    let prefix = prefix.parse().ok().filter(|_| digits);
    prefix.and_then(|prefix| N::new(address, prefix)).ok_or(CidrError::Prefix)
}

/// Why a text is not CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CidrError<N> {
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
    HostBits(N),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        network(text).unwrap()
    }

    fn net6(text: &str) -> Ipv6Net {
        network(text).unwrap()
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
            assert_eq!(super::network::<Ipv4Net>(text), Err(error), "{text}");
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
            assert_eq!(super::network::<Ipv6Net>(text), Err(error), "{text}");
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
