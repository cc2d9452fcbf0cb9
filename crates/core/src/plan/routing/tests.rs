//! Who speaks with whom, and what is left alone.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    command::testing,
    model::{DaemonMode, Network, NetworkKind, Node},
};

fn ground(number: u8) -> Ground {
    let address = Some(format!("10.255.1.{number}").parse().unwrap());
    Ground { me: testing::name(&format!("hv{number}")), address, site: None, own_networks: vec![] }
}

fn node(number: u8, mode: DaemonMode) -> Node {
    let vtep = Some(format!("10.255.1.{number}").parse().unwrap());
    Node { mode, vtep, ..testing::node(&format!("hv{number}")) }
}

/// Coordinators hv1 to hv3, and hv4 and hv5.
fn view(overlay: Overlay) -> ClusterView {
    let mode = |number| if number <= 3 { DaemonMode::Coordinator } else { DaemonMode::Hypervisor };
    let nodes: Vec<Node> = (1..=5).map(|number| node(number, mode(number))).collect();
    ClusterView { overlay, ..testing::view(&nodes, &[]) }
}

/// What FRR does with what it is told.
fn loaded(routing: &Routing, session: bool) -> Seen {
    let speaking = match &routing.speaker {
        None => Speaking::Silent,
        Some(speaker) if speaker.nodes().chain(speaker.routers()).next().is_none() => Speaking::Silent,
        Some(speaker) => Speaking::As {
            asn: ASN,
            router: speaker.router,
            neighbours: speaker.nodes().map(|end| (end.to_string(), session)).collect(),
            routers: speaker.routers().map(|end| (end.to_string(), session)).collect(),
        },
    };
    let text = routing.to_string();
    Seen::Installed { file: File::Ours(text.clone()), speaking: Some(speaking), told: Some(text), bfd: None }
}

fn installed(file: File, speaking: Speaking) -> Seen {
    Seen::Installed { file, speaking: Some(speaking), told: None, bfd: None }
}

fn anothers() -> Speaking {
    Speaking::As {
        asn: 1,
        router: Ipv4Addr::LOCALHOST,
        neighbours: BTreeMap::new(),
        routers: BTreeMap::new(),
    }
}

fn planned(number: u8, overlay: Overlay, seen: &Seen) -> (Option<Routing>, Vec<String>) {
    let planned = plan(&ground(number), &view(overlay), seen);
    let troubles = planned.troubles.iter().map(ToString::to_string).collect();
    (planned.load.map(|(routing, _)| routing), troubles)
}

fn fresh(number: u8) -> Routing {
    planned(number, Overlay::Evpn, &installed(File::Blank, Speaking::Silent)).0.unwrap()
}

#[test]
fn coordinators_speak_with_all_and_others_with_coordinators() {
    let ends = |number| {
        let speaker = fresh(number).speaker.unwrap();
        let evpn = speaker.evpn.unwrap();
        let ends: Vec<u8> = evpn.neighbours.keys().map(|end| end.octets()[3]).collect();
        (evpn.reflects, ends)
    };
    assert_eq!(ends(1), (true, vec![2, 3, 4, 5]));
    assert_eq!(ends(4), (false, vec![1, 2, 3]));
}

#[test]
fn the_text_is_this() {
    let text = fresh(3).to_string();
    let expected = "\
! Written by pvcd. What is changed here is written over.
log syslog informational
!
router bgp 65500
 bgp router-id 10.255.1.3
 no bgp default ipv4-unicast
 neighbor COORDINATORS peer-group
 neighbor COORDINATORS remote-as 65500
 neighbor COORDINATORS timers 3 9
 neighbor COORDINATORS timers connect 2
 neighbor COORDINATORS update-source 10.255.1.3
 neighbor HYPERVISORS peer-group
 neighbor HYPERVISORS remote-as 65500
 neighbor HYPERVISORS timers 3 9
 neighbor HYPERVISORS timers connect 2
 neighbor HYPERVISORS update-source 10.255.1.3
 neighbor 10.255.1.1 peer-group COORDINATORS
 neighbor 10.255.1.2 peer-group COORDINATORS
 neighbor 10.255.1.4 peer-group HYPERVISORS
 neighbor 10.255.1.5 peer-group HYPERVISORS
 !
 address-family l2vpn evpn
  neighbor COORDINATORS activate
  neighbor HYPERVISORS activate
  neighbor HYPERVISORS route-reflector-client
  advertise-all-vni
  flooding disable
  no dup-addr-detection
 exit-address-family
exit
";
    assert_eq!(text, expected);
    assert!(!fresh(4).to_string().contains("route-reflector-client"));
}

