//! What only a real kernel shows of bridges.

use pvc_core::model::link::LinkChange;
use pvc_host::links::{Links as _, Netlink};

use crate::namespace::{alone, ip};

#[test]
fn a_bridge_keeps_its_ethernet_address_when_ports_come_and_go() {
    alone(async || {
        let links = Netlink::start().unwrap();
        let mac = [2, 0, 0, 0, 0, 0x70];
        links.apply(&LinkChange::AddBridge { name: "brcluster".into(), mac }).await.unwrap();
        for port in ["02:00:00:00:00:01", "02:00:00:00:00:02", "fe:00:00:00:00:03"] {
            ip(&format!("link add port address {port} type veth peer name peer"));
            let enslave = LinkChange::Enslave { device: "port".into(), bridge: "brcluster".into() };
            links.apply(&enslave).await.unwrap();
            assert_eq!(links.observe(&[]).await.unwrap().link("brcluster").unwrap().mac, mac, "with a port");
            ip("link del port");
            assert_eq!(links.observe(&[]).await.unwrap().link("brcluster").unwrap().mac, mac, "without");
        }
    });
}

#[test]
fn routes_of_the_operators_move_with_all_they_say() {
    alone(async || {
        for device in ["eth0", "eth1"] {
            ip(&format!("link add {device} type veth peer name {device}p"));
            ip(&format!("link set {device} up"));
            ip(&format!("link set {device}p up"));
            ip(&format!("address add 10.255.0.1/24 dev {device}"));
        }
        ip("route add 10.9.0.0/16 via 10.255.0.200 dev eth0 metric 50 src 10.255.0.1");
        ip("route add 10.8.0.0/16 dev eth0 scope link");
        ip("-6 address add fd00::1/64 dev eth0 nodad");
        ip("-6 address add fd00::1/64 dev eth1 nodad");
        ip("-6 route add fd09::/32 via fd00::200 dev eth0");
        let links = Netlink::start().unwrap();
        links.apply(&LinkChange::MoveRoutes { from: "eth0".into(), to: "eth1".into() }).await.unwrap();
        let (v4, v6) = (ip("route show proto boot"), ip("-6 route show proto boot"));
        assert!(v4.contains("10.9.0.0/16 via 10.255.0.200 dev eth1 src 10.255.0.1 metric 50"), "{v4}");
        assert!(v4.contains("10.8.0.0/16 dev eth1 scope link"), "{v4}");
        assert!(v6.contains("fd09::/32 via fd00::200 dev eth1"), "{v6}");
        assert!(!v4.contains("eth0") && !v6.contains("eth0"), "{v4}{v6}");
    });
}
