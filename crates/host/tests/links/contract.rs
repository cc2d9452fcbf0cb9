//! What every machine's network does. Each case runs on the fake and in a real network namespace with the devices eth0 and eth1.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use ipnet::IpNet;
use pvc_core::{
    model::link::{Assigned, HostNetwork, LinkChange, Placed},
    plan::primary::KERNEL_LATE,
};
use pvc_host::links::{Links, LinksError, Netlink, fake::FakeLinks};
use tokio::time::{Instant, sleep, timeout};

use crate::namespace::{alone, ip};

macro_rules! contract {
    ($($(#[$doc:meta])* async fn $name:ident($links:ident: &dyn Links) $body:block)+) => {
        $(async fn $name($links: &dyn Links) $body)+

        mod fake {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&*super::FakeLinks::new(&["lo", "eth0", "eth1"])).await;
            })+
        }

        mod real {
            $(#[test]
            fn $name() {
                super::alone(async || super::$name(&*super::netlink()).await);
            })+
        }
    };
}

fn netlink() -> Arc<Netlink> {
    for n in [0, 1] {
        ip(&format!("link add eth{n} type veth peer name peer{n}"));
        ip(&format!("link set eth{n} up"));
        ip(&format!("link set peer{n} up"));
    }
    Netlink::start().unwrap()
}

