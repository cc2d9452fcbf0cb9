//! The kernel's answers in our words.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use pvc_core::model::link::{Assigned, HostNetwork, Link, Route};
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
};

/// Our routes are told from others by this protocol number, which nobody else has in `/etc/iproute2/rt_protos`.
pub(super) const OURS: RouteProtocol = RouteProtocol::Other(112);

/// All of it.
pub(super) fn network(
    links: &[LinkMessage],
    addresses: &[AddressMessage],
    routes: &[RouteMessage],
    sysctls: BTreeMap<String, String>,
) -> HostNetwork {
    let names: HashMap<u32, String> = links.iter().filter_map(|l| Some((l.header.index, name(l)?))).collect();
    let links = links.iter().filter_map(|l| link(l, addresses, &names)).collect();
    let routes = routes.iter().filter(|r| is_chosen(r)).map(|r| route(r, &names)).collect();
    HostNetwork { links, routes, sysctls }
}

pub(super) fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// Its Ethernet address; zeros if it has none.
pub(super) fn mac(link: &LinkMessage) -> [u8; 6] {
    let found = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Address(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok(),
        _ => None,
    });
    found.unwrap_or_default()
}

fn link(message: &LinkMessage, addresses: &[AddressMessage], names: &HashMap<u32, String>) -> Option<Link> {
    let mut link = Link {
        name: name(message)?,
        mac: mac(message),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        is_bridge: false,
        master: None,
        addresses: addresses
            .iter()
            .filter(|a| a.header.index == message.header.index)
            .filter_map(assigned)
            .collect(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.master = names.get(index).cloned(),
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    Some(link)
}

/// IPv4 says `Local` (`Address` is the other end of a point-to-point link), IPv6 says `Address`.
fn assigned(message: &AddressMessage) -> Option<Assigned> {
    let (mut address, mut local, mut lifetime_s) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(a) => address = Some(*a),
            AddressAttribute::Local(a) => local = Some(*a),
            AddressAttribute::CacheInfo(info) if info.ifa_valid != u32::MAX => {
                lifetime_s = Some(info.ifa_valid);
            }
            _ => {}
        }
    }
    Some(Assigned { cidr: IpNet::new(local.or(address)?, message.header.prefix_len).ok()?, lifetime_s })
}

/// Whether somebody chose this route: the kernel makes others itself, and learns some from routers.
pub(super) fn is_chosen(message: &RouteMessage) -> bool {
    let header = &message.header;
    header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast
        && !matches!(header.protocol, RouteProtocol::Kernel | RouteProtocol::Ra | RouteProtocol::IcmpRedirect)
}

fn route(message: &RouteMessage, names: &HashMap<u32, String>) -> Route {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    };
    // Of a route with several next hops no device is told: it is there, and it is left alone.
    let mut route = Route {
        destination: None,
        gateway: None,
        device: String::new(),
        ours: message.header.protocol == OURS,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                let prefix = message.header.destination_prefix_length;
                route.destination = ip(to).and_then(|address| IpNet::new(address, prefix).ok());
            }
            RouteAttribute::Gateway(via) => route.gateway = ip(via),
            RouteAttribute::Oif(index) => route.device = names.get(index).cloned().unwrap_or_default(),
            _ => {}
        }
    }
    route
}