#[test]
fn what_is_as_told_is_left_and_what_differs_is_told_again() {
    let routing = fresh(1);
    assert_eq!(planned(1, Overlay::Evpn, &loaded(&routing, true)), (None, vec![]));
    let Seen::Installed { file, speaking, told, bfd } = loaded(&routing, true) else { unreachable!() };
    let other = Some(anothers());
    // A neighbour that somebody has added, which has no address.
    let mut more = speaking.clone();
    let Some(Speaking::As { neighbours, .. }) = &mut more else { unreachable!() };
    neighbours.insert("eth0".into(), false);
    for seen in [
        Seen::Installed { file: file.clone(), speaking: more, told: told.clone(), bfd: bfd.clone() },
        // Somebody has changed the file, this program has just started, somebody has changed what runs.
        Seen::Installed {
            file: File::Ours("x".into()),
            speaking: speaking.clone(),
            told: told.clone(),
            bfd: None,
        },
        Seen::Installed { file: file.clone(), speaking: speaking.clone(), told: None, bfd: None },
        Seen::Installed { file: file.clone(), speaking: other, told: told.clone(), bfd: None },
        Seen::Installed { file, speaking: Some(Speaking::Silent), told, bfd },
    ] {
        assert_eq!(planned(1, Overlay::Evpn, &seen), (Some(routing.clone()), vec![]), "{seen:?}");
    }
    // A node is added: its neighbours hear of it.
    let nodes: Vec<Node> = (1..=6).map(|number| node(number, DaemonMode::Coordinator)).collect();
    let more = ClusterView { overlay: Overlay::Evpn, ..testing::view(&nodes, &[]) };
    assert!(plan(&ground(1), &more, &loaded(&routing, true)).load.is_some());
}

#[test]
fn what_cannot_be_is_said() {
    let said = |seen: &Seen| planned(1, Overlay::Evpn, seen);
    let flooded = "frames of its guests, and for them, go to every node: ";
    assert_eq!(said(&Seen::Absent), (None, vec![format!("{flooded}FRR is not installed")]));
    let (load, troubles) = said(&installed(File::Foreign, Speaking::Silent));
    assert_eq!((load, troubles.len()), (None, 1), "an operator's file is not touched");
    let (load, troubles) = said(&installed(File::Blank, anothers()));
    assert_eq!((load, troubles.len()), (None, 1), "nor what an operator has typed");
    // It reads the file when it starts.
    let (load, troubles) = said(&installed(File::Blank, Speaking::Gone("bgpd is not running".into())));
    assert_eq!(troubles, [format!("{flooded}FRR's bgpd does not run: bgpd is not running")]);
    let written = installed(File::Ours(load.unwrap().to_string()), Speaking::Gone("it has ended".into()));
    assert_eq!(said(&written).0, None);
    let (load, troubles) = said(&loaded(&fresh(1), false));
    assert_eq!((load, troubles.len()), (None, 4));
    assert_eq!(troubles[0], "FRR has no session with that of hv2 (10.255.1.2)");
    let v6 = Ground { address: Some("fd00::1".parse().unwrap()), ..ground(1) };
    let silent = installed(File::Blank, Speaking::Silent);
    let planned = plan(&v6, &view(Overlay::Evpn), &silent);
    assert_eq!((planned.load, planned.troubles.len()), (None, 1));
}

