//! Who speaks with whom, and what is left alone.

use proptest::prelude::*;

use super::*;
use crate::{command::testing, model::Node};

fn ground(number: u8) -> Ground {
    let address = Some(format!("10.255.1.{number}").parse().unwrap());
    Ground { me: testing::name(&format!("hv{number}")), address }
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
        Some(speaker) if speaker.neighbours.is_empty() => Speaking::Silent,
        Some(speaker) => Speaking::As {
            asn: ASN,
            router: speaker.router,
            neighbours: speaker.neighbours.keys().map(|end| (end.to_string(), session)).collect(),
        },
    };
    let text = routing.to_string();
    Seen::Installed { file: File::Ours(text.clone()), speaking: Some(speaking), told: Some(text) }
}

fn installed(file: File, speaking: Speaking) -> Seen {
    Seen::Installed { file, speaking: Some(speaking), told: None }
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
        let ends: Vec<u8> = speaker.neighbours.keys().map(|end| end.octets()[3]).collect();
        (speaker.reflects, ends)
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
    let Seen::Installed { file, speaking, told } = loaded(&routing, true) else { unreachable!() };
    let other = Some(Speaking::As { asn: 1, router: Ipv4Addr::LOCALHOST, neighbours: BTreeMap::new() });
    // A neighbour that somebody has added, which has no address.
    let Some(Speaking::As { asn, router, mut neighbours }) = speaking.clone() else { unreachable!() };
    neighbours.insert("eth0".into(), false);
    let more = Some(Speaking::As { asn, router, neighbours });
    for seen in [
        Seen::Installed { file: file.clone(), speaking: more, told: told.clone() },
        // Somebody has changed the file, this program has just started, somebody has changed what runs.
        Seen::Installed { file: File::Ours("x".into()), speaking: speaking.clone(), told: told.clone() },
        Seen::Installed { file: file.clone(), speaking: speaking.clone(), told: None },
        Seen::Installed { file: file.clone(), speaking: other, told: told.clone() },
        Seen::Installed { file, speaking: Some(Speaking::Silent), told },
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
    let other = Speaking::As { asn: 1, router: Ipv4Addr::LOCALHOST, neighbours: BTreeMap::new() };
    let (load, troubles) = said(&installed(File::Blank, other));
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
            let seen = Seen::Installed { file, speaking: None, told: None };
            assert_eq!(planned(1, overlay, &seen), (None, vec![]));
        }
        let silent = planned(1, overlay, &loaded(&fresh(1), true)).0.unwrap();
        assert_eq!(silent.speaker, None);
        assert_eq!(planned(1, overlay, &loaded(&silent, true)), (None, vec![]));
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
