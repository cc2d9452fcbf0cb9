//! Networks and rules in a tree, tables of a fake machine.

mod scale;

use pvc_core::{
    model::{
        Network,
        bridging::{Device, DeviceKind},
        rule::Direction,
    },
    plan::firewall::{Port, Wall},
};
use pvc_host::{
    firewall::fake::{Cost, FakeFirewall},
    links::fake::FakeBridges,
};
use pvc_store::schema;

use super::*;
use crate::reconcile::network_world::{NetworkWorld, network, register, until, vni};

struct World {
    base: NetworkWorld,
    firewall: Arc<FakeFirewall>,
    bridges: Arc<FakeBridges>,
    _walls: Walls,
}

/// hv1, beside hv2, and hv3 which names no end of a tunnel.
async fn world() -> World {
    let base = NetworkWorld::new().await;
    register(&*base.store, 3, false).await;
    let (firewall, bridges) = (FakeFirewall::new(), FakeBridges::new());
    let definitions = Arc::new(Definitions::new(base.cluster.store.clone()));
    let ground = Ground { closed: vec!["10.255.1.0/24".parse().unwrap()], own: Vec::new() };
    let teller = base.troubles.teller("firewall");
    let (cluster, to) = (base.cluster.clone(), bridges.clone());
    let walls = Walls::start(cluster, firewall.clone(), to, definitions, ground, teller);
    World { base, firewall, bridges, _walls: walls }
}

impl World {
    async fn define(&self, number: u32) {
        self.base.define(&network(number)).await;
    }

    async fn rule(&self, name: &str, order: &str, rule: &str) {
        self.rule_of(100, name, order, rule).await;
    }

    async fn rule_of(&self, number: u32, name: &str, order: &str, rule: &str) {
        let own = format!("/networks/{number}/firewall_rules/in/{name}");
        let keys = [(own.clone(), ""), (format!("{own}/order"), order), (format!("{own}/rule"), rule)];
        self.base.create(&keys.each_ref().map(|(key, value)| (key.as_str(), *value))).await;
    }

    async fn stands(&self, what: &str, is_so: impl Fn(&Ruleset) -> bool) {
        until(what, || self.firewall.standing(), |standing| standing.as_ref().is_some_and(&is_so)).await;
    }

    /// Networks of twenty rules each stand, and have just been listed: what is asked for from now on is what a change costs.
    async fn with_networks(numbers: std::ops::Range<u32>) -> Self {
        let world = world().await;
        for number in numbers.clone() {
            world.define(number).await;
            for rule in 0..20 {
                let text = format!("tcp dport {} accept", 1000 + rule);
                world.rule_of(number, &format!("rule{rule}"), &rule.to_string(), &text).await;
            }
        }
        let is_whole = |wall: &Wall| said(wall).len() == 20;
        world
            .stands("all networks", |r| {
                r.networks.len() == numbers.len() && r.networks.values().all(is_whole)
            })
            .await;
        sleep(Duration::from_secs(35)).await;
        world.bridges.by_hand(|_| ());
        sleep(Duration::from_secs(1)).await;
        assert!(world.firewall.take_cost().listings > 0, "the reason for this test to wait");
        world.firewall.take_done();
        world
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
    // Also what is done in the same moment as ours.
    world.firewall.meddle_with_next("add rule inet pvc input accept");
    world.rule("a", "0", "drop").await;
    world.wall_says(&["drop"]).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.firewall.take_done(), ["change", "load"]);
    assert_eq!(
        world.firewall.listing().await.unwrap().unwrap().standing["all"],
        world.firewall.standing().unwrap().whole()
    );
}

