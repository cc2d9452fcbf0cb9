//! 4. A newer command of a client is never overwritten by an older answer.
//!
//! Desired state and answer share a key, so an answer is told from what it replaces: nothing that a daemon may say about a VM makes a
//! `start` a
//! `stop`, or a `stop` a `start`. A second desired state of the same name is told from what it asks for: a guest that is younger than a
//! `restart`, a node that says that the VM runs where it was to go. What a daemon *asks for* in a client's stead (a flush, a recovery) is no answer, and is told by what
//! it writes beside it.

use std::{collections::BTreeMap, time::Duration};

use pvc_core::model::{NodeName, VmId};

use crate::{
    checkers::Checker,
    event::{Author, Change, Commit, Event, Stamped},
    tree::Tree,
    truth::Truth,
};

use crate::keys;

/// How long a request for another primary is waited for before the holder says that it stays.
const TAKE_WITHIN: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// When the request for a primary was last written by a client, and in which transaction.
    primary_desired: Option<(Duration, i64)>,
    /// When each VM's restart was last asked for by a client.
    restart_desired: BTreeMap<VmId, Duration>,
    /// In which transaction each node took the key of the primary.
    tenure: BTreeMap<NodeName, i64>,
}

impl Checker for Answers {
    fn invariant(&self) -> u8 {
        4
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        let Event::Commit(commit) = &event.event else { return Ok(()) };
        for change in &commit.changes {
            match change.path.as_str() {
                "/primary_node" => self.primary(truth, tree, commit, change)?,
                "/pvc/primary" => {
                    if let Some(holder) = commit.daemon().filter(|_| change.after.is_some()) {
                        self.tenure.insert(holder.clone(), commit.zxid);
                    }
                }
                _ => {}
            }
            let Some(by) = commit.daemon() else {
                if let Some((vm, "state")) = keys::of_vm(&change.path)
                    && change.is() == "restart"
                {
                    self.restart_desired.insert(vm, truth.now);
                }
                continue;
            };
            if change.was() == change.is() || change.before.is_none() || change.after.is_none() {
                continue;
            }
            let allowed = match (keys::of_vm(&change.path), keys::of_node(&change.path)) {
                (Some((_, "state")), _) => of_vm(commit, change),
                (_, Some((node, "domainstate"))) => of_node(by, &node, commit, change),
                _ => true,
            };
            if !allowed {
                let (was, is) = (change.was(), change.is());
                return Err(format!(
                    "{by} answers {is:?} where the desired state is {was:?} by now: {}",
                    change.path
                ));
            }
            if let (Some((vm, "state")), "start") = (keys::of_vm(&change.path), change.is()) {
                self.runs(truth, tree, commit, by, (vm, change))?;
            }
        }
        Ok(())
    }
}

fn of_vm(commit: &Commit, change: &Change) -> bool {
    let beside = |key: &str| {
        let parent = change.path.trim_end_matches("state");
        commit.changes.iter().any(|other| other.path == format!("{parent}{key}"))
    };
    match (change.was(), change.is()) {
        // Answers.
        ("start" | "restart" | "migrate", "failed")
        | ("shutdown", "stop")
        | ("restart" | "migrate", "start")
        // A flush sends it away or, if it cannot go, shuts it down.
        | ("start" | "failed" | "migrate", "migrate" | "shutdown") => true,
        // The `stop` that a definition begins with is no command: who adopts a guest under it says so.
        ("stop", "start") if is_as_defined(change) && claims(commit, change) => true,
        // An unflush sends it back, or starts it at home. A node that failed it may start it where it is given a home.
        ("stop" | "shutdown" | "failed", "start") => beside("lastnode"),
        _ => false,
    }
}

fn is_as_defined(change: &Change) -> bool {
    change.before.as_ref().is_some_and(|key| key.version == 0)
}

/// Whether a commit changes the claim of the VM that a change is about.
fn claims(commit: &Commit, change: &Change) -> bool {
    let vm = keys::of_vm(&change.path).map(|(vm, _)| vm);
    let claim =
        |other: &Change| keys::of_vm(&other.path).filter(|(_, key)| *key == "claim").map(|(vm, _)| vm);
    commit.changes.iter().any(|other| claim(other).is_some() && claim(other) == vm)
}

