//! What the walls stop, and what they let through, by real packets: a node with two guests in a network, another node, an outsider, and a
//! host on the way out.
//!
//! What must not arrive is sent before something that does: what arrives first tells.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use pvc_core::{
    model::{Mac, rule::Direction},
    plan::firewall::{Line, Port, Ruleset},
};
use pvc_host::firewall::{Firewall, Nft};

use crate::{
    contract::{ruleset, vni},
    namespace::{Beside, alone, ip},
};

/// A namespace with a card, whose other end is a device of the node's.
fn host(device: &str, addresses: &[&str]) -> Beside {
    let host = Beside::new();
    ip(&format!("link add {device} type veth peer name eth0 netns {}", host.thread_id));
    ip(&format!("link set {device} up"));
    host.ip("link set eth0 up");
    for address in addresses {
        let nodad = if address.contains("::") { " nodad" } else { "" };
        host.ip(&format!("address add {address} dev eth0{nodad}"));
    }
    host
}

pub(crate) struct Node {
    pub(crate) firewall: Arc<Nft>,
    pub(crate) guest: Beside,
    pub(crate) other: Beside,
    outsider: Beside,
    upstream: Beside,
}

/// The thread's namespace becomes a node that is primary.
pub(crate) fn node() -> Node {
    ip("link add vmbr100 type bridge");
    ip("link set vmbr100 up");
    let guest = host("vnet0", &["10.100.0.2/24", "fd00:100::2/64"]);
    let other = host("vnet1", &["10.100.0.3/24", "fd00:100::3/64"]);
    ip("address add 10.100.0.1/24 dev vmbr100");
    ip("address add fd00:100::1/64 dev vmbr100 nodad");
    ip("link set vnet0 master vmbr100");
    ip("link set vnet1 master vmbr100");
    let outsider = host("eth1", &["10.255.1.2/24", "10.255.1.9/24"]);
    ip("address add 10.255.1.1/24 dev eth1");
    let upstream = host("eth2", &["192.0.2.2/24"]);
    ip("address add 192.0.2.1/24 dev eth2");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    for (host, gateway) in [(&guest, "10.100.0.1"), (&outsider, "10.255.1.1"), (&upstream, "192.0.2.1")] {
        host.ip(&format!("route add default via {gateway}"));
    }
    Node { firewall: Nft::start("/nonexistent".into()).unwrap(), guest, other, outsider, upstream }
}

