//! What the primary serves on a client network's gateway: DNS, and DHCP and router advertisements where they are switched on. One dnsmasq a network.
//!
//! Every argument is made of typed values; none is a text that somebody wrote.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;

use super::primary::Gateways;
use crate::model::{ClusterView, Network, Reservation, Vni, network::DomainName};

/// How long a guest has its address unless it asks again.
const LEASE: &str = "48h";

/// The most leases of a network: as many as an IPv4 network of 16 bits has.
const MOST_LEASES: u32 = 65_536;

/// The most reservations of a network that are served.
const MOST_RESERVATIONS: usize = 4096;

/// The reservations of networks, as the state tree has them.
pub type Reservations = BTreeMap<Vni, Vec<Reservation>>;

/// The arguments of each network's dnsmasq. `mtu` is that of managed networks' guests, `hook` the program that is told of leases.
pub fn servers(
    gateways: &[Gateways],
    view: &ClusterView,
    reservations: &Reservations,
    mtu: u32,
    hook: &str,
) -> BTreeMap<Vni, Vec<String>> {
    let reserved = |vni| reservations.get(&vni).map_or(&[][..], Vec::as_slice);
    let served = gateways.iter().filter_map(|g| Some((g, view.networks.get(&g.vni)?)));
    let one = |(gateways, network): (&Gateways, _)| {
        (gateways.vni, arguments(gateways, network, reserved(gateways.vni), mtu, hook))
    };
    served.map(|(gateways, network)| one((gateways, &**network))).collect()
}

fn arguments(
    gateways: &Gateways,
    network: &Network,
    reserved: &[Reservation],
    mtu: u32,
    hook: &str,
) -> Vec<String> {
    let bridge = gateways.vni.bridge();
    let fixed = [
        "--conf-file=/dev/null",
        "--keep-in-foreground",
        "--pid-file=",
        "--log-facility=-",
        "--quiet-dhcp",
        "--quiet-ra",
        "--no-hosts",
        // The bridge's addresses come and go with the primary; nothing else is listened on.
        "--bind-dynamic",
        "--except-interface=lo",
        "--domain-needed",
        "--bogus-priv",
        "--stop-dns-rebind",
    ];
    let mut all: Vec<String> = fixed.map(String::from).into();
    all.push(format!("--interface={bridge}"));
    let domain = network.domain.as_ref().map(DomainName::as_str);
    if let Some(domain) = domain {
        all.extend([format!("--domain={domain}"), format!("--local=/{domain}/")]);
        // A guest that calls itself so does not get the name.
        let own: Vec<String> = global(gateways).map(|address| address.to_string()).collect();
        all.push(format!("--host-record=gateway.{domain},{}", own.join(",")));
    }
    let dhcp = dhcp4(gateways, network, mtu, hook);
    if !dhcp.is_empty() {
        all.extend(dhcp);
        all.extend(hosts(gateways, network, reserved));
    }
    all.extend(router(&bridge, gateways, network, mtu));
    all
}

fn global(gateways: &Gateways) -> impl Iterator<Item = IpAddr> {
    let is_local = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
    gateways.addresses.iter().map(IpNet::addr).filter(move |a| !is_local(a))
}

fn dhcp4(gateways: &Gateways, network: &Network, mtu: u32, hook: &str) -> Vec<String> {
    let gateway = gateways.addresses.iter().find_map(|cidr| match cidr {
        IpNet::V4(cidr) => Some(*cidr),
        IpNet::V6(_) => None,
    });
    let Some((gateway, (start, end))) = gateway.zip(pool(network)) else { return Vec::new() };
    let leases = u32::from(end).saturating_sub(u32::from(start)).saturating_add(1).min(MOST_LEASES);
    let mask = gateway.netmask();
    let mut all = vec![
        format!("--dhcp-range={start},{end},{mask},{LEASE}"),
        format!("--dhcp-lease-max={leases}"),
        format!("--dhcp-script={hook}"),
        format!("--dhcp-option=option:router,{}", gateway.addr()),
        format!("--dhcp-option=option:dns-server,{}", gateway.addr()),
        format!("--dhcp-option=option:mtu,{mtu}"),
    ];
    // The state tree is where leases are kept, and what is in use there is not looked for on the wire.
    all.extend(
        ["--leasefile-ro", "--script-on-renewal", "--dhcp-authoritative", "--no-ping"].map(String::from),
    );
    all
}

/// The addresses that are given out: in the network, and in order. dnsmasq gives nobody its own address.
pub fn pool(network: &Network) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (ip4, dhcp) = (&network.ip4, &network.ip4.dhcp);
    let (net, start, end) = (ip4.network?, dhcp.start?, dhcp.end?);
    let fits = net.contains(&start) && net.contains(&end) && start <= end;
    (dhcp.enabled && fits).then_some((start, end))
}

/// What is reserved. dnsmasq does not start with one address for two cards, so the first card has it; likewise with names.
fn hosts(gateways: &Gateways, network: &Network, reserved: &[Reservation]) -> Vec<String> {
    let mut taken: BTreeSet<IpAddr> = gateways.addresses.iter().map(IpNet::addr).collect();
    let mut names = BTreeSet::new();
    let is_inside = |r: &&Reservation| network.ip4.network.is_some_and(|net| net.contains(&r.address));
    let mut all = Vec::new();
    for Reservation { mac, address, name } in reserved.iter().filter(is_inside).take(MOST_RESERVATIONS) {
        if !taken.insert((*address).into()) {
            continue;
        }
        let name = name.as_ref().map(|name| name.to_string().to_ascii_lowercase());
        let name = name.filter(|name| names.insert(name.clone()));
        let name = name.map_or_else(String::new, |name| format!(",{name}"));
        all.push(format!("--dhcp-host={mac},{address}{name}"));
    }
    all
}

/// Guests choose their own IPv6 addresses, and learn by DHCPv6 where names are resolved.
fn router(bridge: &str, gateways: &Gateways, network: &Network, mtu: u32) -> Vec<String> {
    let global = gateways.addresses.iter().find_map(|cidr| match cidr {
        IpNet::V6(cidr) if !cidr.addr().is_unicast_link_local() => Some(cidr.trunc()),
        _ => None,
    });
    let Some(net) = global.filter(|net| network.ip6.dhcp_enabled && net.prefix_len() == 64) else {
        return Vec::new();
    };
    vec![
        "--enable-ra".to_owned(),
        format!("--ra-param={bridge},mtu:{mtu},high,30,1800"),
        // Not `constructor`: it passes over addresses that are never preferred, as all that move with the primary are.
        format!("--dhcp-range={},ra-stateless,ra-names,64,24h", net.network()),
    ]
}
