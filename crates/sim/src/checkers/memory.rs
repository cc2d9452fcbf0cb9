//! 8. Reserved memory never exceeds a node's memory, however many placements run at once.
//!
//! A VM's memory is reserved where its desired state keeps it and where it is claimed. Judged are placements, that is transactions which
//! move
//! `/pvc/placement`: an old client may write any node it likes, and whoever starts a VM where it is asks nobody for room. A placement
//! counts on what other placements have reserved, and on such a start once it can be known. A VM whose definition nobody can read
//! reserves nothing (see `plan::placement::room`), so its placement is none that a full node refuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pvc_core::model::{DomainSpec, NodeName, VmId};

use crate::{
    checkers::Checker,
    event::{Commit, Event, Stamped},
    tree::Tree,
    truth::Truth,
};

use crate::keys;

/// How long it may take until everybody knows of what was written.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Of each VM, MiB.
    sizes: BTreeMap<VmId, u64>,
    /// Where each VM's memory is reserved.
    kept: BTreeMap<VmId, BTreeMap<String, Kept>>,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    since: Duration,
    placed: bool,
}

impl Checker for Memory {
    fn invariant(&self) -> u8 {
        8
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        let Event::Commit(commit) = &event.event else { return Ok(()) };
        let placed = commit.changes.iter().any(|change| change.path == "/pvc/placement");
        let mut gained = BTreeSet::new();
        for vm in self.concerned(commit) {
            let before = self.kept.remove(&vm).unwrap_or_default();
            let now = kept_on(tree, vm);
            if self.sizes.contains_key(&vm) {
                gained.extend(now.iter().filter(|node| !before.contains_key(*node)).cloned());
            }
            let kept = |node: String| {
                let kept = before.get(&node).copied().unwrap_or(Kept { since: truth.now, placed });
                (node, kept)
            };
            self.kept.insert(vm, now.into_iter().map(kept).collect());
        }
        if placed { gained.iter().try_for_each(|node| self.fits(truth, tree, node)) } else { Ok(()) }
    }
}

impl Memory {
    /// The VMs of which a commit has changed where they are kept; what it says of sizes is noted.
    fn concerned(&mut self, commit: &Commit) -> BTreeSet<VmId> {
        let mut concerned = BTreeSet::new();
        for change in &commit.changes {
            match keys::of_vm(&change.path) {
                Some((vm, "xml")) => {
                    // What cannot be read counts with nothing but what its node reports.
                    match DomainSpec::parse(change.is()) {
                        Ok(spec) => drop(self.sizes.insert(vm, spec.memory_mib)),
                        Err(_) => drop(self.sizes.remove(&vm)),
                    }
                }
                Some((vm, "state" | "node" | "claim")) => drop(concerned.insert(vm)),
                _ => {}
            }
        }
        concerned
    }

    fn fits(&self, truth: &Truth, tree: &Tree, node: &str) -> Result<(), String> {
        let Ok(name) = node.parse::<NodeName>() else { return Ok(()) };
        let Ok(total) = tree.node(&name, "memtotal").parse::<u64>() else { return Ok(()) };
        let known = |kept: &Kept| kept.placed || truth.since(kept.since) > KNOWN_WITHIN;
        // Of a claim that nobody can read nobody knows whom it names; what executes the node reports.
        let unknowable = |vm: &VmId| {
            let is_there = || truth.guests.get(vm).is_some_and(|runs| runs.contains_key(&name));
            truth.was_spoilt(&format!("/pvc/claim/{vm}"), KNOWN_WITHIN)
                && desired_on(tree, *vm) != Some(node)
                && !is_there()
        };
        let kept = self.kept.iter().filter(|(_, nodes)| nodes.get(node).is_some_and(known));
        let here = kept.filter(|(vm, _)| !unknowable(vm));
        let reserved: u64 = here.filter_map(|(vm, _)| self.sizes.get(vm)).sum();
        if reserved <= total {
            return Ok(());
        }
        Err(format!("a placement reserves {reserved} MiB of {node}, which has {total} MiB"))
    }
}

