//! A machine without power whose daemon should be speaking is declared dead within a bound, where a coordinator can: nobody takes care of its
//! VMs before that.
//!
//! Part of number 13, and judged while other things go wrong, so only of a silence in which nothing happened to anybody else: no
//! maintenance, no other fence, no election, no session that ended, no daemon that came or went.

use std::{collections::BTreeMap, time::Duration};

use pvc_core::model::NodeName;

use super::Timing;
use crate::keys;
use crate::{
    event::{self, Commit, Event, Net, Stamped},
    tree::Tree,
    truth::{Daemon, Truth},
};

/// How long a coordinator may take once it could have counted a whole silence: the keepalives' own times, and retries while
/// ZooKeeper is slow.
const DECLARED_WITHIN: Duration = Duration::from_secs(30);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Noticed {
    timing: Timing,
    /// When something last happened that any count may have begun anew for …
    disturbed: Duration,
    /// … and what happened to each node, which is no excuse for its own silence.
    happened: BTreeMap<NodeName, Duration>,
}

impl Noticed {
    pub(super) fn new(timing: Timing) -> Self {
        Self { timing, disturbed: Duration::ZERO, happened: BTreeMap::new() }
    }

    pub(super) fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Machine { node, what } if !matches!(what, event::Machine::ClockJumped(_)) => {
                self.happens_to(node, truth.now);
            }
            Event::Daemon { node, .. } | Event::Session { node, .. } => self.happens_to(node, truth.now),
            Event::Link { net: Net::Store, .. } | Event::Leader(_) => self.disturbed = truth.now,
            Event::Commit(commit) => {
                let disturbs = |path: &str| path == "/pvc/maintenance" || path.starts_with("/pvc/fence/");
                if commit.changes.iter().any(|change| disturbs(&change.path)) {
                    self.disturbed = truth.now;
                }
                return self.all_are(truth, tree, commit);
            }
            _ => {}
        }
        Ok(())
    }

    fn happens_to(&mut self, node: &NodeName, now: Duration) {
        self.happened.insert(node.clone(), now);
    }

    /// Looks when somebody speaks.
    fn all_are(&self, truth: &Truth, tree: &Tree, commit: &Commit) -> Result<(), String> {
        let speaks =
            commit.changes.iter().any(|change| matches!(keys::of_node(&change.path), Some((_, "keepalive"))));
        let nothing_else =
            tree.text("/pvc/maintenance") != Some("on") && tree.below("/pvc/fence/").next().is_none();
        if !speaks || !nothing_else {
            return Ok(());
        }
        let mut silent =
            truth.machines.iter().filter(|(node, _)| should_speak(tree, node) && !works(truth, node));
        // Of several it may be the coordinator itself that is cut off.
        let (Some((node, machine)), None) = (silent.next(), silent.next()) else { return Ok(()) };
        if machine.boot.is_some() || is_needed(truth, tree, node) {
            return Ok(());
        }
        let others = self.happened.iter().filter(|(other, _)| *other != node).map(|(_, at)| *at);
        let since = others.fold(self.disturbed.max(machine.power_since), Duration::max);
        let (_, fence_after) = self.timing.of(tree, node);
        let slowest =
            truth.machines.keys().map(|other| self.timing.of(tree, other).0).max().unwrap_or_default();
        if truth.since(since) > fence_after + slowest + DECLARED_WITHIN {
            let seconds = truth.since(since).as_secs();
            return Err(format!(
                "{node} has had no power for {seconds} s at least, and nobody has declared it dead"
            ));
        }
        Ok(())
    }
}

/// Whether no quorum would be left without it, or nobody is there who could declare it dead.
fn is_needed(truth: &Truth, tree: &Tree, node: &NodeName) -> bool {
    let coordinators = || truth.machines.keys().filter(|name| tree.node(name, "daemonmode") == "coordinator");
    let left = coordinators().filter(|name| *name != node && works(truth, name)).count();
    let is_one = coordinators().any(|name| name == node);
    left == 0 || is_one && left * 2 <= coordinators().count()
}

fn should_speak(tree: &Tree, node: &NodeName) -> bool {
    matches!(tree.node(node, "daemonstate"), "init" | "run" | "shutdown")
}

fn works(truth: &Truth, node: &NodeName) -> bool {
    let machine = truth.machine(node);
    machine.works() && machine.daemon == Daemon::Runs && machine.connected == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{History, TIMING, daemon, node},
        event::Machine,
    };

    /// `a` is a coordinator that works, `x` is no coordinator and has lost its power at 100 s.
    fn history() -> History {
        let mut history = History::new(super::super::liveness::Liveness::new(TIMING));
        for name in ["a", "x"] {
            history
                .on(name, 1)
                .happens(Event::Daemon { node: node(name), what: event::Daemon::Started { run: 1 } });
            history
                .happens(Event::Session { node: node(name), what: event::Session::Connected { session: 1 } });
            history.writes(&[(&format!("/nodes/{name}/daemonstate"), "run")]);
        }
        history.writes(&[("/nodes/a/daemonmode", "coordinator"), ("/nodes/x/daemonmode", "hypervisor")]);
        history.at_s(100).happens(Event::Machine { node: node("x"), what: Machine::Off });
        history
    }

    fn a_speaks(history: &mut History) -> Event {
        history.commit(daemon("a"), &[("/nodes/a/keepalive", "1")])
    }

    #[test]
    fn a_machine_without_power_that_nobody_declares_dead_is_a_violation_after_a_while() {
        let mut history = history();
        let early = a_speaks(&mut history);
        history.at_s(160).happens(early);
        let late = a_speaks(&mut history);
        history.at_s(170).violated_by(late, "x has had no power for 70 s");
    }

    #[test]
    fn what_excuses_it() {
        let excuses: [fn(&mut History) -> &mut History; 5] = [
            |h| h.writes(&[("/nodes/x/daemonstate", "dead")]),
            |h| h.writes(&[("/nodes/x/daemonstate", "stop")]),
            |h| h.writes(&[("/pvc/maintenance", "on")]),
            |h| h.writes(&[("/pvc/fence/b", "{}")]),
            |h| h.happens(Event::Leader(Some(node("a")))),
        ];
        for excuse in excuses {
            let mut history = history();
            excuse(history.at_s(150));
            let late = a_speaks(&mut history);
            history.at_s(170).happens(late);
        }
    }

    #[test]
    fn one_whose_interval_somebody_has_spoilt_is_noticed_as_a_slow_one() {
        let mut history = history();
        history.at_s(101).writes(&[("/nodes/x/keepalive_interval", "")]);
        let early = a_speaks(&mut history);
        history.at_s(300).happens(early);
        let late = a_speaks(&mut history);
        history.at_s(350).violated_by(late, "x has had no power for 250 s");
    }
}
