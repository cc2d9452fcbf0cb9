//! Which gateways the primary has: those of managed networks whose settings can be served without harm to anybody else.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{ClusterView, LINK_GATEWAY, Network, NetworkKind, Trouble, Vni};

/// The length of the shortest prefix that a client network has, of IPv4 and of IPv6: a route into a shorter one would take packets for half the world.
const SHORTEST: (u8, u8) = (8, 16);

/// The gateways of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateways {
    /// The network.
    pub vni: Vni,
    /// Its addresses on the network's bridge.
    pub addresses: Vec<IpNet>,
}

/// All gateways, and why there are none for a network that names some. `own` are the networks that the node itself lives in, and the site's
/// routers: the route into one of them would lead into a client network. Of two networks that overlap the one with the smaller number is served.
pub fn gateways(own: &[IpNet], view: &ClusterView) -> (Vec<Gateways>, Vec<Trouble>) {
    let (mut all, mut troubles) = (Vec::<Gateways>::new(), Vec::new());
    for network in view.networks.values().filter(|n| n.kind == Some(NetworkKind::Managed)) {
        let vni = network.vni;
        let mut addresses = Vec::new();
        for (net, gateway) in named(network) {
            match checked(net, gateway, own, &all) {
                Ok(address) => addresses.push(address),
                Err(why) => {
                    let trouble = Trouble::of(vni, format!("it has not the gateway {gateway}: {why}"));
                    troubles.push(trouble.with_todo(format!("give it another: `pvc network modify {vni}`")));
                }
            }
        }
        if addresses.iter().any(|address| address.addr().is_ipv6()) {
            // Where routers advertise themselves, and what stays the same when another node is the gateway.
            addresses.push(IpNet::new_assert(LINK_GATEWAY.into(), 64));
        }
        if !addresses.is_empty() {
            all.push(Gateways { vni, addresses });
        }
    }
    (all, troubles)
}

fn named(network: &Network) -> impl Iterator<Item = (IpNet, IpAddr)> {
    let (ip4, ip6) = (&network.ip4, &network.ip6);
    let v4 = ip4.network.zip(ip4.gateway).map(|(net, gateway)| (IpNet::from(net), gateway.into()));
    let v6 = ip6.network.zip(ip6.gateway).map(|(net, gateway)| (IpNet::from(net), gateway.into()));
    v4.into_iter().chain(v6)
}

