//! 5. Fencing and recovery survive the death of the fencer; every VM is recovered exactly once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pvc_core::model::{FenceJob, FenceStep, NodeName, VmId};

use crate::{
    checkers::Checker,
    event::{Author, Change, Commit, Event, Phase, Stamped},
    tree::Tree,
    truth::{Daemon, Machine, Truth},
};

use crate::keys;

const MAINTENANCE: &str = "/pvc/maintenance";

/// How long a coordinator may take to see that a fence has no fencer, and to become it: session time-out, start-up, retries.
const TAKE_OVER_WITHIN: Duration = Duration::from_mins(2);

/// The same for a fence of this node: an operator's word about one that speaks seldom waits for a silence of six of its intervals.
fn take_over_within(tree: &Tree, node: &NodeName) -> Duration {
    let interval: u64 = tree.node(node, "keepalive_interval").parse().unwrap_or_default();
    TAKE_OVER_WITHIN + Duration::from_secs(interval.saturating_sub(5) * 7)
}

/// The desired states with which a VM that is moved away from a dead node runs elsewhere.
const SHALL_RUN: [&str; 3] = ["start", "restart", "migrate"];

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Fences {
    jobs: BTreeMap<NodeName, Job>,
    /// Since when there is a quorum; `None`: there is none.
    quorum: Option<Duration>,
    /// When maintenance was last on.
    maintenance: Option<Duration>,
}

#[derive(Debug, Default)]
struct Job {
    /// VMs that were moved away.
    recovered: BTreeSet<VmId>,
    /// Since when nobody works on it.
    orphaned: Option<Duration>,
    /// When its node was last one that a quorum needs.
    needed: Duration,
}

