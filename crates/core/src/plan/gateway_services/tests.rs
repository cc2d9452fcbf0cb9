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

fn arguments_of(network: Network) -> Option<Vec<String>> {
    with_reserved(network, &[])
}

fn with_reserved(network: Network, reserved: &[(&str, &str, &str)]) -> Option<Vec<String>> {
    let vni = network.vni;
    let view =
        ClusterView { networks: Arc::new([(vni, Arc::new(network))].into()), ..ClusterView::default() };
    let reserved = reserved.iter().map(|(mac, address, name)| Reservation {
        mac: mac.parse().unwrap(),
        address: address.parse().unwrap(),
        name: name.parse().ok(),
    });
    let reserved = [(vni, reserved.collect())].into();
    servers(&gateways(&[], &view).0, &view, &reserved, 1450, "/run/pvc/dhcp/hook").remove(&vni)
}

fn with(arguments: &[String], word: &str) -> Vec<String> {
    arguments.iter().filter(|a| a.contains(word)).cloned().collect()
}

#[test]
fn both_families_are_served_as_they_are_written() {
    let all = arguments_of(network()).unwrap();
    assert_eq!(with(&all, "--interface"), ["--interface=vmbr100"]);
    assert_eq!(
        with(&all, "dhcp-range"),
        [
            "--dhcp-range=10.100.0.100,10.100.0.199,255.255.255.0,48h",
            "--dhcp-range=fd00:100::,ra-stateless,ra-names,64,24h",
        ]
    );
    assert_eq!(with(&all, "host-record"), ["--host-record=gateway.web.example,10.100.0.1,fd00:100::1"]);
    assert_eq!(with(&all, "lease-max"), ["--dhcp-lease-max=100"]);
    assert_eq!(with(&all, "--no-ping").len(), 1);
}

#[test]
fn without_dhcp_or_with_a_range_that_cannot_be_there_is_dns_alone() {
    let mut off = network();
    off.ip4.dhcp.enabled = false;
    off.ip6.dhcp_enabled = false;
    let mut outside = network();
    outside.ip4.dhcp.end = Some("10.101.0.1".parse().unwrap());
    outside.ip6.network = Some("fd00:100::/56".parse().unwrap());
    let mut reversed = off.clone();
    reversed.ip4.dhcp.enabled = true;
    reversed.ip4.dhcp.start = Some("10.100.0.200".parse().unwrap());
    for network in [off, outside, reversed] {
        let all = arguments_of(network).unwrap();
        assert!(with(&all, "dhcp-range").is_empty() && with(&all, "dhcp-script").is_empty(), "{all:?}");
        assert_eq!(with(&all, "--local"), ["--local=/web.example/"]);
    }
}

#[test]
fn who_has_no_gateway_is_not_served() {
    let mut bare = network();
    bare.ip4.gateway = None;
    bare.ip6.gateway = None;
    assert_eq!(arguments_of(bare), None);
}

#[test]
fn reservations_that_would_keep_the_server_from_starting_are_left_out() {
    let all = with_reserved(
        network(),
        &[
            ("52:54:00:00:00:01", "10.100.0.7", "web1"),
            ("52:54:00:00:00:02", "10.100.0.7", "web2"),
            ("52:54:00:00:00:03", "10.100.0.8", "WEB1"),
            ("52:54:00:00:00:04", "10.100.0.1", "gw"),
            ("52:54:00:00:00:05", "10.101.0.9", "outside"),
            ("52:54:00:00:00:06", "10.100.0.9", ""),
        ],
    );
    assert_eq!(
        with(&all.unwrap(), "dhcp-host"),
        [
            "--dhcp-host=52:54:00:00:00:01,10.100.0.7,web1",
            "--dhcp-host=52:54:00:00:00:03,10.100.0.8",
            "--dhcp-host=52:54:00:00:00:06,10.100.0.9",
        ]
    );
}
