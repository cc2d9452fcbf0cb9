//! What holds for every packet filter.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pvc_core::{
    model::{
        Vni,
        rule::{Body, Direction},
    },
    plan::firewall::{Line, Port, Ruleset, Sender, Wall},
};
use pvc_host::firewall::{Firewall, FirewallError, Nft, fake::FakeFirewall};
use tokio::time::timeout;

use crate::namespace::alone;

pub(crate) fn vni(number: u32) -> Vni {
    number.to_string().parse().unwrap()
}

fn line(name: &str, body: &str) -> Line {
    Line { name: name.into(), body: Some(body.parse().unwrap()) }
}

pub(crate) fn wall(gateways: &[&str], bodies: &[&str]) -> Wall {
    let lines = bodies.iter().map(|body| line("rule", body)).collect();
    Wall {
        gateways: gateways.iter().map(|g| g.parse().unwrap()).collect(),
        lines: [(Direction::In, lines), (Direction::Out, Vec::new())].into(),
    }
}

pub(crate) fn ruleset() -> Ruleset {
    Ruleset {
        tunnel_ends: ["10.255.1.1", "10.255.1.2", "fd00:1::1"].map(|end| end.parse().unwrap()).into(),
        closed: ["10.255.1.0/24", "10.255.1.0/25", "fd00:1::/64"].map(|net| net.parse().unwrap()).into(),
        bridges: [vni(100), vni(200)].into(),
        networks: [
            (
                vni(100),
                wall(&["10.100.0.1", "fd00:100::1", "fe80::1"], &["tcp dport { 22 , 80 } accept", "drop"]),
            ),
            (vni(200), wall(&["fd00:200::1", "fe80::1"], &[])),
        ]
        .into(),
        ports: [
            ("vxlan100".to_owned(), Port::Open),
            ("tap0".to_owned(), Port::Guarded),
            ("vnet7".to_owned(), Port::Filtered(sender())),
        ]
        .into(),
        mutes_unknown: false,
    }
}

/// A guest of network 100 that was given two addresses.
pub(crate) fn sender() -> Sender {
    let card = "52:54:00:00:00:02".parse().unwrap();
    let ip4 = ["10.100.0.2", "10.100.0.22"].map(|address| (card, address.parse().unwrap()));
    Sender { cards: [card].into(), ip4: ip4.into(), ip6: Some("fd00:100::/64".parse().unwrap()) }
}

/// Runs a contract on the fake and on the real one.
fn both(contract: impl AsyncFn(Arc<dyn Firewall>) + Send + Sync) {
    alone(async || contract(FakeFirewall::new()).await);
    alone(async || contract(Nft::start("/nonexistent".into()).unwrap()).await);
}

async fn standing(firewall: &dyn Firewall) -> BTreeMap<String, String> {
    firewall.listing().await.unwrap().expect("it stands").standing
}

#[test]
fn what_is_loaded_stands_and_loaded_again_is_the_same() {
    both(async |firewall| {
        assert!(firewall.listing().await.unwrap().is_none());
        firewall.load(&ruleset()).await.unwrap();
        let first = standing(&*firewall).await;
        firewall.load(&ruleset()).await.unwrap();
        assert_eq!(standing(&*firewall).await, first);
        firewall.load(&Ruleset::default()).await.unwrap();
        assert_ne!(standing(&*firewall).await, first);
    });
}

#[test]
fn changes_in_any_order_lead_to_what_would_have_been_loaded() {
    let mut others = vec![Ruleset::default(), ruleset()];
    let mut other_by = |how: fn(&mut Ruleset)| {
        let mut other = ruleset();
        how(&mut other);
        others.push(other);
    };
    other_by(|r| {
        r.tunnel_ends.pop_first();
    });
    other_by(|r| r.closed.clear());
    other_by(|r| {
        r.networks.remove(&vni(100));
    });
    other_by(|r| {
        r.networks.insert(vni(300), wall(&["10.3.0.1"], &["ct state { new } accept"]));
    });
    other_by(|r| {
        r.networks.insert(vni(100), wall(&["10.100.0.254"], &["reject with tcp reset", "accept"]));
    });
    other_by(|r| {
        r.ports.insert("vnet0".to_owned(), Port::Open);
        r.mutes_unknown = true;
    });
    other_by(|r| {
        r.ports.insert("vnet7".to_owned(), Port::Filtered(Sender::default()));
    });
    other_by(|r| {
        r.networks.get_mut(&vni(100)).unwrap().lines.get_mut(&Direction::In).unwrap()[0].body = None;
    });
    both(async |firewall| {
        for before in &others {
            for after in &others {
                firewall.load(after).await.unwrap();
                let loaded = standing(&*firewall).await;
                firewall.load(before).await.unwrap();
                firewall
                    .change(before, after)
                    .await
                    .unwrap_or_else(|e| panic!("{e}: {}", after.change_from(before)));
                assert_eq!(standing(&*firewall).await, loaded, "{}", after.change_from(before));
            }
        }
    });
}

