//! 10. Flush, unflush and shutdown end; their cancellation is safe.
//!
//! Time counts while who has to do it can: its daemon runs, is connected, and libvirt answers. That a cancellation is safe is what
//! numbers 1, 9 and 13 say of the VMs that were on their way.

use std::{collections::BTreeMap, time::Duration};

use pvc_core::model::{NodeName, VmId};

use crate::{
    checkers::Checker,
    event::{self, Change, Event, Phase, Stamped},
    tree::Tree,
    truth::{Daemon, Truth},
};

use crate::keys;

/// A guest is asked for 90 s, then powered off: libvirt may be slow.
const SHUTDOWN_WITHIN: Duration = Duration::from_mins(4);

/// All VMs of a node, a few at once, three attempts each.
const FLUSH_WITHIN: Duration = Duration::from_hours(1);

/// A daemon that was asked to stop.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// VMs that shall shut down, since when.
    shutdowns: BTreeMap<VmId, Duration>,
    /// Nodes that shall be flushed or filled again.
    flushes: BTreeMap<NodeName, Duration>,
    /// Daemons that say that they stop.
    stops: BTreeMap<NodeName, Duration>,
    /// Since when libvirt has been as it is.
    libvirt: BTreeMap<NodeName, Duration>,
    thawed: BTreeMap<NodeName, Duration>,
}

