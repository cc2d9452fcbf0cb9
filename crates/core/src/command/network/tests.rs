//! What is refused says why and what would do; what is accepted holds together.

use proptest::prelude::*;

use super::*;

fn networks(of: &[Network]) -> BTreeMap<Vni, Network> {
    of.iter().map(|network| (network.vni, network.clone())).collect()
}

const OWN: &[(&str, &str)] = &[("upstream", "1.1.1.0/24"), ("cluster", "10.255.1.0/24")];

fn own() -> Vec<(&'static str, IpNet)> {
    OWN.iter().map(|(name, net)| (*name, net.parse().unwrap())).collect()
}

/// Settings as `ipnet=10.0.0.0/24 gateway=…`.
fn settings(words: &str) -> Settings {
    let mut settings = Settings { description: Some("test".into()), ..Settings::default() };
    for (key, value) in words.split_whitespace().map(|word| word.split_once('=').unwrap()) {
        let value = || Some(value.to_owned());
        match key {
            "description" => settings.description = value(),
            "domain" => settings.domain = value(),
            "ipnet" => settings.ip4_network = value(),
            "gateway" => settings.ip4_gateway = value(),
            "dhcp" => settings.dhcp4 = Some(value().as_deref() == Some("yes")),
            "start" => settings.dhcp4_start = value(),
            "end" => settings.dhcp4_end = value(),
            "ipnet6" => settings.ip6_network = value(),
            "gateway6" => settings.ip6_gateway = value(),
            other => panic!("{other}"),
        }
    }
    settings
}

fn try_add(vni: &str, kind: NetworkKind, words: &str) -> Result<Network, String> {
    let there = networks(&[]);
    let taken =
        add("7", NetworkKind::Managed, &settings("ipnet=10.7.0.0/16"), Ground { networks: &there, own: &[] });
    let there = networks(&[taken.unwrap().change.unwrap()]);
    let accepted = add(vni, kind, &settings(words), Ground { networks: &there, own: &own() });
    accepted.map(|accepted| accepted.change.unwrap()).map_err(|refusal| refusal.to_string())
}

#[test]
fn refusals_say_what_would_do() {
    use NetworkKind::{Bridged, Managed};
    let cases = [
        ("0", Managed, "", "from 1 to 16777215"),
        ("16777216", Managed, "", "from 1 to 16777215"),
        ("7", Managed, "", "pvc network modify"),
        ("4095", Bridged, "", "from 1 to 4094"),
        ("20", Bridged, "ipnet=10.1.0.0/24", "make it managed"),
        ("20", Bridged, "dhcp=yes", "make it managed"),
        ("100", Managed, "description=", "1 to 128 printable"),
        ("100", Managed, "description=a\u{202e}b", "cannot be printed"),
        ("100", Managed, "domain=a..b", "such as clients.example.com"),
        ("100", Managed, "domain=a;b", "such as clients.example.com"),
        ("100", Managed, "ipnet=10.1.0.0", "such as 10.100.0.0/24"),
        ("100", Managed, "ipnet=999.1.0.0/24", "such as 10.100.0.0/24"),
        ("100", Managed, "ipnet=10.1.0.5/24", "give it as 10.1.0.0/24"),
        ("100", Managed, "ipnet=224.0.0.0/24", "a prefix from 8 to 30"),
        ("100", Managed, "ipnet=10.1.0.0/31", "a prefix from 8 to 30"),
        ("100", Managed, "gateway=10.1.0.1", "by --ipnet"),
        ("100", Managed, "dhcp=yes", "by --ipnet"),
        ("100", Managed, "ipnet=10.1.0.0/24 gateway=10.2.0.1", "from 10.1.0.1 to 10.1.0.254"),
        ("100", Managed, "ipnet=10.1.0.0/24 gateway=10.1.0.0", "from 10.1.0.1 to 10.1.0.254"),
        ("100", Managed, "ipnet=10.1.0.0/24 gateway=10.1.0.255", "from 10.1.0.1 to 10.1.0.254"),
        ("100", Managed, "ipnet=10.1.0.0/24 gateway=10.1.0.1 dhcp=yes", "--dhcp-start and --dhcp-end"),
        ("100", Managed, "ipnet=10.1.0.0/24 gateway=10.1.0.1 start=10.1.0.9", "--dhcp-start and --dhcp-end"),
        ("100", Managed, "ipnet=10.1.0.0/24 start=10.1.0.9 end=10.1.0.20 dhcp=yes", "by --gateway"),
        ("100", Managed, "ipnet=10.1.0.0/24 gateway=10.1.0.1 start=10.1.0.20 end=10.1.0.9", "exchange them"),
        (
            "100",
            Managed,
            "ipnet=10.1.0.0/24 gateway=10.1.0.1 start=10.1.0.1 end=10.1.0.9",
            "a range beside it",
        ),
        ("100", Managed, "ipnet=10.1.0.0/24 gateway=10.1.0.1 start=10.1.1.1 end=10.1.1.9", "from 10.1.0.1"),
        ("100", Managed, "ipnet=10.7.4.0/24", "network 7's"),
        ("100", Managed, "ipnet=10.0.0.0/8", "overlaps"),
        ("100", Managed, "ipnet=1.1.1.0/25", "own upstream network"),
        ("100", Managed, "ipnet6=fd00::/48", "a /64"),
        ("100", Managed, "ipnet6=fe80::/64", "a /64"),
        ("100", Managed, "ipnet6=fd00::5/64", "give it as fd00::/64"),
        ("100", Managed, "gateway6=fd00::1", "by --ipnet6"),
        ("100", Managed, "ipnet6=fd00::/64 gateway6=fd01::1", "such as fd00::1"),
    ];
    for (vni, kind, words, todo) in cases {
        let refusal = try_add(vni, kind, words).expect_err(words);
        assert!(refusal.contains(todo), "{vni} {kind} {words}: {refusal}");
    }
}

