//! Devices come and go with their networks, frames go where guests are, and nobody else's device is touched.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::btree_set, prelude::*};

use super::*;
use crate::{
    command::testing,
    model::{Node, Vm, VmState, bridging::Forward},
};

const MINE: &str = "10.255.1.1";

fn vni(number: u32) -> Vni {
    number.to_string().parse().unwrap()
}

fn ground() -> Ground {
    let address = Some(MINE.parse().unwrap());
    Ground { me: testing::name("hv1"), uplink: "eth1".into(), mtu: 1500, address }
}

fn node(number: u8) -> Node {
    let vtep = Some(format!("10.255.1.{number}").parse().unwrap());
    Node { vtep, ..testing::node(&format!("hv{number}")) }
}

fn network(number: u32, kind: Option<NetworkKind>) -> Network {
    Network { kind, ..Network::bare(vni(number)) }
}

fn managed(number: u32) -> Network {
    network(number, Some(NetworkKind::Managed))
}

fn bridged(number: u32) -> Network {
    network(number, Some(NetworkKind::Bridged))
}

/// Three nodes, and VMs 1, 2 … with these claims, each with the card `…:0<number>` in network 100.
fn world(networks: &[Network], claims: &[&str]) -> (ClusterView, Cards) {
    let vm =
        |(number, claim): (u8, &&str)| Vm { id: testing::id(number), ..testing::vm(VmState::Start, claim) };
    let vms: Vec<Vm> = (1..).zip(claims).map(vm).collect();
    let cards = vms.iter().zip(1..).map(|(vm, number)| (vm.id, vec![card(number)])).collect();
    let networks = networks.iter().map(|n| (n.vni, Arc::new(n.clone()))).collect();
    let nodes = [node(1), node(2), node(3)];
    (ClusterView { networks: Arc::new(networks), ..testing::view(&nodes, &vms) }, cards)
}

fn card(number: u8) -> Card {
    Card { mac: Mac([0x52, 0x54, 0, 0, 0, number]), vni: vni(100) }
}

/// Does what the kernel does.
fn apply(seen: &mut Bridging, batch: &Batch) {
    for (change, _) in batch {
        match change.clone() {
            BridgingChange::Add { name, kind, mtu, master } => {
                assert!(seen.device(&name).is_none(), "{name} is there already");
                assert!(
                    master.as_ref().is_none_or(|bridge| seen.device(bridge).is_some()),
                    "{name} has no bridge yet"
                );
                let index = seen.devices.iter().map(|device| device.index).max().unwrap_or_default() + 1;
                seen.devices.push(Device {
                    name,
                    index,
                    kind,
                    mac: Mac([2; 6]),
                    mtu,
                    up: true,
                    master,
                    ours: true,
                    learns: false,
                });
            }
            BridgingChange::Remove { name } => {
                assert!(seen.device(&name).is_some_and(|device| device.ours), "{name} is not ours");
                seen.devices.retain(|device| device.name != name);
                for entries in [&mut seen.forwards, &mut seen.learnt, &mut seen.routed] {
                    entries.retain(|forward| forward.device != name);
                }
                for device in seen.devices.iter_mut().filter(|d| d.master.as_ref() == Some(&name)) {
                    device.master = None;
                }
            }
            BridgingChange::Set { name, mtu, master } => {
                let device = seen.devices.iter_mut().find(|device| device.name == name).unwrap();
                (device.mtu, device.master, device.up) = (mtu, master, true);
            }
            BridgingChange::Address { name, mac } => {
                let device = seen.devices.iter_mut().find(|device| device.name == name).unwrap();
                assert_ne!(std::mem::replace(&mut device.mac, mac), mac);
            }
            BridgingChange::Learn { name, learns } => {
                let device = seen.devices.iter_mut().find(|device| device.name == name).unwrap();
                assert!(matches!(device.kind, DeviceKind::Vxlan { .. }) && device.learns != learns);
                device.learns = learns;
            }
            BridgingChange::Forward(forward) => {
                assert!(seen.device(&forward.device).is_some());
                let takes = |other: &Forward| other.device == forward.device && other.mac == forward.mac;
                for entries in [&mut seen.forwards, &mut seen.learnt, &mut seen.routed] {
                    entries.retain(|other| forward.mac.is_none() || !takes(other));
                }
                seen.forwards.insert(forward);
            }
            BridgingChange::Unforward(forward) => {
                let sets = [&mut seen.forwards, &mut seen.learnt, &mut seen.routed];
                assert!(sets.into_iter().any(|entries| entries.remove(&forward)), "there is no {forward}");
            }
        }
    }
}

