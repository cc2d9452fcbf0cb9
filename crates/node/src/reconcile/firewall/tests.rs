//! Networks and rules in a tree, tables of a fake machine.

use pvc_core::{model::rule::Direction, plan::firewall::Wall};
use pvc_host::{firewall::fake::FakeFirewall, links::fake::FakeBridges};
use pvc_store::schema;

use super::*;
use crate::reconcile::network_world::{NetworkWorld, network, register, until, vni};

struct World {
    base: NetworkWorld,
    firewall: Arc<FakeFirewall>,
    _walls: Walls,
}

/// hv1, beside hv2, and hv3 which names no end of a tunnel.
async fn world() -> World {
    let base = NetworkWorld::new().await;
    register(&*base.store, 3, false).await;
    let firewall = FakeFirewall::new();
    let ground = Ground { closed: vec!["10.255.1.0/24".parse().unwrap()] };
    let teller = base.troubles.teller("firewall");
    let walls = Walls::start(base.cluster.clone(), firewall.clone(), FakeBridges::new(), ground, teller);
    World { base, firewall, _walls: walls }
}

impl World {
    async fn define(&self, number: u32) {
        self.base.define(&network(number)).await;
    }

    async fn rule(&self, name: &str, order: &str, rule: &str) {
        let own = format!("/networks/100/firewall_rules/in/{name}");
        let keys = [(own.clone(), ""), (format!("{own}/order"), order), (format!("{own}/rule"), rule)];
        self.base.create(&keys.each_ref().map(|(key, value)| (key.as_str(), *value))).await;
    }

    async fn stands(&self, what: &str, is_so: impl Fn(&Ruleset) -> bool) {
        until(what, || self.firewall.standing(), |standing| standing.as_ref().is_some_and(&is_so)).await;
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
    register(&*world.base.store, 3, true).await;
    world.stands("the third node's end", |r| r.tunnel_ends.len() == 3).await;
    assert!(!world.firewall.take_done().contains(&"load"), "what did not change was not touched");
}

#[tokio::test(start_paused = true)]
async fn an_operators_files_are_loaded_once_and_again_when_they_change_or_all_was_taken_away() {
    let world = world().await;
    let imports = async || {
        // Long enough for the safety net to look twice.
        tokio::time::sleep(Duration::from_mins(3)).await;
        world.firewall.take_done().into_iter().filter(|done| *done == "import").count()
    };
    world.stands("the nodes' ends", |r| r.tunnel_ends.len() == 2).await;
    world.firewall.write_file("10-site", "table inet site { }");
    world.firewall.write_file("20-bad", "nonsense");
    assert_eq!(imports().await, 2);
    world
        .base
        .until_told(&["the operator's rules in nft/static/20-bad are not loaded: could not load it"])
        .await;
    world.firewall.write_file("20-bad", "table inet bad { }");
    assert_eq!(imports().await, 1);
    world.base.until_told(&[]).await;
    world.firewall.flush();
    assert_eq!(imports().await, 2);
    // Done, undone and done again for ever is what it would be.
    world.firewall.write_file("30-ours", "insert rule inet pvc node accept");
    tokio::time::sleep(Duration::from_mins(3)).await;
    let done = world.firewall.take_done();
    assert!(done.len() < 8 && done.contains(&"load"), "{done:?}");
    world
        .base
        .until_told(&["the operator's rules in nft/static/30-ours are not loaded: it changes the tables"])
        .await;
    assert_eq!(
        world.firewall.listing().await.unwrap().unwrap().standing["all"],
        world.firewall.standing().unwrap().whole()
    );
}

#[tokio::test(start_paused = true)]
async fn the_primary_publishes_what_its_rules_count_and_forgets_networks_that_are_gone() {
    let world = world().await;
    world.base.primary("hv1").await;
    world.define(100).await;
    world.rule("a", "0", "accept").await;
    world.firewall.count("n100_in", 3, 252);
    let counts = async || schema::network::counts::read(&*world.base.store, vni(100)).await.unwrap();
    let hits = async || counts().await.and_then(|counts| counts.of(Direction::In).get("a").copied());
    sleep(Duration::from_mins(3)).await;
    assert_eq!(hits().await.map(|hits| (hits.packets, hits.bytes)), Some((3, 252)));
    world.base.remove(100).await;
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
    world
        .base
        .until_told(&[
            "network 100: the in rule \"b\" is refused, and nothing passes in its place",
            "network 100: the in rule \"c\" is refused, and nothing passes in its place",
            "network 100: the in rule \"d\" is left out",
        ])
        .await;
    world.base.remove(100).await;
    world.base.until_told(&[]).await;
}