impl Checker for Ends {
    fn invariant(&self) -> u8 {
        10
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Libvirt { node, .. } => drop(self.libvirt.insert(node.clone(), truth.now)),
            Event::Machine { node, what: event::Machine::Thawed } => {
                self.thawed.insert(node.clone(), truth.now);
            }
            // What stops is a run, and this is another one.
            Event::Daemon { node, what: event::Daemon::Started { .. } } => drop(self.stops.remove(node)),
            Event::Commit(commit) => {
                let last_word = truth.is_last_word(commit);
                commit.changes.iter().for_each(|change| self.note(truth, change, last_word));
                return self.in_time(truth, tree);
            }
            Event::Phase(Phase::Settled) => {
                if let Some(node) = self.flushes.keys().next() {
                    let desired = tree.node(node, "domainstate");
                    return Err(format!("the {desired} of {node} is not over long after the last fault"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Ends {
    fn note(&mut self, truth: &Truth, change: &Change, last_word: bool) {
        if change.was() == change.is() {
            return;
        }
        let is = change.is();
        match (keys::of_vm(&change.path), keys::of_node(&change.path)) {
            (Some((vm, "state")), _) => begins(&mut self.shutdowns, vm, is == "shutdown", truth.now),
            // Whoever claims it now has the whole time for it.
            (Some((vm, "claim")), _) if self.shutdowns.contains_key(&vm) => {
                self.shutdowns.insert(vm, truth.now);
            }
            (_, Some((node, "domainstate"))) => {
                begins(&mut self.flushes, node, matches!(is, "flush" | "unflush"), truth.now);
            }
            (_, Some((node, "daemonstate"))) => {
                begins(&mut self.stops, node, is == "shutdown" && !last_word, truth.now);
            }
            _ => {}
        }
    }

    fn in_time(&self, truth: &Truth, tree: &Tree) -> Result<(), String> {
        for (vm, since) in &self.shutdowns {
            let mut claim = tree.claim(*vm);
            let (Some(name), None) = (claim.next(), claim.next()) else { continue };
            let Ok(node) = name.parse::<NodeName>() else { continue };
            if self.able_for(truth, &node, *since, SHUTDOWN_WITHIN) {
                let minutes = SHUTDOWN_WITHIN.as_secs() / 60;
                return Err(format!("{vm} has not been shut down by {node} for {minutes} min"));
            }
        }
        for (node, since) in &self.flushes {
            if self.able_for(truth, node, *since, FLUSH_WITHIN) {
                let desired = tree.node(node, "domainstate");
                return Err(format!(
                    "the {desired} of {node} has not ended for {} min",
                    FLUSH_WITHIN.as_secs() / 60
                ));
            }
        }
        for (node, since) in &self.stops {
            if self.able_for(truth, node, *since, STOP_WITHIN) {
                return Err(format!("the daemon of {node} has not stopped in {} s", STOP_WITHIN.as_secs()));
            }
        }
        Ok(())
    }

    /// Whether it had so long to do something without a break.
    fn able_for(&self, truth: &Truth, node: &NodeName, since: Duration, long: Duration) -> bool {
        let machine = truth.machine(node);
        let able = machine.works()
            && machine.daemon == Daemon::Runs
            && machine.connected == Some(true)
            && machine.libvirt == Some(event::Libvirt::Up);
        let of = |times: &BTreeMap<NodeName, Duration>| times.get(node).copied().unwrap_or_default();
        let since =
            [since, machine.daemon_since, machine.connected_since, of(&self.libvirt), of(&self.thawed)];
        able && since.into_iter().max().is_some_and(|since| truth.now > since + long)
    }
}

/// Something begins that has to end, or is no longer to be done.
fn begins<T: Ord>(since: &mut BTreeMap<T, Duration>, what: T, shall: bool, now: Duration) {
    if shall {
        since.insert(what, now);
    } else {
        since.remove(&what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::testing::{History, daemon, node, vm_key};

    fn path(key: &str) -> String {
        vm_key(1, key)
    }

    /// `a` can do all that it is asked.
    fn history() -> History {
        let mut history = History::new(Ends::default());
        history
            .on("a", 1)
            .happens(Event::Daemon { node: node("a"), what: event::Daemon::Started { run: 1 } });
        history.happens(Event::Session { node: node("a"), what: event::Session::Connected { session: 1 } });
        history.happens(Event::Libvirt { node: node("a"), what: event::Libvirt::Up });
        history
    }

    fn tick(history: &mut History) -> Event {
        history.commit(daemon("b"), &[("/nodes/b/keepalive", "1")])
    }

    #[test]
    fn a_shutdown_without_end_is_a_violation_while_its_node_could() {
        let mut history = history();
        history.at_s(100).writes(&[(&path("state"), "shutdown"), (&path("claim"), "a")]);
        history.at_s(200).happens(Event::Libvirt { node: node("a"), what: event::Libvirt::Frozen });
        history.at_s(300).happens(Event::Libvirt { node: node("a"), what: event::Libvirt::Up });
        history.at_s(500).writes(&[("/nodes/b/keepalive", "0")]);
        let event = tick(&mut history);
        history.at_s(541).violated_by(event, "has not been shut down by a");
    }

    #[test]
    fn a_flush_without_end_is_a_violation_at_the_latest_when_all_is_settled() {
        let key = "/nodes/a/domainstate";
        let mut late = history();
        late.at_s(100).writes(&[(key, "flush")]).at_s(3600).writes(&[("/nodes/b/keepalive", "0")]);
        let event = tick(&mut late);
        late.at_s(3701).violated_by(event, "the flush of a has not ended");
        let mut settled = history();
        settled.writes(&[(key, "unflush")]);
        settled.violated_by(Event::Phase(Phase::Settled), "the unflush of a is not over");
        settled.daemon_writes("a", &[(key, "ready")]).happens(Event::Phase(Phase::Settled));
    }

    #[test]
    fn a_daemon_that_says_that_it_stops_and_does_not_is_a_violation() {
        let mut history = history();
        history.at_s(100).daemon_writes("a", &[("/nodes/a/daemonstate", "shutdown")]);
        let event = tick(&mut history);
        history.at_s(116).violated_by(event, "has not stopped");
        let mut gone = self::history();
        gone.at_s(100).daemon_writes("a", &[("/nodes/a/daemonstate", "shutdown")]);
        gone.happens(Event::Daemon { node: node("a"), what: event::Daemon::Ended("asked".into()) });
        let event = tick(&mut gone);
        gone.at_s(116).happens(event);
        // What it said arrives when it has ended, and the next run waits for the end of its session.
        let mut late = self::history();
        let started = |run| Event::Daemon { node: node("a"), what: event::Daemon::Started { run } };
        late.happens(Event::Daemon { node: node("a"), what: event::Daemon::Ended("asked".into()) });
        late.at_s(100).daemon_writes("a", &[("/nodes/a/daemonstate", "shutdown")]);
        late.happens(started(2));
        let event = tick(&mut late);
        late.at_s(140).happens(event);
    }
}
