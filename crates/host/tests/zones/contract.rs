//! What every DNS database must do.

use std::collections::BTreeMap;

use pvc_core::{
    model::{
        Network, NetworkKind,
        dns::{Foreign, Record, Soa, ZoneAct, ZoneChange},
    },
    plan::dns::{Named, plan},
};
use pvc_host::{
    testing::postgres::{NAMES, PostgresProcess},
    zones::{Address, Postgres, ZoneDatabase, ZonesError, fake::FakeZones},
};

pub(crate) fn network() -> Network {
    let mut network = Network { kind: Some(NetworkKind::Managed), ..Network::bare("100".parse().unwrap()) };
    network.domain = Some("web.local".parse().unwrap());
    network.ip4.network = Some("10.100.0.0/16".parse().unwrap());
    network.ip4.gateway = Some("10.100.0.1".parse().unwrap());
    network.ip6.network = Some("fd00:100::/64".parse().unwrap());
    network.ip6.gateway = Some("fd00:100::1".parse().unwrap());
    network
}

pub(crate) fn guest(name: &str, address: &str) -> Named {
    let (vni, address) = ("100".parse().unwrap(), address.parse().unwrap());
    Named { vni, holder: name.into(), name: name.into(), address, is_reserved: false }
}

pub(crate) fn database(server: &PostgresProcess) -> Postgres {
    with_password(server, NAMES.2)
}

pub(crate) fn with_password(server: &PostgresProcess, password: &str) -> Postgres {
    let (user, name, _) = NAMES;
    Postgres::new(&Address { host: server.folder().to_str().unwrap(), port: 5432, name, user, password })
}

/// Makes the database as desired.
pub(crate) async fn serve(database: &dyn ZoneDatabase, networks: &[Network], guests: &[Named]) {
    let planned = plan(networks, guests, &database.observe().await.unwrap());
    for change in &planned.changes {
        database.apply(change).await.unwrap();
    }
    let seen = database.observe().await.unwrap();
    assert_eq!(plan(networks, guests, &seen).changes, [], "what was written is what is read");
}

/// Zones come, change and go, each change as a whole and only from what it was decided from.
async fn keeps_zones(database: &dyn ZoneDatabase, somebody_writes: impl Fn(&str, Foreign)) {
    assert_eq!(database.observe().await.unwrap(), BTreeMap::new());
    let guests = [guest("a", "10.100.3.4"), guest("b", "fd00:100::7")];
    serve(database, &[network()], &guests).await;
    let seen = database.observe().await.unwrap();
    assert_eq!(seen.len(), 3);
    assert!(seen.values().all(|zone| zone.is_ours && zone.serial == Some(1) && zone.others.is_empty()));
    serve(database, &[network()], &guests[1..]).await;
    let zone = database.observe().await.unwrap()["web.local"].clone();
    assert_eq!(zone.serial, Some(2));

    let soa = Soa { server: "ns.web.local".into(), contact: "root.web.local".into(), serial: 9 };
    let record = Record {
        name: "late.web.local".into(),
        data: "10.100.0.9".parse::<std::net::IpAddr>().unwrap().into(),
    };
    let stale = |act| ZoneChange { zone: "web.local".into(), act, add: vec![record.clone()], remove: vec![] };
    for act in [
        ZoneAct::Make(soa.clone()),
        ZoneAct::Keep { from: Some(1), soa: soa.clone() },
        ZoneAct::Drop { from: None },
    ] {
        let outcome = database.apply(&stale(act)).await;
        assert!(matches!(outcome, Err(ZonesError::Conflict(_))), "{outcome:?}");
    }
    assert_eq!(database.observe().await.unwrap()["web.local"], zone, "nothing of it was done");

    let other = Foreign { name: "www.web.local".into(), kind: "CNAME".into(), content: "a.web.local".into() };
    somebody_writes("web.local", other.clone());
    let drop = ZoneChange { remove: vec![], add: vec![], ..stale(ZoneAct::Drop { from: Some(2) }) };
    assert!(matches!(database.apply(&drop).await, Err(ZonesError::Conflict(_))), "it has another's record");
    serve(database, &[], &[]).await;
    let seen = database.observe().await.unwrap();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["web.local"]);
    assert_eq!(seen["web.local"].others, [other].into());
}

#[tokio::test]
async fn the_fake_keeps_zones() {
    let fake = FakeZones::new();
    keeps_zones(&*fake, |zone, record| fake.write(zone, record)).await;
}

#[tokio::test]
async fn postgresql_keeps_zones() {
    let server = PostgresProcess::start().unwrap();
    keeps_zones(&database(&server), |zone, record| {
        let Foreign { name, kind, content } = record;
        let insert = format!(
            "INSERT INTO records (domain_id, name, type, content) \
             SELECT id, '{name}', '{kind}', '{content}' FROM domains WHERE name = '{zone}'"
        );
        server.sql(&insert).unwrap();
    })
    .await;
}
