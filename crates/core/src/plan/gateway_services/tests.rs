use std::sync::Arc;

use super::*;
use crate::{model::NetworkKind, plan::primary::gateways};

fn network() -> Network {
    let mut network = Network::bare("100".parse().unwrap());
    network.kind = Some(NetworkKind::Managed);
    network.domain = Some("web.example".parse().unwrap());
    network.ip4.network = Some("10.100.0.0/24".parse().unwrap());
    network.ip4.gateway = Some("10.100.0.1".parse().unwrap());
    network.ip4.dhcp.enabled = true;
    network.ip4.dhcp.start = Some("10.100.0.100".parse().unwrap());
    network.ip4.dhcp.end = Some("10.100.0.199".parse().unwrap());
    network.ip6.network = Some("fd00:100::/64".parse().unwrap());
    network.ip6.gateway = Some("fd00:100::1".parse().unwrap());
    network.ip6.dhcp_enabled = true;
    network
}

fn of(network: Network) -> (Option<Vec<String>>, Option<Served>) {
    let vni = network.vni;
    let view =
        ClusterView { networks: Arc::new([(vni, Arc::new(network))].into()), ..ClusterView::default() };
    let all = gateways(&[], &view).0;
    let arguments = servers(&all, &view, "/run/pvc/names").remove(&vni);
    (arguments, pools(&all, &view, Reservations::default(), 1450).remove(&vni))
}

fn arguments_of(network: Network) -> Option<Vec<String>> {
    of(network).0
}

fn with(arguments: &[String], word: &str) -> Vec<String> {
    arguments.iter().filter(|a| a.contains(word)).cloned().collect()
}

#[test]
fn both_families_are_served_as_they_are_written() {
    let all = arguments_of(network()).unwrap();
    assert_eq!(with(&all, "--interface"), ["--interface=vmbr100"]);
    assert!(with(&all, "dhcp").is_empty() && with(&all, "ra").is_empty(), "addresses are not its business");
    assert_eq!(with(&all, "--hostsdir"), ["--hostsdir=/run/pvc/names/100"]);
    assert_eq!(with(&all, "host-record"), ["--host-record=gateway.web.example,10.100.0.1,fd00:100::1"]);
    let Some(Served { four: Some(served), six: Some(six), .. }) = of(network()).1 else { panic!() };
    let (first, last) = served.pool.range();
    assert_eq!((first.to_string(), last.to_string()), ("10.100.0.100".to_owned(), "10.100.0.199".to_owned()));
    assert_eq!(served.settings.gateway, "10.100.0.1/24".parse().unwrap());
    assert_eq!((served.settings.mtu, served.settings.domain.as_deref()), (1450, Some("web.example")));
    assert_eq!(six.pool.gateway, "fd00:100::1/64".parse().unwrap());
    let Advertisement { prefix, resolver, domain, mtu } = six.advertisement;
    assert_eq!((prefix.to_string(), resolver.to_string()), ("fd00:100::/64".into(), "fd00:100::1".into()));
    assert_eq!((domain.as_deref(), mtu), (Some("web.example"), 1450));
}

#[test]
fn without_dhcp_or_with_a_range_that_cannot_be_there_is_dns_alone() {
    let mut off = network();
    off.ip4.dhcp.enabled = false;
    off.ip6.dhcp_enabled = false;
    let mut outside = network();
    outside.ip4.dhcp.end = Some("10.101.0.1".parse().unwrap());
    outside.ip6.network = Some("fd00:100::/127".parse().unwrap());
    let mut reversed = off.clone();
    reversed.ip4.dhcp.enabled = true;
    reversed.ip4.dhcp.start = Some("10.100.0.200".parse().unwrap());
    for network in [off, outside, reversed] {
        let (all, served) = of(network);
        let all = all.unwrap();
        assert!(with(&all, "dhcp-range").is_empty() && served.is_none(), "{all:?}");
        assert_eq!(with(&all, "--local"), ["--local=/web.example/"]);
    }
}

#[test]
fn a_network_of_one_family_alone_is_served_whatever_its_prefix_is() {
    let mut six = network();
    six.ip4 = crate::model::network::Ip4::default();
    six.ip6.network = Some("fd00:100::/56".parse().unwrap());
    let served = of(six).1.unwrap();
    assert!(served.four.is_none());
    assert_eq!(served.six.unwrap().advertisement.prefix.prefix_len(), 56);
    let mut four = network();
    four.ip6.dhcp_enabled = false;
    let served = of(four).1.unwrap();
    assert!(served.four.is_some() && served.six.is_none());
}

#[test]
fn who_has_no_gateway_is_not_served() {
    let mut bare = network();
    bare.ip4.gateway = None;
    bare.ip6.gateway = None;
    assert_eq!(arguments_of(bare), None);
}