#[test]
fn a_body_that_is_not_taken_is_found_among_those_that_are() {
    // Made of known words, and nonsense.
    let nonsense = ["tcp saddr 10.0.0.1 accept", "ip saddr fd00::1 drop"];
    let mut bodies: Vec<Body> =
        (1..40).map(|port| format!("tcp dport {port} accept").parse().unwrap()).collect();
    bodies.extend(nonsense.map(|body| body.parse().unwrap()));
    both(async |firewall| {
        assert_eq!(firewall.refused(&[]).await.unwrap(), BTreeMap::new());
        let refused = firewall.refused(&bodies).await.unwrap();
        let refused: Vec<String> = refused.keys().map(ToString::to_string).collect();
        // The fake takes everything until it is told otherwise.
        if !refused.is_empty() {
            assert_eq!(refused, ["ip saddr fd00::1 drop", "tcp saddr 10.0.0.1 accept"]);
        }
        assert!(firewall.listing().await.unwrap().is_none(), "nothing was touched");
    });
}

#[test]
fn an_operators_file_is_loaded_as_a_whole_or_not_at_all() {
    both(async |firewall| {
        firewall.load(&ruleset()).await.unwrap();
        let ours = standing(&*firewall).await;
        firewall
            .import("table inet site { chain input { type filter hook input priority 0; }; }\n")
            .await
            .unwrap();
        let outcome = firewall.import("table inet other { }\nnonsense\n").await;
        assert!(matches!(outcome, Err(FirewallError::Refused { .. })), "{outcome:?}");
        assert_eq!(standing(&*firewall).await, ours);
    });
    alone(async || {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("site"), "table inet site { }\n").unwrap();
        let firewall = Nft::start(folder.path().to_owned()).unwrap();
        let [file] = &firewall.own_files()[..] else { panic!("one file") };
        firewall.import(file.text.as_ref().unwrap()).await.unwrap();
        let _ = firewall.import("table inet other { }\nnonsense\n").await;
        let nft = pvc_host::run::Program::find("nft").unwrap();
        let tables = nft.run_on(&["list", "tables"], "", Duration::from_secs(5)).await.unwrap();
        assert_eq!(tables.stdout, "table inet site\n");
    });
}

#[test]
fn a_mark_tells_whether_our_tables_were_touched() {
    both(async |firewall| {
        let nothing = firewall.mark().await.unwrap();
        firewall.load(&ruleset()).await.unwrap();
        let loaded = firewall.mark().await.unwrap();
        assert!(!loaded.is_as(&nothing) && loaded.is_next_to(&nothing), "{nothing:?} {loaded:?}");
        // Neither looking, nor trying, nor what others have, nor what is refused touches them.
        firewall.listing().await.unwrap();
        firewall.refused(&["drop".parse().unwrap()]).await.unwrap();
        let site = "table inet site { set s { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }; }\n";
        firewall.import(site).await.unwrap();
        firewall.import("table bridge site { chain c { }; }\n").await.unwrap();
        firewall.import("delete element inet site s { 10.0.0.1 }\n").await.unwrap();
        let nonsense = "add rule inet pvc input accept\nnonsense\n";
        assert!(firewall.import(nonsense).await.is_err());
        let later = firewall.mark().await.unwrap();
        assert!(later.is_as(&loaded), "{loaded:?} {later:?}");
        let mut other = ruleset();
        other.networks.remove(&vni(100));
        firewall.change(&ruleset(), &other).await.unwrap();
        let changed = firewall.mark().await.unwrap();
        assert!(!changed.is_as(&later) && changed.is_next_to(&later), "{later:?} {changed:?}");
        firewall.import("add rule inet pvc input accept\n").await.unwrap();
        let touched = firewall.mark().await.unwrap();
        assert!(!touched.is_as(&changed), "{changed:?} {touched:?}");
        firewall.load(&other).await.unwrap();
        let again = firewall.mark().await.unwrap();
        assert!(!again.is_next_to(&changed) && again.is_next_to(&touched), "{changed:?} {again:?}");
    });
}

