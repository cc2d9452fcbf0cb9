//! Networks and leases in a tree, zones in a fake database.

use pvc_core::model::{
    NetworkKind, NodeName, Vni,
    dns::{Data, Record},
};
use pvc_host::{machine::FakeMachine, zones::fake::FakeZones};
use pvc_store::{
    CreateMode, Op, Store, Transaction,
    memory::{MemoryStore, MemoryTree},
    mirror::{Mirror, Needs},
    schema,
};
use tokio::time::sleep;

use super::*;

const MAC: &str = "52:54:00:00:00:0a";

struct World {
    store: Arc<MemoryStore>,
    database: Arc<FakeZones>,
    _names: Names,
}

async fn world() -> World {
    let store = MemoryTree::new().client();
    schema::root::init(&*store).await.unwrap();
    let me: NodeName = "hv1".parse().unwrap();
    let dyn_store: Arc<dyn Store> = store.clone();
    let mirror = Mirror::start_on(
        Arc::clone(&dyn_store),
        &Needs { me: Some(me.clone()), networks: true, ..Needs::default() },
    );
    let cluster = Cluster::new(me, dyn_store, mirror, Arc::new(FakeMachine::default()));
    let database = FakeZones::new();
    let names = Names::start(cluster, database.clone(), None);
    let world = World { store, database, _names: names };
    let vni: Vni = "100".parse().unwrap();
    let mut network = Network { kind: Some(NetworkKind::Managed), ..Network::bare(vni) };
    network.domain = Some("web.local".parse().unwrap());
    network.ip4.network = Some("10.100.0.0/24".parse().unwrap());
    network.ip4.gateway = Some("10.100.0.1".parse().unwrap());
    world.store.commit(schema::network::define(&network)).await.unwrap();
    world
}

impl World {
    async fn commit(&self, ops: Vec<Op>) {
        self.store.commit(Transaction { ops }).await.unwrap();
    }

    /// Another node is primary, or this one.
    async fn primary(&self, node: &str) {
        let path = schema::primary::HOLDER.to_owned();
        let mut ops = vec![Op::Create { path: path.clone(), data: node.into(), mode: CreateMode::Ephemeral }];
        if self.store.get(&path).await.unwrap().is_some() {
            ops.insert(0, Op::Delete { path, version: None });
        }
        self.commit(ops).await;
    }

    async fn lease(&self, name: &str, address: &str) {
        let own = format!("/networks/100/dhcp4_leases/{MAC}");
        let keys = [("", ""), ("/ipaddr", address), ("/hostname", name), ("/expiry", "0")];
        let mode = CreateMode::Persistent;
        let create =
            |(key, value): (&str, &str)| Op::Create { path: format!("{own}{key}"), data: value.into(), mode };
        self.commit(keys.map(create).into()).await;
    }

    fn has(&self, name: &str, address: &str) -> bool {
        let data: Data = address.parse::<IpAddr>().unwrap().into();
        let record = Record { name: format!("{name}.web.local"), data };
        self.database.zones().get("web.local").is_some_and(|zone| zone.ours.contains(&record))
    }

    async fn names(&self, name: &str, address: &str) {
        for _ in 0..1000 {
            if self.has(name, address) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("waited for {name}: {:?}", self.database.zones());
    }
}

#[tokio::test(start_paused = true)]
async fn the_primary_serves_names_from_the_moment_of_their_leases() {
    let world = world().await;
    world.primary("hv2").await;
    world.lease("db", "10.100.0.7").await;
    sleep(Duration::from_mins(3)).await;
    assert!(world.database.zones().is_empty(), "another node is primary");
    world.primary("hv1").await;
    world.names("gateway", "10.100.0.1").await;
    world.names("db", "10.100.0.7").await;
    let path = format!("/networks/100/dhcp4_leases/{MAC}/ipaddr");
    world.commit(vec![Op::Set { path, data: "10.100.0.8".into(), version: None }]).await;
    world.names("db", "10.100.0.8").await;
    assert!(!world.has("db", "10.100.0.7"));
}

#[tokio::test(start_paused = true)]
async fn what_happened_while_the_database_was_away_is_caught_up_with() {
    let world = world().await;
    world.database.away(true);
    world.primary("hv1").await;
    world.lease("db", "10.100.0.7").await;
    sleep(Duration::from_mins(3)).await;
    assert!(world.database.zones().is_empty());
    world.database.away(false);
    world.names("db", "10.100.0.7").await;
}
