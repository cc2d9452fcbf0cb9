//! What only a real kernel shows of client networks: frames, and what is heard of them.

use std::{net::UdpSocket, time::Duration};

use pvc_core::model::{
    Mac, Vni,
    bridging::{Bridging, BridgingChange, DeviceKind, Forward},
};
use pvc_host::links::{Bridges, Netlink};
use tokio::time::timeout;

use crate::namespace::{Beside, alone, bridge, ip};

fn vni() -> Vni {
    "100".parse().unwrap()
}

fn add(name: &str, kind: DeviceKind, master: Option<&str>) -> BridgingChange {
    BridgingChange::Add { name: name.into(), kind, mtu: 1450, master: master.map(Into::into) }
}

fn forward(mac: Option<u8>, to: &str) -> Forward {
    let mac = mac.map(|last| Mac([0x52, 0x54, 0, 0, 0, last]));
    Forward { device: "vxlan100".into(), mac, to: to.parse().unwrap(), by: None }
}

/// A managed network whose other end is there.
fn managed(local: &str, to: &str) -> Vec<BridgingChange> {
    vec![
        add("vmbr100", DeviceKind::Bridge, None),
        add("vxlan100", DeviceKind::Vxlan { vni: vni(), local: local.parse().unwrap() }, Some("vmbr100")),
        BridgingChange::Forward(forward(None, to)),
    ]
}

async fn make(bridges: &dyn Bridges, changes: &[BridgingChange]) {
    for (change, outcome) in changes.iter().zip(bridges.apply(changes).await) {
        outcome.unwrap_or_else(|error| panic!("{change}: {error}"));
    }
}

async fn seen(bridges: &dyn Bridges) -> Bridging {
    bridges.observe().await.unwrap()
}

#[test]
fn what_is_made_is_seen_and_made_again_changes_nothing() {
    alone(async || {
        let bridges = Netlink::start().unwrap();
        let mut changes = managed("10.255.1.1", "10.255.1.2");
        changes.push(BridgingChange::Forward(forward(None, "10.255.1.3")));
        changes.push(BridgingChange::Forward(forward(Some(1), "10.255.1.2")));
        make(&*bridges, &changes).await;
        let first = seen(&*bridges).await;
        make(&*bridges, &changes).await;
        assert_eq!(seen(&*bridges).await, first);
        for (name, kind, master) in [
            ("vmbr100", DeviceKind::Bridge, None),
            (
                "vxlan100",
                DeviceKind::Vxlan { vni: vni(), local: "10.255.1.1".parse().unwrap() },
                Some("vmbr100".to_owned()),
            ),
        ] {
            let device = first.device(name).unwrap();
            assert_eq!((&device.kind, &device.master), (&kind, &master));
            assert_eq!((device.mtu, device.up, device.ours), (1450, true, true), "{name}");
        }
        let sent: Vec<String> = first.forwards.iter().map(ToString::to_string).collect();
        assert_eq!(
            sent,
            [
                "frames for everybody on vxlan100 to 10.255.1.2",
                "frames for everybody on vxlan100 to 10.255.1.3",
                "frames for 52:54:00:00:00:01 on vxlan100 to 10.255.1.2"
            ]
        );
        // A node is nobody among guests.
        for device in ["vmbr100", "vxlan100"] {
            let addresses = ip(&format!("address show dev {device}"));
            assert!(!addresses.contains("inet"), "{addresses}");
        }
    });
}

#[test]
fn a_bridge_keeps_the_address_that_it_was_given_whatever_ports_it_has() {
    alone(async || {
        let bridges = Netlink::start().unwrap();
        make(&*bridges, &managed("10.255.1.1", "10.255.1.2")).await;
        let mac = Mac::of_gateway("10.255.1.1".parse().unwrap());
        let address = BridgingChange::Address { name: "vmbr100".into(), mac };
        for _ in 0..2 {
            make(&*bridges, std::slice::from_ref(&address)).await;
        }
        // A bridge that was given none takes the lowest of its ports.
        ip("link add vnet0 address 02:00:00:00:00:01 type veth peer name eth9");
        ip("link set vnet0 master vmbr100 up");
        let seen = seen(&*bridges).await;
        assert_eq!(seen.device("vmbr100").unwrap().mac, mac);
        assert_eq!(seen.device("vnet0").unwrap().mac.to_string(), "02:00:00:00:00:01");
    });
}

