//! What the devices and the addresses of a hundred networks cost with a real kernel. Run by hand, alone on the machine: it measures.

use std::time::{Duration, Instant};

use pvc_core::model::{
    Mac, Vni,
    bridging::{BridgingChange, DeviceKind, Forward},
    link::{LinkChange, Placed},
};
use pvc_host::links::{Bridges, Links, LinksError, Netlink};

use crate::{contract, namespace::alone};

/// In the order of `plan::client_network`.
fn changes() -> Vec<BridgingChange> {
    let local: std::net::IpAddr = "10.255.1.1".parse().unwrap();
    let (mut bridges, mut ports, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for number in 100..200 {
        let vni: Vni = format!("{number}").parse().unwrap();
        let (bridge, tunnel) = (vni.bridge(), format!("vxlan{number}"));
        let add = |name: &str, kind, master: Option<&str>| BridgingChange::Add {
            name: name.into(),
            kind,
            mtu: 1450,
            master: master.map(Into::into),
        };
        bridges.push(add(&bridge, DeviceKind::Bridge, None));
        bridges.push(BridgingChange::Address { name: bridge.clone(), mac: Mac::of_gateway(local) });
        ports.push(add(&tunnel, DeviceKind::Vxlan { vni, local }, Some(&bridge)));
        for node in 2..5 {
            let to = format!("10.255.1.{node}").parse().unwrap();
            entries.push(BridgingChange::Forward(Forward {
                device: tunnel.clone(),
                mac: None,
                to,
                by: None,
            }));
        }
    }
    [bridges, ports, entries].concat()
}

#[test]
#[ignore = "it measures: cargo nextest run -p pvc-host --test links --run-ignored only hundred --no-capture"]
fn the_changes_of_a_hundred_networks() {
    alone(async || {
        let netlink = Netlink::start().unwrap();
        let bridges: &dyn Bridges = &*netlink;
        for what in ["made", "made again, as they are so already"] {
            let (changes, began) = (changes(), Instant::now());
            for (change, outcome) in changes.iter().zip(bridges.apply(&changes).await) {
                outcome.unwrap_or_else(|error| panic!("{change}: {error}"));
            }
            println!("{} changes {what}: {:.1?}", changes.len(), began.elapsed());
        }
        let began = Instant::now();
        let seen = bridges.observe().await.unwrap();
        println!(
            "{} devices and {} entries looked at: {:.1?}",
            seen.devices.len(),
            seen.forwards.len(),
            began.elapsed()
        );
    });
}

/// The gateways of a hundred networks, as the primary has them.
fn gateways() -> Vec<Placed> {
    let of = |n| {
        let all = [format!("10.{n}.0.1/24"), format!("fd00:{n}::1/64"), "fe80::1/64".to_owned()];
        all.map(|cidr| Placed { device: format!("vmbr{n}"), cidr: cidr.parse().unwrap() })
    };
    (100..200).flat_map(of).collect()
}

const ROUNDS: usize = 11;

#[test]
#[ignore = "it measures: cargo nextest run -p pvc-host --test links --run-ignored only addresses_of --no-capture"]
fn the_addresses_of_a_hundred_networks() {
    alone(async || {
        let netlink = Netlink::start().unwrap();
        let bridges: &dyn Bridges = &*netlink;
        let devices: Vec<BridgingChange> =
            changes().into_iter().filter(|change| matches!(change, BridgingChange::Add { .. })).collect();
        for (change, outcome) in devices.iter().zip(bridges.apply(&devices).await) {
            outcome.unwrap_or_else(|error| panic!("{change}: {error}"));
        }
        let (links, gateways): (&dyn Links, _) = (&*netlink, gateways());
        let each = async |what: &str, change: &dyn Fn(&Placed) -> LinkChange, times: &mut Times| {
            let began = Instant::now();
            for gateway in &gateways {
                links.apply(&change(gateway)).await.unwrap();
            }
            times.note(what, began);
        };
        let together = |what: &str, began, outcomes: Vec<Result<(), LinksError>>, times: &mut Times| {
            times.note(what, began);
            outcomes.into_iter().for_each(Result::unwrap);
        };
        let mut times = Times::default();
        for _ in 0..ROUNDS {
            for what in ["added one by one", "renewed one by one"] {
                each(what, &|gateway| gateway.set(Some(100)), &mut times).await;
            }
            each("removed one by one", &Placed::remove, &mut times).await;
            for what in ["added together", "renewed together"] {
                let began = Instant::now();
                together(what, began, links.hold(&gateways, &|| Some(100)).await, &mut times);
            }
            let began = Instant::now();
            links.announce(&gateways, contract::soon()).await.unwrap();
            times.note("announced", began);
            let began = Instant::now();
            links.observe(&[]).await.unwrap();
            times.note("looked at", began);
            let began = Instant::now();
            together("removed together", began, links.remove(&gateways).await, &mut times);
        }
        println!("{} addresses, median of {ROUNDS} (lowest … highest)", gateways.len());
        times.0.into_iter().for_each(|(what, mut all)| {
            all.sort();
            println!("{what}: {:.1?} ({:.1?} … {:.1?})", all[ROUNDS / 2], all[0], all[ROUNDS - 1]);
        });
    });
}

/// How long what took, each time.
#[derive(Default)]
struct Times(Vec<(String, Vec<Duration>)>);

impl Times {
    fn note(&mut self, what: &str, began: Instant) {
        let took = began.elapsed();
        match self.0.iter_mut().find(|(known, _)| known == what) {
            Some((_, all)) => all.push(took),
            None => self.0.push((what.to_owned(), vec![took])),
        }
    }
}
