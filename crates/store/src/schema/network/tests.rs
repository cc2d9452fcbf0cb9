//! Networks: both directions, old clients' spellings, rubbish.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::{collection::btree_map, option, prelude::*};

use super::*;
use crate::memory::MemoryTree;

fn vni() -> Vni {
    "100".parse().unwrap()
}

fn keys(pairs: &[(&str, &str)]) -> Keys {
    let value = |i: usize, text: &str| Value {
        data: text.into(),
        version: 0,
        mzxid: i64::try_from(i).unwrap(),
        children: 0,
    };
    pairs.iter().enumerate().map(|(i, (key, text))| ((*key).to_owned(), value(i, text))).collect()
}

fn good(entry: Entry<Network>) -> Network {
    match entry {
        Entry::Good(network) => network,
        Entry::Bad(problems) => panic!("{problems:?}"),
    }
}

#[test]
fn a_bridged_network_may_have_empty_or_none_values_or_no_keys_at_all() {
    for pairs in [
        &[("", "office"), ("nettype", "bridged")][..],
        &[
            ("", "office"),
            ("nettype", "bridged"),
            ("domain", "None"),
            ("ip4_network", ""),
            ("dhcp4_flag", "None"),
        ],
    ] {
        let network = good(decode(vni(), &keys(pairs)));
        assert_eq!((network.kind, network.ip4_network, network.domain), (NetworkKind::Bridged, None, None));
        assert!(!network.dhcp4.enabled);
    }
}

#[test]
fn of_two_spellings_of_a_dhcp_setting_the_one_written_later_counts() {
    let base = [("", ""), ("nettype", "managed"), ("dhcp4_flag", "False"), ("dhcp4_start", "10.0.0.5")];
    let network =
        good(decode(vni(), &keys(&[&base[..], &[("dhcp_flag", "True"), ("dhcp_start", "")]].concat())));
    assert_eq!((network.dhcp4.enabled, network.dhcp4.start), (true, None));
    let later = [&[("dhcp_flag", "True")][..], &base[..]].concat();
    assert!(!good(decode(vni(), &keys(&later))).dhcp4.enabled);
}

#[test]
fn rules_are_ordered_as_numbers() {
    let pairs = [
        ("", ""),
        ("nettype", "managed"),
        ("firewall_rules/in/late", ""),
        ("firewall_rules/in/late/order", "10"),
        ("firewall_rules/in/late/rule", "tcp dport 22 accept"),
        ("firewall_rules/in/early", ""),
        ("firewall_rules/in/early/order", "9"),
    ];
    let rules = good(decode(vni(), &keys(&pairs))).rules_in;
    assert_eq!(rules.iter().map(|r| r.description.as_str()).collect::<Vec<_>>(), ["early", "late"]);
}

#[test]
fn each_wrong_value_is_named_with_its_key() {
    let pairs = [
        ("", "x"),
        ("nettype", "routed"),
        ("ip4_network", "10.0.0.0"),
        ("dhcp4_flag", "yes"),
        ("dhcp4_leases/nonsense", ""),
        ("dhcp4_reservations/52:54:00:00:00:01", "static"),
        ("firewall_rules/out/r", ""),
        ("firewall_rules/out/r/order", "first"),
    ];
    let Entry::Bad(problems) = decode(vni(), &keys(&pairs)) else { panic!("accepted") };
    let named: Vec<&str> = problems.iter().map(|p| p.key.trim_start_matches("/networks/100/")).collect();
    assert_eq!(
        named,
        [
            "nettype",
            "dhcp4_flag",
            "ip4_network",
            "dhcp4_leases/nonsense",
            "dhcp4_leases/nonsense/ipaddr",
            "dhcp4_reservations/52:54:00:00:00:01/ipaddr",
            "firewall_rules/out/r/order"
        ]
    );
}