/// The next state, and what cannot be.
fn settle(view: &ClusterView, cards: &Cards, seen: &mut Bridging) -> Vec<String> {
    let planned = plan(&ground(), view, cards, seen);
    apply(seen, &planned.batch);
    let again = plan(&ground(), view, cards, seen);
    assert_eq!((again.batch, &again.troubles), (vec![], &planned.troubles), "one batch is enough");
    planned.troubles.iter().map(ToString::to_string).collect()
}

fn names(seen: &Bridging) -> Vec<&str> {
    let mut names: Vec<&str> = seen.devices.iter().map(|device| device.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn sent(seen: &Bridging) -> Vec<String> {
    seen.forwards.iter().map(ToString::to_string).collect()
}

fn port(name: &str, master: &str, ours: bool) -> Device {
    let (name, master) = (name.to_owned(), Some(master.to_owned()));
    Device {
        name,
        index: 90,
        kind: DeviceKind::Other,
        mac: Mac([2; 6]),
        mtu: 1450,
        up: true,
        master,
        ours,
        learns: false,
    }
}

#[test]
fn networks_have_bridges_with_what_connects_them() {
    let (view, cards) = world(&[managed(100), bridged(20)], &[]);
    let mut seen = Bridging::default();
    assert_eq!(settle(&view, &cards, &mut seen), Vec::<String>::new());
    assert_eq!(names(&seen), ["vlan20", "vmbr100", "vmbr20", "vxlan100"]);
    let device = |name: &str| seen.device(name).unwrap();
    assert_eq!((device("vmbr100").mtu, device("vxlan100").mtu), (1450, 1450));
    assert_eq!((device("vmbr20").mtu, device("vlan20").mtu), (1500, 1500));
    assert_eq!(device("vxlan100").kind, DeviceKind::Vxlan { vni: vni(100), local: MINE.parse().unwrap() });
    assert_eq!(device("vlan20").kind, DeviceKind::Vlan { id: 20, over: "eth1".into() });
    assert_eq!(
        sent(&seen),
        ["frames for everybody on vxlan100 to 10.255.1.2", "frames for everybody on vxlan100 to 10.255.1.3"]
    );
}

#[test]
fn a_gateway_has_an_address_of_its_node_which_no_guest_may_have() {
    let (view, mut cards) = world(&[managed(100), bridged(20)], &["node1"]);
    let mut seen = Bridging::default();
    settle(&view, &cards, &mut seen);
    let mac = |seen: &Bridging, name: &str| seen.device(name).unwrap().mac;
    let gateway = mac(&seen, "vmbr100");
    assert_eq!(gateway.to_string(), "0a:70:0a:ff:01:01");
    assert!(gateway.is_a_gateways() && gateway.is_a_cards());
    assert_eq!(mac(&seen, "vmbr20"), Mac([2; 6]), "it has no gateway");
    seen.devices.iter_mut().find(|device| device.name == "vmbr100").unwrap().mac = Mac([6; 6]);
    settle(&view, &cards, &mut seen);
    assert_eq!(mac(&seen, "vmbr100"), gateway, "somebody gave it another");
    let v6 = ["fd00:255::1", "fd00:255::2", "fd00:255::1:0:1", "fd00:255:0:1::1"];
    let distinct: BTreeSet<Mac> = v6.iter().map(|node| Mac::of_gateway(node.parse().unwrap())).collect();
    assert_eq!(distinct.len(), v6.len() - 1, "{distinct:?}: two words that cancel each other out are one");

    cards.get_mut(&testing::id(1)).unwrap()[0].mac = Mac([0x0a, 0x70, 0, 0, 0, 1]);
    let told = settle(&view, &cards, &mut seen);
    assert!(told.len() == 1 && told[0].contains("0a:70:00:00:00:01 is a gateway's"), "{told:?}");
}

#[test]
fn frames_for_a_guest_go_to_the_node_that_executes_it() {
    let exact = |claim: &str| {
        let (view, cards) = world(&[managed(100)], &[claim]);
        let mut seen = Bridging::default();
        settle(&view, &cards, &mut seen);
        seen.forwards.iter().find(|f| f.mac.is_some()).map(|f| f.to.to_string())
    };
    let cases = [
        ("", None),
        ("hv1", None),
        ("hv2", Some("10.255.1.2")),
        // A migration arrives paused: until its end names the target alone, the guest is at the source.
        ("hv2 hv3", Some("10.255.1.2")),
        ("hv1 hv2", None),
        ("hv2 hv1", Some("10.255.1.2")),
        // No such node, or none with tunnels: it is looked for everywhere.
        ("hv9", None),
    ];
    for (claim, expected) in cases {
        assert_eq!(exact(claim).as_deref(), expected, "claim {claim:?}");
    }
}

#[test]
fn a_claim_that_moves_moves_the_entry_in_one_change() {
    let mut seen = Bridging::default();
    let (view, cards) = world(&[managed(100)], &["hv2", "hv2"]);
    settle(&view, &cards, &mut seen);
    let (view, cards) = world(&[managed(100)], &["hv3", "hv2"]);
    let planned = plan(&ground(), &view, &cards, &seen);
    let changes: Vec<String> = planned.batch.iter().map(|(change, _)| change.to_string()).collect();
    assert_eq!(changes, ["send frames for 52:54:00:00:00:01 on vxlan100 to 10.255.1.3"]);
    apply(&mut seen, &planned.batch);
    // It comes here: nothing is sent for it any more.
    let (view, cards) = world(&[managed(100)], &["hv1", "hv2"]);
    settle(&view, &cards, &mut seen);
    assert_eq!(seen.forwards.iter().filter(|f| f.mac.is_some()).count(), 1);
}

#[test]
fn one_address_in_two_places_is_looked_for_everywhere() {
    for claims in [["hv2", "hv3"], ["hv1", "hv2"]] {
        let (view, mut cards) = world(&[managed(100)], &claims);
        cards.insert(testing::id(2), vec![card(1)]);
        let mut seen = Bridging::default();
        settle(&view, &cards, &mut seen);
        assert_eq!(seen.forwards.iter().filter(|f| f.mac.is_some()).count(), 0, "{claims:?}");
    }
}

#[test]
fn a_network_that_is_deleted_under_its_guests_keeps_connecting_them() {
    let mut seen = Bridging::default();
    let (view, cards) = world(&[managed(100), bridged(20)], &["hv2"]);
    settle(&view, &cards, &mut seen);
    seen.devices.extend([port("vnet0", "vmbr100", false), port("vnet1", "vmbr20", false)]);
    let (with, entries) = (names(&seen).join(" "), sent(&seen));
    // Deleted key by key: first the type is gone, then all of it.
    for networks in [&[network(100, None), network(20, None)][..], &[]] {
        let (view, cards) = world(networks, &["hv2"]);
        settle(&view, &cards, &mut seen);
        assert_eq!((names(&seen).join(" "), sent(&seen)), (with.clone(), entries.clone()));
    }
    // A guest that moves is followed even so.
    let (view, cards) = world(&[], &["hv3"]);
    settle(&view, &cards, &mut seen);
    assert!(sent(&seen).contains(&"frames for 52:54:00:00:00:01 on vxlan100 to 10.255.1.3".into()));
    // The last guest leaves.
    seen.devices.retain(|device| !device.name.starts_with("vnet"));
    settle(&view, &cards, &mut seen);
    assert_eq!(names(&seen), Vec::<&str>::new());
}

#[test]
fn what_this_program_did_not_make_is_not_touched() {
    let theirs = |name: &str, kind| {
        let name = name.to_owned();
        Device {
            name,
            index: 91,
            kind,
            mac: Mac([2; 6]),
            mtu: 1450,
            up: true,
            master: None,
            ours: false,
            learns: false,
        }
    };
    let devices = vec![
        theirs("vmbr0", DeviceKind::Bridge),
        theirs("vmbr7", DeviceKind::Bridge),
        theirs("vxlan8", DeviceKind::Vxlan { vni: vni(8), local: "10.0.0.1".parse().unwrap() }),
        theirs("vmbr100", DeviceKind::Other),
    ];
    let mut seen = Bridging { devices, ..Bridging::default() };
    seen.forwards.insert(Forward {
        device: "vxlan8".into(),
        mac: None,
        to: "10.9.9.9".parse().unwrap(),
        by: None,
    });
    let before = seen.clone();
    let (view, cards) = world(&[managed(100)], &[]);
    let planned = plan(&ground(), &view, &cards, &seen);
    assert!(
        planned.troubles[0].to_string().starts_with("network 100: a device called vmbr100 exists"),
        "{:?}",
        planned.troubles
    );
    let (nothing, no_cards) = world(&[], &[]);
    settle(&nothing, &no_cards, &mut seen);
    assert_eq!(seen, before);
    // A bridge that an earlier daemon left is used, and stays when the network goes.
    let (view, cards) = world(&[managed(7)], &[]);
    settle(&view, &cards, &mut seen);
    assert_eq!(seen.device("vxlan7").unwrap().master.as_deref(), Some("vmbr7"));
    settle(&nothing, &no_cards, &mut seen);
    assert_eq!(seen, before);
}

#[test]
fn what_drifted_is_put_right() {
    let (view, cards) = world(&[managed(100)], &["hv2"]);
    let mut whole = Bridging::default();
    settle(&view, &cards, &mut whole);
    let spoil: [fn(&mut Bridging); 7] = [
        |seen| seen.devices.iter_mut().filter(|d| d.name == "vxlan100").for_each(|d| d.learns = true),
        |seen| seen.devices.retain(|d| d.name != "vxlan100"),
        |seen| seen.devices.iter_mut().for_each(|d| d.mtu = 1500),
        |seen| seen.devices.iter_mut().for_each(|d| d.up = false),
        |seen| seen.devices.iter_mut().for_each(|d| d.master = None),
        |seen| seen.forwards.clear(),
        |seen| {
            let stray = Forward {
                device: "vxlan100".into(),
                mac: Some(card(9).mac),
                to: "10.9.9.9".parse().unwrap(),
                by: None,
            };
            seen.forwards.insert(stray);
        },
    ];
    for (n, spoil) in spoil.into_iter().enumerate() {
        let mut seen = whole.clone();
        spoil(&mut seen);
        settle(&view, &cards, &mut seen);
        assert_eq!((names(&seen), &seen.forwards), (names(&whole), &whole.forwards), "{n}");
    }
}

#[test]
fn an_overlay_that_changes_changes_who_knows_where_cards_are_and_no_device() {
    let (mut view, cards) = world(&[managed(100)], &["hv2", "hv3"]);
    let mut seen = Bridging::default();
    settle(&view, &cards, &mut seen);
    let (declared, devices) = (sent(&seen), names(&seen).join(" "));
    view.overlay = Overlay::Flood;
    settle(&view, &cards, &mut seen);
    assert_eq!(seen.forwards.iter().filter(|f| f.mac.is_some()).count(), 0, "tunnels find out themselves");
    assert_eq!(
        seen.devices.iter().map(|d| (d.name.as_str(), d.learns)).collect::<Vec<_>>(),
        [("vmbr100", false), ("vxlan100", true),]
    );
    // What they have learnt stays theirs: of a card that is known, also in another place, and of one that nobody knows.
    let learnt = |number: u8, to: &str| Forward {
        device: "vxlan100".into(),
        mac: Some(card(number).mac),
        to: to.parse().unwrap(),
        by: None,
    };
    seen.learnt = [learnt(1, "10.255.1.2"), learnt(2, "10.255.1.2"), learnt(9, "10.255.1.3")].into();
    settle(&view, &cards, &mut seen);
    assert_eq!(seen.learnt.len(), 3);
    // Back again: nothing learnt is left to disagree.
    view.overlay = Overlay::Declared;
    settle(&view, &cards, &mut seen);
    assert_eq!((sent(&seen), names(&seen).join(" "), seen.learnt.len()), (declared, devices, 0));
}

#[test]
fn what_a_routing_daemon_writes_is_left_to_it_for_as_long_as_it_is_asked() {
    let (mut view, cards) = world(&[managed(100)], &["hv2", "hv3", "hv1"]);
    let mut seen = Bridging::default();
    settle(&view, &cards, &mut seen);
    let declared = seen.forwards.clone();
    view.overlay = Overlay::Evpn;
    settle(&view, &cards, &mut seen);
    assert_eq!(seen.forwards.iter().filter(|f| f.mac.is_some()).count(), 0, "it finds out itself");
    assert!(seen.devices.iter().all(|device| !device.learns));
    // Of a card that definitions name, in another place, of one that none names, and of one whose guest has come here.
    let routed = |number: u8| Forward { mac: Some(card(number).mac), ..declared.first().unwrap().clone() };
    seen.routed = [routed(1), routed(9), routed(3)].into();
    seen.learnt = [routed(8)].into();
    settle(&view, &cards, &mut seen);
    assert_eq!((&seen.routed, seen.learnt.len()), (&[routed(1), routed(9)].into(), 0));
    view.overlay = Overlay::Declared;
    settle(&view, &cards, &mut seen);
    assert_eq!((seen.forwards, seen.routed.len()), (declared, 0));
}

#[test]
fn entries_say_which_device_frames_leave_by() {
    let (view, cards) = world(&[managed(100)], &["hv2"]);
    let mut seen = Bridging::default();
    settle(&view, &cards, &mut seen);
    let bridge = |index| Device { name: CLUSTER_BRIDGE.into(), index, ..port("", "", false) };
    // As an earlier program has written them, and after the bridge has been made anew.
    for index in [7, 8] {
        seen.devices.retain(|device| device.name != CLUSTER_BRIDGE);
        seen.devices.push(bridge(index));
        settle(&view, &cards, &mut seen);
        assert_eq!(seen.forwards.iter().map(|f| f.by).collect::<Vec<_>>(), [Some(index); 3]);
    }
}

#[test]
fn entries_that_a_routing_daemon_can_take_away_are_told_of() {
    let bridge = Device { name: CLUSTER_BRIDGE.into(), index: 7, ..port("", "", false) };
    for overlay in [Overlay::Declared, Overlay::Flood, Overlay::Evpn] {
        for devices in [vec![], vec![bridge.clone()]] {
            let (mut view, cards) = world(&[managed(100)], &[]);
            view.overlay = overlay;
            let is_told = overlay == Overlay::Evpn && devices.is_empty();
            let seen = Bridging { devices, ..Bridging::default() };
            let troubles = plan(&ground(), &view, &cards, &seen).troubles;
            assert_eq!(troubles.len(), usize::from(is_told), "{troubles:?}");
        }
    }
    let (mut view, cards) = world(&[bridged(20)], &[]);
    view.overlay = Overlay::Evpn;
    assert_eq!(plan(&ground(), &view, &cards, &Bridging::default()).troubles, [], "it has no tunnel");
}

#[test]
fn what_cannot_be_is_said_and_costs_nobody_else() {
    let (view, cards) = world(&[managed(100), bridged(4095), bridged(20)], &[]);
    let mut seen = Bridging::default();
    let nowhere = Ground { address: None, ..ground() };
    let planned = plan(&nowhere, &view, &cards, &seen);
    assert_eq!(planned.troubles.len(), 2, "{:?}", planned.troubles);
    apply(&mut seen, &planned.batch);
    assert_eq!(names(&seen), ["vlan20", "vmbr20"]);
}

#[test]
fn an_address_of_this_node_that_changes_makes_the_tunnel_anew() {
    let (view, cards) = world(&[managed(100)], &["hv2"]);
    let mut seen = Bridging::default();
    settle(&view, &cards, &mut seen);
    let moved = Ground { address: Some("10.255.1.77".parse().unwrap()), ..ground() };
    let planned = plan(&moved, &view, &cards, &seen);
    apply(&mut seen, &planned.batch);
    assert_eq!(plan(&moved, &view, &cards, &seen), Planned::default());
    assert_eq!(seen.forwards.len(), 3);
}

proptest! {
    /// From any state that this program can have left, and whatever others have put beside it, one batch leads to what is desired.
    #[test]
    fn one_batch_is_enough_from_anywhere(
        before in btree_set((1u32..8, 0u8..3), 0..6),
        after in btree_set((1u32..8, 0u8..3), 0..6),
        guests in btree_set(1u32..8, 0..3),
        claims in proptest::collection::vec("hv[1-4]|hv2 hv3|", 0..6),
        overlays in [0usize..3, 0usize..3],
    ) {
        let kinds = |set: &std::collections::BTreeSet<(u32, u8)>| -> Vec<Network> {
            let kinds = [None, Some(NetworkKind::Managed), Some(NetworkKind::Bridged)];
            let last: BTreeMap<u32, u8> = set.iter().copied().collect();
            last.into_iter().map(|(number, kind)| network(number, kinds[usize::from(kind)])).collect()
        };
        let claims: Vec<&str> = claims.iter().map(String::as_str).collect();
        let mut seen = Bridging::default();
        let overlay = |number: usize| [Overlay::Declared, Overlay::Flood, Overlay::Evpn][number];
        let (mut view, cards) = world(&kinds(&before), &claims);
        view.overlay = overlay(overlays[0]);
        settle(&view, &cards, &mut seen);
        for number in guests {
            if seen.device(&vni(number).bridge()).is_some() {
                seen.devices.push(port(&format!("vnet{number}"), &vni(number).bridge(), false));
            }
        }
        let with_guests: Vec<String> =
            seen.devices.iter().filter(|d| d.name.starts_with("vnet")).filter_map(|d| d.master.clone()).collect();
        let (mut view, cards) = world(&kinds(&after), &claims);
        view.overlay = overlay(overlays[1]);
        settle(&view, &cards, &mut seen);
        for bridge in with_guests {
            prop_assert!(seen.device(&bridge).is_some(), "{bridge} was removed under a guest");
        }
        for device in &seen.devices {
            prop_assert!(device.mtu > 0);
        }
    }
}
