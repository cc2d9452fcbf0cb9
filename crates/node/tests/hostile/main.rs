//! What strangers write for client networks: guests in their DHCP packets and host names, whoever reaches the state tree in names, rules, addresses, descriptions and leases.
//!
//! A hundred thousand inputs of each kind, the same at every run: made of what has a meaning to some program on the way, cut, joined and spoilt at random. Nothing may
//! panic, and what comes out may be nothing but words that are known to be harmless, in the network that they are for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod packets;
mod packets6;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use pvc_core::{
    command::network::{self, Ground, Settings},
    model::{ClusterView, HostName, Lease, Network, NetworkKind, Vni, dns::Data, rule::Body},
    plan::{
        dhcp::{Book, Pool, hosts},
        dns::{self, Named},
        gateway_services::servers,
        primary::gateways,
    },
};
use pvc_store::{CreateMode, Op, Store as _, Transaction, memory::MemoryTree, schema};

use self::words::Words;

const INPUTS: usize = 100_000;

/// Two networks whose names and addresses must not mix.
fn networks() -> [Network; 2] {
    [100, 101].map(|vni: u32| {
        let settings = Settings {
            description: Some(format!("net{vni}")),
            domain: Some(format!("net{vni}.example")),
            ip4_network: Some(format!("10.{vni}.0.0/24")),
            ip4_gateway: Some(format!("10.{vni}.0.1")),
            dhcp4: Some(true),
            dhcp4_start: Some(format!("10.{vni}.0.10")),
            dhcp4_end: Some(format!("10.{vni}.0.250")),
            ..Settings::default()
        };
        let ground = Ground { networks: &BTreeMap::new(), own: &[] };
        network::add(&vni.to_string(), NetworkKind::Managed, &settings, ground).unwrap().change.unwrap()
    })
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Every line an address of the network, a name in its domain, and that name's first label.
fn assert_hosts(text: &str, domain: &str) {
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [address, full, name] = words[..] else { panic!("{line:?}") };
        let address: Ipv4Addr = address.parse().unwrap();
        assert!(
            address.octets().starts_with(&[10, 100, 0]) && address != Ipv4Addr::new(10, 100, 0, 1),
            "{line}"
        );
        assert!(is_label(name) && full == format!("{name}.{domain}"), "{line:?}");
    }
}

fn pool() -> Pool {
    let range = ([10, 100, 0, 10].into(), [10, 100, 0, 250].into());
    Pool::new("10.100.0.1/24".parse().unwrap(), range, [], Some("net100.example".into()))
}

#[test]
fn a_rule_is_made_of_known_words_or_refused() {
    let mut words = Words::new(1);
    let mut taken = 0;
    for _ in 0..INPUTS {
        let text = words.text();
        let Ok(body) = text.parse::<Body>() else { continue };
        taken += 1;
        let made = body.to_string();
        let harmless = |c: char| c.is_ascii_alphanumeric() || " .:/-_,{}<>=!".contains(c);
        assert!(made.len() <= 2 * Body::LONGEST && made.chars().all(harmless), "{text:?} became {made:?}");
        let dangerous =
            ["add", "delete", "flush", "table", "chain", "include", "define", "jump", "goto", "queue", "log"];
        let words = made.split(|c: char| !c.is_ascii_alphanumeric());
        assert_eq!(words.filter(|word| dangerous.contains(word)).count(), 0, "{text:?} became {made:?}");
        assert_eq!(made.parse::<Body>().map(|again| again.to_string()), Ok(made), "{text:?}");
    }
    assert!(taken > 100, "only {taken} were rules at all");
}

#[test]
fn a_networks_settings_reach_no_command_line_but_as_what_they_are() {
    let mut words = Words::new(2);
    let mut taken = 0;
    let none = BTreeMap::new();
    for _ in 0..INPUTS {
        let mut either = |good: &str| Some(if words.chance(3) { words.text() } else { good.to_owned() });
        let settings = Settings {
            description: either("web"),
            domain: either("net100.example"),
            ip4_network: either("10.100.0.0/24"),
            ip4_gateway: either("10.100.0.1"),
            dhcp4: Some(true),
            dhcp4_start: either("10.100.0.10"),
            dhcp4_end: either("10.100.0.20"),
            ip6_network: either("fd00:100::/64"),
            ip6_gateway: None,
            guard: None,
            filter: None,
        };
        let number = if words.chance(8) { words.text() } else { "100".to_owned() };
        let ground = Ground { networks: &none, own: &[] };
        let Ok(accepted) = network::add(&number, NetworkKind::Managed, &settings, ground) else { continue };
        let network = accepted.change.unwrap();
        taken += 1;
        assert!(!network.description.chars().any(char::is_control), "{settings:?}");
        let networks = Arc::new([(network.vni, Arc::new(network))].into());
        let view = ClusterView { networks, ..ClusterView::default() };
        let (all, _) = gateways(&[], &view);
        for argument in servers(&all, &view, "/run/pvc/names").values().flatten() {
            let harmless = |c: char| c.is_ascii_alphanumeric() || "-=/.:,".contains(c);
            assert!(
                argument.starts_with("--") && argument.chars().all(harmless),
                "{settings:?}: {argument:?}"
            );
        }
    }
    assert!(taken > 1000, "only {taken} were networks at all");
}