#[test]
fn no_other_overlay_touches_what_is_not_ours_and_ours_falls_silent() {
    for overlay in [Overlay::Declared, Overlay::Flood] {
        assert_eq!(planned(1, overlay, &Seen::Absent), (None, vec![]));
        for file in [File::Blank, File::Foreign] {
            let seen = Seen::Installed { file, speaking: None, told: None, bfd: None };
            assert_eq!(planned(1, overlay, &seen), (None, vec![]));
        }
        let silent = planned(1, overlay, &loaded(&fresh(1), true)).0.unwrap();
        assert_eq!(silent.speaker, None);
        assert_eq!(planned(1, overlay, &loaded(&silent, true)), (None, vec![]));
    }
}

/// hv1, beside two routers of the site, with networks 100, 200 (whose range is the nodes') and 300.
fn beside_a_site(overlay: Overlay) -> (Ground, ClusterView) {
    let site = Site {
        asn: 64_999,
        routers_asn: 65_001,
        routers: ["192.0.2.1", "2001:db8::1"].map(|router| router.parse().unwrap()).into(),
        bfd: true,
    };
    let own_networks = vec!["10.255.1.0/24".parse().unwrap()];
    let mut view = view(overlay);
    let networks =
        [("100", "10.100.0.1/24", "fd00:100::1/64"), ("200", "10.255.1.1/25", ""), ("300", "", "")];
    for (vni, v4, v6) in networks {
        let mut network = Network::bare(vni.parse().unwrap());
        network.kind = Some(NetworkKind::Managed);
        let v4: Option<ipnet::Ipv4Net> = v4.parse().ok();
        let v6: Option<ipnet::Ipv6Net> = v6.parse().ok();
        (network.ip4.network, network.ip4.gateway) = (v4.map(|net| net.trunc()), v4.map(|net| net.addr()));
        (network.ip6.network, network.ip6.gateway) = (v6.map(|net| net.trunc()), v6.map(|net| net.addr()));
        Arc::make_mut(&mut view.networks).insert(network.vni, Arc::new(network));
    }
    (Ground { site: Some(site), own_networks, ..ground(1) }, view)
}

