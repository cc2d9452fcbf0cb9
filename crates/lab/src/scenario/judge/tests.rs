use std::time::UNIX_EPOCH;

use super::{
    super::evidence::{Happening, Stranger},
    *,
};
use crate::{Beat, devices::addresses::Tenure, observers::tree::History};

/// Sessions of the daemons, by node number; others are clients.
const CLIENT: i64 = 99;

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn life(node: &str, began: u64, seen: u64) -> Life {
    let executed = Some((at(seen.saturating_sub(50).max(began)), at(seen)));
    let (node, vm, began, seen, ended) =
        (node.to_owned(), "u".to_owned(), at(began), at(seen), at(seen + 50));
    Life { node, vm, incoming: false, began, seen, executed, ended: Some(ended) }
}

/// A history in which keys were written: when (ms), by which session, what.
fn history(writes: &[(u64, i64, &str, &str)]) -> History {
    let mut tree = BTreeMap::new();
    let daemons = [1, 2, 3].map(|n| (0, n, format!("/pvc/daemon/node{n}"), "{}".to_owned()));
    let writes = writes.iter().map(|(ms, by, path, value)| (*ms, *by, (*path).into(), (*value).into()));
    let transaction = |(zxid, (ms, session, path, after)): (usize, (u64, i64, String, String))| {
        let before = tree.insert(path.clone(), after.clone());
        let changes = vec![Change { path, before, after: Some(after) }];
        Transaction { zxid: i64::try_from(zxid).unwrap(), at: at(ms), session, changes }
    };
    History { transactions: daemons.into_iter().chain(writes).enumerate().map(transaction).collect() }
}

const CLAIM: &str = "/pvc/claim/u";
const NODE: &str = "/domains/u/node";
const FENCE: &str = "/pvc/fence/node1";
const SHOOTING: &str = r#"{"step":"shooting"}"#;
const PROVEN: &str = r#"{"step":"proven","proof":"power-off"}"#;

/// A node that died at 5000, with the VM that ran there.
fn failover() -> Evidence {
    Evidence {
        history: history(&[
            (900, CLIENT, NODE, "node1"),
            (1000, 1, CLAIM, "node1"),
            (6000, 2, "/nodes/node1/daemonstate", "dead"),
            (6000, 2, FENCE, SHOOTING),
            (7000, 2, FENCE, PROVEN),
            (7100, 2, CLAIM, ""),
            (7100, 2, NODE, "node2"),
            (7200, 2, CLAIM, "node2"),
        ]),
        lives: vec![life("node1", 1100, 5000), life("node2", 7300, 9000)],
        machines: vec![Happening { at: at(6500), what: "ByBmc(1, Off)".into() }],
        victims: BTreeSet::from(["node1".to_owned()]),
        ..Evidence::default()
    }
}

/// What each question finds wrong, the silent ones left out.
fn verdicts(evidence: &Evidence) -> Vec<&'static str> {
    let wrong = QUESTIONS.iter().filter(|(_, question)| !question(evidence).is_empty());
    wrong.map(|(name, _)| *name).collect()
}

#[test]
fn a_lawful_failover_leaves_nothing_to_say() {
    assert_eq!(verdicts(&failover()), [""; 0]);
}

#[test]
fn two_processes_at_one_time_are_a_vm_that_runs_twice() {
    let mut evidence = failover();
    evidence.lives[0].seen = at(7350);
    assert_eq!(runs_once(&evidence), ["u was started on node2 while it ran on node1"]);
    evidence.undead.insert("node1".into());
    assert_eq!(runs_once(&evidence), [""; 0], "the scenario lied about its death");
}

#[test]
fn what_no_daemon_started_is_judged_by_its_end_alone() {
    let mut evidence = failover();
    evidence.lives.push(life("node3", 7500, 8500));
    assert!(!verdicts(&evidence).is_empty());
    let (node, vm, since) = ("node3".to_owned(), "u".to_owned(), at(7400));
    evidence.strangers.push(Stranger { node, vm, since, within: Duration::from_secs(1) });
    assert_eq!(verdicts(&evidence), [""; 0]);
    evidence.lives[2].seen = at(8501);
    assert_eq!(strangers_end(&evidence), ["u was on node3 for 1.001s, where no daemon had started it"]);
}

