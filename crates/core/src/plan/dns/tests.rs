//! Names appear in their own network's zones and in no other, whatever guests call themselves, and what others wrote stays.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

fn network(number: u32, domain: &str, ip4: &str, ip6: &str) -> Network {
    let vni: Vni = number.to_string().parse().unwrap();
    let mut network = Network { kind: Some(NetworkKind::Managed), ..Network::bare(vni) };
    network.domain = domain.parse().ok();
    if let Some((net, gateway)) = ip4.split_once(' ') {
        (network.ip4.network, network.ip4.gateway) = (net.parse().ok(), gateway.parse().ok());
    }
    if let Some((net, gateway)) = ip6.split_once(' ') {
        (network.ip6.network, network.ip6.gateway) = (net.parse().ok(), gateway.parse().ok());
    }
    network
}

fn web() -> Network {
    network(100, "web.local", "10.100.0.0/24 10.100.0.1", "fd00:100::/64 fd00:100::1")
}

fn guest(vni: u32, holder: &str, name: &str, address: &str) -> Named {
    Named {
        vni: vni.to_string().parse().unwrap(),
        holder: holder.into(),
        name: name.into(),
        address: address.parse().unwrap(),
        is_reserved: false,
    }
}

/// Does what the database does.
fn apply(seen: &mut Seen, planned: &Planned) {
    for change in &planned.changes {
        let serial = match &change.act {
            ZoneAct::Make(soa) => {
                assert!(!seen.contains_key(&change.zone));
                soa.serial
            }
            ZoneAct::Keep { from, soa } => {
                assert_eq!(seen[&change.zone].serial, *from);
                soa.serial
            }
            ZoneAct::Drop { from } => {
                let gone = seen.remove(&change.zone).unwrap();
                assert!(gone.is_ours && gone.others.is_empty() && gone.serial == *from);
                continue;
            }
        };
        let zone =
            seen.entry(change.zone.clone()).or_insert(SeenZone { is_ours: true, ..SeenZone::default() });
        assert!(zone.is_ours);
        zone.serial = Some(serial);
        for record in &change.remove {
            assert!(zone.ours.remove(record), "{record:?}");
        }
        for record in &change.add {
            assert!(zone.ours.insert(record.clone()), "{record:?}");
        }
    }
}

/// All that is served, as lines `name type content`, after nothing is left to do.
fn served(networks: &[Network], guests: &[Named], seen: &mut Seen) -> Vec<String> {
    let planned = plan(networks, guests, seen);
    apply(seen, &planned);
    assert_eq!(plan(networks, guests, seen).changes, [], "settled");
    let records = seen.values().flat_map(|zone| &zone.ours);
    records.map(|r| format!("{} {} {}", r.name, r.data.kind(), r.data.content())).collect()
}

#[test]
fn a_network_has_a_zone_and_reverse_zones_with_the_names_of_its_gateways() {
    let mut seen = Seen::new();
    let lines = served(&[web()], &[guest(100, "a", "db", "10.100.0.7")], &mut seen);
    for line in [
        "web.local NS ns.web.local",
        "ns.web.local A 10.100.0.1",
        "gateway.web.local AAAA fd00:100::1",
        "db.web.local A 10.100.0.7",
        "0.100.10.in-addr.arpa NS ns.web.local",
        "7.0.100.10.in-addr.arpa PTR db.web.local",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line} is not in {lines:#?}");
    }
    assert_eq!(seen["web.local"].serial, Some(1));
    let reverse = format!("1.{}0.0.1.0.0.0.d.f.ip6.arpa PTR gateway.web.local", "0.".repeat(23));
    assert!(lines.contains(&reverse), "{lines:#?}");
}

