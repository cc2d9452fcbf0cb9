//! Networks and rules in a tree, tables of a fake machine.

use pvc_core::{
    model::{DaemonMode, Network, NetworkKind, NodeName, rule::Direction},
    plan::firewall::Wall,
};
use pvc_host::{firewall::fake::FakeFirewall, links::fake::FakeBridges, machine::FakeMachine};
use pvc_store::{
    Op, Store, Transaction,
    memory::{MemoryStore, MemoryTree},
    mirror::{Mirror, Needs},
    schema::{self, node},
};

use super::*;

struct World {
    store: Arc<MemoryStore>,
    firewall: Arc<FakeFirewall>,
    _walls: Walls,
}

fn name(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn vni(number: u32) -> Vni {
    number.to_string().parse().unwrap()
}

async fn register(store: &dyn Store, number: u8, vtep: bool) {
    let registration = node::Registration {
        name: name(&format!("hv{number}")),
        mode: DaemonMode::Hypervisor,
        static_data: "8 6.1.0 GNU/Linux x86_64".parse().unwrap(),
        boot: "boot".into(),
        keepalive_interval: Duration::from_secs(5),
        vtep: vtep.then(|| format!("10.255.1.{number}").parse().unwrap()),
        ipmi: node::Ipmi::default(),
    };
    node::register(store, &registration).await.unwrap();
}

/// hv1, beside hv2, and hv3 which names no end of a tunnel.
async fn world() -> World {
    let store = MemoryTree::new().client();
    schema::root::init(&*store).await.unwrap();
    for number in 1..=3 {
        register(&*store, number, number < 3).await;
    }
    let dyn_store: Arc<dyn Store> = store.clone();
    let mirror = Mirror::start_on(
        Arc::clone(&dyn_store),
        &Needs { me: Some(name("hv1")), networks: true, ..Needs::default() },
    );
    let cluster = Cluster::new(name("hv1"), dyn_store, mirror, Arc::new(FakeMachine::default()));
    let firewall = FakeFirewall::new();
    let ground = Ground { closed: vec!["10.255.1.0/24".parse().unwrap()] };
    let walls = Walls::start(cluster, firewall.clone(), FakeBridges::new(), ground);
    World { store, firewall, _walls: walls }
}

impl World {
    async fn define(&self, number: u32) {
        let mut network = Network {
            kind: Some(NetworkKind::Managed),
            description: "web".into(),
            ..Network::bare(vni(number))
        };
        network.ip4.gateway = Some("10.100.0.1".parse().unwrap());
        self.store.commit(schema::network::define(&network)).await.unwrap();
    }

    async fn rule(&self, name: &str, order: &str, rule: &str) {
        let own = format!("/networks/100/firewall_rules/in/{name}");
        let mode = pvc_store::CreateMode::Persistent;
        let create = |path: String, data: &str| Op::Create { path, data: data.into(), mode };
        let ops = vec![
            create(own.clone(), ""),
            create(format!("{own}/order"), order),
            create(format!("{own}/rule"), rule),
        ];
        self.store.commit(Transaction { ops }).await.unwrap();
    }

    async fn stands(&self, what: &str, is_so: impl Fn(&Ruleset) -> bool) {
        for _ in 0..1000 {
            if self.firewall.standing().is_some_and(|ruleset| is_so(&ruleset)) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("waited for {what}: {:?}", self.firewall.standing());
    }

    async fn wall_says(&self, lines: &[&str]) {
        self.stands(&format!("{lines:?}"), |ruleset| {
            ruleset.networks.get(&vni(100)).is_some_and(|wall| said(wall) == lines)
        })
        .await;
    }
}

fn said(wall: &Wall) -> Vec<String> {
    let body = |line: &pvc_core::plan::firewall::Line| {
        line.body.as_ref().map_or("refused".into(), ToString::to_string)
    };
    wall.lines[&Direction::In].iter().map(body).collect()
}

#[tokio::test(start_paused = true)]
async fn the_tables_follow_networks_nodes_and_rules() {
    let world = world().await;
    world.stands("the nodes' ends", |r| r.tunnel_ends.len() == 2 && r.closed.len() == 1).await;
    world.define(100).await;
    world.wall_says(&[]).await;
    assert_eq!(world.firewall.take_done(), ["load", "change"]);
    world.rule("b", "10", "drop").await;
    world.rule("a", "9", "tcp dport 22 accept").await;
    world.wall_says(&["tcp dport 22 accept", "drop"]).await;
    register(&*world.store, 3, true).await;
    world.stands("the third node's end", |r| r.tunnel_ends.len() == 3).await;
    assert!(!world.firewall.take_done().contains(&"load"), "what did not change was not touched");
}

#[tokio::test(start_paused = true)]
async fn the_primary_publishes_what_its_rules_count_and_forgets_networks_that_are_gone() {
    let world = world().await;
    let mode = pvc_store::CreateMode::Ephemeral;
    let hold = Op::Create { path: "/pvc/primary".into(), data: "hv1".into(), mode };
    world.store.commit(Transaction { ops: vec![hold] }).await.unwrap();
    world.define(100).await;
    world.rule("a", "0", "accept").await;
    world.firewall.count("n100_in", 3, 252);
    let counts = async || schema::network::counts::read(&*world.store, vni(100)).await.unwrap();
    let hits = async || counts().await.and_then(|counts| counts.of(Direction::In).get("a").copied());
    sleep(Duration::from_mins(3)).await;
    assert_eq!(hits().await.map(|hits| (hits.packets, hits.bytes)), Some((3, 252)));
    let seen = schema::network::read_all(&*world.store).await.unwrap().0.remove(&vni(100)).unwrap();
    schema::network::remove(&*world.store, &seen).await.unwrap();
    sleep(Duration::from_mins(3)).await;
    assert_eq!(counts().await, None);
}

#[tokio::test(start_paused = true)]
async fn what_others_do_is_undone() {
    let world = world().await;
    world.define(100).await;
    world.wall_says(&[]).await;
    world.firewall.take_done();
    world.firewall.flush();
    world.wall_says(&[]).await;
    world.firewall.meddle("add rule inet pvc input accept");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.firewall.take_done(), ["load", "load"]);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_is_refused_costs_no_other_and_opens_nothing() {
    let world = world().await;
    world.firewall.refuse(&["ip saddr fd00::1 drop", "ip daddr fd00::1 accept"]);
    world.define(100).await;
    world.rule("a", "0", "tcp dport 22 accept").await;
    world.rule("b", "1", "accept; flush ruleset").await;
    world.rule("c", "2", "ip saddr fd00::1 drop").await;
    world.rule("d", "3", "ip daddr fd00::1 accept").await;
    world.rule("e", "4", "udp dport 53 accept").await;
    world.wall_says(&["tcp dport 22 accept", "refused", "refused", "udp dport 53 accept"]).await;
}
