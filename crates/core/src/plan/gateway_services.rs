//! What the primary serves on a client network's gateway: names and router advertisements by one dnsmasq a network, and addresses, which it gives out itself
//! (see [`super::dhcp`]).
//!
//! Every argument is made of typed values; none is a text that somebody wrote.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};

use super::{
    dhcp::{LEASE_S, Pool},
    primary::Gateways,
};
use crate::model::{ClusterView, Network, Reservation, Vni, dhcp::Settings, network::DomainName};

/// The most reservations of a network that are served.
pub const MOST_RESERVATIONS: usize = 4096;

/// The reservations of networks, as the state tree has them.
pub type Reservations = BTreeMap<Vni, Vec<Reservation>>;

/// What guests of a network get by DHCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The addresses.
    pub pool: Pool,
    /// What goes with them.
    pub settings: Settings,
}

fn served<'a>(
    gateways: &'a [Gateways],
    view: &'a ClusterView,
) -> impl Iterator<Item = (&'a Gateways, &'a Network)> {
    gateways.iter().filter_map(|g| Some((g, &**view.networks.get(&g.vni)?)))
}

/// The arguments of each network's dnsmasq. `mtu` is that of managed networks' guests; `names` is a folder that has one a network, with the names of its guests.
pub fn servers(
    gateways: &[Gateways],
    view: &ClusterView,
    mtu: u32,
    names: &str,
) -> BTreeMap<Vni, Vec<String>> {
    let one = |(gateways, network): (&Gateways, &Network)| {
        (gateways.vni, arguments(gateways, network, mtu, &format!("{names}/{}", gateways.vni)))
    };
    served(gateways, view).map(one).collect()
}

/// What is given out in each network that has DHCP.
pub fn pools(
    gateways: &[Gateways],
    view: &ClusterView,
    mut reservations: Reservations,
    mtu: u32,
) -> BTreeMap<Vni, Served> {
    let one = |(gateways, network): (&Gateways, &Network)| {
        let mut reserved = reservations.remove(&gateways.vni).unwrap_or_default();
        reserved.truncate(MOST_RESERVATIONS);
        let gateway = gateway4(gateways)?;
        let domain = network.domain.as_ref().map(|domain| domain.as_str().to_owned());
        let settings = Settings {
            gateway,
            domain: domain.clone(),
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
            lease_s: u32::try_from(LEASE_S).unwrap_or(u32::MAX),
        };
        Some((gateways.vni, Served { pool: Pool::new(gateway, pool(network)?, reserved, domain), settings }))
    };
    served(gateways, view).filter_map(one).collect()
}

fn arguments(gateways: &Gateways, network: &Network, mtu: u32, names: &str) -> Vec<String> {
    let bridge = gateways.vni.bridge();
    let fixed = [
        "--conf-file=/dev/null",
        "--keep-in-foreground",
        "--pid-file=",
        "--log-facility=-",
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
    // It reads what changes there by itself.
    all.push(format!("--hostsdir={names}"));
    all.extend(router(&bridge, gateways, network, mtu));
    all
}

fn global(gateways: &Gateways) -> impl Iterator<Item = IpAddr> {
    let is_local = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
    gateways.addresses.iter().map(IpNet::addr).filter(move |a| !is_local(a))
}

fn gateway4(gateways: &Gateways) -> Option<Ipv4Net> {
    gateways.addresses.iter().find_map(|cidr| match cidr {
        IpNet::V4(cidr) => Some(*cidr),
        IpNet::V6(_) => None,
    })
}

/// The addresses that are given out: in the network, and in order.
pub fn pool(network: &Network) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (ip4, dhcp) = (&network.ip4, &network.ip4.dhcp);
    let (net, start, end) = (ip4.network?, dhcp.start?, dhcp.end?);
    let fits = net.contains(&start) && net.contains(&end) && start <= end;
    (dhcp.enabled && fits).then_some((start, end))
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
        format!("--dhcp-range={},ra-stateless,64,24h", net.network()),
    ]
}
