//! 7. A minority changes nothing and starts nothing.
//!
//! A daemon without a connection to the quorum asks neither its hypervisor nor anybody's BMC for anything that cannot be undone, once it
//! must know that it has none. One that was frozen gets a moment to notice.

use std::{collections::BTreeMap, time::Duration};

use pvc_core::model::NodeName;

use crate::{
    checkers::{Checker, Timing},
    event::{self, Ask, Event, Power, Stamped},
    tree::Tree,
    truth::Truth,
};

/// How long a step that was decided may be on its way, and how long one that woke up needs to notice.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Minority {
    timing: Timing,
    /// When each machine or its daemon was thawed last.
    thawed: BTreeMap<NodeName, Duration>,
}

impl Minority {
    pub(super) fn new(timing: Timing) -> Self {
        Self { timing, thawed: BTreeMap::new() }
    }

    /// Whether a node's daemon knows that it has no connection, and for how long it has had none.
    fn is_cut_off(&self, truth: &Truth, node: &NodeName) -> Option<Duration> {
        let machine = truth.machine(node);
        let since = self.thawed.get(node).copied().unwrap_or_default().max(machine.connected_since);
        let knows = machine.connected != Some(true) && truth.now > since + self.timing.session + ON_ITS_WAY;
        knows.then(|| truth.since(machine.connected_since))
    }
}

impl Checker for Minority {
    fn invariant(&self) -> u8 {
        7
    }

    fn step(&mut self, truth: &Truth, _tree: &Tree, event: &Stamped) -> Result<(), String> {
        let (node, what) = match &event.event {
            Event::Machine { node, what: event::Machine::Thawed }
            | Event::Daemon { node, what: event::Daemon::Thawed } => {
                self.thawed.insert(node.clone(), truth.now);
                return Ok(());
            }
            // Operators' clients are not on the simulated network: what one has begun may end a moment too late.
            Event::Commit(commit)
                if truth.leader.is_none() && !matches!(commit.by, event::Author::Client(_)) =>
            {
                return Err(format!("there is no quorum, and yet: {commit}"));
            }
            Event::Asked {
                node,
                vm,
                what: what @ (Ask::Start | Ask::PowerOff | Ask::ShutDown | Ask::Migrate(_)),
            } => (node, format!("{what:?} of {vm}")),
            Event::Bmc { by, of, call: call @ (Power::Off | Power::Reset), .. } => {
                (by, format!("{call:?} of the BMC of {of}"))
            }
            _ => return Ok(()),
        };
        match self.is_cut_off(truth, node) {
            Some(since) => {
                Err(format!("{node} asks for {what}, {:.0} s after it lost the quorum", since.as_secs_f32()))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::testing::{History, TIMING, node, vm};

    fn asked() -> Event {
        Event::Asked { node: node("a"), vm: vm(1), what: Ask::Start }
    }

    fn session(what: event::Session) -> Event {
        Event::Session { node: node("a"), what }
    }

    /// `a` loses its connection at second 100.
    fn history() -> History {
        let mut history = History::new(Minority::new(TIMING));
        history.on("a", 1).happens(session(event::Session::Connected { session: 1 }));
        history.at_s(100).happens(session(event::Session::Silent { session: 1 }));
        history
    }

    #[test]
    fn a_start_without_the_quorum_is_a_violation_once_its_daemon_knows() {
        history().at_s(110).happens(asked());
        history().at_s(130).violated_by(asked(), "a asks for Start");
        let shot = Event::Bmc { by: node("a"), of: node("b"), call: Power::Off, said: None };
        history().at_s(130).violated_by(shot, "BMC of b");
    }

    #[test]
    fn who_is_connected_again_or_has_just_been_thawed_may() {
        let mut back = history();
        back.at_s(120).happens(session(event::Session::Connected { session: 1 })).at_s(130).happens(asked());
        let mut next = history();
        next.happens(session(event::Session::Connected { session: 2 }));
        next.at_s(120).happens(session(event::Session::Ended { session: 1 })).at_s(300).happens(asked());
        // What a daemon that is gone had asked for is no connection of the next one's, nor its end.
        next.happens(session(event::Session::Connected { session: 1 }));
        next.happens(session(event::Session::Silent { session: 1 })).at_s(600).happens(asked());
        let mut thawed = history();
        thawed.at_s(300).happens(Event::Daemon { node: node("a"), what: event::Daemon::Thawed });
        thawed.happens(asked());
        thawed.at_s(330).violated_by(asked(), "lost the quorum");
    }

    #[test]
    fn nothing_is_written_without_a_quorum() {
        let mut history = History::new(Minority::new(TIMING));
        let event = history.commit(crate::checkers::testing::daemon("a"), &[("/x", "1")]);
        history.violated_by(event, "there is no quorum");
    }
}
