//! What the changes of a hundred networks cost with a real kernel. Run by hand, alone on the machine: it measures.

use std::time::Instant;

use pvc_core::model::{
    Mac, Vni,
    bridging::{BridgingChange, DeviceKind, Forward},
};
use pvc_host::links::{Bridges, Netlink};

use crate::namespace::alone;

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
