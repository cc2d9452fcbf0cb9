//! 14. Success is reported only after it was observed; secrets are never logged or put on a command line.
//!
//! What a daemon answers is compared with what is the case: `stop` with no process anywhere, `start` with one that executes, `flushed` with
//! an empty node, `primary` with the addresses, the end of a fence with VMs that were seen running. The secrets of this cluster are the
//! BMCs' passwords: they appear in their own keys, and nowhere else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pvc_core::model::{DomainSpec, FenceJob, FenceStep, FlushProgress, NodeName, VmId};

use crate::{
    checkers::Checker,
    event::{self, Change, Commit, Event, Stamped},
    tree::Tree,
    truth::Truth,
};

use crate::keys;

/// How long ago what is reported may have been the case.
const OBSERVED: Duration = Duration::from_secs(15);

/// How often a flush has a VM migrated before it may leave it where it is.
const ATTEMPTS: u32 = 3;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Truthful {
    /// When each VM was last known to execute on each node, where it does not now.
    executed: BTreeMap<(VmId, NodeName), Duration>,
    /// VMs that were moved from each fenced node, and when.
    moved: BTreeMap<NodeName, BTreeMap<VmId, Duration>>,
    /// Since when each node says that it runs.
    runs: BTreeMap<NodeName, Duration>,
    passwords: BTreeSet<String>,
    /// When each node dropped its last floating address.
    dropped: BTreeMap<NodeName, Duration>,
    /// How often each node has sent a VM away since it last answered or was asked for a flush.
    sent: BTreeMap<(NodeName, VmId), u32>,
}

