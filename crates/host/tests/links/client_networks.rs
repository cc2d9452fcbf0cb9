//! What every machine does about the changes of client networks. Each case runs on the fake and in a network namespace of its own.

use pvc_core::model::{
    Vni,
    bridging::{Bridging, BridgingChange, DeviceKind, Forward},
};
use pvc_host::links::{Bridges, LinksError, Netlink, fake::FakeBridges};

use crate::namespace::alone;

macro_rules! contract {
    ($(async fn $name:ident($bridges:ident: &dyn Bridges) $body:block)+) => {
        $(async fn $name($bridges: &dyn Bridges) $body)+

        mod fake {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&*super::FakeBridges::new()).await;
            })+
        }

        mod real {
            $(#[test]
            fn $name() {
                super::alone(async || super::$name(&*super::Netlink::start().unwrap()).await);
            })+
        }
    };
}

fn bridge(number: u32) -> BridgingChange {
    BridgingChange::Add { name: format!("vmbr{number}"), kind: DeviceKind::Bridge, mtu: 1450, master: None }
}

fn tunnel(number: u32) -> BridgingChange {
    let vni: Vni = number.to_string().parse().unwrap();
    BridgingChange::Add {
        name: format!("vxlan{number}"),
        kind: DeviceKind::Vxlan { vni, local: "10.255.1.1".parse().unwrap() },
        mtu: 1450,
        master: Some(vni.bridge()),
    }
}

fn entry(number: u32, to: u8) -> Forward {
    let to = format!("10.255.1.{to}").parse().unwrap();
    Forward { device: format!("vxlan{number}"), mac: None, to, by: None }
}

fn remove(name: &str) -> BridgingChange {
    BridgingChange::Remove { name: name.into() }
}

async fn make(bridges: &dyn Bridges, changes: &[BridgingChange]) {
    for (change, outcome) in changes.iter().zip(bridges.apply(changes).await) {
        outcome.unwrap_or_else(|error| panic!("{change}: {error}"));
    }
}

async fn seen(bridges: &dyn Bridges) -> Bridging {
    let mut seen = bridges.observe().await.unwrap();
    seen.devices.retain(|device| device.ours);
    seen
}

/// The device that was missing.
fn missing(outcome: &Result<(), LinksError>) -> &str {
    match outcome {
        Err(LinksError::NoDevice { device, .. }) => device,
        other => panic!("{other:?}"),
    }
}

contract! {
    async fn a_hundred_networks_are_made_at_once_and_once_more_changes_nothing(bridges: &dyn Bridges) {
        let numbers = 100..200;
        let mut changes: Vec<BridgingChange> = numbers.clone().map(bridge).collect();
        changes.extend(numbers.clone().map(tunnel));
        changes.extend(numbers.flat_map(|number| [2, 3, 4].map(|to| BridgingChange::Forward(entry(number, to)))));
        make(bridges, &changes).await;
        let first = seen(bridges).await;
        assert_eq!((first.devices.len(), first.forwards.len()), (200, 300));
        for device in &first.devices {
            assert!(device.up && device.mtu == 1450, "{device:?}");
            let port_of = device.name.strip_prefix("vxlan").map(|number| format!("vmbr{number}"));
            assert_eq!(device.master, port_of, "{device:?}");
        }
        make(bridges, &changes).await;
        assert_eq!(seen(bridges).await, first);
        let gone: Vec<_> = (100..110).flat_map(|n| [remove(&format!("vxlan{n}")), remove(&format!("vmbr{n}"))]).collect();
        make(bridges, &gone).await;
        let now = seen(bridges).await;
        assert_eq!((now.devices.len(), now.forwards.len()), (180, 270));
    }

    async fn each_change_has_an_outcome_of_its_own(bridges: &dyn Bridges) {
        // Enough for several trains, and every third fails in one of three ways.
        let changes: Vec<BridgingChange> = (100..160).map(|number| match number % 9 {
            2 => BridgingChange::Set { name: format!("none{number}"), mtu: 1400, master: None },
            5 => BridgingChange::Forward(entry(number, 2)),
            8 => tunnel(number),
            _ => bridge(number),
        }).collect();
        let outcomes = bridges.apply(&changes).await;
        assert_eq!(outcomes.len(), changes.len());
        for ((number, change), outcome) in (100..160).zip(&changes).zip(&outcomes) {
            match number % 9 {
                2 => assert_eq!(missing(outcome), format!("none{number}")),
                5 => assert_eq!(missing(outcome), format!("vxlan{number}")),
                8 => assert_eq!(missing(outcome), format!("vmbr{number}")),
                _ => assert!(outcome.is_ok(), "{change}: {outcome:?}"),
            }
        }
        // A port whose bridge is missing is not made without one.
        let made: Vec<String> = seen(bridges).await.devices.into_iter().map(|device| device.name).collect();
        let wanted: Vec<String> = (100..160).filter(|n| n % 3 != 2).map(|n| format!("vmbr{n}")).collect();
        assert_eq!(made, wanted);
    }

    async fn what_is_removed_and_made_again_in_the_same_breath_begins_anew(bridges: &dyn Bridges) {
        make(bridges, &[bridge(100), tunnel(100), BridgingChange::Forward(entry(100, 2))]).await;
        let before = seen(bridges).await;
        let again = [remove("vxlan100"), tunnel(100), BridgingChange::Forward(entry(100, 3))];
        make(bridges, &again).await;
        let now = seen(bridges).await;
        assert_eq!(now.forwards, [entry(100, 3)].into());
        let number = |seen: &Bridging| seen.device("vxlan100").map(|device| device.index);
        assert!(number(&now) > number(&before), "no later device has its number");
        let bridge = |seen: &Bridging| seen.device("vmbr100").map(|device| device.index);
        assert_eq!(bridge(&now), bridge(&before));
    }

    async fn a_device_that_is_missing_is_named(bridges: &dyn Bridges) {
        let mac = pvc_core::model::Mac([2, 0, 0, 0, 0, 1]);
        for change in [
            BridgingChange::Set { name: "vmbr7".into(), mtu: 1400, master: None },
            BridgingChange::Address { name: "vmbr7".into(), mac },
            BridgingChange::Learn { name: "vmbr7".into(), learns: true },
            BridgingChange::Forward(Forward { device: "vmbr7".into(), ..entry(7, 2) }),
        ] {
            let outcomes = bridges.apply(std::slice::from_ref(&change)).await;
            assert_eq!(missing(&outcomes[0]), "vmbr7", "{change}");
        }
        make(bridges, &[bridge(100)]).await;
        let set = BridgingChange::Set { name: "vmbr100".into(), mtu: 1400, master: Some("vmbr7".into()) };
        assert_eq!(missing(&bridges.apply(&[set]).await[0]), "vmbr7");
        assert_eq!(seen(bridges).await.device("vmbr100").map(|device| device.mtu), Some(1450));
        make(bridges, &[remove("vmbr7")]).await;
    }
}