#[test]
fn what_old_clients_add_by_themselves_is_added() {
    let network =
        try_add("100", NetworkKind::Managed, "description=Web ipnet=10.1.0.0/24 ipnet6=fd00:100::/64")
            .unwrap();
    assert_eq!(network.domain.as_ref().unwrap().as_str(), "web.local");
    assert_eq!((network.ip6.gateway, network.ip6.dhcp_enabled), (Some("fd00:100::1".parse().unwrap()), true));
    assert_eq!(try_add("100", NetworkKind::Managed, "domain=none").unwrap().domain, None);
}

#[test]
fn a_change_says_only_what_is_given_and_is_checked_as_a_whole() {
    let words = "ipnet=10.1.0.0/24 gateway=10.1.0.1 dhcp=yes start=10.1.0.9 end=10.1.0.20";
    let before = try_add("100", NetworkKind::Managed, words).unwrap();
    let there = networks(std::slice::from_ref(&before));
    let ground = Ground { networks: &there, own: &[] };
    let change = |given: Settings| modify(&before, &given, ground);
    let off = Settings { dhcp4: Some(false), ..Settings::default() };
    let after = change(off).unwrap().change.unwrap();
    assert_eq!((after.ip4.dhcp.enabled, after.ip4.network), (false, before.ip4.network));
    // The range would be outside.
    let moved = Settings { ip4_network: Some("10.2.0.0/24".into()), ..Settings::default() };
    assert!(change(moved).unwrap_err().to_string().contains("10.2.0.1 to 10.2.0.254"));
    assert!(change(Settings::default()).is_err());
    let same = Settings { dhcp4: Some(true), ..Settings::default() };
    assert_eq!(change(same).unwrap().change, None);
}

