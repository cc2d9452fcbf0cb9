//! Neighbours believe an announcement: a real kernel's neighbour table turns to the new holder at once.

use std::time::Duration;

use pvc_core::model::link::{LinkChange, Placed};
use pvc_host::links::{Links as _, Netlink};
use tokio::time::{Instant, sleep};

use crate::{
    contract::{cidr, soon},
    namespace::{Beside, alone, ip},
};

#[test]
fn connections_do_not_come_from_an_address_that_will_go() {
    alone(async || {
        ip("link add eth0 type veth peer name peer0");
        ip("link set eth0 up");
        ip("link set peer0 up");
        let links = Netlink::start().unwrap();
        let set = async |text: &str, lifetime_s| {
            let change = LinkChange::SetAddress { device: "eth0".into(), cidr: cidr(text), lifetime_s };
            links.apply(&change).await.unwrap();
        };
        let source = || ip("-6 route get fd00::9").split("src ").nth(1).unwrap_or("").to_owned();
        set("fd00::fe/64", Some(100)).await;
        assert!(source().starts_with("fd00::fe "), "the only one serves: {}", source());
        set("fd00::1/64", None).await;
        let remove = LinkChange::RemoveAddress { device: "eth0".into(), cidr: cidr("fd00::fe/64") };
        links.apply(&remove).await.unwrap();
        // Of equals, Linux chooses the latest.
        set("fd00::fe/64", Some(100)).await;
        assert!(source().starts_with("fd00::1 "), "{}", source());
    });
}

#[test]
fn an_ipv6_address_answers_from_the_first_moment() {
    alone(async || {
        let other = Beside::new();
        ip(&format!("link add eth0 type veth peer name eth0 netns {}", other.thread_id));
        ip("link set eth0 up");
        other.ip("link set eth0 up");
        let links = Netlink::start().unwrap();
        let change =
            LinkChange::SetAddress { device: "eth0".into(), cidr: cidr("fd00::fe/64"), lifetime_s: Some(9) };
        links.apply(&change).await.unwrap();
        let seen = ip("-6 address show dev eth0 to fd00::fe");
        assert!(seen.contains("nodad"), "{seen}");
        assert!(!seen.contains("tentative"), "{seen}");
    });
}

#[test]
fn neighbours_turn_to_the_new_holder_at_once() {
    alone(async || {
        let other = Beside::new();
        ip(&format!(
            "link add eth0 address 02:00:00:00:00:01 type veth peer name eth0 netns {}",
            other.thread_id
        ));
        ip("link set eth0 up");
        other.ip("link set eth0 up");
        other.ip("address add 10.255.0.9/24 dev eth0");
        other.ip("-6 address add fd00::9/64 dev eth0 nodad");
        let links = Netlink::start().unwrap();
        for (family, address, prefix) in [("-4", "10.255.0.254", 24), ("-6", "fd00::fe", 64)] {
            // That one has no device hinders no other.
            let placed = ["eth7", "eth0"]
                .map(|device| Placed { device: device.into(), cidr: cidr(&format!("{address}/{prefix}")) });
            // What the neighbour knows of the former holder.
            other.ip(&format!(
                "{family} neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud reachable"
            ));
            let began = Instant::now();
            let table = loop {
                links.announce(&placed, soon()).await.unwrap_err();
                let table = other.ip(&format!("{family} neigh show {address}"));
                if table.contains("02:00:00:00:00:01") || began.elapsed() > Duration::from_secs(5) {
                    break table;
                }
                // An IPv6 link is not ready for a moment after it came up.
                sleep(Duration::from_millis(20)).await;
            };
            assert!(table.contains("02:00:00:00:00:01"), "{family}: {table}");
        }
    });
}
