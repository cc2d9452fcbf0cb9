//! Networks: both directions, old clients' spellings, rubbish.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::{option, prelude::*};
use pvc_core::model::NetworkKind;

use super::*;
use crate::memory::MemoryTree;

fn vni() -> Vni {
    "100".parse().unwrap()
}

/// The values of a network's keys, each written after the ones before it. Those of other names are not read.
fn values(pairs: &[(&str, &str)]) -> Vec<Option<Value>> {
    let value = |key: &str| {
        let at = pairs.iter().position(|(name, _)| *name == key)?;
        let mzxid = i64::try_from(at).unwrap();
        Some(Value { data: pairs[at].1.into(), version: 0, mzxid, children: 0 })
    };
    std::iter::once("").chain(KEYS).map(value).collect()
}

fn network(pairs: &[(&str, &str)]) -> Network {
    decode(vni(), &values(pairs)).unwrap()
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
        let network = network(pairs);
        assert_eq!(
            (network.kind, network.ip4, network.domain),
            (Some(NetworkKind::Bridged), Ip4::default(), None)
        );
        assert_eq!(network.problems, []);
    }
}

#[test]
fn of_two_spellings_of_a_dhcp_setting_the_one_written_later_counts() {
    let base = [("", ""), ("nettype", "managed"), ("dhcp4_flag", "False"), ("dhcp4_start", "10.0.0.5")];
    let dhcp = network(&[&base[..], &[("dhcp_flag", "True"), ("dhcp_start", "")]].concat()).ip4.dhcp;
    assert_eq!((dhcp.enabled, dhcp.start), (true, None));
    assert!(!network(&[&[("dhcp_flag", "True")][..], &base[..]].concat()).ip4.dhcp.enabled);
}

#[test]
fn each_wrong_value_is_named_with_its_key_and_costs_only_itself() {
    let pairs = [
        ("", "x\u{202e}"),
        ("nettype", "managed"),
        ("ip4_network", "10.0.0.0"),
        ("ip4_gateway", "999.1.1.1"),
        ("dhcp4_flag", "yes"),
        ("ip6_network", "fd00::/64"),
        ("domain", "a;b"),
    ];
    let read = network(&pairs);
    let named: Vec<&str> = read.problems.iter().map(|p| p.key.trim_start_matches("/networks/100/")).collect();
    assert_eq!(named, ["domain", "dhcp4_flag", "ip4_network", "ip4_gateway"]);
    assert_eq!((read.kind, read.description.as_str()), (Some(NetworkKind::Managed), "x·"));
    assert_eq!(read.ip6.network, Some("fd00::/64".parse().unwrap()));
}

#[test]
fn a_network_whose_type_is_gone_is_a_network() {
    let read = network(&[("", "half deleted")]);
    assert_eq!((read.kind, read.problems.len()), (None, 1));
    assert_eq!(decode(vni(), &values(&[("nettype", "managed")])), None);
}

#[tokio::test]
async fn a_change_writes_what_differs_and_only_over_what_was_seen() {
    let store = MemoryTree::new().client();
    crate::schema::root::init(&*store).await.unwrap();
    let before = network(&[("", "web"), ("nettype", "managed"), ("ip4_network", "10.1.0.0/24")]);
    store.commit(define(&before)).await.unwrap();
    let seen = async || read_all(&*store).await.unwrap().0.remove(&vni()).unwrap();
    let stale = seen().await;
    assert_eq!(stale.network, before);
    let after = Network { description: "www".into(), ..before.clone() };
    store.commit(modify(&stale, &after)).await.unwrap();
    assert_eq!(seen().await.network, after);
    let again = store.commit(modify(&stale, &after)).await;
    assert!(matches!(again, Err(CommitError::Conflict { .. })), "{again:?}");
    assert!(matches!(remove(&*store, &stale).await, Err(CommitError::Conflict { .. })));
    remove(&*store, &seen().await).await.unwrap();
    assert_eq!(store.children(ROOT).await.unwrap(), Some(vec![]));
}

#[tokio::test]
async fn what_cannot_be_read_is_left_until_it_is_given_something_to_say() {
    let store = MemoryTree::new().client();
    crate::schema::root::init(&*store).await.unwrap();
    store.commit(define(&network(&[("", "web"), ("nettype", "managed")]))).await.unwrap();
    put::put(&*store, "/networks/100/domain", b"a;b".to_vec()).await.unwrap();
    put::put(&*store, "/networks/nonsense", b"".to_vec()).await.unwrap();
    let (networks, strays) = read_all(&*store).await.unwrap();
    assert_eq!(strays.len(), 1);
    let seen = &networks[&vni()];
    let after = Network { description: "www".into(), ..seen.network.clone() };
    store.commit(modify(seen, &after)).await.unwrap();
    assert_eq!(store.get("/networks/100/domain").await.unwrap().unwrap().data, b"a;b");
}

fn any_network() -> impl Strategy<Value = Network> {
    let text = "[a-zA-Z0-9,.-]{0,12}";
    let v4 = || any::<u32>().prop_map(Ipv4Addr::from);
    let v6 = || any::<u128>().prop_map(Ipv6Addr::from);
    let net4 =
        option::of((v4(), 0..=32_u8).prop_map(|(address, prefix)| Ipv4Net::new_assert(address, prefix)));
    let net6 =
        option::of((v6(), 0..=128_u8).prop_map(|(address, prefix)| Ipv6Net::new_assert(address, prefix)));
    let dhcp4 = (any::<bool>(), option::of(v4()), option::of(v4())).prop_map(|(enabled, start, end)| Dhcp4 {
        enabled,
        start,
        end,
    });
    let domain = option::of("[a-z][a-z0-9-]{0,9}(\\.[a-z][a-z0-9]{0,5})?".prop_map(|d| d.parse().unwrap()));
    let kind = prop_oneof![Just(NetworkKind::Managed), Just(NetworkKind::Bridged)];
    let ip4 =
        (net4, option::of(v4()), dhcp4).prop_map(|(network, gateway, dhcp)| Ip4 { network, gateway, dhcp });
    let ip6 = (net6, option::of(v6()), any::<bool>()).prop_map(|(network, gateway, dhcp_enabled)| Ip6 {
        network,
        gateway,
        dhcp_enabled,
    });
    (text, kind, domain.no_shrink(), ip4, ip6).prop_map(|(description, kind, domain, ip4, ip6)| Network {
        description,
        kind: Some(kind),
        domain: domain.filter(|d: &DomainName| d.as_str() != "None"),
        ip4,
        ip6,
        ..Network::bare(vni())
    })
}

proptest! {
    #[test]
    fn what_is_defined_is_read_back(network in any_network()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let store = MemoryTree::new().client();
            crate::schema::root::init(&*store).await.unwrap();
            prop_assert_eq!(read_all(&*store).await.unwrap().0.len(), 0);
            store.commit(define(&network)).await.unwrap();
            prop_assert_eq!(&read_all(&*store).await.unwrap().0[&vni()].network, &network);
            Ok(())
        })?;
    }

    #[test]
    fn rubbish_never_panics(rubbish in prop::collection::vec(option::of(prop::collection::vec(any::<u8>(), 0..400)), READ_KEYS)) {
        let value = |data| Value { data, version: 0, mzxid: 0, children: 0 };
        let values: Vec<_> = rubbish.into_iter().map(|data| data.map(value)).collect();
        if let Some(network) = decode(vni(), &values) {
            prop_assert!(network.kind.is_some() || !network.problems.is_empty());
            prop_assert!(network.description.chars().count() <= LONGEST);
        }
    }
}
