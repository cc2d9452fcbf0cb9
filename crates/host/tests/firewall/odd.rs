//! Whatever one network says in the tree, all of the walls stand: what it cannot have is left out, and costs no other network anything.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};
use pvc_core::{
    model::{
        ClusterView, Mac, Network, NetworkKind,
        bridging::{Bridging, Device, DeviceKind},
        rule::{Direction, Rule},
    },
    plan::firewall::{Ground, Known, Ruleset, plan},
};
use pvc_host::firewall::{Firewall as _, Nft};

use crate::{contract::vni, namespace::alone};

/// Addresses that lie at the edges of what an address can be.
fn address4() -> impl Strategy<Value = Ipv4Addr> {
    let edges = ["0.0.0.0", "255.255.255.255", "127.0.0.1", "224.0.0.1", "10.100.0.1", "10.255.1.1"];
    prop_oneof![
        prop::sample::select(edges.map(|address| address.parse().unwrap()).to_vec()),
        any::<u32>().prop_map(Ipv4Addr::from)
    ]
}

fn address6() -> impl Strategy<Value = Ipv6Addr> {
    let edges = ["::", "::1", "ff02::1", "fe80::1", "fe80::", "fec0::", "fd00:100::1", "::ffff:10.0.0.1"];
    prop_oneof![
        prop::sample::select(edges.map(|address| address.parse().unwrap()).to_vec()),
        any::<u128>().prop_map(Ipv6Addr::from)
    ]
}

/// As an old client may have written it.
fn network(number: u32) -> impl Strategy<Value = Network> {
    let net4 = prop::option::of((address4(), 0..=32u8));
    let net6 = prop::option::of((address6(), 0..=128u8));
    let gateways = (prop::option::of(address4()), prop::option::of(address6()));
    (net4, net6, gateways, any::<bool>(), prop::option::of(any::<bool>())).prop_map(
        move |(net4, net6, (gateway4, gateway6), filter, guard)| {
            let mut network =
                Network { kind: Some(NetworkKind::Managed), filter, guard, ..Network::bare(vni(number)) };
            network.ip4.network = net4.map(|(address, length)| Ipv4Net::new(address, length).unwrap());
            network.ip6.network = net6.map(|(address, length)| Ipv6Net::new(address, length).unwrap());
            (network.ip4.gateway, network.ip6.gateway) = (gateway4, gateway6);
            network
        },
    )
}

/// A port of one of the bridges, or of none, with a name that a kernel would take.
fn device() -> impl Strategy<Value = Device> {
    let name = prop_oneof!["vnet[0-9]{1,3}", "[!-.0-~]{1,15}"];
    let kind = prop_oneof![
        Just(DeviceKind::Other),
        Just(DeviceKind::Vxlan { vni: vni(100), local: IpAddr::from([10, 255, 1, 1]) })
    ];
    (name, kind, prop::option::of(100..105u32), any::<[u8; 6]>()).prop_map(|(name, kind, master, mac)| {
        Device {
            name,
            index: 9,
            kind,
            mac: Mac(mac),
            mtu: 1450,
            up: true,
            master: master.map(|number| vni(number).bridge()),
            ours: false,
            learns: false,
        }
    })
}

fn ruleset() -> impl Strategy<Value = Ruleset> {
    let networks = (network(100), network(101), network(102), network(103));
    let bodies = prop::collection::vec("[a-z0-9.:/ {},]{0,40}", 0..4);
    let addresses = prop::collection::vec(address4(), 0..4);
    (networks, prop::collection::vec(device(), 0..8), bodies, addresses).prop_map(
        |(networks, mut devices, bodies, addresses)| {
            // A kernel has each name once.
            devices.sort_by(|one, other| one.name.cmp(&other.name));
            devices.dedup_by(|one, other| one.name == other.name);
            let networks = <[Network; 4]>::from(networks).map(|network| (network.vni, Arc::new(network)));
            let view = ClusterView { networks: Arc::new(networks.into()), ..ClusterView::default() };
            let cards = |device: &Device| pvc_core::plan::client_network::Card {
                mac: Mac([
                    0x52,
                    device.mac.0[1],
                    device.mac.0[2],
                    device.mac.0[3],
                    device.mac.0[4],
                    device.mac.0[5],
                ]),
                vni: vni(100),
            };
            let cards: Vec<_> = devices.iter().map(cards).collect();
            let given = cards.iter().map(|card| (card.mac, addresses.iter().copied().collect())).collect();
            let known = Known {
                cards: [("11111111-0000-4000-8000-000000000001".parse().unwrap(), cards)].into(),
                senders: [(vni(100), given)].into(),
            };
            let rule = |(place, text): (u32, String)| Rule {
                name: format!("rule{place}"),
                direction: Direction::In,
                order: Some(place),
                body: text.parse(),
                text,
            };
            let rules = [(vni(100), (0..).zip(bodies).map(rule).collect())].into();
            let ground = Ground { closed: vec!["10.255.1.0/24".parse().unwrap()], own: Vec::new() };
            let seen = Bridging { devices, ..Bridging::default() };
            plan(&ground, &view, &rules, &seen, &known, &BTreeMap::new()).ruleset
        },
    )
}

#[test]
fn whatever_networks_say_the_walls_of_all_stand() {
    alone(async || {
        let firewall = Nft::start("/nonexistent".into()).unwrap();
        let mut runner =
            TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
        let mut standing = Ruleset::default();
        firewall.load(&standing).await.unwrap();
        for _ in 0..100 {
            let mut planned = ruleset().new_tree(&mut runner).unwrap().current();
            // What `nft` takes of the words of rules is asked of it first.
            let bodies: Vec<_> = planned
                .networks
                .values()
                .flat_map(|wall| wall.lines.values().flatten())
                .filter_map(|line| line.body.clone())
                .collect();
            let refused = firewall.refused(&bodies).await.unwrap();
            for line in planned.networks.values_mut().flat_map(|wall| wall.lines.values_mut().flatten()) {
                line.body = line.body.take().filter(|body| !refused.contains_key(body));
            }
            let changed = firewall.change(&standing, &planned).await;
            changed.unwrap_or_else(|e| panic!("{e}: {}", planned.change_from(&standing)));
            standing = planned;
        }
        let changed = firewall.listing().await.unwrap().unwrap().standing;
        firewall.load(&standing).await.unwrap();
        assert_eq!(firewall.listing().await.unwrap().unwrap().standing, changed);
    });
}
