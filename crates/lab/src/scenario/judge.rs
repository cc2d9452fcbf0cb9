//! The invariants of docs/protocols.md section 9 that can be seen from outside, each a question to the evidence. An answer is a list
//! of what was wrong. Sound before complete: what is told did happen, what lasted less than an observer's glance may be missed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use super::evidence::{Evidence, Life};
use crate::observers::tree::{Change, Transaction};

#[cfg(test)]
mod tests;

/// Clocks tick in steps of up to 10 ms.
const TICK: Duration = Duration::from_millis(20);

/// What is wrong, in words.
type Question = fn(&Evidence) -> Vec<String>;

/// All questions, with their names.
pub(super) const QUESTIONS: &[(&str, Question)] = &[
    ("a VM executes on one node", runs_once),
    ("an instance that no daemon started is ended", strangers_end),
    ("no count of a guest is printed twice", counts_once),
    ("a VM executes only where it is claimed", runs_where_claimed),
    ("a claim ends by its node, or by a proof of its death", claims_end_lawfully),
    ("no healthy node is fenced", shoots_no_healthy_node),
    ("a floating address is on one node", addresses_are_held_once),
    ("a VM of a dead node is placed once", places_once),
];

fn at_risk<'a>(evidence: &'a Evidence, vm: &'a str) -> Vec<&'a Life> {
    let strange = |life: &Life| evidence.strangers.iter().any(|stranger| stranger.is(life));
    let lives = evidence.lives.iter().filter(|life| life.vm == vm && !evidence.undead.contains(&life.node));
    lives.filter(|life| !strange(life)).collect()
}

fn all_vms(evidence: &Evidence) -> BTreeSet<&str> {
    evidence.lives.iter().map(|life| life.vm.as_str()).collect()
}

/// Of two processes at one time the later one must be waiting for the other's guest.
fn runs_once(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for vm in all_vms(evidence) {
        let lives = at_risk(evidence, vm);
        for (index, one) in lives.iter().enumerate() {
            for other in &lives[index + 1..] {
                let (first, second) = if one.began <= other.began { (one, other) } else { (other, one) };
                if second.began < first.seen && !second.incoming {
                    wrong.push(format!("{vm} was started on {} while it ran on {}", second.node, first.node));
                }
            }
        }
    }
    wrong
}

fn strangers_end(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for stranger in &evidence.strangers {
        for life in evidence.lives.iter().filter(|life| stranger.is(life)) {
            let lasted = life.seen.duration_since(life.began).unwrap_or_default();
            if life.ended.is_none() || lasted > stranger.within {
                let (vm, node) = (&life.vm, &life.node);
                wrong.push(format!("{vm} was on {node} for {lasted:?}, where no daemon had started it"));
            }
        }
    }
    wrong
}

/// After a migration both sides have the guest's memory: if both went on, both count on from there.
fn counts_once(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for (vm, beats) in &evidence.beats {
        let mut seen = BTreeSet::new();
        let twice: Vec<_> = beats.iter().filter(|beat| !seen.insert(*beat)).collect();
        if let Some(first) = twice.first() {
            wrong.push(format!("{vm} counted {} times twice, first {}", twice.len(), first.count));
        }
    }
    wrong
}

/// The nodes that a claim names.
fn named(claim: Option<&str>) -> Vec<&str> {
    claim.unwrap_or_default().split_whitespace().collect()
}

fn runs_where_claimed(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for vm in all_vms(evidence) {
        let key = format!("/pvc/claim/{vm}");
        let claims: Vec<_> = evidence.history.of_key(&key).map(|(t, claim)| (t.at, named(claim))).collect();
        // What lived through the whole of `from` to `to` without being claimed by `node` for a moment of it.
        let unclaimed = |node: &str, from: SystemTime, to: SystemTime| {
            let before = claims.iter().rev().find(|(at, _)| *at <= from);
            let within = claims.iter().filter(|(at, _)| from < *at && *at <= to);
            !before.into_iter().chain(within).any(|(_, named)| named.contains(&node))
        };
        for life in at_risk(evidence, vm) {
            let began = Some(("began to run", life.began, life.began));
            let executed = life.executed.map(|(from, to)| ("executed", from, to));
            for (when, from, to) in began.into_iter().chain(executed) {
                if unclaimed(&life.node, from - TICK, to + TICK) {
                    wrong.push(format!("{vm} {when} on {}, which did not claim it", life.node));
                }
            }
        }
    }
    wrong
}

/// Who is proven dead after each transaction, from the records of fences.
struct Proofs(BTreeSet<String>);

