//! Kinds of value that are addresses and networks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Kind, Refusal};
use crate::{
    net::{self, CidrError, Family},
    tree::Scalar,
};

/// An IPv4 network in CIDR notation.
pub(crate) fn network() -> Kind<Ipv4Net> {
    Kind::new("an IPv4 network in CIDR notation such as 10.255.0.0/24", |s| {
        net::network(&s.text).map_err(|error| not_cidr(error, Some("network6")))
    })
}

/// An IPv6 network in CIDR notation that means something beyond one wire.
pub(crate) fn network6() -> Kind<Ipv6Net> {
    Kind::new("an IPv6 network in CIDR notation such as fd00:255::/64", |s| {
        let net: Ipv6Net = net::network(&s.text).map_err(|error| not_cidr(error, Some("network")))?;
        let first = net.addr();
        let problem = if first.is_multicast() {
            "is multicast"
        } else if first.is_unicast_link_local() {
            "is link-local: it means another network on every wire"
        } else if first.segments()[..5] == [0; 5] && net.prefix_len() > 0 {
            "is reserved"
        } else {
            return Ok(net);
        };
        Err(Refusal::help(problem, "use the site's own prefix, or a unique local one (fd00::/8, RFC 4193)"))
    })
}

/// An IPv4 address in CIDR notation.
pub(crate) fn interface() -> Kind<Ipv4Net> {
    Kind::new("an IPv4 address with prefix length such as 10.255.0.254/24", |s| {
        net::interface(&s.text).map_err(|error| not_cidr(error, Some("floating_ip6")))
    })
}

/// An IPv6 address in CIDR notation.
pub(crate) fn interface6() -> Kind<Ipv6Net> {
    Kind::new("an IPv6 address with prefix length such as fd00:255::fe/64", |s| {
        net::interface(&s.text).map_err(|error| not_cidr(error, Some("floating_ip")))
    })
}

/// `sibling` is the setting for the other family, if there is one.
fn not_cidr<N: Family>(error: CidrError<N>, sibling: Option<&str>) -> Refusal {
    let range = format!("0 to {}", N::BITS);
    match error {
        CidrError::NotCidr => "is not in CIDR notation".into(),
        CidrError::OtherFamily => {
            let other = <N::Other as Family>::NAME;
            let problem = format!("is {other}, not {}", N::NAME);
            let help = sibling.map(|sibling| format!("{other} goes into the setting {sibling}"));
            Refusal { problem, help: help.into_iter().collect() }
        }
        CidrError::NoPrefix => {
            Refusal::help("has no prefix length", format!("add it, such as /{}", N::USUAL_PREFIX))
        }
        CidrError::Prefix => Refusal::help("has an invalid prefix length", format!("it is {range}")),
        CidrError::Netmask(netmask) => {
            let bits = netmask.to_bits();
            let help = if bits.leading_ones() == bits.count_ones() {
                format!("write the prefix length: /{}", bits.count_ones())
            } else {
                format!("write the prefix length, {range}")
            };
            Refusal::help("has a netmask instead of a prefix length", help)
        }
        CidrError::HostBits(net) => {
            Refusal::help("is an address, not a network", format!("the network it lies in is {net}"))
        }
    }
}

/// An address alone.
pub(crate) fn address() -> Kind<Ipv4Addr> {
    Kind::new("an IPv4 address without prefix length", |s| match s.text.parse() {
        Ok(address) => Ok(address),
        Err(_) => Err(match net::interface::<Ipv4Net>(&s.text) {
            Ok(interface) => {
                Refusal::help("must have no prefix length", format!("write {} alone", interface.addr()))
            }
            Err(_) => "is not an IPv4 address".into(),
        }),
    })
}

/// An address of either family.
pub(crate) fn ip_address() -> Kind<IpAddr> {
    Kind::new("an IP address such as 127.0.0.1, 0.0.0.0 or ::", |s| {
        s.text.trim().parse().map_err(|_| "is not an IP address".into())
    })
}

/// An address of a router on one wire with this node.
pub(crate) fn router() -> Kind<IpAddr> {
    Kind::new("a router's IP address such as 1.1.1.1 or 2001:db8::1", |s| {
        let address: IpAddr = s.text.trim().parse().map_err(|_| Refusal::from("is not an IP address"))?;
        match address {
            _ if address.is_unspecified() || address.is_multicast() || address.is_loopback() => {
                Err("is no address of a router".into())
            }
            IpAddr::V4(four) if four.is_broadcast() || four.octets()[0] == 0 => {
                Err("is no address of a router".into())
            }
            IpAddr::V6(six) if six.is_unicast_link_local() => Err(Refusal::help(
                "is link-local",
                "write the router's address of the network that both are in",
            )),
            IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => {
                Err(Refusal::help("is an IPv4 address in IPv6's notation", "write it as 1.1.1.1"))
            }
            address => Ok(address),
        }
    })
}

/// An address and port of this machine's own that no other machine reaches.
pub(crate) fn loopback() -> Kind<SocketAddr> {
    Kind::new("a loopback address with port, such as 127.0.0.1:9470 or [::1]:9470", |s| {
        let address: SocketAddr = s.text.parse().map_err(|_| match s.text.parse::<IpAddr>() {
            Ok(_) => Refusal::help(
                "has no port",
                format!("write {}", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9470)),
            ),
            Err(_) => "is not an IP address with port".into(),
        })?;
        match address {
            _ if !address.ip().is_loopback() => Err(Refusal::help(
                "is not a loopback address",
                "figures are told without a password; have a proxy or agent on this node ask for them",
            )),
            _ if address.port() == 0 => Err("has port 0".into()),
            address => Ok(address),
        }
    })
}

/// What `address` says, before it is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressChoice {
    None,
    ById,
    Static(Ipv4Net),
}

/// `None`, `by-id` or an address in CIDR notation.
pub(crate) fn address_choice() -> Kind<AddressChoice> {
    let reader = |s: &Scalar| {
        if s.is_none() {
            return Ok(if s.text.is_empty() { None } else { Some(AddressChoice::None) });
        }
        if s.text.eq_ignore_ascii_case("by-id") {
            return Ok(Some(AddressChoice::ById));
        }
        net::interface(&s.text)
            .map(|address| Some(AddressChoice::Static(address)))
            .map_err(|error| not_cidr(error, None))
    };
    let allowed = "None, by-id, or an IPv4 address with prefix length such as 10.255.0.11/24";
    Kind { allowed: allowed.to_owned(), reader: Box::new(reader) }
}
