//! The machine's networks over the fake; real ones are in `tests/network`.

use ipnet::IpNet;
use pvc_core::model::link::{Assigned, LinkChange};
use pvc_host::links::fake::FakeLinks;
use tokio::time::sleep;

use super::*;

fn address(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn desired() -> Desired {
    let wanted = |own: Option<&str>| Wanted { device: "ens4".into(), mtu: 1500, address: own.map(address) };
    Desired {
        upstream: wanted(None),
        cluster: wanted(Some("10.255.0.1/24")),
        storage: wanted(Some("10.254.0.1/24")),
        gateway: None,
        routes: true,
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 100 s");
}

#[tokio::test(start_paused = true)]
async fn a_second_daemon_finds_nothing_to_do() {
    let links = FakeLinks::new(&["lo", "ens4"]);
    assert!(bring_up(&*links, &desired()).await.unwrap() > 0);
    assert_eq!(bring_up(&*links, &desired()).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_removes_comes_back_and_what_is_the_operators_stays() {
    let links = FakeLinks::new(&["lo", "ens4"]);
    bring_up(&*links, &desired()).await.unwrap();
    let _networks = Networks::start(&"a".parse().unwrap(), links.clone(), desired());
    let by_hand = Assigned { cidr: address("192.0.2.1/24"), lifetime_s: None };
    links.by_hand(|network| {
        let bridge = network.links.iter_mut().find(|l| l.name == "brcluster").unwrap();
        bridge.addresses = vec![by_hand];
        bridge.up = false;
        network.links.iter_mut().find(|l| l.name == "ens4").unwrap().master = None;
    });
    let bridge = || links.network().link("brcluster").unwrap().clone();
    until("the addresses are back", || bridge().up && bridge().has(address("10.255.0.1/24"))).await;
    until("the port is back", || links.network().link("ens4").unwrap().master.is_some()).await;
    assert!(bridge().has(by_hand.cidr));
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_network_hangs_is_tried_again() {
    let links = FakeLinks::new(&["lo", "ens4"]);
    links.hang(true);
    assert!(matches!(bring_up(&*links, &desired()).await, Err(NetworkError::Failed(_))));
    let _networks = Networks::start(&"a".parse().unwrap(), links.clone(), desired());
    sleep(Duration::from_mins(1)).await;
    links.hang(false);
    until("the bridge is there", || links.network().link("brcluster").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_device_is_an_error_that_names_it() {
    let error = bring_up(&*FakeLinks::new(&["lo", "eth0"]), &desired()).await.unwrap_err();
    assert!(error.to_string().contains("device ens4 does not exist"), "{error}");
    assert!(error.to_string().ends_with("devices there are: eth0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_where_an_earlier_run_stopped() {
    let links = FakeLinks::new(&["lo", "ens4"]);
    links.apply(&LinkChange::AddBridge { name: "brcluster".into(), mac: [2, 0, 0, 0, 0, 1] }).await.unwrap();
    links.refuse("enslave", true);
    bring_up(&*links, &desired()).await.unwrap_err();
    links.refuse("enslave", false);
    bring_up(&*links, &desired()).await.unwrap();
    assert!(links.network().link("ens4").unwrap().master.is_some());
}
