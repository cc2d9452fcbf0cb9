//! 2. An instance started by recovery has a proof of death of the earlier node, of that boot of it.
//!
//! Four moments at which it shows: the proof is recorded (that boot must be over), a node leaves a claim, by its own hand or
//! another's (nothing of the VM may be left there; nor may another node's last word say otherwise, see `last_word`), a node is shut out of the storage (nothing may be left that has these images),
//! and a guest begins to execute (the claim must name its node: whoever starts without has no proof of anything).
//!
//! A machine whose BMC lies is excused, as in number 1.

use std::{collections::BTreeMap, time::Duration};

use pvc_core::model::{FenceJob, NodeName, VmId};

use crate::{
    checkers::Checker,
    event::{Change, Commit, Event, Guest, Stamped},
    tree::Tree,
    truth::{Daemon, Run, Truth},
};

use super::last_word::LastWords;
use crate::keys;

/// How long a write may wait for a connection after its daemon has looked: what somebody's hand starts meanwhile it cannot know.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// How long a proof of death is acted on, and a write of it may be on its way: what is started in another boot meanwhile nobody knows of.
const PROOF_HOLDS: Duration = Duration::from_secs(70);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// The boot in which each node was heard of last: the one that has fallen silent.
    heard: BTreeMap<NodeName, Option<u64>>,
    /// The same of fenced nodes: when their fence began, or later, if they have spoken since. (What is proven is not looked at again.)
    declared: BTreeMap<NodeName, Option<u64>>,
    words: LastWords,
}

impl Checker for Proof {
    fn invariant(&self) -> u8 {
        2
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Commit(commit) => {
                for change in &commit.changes {
                    self.hear(truth, commit, change);
                    self.recorded(truth, change)?;
                    self.taken(truth, commit, change)?;
                }
                self.words.step(truth, tree, commit)
            }
            Event::Guest { vm, node, what: Guest::Executes } => covered(truth, tree, *vm, node),
            Event::ShutOut { by, of, images } => self.shut_out(truth, tree, by, of, images),
            _ => Ok(()),
        }
    }
}

impl Proof {
    fn hear(&mut self, truth: &Truth, commit: &Commit, change: &Change) {
        if let (Some((node, "keepalive")), Some(by)) = (keys::of_node(&change.path), commit.daemon())
            && node == *by
        {
            let machine = truth.machine(by);
            // One that was on its way when its machine was reset is no word of the next boot, in which no daemon runs yet.
            if machine.daemon != Daemon::Absent || !self.heard.contains_key(&node) {
                self.declared.entry(node.clone()).and_modify(|boot| *boot = machine.boot);
                self.heard.insert(node, machine.boot);
            }
        }
    }

    fn recorded(&mut self, truth: &Truth, change: &Change) -> Result<(), String> {
        let Some(node) = keys::of_fence(&change.path) else { return Ok(()) };
        if change.after.is_none() {
            self.declared.remove(&node);
            return Ok(());
        }
        let machine = truth.machine(&node);
        let heard = self.heard.get(&node).copied().unwrap_or(machine.boot);
        let declared = *self.declared.entry(node.clone()).or_insert(heard);
        let proof = |text: &str| serde_json::from_str::<FenceJob>(text).ok()?.step.proof();
        let (None, Some(proof)) = (proof(change.was()), proof(change.is())) else { return Ok(()) };
        if machine.boot.is_some() && machine.boot == declared && !machine.bmc_lies {
            return Err(format!("{node} is taken for dead ({proof}), and lives on in the same boot"));
        }
        Ok(())
    }