impl Checker for Fences {
    fn invariant(&self) -> u8 {
        5
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Leader(leader) => {
                let since = self.quorum.unwrap_or(truth.now);
                self.quorum = leader.as_ref().map(|_| since);
                Ok(())
            }
            Event::Commit(commit) => {
                let ends = |change: &Change| change.path == MAINTENANCE && change.was() == "on";
                if tree.text(MAINTENANCE) == Some("on") || commit.changes.iter().any(ends) {
                    self.maintenance = Some(truth.now);
                }
                for change in &commit.changes {
                    self.job(truth, change);
                }
                self.who_is_needed(truth, tree);
                self.recovers(tree, commit)?;
                self.is_worked_on(truth, tree)
            }
            Event::Phase(Phase::Settled) => match self.jobs.keys().next() {
                Some(node) => Err(format!("the fence of {node} is not over long after the last fault")),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl Fences {
    fn job(&mut self, truth: &Truth, change: &Change) {
        let there = change.after.is_some();
        if let Some(node) = keys::of_fence(&change.path) {
            if there {
                self.jobs.entry(node).or_insert_with(|| Job { orphaned: Some(truth.now), ..Job::default() });
            } else {
                self.jobs.remove(&node);
            }
        } else if let Some(node) = change.path.strip_suffix("/fencer").and_then(keys::of_fence)
            && let Some(job) = self.jobs.get_mut(&node)
        {
            job.orphaned = (!there).then_some(truth.now);
        }
    }

    /// A coordinator is not powered off while too few others are known to work, whatever runs on their machines.
    fn who_is_needed(&mut self, truth: &Truth, tree: &Tree) {
        let coordinators = truth.machines.iter().filter(|(n, _)| tree.node(n, "daemonmode") == "coordinator");
        let works = |machine: &Machine| machine.daemon == Daemon::Runs && machine.connected == Some(true);
        let all = coordinators.clone().count();
        for (node, job) in &mut self.jobs {
            let left = coordinators.clone().filter(|(name, machine)| *name != node && works(machine)).count();
            if left * 2 <= all && tree.node(node, "daemonmode") == "coordinator" {
                job.needed = truth.now;
            }
        }
    }

    fn recovers(&mut self, tree: &Tree, commit: &Commit) -> Result<(), String> {
        for change in &commit.changes {
            let Some((vm, key @ ("node" | "claim"))) = keys::of_vm(&change.path) else { continue };
            let names =
                |text: &str, node: &NodeName| text.split_whitespace().any(|name| name == node.as_str());
            for (node, job) in &mut self.jobs {
                if names(change.is(), node) || !names(change.was(), node) {
                    continue;
                }
                match &commit.by {
                    // Desired elsewhere, or there again and again: that is another matter.
                    Author::Client(_) => {
                        job.recovered.remove(&vm);
                    }
                    Author::Daemon { node: by, .. } if by != node && commit.is_about("/pvc/fence/") => {
                        // One transaction moves both.
                        let once = key == "claim"
                            && commit
                                .changes
                                .iter()
                                .any(|c| keys::of_vm(&c.path) == Some((vm, "node")) && names(c.was(), node));
                        // What shall not run is only let go of: a `start` that is desired later is what recovers it.
                        let shall_run = SHALL_RUN.contains(&tree.vm(vm, "state"));
                        if !once && shall_run && !job.recovered.insert(vm) {
                            return Err(format!("{by} recovers {vm} from {node} a second time"));
                        }
                    }
                    Author::Daemon { .. } | Author::Servers => {}
                }
            }
            if matches!(commit.by, Author::Client(_)) {
                for job in self.jobs.values_mut() {
                    job.recovered.remove(&vm);
                }
            }
        }
        Ok(())
    }

    fn is_worked_on(&self, truth: &Truth, tree: &Tree) -> Result<(), String> {
        let Some(quorum) = self.quorum else { return Ok(()) };
        for (node, job) in &self.jobs {
            let Some(orphaned) = job.orphaned.filter(|_| !only_waits(tree, node)) else { continue };
            // Nobody goes on before maintenance is over.
            let orphaned = orphaned.max(self.maintenance.unwrap_or_default()).max(job.needed);
            let able = truth.machines.iter().find(|(name, machine)| {
                *name != node
                    && tree.node(name, "daemonmode") == "coordinator"
                    && tree.node(name, "daemonstate") == "run"
                    && machine.daemon == Daemon::Runs
                    && machine.connected == Some(true)
                    && machine.works()
                    && truth.now
                        >= orphaned.max(quorum).max(machine.daemon_since).max(machine.connected_since)
                            + take_over_within(tree, node)
            });
            if let Some((able, _)) = able {
                let minutes = truth.since(orphaned).as_secs() / 60;
                return Err(format!(
                    "nobody has worked on the fence of {node} for {minutes} min, though {able} could"
                ));
            }
        }
        Ok(())
    }
}

/// Its VMs have new homes and are waited for: whoever sees them run ends the fence, which nobody has to hold for that.
fn only_waits(tree: &Tree, node: &NodeName) -> bool {
    let record = tree.text(&format!("/pvc/fence/{node}"));
    let job = record.and_then(|text| serde_json::from_str::<FenceJob>(text).ok());
    job.is_some_and(|job| matches!(job.step, FenceStep::Recovered { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{History, daemon, node, vm_key},
        event,
    };

    const JOB: &str = r#"{"step":"shooting","instance":null,"by":"a","at_unix_s":0}"#;

    fn path(key: &str) -> String {
        vm_key(1, key)
    }

    /// `b` can do what a coordinator does; `a` fences `x`.
    fn history() -> History {
        let mut history = History::new(Fences::default());
        history.on("b", 1).happens(Event::Leader(Some(node("b")))).writes(&[
            ("/nodes/b/daemonmode", "coordinator"),
            ("/nodes/b/daemonstate", "run"),
            (&path("state"), "start"),
            (&path("node"), "x"),
            (&path("claim"), "x"),
        ]);
        history.happens(Event::Daemon { node: node("b"), what: event::Daemon::Started { run: 1 } });
        history.happens(Event::Session { node: node("b"), what: event::Session::Connected { session: 1 } });
        history.at_s(10).daemon_writes("a", &[("/pvc/fence/x", JOB), ("/pvc/fence/x/fencer", "a")]);
        history
    }

    fn orphan(history: &mut History) {
        let event = history.deletion(event::Author::Servers, "/pvc/fence/x/fencer");
        history.at_s(20).happens(event);
    }

    #[test]
    fn a_fence_that_nobody_goes_on_with_is_a_violation() {
        let mut history = history();
        orphan(&mut history);
        history.at_s(139).writes(&[("/nodes/b/keepalive", "1")]);
        let late = history.commit(daemon("b"), &[("/nodes/b/keepalive", "2")]);
        history.at_s(141).violated_by(late, "nobody has worked on the fence of x for 2 min, though b could");
    }

    #[test]
    fn a_fence_of_a_node_that_speaks_seldom_is_waited_for_longer_and_not_for_ever() {
        let mut history = history();
        history.writes(&[("/nodes/x/keepalive_interval", "30")]);
        orphan(&mut history);
        history.at_s(300).writes(&[("/nodes/b/keepalive", "1")]);
        let late = history.commit(daemon("b"), &[("/nodes/b/keepalive", "2")]);
        history.at_s(320).violated_by(late, "nobody has worked on the fence of x for 5 min, though b could");
    }

    #[test]
    fn one_that_is_taken_over_or_cannot_be_is_none() {
        let mut taken = history();
        orphan(&mut taken);
        taken.at_s(60).daemon_writes("b", &[("/pvc/fence/x/fencer", "b")]);
        taken.at_s(500).writes(&[("/nodes/b/keepalive", "1")]);
        let mut cut_off = history();
        orphan(&mut cut_off);
        let silent = event::Session::Silent { session: 1 };
        cut_off.at_s(100).happens(Event::Session { node: node("b"), what: silent });
        cut_off.at_s(500).writes(&[("/nodes/b/keepalive", "1")]);
        let mut maintenance = history();
        orphan(&mut maintenance);
        maintenance.at_s(100).writes(&[("/pvc/maintenance", "on")]);
        maintenance.at_s(500).writes(&[("/pvc/maintenance", "off")]);
        maintenance.at_s(610).writes(&[("/nodes/b/keepalive", "1")]);
    }

    #[test]
    fn one_whose_vms_are_only_waited_for_needs_nobody_and_has_to_end_all_the_same() {
        const RECOVERED: &str =
            r#"{"step":"recovered","proof":"power-off","instance":null,"by":"a","at_unix_s":0}"#;
        let mut history = history();
        history.daemon_writes("a", &[("/pvc/fence/x", RECOVERED)]);
        orphan(&mut history);
        history.at_s(500).writes(&[("/nodes/b/keepalive", "1")]);
        history.violated_by(Event::Phase(Phase::Settled), "the fence of x is not over");
    }

    #[test]
    fn a_fence_that_is_not_over_when_all_is_settled_is_a_violation() {
        history().violated_by(Event::Phase(Phase::Settled), "the fence of x is not over");
        let mut over = history();
        let event = over.deletion(daemon("a"), "/pvc/fence/x");
        over.happens(event).happens(Event::Phase(Phase::Settled));
    }

    #[test]
    fn a_vm_that_is_recovered_twice_in_one_fence_is_a_violation() {
        let recovery = |history: &mut History, to: &str| {
            let moved = [(&*path("node"), to), (&*path("claim"), "")];
            history.commit_about(daemon("a"), &moved, "/pvc/fence/x")
        };
        let mut history = history();
        let first = recovery(&mut history, "b");
        history.happens(first);
        history.daemon_writes("b", &[(&path("node"), "x")]);
        let second = recovery(&mut history, "c");
        history.violated_by(second, "a second time");
    }

    #[test]
    fn one_that_an_operator_has_sent_back_may_be_recovered_again() {
        let mut history = history();
        let first =
            history.commit_about(daemon("a"), &[(&path("node"), "b"), (&path("claim"), "")], "/pvc/fence/x");
        history.happens(first).writes(&[(&path("node"), "x")]);
        let second = history.commit_about(daemon("a"), &[(&path("node"), "c")], "/pvc/fence/x");
        history.happens(second);
    }
    #[test]
    fn letting_go_of_what_an_operator_had_shut_down_is_no_recovery_and_his_later_start_may_bring_the_only_one()
     {
        let mut history = history();
        history.writes(&[(&path("state"), "shutdown")]);
        let release = history.commit_about(
            daemon("a"),
            &[(&path("state"), "stop"), (&path("claim"), "")],
            "/pvc/fence/x",
        );
        history.happens(release).writes(&[(&path("state"), "start")]);
        let only = history.commit_about(daemon("a"), &[(&path("node"), "b")], "/pvc/fence/x");
        history.happens(only).daemon_writes("b", &[(&path("node"), "x")]);
        let second = history.commit_about(daemon("a"), &[(&path("node"), "c")], "/pvc/fence/x");
        history.violated_by(second, "a second time");
    }
}