#[tokio::test(start_paused = true)]
async fn what_others_do_to_their_own_tables_costs_nothing_and_what_was_missed_is_looked_up() {
    let world = World::with_networks(100..103).await;
    for _ in 0..100 {
        world.firewall.elsewhere();
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.firewall.take_cost(), Cost::default());
    world.firewall.miss();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.firewall.take_cost(), Cost { listings: 1, ..Cost::default() }, "nothing has changed");
    // How it looks now has not been listed yet: it is made anew rather than trusted.
    world.rule("one", "20", "drop").await;
    sleep(Duration::from_secs(1)).await;
    world.firewall.miss();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.firewall.take_done(), ["change", "load"]);
    assert_eq!(world.firewall.take_cost().listings, 0);
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_devices_lists_nothing_and_says_each_of_them_once() {
    let world = World::with_networks(100..103).await;
    for number in 0..200 {
        world.bridges.by_hand(|bridging| plug(bridging, number));
        sleep(Duration::from_millis(10)).await;
    }
    world.stands("all ports", |ruleset| ruleset.ports.len() == 200).await;
    let cost = world.firewall.take_cost();
    // They come within two seconds; looks are a tenth of one apart.
    assert!(cost.listings == 0 && cost.transactions < 25, "{cost:?}");
    let each = "\"vnet100\" : goto guard, ".len();
    let around = "add element bridge pvc ports {  }\n".len();
    assert!(cost.bytes <= 200 * each + cost.transactions * around, "{cost:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_rule_costs_does_not_depend_on_how_many_networks_there_are() {
    let mut costs = Vec::new();
    for networks in [100..102, 100..200] {
        let world = World::with_networks(networks).await;
        world.rule("one", "20", "udp dport 9 accept").await;
        world.stands("the rule", |r| said(&r.networks[&vni(100)]).len() == 21).await;
        sleep(Duration::from_secs(1)).await;
        costs.push(world.firewall.take_cost());
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!((costs[0].listings, costs[0].transactions), (0, 1));
    assert!(costs[0].bytes < 2000, "a chain of 21 rules: {costs:?}");
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

/// A guest appears at vmbr100, as libvirt makes its device.
fn plug(bridging: &mut Bridging, number: u8) {
    bridging.devices.push(Device {
        name: format!("vnet{number}"),
        index: 9 + u32::from(number),
        kind: DeviceKind::Other,
        mac: format!("fe:54:00:00:00:{:02x}", number + 1).parse().unwrap(),
        mtu: 1450,
        up: true,
        master: Some("vmbr100".into()),
        ours: false,
        learns: false,
    });
}

#[tokio::test(start_paused = true)]
async fn a_filtered_guest_is_heard_from_what_it_is_given_as_soon_as_that_is_written() {
    let world = world().await;
    world.base.define(&Network { filter: true, ..network(100) }).await;
    world.stands("unknown guests to be muted", |ruleset| ruleset.mutes_unknown).await;
    let (vm, card) = ("/domains/4a000000-0000-4000-8000-000000000001", "52:54:00:00:00:01");
    let xml = format!(
        "<domain><devices><interface type='bridge'><mac address='{card}'/><source bridge='vmbr100'/></interface></devices></domain>"
    );
    world.bridges.by_hand(|bridging| plug(bridging, 0));
    world.base.until_told(&["network 100: nothing that the guest at port vnet0 sends is taken"]).await;
    world.base.create(&[(vm, "web1"), (&format!("{vm}/state"), "stop"), (&format!("{vm}/xml"), &xml)]).await;
    let heard = |ruleset: &Ruleset| match ruleset.ports.get("vnet0") {
        Some(Port::Filtered(sender)) => (sender.cards.len(), sender.ip4.len()),
        other => panic!("{other:?}"),
    };
    // A definition wakes nobody; it is there before its guest is, as a rule.
    world.bridges.by_hand(|_| ());
    world.stands("its card", |ruleset| heard(ruleset) == (1, 0)).await;
    world.base.until_told(&[]).await;
    let lease = format!("/networks/100/dhcp4_leases/{card}");
    let began = Instant::now();
    world.base.create(&[(&lease, ""), (&format!("{lease}/ipaddr"), "10.100.0.5")]).await;
    world.stands("its address", |ruleset| heard(ruleset) == (1, 1)).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    world.base.modify(&network(100)).await;
    world.stands("no filter", |r| !r.mutes_unknown && r.ports["vnet0"] == Port::Guarded).await;
}
