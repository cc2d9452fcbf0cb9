//! Neighbours believe an announcement: a real kernel's neighbour table turns to the new holder at once.

use std::time::Duration;

use pvc_host::links::{Links as _, Netlink};
use tokio::time::{Instant, sleep};

use crate::namespace::{Beside, alone, ip};

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
        for (family, address) in [("-4", "10.255.0.254"), ("-6", "fd00::fe")] {
            // What the neighbour knows of the former holder.
            other.ip(&format!(
                "{family} neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud reachable"
            ));
            let began = Instant::now();
            let table = loop {
                links.announce("eth0", &[address.parse().unwrap()]).await.unwrap();
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