impl Proofs {
    fn learn(&mut self, change: &Change) {
        let Some(node) = fenced(&change.path) else { return };
        if change.after.as_deref().is_some_and(|record| record.contains("\"proof\"")) {
            self.0.insert(node.to_owned());
        } else {
            self.0.remove(node);
        }
    }
}

/// The node that a record is about.
fn fenced(path: &str) -> Option<&str> {
    path.strip_prefix("/pvc/fence/").filter(|node| !node.contains('/'))
}

/// The UUID of the VM that is placed by this key.
fn vm_placed_by(change: &Change) -> Option<&str> {
    change.path.strip_prefix("/domains/")?.strip_suffix("/node")
}

fn claims_end_lawfully(evidence: &Evidence) -> Vec<String> {
    let daemons = evidence.history.daemons();
    let (mut wrong, mut dead) = (Vec::new(), Proofs(BTreeSet::new()));
    for Transaction { zxid, session, changes, .. } in &evidence.history.transactions {
        // A record that is removed with the claim's change was true before.
        for change in changes {
            let (Some(vm), Some(after)) = (change.path.strip_prefix("/pvc/claim/"), &change.after) else {
                continue;
            };
            let before = named(change.before.as_deref());
            let by = daemons.get(session).map_or("a client", String::as_str);
            for node in before.iter().filter(|node| !named(Some(after)).contains(node)) {
                // The source of a migration may give up its target, and so may who has proven that the source is dead (decision 87).
                let source = before[0];
                let decides = *node == by || (*node != source && (source == by || dead.0.contains(source)));
                if !decides && !dead.0.contains(*node) {
                    wrong.push(format!(
                        "{by} took {node} out of the claim of {vm} without a proof ({zxid:#x})"
                    ));
                }
            }
        }
        for change in changes {
            dead.learn(change);
        }
    }
    wrong
}

fn shoots_no_healthy_node(evidence: &Evidence) -> Vec<String> {
    let spared = |node: &str| !evidence.victims.contains(node) && !evidence.undead.contains(node);
    let declared = evidence.history.changes().filter_map(|(_, change)| {
        let node = change.path.strip_prefix("/nodes/")?.strip_suffix("/daemonstate")?;
        (change.after.as_deref() == Some("dead")).then(|| (node.to_owned(), "was declared dead"))
    });
    let shot = evidence.machines.iter().filter_map(|happening| {
        let (number, button) = happening.what.strip_prefix("ByBmc(")?.strip_suffix(')')?.split_once(", ")?;
        (button != "On").then(|| (format!("node{number}"), "was switched off by its BMC"))
    });
    let reset = evidence.machines.iter().filter_map(|happening| {
        let (node, _) = happening.what.split_once(": its watchdog was not fed")?;
        Some((node.to_owned(), "was reset by its watchdog"))
    });
    let all: BTreeSet<_> = declared.chain(shot).chain(reset).filter(|(node, _)| spared(node)).collect();
    all.into_iter().map(|(node, what)| format!("{node} {what}, and nothing was wrong with it")).collect()
}

fn addresses_are_held_once(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for (address, tenures) in &evidence.tenures {
        for (index, one) in tenures.iter().enumerate() {
            for other in &tenures[index + 1..] {
                let (first, second) = if one.came <= other.came { (one, other) } else { (other, one) };
                if one.node == other.node || first.went.is_some_and(|went| went <= second.came) {
                    continue;
                }
                let how_long = first.went.and_then(|went| went.duration_since(second.came).ok());
                wrong.push(format!(
                    "{address} came to {} while {} had it, which lasted {how_long:?}",
                    second.node, first.node
                ));
            }
        }
    }
    wrong
}

/// A fence gives each VM of its node one new node, however often its fencer dies.
fn places_once(evidence: &Evidence) -> Vec<String> {
    let (mut wrong, mut dead) = (Vec::new(), Proofs(BTreeSet::new()));
    let mut placed: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for change in evidence.history.changes().map(|(_, change)| change) {
        if let Some(node) = fenced(&change.path)
            && (change.before.is_none() || change.after.is_none())
        {
            // Another fence of it.
            placed.retain(|(of, _), _| *of != node);
        }
        dead.learn(change);
        let (Some(vm), Some(from), Some(to)) = (vm_placed_by(change), &change.before, &change.after) else {
            continue;
        };
        if from != to && dead.0.contains(from) {
            let times = placed.entry((from, vm)).or_default();
            *times += 1;
            if *times == 2 {
                wrong.push(format!("{vm} was placed twice when {from} was dead"));
            }
        }
    }
    wrong
}
