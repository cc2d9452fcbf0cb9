//! Whose port is treated how.

use std::sync::Arc;

use super::*;
use crate::{
    command::testing,
    model::{
        LINK_GATEWAY, Network,
        bridging::{Device, DeviceKind},
    },
    plan::client_network::Card,
};

fn vni(number: u32) -> Vni {
    number.to_string().parse().unwrap()
}

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

fn device(name: &str, mac: &str, master: &str) -> Device {
    Device {
        name: name.into(),
        index: 7,
        kind: DeviceKind::Other,
        mac: mac.parse().unwrap(),
        mtu: 1450,
        up: true,
        master: (!master.is_empty()).then(|| master.to_owned()),
        ours: false,
        learns: false,
    }
}

fn network(number: u32, change: impl FnOnce(&mut Network)) -> Network {
    let mut network = Network { kind: Some(NetworkKind::Managed), ..Network::bare(vni(number)) };
    change(&mut network);
    network
}

/// A guest at each of vmbr100, vmbr200 and brcluster, and a tunnel.
fn planned(networks: &[Network], known: &Known) -> Planned {
    let networks = networks.iter().map(|n| (n.vni, Arc::new(n.clone()))).collect();
    let view = ClusterView { networks: Arc::new(networks), ..ClusterView::default() };
    let tunnel = DeviceKind::Vxlan { vni: vni(100), local: "10.255.1.1".parse().unwrap() };
    let devices = vec![
        device("vmbr100", "0a:70:00:00:00:01", ""),
        device("vnet0", "fe:54:00:00:00:01", "vmbr100"),
        device("vnet1", "fe:54:00:00:00:02", "vmbr200"),
        device("vnet2", "fe:54:00:00:00:03", "brcluster"),
        device("vnet3", "fe:54:00:00:00:04", ""),
        Device { kind: tunnel, ..device("vxlan100", "de:ad:00:00:00:01", "vmbr100") },
    ];
    let seen = Bridging { devices, ..Bridging::default() };
    plan(&Ground::default(), &view, &Rules::new(), &seen, known, &BTreeMap::new())
}

/// Two VMs that have the card of vnet0 in two networks, and one that has its address but for the first byte.
fn known() -> Known {
    let cards = [("52:54:00:00:00:01", 100), ("52:54:00:00:00:01", 200), ("00:54:00:00:00:01", 300)];
    let cards = (1..)
        .zip(cards)
        .map(|(number, (card, net))| (testing::id(number), vec![Card { mac: mac(card), vni: vni(net) }]));
    let given =
        [(mac("52:54:00:00:00:01"), ["10.0.0.5".parse().unwrap(), "10.0.0.6".parse().unwrap()].into())];
    Known { cards: cards.collect(), senders: [(vni(100), given.into())].into() }
}

fn filtered(network: &mut Network) {
    network.filter = true;
}

#[test]
fn a_filtered_guest_sends_from_the_card_of_its_definition_and_from_what_it_was_given() {
    let networks = [
        network(100, |n| {
            n.filter = true;
            n.ip6.network = Some("fd00:100::/64".parse().unwrap());
        }),
        network(200, |n| n.guard = Some(false)),
    ];
    let planned = planned(&networks, &known());
    let card = mac("52:54:00:00:00:01");
    let sender = Sender {
        cards: [card].into(),
        ip4: [(card, "10.0.0.5".parse().unwrap()), (card, "10.0.0.6".parse().unwrap())].into(),
        ip6: Some("fd00:100::/64".parse().unwrap()),
    };
    let expected = [
        ("vnet0", Port::Filtered(sender)),
        ("vnet1", Port::Open),
        // Nobody's network, but it is known, so it is not muted. That of vnet3 is not known yet.
        ("vnet2", Port::Guarded),
        ("vxlan100", Port::Open),
    ];
    assert_eq!(planned.ruleset.ports, expected.map(|(name, port)| (name.to_owned(), port)).into());
    assert!(planned.ruleset.mutes_unknown && planned.troubles.is_empty(), "{:?}", planned.troubles);
    let text = planned.ruleset.whole();
    for element in [
        "add element bridge pvc cards { \"vnet0\" . 52:54:00:00:00:01 }",
        "add element bridge pvc clients { \"vnet0\" . 0x525400000001 }",
        "\"vnet0\" . 52:54:00:00:00:01 . 10.0.0.6 }",
        "add element bridge pvc senders6 { \"vnet0\" . fd00:100::/64, \"vnet0\" . fe80::/10 }",
        "add element bridge pvc muted { \"vnet*\" }",
        "\"vnet0\" : goto filter",
    ] {
        assert!(text.contains(element), "{element} in {text}");
    }
}