#[test]
fn a_process_that_waits_for_a_guest_does_not_execute() {
    let migration =
        history(&[(1000, 1, CLAIM, "node1"), (2000, 1, CLAIM, "node1 node2"), (3000, 1, CLAIM, "node2")]);
    let target = Life { incoming: true, ..life("node2", 2100, 9000) };
    let lives = vec![life("node1", 1100, 2900), target];
    let evidence = Evidence { history: migration, lives, ..Evidence::default() };
    assert_eq!(verdicts(&evidence), [""; 0]);
    // The source's process ends after its guest has left.
    let mut evidence = evidence;
    evidence.lives[0].seen = at(3100);
    assert_eq!(verdicts(&evidence), [""; 0]);
    evidence.lives[0].executed = Some((at(3050), at(3100)));
    assert_eq!(verdicts(&evidence), ["a VM executes only where it is claimed"]);
}

#[test]
fn a_process_without_a_claim_is_found_at_its_beginning_and_at_its_end() {
    let mut early = failover();
    early.lives[0].began = at(900);
    let mut late = failover();
    late.lives[0].executed = Some((at(7140), at(7190)));
    for evidence in [early, late] {
        assert_eq!(verdicts(&evidence), ["a VM executes only where it is claimed"]);
    }
}

#[test]
fn a_claim_that_somebody_else_ends_needs_a_proof() {
    let unproven = |by| history(&[(1, 1, CLAIM, "node1"), (2, 2, FENCE, SHOOTING), (3, by, CLAIM, "")]);
    let found = |by| claims_end_lawfully(&Evidence { history: unproven(by), ..Evidence::default() }).len();
    assert_eq!([found(1), found(2), found(CLIENT)], [0, 1, 1]);
    // The source of a migration may, its target may not.
    let shared = |by| history(&[(1, 1, CLAIM, "node1 node2"), (2, by, CLAIM, "node3")]);
    let found = |by| claims_end_lawfully(&Evidence { history: shared(by), ..Evidence::default() }).len();
    assert_eq!([found(1), found(2)], [0, 1]);
    // With a dead source its target's copy ends, with a dead target nothing of the source.
    let fenced = |claim| history(&[(1, 1, CLAIM, claim), (2, 2, FENCE, PROVEN), (3, 2, CLAIM, "")]);
    let found =
        |claim| claims_end_lawfully(&Evidence { history: fenced(claim), ..Evidence::default() }).len();
    assert_eq!([found("node1 node3"), found("node3 node1")], [0, 1]);
}

#[test]
fn a_node_that_nobody_hurt_must_not_be_shot() {
    let mut evidence = failover();
    evidence.victims.clear();
    assert_eq!(
        shoots_no_healthy_node(&evidence),
        [
            "node1 was declared dead, and nothing was wrong with it",
            "node1 was switched off by its BMC, and nothing was wrong with it"
        ]
    );
    let reset = Happening { at: at(1), what: "node2: its watchdog was not fed".into() };
    let evidence = Evidence { machines: vec![reset], ..Evidence::default() };
    assert_eq!(shoots_no_healthy_node(&evidence).len(), 1);
}

#[test]
fn an_address_that_comes_before_it_went_elsewhere_is_on_two_nodes() {
    let tenure = |node: &str, came, went: Option<u64>| Tenure {
        node: node.into(),
        came: at(came),
        went: went.map(at),
    };
    let found = |went| {
        let tenures = vec![tenure("node1", 1000, went), tenure("node2", 2000, None)];
        let tenures = BTreeMap::from([("10.255.0.250".to_owned(), tenures)]);
        addresses_are_held_once(&Evidence { tenures, ..Evidence::default() }).len()
    };
    assert_eq!([found(Some(2000)), found(Some(2001)), found(None)], [0, 1, 1]);
}

#[test]
fn a_count_that_is_printed_twice_is_a_guest_that_went_on_twice() {
    let beat = |count| Beat { life: "a".into(), count };
    let found = |counts: &[u64]| {
        let beats = BTreeMap::from([("vm1".to_owned(), counts.iter().map(|n| beat(*n)).collect())]);
        counts_once(&Evidence { beats, ..Evidence::default() })
    };
    assert_eq!(found(&[1, 2, 3]), [""; 0]);
    assert_eq!(found(&[1, 2, 3, 2]), ["vm1 counted 1 times twice, first 2"]);
}

#[test]
fn a_second_home_after_one_death_is_one_too_many() {
    let twice = [
        (1, CLIENT, NODE, "node1"),
        (2, 2, FENCE, PROVEN),
        (3, 2, NODE, "node2"),
        (4, CLIENT, NODE, "node1"),
        (5, 3, NODE, "node3"),
    ];
    let found = |writes| places_once(&Evidence { history: history(writes), ..Evidence::default() });
    assert_eq!(found(&twice), ["u was placed twice when node1 was dead"]);
    assert_eq!(found(&twice[..3]), [""; 0]);
}