#[test]
fn a_cards_entry_takes_the_place_of_the_one_before() {
    alone(async || {
        let bridges = Netlink::start().unwrap();
        make(&*bridges, &managed("10.255.1.1", "10.255.1.2")).await;
        for to in ["10.255.1.2", "10.255.1.3", "10.255.1.3"] {
            make(&*bridges, &[BridgingChange::Forward(forward(Some(1), to))]).await;
            let cards = seen(&*bridges).await.forwards.into_iter().filter(|f| f.mac.is_some());
            assert_eq!(cards.map(|f| f.to.to_string()).collect::<Vec<_>>(), [to]);
        }
        for gone in [forward(Some(1), "10.255.1.3"), forward(None, "10.255.1.2")] {
            // The second time there is none.
            for _ in 0..2 {
                make(&*bridges, &[BridgingChange::Unforward(gone.clone())]).await;
            }
        }
        assert_eq!(seen(&*bridges).await.forwards.len(), 0);
        for _ in 0..2 {
            make(&*bridges, &[BridgingChange::Remove { name: "vmbr100".into() }]).await;
        }
    });
}

#[test]
fn a_tunnel_learns_or_not_as_it_is_told_and_what_it_learns_is_told_apart() {
    alone(async || {
        let bridges = Netlink::start().unwrap();
        make(&*bridges, &managed("10.255.1.1", "10.255.1.2")).await;
        let before = seen(&*bridges).await;
        for learns in [true, true, false] {
            make(&*bridges, &[BridgingChange::Learn { name: "vxlan100".into(), learns }]).await;
            let mut now = seen(&*bridges).await;
            let device = now.devices.iter_mut().find(|device| device.name == "vxlan100").unwrap();
            assert_eq!(std::mem::replace(&mut device.learns, false), learns);
            assert_eq!(now, before, "nothing else changes");
        }
        // As the kernel writes what it learns.
        bridge("fdb add 52:54:00:00:00:02 dev vxlan100 dst 10.255.1.2 self dynamic");
        let now = seen(&*bridges).await;
        assert_eq!((&now.forwards, now.learnt.len()), (&before.forwards, 1));
        // What is written takes its place, and what is learnt can be taken away.
        make(&*bridges, &[BridgingChange::Forward(forward(Some(2), "10.255.1.3"))]).await;
        assert_eq!(seen(&*bridges).await.learnt.len(), 0);
        bridge("fdb add 52:54:00:00:00:03 dev vxlan100 dst 10.255.1.2 self dynamic");
        make(&*bridges, &[BridgingChange::Unforward(forward(Some(3), "10.255.1.2"))]).await;
        assert_eq!(seen(&*bridges).await.learnt.len(), 0);
    });
}