fn checked(net: IpNet, gateway: IpAddr, own: &[IpNet], others: &[Gateways]) -> Result<IpNet, String> {
    let net = net.trunc();
    let overlaps = |other: &IpNet| other.contains(&net) || net.contains(other);
    if !net.contains(&gateway) || gateway == net.network() || gateway.is_ipv4() && gateway == net.broadcast()
    {
        return Err(format!("it is no address of a host in {net}"));
    }
    let shortest = if net.addr().is_ipv4() { SHORTEST.0 } else { SHORTEST.1 };
    if net.prefix_len() < shortest {
        return Err(format!("{net} is larger than a client network may be (/{shortest})"));
    }
    if let Some(other) = own.iter().find(|own| overlaps(own)) {
        let is_a_router = other.prefix_len() == other.max_prefix_len();
        let what = if is_a_router { "a router of the site" } else { "in which the nodes live" };
        return Err(format!("{net} overlaps {other}, {what}"));
    }
    if let Some(other) = others.iter().find(|other| other.addresses.iter().any(|a| overlaps(&a.trunc()))) {
        return Err(format!("{net} overlaps network {}", other.vni));
    }
    IpNet::new(gateway, net.prefix_len()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn network(vni: &str, kind: NetworkKind, v4: &str, v6: &str) -> Network {
        let mut network = Network::bare(vni.parse().unwrap());
        network.kind = Some(kind);
        if let Some((gateway, _)) = v4.split_once('/') {
            network.ip4.network = Some(v4.parse::<ipnet::Ipv4Net>().unwrap().trunc());
            network.ip4.gateway = Some(gateway.parse().unwrap());
        }
        if let Some((gateway, _)) = v6.split_once('/') {
            network.ip6.network = Some(v6.parse::<ipnet::Ipv6Net>().unwrap().trunc());
            network.ip6.gateway = Some(gateway.parse().unwrap());
        }
        network
    }

    fn found(networks: Vec<Network>) -> (Vec<String>, Vec<String>) {
        let networks = networks.into_iter().map(|n| (n.vni, Arc::new(n))).collect();
        let view = ClusterView { networks: Arc::new(networks), ..ClusterView::default() };
        let own = ["10.255.0.0/24", "fd00:255::/64", "2001:db8:1::1/128"].map(|own| own.parse().unwrap());
        let (all, troubles) = gateways(&own, &view);
        let each = |g: Gateways| g.addresses.into_iter().map(move |a| format!("{} {a}", g.vni.bridge()));
        (all.into_iter().flat_map(each).collect(), troubles.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_managed_network_has_its_gateways_and_one_that_all_nodes_would_have() {
        use NetworkKind::{Bridged, Managed};
        let (all, troubles) = found(vec![
            network("5", Managed, "10.5.0.1/24", ""),
            network("6", Managed, "", "fd00:6::1/64"),
            network("7", Managed, "10.7.0.1/24", "fd00:7::1/64"),
            network("8", Managed, "", ""),
            network("9", Bridged, "10.9.0.1/24", "fd00:9::1/64"),
        ]);
        let expected = ["vmbr5 10.5.0.1/24", "vmbr6 fd00:6::1/64", "vmbr6 fe80::1/64", "vmbr7 10.7.0.1/24"];
        assert_eq!(all[..4], expected);
        assert_eq!(all[4..], ["vmbr7 fd00:7::1/64", "vmbr7 fe80::1/64"]);
        assert_eq!(troubles, [""; 0]);
    }

    #[test]
    fn what_would_take_packets_from_others_is_not_served_and_the_rest_is() {
        let one = |v4, v6| network("5", NetworkKind::Managed, v4, v6);
        for (v4, v6, word) in [
            ("10.0.0.1/8", "fd00:5::1/64", "in which the nodes live"),
            ("10.255.0.1/25", "fd00:5::1/64", "in which the nodes live"),
            ("10.5.0.0/24", "fd00:5::1/64", "no address of a host"),
            ("10.5.0.255/24", "fd00:5::1/64", "no address of a host"),
        ] {
            let (all, troubles) = found(vec![one(v4, v6)]);
            assert_eq!(all, ["vmbr5 fd00:5::1/64", "vmbr5 fe80::1/64"], "{v4}");
            assert!(troubles.len() == 1 && troubles[0].contains(word), "{troubles:?}");
        }
        for (v6, word) in [
            ("::1/0", "::/0 is larger than a client network may be (/16)"),
            ("2000::1/15", "larger than a client network may be"),
            ("2001:db8:1::5/64", "overlaps 2001:db8:1::1/128, a router of the site"),
            ("2001:db8::5/32", "2001:db8:1::1/128, a router of the site"),
        ] {
            let (all, troubles) = found(vec![one("10.5.0.1/24", v6)]);
            assert_eq!(all, ["vmbr5 10.5.0.1/24"], "{v6}");
            assert!(troubles.len() == 1 && troubles[0].contains(word), "{troubles:?}");
        }
        let (all, troubles) = found(vec![one("11.0.0.1/7", "")]);
        assert!(all.is_empty() && troubles[0].contains("may be (/8)"), "{all:?} {troubles:?}");
        let (all, _) = found(vec![one("11.0.0.1/8", "2002::1/16")]);
        assert_eq!(all, ["vmbr5 11.0.0.1/8", "vmbr5 2002::1/16", "vmbr5 fe80::1/64"]);
        let other = network("4", NetworkKind::Managed, "10.5.0.1/16", "");
        let (all, troubles) = found(vec![one("10.5.0.1/24", ""), other]);
        assert_eq!(all, ["vmbr4 10.5.0.1/16"]);
        assert_eq!(troubles, ["network 5: it has not the gateway 10.5.0.1: 10.5.0.0/24 overlaps network 4"]);
    }
}