#[test]
fn a_host_name_gets_no_record_but_in_its_own_networks_zones() {
    let (mut words, networks) = (Words::new(3), networks());
    let mut named = 0;
    for _ in 0..INPUTS / 100 {
        let guests: Vec<Named> = (0..100)
            .map(|n| Named {
                vni: networks[words.below(2)].vni,
                holder: n.to_string(),
                name: words.text(),
                address: Ipv4Addr::new(10, if words.chance(2) { 100 } else { 101 }, 0, words.byte()).into(),
                is_reserved: words.chance(4),
            })
            .collect();
        for guest in &guests {
            let domain = if guest.vni == networks[0].vni { "net100.example" } else { "net101.example" };
            if let Ok(name) = HostName::of(&guest.name, domain) {
                assert!(is_label(name.as_str()), "{:?}", guest.name);
            }
        }
        let planned = dns::plan(&networks, &guests, &dns::Seen::new());
        for change in &planned.changes {
            let vni = match change.zone.as_str() {
                "net100.example" | "0.100.10.in-addr.arpa" => 100,
                "net101.example" | "0.101.10.in-addr.arpa" => 101,
                zone => panic!("nobody asked for the zone {zone}"),
            };
            for record in &change.add {
                let inside =
                    record.name.strip_suffix(&change.zone).map(|before| before.trim_end_matches('.'));
                assert!(inside.is_some_and(|label| label.is_empty() || is_label(label)), "{record:?}");
                match &record.data {
                    Data::A(address) => assert!(address.octets().starts_with(&[10, vni, 0]), "{record:?}"),
                    Data::Ptr(name) => assert!(name.ends_with(&format!(".net{vni}.example")), "{record:?}"),
                    Data::Ns(name) => assert_eq!(*name, format!("ns.net{vni}.example")),
                    Data::Aaaa(_) => panic!("{record:?}"),
                }
                named += usize::from(matches!(record.data, Data::A(_)));
            }
        }
    }
    assert!(named > 1000, "only {named} had names at all");
}

#[tokio::test]
async fn a_lease_from_the_tree_names_nothing_but_a_host_of_its_network() {
    let (mut words, [network, _]) = (Words::new(4), networks());
    let mut good = 0;
    for _ in 0..INPUTS / 400 {
        let tree = MemoryTree::new();
        let store = tree.client();
        schema::root::init(&*store).await.unwrap();
        store.commit(schema::network::define(&network)).await.unwrap();
        let root = "/networks/100/dhcp4_leases";
        let mut paths = BTreeSet::new();
        let mut ops = Vec::new();
        let mut create = |path: String, data: Vec<u8>| {
            if paths.insert(path.clone()) {
                ops.push(Op::Create { path, data, mode: CreateMode::Persistent });
            }
        };
        // Four keys each.
        for n in 0..100 {
            let mac = if words.chance(10) { words.key() } else { format!("52:54:00:00:00:{n:02x}") };
            let own = format!("{root}/{mac}");
            create(own.clone(), vec![]);
            let address = format!("10.100.0.{}", words.byte());
            create(format!("{own}/ipaddr"), words.or(&address));
            create(format!("{own}/hostname"), words.text().into_bytes());
            create(format!("{own}/expiry"), words.or("1800000000"));
            create(format!("{own}/clientid"), words.or("01:52:54:00:00:00:01"));
        }
        for ops in ops.chunks(100) {
            store.commit(Transaction { ops: ops.to_vec() }).await.unwrap();
        }
        let vni: Vni = network.vni;
        let (leases, _) = schema::network::leases::read(&*store, vni).await.unwrap();
        good += leases.len();
        let named =
            |lease: &Lease| lease.name.as_ref().is_none_or(|name| !name.to_string().contains(['\n', ' ']));
        assert!(leases.iter().all(named), "{leases:?}");
        let guests: Vec<Named> = leases
            .iter()
            .filter_map(|lease| {
                let (holder, name) = (lease.mac.to_string(), lease.name.as_ref()?.to_string());
                Some(Named { vni, holder, name, address: IpAddr::V4(lease.address), is_reserved: false })
            })
            .collect();
        let planned = dns::plan([&network], &guests, &dns::Seen::new());
        let zones = ["net100.example", "0.100.10.in-addr.arpa"];
        assert!(planned.changes.iter().all(|change| zones.contains(&change.zone.as_str())));
        let text = hosts(&pool(), &Book::new(leases), 1_700_000_000);
        assert!(text.lines().all(|line| line.split(' ').count() == 3), "{text:?}");
    }
    assert!(good > 1000, "only {good} were leases at all");
}

#[tokio::test]
async fn a_packet_gives_no_guest_anything_but_an_ipv6_address_of_its_network() {
    packets6::are_harmless(INPUTS).await;
}

#[tokio::test]
async fn a_packet_gives_no_guest_anything_but_an_address_of_its_network() {
    packets::are_harmless(INPUTS).await;
}