#[test]
fn what_a_routing_daemon_writes_is_told_apart_and_ours_is_out_of_its_reach() {
    alone(async || {
        ip("link add eth1 type veth peer name eth2");
        ip("link set eth1 up");
        let bridges = Netlink::start().unwrap();
        let by = seen(&*bridges).await.device("eth1").map(|device| device.index);
        let of = |mac, to| Forward { by, ..forward(mac, to) };
        let mut changes = managed("10.255.1.1", "10.255.1.2");
        // As one of an earlier program, which named no device.
        make(&*bridges, &changes).await;
        changes.truncate(2);
        changes.push(BridgingChange::Forward(of(None, "10.255.1.2")));
        changes.push(BridgingChange::Forward(of(Some(1), "10.255.1.2")));
        make(&*bridges, &changes).await;
        assert_eq!(seen(&*bridges).await.forwards.len(), 3);
        make(&*bridges, &[BridgingChange::Unforward(forward(None, "10.255.1.2"))]).await;
        let ours = seen(&*bridges).await.forwards;
        assert_eq!(ours, [of(None, "10.255.1.2"), of(Some(1), "10.255.1.2")].into());
        // As zebra takes away what it believes to be its own: it names no device.
        for mac in ["00:00:00:00:00:00", "52:54:00:00:00:01"] {
            bridge(&format!("fdb del {mac} dev vxlan100 dst 10.255.1.2 self"));
        }
        assert_eq!(seen(&*bridges).await.forwards, ours);
        // As zebra writes what it has been told.
        bridge("fdb add 52:54:00:00:00:02 dev vxlan100 dst 10.255.1.2 self extern_learn");
        let now = seen(&*bridges).await;
        assert_eq!((&now.forwards, now.learnt.len(), now.routed.len()), (&ours, 0, 1));
        assert_eq!(now.routed.first(), Some(&forward(Some(2), "10.255.1.2")));
        // What is declared takes its place, and what nobody declares can be taken away.
        make(&*bridges, &[BridgingChange::Forward(of(Some(2), "10.255.1.3"))]).await;
        let now = seen(&*bridges).await;
        assert_eq!((now.forwards.len(), now.routed.len()), (3, 0));
        bridge("fdb add 52:54:00:00:00:03 dev vxlan100 dst 10.255.1.2 self extern_learn");
        make(&*bridges, &[BridgingChange::Unforward(forward(Some(3), "10.255.1.2"))]).await;
        assert_eq!(seen(&*bridges).await.routed.len(), 0);
    });
}

#[test]
fn entries_by_a_device_that_was_made_anew_are_replaced() {
    alone(async || {
        let bridges = Netlink::start().unwrap();
        make(&*bridges, &managed("10.255.1.1", "10.255.1.2")[..2]).await;
        let mut before = std::collections::BTreeSet::new();
        for round in 0..2 {
            ip("link add eth1 type veth peer name eth2");
            ip("link set eth1 up");
            let by = seen(&*bridges).await.device("eth1").map(|device| device.index);
            let of = |(mac, to)| Forward { by, ..forward(mac, to) };
            let wanted: std::collections::BTreeSet<Forward> =
                [(None, "10.255.1.2"), (None, "10.255.1.3"), (Some(1), "10.255.1.2")].map(of).into();
            assert!(wanted.is_disjoint(&before));
            // As plans do: what is missing, and then what is not wanted. One who has looked again finds the rest.
            for _ in 0..2 {
                let there = seen(&*bridges).await.forwards;
                let missing = wanted.difference(&there).cloned().map(BridgingChange::Forward);
                let gone = there.difference(&wanted).cloned().map(BridgingChange::Unforward);
                make(&*bridges, &missing.chain(gone).collect::<Vec<_>>()).await;
            }
            assert_eq!(seen(&*bridges).await.forwards, wanted, "round {round}");
            before = wanted;
            ip("link del eth1");
        }
        // A guest's entry that nobody wants.
        for forward in &before {
            make(&*bridges, &[BridgingChange::Unforward(forward.clone())]).await;
        }
        assert_eq!(seen(&*bridges).await.forwards.len(), 0);
    });
}

#[test]
fn one_change_that_fails_costs_no_other() {
    alone(async || {
        let bridges = Netlink::start().unwrap();
        let vlan = add("vlan20", DeviceKind::Vlan { id: 20, over: "none".into() }, None);
        let outcomes = bridges.apply(&[vlan, add("vmbr100", DeviceKind::Bridge, None)]).await;
        assert!(outcomes[0].as_ref().is_err_and(|e| e.to_string().contains("there is no device none")));
        assert!(outcomes[1].is_ok() && seen(&*bridges).await.device("vmbr100").is_some());
    });
}

