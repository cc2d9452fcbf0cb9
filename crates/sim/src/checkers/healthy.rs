//! 6. No healthy node, no node in maintenance, no self, is ever fenced; never so many that quorum is lost.
//!
//! Healthy is told by the state tree alone: a node whose last keepalive is not old enough was not silent, whatever its clock or
//! anybody else's says. Time without a quorum is nobody's silence. What an operator asked for or confirmed is excused from health.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pvc_core::model::{FenceJob, NodeName, Proof};

use crate::{
    checkers::{Checker, Timing},
    event::{Author, Change, Commit, Event, Power, Said, Stamped},
    tree::Tree,
    truth::{Daemon, Truth},
};

use crate::keys;

/// How old a fencer's last look may be when its BMC's answer comes.
const ON_ITS_WAY: Duration = Duration::from_secs(30);

/// How long it may take until everybody knows of maintenance.
const KNOWN_WITHIN: Duration = Duration::from_secs(15);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Healthy {
    timing: Timing,
    /// When each node wrote its last keepalive, and how long there had been no quorum until then, all in all.
    keepalives: BTreeMap<NodeName, (Duration, Duration)>,
    /// How long there was no quorum, all in all, without the time that it lasts now.
    without_quorum: Duration,
    /// Since when there is none now.
    quorum_lost: Option<Duration>,
    /// The nodes that had no daemon running when it was last lost.
    mute: BTreeSet<NodeName>,
    maintenance_since: Option<Duration>,
    /// Since when each node has been back from being `dead`; of one that an operator had fenced, since its fence ended.
    back: BTreeMap<NodeName, Duration>,
}

impl Healthy {
    pub(super) fn new(timing: Timing) -> Self {
        Self {
            timing,
            keepalives: BTreeMap::new(),
            without_quorum: Duration::ZERO,
            quorum_lost: None,
            mute: BTreeSet::new(),
            maintenance_since: None,
            back: BTreeMap::new(),
        }
    }
}

impl Checker for Healthy {
    fn invariant(&self) -> u8 {
        6
    }

    fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Leader(None) if self.quorum_lost.is_none() => {
                self.quorum_lost = Some(truth.now);
                let mute = truth.machines.iter().filter(|(_, machine)| machine.daemon != Daemon::Runs);
                self.mute = mute.map(|(node, _)| node.clone()).collect();
            }
            Event::Leader(Some(_)) => {
                let gap = self.quorum_lost.take().map_or(Duration::ZERO, |lost| truth.since(lost));
                // In a shorter one nobody misses a keepalive, so it is nobody's gap, however many there are (decision 51).
                if gap >= self.timing.keepalive {
                    self.without_quorum += gap;
                }
            }
            Event::Commit(commit) => {
                for change in &commit.changes {
                    self.changes(truth, tree, commit, change)?;
                }
            }
            Event::Bmc { by, of, call: Power::Off | Power::Reset, said } => {
                self.shoots(truth, tree, by, of, *said)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Healthy {
    fn changes(
        &mut self,
        truth: &Truth,
        tree: &Tree,
        commit: &Commit,
        change: &Change,
    ) -> Result<(), String> {
        if change.path == "/pvc/maintenance" {
            let on = change.is() == "on";
            self.maintenance_since = on.then(|| self.maintenance_since.unwrap_or(truth.now));
        }
        if let Some(node) = keys::of_fence(&change.path)
            && change.after.is_none()
            && is_word_of_operator(change.was())
        {
            // It lived all the while, so it is not back; what its fencer was about to do may be on its way.
            self.back.entry(node).and_modify(|since| *since = truth.now);
            return Ok(());
        }
        let Some((node, key)) = keys::of_node(&change.path) else { return Ok(()) };
        match key {
            "keepalive" => drop(self.keepalives.insert(node, (truth.now, self.without_quorum))),
            "daemonstate" if change.is() == "dead" => {
                self.back.remove(&node);
                if change.was() != "dead" {
                    return self.declared(truth, tree, commit, &node, change.was());
                }
            }
            "daemonstate" => drop(self.back.entry(node).or_insert(truth.now)),
            _ => {}
        }
        Ok(())
    }

    fn declared(
        &self,
        truth: &Truth,
        tree: &Tree,
        commit: &Commit,
        node: &NodeName,
        was: &str,
    ) -> Result<(), String> {
        let Author::Daemon { node: by, .. } = &commit.by else { return Ok(()) };
        if by == node {
            return Err(format!("{node} declares itself dead"));
        }
        if is_operators(tree, node) {
            return Ok(());
        }
        if let Some(since) = self.maintenance_since
            && truth.now > since + KNOWN_WITHIN
        {
            return Err(format!("{by} declares {node} dead in maintenance"));
        }
        // One that has stopped in order need not speak, and its guests execute on, unless its machine is off (decision 103). What cannot be
        // read says nothing against being fenced.
        if was == "stop" && !is_unknown_stop(truth, tree, node) {
            let machine = truth.machine(node);
            // Somebody may have switched it on again since its BMC was asked.
            let was_off = machine.boot.is_none() || truth.since(machine.power_since) < ON_ITS_WAY;
            if is_found_off(tree, node) && (was_off || machine.bmc_lies) {
                return Ok(());
            }
            return Err(format!("{by} declares {node} dead, whose daemon says {was}"));
        }
        let (heard, without) = self.keepalives.get(node).copied().unwrap_or_default();
        let silence = truth.since(heard).saturating_sub(self.without_quorum.saturating_sub(without));
        // An election that is over before a session notices is nobody's gap; and of a node that could not speak, one that is over
        // before a keepalive is missed: what was decided before an outage may be committed after it, when its machine has perhaps just
        // come back (decision 51).
        let (every, fence_after) = self.timing.of(tree, node);
        let could_speak = truth.machine(node).works() && !self.mute.contains(node);
        let unnoticed = if could_speak { every } else { every * 7 / 4 };
        if silence + unnoticed < fence_after {
            return Err(format!(
                "{by} declares {node} dead after {:.1} s of silence in which there was a quorum",
                silence.as_secs_f32()
            ));
        }
        Ok(())
    }

    fn shoots(
        &self,
        truth: &Truth,
        tree: &Tree,
        by: &NodeName,
        of: &NodeName,
        said: Option<Said>,
    ) -> Result<(), String> {
        if by == of {
            return Err(format!("{by} powers itself off"));
        }
        if let Some(since) = self.maintenance_since
            && truth.now > since + KNOWN_WITHIN + ON_ITS_WAY
        {
            return Err(format!("{by} powers off {of} in maintenance"));
        }
        if let Some(since) = self.back.get(of)
            && truth.now > *since + ON_ITS_WAY
            && !is_operators(tree, of)
        {
            let seconds = truth.since(*since).as_secs();
            return Err(format!("{by} powers off {of}, which has been back for {seconds} s"));
        }
        if said == Some(Said::Accepted) { self.leaves_a_quorum(truth, tree, by, of) } else { Ok(()) }
    }

    /// The servers that would be left, together with those whose power failed so late that nobody can know.
    fn leaves_a_quorum(
        &self,
        truth: &Truth,
        tree: &Tree,
        by: &NodeName,
        of: &NodeName,
    ) -> Result<(), String> {
        let coordinators: Vec<&NodeName> =
            truth.machines.keys().filter(|name| tree.node(name, "daemonmode") == "coordinator").collect();
        let unknown = self.timing.keepalive * 2 + ON_ITS_WAY;
        let left = |name: &&&NodeName| {
            let machine = truth.machine(name);
            // A machine that freezes freezes its daemon.
            let stopped = machine.power_since.max(machine.daemon_since);
            // Whoever writes a keepalive, or `run`, says that its node lives.
            let (every, _) = self.timing.of(tree, name);
            let spoken_for = ["keepalive", "daemonstate"].iter().any(|key| {
                truth.was_written_by_vandal(&format!("/nodes/{name}/{key}"), every * 2 + ON_ITS_WAY)
            });
            **name != of && (machine.works() || truth.now < stopped + unknown || spoken_for)
        };
        let left = coordinators.iter().filter(left).count();
        let all = coordinators.len();
        // One that has lost its power already takes nothing with it.
        if coordinators.contains(&of) && truth.leader.is_some() && left * 2 <= all {
            return Err(format!(
                "{by} powers off {of}, which leaves {left} of {all} ZooKeeper servers: no quorum"
            ));
        }
        Ok(())
    }
}

/// Somebody has spoilt its word, and it could not say it a second time (decision 187): nobody can know that it has stopped in order.
fn is_unknown_stop(truth: &Truth, tree: &Tree, node: &NodeName) -> bool {
    let second = tree.node(node, "stopped");
    let is_said = !second.is_empty() && second == tree.node(node, "boot");
    truth.was_spoilt(&format!("/nodes/{node}/daemonstate"), Duration::ZERO) && !is_said
}

fn is_found_off(tree: &Tree, node: &NodeName) -> bool {
    let record = tree.text(&format!("/pvc/fence/{node}"));
    let job = record.and_then(|text| serde_json::from_str::<FenceJob>(text).ok());
    job.is_some_and(|job| job.step.proof() == Some(Proof::FoundOff))
}

/// Whether an operator asked for the fence, or has said that the node is dead.
fn is_operators(tree: &Tree, node: &NodeName) -> bool {
    tree.text(&format!("/pvc/fence/{node}")).is_some_and(is_word_of_operator)
}

fn is_word_of_operator(record: &str) -> bool {
    serde_json::from_str::<FenceJob>(record)
        .is_ok_and(|job| job.asked.is_some() || job.confirmed_dead.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{History, TIMING, daemon, node},
        event::{self, VANDAL},
    };

    const JOB: &str = r#"{"step":"shooting","instance":null,"by":"a","at_unix_s":0}"#;
    const ASKED: &str =
        r#"{"step":"shooting","instance":null,"by":"a","at_unix_s":0,"asked":{"by":"o","at_unix_s":0}}"#;

    const OFF_AS_ASKED: &str = r#"{"step":"proven","proof":"power-off","instance":null,"by":"a","at_unix_s":0,"asked":{"by":"o","at_unix_s":0}}"#;

    /// Three coordinators; `x` said at second 100 that it lives.
    fn history() -> History {
        let mut history = History::new(Healthy::new(TIMING));
        history.happens(Event::Leader(Some(node("a"))));
        for name in ["a", "b", "x"] {
            let key = |key: &str| format!("/nodes/{name}/{key}");
            history.on(name, 1).writes(&[(&key("daemonmode"), "coordinator"), (&key("daemonstate"), "run")]);
        }
        history.at_s(100).daemon_writes("x", &[("/nodes/x/keepalive", "1")]);
        history
    }

    fn declare(history: &mut History, job: &str) -> Event {
        history.commit(daemon("a"), &[("/pvc/fence/x", job), ("/nodes/x/daemonstate", "dead")])
    }

    fn shot(by: &str, of: &str) -> Event {
        Event::Bmc { by: node(by), of: node(of), call: Power::Off, said: Some(Said::Accepted) }
    }

    fn off(name: &str) -> Event {
        Event::Machine { node: node(name), what: event::Machine::Off }
    }

    #[test]
    fn a_node_that_has_stopped_is_declared_dead_by_a_bmc_that_says_off_and_by_nothing_else() {
        const FOUND: &str = r#"{"step":"proven","proof":"found-off","instance":null,"by":"a","at_unix_s":0}"#;
        let machine = |what| Event::Machine { node: node("x"), what };
        let stopped = || {
            let mut history = history();
            history.happens(machine(event::Machine::On { boot: 1 }));
            history.daemon_writes("x", &[("/nodes/x/daemonstate", "stop")]);
            history
        };
        for job in [JOB, FOUND] {
            let mut on = stopped();
            let event = declare(&mut on, job);
            on.at_s(200).violated_by(event, "a declares x dead, whose daemon says stop");
        }
        let mut is_off = stopped();
        is_off.at_s(110).happens(machine(event::Machine::Off));
        let event = declare(&mut is_off, FOUND);
        is_off.at_s(200).happens(event);
        let mut shot = stopped();
        shot.at_s(110).happens(machine(event::Machine::Off));
        let event = declare(&mut shot, JOB);
        shot.at_s(200).violated_by(event, "whose daemon says stop");
    }

    #[test]
    fn a_stop_that_somebody_has_spoilt_is_known_by_its_second_word_or_by_nobody() {
        let stopped = |second: &str| {
            let mut history = history();
            history.daemon_writes(
                "x",
                &[("/nodes/x/daemonstate", "stop"), ("/nodes/x/boot", "b"), ("/nodes/x/stopped", second)],
            );
            let spoils =
                history.commit(Author::Client(VANDAL), &[("/nodes/x/daemonstate", "what / is this?")]);
            history.only_truth(spoils);
            let event = declare(&mut history, JOB);
            (history, event)
        };
        let (mut known, event) = stopped("b");
        known.at_s(200).violated_by(event, "whose daemon says");
        let (mut unknown, event) = stopped("");
        unknown.at_s(200).happens(event);
    }

    #[test]
    fn a_node_that_was_not_silent_for_long_enough_is_not_declared_dead() {
        let mut early = history();
        let event = declare(&mut early, JOB);
        early.at_s(124).violated_by(event, "a declares x dead after 24.0 s of silence");
        let mut late = history();
        let event = declare(&mut late, JOB);
        late.at_s(130).happens(event);
        let mut wanted = history();
        let event = declare(&mut wanted, ASKED);
        wanted.at_s(101).happens(event);
        // A node that said again that it lives, and is off because an operator asked for it.
        let mut done = history();
        let event = declare(&mut done, OFF_AS_ASKED);
        done.at_s(101).happens(event);
    }

    #[test]
    fn only_of_a_node_that_could_not_speak_when_the_quorum_was_lost_a_little_of_that_time_may_count() {
        let outage = |speaks: bool| {
            let mut history = history();
            history.happens(Event::Machine { node: node("x"), what: event::Machine::On { boot: 1 } });
            if speaks {
                history.happens(Event::Daemon { node: node("x"), what: event::Daemon::Started { run: 1 } });
            }
            history.at_s(110).happens(Event::Leader(None));
            history.at_s(120).happens(Event::Leader(Some(node("b"))));
            let event = declare(&mut history, JOB);
            (history, event)
        };
        let (mut mute, event) = outage(false);
        mute.at_s(134).happens(event);
        let (mut mute, event) = outage(false);
        mute.at_s(131).violated_by(event, "after 21.0 s of silence");
        let (mut speaks, event) = outage(true);
        speaks.at_s(134).violated_by(event, "after 24.0 s of silence");
    }

    #[test]
    fn silence_without_a_quorum_is_nobodys() {
        let mut history = history();
        history.at_s(110).happens(Event::Leader(None));
        history.at_s(700).happens(Event::Leader(Some(node("b"))));
        let event = declare(&mut history, JOB);
        history.at_s(710).violated_by(event, "after 20.0 s of silence");
        let mut short = self::history();
        for (lost, regained) in [(110, 113), (118, 121)] {
            short.at_s(lost).happens(Event::Leader(None));
            short.at_s(regained).happens(Event::Leader(Some(node("b"))));
        }
        let event = declare(&mut short, JOB);
        short.at_s(130).happens(event);
    }

    #[test]
    fn nobody_is_declared_dead_in_maintenance_nor_declares_itself() {
        let mut history = history();
        history.writes(&[("/pvc/maintenance", "on")]);
        let event = declare(&mut history, JOB);
        history.at_s(200).violated_by(event, "in maintenance");
        let mut alone = self::history();
        let suicide = alone.commit(daemon("x"), &[("/nodes/x/daemonstate", "dead")]);
        alone.violated_by(suicide, "itself");
    }

    #[test]
    fn a_node_that_came_back_and_oneself_are_not_shot() {
        let mut history = history();
        history.violated_by(shot("a", "a"), "powers itself off");
        let event = declare(&mut history, JOB);
        history.at_s(140).happens(event);
        history.happens(shot("a", "x"));
        history.at_s(150).daemon_writes("x", &[("/nodes/x/daemonstate", "init")]);
        history.at_s(170).happens(shot("a", "x"));
        history.at_s(190).violated_by(shot("a", "x"), "back for 40 s");
    }

    #[test]
    fn what_was_on_its_way_when_an_operators_fence_ended_may_still_arrive() {
        let mut history = history();
        let event = history.commit(daemon("a"), &[("/pvc/fence/x", ASKED)]);
        history.at_s(300).happens(event).happens(shot("a", "x"));
        let over = history.deletion(daemon("b"), "/pvc/fence/x");
        history.at_s(400).happens(over);
        history.at_s(429).happens(shot("a", "x"));
        history.at_s(431).violated_by(shot("a", "x"), "back for 31 s");
    }

    #[test]
    fn the_last_servers_of_a_quorum_are_not_shot() {
        let mut history = history();
        let event = declare(&mut history, JOB);
        history.at_s(140).happens(event).happens(off("b"));
        history.at_s(150).happens(shot("a", "x"));
        history.at_s(200).violated_by(shot("a", "x"), "leaves 1 of 3 ZooKeeper servers");
    }

    #[test]
    fn a_server_of_which_somebody_has_just_said_that_it_lives_counts_as_left() {
        for (key, said) in [("/nodes/b/keepalive", "what / is this?"), ("/nodes/b/daemonstate", "run")] {
            let mut history = history();
            let event = declare(&mut history, JOB);
            history.at_s(140).happens(event).happens(off("b"));
            history.at_s(199).writes(&[(key, "")]);
            let vandal = history.commit(Author::Client(VANDAL), &[(key, said)]);
            history.at_s(200).happens(vandal).at_s(240).happens(shot("a", "x"));
            history.at_s(241).violated_by(shot("a", "x"), "leaves 1 of 3 ZooKeeper servers");
        }
    }
}