#[test]
fn networks_of_one_domain_share_its_zone() {
    let other = network(200, "WEB.local", "10.200.0.0/16 10.200.0.1", "");
    let guests = [guest(100, "a", "one", "10.100.0.7"), guest(200, "b", "two", "10.200.3.4")];
    let mut seen = Seen::new();
    let lines = served(&[web(), other], &guests, &mut seen);
    for line in [
        "one.web.local A 10.100.0.7",
        "two.web.local A 10.200.3.4",
        "4.3.200.10.in-addr.arpa PTR two.web.local",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line}");
    }
    let zones: Vec<&String> =
        seen.keys().filter(|zone| zone.contains("local") || zone.contains("in-addr")).collect();
    assert_eq!(zones, ["0.100.10.in-addr.arpa", "200.10.in-addr.arpa", "web.local"]);
}

#[test]
fn a_name_is_kept_by_who_has_it_unless_an_operator_says_otherwise() {
    let (mut seen, first) = (Seen::new(), guest(100, "z", "db", "10.100.0.9"));
    let thief = guest(100, "a", "DB.web.local.", "10.100.0.7");
    served(&[web()], std::slice::from_ref(&first), &mut seen);
    let lines = served(&[web()], &[first.clone(), thief.clone()], &mut seen);
    assert!(
        lines.contains(&"db.web.local A 10.100.0.9".into())
            && !lines.contains(&"db.web.local A 10.100.0.7".into())
    );
    assert!(!lines.iter().any(|line| line.starts_with("7.0.100.10")), "nor the reverse name");

    let reserved = Named { is_reserved: true, ..thief };
    let lines = served(&[web()], &[first, reserved], &mut seen);
    assert!(
        lines.contains(&"db.web.local A 10.100.0.7".into())
            && !lines.contains(&"db.web.local A 10.100.0.9".into())
    );
}

#[test]
fn hostile_names_and_addresses_get_no_record() {
    let long = "a".repeat(64);
    let names = [
        "",
        ".",
        "ns",
        "NS",
        "gateway",
        "pvc-ns1",
        "web.local",
        "a.b",
        "www.example.com",
        "x.ns",
        "*",
        "-a",
        "a-",
        "a_b",
        "a b",
        "a\n",
        "a;drop",
        "a'",
        "ü",
        &long,
        "db.web.local.local",
        "_ldap",
    ];
    let mut guests: Vec<Named> = names.iter().map(|name| guest(100, name, name, "10.100.0.7")).collect();
    for address in ["10.100.0.1", "10.100.0.0", "10.100.0.255", "10.101.0.7", "fd00:100::1", "::1"] {
        guests.push(guest(100, address, "good", address));
    }
    guests.push(guest(999, "n", "good", "10.100.0.7"));
    let (mut bare, mut crowded) = (Seen::new(), Seen::new());
    assert_eq!(served(&[web()], &guests, &mut crowded), served(&[web()], &[], &mut bare));
}

#[test]
fn what_others_wrote_stays_and_is_not_doubled() {
    let mut seen = Seen::new();
    served(&[web()], &[], &mut seen);
    let others = [
        Foreign { name: "www.web.local".into(), kind: "CNAME".into(), content: "db.web.local".into() },
        Foreign { name: "db.web.local".into(), kind: "A".into(), content: "10.100.0.7".into() },
    ];
    seen.get_mut("web.local").unwrap().others = others.into();
    let guests = [guest(100, "a", "www", "10.100.0.8"), guest(100, "b", "db", "10.100.0.7")];
    let lines = served(&[web()], &guests, &mut seen);
    assert!(!lines.iter().any(|l| l.starts_with("www.") || l.starts_with("db.")), "{lines:#?}");

    let lines = served(&[], &[], &mut seen);
    assert_eq!(lines, ["web.local NS ns.web.local"], "the zone stays for the others' sake");
    assert_eq!(seen.len(), 1);
}

#[test]
fn in_a_zone_that_somebody_else_made_nothing_is_written() {
    let mut seen = Seen::from([("web.local".to_owned(), SeenZone::default())]);
    let planned = plan(&[web()], &[], &seen);
    assert!(planned.changes.iter().all(|change| change.zone != "web.local"));
    assert_eq!(planned.troubles.len(), 1);
    apply(&mut seen, &planned);
    assert_eq!(plan(&[], &[], &seen).changes.len(), 2, "and it is not taken away");
}