impl Checker for Truthful {
    fn invariant(&self) -> u8 {
        14
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Guest { vm, node, .. } => {
                self.executed.insert((*vm, node.clone()), truth.now);
            }
            Event::Machine { node, what: event::Machine::Off | event::Machine::Frozen } => {
                let of_node = self.executed.iter_mut().filter(|((_, on), _)| on == node);
                of_node.for_each(|(_, at)| *at = truth.now);
            }
            Event::Address { node, until: None, .. } => {
                self.dropped.insert(node.clone(), truth.now);
            }
            Event::Commit(commit) => {
                for change in &commit.changes {
                    self.keeps_secrets(change)?;
                    self.notes_state(truth, change);
                }
                self.is_moved_on(commit);
                if let Some(by) = commit.daemon() {
                    let mut changes = commit.changes.iter();
                    changes.try_for_each(|change| self.answers(truth, tree, commit, by, change))?;
                }
                self.counts_attempts(commit);
            }
            Event::Log { node, text, .. }
                if self.passwords.iter().any(|password| text.contains(password)) =>
            {
                return Err(format!("{node} logs a BMC's password"));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Truthful {
    fn keeps_secrets(&mut self, change: &Change) -> Result<(), String> {
        let text = change.is();
        if let Some((_, "ipmipassword")) = keys::of_node(&change.path) {
            if !text.is_empty() {
                self.passwords.insert(text.to_owned());
            }
            return Ok(());
        }
        if self.passwords.iter().any(|password| text.contains(password)) {
            return Err(format!("{} tells a BMC's password", change.path));
        }
        Ok(())
    }

    fn notes_state(&mut self, truth: &Truth, change: &Change) {
        let Some((node, "daemonstate")) = keys::of_node(&change.path) else { return };
        if change.is() != "run" {
            self.runs.remove(&node);
        } else if change.was() != "run" {
            self.runs.insert(node, truth.now);
        }
    }

    fn answers(
        &mut self,
        truth: &Truth,
        tree: &Tree,
        commit: &Commit,
        by: &NodeName,
        change: &Change,
    ) -> Result<(), String> {
        if let Some(node) = keys::of_fence(&change.path) {
            return self.fence_ends(truth, tree, &node, change);
        }
        if let Some((vm, key)) = keys::of_vm(&change.path) {
            if key == "lastnode" && commit.is_about("/pvc/fence/") {
                self.moved(truth, change, vm);
            }
            return match (key, change.was(), change.is()) {
                ("state", was, "stop") if was != "stop" => is_off(truth, by, vm),
                ("state", "migrate" | "restart", "start")
                    if !commit.is_about("/pvc/fence/") && !is_failure(commit, vm) =>
                {
                    self.runs(truth, tree, by, vm)
                }
                _ => Ok(()),
            };
        }
        match keys::of_node(&change.path) {
            Some((node, "domainstate"))
                if node == *by && change.is() == "flushed" && change.was() == "flush" =>
            {
                self.is_empty(truth, tree, by)
            }
            // What was on its way when its author's machine or process ended was true when it was sent, or nobody can tell.
            Some((node, "routerstate"))
                if node == *by && change.is() == "primary" && !truth.is_last_word(commit) =>
            {
                self.has_addresses(truth, by)
            }
            _ => Ok(()),
        }
    }

    fn runs(&self, truth: &Truth, tree: &Tree, by: &NodeName, vm: VmId) -> Result<(), String> {
        // Where nobody has it there is nothing to migrate: that is what is answered, and it is started next.
        let is_elsewhere =
            tree.vm(vm, "node") != by.as_str() || tree.claim(vm).all(|name| name != by.as_str());
        if is_elsewhere || self.executed_lately(truth, vm, by) {
            return Ok(());
        }
        Err(format!("{by} answers that {vm} runs, and it does not execute there"))
    }

    /// A write is on its way for a while: what was dropped, or lapsed in the kernel, meanwhile was there when it was sent.
    fn has_addresses(&self, truth: &Truth, node: &NodeName) -> Result<(), String> {
        if self.dropped.get(node).is_some_and(|at| truth.now <= *at + OBSERVED) {
            return Ok(());
        }
        let had = |until: &Duration| truth.now <= *until + OBSERVED;
        match truth.addresses.iter().find(|(_, holders)| !holders.get(node).is_some_and(had)) {
            Some((address, _)) => Err(format!("{node} says that it is primary, and does not have {address}")),
            None => Ok(()),
        }
    }

    fn executed_lately(&self, truth: &Truth, vm: VmId, node: &NodeName) -> bool {
        let lately = |at: &Duration| truth.now <= *at + OBSERVED;
        truth.executing(vm).any(|(on, _)| on == node)
            || self.executed.get(&(vm, node.clone())).is_some_and(lately)
    }

    fn moved(&mut self, truth: &Truth, change: &Change, vm: VmId) {
        if let Ok(from) = change.is().parse::<NodeName>() {
            self.moved.entry(from).or_default().insert(vm, truth.now);
        }
    }

    /// What an operator wants of a VM that was recovered, or a flush that sends it on, is no fence's business any more.
    fn is_moved_on(&mut self, commit: &Commit) {
        let sent_on = |change: &&Change| commit.daemon().is_none() || change.is() == "migrate";
        for (vm, _) in commit.changes.iter().filter(sent_on).filter_map(|change| keys::of_vm(&change.path)) {
            for moved in self.moved.values_mut() {
                moved.remove(&vm);
            }
        }
    }

    /// A fence is over when the VMs that were moved were seen running, or when its node is back.
    fn fence_ends(
        &mut self,
        truth: &Truth,
        tree: &Tree,
        node: &NodeName,
        change: &Change,
    ) -> Result<(), String> {
        if change.after.is_some() {
            return Ok(());
        }
        let moved = self.moved.remove(node).unwrap_or_default();
        let job = serde_json::from_str::<FenceJob>(change.was()).ok();
        let Some(job) = job else { return Ok(()) };
        let keepalive = tree.key(&format!("/nodes/{node}/keepalive")).map(|key| key.version);
        // A keepalive that was on its way when the node died counts as one of its next life.
        let is_back = tree.node(node, "daemonstate") != "dead"
            || job.keepalive_version.is_some() && job.keepalive_version != keepalive;
        if is_back || !matches!(job.step, FenceStep::Recovered { .. }) {
            return Ok(());
        }
        for (vm, since) in moved {
            let Ok(to) = tree.vm(vm, "node").parse::<NodeName>() else { continue };
            // Of one that did not work when this was decided nobody expects them.
            let works = self.runs.get(&to).is_some_and(|at| *at + OBSERVED <= truth.now);
            let expected =
                tree.vm(vm, "state") == "start" && tree.vm(vm, "lastnode") == node.as_str() && works;
            let ran = truth.executing(vm).any(|(on, _)| *on == to)
                || self.executed.get(&(vm, to.clone())).is_some_and(|at| *at >= since);
            if expected && !ran {
                return Err(format!(
                    "the fence of {node} is over, and {vm} has not run on {to} since it was moved"
                ));
            }
        }
        Ok(())
    }

    fn counts_attempts(&mut self, commit: &Commit) {
        for change in &commit.changes {
            match (keys::of_node(&change.path), keys::of_vm(&change.path), commit.daemon()) {
                (Some((node, "domainstate")), ..) => self.sent.retain(|(by, _), _| *by != node),
                (_, Some((vm, "state")), Some(by)) if change.is() == "migrate" => {
                    *self.sent.entry((by.clone(), vm)).or_default() += 1;
                }
                _ => {}
            }
        }
    }

    /// Only those may stay that may not be shut down for their move, by their migration method or because nobody could start them
    /// again from their definition (decision 75); those that no node took over (decision 116); and those of which nobody can read who may be
    /// executing them (decision 92). Of each the node says so: whoever waits for the flush reads that, and does not switch the machine off.
    fn is_empty(&self, truth: &Truth, tree: &Tree, node: &NodeName) -> Result<(), String> {
        let progress = tree.text(&format!("/pvc/flush/{node}")).map(serde_json::from_str::<FlushProgress>);
        let stuck = progress.and_then(Result::ok).map(|progress| progress.stuck).unwrap_or_default();
        let left = truth.guests.iter().filter(|(_, runs)| runs.get(node).is_some_and(|run| run.executes));
        for vm in left.map(|(vm, _)| *vm).filter(|vm| tree.key(&format!("/domains/{vm}")).is_some()) {
            let was_tried = self.sent.get(&(node.clone(), vm)).is_some_and(|times| *times >= ATTEMPTS);
            let unreadable = |path: String| truth.was_spoilt(&path, OBSERVED);
            let may_stay = tree.vm(vm, "migration_method") == "live"
                || DomainSpec::parse(tree.vm(vm, "xml")).is_err()
                || was_tried
                || unreadable(format!("/pvc/claim/{vm}"))
                || unreadable(format!("/domains/{vm}/migration_method"));
            if !may_stay {
                return Err(format!("{node} answers that it is flushed, and {vm} executes there"));
            }
            if !stuck.iter().any(|stuck| stuck.vm == vm.to_string()) {
                return Err(format!("{node} answers that it is flushed, and does not say that {vm} stays"));
            }
        }
        Ok(())
    }
}

/// Whether it says why it was not done: what was not migrated stays, and is started if it is off there.
fn is_failure(commit: &Commit, vm: VmId) -> bool {
    let is_reason =
        |change: &Change| keys::of_vm(&change.path) == Some((vm, "failedreason")) && !change.is().is_empty();
    commit.changes.iter().any(is_reason)
}

fn is_off(truth: &Truth, by: &NodeName, vm: VmId) -> Result<(), String> {
    let lies = |node: &NodeName| truth.machine(node).bmc_lies;
    match truth.guests.get(&vm).into_iter().flatten().find(|(node, _)| !lies(node)) {
        Some((node, _)) => {
            Err(format!("{by} answers that {vm} is off, and there is a process of it on {node}"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{History, daemon, definition, node, vm, vm_key},
        event::{Author, Guest, VANDAL},
    };

    const RECOVERED: &str =
        r#"{"step":"recovered","proof":"power-off","instance":null,"by":"a","at_unix_s":0}"#;

    fn path(key: &str) -> String {
        vm_key(1, key)
    }

    fn guest(on: &str, what: Guest) -> Event {
        Event::Guest { vm: vm(1), node: node(on), what }
    }

    /// VM 1 is of node `a`, and its desired state is this.
    fn desired(state: &str) -> History {
        let mut history = History::new(Truthful::default());
        history.on("a", 1).writes(&[
            (&format!("/domains/{}", vm(1)), "web"),
            (&path("state"), state),
            (&path("node"), "a"),
            (&path("claim"), "a"),
        ]);
        history
    }

    #[test]
    fn off_is_said_of_what_has_no_process() {
        let answer = |history: &mut History| history.commit(daemon("a"), &[(&path("state"), "stop")]);
        let mut early = desired("shutdown");
        early.happens(guest("a", Guest::Executes));
        let event = answer(&mut early);
        early.violated_by(event, "there is a process of it on a");
        let mut right = desired("shutdown");
        right.happens(guest("a", Guest::Executes)).happens(guest("a", Guest::Gone));
        let event = answer(&mut right);
        right.happens(event);
    }

    #[test]
    fn running_is_said_of_what_executes_or_did_a_moment_ago() {
        let answer = |history: &mut History| history.commit(daemon("a"), &[(&path("state"), "start")]);
        let mut early = desired("restart");
        early.at_s(10).happens(guest("a", Guest::Held));
        let event = answer(&mut early);
        early.at_s(30).violated_by(event, "does not execute there");
        let mut crashed = desired("restart");
        crashed.happens(guest("a", Guest::Executes)).at_s(5).happens(guest("a", Guest::Gone));
        let event = answer(&mut crashed);
        crashed.at_s(7).happens(event);
        let mut nothing_to_migrate = desired("migrate");
        nothing_to_migrate.writes(&[(&path("claim"), "")]);
        let event = answer(&mut nothing_to_migrate);
        nothing_to_migrate.happens(event);
        let mut failed = desired("migrate");
        let keys = [(&*path("state"), "start"), (&*path("failedreason"), "not migrated to b: it is dead")];
        let event = failed.commit(daemon("a"), &keys);
        failed.happens(event);
    }

    /// Node `a` asks that VM 1 migrates, and then that it stays.
    fn send_away_in_vain(history: &mut History) {
        let reason = (&*path("failedreason"), "not migrated to b: no route");
        history
            .daemon_writes("a", &[(&path("state"), "migrate"), (&path("node"), "b")])
            .daemon_writes("a", &[(&path("state"), "start"), (&path("node"), "a"), reason]);
    }

    #[test]
    fn flushed_is_said_of_a_node_without_guests_but_for_those_that_must_stay() {
        let key = "/nodes/a/domainstate";
        let mut history = desired("start");
        history.happens(guest("a", Guest::Executes)).writes(&[
            (key, "flush"),
            (&path("migration_method"), "live"),
            (&path("xml"), &definition(1)),
        ]);
        says_that_it_stays(&mut history);
        history.daemon_writes("a", &[(key, "flushed")]).writes(&[
            (key, "flush"),
            (&path("migration_method"), "none"),
            (&path("xml"), "<domain"),
        ]);
        history
            .daemon_writes("a", &[(key, "flushed")])
            .writes(&[(key, "flush"), (&path("xml"), &definition(1))]);
        for _ in 1..ATTEMPTS {
            send_away_in_vain(&mut history);
        }
        let flushed = history.commit(daemon("a"), &[(key, "flushed")]);
        history.violated_by(flushed.clone(), "executes there");
        send_away_in_vain(&mut history);
        history.happens(flushed);
        let again = history.writes(&[(key, "flush")]).commit(daemon("a"), &[(key, "flushed")]);
        history.violated_by(again, "executes there");
    }

    fn says_that_it_stays(history: &mut History) {
        let stuck = format!(
            r#"{{"total":1,"left":1,"moving":0,"stuck":[{{"vm":"{}","reason":"it stays"}}],"at_unix_s":0}}"#,
            vm(1)
        );
        history.daemon_writes("a", &[("/pvc/flush/a", &stuck)]);
    }

    #[test]
    fn what_stays_since_nobody_can_read_its_claim_is_named_and_does_not_stay_once_it_can_be_read() {
        let key = "/nodes/a/domainstate";
        let flushed = |spoils: bool, named: bool, mended: bool, at_s| {
            let mut history = desired("start");
            history.happens(guest("a", Guest::Executes)).writes(&[(key, "flush")]);
            history.writes(&[(&path("xml"), &definition(1))]);
            let mut vandal = |text| {
                let event = history.commit(Author::Client(VANDAL), &[(&path("claim"), text)]);
                history.only_truth(event);
            };
            if spoils {
                vandal("what / is this?");
            }
            if mended {
                vandal("a");
            }
            if named {
                says_that_it_stays(&mut history);
            }
            let event = history.commit(daemon("a"), &[(key, "flushed")]);
            history.at_s(at_s);
            (history, event)
        };
        let (mut named, event) = flushed(true, true, false, 100);
        named.happens(event);
        let (mut silent, event) = flushed(true, false, false, 100);
        silent.violated_by(event, "does not say");
        let (mut just_mended, event) = flushed(true, true, true, 15);
        just_mended.happens(event);
        let (mut mended, event) = flushed(true, true, true, 16);
        mended.violated_by(event, "executes there");
        let (mut readable, event) = flushed(false, true, false, 100);
        readable.violated_by(event, "executes there");
    }

    #[test]
    fn primary_is_said_by_who_has_the_addresses() {
        let address = |on: &str| Event::Address {
            node: node(on),
            address: [10, 0, 0, 254].into(),
            until: Some(Duration::from_secs(9)),
        };
        let mut history = desired("start");
        history.on("b", 1).happens(address("b"));
        let event = history.commit(daemon("a"), &[("/nodes/a/routerstate", "primary")]);
        let started = Event::Daemon { node: node("a"), what: event::Daemon::Started { run: 1 } };
        history.on("a", 1).happens(started).violated_by(event.clone(), "does not have 10.0.0.254");
        history.daemon_writes("b", &[("/nodes/b/routerstate", "primary")]);
        let mut last_word = desired("start");
        last_word.on("b", 1).happens(address("b"));
        last_word.happens(Event::Machine { node: node("a"), what: event::Machine::Off }).happens(event);
    }

    #[test]
    fn what_was_dropped_while_the_word_was_on_its_way_was_there_and_what_was_dropped_long_ago_was_not() {
        let address = |until| Event::Address { node: node("a"), address: [10, 0, 0, 254].into(), until };
        let mut history = desired("start");
        history.on("a", 1).happens(address(Some(Duration::from_secs(9))));
        let elsewhere = Event::Address {
            node: node("b"),
            address: [10, 0, 0, 254].into(),
            until: Some(Duration::from_secs(99)),
        };
        history.on("b", 1).at_s(100).happens(address(None)).happens(elsewhere);
        let started = Event::Daemon { node: node("a"), what: event::Daemon::Started { run: 1 } };
        let event = history.happens(started).commit(daemon("a"), &[("/nodes/a/routerstate", "primary")]);
        history.at_s(116).violated_by(event.clone(), "does not have 10.0.0.254");
        history.at_s(117).happens(address(Some(Duration::from_secs(200)))).happens(address(None));
        history.at_s(120).happens(event);
    }

    #[test]
    fn what_lapsed_while_the_word_was_on_its_way_was_there_and_what_lapsed_long_ago_was_not() {
        let until = Some(Duration::from_secs(9));
        let mut history = desired("start");
        history.on("a", 1).happens(Event::Address {
            node: node("a"),
            address: [10, 0, 0, 254].into(),
            until,
        });
        let started = Event::Daemon { node: node("a"), what: event::Daemon::Started { run: 1 } };
        let event = history.happens(started).commit(daemon("a"), &[("/nodes/a/routerstate", "primary")]);
        history.at_s(23).happens(event.clone());
        history.at_s(25).violated_by(event, "does not have 10.0.0.254");
    }

    #[test]
    fn the_end_of_a_fence_is_said_when_what_was_moved_has_run() {
        let moved = || {
            let mut history = desired("start");
            history.on("b", 1).writes(&[("/nodes/x/daemonstate", "dead"), ("/nodes/b/daemonstate", "run")]);
            history.at_s(60).daemon_writes("c", &[("/pvc/fence/x", RECOVERED)]);
            let keys = [(&*path("node"), "b"), (&*path("lastnode"), "x")];
            let event = history.commit_about(daemon("c"), &keys, "/pvc/fence/x");
            history.happens(event);
            history
        };
        let mut early = moved();
        let event = early.deletion(daemon("c"), "/pvc/fence/x");
        early.violated_by(event, "has not run on b since it was moved");
        let mut restarts = moved();
        restarts.writes(&[("/nodes/b/daemonstate", "init")]).writes(&[("/nodes/b/daemonstate", "run")]);
        let event = restarts.deletion(daemon("c"), "/pvc/fence/x");
        restarts.happens(event);
        let mut right = moved();
        right.happens(guest("b", Guest::Executes));
        let event = right.deletion(daemon("c"), "/pvc/fence/x");
        right.happens(event);
        let mut moved_on = moved();
        moved_on.writes(&[(&path("node"), "c")]);
        let event = moved_on.deletion(daemon("c"), "/pvc/fence/x");
        moved_on.happens(event);
        let mut sent_on = moved();
        sent_on.daemon_writes("b", &[(&path("node"), "c"), (&path("state"), "migrate")]);
        let event = sent_on.deletion(daemon("c"), "/pvc/fence/x");
        sent_on.happens(event);
        let mut kept = moved();
        kept.daemon_writes("b", &[(&path("failedreason"), "")]);
        let event = kept.deletion(daemon("c"), "/pvc/fence/x");
        kept.violated_by(event, "has not run on b since it was moved");
    }

    #[test]
    fn a_password_in_a_log_or_another_key_is_a_violation() {
        let mut history = desired("start");
        history.daemon_writes("a", &[("/nodes/a/ipmipassword", "hunter2")]);
        let log = |text: &str| Event::Log { node: "a".into(), level: "WARN", text: text.into() };
        history.happens(log("HMAC is invalid"));
        history.violated_by(log("ipmitool -P hunter2: HMAC is invalid"), "logs a BMC's password");
        let event = history.commit(daemon("a"), &[("/pvc/explain/node/a", "tried hunter2")]);
        history.violated_by(event, "tells a BMC's password");
    }
}