pub(crate) fn cidr(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn set(device: &str, text: &str, lifetime_s: Option<u32>) -> LinkChange {
    LinkChange::SetAddress { device: device.into(), cidr: cidr(text), lifetime_s }
}

fn remove(device: &str, text: &str) -> LinkChange {
    LinkChange::RemoveAddress { device: device.into(), cidr: cidr(text) }
}

/// No announcement takes that long.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

fn on(device: &str, text: &str) -> Placed {
    Placed { device: device.into(), cidr: cidr(text) }
}

/// More than go to the kernel at once, of both kinds.
fn many() -> Vec<Placed> {
    let pair = |n| [on("eth0", &format!("10.{n}.0.1/24")), on("eth0", &format!("fd00:{n}::1/64"))];
    (100..150).flat_map(pair).collect()
}

async fn seen(links: &dyn Links) -> HostNetwork {
    links.observe(&[]).await.unwrap()
}

async fn address(links: &dyn Links, device: &str, text: &str) -> Option<Assigned> {
    seen(links).await.link(device).unwrap().addresses.iter().find(|a| a.cidr == cidr(text)).copied()
}

contract! {
    async fn an_address_comes_and_goes_and_twice_is_as_good_as_once(links: &dyn Links) {
        for text in ["10.255.0.1/24", "fd00::1/64"] {
            for _ in 0..2 {
                links.apply(&set("eth0", text, None)).await.unwrap();
                assert_eq!(address(links, "eth0", text).await.unwrap().lifetime_s, None);
            }
            for _ in 0..2 {
                links.apply(&remove("eth0", text)).await.unwrap();
                assert_eq!(address(links, "eth0", text).await, None);
            }
        }
    }

    async fn an_address_goes_when_its_lifetime_ends_unless_it_is_renewed(links: &dyn Links) {
        for text in ["10.255.0.254/24", "fd00::fe/64"] {
            let began = Instant::now();
            links.apply(&set("eth0", text, Some(1))).await.unwrap();
            assert_eq!(address(links, "eth0", text).await.unwrap().lifetime_s, Some(1));
            sleep(Duration::from_millis(500)).await;
            links.apply(&set("eth0", text, Some(1))).await.unwrap();
            let renewed = Instant::now();
            while address(links, "eth0", text).await.is_some() {
                sleep(Duration::from_millis(5)).await;
                assert!(renewed.elapsed() < Duration::from_secs(3), "{text} is still there");
            }
            assert!(began.elapsed() > Duration::from_millis(1400), "{text}: the renewal did not count");
            // `plan::primary::lifetime_s` relies on this.
            assert!(renewed.elapsed() < Duration::from_millis(1800), "{text} went {:?} after it should", renewed.elapsed());
        }
    }

    async fn a_lifetime_that_ends_soon_after_another_ends_late_but_within_the_plans_margin(links: &dyn Links) {
        for (one, other) in [("10.1.0.1/24", "10.2.0.1/24"), ("fd01::1/64", "fd02::1/64")] {
            links.apply(&set("eth0", one, Some(2))).await.unwrap();
            // Shortly after it has ended the first, the kernel does not look again.
            sleep(Duration::from_millis(300)).await;
            links.apply(&set("eth0", other, Some(2))).await.unwrap();
            let end = Instant::now() + Duration::from_secs(2);
            while address(links, "eth0", other).await.is_some() {
                sleep(Duration::from_millis(5)).await;
            }
            // The kernel counts 20 ms in the holder's disfavour.
            let late = Instant::now() + Duration::from_millis(50) - end;
            assert!(late < KERNEL_LATE, "{other} went {late:?} late");
        }
    }

    async fn a_lifetime_is_ended_and_given_to_an_address_that_is_there(links: &dyn Links) {
        links.apply(&set("eth0", "10.255.0.1/24", Some(100))).await.unwrap();
        links.apply(&set("eth0", "10.255.0.1/24", None)).await.unwrap();
        assert_eq!(address(links, "eth0", "10.255.0.1/24").await.unwrap().lifetime_s, None);
        links.apply(&set("eth0", "10.255.0.1/24", Some(100))).await.unwrap();
        assert!(address(links, "eth0", "10.255.0.1/24").await.unwrap().lifetime_s.is_some_and(|s| s > 90));
    }

    async fn a_bridge_takes_a_device_and_both_may_be_done_twice(links: &dyn Links) {
        let mac = seen(links).await.link("eth0").unwrap().mac;
        for _ in 0..2 {
            links.apply(&LinkChange::AddBridge { name: "brcluster".into(), mac }).await.unwrap();
            links.apply(&LinkChange::SetUp { device: "brcluster".into() }).await.unwrap();
            let enslave = LinkChange::Enslave { device: "eth0".into(), bridge: "brcluster".into() };
            links.apply(&enslave).await.unwrap();
        }
        let network = seen(links).await;
        let bridge = network.link("brcluster").unwrap();
        assert!(bridge.is_bridge && bridge.up);
        assert_eq!(bridge.mac, mac);
        assert_eq!(network.link("eth0").unwrap().master.as_deref(), Some("brcluster"));
        assert!(!network.link("eth0").unwrap().is_bridge);
    }

    async fn an_mtu_is_set(links: &dyn Links) {
        links.apply(&LinkChange::SetMtu { device: "eth1".into(), mtu: 1400 }).await.unwrap();
        assert_eq!(seen(links).await.link("eth1").unwrap().mtu, 1400);
    }

    async fn our_default_route_is_told_from_others_and_only_it_is_removed(links: &dyn Links) {
        links.apply(&set("eth0", "10.255.0.1/24", None)).await.unwrap();
        let (via, device) = ("10.255.0.254".parse().unwrap(), "eth0".to_owned());
        for _ in 0..2 {
            links.apply(&LinkChange::AddDefaultRoute { via, device: device.clone() }).await.unwrap();
        }
        let routes = seen(links).await.routes;
        assert_eq!(routes.len(), 1, "{routes:?}");
        assert_eq!((routes[0].destination, routes[0].gateway, routes[0].ours), (None, Some(via), true));
        for _ in 0..2 {
            links.apply(&LinkChange::RemoveDefaultRoute { via, device: device.clone() }).await.unwrap();
        }
        assert_eq!(seen(links).await.routes, []);
    }

    async fn a_devices_routes_move_to_another(links: &dyn Links) {
        for device in ["eth0", "eth1"] {
            links.apply(&set(device, "10.255.0.1/24", None)).await.unwrap();
        }
        let via = "10.255.0.254".parse().unwrap();
        links.apply(&LinkChange::AddDefaultRoute { via, device: "eth0".into() }).await.unwrap();
        for _ in 0..2 {
            links.apply(&LinkChange::MoveRoutes { from: "eth0".into(), to: "eth1".into() }).await.unwrap();
        }
        links.apply(&remove("eth0", "10.255.0.1/24")).await.unwrap();
        let routes = seen(links).await.routes;
        assert_eq!(routes.len(), 1, "{routes:?}");
        assert_eq!((routes[0].device.as_str(), routes[0].gateway), ("eth1", Some(via)));
    }

    async fn a_missing_device_is_named(links: &dyn Links) {
        for change in [
            set("eth7", "10.0.0.1/8", None),
            LinkChange::SetMtu { device: "eth7".into(), mtu: 1400 },
            LinkChange::Enslave { device: "eth0".into(), bridge: "eth7".into() },
        ] {
            let error = links.apply(&change).await.unwrap_err();
            assert!(matches!(&error, LinksError::NoDevice { device, .. } if device == "eth7"), "{error}");
        }
        links.apply(&remove("eth7", "10.0.0.1/8")).await.unwrap();
        let error = links.announce(&[on("eth7", "10.0.0.1/8")], soon()).await.unwrap_err();
        assert!(matches!(error, LinksError::NoDevice { .. }), "{error}");
    }

    async fn many_who_look_at_once_all_see(links: &dyn Links) {
        for _ in 0..20 {
            for seen in join_all((0..16).map(|_| links.observe(&[]))).await {
                seen.unwrap();
            }
        }
    }

    async fn changes_are_signalled(links: &dyn Links) {
        let mut changes = links.changes();
        // What happened before the listener's socket was open is not reported: until it is, try again.
        let signalled = async {
            let mut lifetime_s = 100;
            loop {
                changes.mark_unchanged();
                links.apply(&set("eth0", "10.255.0.1/24", Some(lifetime_s))).await.unwrap();
                lifetime_s += 1;
                if timeout(Duration::from_millis(200), changes.changed()).await.is_ok() {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(10), signalled).await.unwrap();
    }

    async fn an_announcement_is_sent(links: &dyn Links) {
        links.apply(&set("eth0", "10.255.0.254/24", None)).await.unwrap();
        links.announce(&[on("eth0", "10.255.0.254/24"), on("eth0", "fd00::fe/64")], soon()).await.unwrap();
        links.announce(&[], soon()).await.unwrap();
        let late = links.announce(&[on("eth0", "10.255.0.254/24")], Instant::now() - Duration::from_millis(1)).await;
        assert!(late.is_err_and(|error| matches!(error, LinksError::TooLate { .. })), "somebody else may have it");
    }

    async fn an_ipv6_address_is_there_once_with_the_prefix_that_it_came_with(links: &dyn Links) {
        for text in ["fd00::fe/64", "fd00::fe/80"] {
            links.apply(&set("eth0", text, Some(100))).await.unwrap();
            assert!(address(links, "eth0", "fd00::fe/64").await.is_some());
            assert_eq!(address(links, "eth0", "fd00::fe/80").await, None);
        }
        links.apply(&remove("eth0", "fd00::fe/64")).await.unwrap();
        links.apply(&set("eth0", "fd00::fe/80", Some(100))).await.unwrap();
        assert!(address(links, "eth0", "fd00::fe/80").await.is_some());
    }

    async fn many_addresses_come_together_and_those_that_cannot_hinder_no_other(links: &dyn Links) {
        let mut addresses = many();
        links.apply(&LinkChange::SetMtu { device: "eth1".into(), mtu: 1279 }).await.unwrap();
        // One is there for ever, another for a while; one is refused, one has no device, and both are in the midst of others.
        links.apply(&addresses[1].set(None)).await.unwrap();
        links.apply(&addresses[2].set(Some(5))).await.unwrap();
        addresses[20] = on("eth1", "fd00:7::1/64");
        addresses[21] = on("eth7", "10.7.0.1/24");
        for round in ["added", "renewed"] {
            let outcomes = links.hold(&addresses, &|| Some(100)).await;
            assert_eq!(outcomes.len(), addresses.len());
            let network = seen(links).await;
            for (n, (address, outcome)) in addresses.iter().zip(outcomes).enumerate() {
                let has = network.link(&address.device).and_then(|link| {
                    link.addresses.iter().find(|a| a.cidr == address.cidr)
                });
                match (n, outcome) {
                    (20, Err(LinksError::Kernel { doing, .. })) => {
                        assert_eq!((doing.as_str(), has), ("give eth1 the address fd00:7::1/64", None));
                    }
                    (21, Err(LinksError::NoDevice { device, .. })) => assert_eq!(device, "eth7"),
                    (20 | 21, outcome) => panic!("{round}: {outcome:?}"),
                    (_, outcome) => {
                        outcome.unwrap_or_else(|error| panic!("{round}: {error}"));
                        assert!(has.and_then(|a| a.lifetime_s).is_some_and(|s| s > 30), "{round}: {address:?}: {has:?}");
                    }
                }
            }
        }
        assert!(links.announce(&addresses, soon()).await.is_err_and(|error| matches!(error, LinksError::NoDevice { .. })));
        for _ in 0..2 {
            for (address, outcome) in addresses.iter().zip(links.remove(&addresses).await) {
                outcome.unwrap_or_else(|error| panic!("{address:?}: {error}"));
            }
            let network = seen(links).await;
            let left: Vec<_> = addresses.iter().filter(|a| network.link(&a.device).is_some_and(|link| link.has(a.cidr))).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }

    async fn how_long_addresses_may_live_is_asked_while_they_are_added_and_without_an_answer_none_is(links: &dyn Links) {
        let addresses = many();
        let asked = AtomicU32::new(0);
        let lifetime_s = || match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Some(200),
            1 => Some(100),
            _ => None,
        };
        let outcomes = links.hold(&addresses, &lifetime_s).await;
        let network = seen(links).await;
        let mut lifetimes = Vec::new();
        for (address, outcome) in addresses.iter().zip(outcomes) {
            let has = network.link("eth0").unwrap().addresses.iter().find(|a| a.cidr == address.cidr);
            match outcome {
                Ok(()) => lifetimes.push(has.unwrap().lifetime_s.unwrap()),
                Err(LinksError::TooLate { .. }) => assert_eq!(has, None),
                Err(error) => panic!("{error}"),
            }
        }
        assert!(lifetimes.is_sorted_by(|one, next| one >= next), "{lifetimes:?}");
        let (first, then) = (lifetimes.first().unwrap(), lifetimes.last().unwrap());
        assert!((101..=200).contains(first) && *then <= 100, "{lifetimes:?}");
        assert!(lifetimes.len() < addresses.len());
    }
}

#[test]
fn kernel_settings_are_read_and_set_in_this_namespace() {
    alone(async || {
        let links = netlink();
        let path = "net/ipv4/conf/eth0/promote_secondaries".to_owned();
        let asked = [path.clone(), "net/ipv4/conf/eth9/rp_filter".into()];
        let change = LinkChange::SetSysctl { path: path.clone(), value: "1".into() };
        links.apply(&change).await.unwrap();
        let seen = links.observe(&asked).await.unwrap().sysctls;
        assert_eq!(seen, [(path, "1".to_owned())].into(), "those that there are");
    });
}