    /// Whoever leaves a claim, by whosever hand, has nothing of the VM any more.
    fn taken(&self, truth: &Truth, commit: &Commit, change: &Change) -> Result<(), String> {
        let (Some(by), Some((vm, "claim"))) = (commit.daemon(), keys::of_vm(&change.path)) else {
            return Ok(());
        };
        let left = |node: &&str| !change.is().split_whitespace().any(|other| other == *node);
        for name in change.was().split_whitespace().filter(left) {
            let Ok(node) = name.parse::<NodeName>() else { continue };
            let run = truth.guests.get(&vm).and_then(|runs| runs.get(&node));
            // What is held or unstarted on the node that gives up its own claim goes on nowhere without it; nor does what a migration has
            // brought to its target, which goes with its source (decision 87).
            let is_target = change.was().split_whitespace().next() != Some(name);
            let is_there = run.is_some_and(|run| {
                // What libvirt starts by itself in a boot of which nobody has heard is number 1's, as in `covered`.
                let unheard_of = run.by_hand
                    && node != *by
                    && self.is_of_another_boot(&node, run)
                    && truth.since(run.began) < PROOF_HOLDS;
                let on_its_way = run.by_hand && node == *by && truth.since(run.began) < ON_ITS_WAY;
                let at_all = run.executes || node != *by && !is_target && !self.goes_on_nowhere(&node, run);
                at_all && !on_its_way && !unheard_of
            });
            if is_there && !truth.machine(&node).bmc_lies {
                return Err(format!(
                    "{by} took {node} out of the claim of {vm}, which still has a process there"
                ));
            }
        }
        Ok(())
    }

    fn shut_out(
        &self,
        truth: &Truth,
        tree: &Tree,
        by: &NodeName,
        of: &NodeName,
        images: &[String],
    ) -> Result<(), String> {
        if truth.machine(of).bmc_lies {
            return Ok(());
        }
        // What a failed migration has left, of which no claim will ever name this node alone, was never let go on and has nothing to write.
        let claimed = |vm: &VmId| tree.claim(*vm).eq([of.as_str()]);
        let writes = |vm: &VmId, run: &Run| (run.executed || claimed(vm)) && !self.goes_on_nowhere(of, run);
        let here = truth.guests.iter().filter(|(vm, runs)| runs.get(of).is_some_and(|run| writes(vm, run)));
        for (vm, _) in here {
            if let Some(image) =
                tree.vm(*vm, "rbdlist").split(',').find(|image| images.iter().any(|i| i == image))
            {
                return Err(format!(
                    "{by} shut {of} out of {image}, and {vm}, which writes to it, still lives there"
                ));
            }
        }
        Ok(())
    }

    /// What a migration has brought to a node in a boot in which its daemon has not said a word: that asks for the claim before it lets
    /// anything go on, and a proof that silence gives is of the boot before.
    fn goes_on_nowhere(&self, node: &NodeName, run: &Run) -> bool {
        !run.executes && self.is_of_another_boot(node, run)
    }

    /// Its machine has booted since its daemon was last heard.
    fn is_of_another_boot(&self, node: &NodeName, run: &Run) -> bool {
        self.heard.get(node).is_some_and(|heard| *heard != Some(run.boot))
    }
}