#[test]
fn without_a_filtered_network_nothing_is_known_and_nobody_is_muted() {
    let planned =
        planned(&[network(100, |_| {}), network(200, |n| n.guard = Some(false))], &Known::default());
    let expected = [("vnet0", Port::Guarded), ("vnet1", Port::Open), ("vxlan100", Port::Open)];
    assert_eq!(planned.ruleset.ports, expected.map(|(name, port)| (name.to_owned(), port)).into());
    assert!(!planned.ruleset.mutes_unknown);
}

#[test]
fn a_guest_whose_card_no_definition_names_sends_nothing_and_that_is_told() {
    let planned = planned(&[network(200, filtered)], &Known::default());
    assert_eq!(planned.ruleset.ports["vnet1"], Port::Filtered(Sender::default()));
    let [trouble] = &planned.troubles[..] else { panic!("{:?}", planned.troubles) };
    assert!(trouble.what.contains("vnet1") && trouble.what.contains("54:00:00:00:02"), "{trouble}");
}

#[test]
fn a_bridged_network_is_not_filtered_whatever_its_key_says() {
    let bridged = network(200, |n| (n.kind, n.filter) = (Some(NetworkKind::Bridged), true));
    assert_eq!(planned(&[bridged], &known()).ruleset.ports["vnet1"], Port::Open);
}

/// So many networks of two rules, and a port of each.
fn many(networks: u32) -> Ruleset {
    let line = |body: &str| Line { name: body.into(), body: Some(body.parse().unwrap()) };
    let wall = |number: u32| Wall {
        gateways: [IpAddr::from(Ipv4Addr::from(0x0a00_0001 + (number << 8))), LINK_GATEWAY.into()].into(),
        lines: [(Direction::In, vec![line("tcp dport 22 accept"), line("drop")])].into(),
    };
    Ruleset {
        bridges: (100..100 + networks).map(vni).collect(),
        networks: (100..100 + networks).map(|number| (vni(number), wall(number))).collect(),
        ports: (100..100 + networks).map(|number| (format!("vxlan{number}"), Port::Open)).collect(),
        ..Ruleset::default()
    }
}

#[test]
fn the_text_of_a_change_is_as_long_as_what_changes() {
    let changes: [fn(&mut Ruleset); 5] = [
        |r| r.networks.get_mut(&vni(101)).unwrap().lines.get_mut(&Direction::In).unwrap().truncate(1),
        |r| drop(r.networks.remove(&vni(101))),
        |r| drop(r.ports.insert("vxlan101".into(), Port::Guarded)),
        |r| drop(r.ports.insert("vnet1".into(), Port::Filtered(Sender::default()))),
        |r| assert!(r.bridges.remove(&vni(101))),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let text = |networks| {
            let before = many(networks);
            let mut after = before.clone();
            change(&mut after);
            (after.change_from(&before), before.change_from(&after))
        };
        assert_eq!(text(10), text(500), "change {number}");
    }
}

#[test]
fn a_port_whose_treatment_changes_is_taken_out_before_it_is_put_in() {
    let before = many(2);
    let mut after = before.clone();
    after.ports.insert("vxlan101".into(), Port::Guarded);
    let expected = "delete element bridge pvc ports { \"vxlan101\" }\nadd element bridge pvc ports { \"vxlan101\" : goto guard }\n";
    assert_eq!(after.change_from(&before), expected);
}

#[test]
fn a_network_that_overlaps_what_all_guests_have_is_left_out_of_its_filter_and_named() {
    for net in ["fe80::/64", "fe80::/10", "::/0"] {
        let odd = network(100, |n| {
            n.filter = true;
            n.ip6.network = Some(net.parse().unwrap());
        });
        let planned = planned(&[odd], &known());
        let Port::Filtered(sender) = &planned.ruleset.ports["vnet0"] else { panic!("{net}") };
        assert_eq!((sender.ip6, sender.ip4.len()), (None, 2), "{net}");
        let [trouble] = &planned.troubles[..] else { panic!("{:?}", planned.troubles) };
        assert!(
            trouble.to_string().starts_with(&format!("network 100: its IPv6 network {net}")),
            "{trouble}"
        );
    }
}

#[test]
fn a_gateway_that_no_primary_would_have_is_not_walled_off_from_the_guests_of_others() {
    let with = |number, net: &str, gateway: &str| {
        network(number, |n| {
            n.ip4.network = Some(net.parse().unwrap());
            n.ip4.gateway = Some(gateway.parse().unwrap());
        })
    };
    let networks = [
        with(100, "10.100.0.0/24", "10.100.0.1"),
        // A guest of the first; nobody's; what all have before they have an address.
        with(101, "10.100.0.0/25", "10.100.0.5"),
        with(102, "10.102.0.0/24", "10.100.0.6"),
        with(103, "0.0.0.0/0", "0.0.0.0"),
    ];
    let planned = planned(&networks, &Known::default());
    let gateways = |number| planned.ruleset.networks[&vni(number)].gateways.clone();
    assert_eq!(gateways(100), ["10.100.0.1".parse().unwrap()].into());
    assert_eq!([101, 102, 103].map(gateways), [const { BTreeSet::new() }; 3]);
}
