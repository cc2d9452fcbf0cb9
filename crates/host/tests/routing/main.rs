//! One contract for every routing daemon, so that the fake cannot lie; then what only FRR can be put through.
//!
//! The real ones are zebra and bgpd of Debian, in network namespaces made for each test and under names of FRR's own (`-N`); this machine's own FRR
//! is not touched. They need root, and fail without.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod frr;
#[allow(dead_code, reason = "it is another test's, which sets up more")]
#[path = "../links/namespace.rs"]
mod namespace;
mod site;

use std::time::Duration;

use pvc_core::plan::routing::{ASN, Evpn, File, Role, Routing, Speaker, Speaking};
use pvc_host::routing::{RoutingDaemon, RoutingError, fake::FakeRouting};

/// Longer than anything takes on a machine that does much else.
const LONG: Duration = Duration::from_mins(1);

/// A node whose neighbours are these.
fn routing(router: u8, reflects: bool, neighbours: &[(u8, Role)]) -> Routing {
    let end = |last: u8| format!("10.255.1.{last}").parse().unwrap();
    let name = |last: u8| format!("hv{last}").parse().unwrap();
    let neighbours = neighbours.iter().map(|(last, role)| (end(*last), (name(*last), *role))).collect();
    let evpn = Some(Evpn { reflects, neighbours });
    Routing { speaker: Some(Speaker { router: end(router), evpn, site: None }) }
}

fn neighbours(speaking: &Speaking) -> Vec<String> {
    let Speaking::As { asn, router, neighbours, routers } = speaking else { panic!("{speaking:?}") };
    assert_eq!((*asn, router.to_string().as_str(), routers.len()), (ASN, "10.255.1.1", 0));
    neighbours.keys().cloned().collect()
}

/// What every one does. It begins with nothing, and runs.
async fn contract(daemon: &dyn RoutingDaemon) {
    assert_eq!(daemon.file().await.unwrap(), Some(File::Blank));
    assert_eq!(daemon.speaking().await.unwrap(), Speaking::Silent);
    let of = |reflects, neighbours: &[_]| routing(1, reflects, neighbours);
    let steps = [
        of(true, &[(2, Role::Coordinator), (3, Role::Hypervisor), (4, Role::Hypervisor)]),
        of(true, &[(2, Role::Coordinator), (3, Role::Hypervisor), (4, Role::Hypervisor)]),
        // One becomes a coordinator, one goes, one comes.
        of(true, &[(2, Role::Coordinator), (3, Role::Coordinator), (5, Role::Hypervisor)]),
        // This node is a coordinator no more.
        of(false, &[(2, Role::Coordinator), (3, Role::Coordinator)]),
        of(true, &[(2, Role::Hypervisor)]),
    ];
    for step in &steps {
        daemon.load(step).await.unwrap();
        let speaking = daemon.speaking().await.unwrap();
        let expected: Vec<String> =
            step.speaker.iter().flat_map(|s| s.nodes().map(|end| end.to_string())).collect();
        assert_eq!(neighbours(&speaking), expected);
        assert_eq!(daemon.file().await.unwrap(), Some(File::Ours(step.to_string())));
    }
    daemon.load(&Routing::default()).await.unwrap();
    assert_eq!(daemon.speaking().await.unwrap(), Speaking::Silent);
    daemon.load(&of(true, &[])).await.unwrap();
    assert_eq!(daemon.speaking().await.unwrap(), Speaking::Silent);
    daemon.load(&steps[0]).await.unwrap();
}

/// What every one does that does not run.
async fn gone(daemon: &dyn RoutingDaemon) {
    let said = daemon.speaking().await.unwrap();
    assert!(matches!(&said, Speaking::Gone(why) if why.contains("bgpd is not running")), "{said:?}");
    let later = routing(1, true, &[(2, Role::Coordinator)]);
    daemon.load(&later).await.unwrap();
    assert_eq!(daemon.file().await.unwrap(), Some(File::Ours(later.to_string())));
}

/// What every one does whose file an operator has written since.
async fn foreign(daemon: &dyn RoutingDaemon) {
    assert_eq!(daemon.file().await.unwrap(), Some(File::Foreign));
    let refused = daemon.load(&routing(1, true, &[(3, Role::Coordinator)])).await;
    assert!(matches!(refused, Err(RoutingError::Foreign)), "{refused:?}");
    assert_eq!(daemon.file().await.unwrap(), Some(File::Foreign));
}

#[tokio::test]
async fn the_fake_does_as_a_routing_daemon() {
    let fake = FakeRouting::new();
    contract(&*fake).await;
    fake.by_hand(|state| state.runs = false);
    gone(&*fake).await;
    fake.by_hand(|state| state.file = Some(File::Foreign));
    foreign(&*fake).await;
}
