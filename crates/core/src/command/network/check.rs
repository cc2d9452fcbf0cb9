//! What a network must not be: each check says why, and what would do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Ground;
use crate::model::{
    Network, NetworkKind, Vni,
    network::{Ip4, Ip6},
};

/// Why not, and what to do instead.
type Wrong = (String, String);

/// Checks a network by itself and beside the others.
pub(super) fn check(network: &Network, ground: Ground<'_>) -> Result<(), Wrong> {
    if network.description.is_empty() {
        return wrong("it has no description", "give it one by --description");
    }
    match network.kind {
        Some(NetworkKind::Managed) => {}
        Some(NetworkKind::Bridged) => return bridged(network),
        None => {
            let todo = format!("write managed or bridged to the key /networks/{}/nettype", network.vni);
            return wrong("its type cannot be read", todo);
        }
    }
    if network.filter && network.guard == Some(false) {
        return wrong(
            "where guests' senders are filtered, their ports are guarded",
            "leave out --no-guard, or say --no-filter",
        );
    }
    ip4(&network.ip4)?;
    ip6(&network.ip6)?;
    let others = ground.networks.values().filter(|other| other.vni != network.vni);
    let others =
        others.flat_map(|other| other.subnets().map(move |net| (format!("network {}", other.vni), net)));
    let own = ground.own.iter().map(|(name, net)| (format!("the cluster's own {name} network"), *net));
    let taken: Vec<(String, IpNet)> = others.chain(own).collect();
    for subnet in network.subnets() {
        let overlaps = |net: &IpNet| net.contains(&subnet) || subnet.contains(net);
        if let Some((name, net)) = taken.iter().find(|(_, net)| overlaps(net)) {
            return wrong(
                format!("{subnet} overlaps {net}, which is {name}'s"),
                "choose addresses that nobody has",
            );
        }
    }
    Ok(())
}

fn wrong<T>(why: impl Into<String>, todo: impl Into<String>) -> Result<T, Wrong> {
    Err((why.into(), todo.into()))
}

fn bridged(network: &Network) -> Result<(), Wrong> {
    if network.filter {
        return wrong(
            "nobody here knows which addresses the guests of a bridged network were given",
            "leave out --filter, or make it managed",
        );
    }
    if network.vni.vlan().is_none() {
        let why = format!("{} is no VLAN, and a bridged network is one of the cluster network", network.vni);
        return wrong(why, format!("choose a number from 1 to {}", Vni::MAX_VLAN));
    }
    if network.ip4 != Ip4::default() || network.ip6 != Ip6::default() {
        return wrong(
            "a bridged network's addresses are given by whoever is outside",
            "leave out its networks, gateways and DHCP, or make it managed",
        );
    }
    Ok(())
}

fn ip4(ip4: &Ip4) -> Result<(), Wrong> {
    let Some(net) = ip4.network else {
        let (gateway, dhcp) = (ip4.gateway.is_some(), &ip4.dhcp);
        if gateway || dhcp.enabled || dhcp.start.is_some() || dhcp.end.is_some() {
            return wrong(
                "an IPv4 gateway or DHCP needs a network",
                "give it one by --ipnet, such as 10.100.0.0/24",
            );
        }
        return Ok(());
    };
    host_bits(net.into())?;
    let first = net.network();
    let usable =
        !(first.is_loopback() || first.is_multicast() || first.is_link_local() || first.octets()[0] == 0)
            && first.octets()[0] < 240;
    if !usable || !(8..=30).contains(&net.prefix_len()) {
        return wrong(
            format!("{net} is no network for hosts"),
            "choose one such as 10.100.0.0/24, with a prefix from 8 to 30",
        );
    }
    if let Some(gateway) = ip4.gateway {
        host(net, gateway, "the gateway")?;
    }
    range(ip4, net)
}

fn range(ip4: &Ip4, net: Ipv4Net) -> Result<(), Wrong> {
    let dhcp = &ip4.dhcp;
    let (start, end) = match (dhcp.start, dhcp.end) {
        (Some(start), Some(end)) => (start, end),
        (None, None) if !dhcp.enabled => return Ok(()),
        _ => {
            return wrong(
                "DHCP needs the first and the last address of a range",
                "give both, by --dhcp-start and --dhcp-end",
            );
        }
    };
    let Some(gateway) = ip4.gateway else {
        return wrong("DHCP is served by the gateway, and there is none", "give it one by --gateway");
    };
    host(net, start, "the first address of DHCP")?;
    host(net, end, "the last address of DHCP")?;
    if start > end {
        return wrong(
            format!("the range of DHCP ends at {end}, before it begins at {start}"),
            "exchange them",
        );
    }
    if (start..=end).contains(&gateway) {
        let why = format!("the gateway {gateway} is within the range of DHCP, {start} to {end}");
        return wrong(why, "choose a range beside it");
    }
    Ok(())
}

pub(super) fn host(net: Ipv4Net, address: Ipv4Addr, what: &str) -> Result<(), Wrong> {
    if net.contains(&address) && address != net.network() && address != net.broadcast() {
        return Ok(());
    }
    let hosts = net.hosts();
    let bounds = hosts.clone().next().zip(hosts.last());
    let todo = bounds.map_or_else(String::new, |(first, last)| format!("choose one from {first} to {last}"));
    wrong(format!("{what} {address} is no host's address in {net}"), todo)
}

fn ip6(ip6: &Ip6) -> Result<(), Wrong> {
    let Some(net) = ip6.network else {
        if ip6.gateway.is_some() {
            return wrong(
                "an IPv6 gateway needs a network",
                "give it one by --ipnet6, such as fd00:100::/64",
            );
        }
        return Ok(());
    };
    host_bits(net.into())?;
    if net.prefix_len() != 64 || !is_unicast(net) {
        let why = format!("{net} is no IPv6 network for hosts that choose their own addresses");
        return wrong(why, "choose a /64 such as fd00:100::/64");
    }
    match ip6.gateway {
        Some(gateway) if !net.contains(&gateway) || gateway == net.network() => {
            let why = format!("the gateway {gateway} is no host's address in {net}");
            wrong(why, format!("choose one such as {}", Ipv6Addr::from(u128::from(net.network()) + 1)))
        }
        _ => Ok(()),
    }
}

fn is_unicast(net: Ipv6Net) -> bool {
    let first = net.network();
    !(first.is_multicast() || first.is_unicast_link_local() || first.segments()[..4] == [0; 4])
}

fn host_bits(net: IpNet) -> Result<(), Wrong> {
    let exact = net.trunc();
    if net.addr() == exact.addr() {
        return Ok(());
    }
    let host: IpAddr = net.addr();
    wrong(format!("{net} names the host {host}, not a network"), format!("give it as {exact}"))
}