#[test]
fn what_somebody_else_takes_away_is_heard_of() {
    alone(async || {
        let bridges = Netlink::start().unwrap();
        make(&*bridges, &managed("10.255.1.1", "10.255.1.2")).await;
        let mut changes = bridges.changes();
        for order in ["link set vxlan100 nomaster", "link set vxlan100 mtu 1400", "link del vxlan100"] {
            // Whatever was on its way.
            while timeout(Duration::from_millis(50), changes.changed()).await.is_ok() {}
            ip(order);
            timeout(Duration::from_secs(1), changes.changed()).await.expect(order).unwrap();
        }
        make(&*bridges, &managed("10.255.1.1", "10.255.1.2")).await;
        while timeout(Duration::from_millis(50), changes.changed()).await.is_ok() {}
        make(&*bridges, &[BridgingChange::Unforward(forward(None, "10.255.1.2"))]).await;
        timeout(Duration::from_secs(1), changes.changed()).await.expect("an entry").unwrap();
    });
}

#[test]
fn who_missed_what_was_too_much_to_hear_goes_on_hearing() {
    alone(async || {
        let (bridges, folder) = (Netlink::start().unwrap(), tempfile::tempdir().unwrap());
        ip("link add eth1 type veth peer name eth2");
        let mut changes = bridges.changes();
        let orders = "link set eth1 mtu 1400\nlink set eth1 mtu 1401\n".repeat(500);
        let file = folder.path().join("orders");
        std::fs::write(&file, orders).unwrap();
        while timeout(Duration::from_millis(50), changes.changed()).await.is_ok() {}
        // This thread hears nothing until all of it is done.
        ip(&format!("-batch {}", file.display()));
        timeout(Duration::from_secs(1), changes.changed()).await.expect("the swarm").unwrap();
        while timeout(Duration::from_millis(50), changes.changed()).await.is_ok() {}
        ip("link set eth1 mtu 1300");
        timeout(Duration::from_millis(500), changes.changed()).await.expect("what comes after it").unwrap();
    });
}

/// A guest is a namespace whose card is a port of the bridge.
fn plug(node: Option<&Beside>, guest: &Beside, number: u8) {
    let order = format!(
        "link add vnet{number} type veth peer name eth0 address 52:54:00:00:00:0{number} mtu 1450 netns {}",
        guest.thread_id
    );
    let orders = [order, format!("link set vnet{number} mtu 1450 up master vmbr100")];
    for order in orders {
        match node {
            Some(node) => drop(node.ip(&order)),
            None => drop(ip(&order)),
        }
    }
    guest.ip("link set eth0 up");
    guest.ip(&format!("address add 10.100.0.{number}/24 dev eth0"));
}

#[test]
fn guests_on_two_nodes_reach_each_other_and_full_frames_fit() {
    alone(async || {
        let (node, here, there) = (Beside::new(), Beside::new(), Beside::new());
        ip(&format!("link add eth1 type veth peer name eth1 netns {}", node.thread_id));
        ip("link set eth1 up");
        ip("address add 10.255.1.1/24 dev eth1");
        node.ip("link set eth1 up");
        node.ip("address add 10.255.1.2/24 dev eth1");
        let bridges = Netlink::start().unwrap();
        make(&*bridges, &managed("10.255.1.1", "10.255.1.2")).await;
        make(&*bridges, &[BridgingChange::Forward(forward(Some(2), "10.255.1.2"))]).await;
        node.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let bridges = Netlink::start().unwrap();
                make(&*bridges, &managed("10.255.1.2", "10.255.1.1")).await;
            });
        });
        plug(None, &here, 1);
        plug(Some(&node), &there, 2);
        // 1422 and 28 of headers: the network's MTU.
        let (asked, echo) = (bound(&here, 1), bound(&there, 2));
        there.run(move || {
            std::thread::spawn(move || {
                let mut frame = [0; 2000];
                while let Ok((length, from)) = echo.recv_from(&mut frame) {
                    echo.send_to(&frame[..length], from).unwrap();
                }
            });
        });
        for _ in 0..3 {
            asked.send_to(&[7; 1422], "10.100.0.2:7").unwrap();
            let (length, from) = asked.recv_from(&mut [0; 2000]).expect("an answer");
            assert_eq!((length, from.to_string().as_str()), (1422, "10.100.0.2:7"));
        }
    });
}

/// A socket of a guest.
fn bound(guest: &Beside, number: u8) -> UdpSocket {
    guest.run(move || {
        let socket = UdpSocket::bind((std::net::Ipv4Addr::new(10, 100, 0, number), 7)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    })
}
