//! What the primary serves on a client network's gateway: names by one dnsmasq a network, and addresses, which it gives out itself
//! (see [`super::dhcp`] and [`super::dhcp6`]), with router advertisements.
//!
//! Every argument is made of typed values; none is a text that somebody wrote.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    dhcp::{LEASE_S, Pool},
    dhcp6::Pool6,
    primary::Gateways,
};
use crate::model::{
    ClusterView, HostName, Mac, Network, Reservation, Vni, dhcp::Settings, dhcp6::Advertisement,
    network::DomainName,
};

/// The most reservations of a network that are served.
pub const MOST_RESERVATIONS: usize = 4096;

/// The reservations of networks, as the state tree has them.
pub type Reservations = BTreeMap<Vni, Vec<Reservation>>;

/// What guests of a network get; one of both at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// What an operator has called the guests at cards, in both families.
    pub called: BTreeMap<Mac, HostName>,
    /// Over IPv4.
    pub four: Option<Served4>,
    /// Over IPv6.
    pub six: Option<Served6>,
}

/// What they get by DHCPv6, and from router advertisements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served6 {
    /// The addresses.
    pub pool: Pool6,
    /// What the router says.
    pub advertisement: Advertisement,
}

/// What they get by DHCP for IPv4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served4 {
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

/// The arguments of each network's dnsmasq. `names` is a folder that has one a network, with the names of its guests.
pub fn servers(gateways: &[Gateways], view: &ClusterView, names: &str) -> BTreeMap<Vni, Vec<String>> {
    let one = |(gateways, network): (&Gateways, &Network)| {
        (gateways.vni, arguments(gateways, network, &format!("{names}/{}", gateways.vni)))
    };
    served(gateways, view).map(one).collect()
}

/// What is given out in each network that has DHCP. `mtu` is that of managed networks' guests.
pub fn pools(
    gateways: &[Gateways],
    view: &ClusterView,
    mut reservations: Reservations,
    mtu: u32,
) -> BTreeMap<Vni, Served> {
    let one = |(gateways, network): (&Gateways, &Network)| {
        let mut reserved = reservations.remove(&gateways.vni).unwrap_or_default();
        reserved.truncate(MOST_RESERVATIONS);
        let four = served4(gateways, network, &reserved, mtu);
        let called = called(four.as_ref(), reserved);
        let served = Served { called, four, six: served6(gateways, network, mtu) };
        (served.four.is_some() || served.six.is_some()).then_some((gateways.vni, served))
    };
    served(gateways, view).filter_map(one).collect()
}

/// What guests are called by reservations: by those that count if addresses are given out over IPv4, else by all.
fn called(four: Option<&Served4>, reserved: Vec<Reservation>) -> BTreeMap<Mac, HostName> {
    match four {
        Some(four) => four.pool.called().map(|(mac, name)| (mac, name.clone())).collect(),
        None => reserved.into_iter().filter_map(|reserved| Some((reserved.mac, reserved.name?))).collect(),
    }
}

fn served4(gateways: &Gateways, network: &Network, reserved: &[Reservation], mtu: u32) -> Option<Served4> {
    let gateway = gateway4(gateways)?;
    let domain = network.domain.as_ref().map(|domain| domain.as_str().to_owned());
    let settings = Settings {
        gateway,
        domain: domain.clone(),
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
        // Nobody knows before it is asked.
        keeps_time: false,
        lease_s: u32::try_from(LEASE_S).unwrap_or(u32::MAX),
    };
    Some(Served4 { pool: Pool::new(gateway, pool(network)?, reserved.iter().cloned(), domain), settings })
}

fn served6(gateways: &Gateways, network: &Network, mtu: u32) -> Option<Served6> {
    let gateway = gateway6(gateways).filter(|_| network.ip6.dhcp_enabled)?;
    let domain = network.domain.as_ref().map(|domain| domain.as_str().to_owned());
    let pool = Pool6::new(gateway, domain.clone())?;
    let advertisement = Advertisement { prefix: gateway.trunc(), resolver: gateway.addr(), domain, mtu };
    Some(Served6 { pool, advertisement })
}

fn arguments(gateways: &Gateways, network: &Network, names: &str) -> Vec<String> {
    let bridge = gateways.vni.bridge();
    let fixed = [
        "--conf-file=/dev/null",
        "--keep-in-foreground",
        "--pid-file=",
        "--log-facility=-",
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

fn gateway6(gateways: &Gateways) -> Option<Ipv6Net> {
    gateways.addresses.iter().find_map(|cidr| match cidr {
        IpNet::V6(cidr) if !cidr.addr().is_unicast_link_local() => Some(*cidr),
        _ => None,
    })
}

/// The addresses that are given out: in the network, and in order.
pub fn pool(network: &Network) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (ip4, dhcp) = (&network.ip4, &network.ip4.dhcp);
    let (net, start, end) = (ip4.network?, dhcp.start?, dhcp.end?);
    let fits = net.contains(&start) && net.contains(&end) && start <= end;
    (dhcp.enabled && fits).then_some((start, end))
}
