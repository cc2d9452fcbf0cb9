//! Networks and leases in a tree, zones in a fake database.

use pvc_core::model::dns::{Data, Record};
use pvc_host::zones::fake::FakeZones;
use tokio::time::sleep;

use super::*;
use crate::reconcile::network_world::{NetworkWorld, network, until};

const MAC: &str = "52:54:00:00:00:0a";

struct World {
    base: NetworkWorld,
    database: Arc<FakeZones>,
    _names: Names,
}

async fn world() -> World {
    let base = NetworkWorld::new().await;
    let database = FakeZones::new();
    let teller = base.troubles.teller("names");
    let names = Names::start(base.cluster.clone(), database.clone(), None, teller);
    base.define(&network(100)).await;
    World { base, database, _names: names }
}

impl World {
    async fn lease(&self, name: &str, address: &str) {
        let own = format!("/networks/100/dhcp4_leases/{MAC}");
        let keys = [("", ""), ("/ipaddr", address), ("/hostname", name), ("/expiry", "0")];
        let keys = keys.map(|(key, value)| (format!("{own}{key}"), value));
        self.base.create(&keys.each_ref().map(|(key, value)| (key.as_str(), *value))).await;
    }

    fn has(&self, name: &str, address: &str) -> bool {
        let data: Data = address.parse::<IpAddr>().unwrap().into();
        let record = Record { name: format!("{name}.web.local"), data };
        self.database.zones().get("web.local").is_some_and(|zone| zone.ours.contains(&record))
    }

    async fn names(&self, name: &str, address: &str) {
        until(name, || self.database.zones(), |_| self.has(name, address)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_primary_serves_names_from_the_moment_of_their_leases() {
    let world = world().await;
    world.base.primary("hv2").await;
    world.lease("db", "10.100.0.7").await;
    sleep(Duration::from_mins(3)).await;
    assert!(world.database.zones().is_empty(), "another node is primary");
    world.base.primary("hv1").await;
    world.names("gateway", "10.100.0.1").await;
    world.names("db", "10.100.0.7").await;
    let path = format!("/networks/100/dhcp4_leases/{MAC}/ipaddr");
    world.base.set(&path, "10.100.0.8").await;
    world.names("db", "10.100.0.8").await;
    assert!(!world.has("db", "10.100.0.7"));
}

#[tokio::test(start_paused = true)]
async fn what_happened_while_the_database_was_away_is_caught_up_with() {
    let world = world().await;
    world.database.away(true);
    world.base.primary("hv1").await;
    world.lease("db", "10.100.0.7").await;
    sleep(Duration::from_mins(3)).await;
    assert!(world.database.zones().is_empty());
    world.base.until_told(&["guests' names stay as they were: "]).await;
    world.database.away(false);
    world.names("db", "10.100.0.7").await;
    world.base.until_told(&[]).await;
}