fn of_node(by: &NodeName, node: &NodeName, commit: &Commit, change: &Change) -> bool {
    match (change.was(), change.is()) {
        ("flush", "flushed") | ("unflush", "ready") if by == node => true,
        // A fenced node has no VMs any more.
        (_, "flushed") => by != node && commit.is_about("/pvc/fence/"),
        _ => false,
    }
}

impl Answers {
    /// Who answers that a VM runs has it where it is desired, and a guest that is younger than the command for another.
    fn runs(
        &self,
        truth: &Truth,
        tree: &Tree,
        commit: &Commit,
        by: &NodeName,
        (vm, change): (VmId, &Change),
    ) -> Result<(), String> {
        let was = change.was();
        if !matches!(was, "restart" | "migrate") || commit.is_about("/pvc/fence/") {
            return Ok(());
        }
        let desired_on = tree.vm(vm, "node");
        if desired_on != by.as_str() {
            return Err(format!("{by} answers that {vm} runs, where it is desired on {desired_on} by now"));
        }
        // Who says why it was not restarted does not say that it was.
        let why = |change: &Change| {
            keys::of_vm(&change.path) == Some((vm, "failedreason")) && !change.is().is_empty()
        };
        if commit.changes.iter().any(why) {
            return Ok(());
        }
        let desired = self.restart_desired.get(&vm).copied().unwrap_or_default();
        let run = truth.guests.get(&vm).and_then(|runs| runs.get(by));
        if was == "restart" && run.is_some_and(|run| run.began < desired) {
            return Err(format!(
                "{by} answers that {vm} was restarted, and its guest is older than that command"
            ));
        }
        Ok(())
    }