fn network() -> impl Strategy<Value = Network> {
    let text = "[a-zA-Z0-9 ,.-]{0,12}";
    let v4 = || any::<u32>().prop_map(Ipv4Addr::from);
    let v6 = || any::<u128>().prop_map(Ipv6Addr::from);
    let net4 =
        option::of((v4(), 0..=32_u8).prop_map(|(address, prefix)| Ipv4Net::new_assert(address, prefix)));
    let net6 =
        option::of((v6(), 0..=128_u8).prop_map(|(address, prefix)| Ipv6Net::new_assert(address, prefix)));
    let mac = || any::<[u8; 6]>().prop_map(Mac);
    let lease = (v4(), text, any::<u64>(), text).prop_map(|(address, hostname, expiry_unix_s, client_id)| {
        Lease { address, hostname, expiry_unix_s, client_id }
    });
    let reservation = (v4(), text).prop_map(|(address, hostname)| Reservation { address, hostname });
    let rules = || {
        btree_map("[a-z0-9 _-]{1,10}", (any::<i64>(), text), 0..4).prop_map(|map| {
            let mut rules: Vec<Rule> = map
                .into_iter()
                .map(|(description, (order, rule))| Rule { description, order, rule })
                .collect();
            rules.sort_by(|a, b| (a.order, &a.description).cmp(&(b.order, &b.description)));
            rules
        })
    };
    let dhcp4 = (any::<bool>(), option::of(v4()), option::of(v4())).prop_map(|(enabled, start, end)| Dhcp4 {
        enabled,
        start,
        end,
    });
    let domain = option::of("[a-z][a-z0-9-]{0,9}(\\.[a-z][a-z0-9]{0,5})?".prop_map(|d| d.parse().unwrap()));
    let kind = prop_oneof![Just(NetworkKind::Managed), Just(NetworkKind::Bridged)];
    let names = (text, kind, domain).no_shrink();
    let ip4 = (net4, option::of(v4()), dhcp4);
    let ip6 = (net6, option::of(v6()), any::<bool>());
    let machines = (btree_map(mac(), lease, 0..3), btree_map(mac(), reservation, 0..3), rules(), rules());
    (names, ip4, ip6, machines).prop_map(
        |((description, kind, domain), ip4, ip6, (leases, reservations, rules_in, rules_out))| Network {
            vni: vni(),
            description,
            kind,
            domain: domain.filter(|d: &pvc_core::model::network::DomainName| d.as_str() != "None"),
            ip4_network: ip4.0,
            ip4_gateway: ip4.1,
            dhcp4: ip4.2,
            ip6_network: ip6.0,
            ip6_gateway: ip6.1,
            dhcp6_enabled: ip6.2,
            leases,
            reservations,
            rules_in,
            rules_out,
        },
    )
}

proptest! {
    #[test]
    fn what_is_defined_is_read_back(network in network()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let store = MemoryTree::new().client();
            crate::schema::root::init(&*store).await.unwrap();
            prop_assert_eq!(read(&*store, vni()).await.unwrap(), None);
            store.commit(define(&network)).await.unwrap();
            prop_assert_eq!(read(&*store, vni()).await.unwrap(), Some(Entry::Good(network)));
            Ok(())
        })?;
    }

    #[test]
    fn rubbish_never_panics(
        pairs in btree_map(
            prop_oneof![
                "nettype|domain|ip4_network|ip6_gateway|dhcp4_flag|dhcp_start",
                "dhcp4_leases/[0-9a-f:]{0,17}(/ipaddr|/expiry)?",
                "firewall_rules/in/[a-z]{0,3}(/order|/rule)?",
                "[a-z/]{0,20}",
            ],
            prop::collection::vec(any::<u8>(), 0..20),
            0..20,
        ),
    ) {
        let keys: Keys = pairs
            .into_iter()
            .map(|(key, data)| (key, Value { data, version: 0, mzxid: 0, children: 0 }))
            .collect();
        if let Entry::Bad(problems) = decode(vni(), &keys) {
            prop_assert!(!problems.is_empty());
        }
    }
}