#[test]
fn guests_are_filtered_where_their_addresses_are_given_out_and_their_ports_guarded() {
    let with = |kind: NetworkKind, settings: Settings| {
        let settings = Settings { description: Some("web".into()), ..settings };
        add("100", kind, &settings, Ground { networks: &BTreeMap::new(), own: &[] })
    };
    let filter = Settings { filter: Some(true), ..Settings::default() };
    let filtered = with(NetworkKind::Managed, filter.clone()).unwrap().change.unwrap();
    assert!(filtered.is_filtered() && filtered.is_guarded());
    let bridged = with(NetworkKind::Bridged, filter.clone()).unwrap_err().to_string();
    assert!(bridged.contains("leave out --filter"), "{bridged}");
    let unguarded =
        with(NetworkKind::Managed, Settings { guard: Some(false), ..filter }).unwrap_err().to_string();
    assert!(unguarded.contains("--no-filter"), "{unguarded}");
    let again = Settings { filter: Some(false), guard: Some(false), ..Settings::default() };
    let ground = Ground { networks: &BTreeMap::new(), own: &[] };
    let open = modify(&filtered, &again, ground).unwrap().change.unwrap();
    assert!(!open.is_filtered() && !open.is_guarded());
}

#[test]
fn a_network_is_found_by_number_or_description() {
    let called = |vni: &str, description: &str| Network {
        description: description.into(),
        ..Network::bare(vni.parse().unwrap())
    };
    let all =
        networks(&[called("100", "web"), called("101", "db"), called("102", "db"), called("103", "100")]);
    assert_eq!(find(&all, "web").unwrap().vni.number(), 100);
    assert_eq!(find(&all, "100").unwrap().vni.number(), 100, "a number goes first");
    assert!(find(&all, "db").unwrap_err().to_string().contains("101, 102"));
    assert_eq!(find(&all, "104").unwrap_err().kind, crate::command::RefusalKind::NotFound);
}

#[test]
fn a_network_with_guests_is_not_removed() {
    let network = Network::bare("100".parse().unwrap());
    assert!(remove(&network, &[]).is_ok());
    let refusal = remove(&network, &["web1", "web2"]).unwrap_err().to_string();
    assert!(refusal.contains("web1, web2") && refusal.contains("vmbr100"), "{refusal}");
}

proptest! {
    /// Whatever is typed: no panic, and what is accepted is inside itself and beside the others.
    #[test]
    fn whatever_is_accepted_holds_together(
        address in any::<u32>(), prefix in 0u8..=33, gateway in any::<u32>(), low in 0u32..70000, high in 0u32..70000,
        inside in any::<bool>(), description in ".{0,140}", ip6 in any::<u128>(), prefix6 in 60u8..=66,
    ) {
        let ip = |number: u32| std::net::Ipv4Addr::from(number).to_string();
        let mask = if prefix == 0 || prefix > 32 { 0 } else { u32::MAX << (32 - u32::from(prefix)) };
        let base = address & mask;
        let gateway = if inside { base.wrapping_add(1) } else { gateway };
        let settings = Settings {
            description: Some(description),
            domain: None,
            ip4_network: Some(format!("{}/{prefix}", ip(base))),
            ip4_gateway: Some(ip(gateway)),
            dhcp4: Some(true),
            dhcp4_start: Some(ip(base.wrapping_add(low))),
            dhcp4_end: Some(ip(base.wrapping_add(high))),
            ip6_network: Some(format!("{}/{prefix6}", std::net::Ipv6Addr::from(ip6 & !0xffff_ffff_ffff_ffff))),
            ip6_gateway: None,
            guard: None,
            filter: None,
        };
        let own = own();
        let accepted = add("100", NetworkKind::Managed, &settings, Ground { networks: &BTreeMap::new(), own: &own });
        if let Ok(Accepted { change: Some(network), .. }) = accepted {
            let (net, dhcp) = (network.ip4.network.unwrap(), network.ip4.dhcp);
            let (start, end, gateway) = (dhcp.start.unwrap(), dhcp.end.unwrap(), network.ip4.gateway.unwrap());
            prop_assert!(net.contains(&start) && net.contains(&end) && net.contains(&gateway));
            prop_assert!(start <= end && !(start..=end).contains(&gateway));
            prop_assert!(own.iter().all(|(_, own)| !own.contains(&IpNet::from(net)) && !IpNet::from(net).contains(own)));
            prop_assert!(network.ip6.network.unwrap().contains(&network.ip6.gateway.unwrap()));
            prop_assert!(network.description.chars().all(crate::text::is_plain));
        }
    }
}
