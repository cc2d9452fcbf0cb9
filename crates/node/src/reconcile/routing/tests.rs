//! An overlay and nodes in a tree, and a routing daemon in memory.

use pvc_core::{
    model::Overlay,
    plan::routing::{ASN, File, Site},
};
use pvc_host::routing::fake::{FakeRouting, State};
use pvc_store::schema;

use super::*;
use crate::reconcile::network_world::{NetworkWorld, name, network, until};

struct World {
    base: NetworkWorld,
    daemon: Arc<FakeRouting>,
    routing: Option<RoutingNeighbours>,
    /// The site's routers that it is started with.
    site: Option<Site>,
}

/// hv1, beside hv2 and hv3, which are no coordinators.
async fn world() -> World {
    let mut world =
        World { base: NetworkWorld::new().await, daemon: FakeRouting::new(), routing: None, site: None };
    world.base.set("/nodes/hv1/daemonmode", "coordinator").await;
    world.restart();
    world
}

impl World {
    /// This program starts anew.
    fn restart(&mut self) {
        let address = Some("10.255.1.1".parse().unwrap());
        let (site, own_networks) = (self.site.clone(), vec![]);
        let ground = Ground { me: name("hv1"), address, site, own_networks };
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
        let speaks = |state: &State| state.routing.speaker.as_ref().map_or(0, |s| s.nodes().count()) == count;
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

#[tokio::test(start_paused = true)]
async fn the_sites_routers_may_be_told_of_a_network_as_soon_as_there_is_one_whatever_the_overlay() {
    let mut world = world().await;
    let routers: [std::net::IpAddr; 1] = ["192.0.2.1".parse().unwrap()];
    world.site = Some(Site { asn: ASN, routers_asn: 65_001, routers: routers.into(), bfd: true });
    world.restart();
    let unheard = "FRR has no session with the site's router 192.0.2.1";
    world.base.until_told(&[unheard]).await;
    world.daemon.by_hand(|state| state.answering = routers.into());
    world.base.until_told(&[]).await;
    let may_be_told = |count: usize| {
        move |state: &State| {
            let site = state.routing.speaker.as_ref().and_then(|speaker| speaker.site.as_ref());
            site.is_some_and(|site| site.prefixes.len() == count)
        }
    };
    world.until("no network", may_be_told(0)).await;
    let mut web = network(100);
    world.base.define(&web).await;
    let took = world.until("a network", may_be_told(1)).await;
    assert!(took < Duration::from_secs(1), "nobody waits for the next question: {took:?}");
    web.ip4.gateway = None;
    world.base.modify(&web).await;
    world.until("no network again", may_be_told(0)).await;
    // BFD ends, then bgpd; both come back by themselves.
    world.daemon.by_hand(|state| state.watches = false);
    world
        .base
        .until_told(&["a router or node that dies is noticed after 9 s: FRR's bfdd does not run"])
        .await;
    // It does, and says what nobody understands: a network is announced as before.
    world.daemon.by_hand(|state| (state.watches, state.watches_oddly) = (true, true));
    let odd = "noticed after 9 s: FRR's bfdd does not run: could not ask FRR for its sessions of BFD: a test";
    world.base.until_told(&[&format!("a router or node that dies is {odd}")]).await;
    world.base.define(&network(101)).await;
    world.until("a network", may_be_told(1)).await;
    world.base.remove(101).await;
    world.until("no network", may_be_told(0)).await;
    world.daemon.by_hand(|state| (state.watches_oddly, state.runs) = (false, false));
    world
        .base
        .until_told(&["the site's routers hear of no client network from it: FRR's bgpd does not run"])
        .await;
    world.daemon.by_hand(|state| (state.runs, state.routing) = (true, Routing::default()));
    world.until("it is told again", may_be_told(0)).await;
    world.base.until_told(&[]).await;
}