#[test]
fn the_sites_routers_may_be_told_of_client_networks_and_of_nothing_else() {
    let (ground, view) = beside_a_site(Overlay::Declared);
    let routing = Routing::desired(&ground, &view);
    let expected = "\
! Written by pvcd. What is changed here is written over.
log syslog informational
!
ip prefix-list CLIENTS seq 100 permit 10.100.0.0/24
ipv6 prefix-list CLIENTS seq 100 permit fd00:100::/64
route-map GATEWAYS4 permit 100
 match interface vmbr100
 match ip address prefix-list CLIENTS
exit
route-map GATEWAYS4 deny 65535
exit
route-map GATEWAYS6 permit 100
 match interface vmbr100
 match ipv6 address prefix-list CLIENTS
exit
route-map GATEWAYS6 deny 65535
exit
route-map CLIENTS permit 10
 match ip address prefix-list CLIENTS
exit
route-map CLIENTS permit 20
 match ipv6 address prefix-list CLIENTS
exit
route-map NOTHING deny 10
exit
bgp route-map delay-timer 1
router bgp 65500
 bgp router-id 10.255.1.1
 no bgp default ipv4-unicast
 neighbor ROUTERS4 peer-group
 neighbor ROUTERS4 remote-as 65001
 neighbor ROUTERS4 local-as 64999 no-prepend replace-as
 neighbor ROUTERS4 bfd
 neighbor ROUTERS4 timers 3 9
 neighbor ROUTERS4 timers connect 2
 neighbor ROUTERS6 peer-group
 neighbor ROUTERS6 remote-as 65001
 neighbor ROUTERS6 local-as 64999 no-prepend replace-as
 neighbor ROUTERS6 bfd
 neighbor ROUTERS6 timers 3 9
 neighbor ROUTERS6 timers connect 2
 neighbor 192.0.2.1 peer-group ROUTERS4
 neighbor 2001:db8::1 peer-group ROUTERS6
 !
 address-family ipv4 unicast
  redistribute connected route-map GATEWAYS4
  neighbor ROUTERS4 activate
  neighbor ROUTERS4 route-map NOTHING in
  neighbor ROUTERS4 route-map CLIENTS out
 exit-address-family
 !
 address-family ipv6 unicast
  redistribute connected route-map GATEWAYS6
  neighbor ROUTERS6 activate
  neighbor ROUTERS6 route-map NOTHING in
  neighbor ROUTERS6 route-map CLIENTS out
 exit-address-family
exit
";
    assert_eq!(routing.to_string(), expected);
    // Beside other nodes: both.
    let (ground, view) = beside_a_site(Overlay::Evpn);
    let text = Routing::desired(&ground, &view).to_string();
    for part in
        ["neighbor 10.255.1.2 peer-group COORDINATORS", "neighbor 192.0.2.1", "l2vpn evpn", "ipv6 unicast"]
    {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
}

#[test]
fn what_keeps_the_sites_routers_from_hearing_is_said_and_counted() {
    let (ground, view) = beside_a_site(Overlay::Declared);
    let said = |seen: &Seen| {
        let planned = plan(&ground, &view, seen);
        let troubles: Vec<String> = planned.troubles.iter().map(ToString::to_string).collect();
        (troubles, planned.counted.unwrap())
    };
    let unheard = "the site's routers hear of no client network from it: ";
    let gone = Counted::default();
    assert_eq!(said(&Seen::Absent), (vec![format!("{unheard}FRR is not installed")], gone));
    let seen = installed(File::Blank, Speaking::Gone("bgpd is not running".into()));
    assert_eq!(said(&seen), (vec![format!("{unheard}FRR's bgpd does not run: bgpd is not running")], gone));
    let routing = Routing::desired(&ground, &view);
    let fine = Counted { speaks: true, ..Counted::default() };
    assert_eq!(said(&loaded(&routing, true)), (vec![], fine));
    let (troubles, counted) = said(&loaded(&routing, false));
    assert_eq!(counted, Counted { routers_missed: 2, ..fine });
    assert_eq!(
        troubles[0],
        "FRR has no session with the site's router 192.0.2.1: it hears of no client network from here"
    );
    for (says, expected) in [
        (Bfd::Gone("bfdd is not running".into()), "FRR's bfdd does not run: bfdd is not running"),
        (
            Bfd::Watches([("192.0.2.1".into(), true), ("2001:db8::1".into(), false)].into()),
            "the site's router 2001:db8::1 does not answer BFD",
        ),
    ] {
        let mut seen = loaded(&routing, true);
        let Seen::Installed { bfd, .. } = &mut seen else { unreachable!() };
        *bfd = Some(says);
        let late = "a router or node that dies is noticed after 9 s";
        assert_eq!(said(&seen), (vec![format!("{late}: {expected}")], fine));
    }
    // One that is to tell nobody is left alone.
    let nobody = Ground { site: None, ..ground.clone() };
    assert_eq!(plan(&nobody, &view, &Seen::Absent), Planned::default());
}

#[test]
fn an_entry_has_its_networks_number_if_that_is_one_and_none_has_anothers() {
    let site = beside_a_site(Overlay::Declared).0.site.unwrap();
    let numbers = |vnis: &[&str]| {
        let net =
            |(index, vni): (u8, &&str)| (vni.parse().unwrap(), format!("10.{index}.0.0/16").parse().unwrap());
        let prefixes = (1..).zip(vnis).map(net).collect();
        let site = Some(Announced { site: site.clone(), prefixes });
        let text =
            Routing { speaker: Some(Speaker { router: Ipv4Addr::LOCALHOST, evpn: None, site }) }.to_string();
        let lines: Vec<&str> = text.lines().collect();
        let entries = lines.windows(2).filter_map(|two| {
            let number = two[0].strip_prefix("route-map GATEWAYS4 permit ")?;
            Some(format!("{} {number}", two[1].strip_prefix(" match interface vmbr")?))
        });
        entries.collect::<Vec<_>>()
    };
    let most = ["1", "100", "65534", "65535", "65634", "16777215"];
    assert_eq!(numbers(&most), ["1 1", "100 100", "65534 65534", "65535 2", "65634 101", "16777215 511"]);
    assert_eq!(numbers(&most[3..5]), ["65535 1", "65634 100"]);
}

#[test]
fn whom_an_operator_has_frr_speak_with_is_left_alone_where_no_routers_are_configured() {
    let routers: BTreeMap<String, bool> = [("192.0.2.9".to_owned(), true)].into();
    let with = |seen: Seen, asn: Option<u32>| {
        let Seen::Installed { file, speaking: Some(was), told, bfd } = seen else { unreachable!() };
        let (own, router, neighbours) = match was {
            Speaking::As { asn, router, neighbours, .. } => (asn, router, neighbours),
            _ => (ASN, Ipv4Addr::LOCALHOST, BTreeMap::new()),
        };
        let asn = asn.unwrap_or(own);
        let speaking = Some(Speaking::As { asn, router, neighbours, routers: routers.clone() });
        Seen::Installed { file, speaking, told, bfd }
    };
    let silent = Routing::default();
    for (overlay, seen) in [
        // Beside our neighbours; where we have none, as another system too.
        (Overlay::Evpn, with(loaded(&fresh(1), true), None)),
        (Overlay::Declared, with(loaded(&silent, true), None)),
        (Overlay::Declared, with(loaded(&silent, true), Some(64_512))),
    ] {
        assert_eq!(planned(1, overlay, &seen), (None, vec![]), "{seen:?}");
    }
    // Neighbours among the nodes are ours, and so are routers where they are configured.
    let missing = with(loaded(&silent, true), None);
    let Seen::Installed { speaking, .. } = missing else { unreachable!() };
    assert!(!fresh(1).is_so(&speaking.unwrap()), "its neighbours are gone");
    assert!(!silent.is_so(&Speaking::As {
        asn: ASN,
        router: Ipv4Addr::LOCALHOST,
        neighbours: routers.clone(),
        routers: BTreeMap::new()
    }));
    let (ground, view) = beside_a_site(Overlay::Declared);
    let seen = with(loaded(&Routing::desired(&ground, &view), true), None);
    assert!(plan(&ground, &view, &seen).load.is_some());
}

#[test]
fn a_coordinator_without_an_address_says_that_routers_hear_nothing_from_it() {
    for overlay in [Overlay::Declared, Overlay::Evpn] {
        let (ground, view) = beside_a_site(overlay);
        let ground = Ground { address: None, ..ground };
        let planned = plan(&ground, &view, &installed(File::Blank, Speaking::Silent));
        let troubles: Vec<String> = planned.troubles.iter().map(ToString::to_string).collect();
        let why = "it needs IPv4 addresses of the nodes in the cluster network";
        assert_eq!(troubles, [format!("the site's routers hear of no client network from it: {why}")]);
        assert_eq!(planned.load, None);
        let nobody = Ground { site: None, ..ground };
        assert_eq!(plan(&nobody, &view, &Seen::Absent), Planned::default());
    }
}

proptest! {
    /// Whatever nodes say of themselves, each line is one of a few, and holds nothing but addresses.
    #[test]
    fn no_line_is_anything_else(ends in proptest::collection::vec(any::<IpAddr>(), 0..6), own: Ipv4Addr) {
        let nodes: Vec<Node> = (2..).zip(&ends).map(|(number, end)| {
            Node { vtep: Some(*end), ..node(number, DaemonMode::Coordinator) }
        }).collect();
        let view = ClusterView { overlay: Overlay::Evpn, ..testing::view(&nodes, &[]) };
        let ground = Ground { address: Some(own.into()), ..ground(1) };
        let seen = installed(File::Blank, Speaking::Silent);
        let (routing, _) = plan(&ground, &view, &seen).load.unwrap();
        let text = routing.to_string();
        let named = text.lines().filter_map(|line| line.strip_prefix(" neighbor ")?.split(' ').next()?.parse::<Ipv4Addr>().ok());
        let named: Vec<Ipv4Addr> = named.collect();
        let distinct: std::collections::BTreeSet<Ipv4Addr> = ends.iter().filter_map(|end| match end {
            IpAddr::V4(end) if *end != own => Some(*end),
            _ => None,
        }).collect();
        prop_assert_eq!(named, distinct.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(plan(&ground, &view, &loaded(&routing, true)).load, None);
    }
}