fn bound(to: &str) -> UdpSocket {
    let socket = UdpSocket::bind(to).unwrap_or_else(|e| panic!("{to}: {e}"));
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

pub(crate) fn at(host: &Beside, address: &'static str) -> UdpSocket {
    host.run(move || bound(address))
}

/// Sends a packet that says what it is.
pub(crate) fn send(from: &UdpSocket, to: &str, what: &str) {
    // A refusal that comes back (an unreachable host) is one answer of several.
    let _ = from.send_to(what.as_bytes(), to.parse::<SocketAddr>().unwrap());
}

pub(crate) fn arrived(socket: &UdpSocket) -> String {
    let mut packet = [0; 2000];
    let (length, _) = socket.recv_from(&mut packet).expect("something arrives");
    String::from_utf8_lossy(&packet[..length]).into_owned()
}

pub(crate) fn walls(rules: &[(Direction, &str)]) -> Ruleset {
    let mut walls = ruleset();
    let wall = walls.networks.get_mut(&vni(100)).unwrap();
    wall.lines.clear();
    for (direction, body) in rules {
        let line = Line { name: (*body).to_owned(), body: Some(body.parse().unwrap()) };
        wall.lines.entry(*direction).or_default().push(line);
    }
    walls
}

#[test]
fn vxlan_is_taken_from_nodes_only() {
    alone(async || {
        let node = node();
        node.firewall.load(&walls(&[])).await.unwrap();
        let tunnel = bound("10.255.1.1:4789");
        send(&at(&node.outsider, "10.255.1.9:0"), "10.255.1.1:4789", "outsider");
        send(&at(&node.guest, "10.100.0.2:0"), "10.255.1.1:4789", "guest");
        send(&at(&node.outsider, "10.255.1.2:0"), "10.255.1.1:4789", "node");
        assert_eq!(arrived(&tunnel), "node");
    });
}

#[test]
fn a_guest_asks_its_gateway_for_names_and_the_node_for_nothing() {
    alone(async || {
        let node = node();
        node.firewall.load(&walls(&[])).await.unwrap();
        let guest = at(&node.guest, "0.0.0.0:0");
        let (dns, other, cluster) = (bound("10.100.0.1:53"), bound("0.0.0.0:9999"), bound("10.255.1.1:53"));
        for to in ["10.100.0.1:9999", "10.255.1.1:9999", "10.255.1.1:53"] {
            send(&guest, to, "guest");
        }
        send(&guest, "10.100.0.1:53", "question");
        assert_eq!(arrived(&dns), "question");
        let own = bound("0.0.0.0:0");
        send(&own, "127.0.0.1:9999", "node");
        send(&at(&node.outsider, "10.255.1.9:0"), "10.255.1.1:53", "outsider");
        assert_eq!((arrived(&other), arrived(&cluster)), ("node".into(), "outsider".into()));
        // The same over IPv6.
        let (guest, dns) = (at(&node.guest, "[fd00:100::2]:0"), bound("[fd00:100::1]:53"));
        let other = bound("[fd00:100::1]:9998");
        send(&guest, "[fd00:100::1]:9998", "guest");
        send(&guest, "[fd00:100::1]:53", "question");
        assert_eq!(arrived(&dns), "question");
        send(&bound("[::]:0"), "[fd00:100::1]:9998", "node");
        assert_eq!(arrived(&other), "node");
    });
}

#[test]
fn rules_stop_and_admit_as_written_count_and_open_no_closed_network() {
    alone(async || {
        let node = node();
        let rules = [
            (Direction::Out, "udp dport 7 accept"),
            (Direction::Out, "udp dport { 7 , 8 } drop"),
            (Direction::In, "udp dport 9 drop"),
        ];
        node.firewall.load(&walls(&rules)).await.unwrap();
        let guest = at(&node.guest, "10.100.0.2:9");
        let (outside, inside) = (at(&node.upstream, "192.0.2.2:7"), at(&node.outsider, "10.255.1.9:7"));
        let stopped = at(&node.upstream, "192.0.2.2:8");
        send(&guest, "192.0.2.2:8", "stopped");
        send(&guest, "10.255.1.9:7", "into the cluster network");
        send(&guest, "192.0.2.2:7", "admitted");
        assert_eq!(arrived(&outside), "admitted");
        send(&bound("0.0.0.0:0"), "192.0.2.2:8", "node");
        send(&bound("0.0.0.0:0"), "10.255.1.9:7", "node");
        assert_eq!((arrived(&stopped), arrived(&inside)), ("node".into(), "node".into()));
        // Towards the clients.
        let free = at(&node.guest, "10.100.0.2:10");
        send(&outside, "10.100.0.2:9", "stopped");
        send(&outside, "10.100.0.2:10", "admitted");
        assert_eq!(arrived(&free), "admitted");
        let counts = node.firewall.listing().await.unwrap().unwrap().counts;
        let packets = |chain: &str| counts[chain].iter().map(|count| count.packets).collect::<Vec<_>>();
        assert_eq!((packets("n100_out"), packets("n100_in")), (vec![1, 1], vec![1]));
        assert_eq!(counts["n100_out"][0].bytes, 28 + 8, "the packet");
        // Without the rules.
        node.firewall.change(&walls(&rules), &walls(&[])).await.unwrap();
        send(&outside, "10.100.0.2:9", "free now");
        assert_eq!(arrived(&guest), "free now");
    });
}

#[test]
fn a_guarded_guest_sends_nothing_from_a_gateways_hardware_address() {
    alone(async || {
        let node = node();
        let gateway = Mac::of_gateway("10.255.1.1".parse().unwrap());
        node.firewall.load(&walls(&[])).await.unwrap();
        let (from, to) = (at(&node.guest, "10.100.0.2:0"), at(&node.other, "10.100.0.3:10"));
        send(&from, "10.100.0.3:10", "as itself");
        assert_eq!(arrived(&to), "as itself");
        let own = node.guest.ip("-br link show dev eth0");
        let own = own.split_whitespace().nth(2).unwrap().to_owned();
        node.guest.ip(&format!("link set eth0 address {gateway}"));
        send(&from, "10.100.0.3:10", "as the gateway");
        node.guest.ip(&format!("link set eth0 address {own}"));
        send(&from, "10.100.0.3:10", "as itself again");
        assert_eq!(arrived(&to), "as itself again");
        let counts = node.firewall.listing().await.unwrap().unwrap().counts;
        assert!(counts["guard"][1].packets > 0, "{counts:?}");
    });
}

/// What a guarded guest cannot send, and the port that it would arrive at.
const FORBIDDEN: [(&str, &str, &str); 6] = [
    ("0.0.0.0:67", "10.100.0.3:68", "DHCP"),
    ("[fd00:100::2]:547", "[fd00:100::3]:546", "DHCPv6"),
    ("0.0.0.0:0", "10.100.0.3:4789", "VXLAN"),
    ("[fd00:100::2]:0", "[fd00:100::3]:4789", "VXLAN over IPv6"),
    ("10.100.0.1:0", "10.100.0.3:10", "as the gateway"),
    ("[fd00:100::1]:0", "[fd00:100::3]:10", "as the gateway, IPv6"),
];

#[test]
fn a_guarded_guest_serves_no_dhcp_sends_no_vxlan_and_is_no_gateway_unless_its_network_has_no_guards() {
    alone(async || {
        let node = node();
        node.firewall.load(&walls(&[])).await.unwrap();
        // It claims the gateway's addresses.
        node.guest.ip("address add 10.100.0.1/32 dev eth0");
        node.guest.ip("address add fd00:100::1/128 dev eth0 nodad");
        node.guest.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/arp_announce", "0").unwrap());
        let [v4, v6] = ["10.100.0.2:0", "[fd00:100::2]:0"].map(|from| at(&node.guest, from));
        for (from, to, what) in FORBIDDEN {
            let (sender, receiver) = (at(&node.guest, from), at(&node.other, to));
            send(&sender, to, what);
            // Nothing passes to the port of VXLAN: it is seen by what was counted.
            if !what.starts_with("VXLAN") {
                send(if to.starts_with('[') { &v6 } else { &v4 }, to, "marker");
                assert_eq!(arrived(&receiver), "marker", "{what}");
            }
        }
        let counts = node.firewall.listing().await.unwrap().unwrap().counts;
        let vxlan = counts["guard"].last().unwrap().packets;
        assert_eq!(vxlan, 2, "{counts:?}");
        let mut open = walls(&[]);
        open.ports.insert("vnet0".to_owned(), Port::Open);
        node.firewall.change(&walls(&[]), &open).await.unwrap();
        for (from, to, what) in FORBIDDEN {
            let (sender, receiver) = (at(&node.guest, from), at(&node.other, to));
            send(&sender, to, what);
            assert_eq!(arrived(&receiver), what);
        }
    });
}
