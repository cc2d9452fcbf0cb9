//! An overlay and nodes in a tree, and a routing daemon in memory.

use pvc_core::{
    model::Overlay,
    plan::routing::{ASN, File},
};
use pvc_host::routing::fake::{FakeRouting, State};
use pvc_store::schema;

use super::*;
use crate::reconcile::network_world::{NetworkWorld, name, until};

struct World {
    base: NetworkWorld,
    daemon: Arc<FakeRouting>,
    routing: Option<RoutingNeighbours>,
}

/// hv1, beside hv2 and hv3, which are no coordinators.
async fn world() -> World {
    let mut world = World { base: NetworkWorld::new().await, daemon: FakeRouting::new(), routing: None };
    world.base.set("/nodes/hv1/daemonmode", "coordinator").await;
    world.restart();
    world
}

impl World {
    /// This program starts anew.
    fn restart(&mut self) {
        let address = Some("10.255.1.1".parse().unwrap());
        let ground = Ground { me: name("hv1"), address };
        let teller = self.base.troubles.teller("routing");
        self.routing = None;
        self.routing =
            Some(RoutingNeighbours::start(self.base.cluster.clone(), self.daemon.clone(), ground, teller));
    }

    async fn choose(&self, overlay: Overlay) {
        schema::overlay::set(&*self.base.store, overlay).await.unwrap();
    }

    async fn until(&self, what: &str, is_so: impl Fn(&State) -> bool) -> Duration {
        until(what, || self.daemon.state(), is_so).await
    }

    async fn until_speaks_with(&self, count: usize) -> Duration {
        let speaks =
            |state: &State| state.routing.speaker.as_ref().map_or(0, |s| s.neighbours.len()) == count;
        self.until(&format!("{count} neighbours"), speaks).await
    }

    fn all_answer(&self) {
        self.daemon.by_hand(|state| {
            state.answering = (2..9).map(|end| format!("10.255.1.{end}").parse().unwrap()).collect();
        });
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_told_while_the_overlay_is_evpn_and_falls_silent_after() {
    let mut world = world().await;
    world.all_answer();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(world.daemon.state().file, Some(File::Blank), "nobody has asked for it");
    world.choose(Overlay::Evpn).await;
    world.until_speaks_with(2).await;
    world.base.until_told(&[]).await;
    // A node more, and one that becomes a coordinator.
    crate::reconcile::network_world::register(&*world.base.store, 4, true).await;
    world.until_speaks_with(3).await;
    let loads = world.daemon.state().loads;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(world.daemon.state().loads, loads, "nothing differs");
    // What it knows is not known to a program that starts.
    world.restart();
    world.until("it is told once more", |state| state.loads == loads + 1).await;
    world.choose(Overlay::Declared).await;
    world.until_speaks_with(0).await;
    assert!(matches!(world.daemon.state().file, Some(File::Ours(_))));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_there_is_said_and_used_as_soon_as_it_is() {
    let world = world().await;
    world.all_answer();
    world.daemon.by_hand(|state| state.file = None);
    world.choose(Overlay::Evpn).await;
    let flooded = "frames of its guests, and for them, go to every node";
    world.base.until_told(&[&format!("{flooded}: FRR is not installed")]).await;
    world.daemon.by_hand(|state| (state.file, state.runs) = (Some(File::Blank), false));
    world.base.until_told(&[&format!("{flooded}: FRR's bgpd does not run")]).await;
    // It is started, and reads its file.
    world.daemon.by_hand(|state| state.runs = true);
    world.until_speaks_with(2).await;
    world.base.until_told(&[]).await;
    world.daemon.by_hand(|state| (state.runs, state.routing) = (false, Routing::default()));
    world.base.until_told(&[&format!("{flooded}: FRR's bgpd does not run")]).await;
}

#[tokio::test(start_paused = true)]
async fn what_it_refuses_or_somebody_undoes_is_told_again() {
    let world = world().await;
    world.all_answer();
    world.daemon.by_hand(|state| state.refuses = true);
    world.choose(Overlay::Evpn).await;
    world.base.until_told(&["FRR cannot be brought up to date: could not tell FRR: a test refuses it"]).await;
    world.daemon.by_hand(|state| state.refuses = false);
    world.until_speaks_with(2).await;
    world.base.until_told(&[]).await;
    world.daemon.by_hand(|state| state.routing = Routing::default());
    let took = world.until_speaks_with(2).await;
    assert!(took <= Duration::from_secs(11), "{took:?}");
    world.daemon.by_hand(|state| state.file = Some(File::Foreign));
    world
        .base
        .until_told(&[
            "frames of its guests, and for them, go to every node: FRR's configuration is an operator's",
        ])
        .await;
    assert_eq!(world.daemon.state().file, Some(File::Foreign));
    let speaking = world.daemon.speaking().await.unwrap();
    assert!(matches!(speaking, Speaking::As { asn: ASN, .. }));
}

#[tokio::test(start_paused = true)]
async fn one_that_does_otherwise_is_told_every_ten_seconds_and_no_more() {
    let world = world().await;
    world.all_answer();
    world.daemon.by_hand(|state| state.deaf = true);
    world.choose(Overlay::Evpn).await;
    world.base.until_told(&["FRR cannot be brought up to date: it does not do as it was told"]).await;
    let before = world.daemon.state().loads;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let loads = world.daemon.state().loads - before;
    assert!((1..=11).contains(&loads), "{loads}");
    world.daemon.by_hand(|state| state.deaf = false);
    world.until_speaks_with(2).await;
    world.base.until_told(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_runs_and_cannot_be_spoken_with_is_named() {
    let world = world().await;
    world.all_answer();
    world.choose(Overlay::Evpn).await;
    world.until_speaks_with(2).await;
    world.base.set("/nodes/hv2/daemonstate", "run").await;
    world.base.set("/nodes/hv3/daemonstate", "dead").await;
    world.daemon.by_hand(|state| state.answering.clear());
    world.base.until_told(&["FRR has no session with that of hv2 (10.255.1.2)"]).await;
}