#[test]
fn reverse_zones_are_the_smallest_that_have_the_whole_network() {
    for (net, zone) in &[
        ("10.1.2.0/24", "2.1.10.in-addr.arpa"),
        ("10.1.2.128/25", "2.1.10.in-addr.arpa"),
        ("10.1.0.0/20", "1.10.in-addr.arpa"),
        ("10.0.0.0/8", "10.in-addr.arpa"),
        ("fd00::/8", "d.f.ip6.arpa"),
        ("fd0a:bcde::/30", "d.c.b.a.0.d.f.ip6.arpa"),
    ] {
        assert_eq!(reverse_zone(net.parse().unwrap()), *zone, "{net}");
    }
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{1,2}",
        "[A-C]\\.(web|mail)\\.local\\.?",
        "\\PC{0,20}",
        select(vec!["ns".to_owned(), "sub".to_owned()])
    ]
}

fn any_guest() -> impl Strategy<Value = Named> {
    let address = prop_oneof![
        (0u8..4, 0u8..12).prop_map(|(c, d)| IpAddr::from([10, 100, c, d])),
        (0u16..5).prop_map(|d| IpAddr::from([0xfd00, 0x100, 0, 0, 0, 0, 0, d])),
        any::<IpAddr>(),
    ];
    (select(vec![100u32, 101, 102, 999]), "[xyz]", any_name(), address, any::<bool>()).prop_map(
        |(vni, holder, name, address, is_reserved)| Named {
            vni: vni.to_string().parse().unwrap(),
            holder,
            name,
            address,
            is_reserved,
        },
    )
}

fn any_networks() -> impl Strategy<Value = Vec<Network>> {
    let all = [
        web(),
        network(101, "mail.local", "10.100.1.0/25 10.100.1.1", ""),
        network(102, "web.local", "10.100.2.0/23 10.100.2.1", ""),
        network(103, "sub.web.local", "10.100.1.128/25 10.100.1.129", ""),
    ];
    vec(option::of(Just(())), 4).prop_map(move |there| {
        all.iter().zip(there).filter_map(|(n, there)| there.map(|()| n.clone())).collect()
    })
}

proptest! {
    #[test]
    fn whatever_comes_it_settles_and_each_record_is_its_networks(
        rounds in vec((any_networks(), vec(any_guest(), 0..12)), 1..4),
    ) {
        let mut seen = Seen::new();
        for (networks, guests) in &rounds {
            let lines = served(networks, guests, &mut seen);
            for (zone, there) in &seen {
                let of_zone: Vec<&Network> = networks.iter().filter(|n| n.domain.as_ref().unwrap().as_str() == zone).collect();
                for record in &there.ours {
                    let below = format!(".{zone}");
                    prop_assert!(record.name == *zone || record.name.ends_with(&below));
                    match record.data {
                        Data::A(a) => prop_assert!(of_zone.iter().any(|n| n.subnets().any(|s| s.contains(&IpAddr::V4(a))))),
                        Data::Aaaa(a) => prop_assert!(of_zone.iter().any(|n| n.subnets().any(|s| s.contains(&IpAddr::V6(a))))),
                        _ => {}
                    }
                    let is_infrastructure = RESERVED.iter().any(|r| record.name == format!("{r}.{zone}"));
                    if let (true, Data::A(a)) = (is_infrastructure, &record.data) {
                        prop_assert!(networks.iter().any(|n| n.ip4.gateway == Some(*a)));
                    }
                }
            }
            let mut again = guests.clone();
            again.reverse();
            prop_assert_eq!(&lines, &served(networks, &again, &mut seen), "the order in which they are told says nothing");
        }
        served(&[], &[], &mut seen);
        prop_assert!(seen.is_empty());
    }
}