fn kept_on(tree: &Tree, vm: VmId) -> BTreeSet<String> {
    tree.claim(vm).chain(desired_on(tree, vm)).map(str::to_owned).collect()
}

/// Where its desired state keeps its memory.
fn desired_on(tree: &Tree, vm: VmId) -> Option<&str> {
    let desired = matches!(tree.vm(vm, "state"), "start" | "restart" | "shutdown" | "migrate");
    desired.then(|| tree.vm(vm, "node"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{History, daemon, definition, node, vm, vm_key},
        event::{Author, Guest, VANDAL},
    };

    fn path(n: u8, key: &str) -> String {
        vm_key(n, key)
    }

    /// A node of 1000 MiB, and two VMs of 600 that are off.
    fn history() -> History {
        let mut history = History::new(Memory::default());
        history.writes(&[
            ("/nodes/a/memtotal", "1000"),
            ("/nodes/b/memtotal", "1000"),
            ("/pvc/placement", ""),
        ]);
        for n in [1, 2] {
            let xml = definition(n);
            history.writes(&[(&path(n, "xml"), &xml), (&path(n, "state"), "stop"), (&path(n, "node"), "b")]);
        }
        history
    }

    fn place(history: &mut History, n: u8) -> Event {
        let keys = [(&*path(n, "node"), "a"), (&*path(n, "state"), "start"), ("/pvc/placement", "web")];
        history.commit(daemon("c"), &keys)
    }

    #[test]
    fn a_placement_for_which_there_is_no_memory_is_a_violation() {
        let mut history = history();
        let first = place(&mut history, 1);
        history.happens(first);
        let second = place(&mut history, 2);
        history.violated_by(second, "reserves 1200 MiB of a, which has 1000 MiB");
    }

    #[test]
    fn a_vm_that_nobody_can_read_reserves_nothing_and_one_that_can_be_read_is_refused_all_the_same() {
        let mut history = history();
        let first = place(&mut history, 1);
        history.happens(first).writes(&[("/nodes/a/memtotal", "500"), (&path(2, "xml"), "<domain")]);
        let unreadable = place(&mut history, 2);
        history.happens(unreadable).writes(&[(&path(1, "node"), "b")]);
        let readable = place(&mut history, 1);
        history.violated_by(readable, "reserves 600 MiB of a, which has 500 MiB");
    }

    #[test]
    fn what_is_off_under_a_claim_that_nobody_can_read_reserves_nothing_and_what_executes_does() {
        for executes in [false, true] {
            let mut history = history();
            history.on("a", 1).daemon_writes("a", &[(&path(1, "claim"), "a")]).at_s(100);
            if executes {
                history.happens(Event::Guest { vm: vm(1), node: node("a"), what: Guest::Executes });
            }
            let spoils = history.commit(Author::Client(VANDAL), &[(&path(1, "claim"), "what / is this?")]);
            // No checker sees that: for them it holds what it held.
            history.only_truth(spoils);
            let second = place(&mut history, 2);
            if executes {
                history.violated_by(second, "reserves 1200 MiB of a, which has 1000 MiB");
            } else {
                history.happens(second);
            }
        }
    }

    #[test]
    fn one_after_another_has_gone_is_none() {
        let mut history = history();
        let first = place(&mut history, 1);
        history.happens(first).writes(&[(&path(1, "state"), "stop")]);
        let second = place(&mut history, 2);
        history.happens(second);
    }

    #[test]
    fn a_claim_keeps_memory_too_and_who_writes_no_placement_is_not_judged() {
        let mut history = history();
        history.at_s(100).writes(&[(&path(1, "claim"), "a")]);
        history.writes(&[(&path(2, "node"), "a"), (&path(2, "state"), "start")]);
        history.writes(&[(&path(2, "node"), "b")]);
        let second = place(&mut history, 2);
        history.at_s(110).happens(second).writes(&[(&path(2, "node"), "b")]);
        let second = place(&mut history, 2);
        history.at_s(121).violated_by(second, "reserves 1200 MiB of a");
    }
}