    fn primary(
        &mut self,
        truth: &Truth,
        tree: &Tree,
        commit: &Commit,
        change: &Change,
    ) -> Result<(), String> {
        let by = match &commit.by {
            Author::Daemon { node, .. } => node,
            Author::Client(_) => {
                self.primary_desired = Some((truth.now, commit.zxid));
                return Ok(());
            }
            Author::Servers => return Ok(()),
        };
        let (Ok(desired), Some((at, zxid))) = (change.was().parse::<NodeName>(), self.primary_desired.take())
        else {
            return Ok(());
        };
        let is_candidate =
            tree.node(&desired, "daemonstate") == "run" && tree.node(&desired, "daemonmode") == "coordinator";
        let is_command = self.tenure.get(by).is_none_or(|tenure| *tenure < zxid);
        if desired != *by && is_candidate && is_command && truth.now < at + TAKE_WITHIN {
            return Err(format!(
                "{by} answers that it is primary, where the desired state is {desired} by now"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{History, daemon, node, vm},
        event::Guest,
    };

    fn path(key: &str) -> String {
        format!("/domains/{}/{key}", vm(1))
    }

    fn desired(state: &str) -> History {
        let mut history = History::new(Answers::default());
        history.writes(&[(&path("state"), state), (&path("node"), "a"), (&path("lastnode"), "")]);
        history
    }

    #[test]
    fn who_adopts_a_guest_that_was_just_defined_answers_that_it_runs() {
        let mut history = History::new(Answers::default());
        history.writes(&[(&path("state"), "stop"), (&path("node"), "b"), (&path("claim"), "")]);
        history.daemon_writes("a", &[(&path("state"), "start"), (&path("node"), "a"), (&path("claim"), "a")]);
    }

    #[test]
    fn an_answer_to_a_desired_state_that_is_gone_is_a_violation() {
        for (desired_now, answer) in [
            ("start", "stop"),
            ("restart", "stop"),
            ("stop", "start"),
            ("shutdown", "start"),
            ("delete", "start"),
        ] {
            let mut history = desired(desired_now);
            let late = history.commit(daemon("a"), &[(&path("state"), answer)]);
            history.violated_by(late, "by now");
        }
    }

    #[test]
    fn answers_to_the_desired_state_and_what_flush_and_unflush_desired_state_are_none() {
        for (desired_now, answer) in [
            ("shutdown", "stop"),
            ("restart", "start"),
            ("migrate", "start"),
            ("start", "failed"),
            ("start", "migrate"),
        ] {
            desired(desired_now).daemon_writes("a", &[(&path("state"), answer)]);
        }
        desired("stop").daemon_writes("a", &[(&path("state"), "start"), (&path("lastnode"), "")]);
    }

    #[test]
    fn an_answer_to_a_restart_is_of_a_guest_that_is_younger_than_the_desired_state() {
        let state = path("state");
        let executes = || Event::Guest { vm: vm(1), node: node("a"), what: Guest::Executes };
        let answer = |history: &mut History| history.commit(daemon("a"), &[(&state, "start")]);
        let mut history = desired("start");
        history.on("a", 1);
        history.at_s(10).writes(&[(&state, "restart")]);
        history.at_s(20).happens(executes());
        let first = answer(&mut history);
        history.at_s(21).happens(first);
        history.at_s(30).writes(&[(&state, "restart")]);
        history.at_s(40).happens(executes());
        history.writes(&[(&state, "restart")]);
        let late = answer(&mut history);
        history.violated_by(late, "older than that command");
    }

    #[test]
    fn a_restart_may_be_refused_with_a_reason() {
        let mut history = desired("start");
        history.on("a", 1).happens(Event::Guest { vm: vm(1), node: node("a"), what: Guest::Executes });
        history.at_s(30).writes(&[(&path("state"), "restart")]);
        history.daemon_writes("a", &[(&path("state"), "start"), (&path("failedreason"), "no memory in it")]);
    }

    #[test]
    fn who_answers_that_a_vm_runs_is_where_it_is_desired() {
        let answer = |history: &mut History| history.commit(daemon("a"), &[(&path("state"), "start")]);
        let mut history = desired("migrate");
        let arrived = answer(&mut history);
        history.happens(arrived);
        history.writes(&[(&path("state"), "migrate"), (&path("node"), "b"), (&path("lastnode"), "a")]);
        let late = answer(&mut history);
        history.violated_by(late, "desired on b by now");
    }

    #[test]
    fn only_the_desired_state_about_a_node_that_is_meant_is_answered() {
        let key = "/nodes/a/domainstate";
        let mut history = History::new(Answers::default());
        history.writes(&[(key, "flush")]).daemon_writes("a", &[(key, "flushed")]);
        history.writes(&[(key, "unflush")]);
        let late = history.commit(daemon("a"), &[(key, "flushed")]);
        history.violated_by(late, "the desired state is \"unflush\" by now");
        // Who recovers a dead node's VMs says that it has none, whatever was desired of it.
        let recovered = history.commit_about(daemon("b"), &[(key, "flush")], "/pvc/fence/a");
        history.violated_by(recovered, "by now");
        let recovered = history.commit_about(daemon("b"), &[(key, "flushed")], "/pvc/fence/a");
        history.happens(recovered);
    }

    #[test]
    fn a_holder_that_answers_a_fresh_desired_state_for_another_coordinator_is_a_violation() {
        let mut history = History::new(Answers::default());
        history.daemon_writes("a", &[("/pvc/primary", "a"), ("/primary_node", "a")]);
        history.writes(&[("/nodes/b/daemonstate", "run"), ("/nodes/b/daemonmode", "coordinator")]);
        history.at_s(10).writes(&[("/primary_node", "b")]);
        let late = history.commit(daemon("a"), &[("/primary_node", "a")]);
        history.at_s(12).violated_by(late, "the desired state is b by now");
    }

    #[test]
    fn a_desired_state_that_had_its_chance_may_be_answered() {
        let mut history = History::new(Answers::default());
        history.writes(&[("/nodes/b/daemonstate", "run"), ("/nodes/b/daemonmode", "coordinator")]);
        history.writes(&[("/primary_node", "b")]);
        // Taken after the desired state: it was there first.
        history.daemon_writes("a", &[("/pvc/primary", "a")]).daemon_writes("a", &[("/primary_node", "a")]);
        history.at_s(20).writes(&[("/primary_node", "b")]);
        history.at_s(26).daemon_writes("a", &[("/primary_node", "a")]);
    }
}