/// Who executes it may be executing it.
fn covered(truth: &Truth, tree: &Tree, vm: VmId, node: &NodeName) -> Result<(), String> {
    let is_there = tree.key(&format!("/domains/{vm}")).is_some();
    let claimed = tree.claim(vm).any(|name| name == node.as_str());
    // What no daemon has started: number 1's.
    let strange = truth.strangers.contains_key(&(vm, node.clone()));
    if claimed || strange || !is_there || truth.machine(node).bmc_lies {
        return Ok(());
    }
    Err(format!("{vm} begins to execute on {node}, while its claim is {:?}", tree.vm(vm, "claim")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{History, daemon, node, vm, vm_key},
        event::{self, Machine},
    };

    const SHOOTING: &str = r#"{"step":"shooting","instance":null,"by":"a","at_unix_s":0}"#;
    const PROVEN: &str =
        r#"{"step":"proven","proof":"reset-accepted","instance":null,"by":"a","at_unix_s":0}"#;

    fn claim() -> String {
        vm_key(1, "claim")
    }

    /// VM 1 executes on `x`, where it is claimed, and has an image.
    fn history() -> History {
        let mut history = History::new(Proof::default());
        history.on("a", 1).on("x", 1).writes(&[
            (&format!("/domains/{}", vm(1)), "web"),
            (&claim(), "x"),
            (&format!("/domains/{}/rbdlist", vm(1)), "vms/one,vms/two"),
        ]);
        history.happens(guest("x", Guest::Executes));
        history
    }

    fn guest(on: &str, what: Guest) -> Event {
        Event::Guest { vm: vm(1), node: node(on), what }
    }

    fn machine(name: &str, what: Machine) -> Event {
        Event::Machine { node: node(name), what }
    }

    #[test]
    fn a_proof_of_a_boot_that_goes_on_is_a_violation() {
        let mut history = history();
        history.daemon_writes("a", &[("/pvc/fence/x", SHOOTING)]);
        let proof = history.commit(daemon("a"), &[("/pvc/fence/x", PROVEN)]);
        history.violated_by(proof, "lives on in the same boot");
    }

    #[test]
    fn a_proof_of_a_boot_that_is_over_is_none_whatever_came_after_it() {
        let mut history = history();
        history.daemon_writes("a", &[("/pvc/fence/x", SHOOTING)]);
        history.happens(machine("x", Machine::Off)).on("x", 2);
        history.daemon_writes("a", &[("/pvc/fence/x", PROVEN)]).daemon_writes("a", &[(&claim(), "")]);
    }

    #[test]
    fn a_proof_of_a_node_that_has_spoken_in_another_boot_since_its_fence_began_is_about_that_boot() {
        let mut history = history();
        history.daemon_writes("x", &[("/nodes/x/keepalive", "1")]);
        history.daemon_writes("a", &[("/pvc/fence/x", SHOOTING)]);
        history.happens(machine("x", Machine::Off)).on("x", 2);
        history.happens(Event::Daemon { node: node("x"), what: event::Daemon::Started { run: 2 } });
        history.daemon_writes("x", &[("/nodes/x/keepalive", "2")]);
        let proof = history.commit(daemon("a"), &[("/pvc/fence/x", PROVEN)]);
        history.violated_by(proof, "lives on in the same boot");
    }

    #[test]
    fn a_daemon_cannot_know_what_was_started_by_hand_since_it_looked() {
        let started = || {
            let mut history = History::new(Proof::default());
            history.on("x", 1).writes(&[(&claim(), "x")]);
            history.at_s(10).happens(Event::Stranger { vm: vm(1), node: node("x"), claimed: true });
            history.happens(guest("x", Guest::Executes));
            history
        };
        started().at_s(14).daemon_writes("x", &[(&claim(), "")]);
        let mut late = started();
        let taken = late.commit(daemon("x"), &[(&claim(), "")]);
        late.at_s(21).violated_by(taken, "still has a process there");
        let mut other = started();
        let taken = other.commit(daemon("a"), &[(&claim(), "")]);
        other.at_s(14).violated_by(taken, "still has a process there");
    }

    #[test]
    fn what_was_started_by_hand_in_a_boot_that_nobody_heard_excuses_for_as_long_as_a_proof_holds() {
        let started = || {
            let mut history = History::new(Proof::default());
            history.on("x", 1).writes(&[(&claim(), "x")]);
            history.daemon_writes("x", &[("/nodes/x/keepalive", "1")]);
            history.happens(machine("x", Machine::Off)).on("x", 2);
            history.at_s(10).happens(Event::Stranger { vm: vm(1), node: node("x"), claimed: true });
            history.happens(guest("x", Guest::Executes));
            history
        };
        started().at_s(79).daemon_writes("a", &[(&claim(), "")]);
        let mut late = started();
        let taken = late.commit(daemon("a"), &[(&claim(), "")]);
        late.at_s(81).violated_by(taken, "still has a process there");
    }

    #[test]
    fn what_a_migration_brought_to_a_boot_that_has_not_said_a_word_goes_on_nowhere() {
        let arrival = |speaks: bool| {
            let mut history = history();
            history.daemon_writes("x", &[("/nodes/x/keepalive", "1")]);
            history.happens(machine("x", Machine::Off)).on("x", 2);
            history.happens(Event::Daemon { node: node("x"), what: event::Daemon::Started { run: 2 } });
            if speaks {
                history.daemon_writes("x", &[("/nodes/x/keepalive", "2")]);
            }
            history.happens(guest("x", Guest::Held));
            history
        };
        let mut silent = arrival(false);
        silent.daemon_writes("a", &[(&claim(), "")]);
        let mut spoke = arrival(true);
        let taken = spoke.commit(daemon("a"), &[(&claim(), "")]);
        spoke.violated_by(taken, "still has a process there");
    }

    #[test]
    fn a_boot_that_has_not_said_a_word_yet_is_not_the_one_that_fell_silent() {
        let mut history = history();
        history.daemon_writes("x", &[("/nodes/x/keepalive", "1")]);
        history.happens(machine("x", Machine::Off)).on("x", 2);
        // The last word of the boot before.
        history.daemon_writes("x", &[("/nodes/x/keepalive", "2")]);
        history.daemon_writes("a", &[("/pvc/fence/x", SHOOTING)]);
        history.daemon_writes("a", &[("/pvc/fence/x", PROVEN)]);
    }

    #[test]
    fn of_a_machine_whose_bmc_lied_nobody_can_know() {
        let mut history = history();
        history.daemon_writes("a", &[("/pvc/fence/x", SHOOTING)]);
        history.happens(machine("x", Machine::BmcLies(true)));
        history.daemon_writes("a", &[("/pvc/fence/x", PROVEN)]).daemon_writes("a", &[(&claim(), "")]);
    }

    #[test]
    fn a_claim_that_is_taken_from_a_node_that_has_a_process_is_a_violation() {
        let mut history = history();
        history.happens(machine("x", Machine::Frozen));
        let stolen = history.commit(daemon("a"), &[(&claim(), "a")]);
        history.violated_by(stolen, "still has a process there");
    }

    #[test]
    fn the_target_of_a_migration_leaves_a_claim_with_what_has_arrived_unless_it_executes() {
        let mut history = history();
        history.writes(&[(&claim(), "a x")]).happens(guest("x", Guest::Held));
        history.daemon_writes("a", &[(&claim(), "a")]).writes(&[(&claim(), "a x")]);
        history.happens(guest("x", Guest::Executes));
        let stolen = history.commit(daemon("a"), &[(&claim(), "a")]);
        history.violated_by(stolen, "a took x out of the claim");
    }

    #[test]
    fn a_node_gives_up_its_own_claim_when_nothing_is_left() {
        let mut early = history();
        let release = early.commit(daemon("x"), &[(&claim(), "")]);
        early.violated_by(release, "x took x out of the claim");
        let mut right = history();
        right.happens(guest("x", Guest::Gone)).daemon_writes("x", &[(&claim(), "")]);
    }

    #[test]
    fn a_claim_against_the_last_word_of_another_node_is_a_violation() {
        let mut history = history();
        let says = "/nodes/x/runningdomains";
        history.daemon_writes("x", &[(says, &vm(1).to_string())]);
        history.happens(guest("x", Guest::Gone)).daemon_writes("x", &[(&claim(), "")]);
        // The release is younger than the word.
        history.daemon_writes("a", &[(&claim(), "a")]).daemon_writes("a", &[(&claim(), "")]);
        history.daemon_writes("x", &[(says, &vm(1).to_string())]);
        let against = history.commit(daemon("a"), &[(&claim(), "a")]);
        history.violated_by(against, "the last word of x");
        history.daemon_writes("a", &[(&claim(), "")]).daemon_writes("x", &[(says, &vm(1).to_string())]);
        history.happens(machine("x", Machine::Off));
        history.writes(&[("/nodes/x/daemonstate", "dead"), ("/pvc/fence/x", PROVEN)]);
        history.daemon_writes("a", &[(&claim(), "a")]);
    }

    #[test]
    fn a_guest_that_executes_where_it_is_not_claimed_is_a_violation() {
        let mut history = history();
        history.happens(guest("x", Guest::Gone));
        history.violated_by(guest("a", Guest::Executes), "while its claim is \"x\"");
    }

    #[test]
    fn breaking_the_locks_of_a_guest_that_lives_is_a_violation() {
        let mut history = history();
        let event = |image: &str| Event::ShutOut { by: node("a"), of: node("x"), images: vec![image.into()] };
        history.happens(event("vms/three"));
        history.happens(machine("x", Machine::Off)).happens(event("vms/two"));
        history
            .on("x", 2)
            .writes(&[(&claim(), "a x")])
            .happens(guest("x", Guest::Held))
            .happens(event("vms/two"));
        history.writes(&[(&claim(), "x")]);
        history.violated_by(event("vms/two"), "shut x out of vms/two");
        history.happens(guest("x", Guest::Executes));
        history.violated_by(event("vms/two"), "shut x out of vms/two");
        history.happens(guest("x", Guest::Held));
        history.violated_by(event("vms/two"), "shut x out of vms/two");
    }
}