#[test]
fn of_a_hundred_networks_one_rule_is_changed_without_a_word_of_the_others_and_a_flush_is_noticed() {
    alone(async || {
        let firewall = Nft::start("/nonexistent".into()).unwrap();
        let bodies: Vec<String> = (1..=20).map(|port| format!("tcp dport {port} accept")).collect();
        let mut bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        let networks = (100..200).map(|number| (vni(number), wall(&[&format!("10.{number}.0.1")], &bodies)));
        let before = Ruleset { networks: networks.collect(), ..ruleset() };
        let begun = firewall.mark().await.unwrap();
        firewall.load(&before).await.unwrap();
        let loaded = firewall.mark().await.unwrap();
        assert!(loaded.is_next_to(&begun), "{begun:?} {loaded:?}");
        bodies.push("udp dport 9 drop");
        let mut after = before.clone();
        after.networks.insert(vni(150), wall(&["10.150.0.1"], &bodies));
        firewall.change(&before, &after).await.unwrap();
        let changed = firewall.mark().await.unwrap();
        assert!(changed.is_next_to(&loaded), "{loaded:?} {changed:?}");
        let (text, all) = (after.change_from(&before), after.whole());
        assert!(text.len() * 50 < all.len(), "{} of {} bytes: {text}", text.len(), all.len());
        let stands = standing(&*firewall).await;
        firewall.load(&after).await.unwrap();
        assert_eq!(standing(&*firewall).await, stands);
        let (before, mut changes) = (firewall.mark().await.unwrap(), firewall.changes());
        changes.mark_unchanged();
        firewall.import("flush ruleset\n").await.unwrap();
        timeout(Duration::from_secs(5), changes.changed()).await.expect("it is heard").unwrap();
        assert!(!firewall.mark().await.unwrap().is_as(&before));
    });
}

#[test]
fn a_refused_transaction_leaves_what_stood() {
    alone(async || {
        let firewall = Nft::start("/nonexistent".into()).unwrap();
        firewall.load(&ruleset()).await.unwrap();
        let before = standing(&*firewall).await;
        let mut bad = ruleset();
        bad.networks.insert(vni(100), wall(&["10.9.0.1"], &["accept", "tcp saddr 10.0.0.1 accept"]));
        bad.tunnel_ends.clear();
        for outcome in [firewall.load(&bad).await, firewall.change(&ruleset(), &bad).await] {
            assert!(matches!(outcome, Err(FirewallError::Refused { .. })), "{outcome:?}");
            assert_eq!(standing(&*firewall).await, before);
        }
    });
}

#[test]
fn what_others_do_is_heard_and_seen() {
    alone(async || {
        let firewall = Nft::start("/nonexistent".into()).unwrap();
        firewall.load(&ruleset()).await.unwrap();
        let (ours, mut changes) = (standing(&*firewall).await, firewall.changes());
        let nft = pvc_host::run::Program::find("nft").unwrap();
        for meddling in [
            "add rule inet pvc input accept",
            "flush chain inet pvc guard_of_nothing",
            "delete element inet pvc ends4 { 10.255.1.2 }",
            "flush chain bridge pvc guard",
            "flush table inet pvc",
            "delete table bridge pvc",
            "flush ruleset",
        ] {
            firewall.load(&ruleset()).await.unwrap();
            // Ours is heard as well.
            timeout(Duration::from_secs(5), changes.changed()).await.unwrap().unwrap();
            while timeout(Duration::from_millis(50), changes.changed()).await.is_ok() {}
            let before = firewall.mark().await.unwrap();
            let ended =
                nft.run_on(&["-f", "-"], &format!("{meddling}\n"), Duration::from_secs(5)).await.unwrap();
            let touched = !firewall.mark().await.unwrap().is_as(&before);
            assert_eq!(touched, ended.is_success(), "{meddling}");
            if !touched {
                continue;
            }
            timeout(Duration::from_secs(5), changes.changed()).await.expect(meddling).unwrap();
            let now = firewall.listing().await.unwrap();
            assert!(now.is_none_or(|now| now.standing != ours), "{meddling}");
        }
    });
}
