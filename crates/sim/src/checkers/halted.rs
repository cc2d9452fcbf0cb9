//! Part of liveness: a guest that has crashed, and whose process stays, is started anew within two minutes where all is well; and one that
//! somebody has paused, or an I/O error has stopped, goes on by nobody's hand but his.

use std::{collections::BTreeMap, time::Duration};

use pvc_core::model::{DomainSpec, NodeName, VmId, VmName};

use crate::{
    event::{self, Commit, Event, Guest, Stamped},
    tree::Tree,
    truth::{Daemon, Stands, Truth},
};

use crate::keys;

/// How long a daemon may take: its libvirt may have lost an answer, or taken its time.
const WITHIN: Duration = Duration::from_mins(2);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Halted {
    /// Since when each process stands, and why.
    stands: BTreeMap<(VmId, NodeName), (Stands, Duration)>,
    /// What somebody is about to let go on.
    let_go: Option<(VmId, NodeName)>,
    /// Since when each VM's keys have been as they are.
    since: BTreeMap<VmId, Duration>,
    /// When each node's libvirt, or its programs, last turned.
    disturbed: BTreeMap<NodeName, Duration>,
}

impl Halted {
    pub(super) fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::LetGo { vm, node } => self.let_go = Some((*vm, node.clone())),
            Event::Guest { vm, node, what } => return self.turns(truth, *vm, node, *what),
            Event::Machine { node, what } => {
                self.disturbed.insert(node.clone(), truth.now);
                if *what == event::Machine::Off {
                    self.stands.retain(|(_, on), _| on != node);
                }
            }
            Event::Libvirt { node, .. } | Event::Daemon { node, .. } => {
                self.disturbed.insert(node.clone(), truth.now);
            }
            Event::Commit(commit) => return self.commit(truth, tree, commit),
            _ => {}
        }
        Ok(())
    }

    fn turns(&mut self, truth: &Truth, vm: VmId, node: &NodeName, what: Guest) -> Result<(), String> {
        let of = (vm, node.clone());
        let by_hand = self.let_go.take_if(|let_go| *let_go == of).is_some();
        let stood = self.stands.remove(&of);
        match what {
            Guest::Halted => drop(self.stands.insert(of, (Stands::Halted, truth.now))),
            Guest::Crashed => drop(self.stands.insert(of, (Stands::Crashed, truth.now))),
            Guest::Executes if !by_hand && stood.is_some() => {
                return Err(format!("{vm} goes on at {node}, and nobody has let it"));
            }
            Guest::Executes | Guest::Held | Guest::Gone => {}
        }
        Ok(())
    }

    fn commit(&mut self, truth: &Truth, tree: &Tree, commit: &Commit) -> Result<(), String> {
        let mut keepalive = None;
        for change in &commit.changes {
            if let Some((vm, _)) = keys::of_vm(&change.path) {
                self.since.insert(vm, truth.now);
            } else if let Some((node, "keepalive")) = keys::of_node(&change.path) {
                keepalive = Some(node);
            }
        }
        let Some(node) = keepalive.filter(|node| commit.daemon() == Some(node)) else { return Ok(()) };
        let machine = truth.machine(&node);
        let long_ago = |at: Option<&Duration>| at.is_none_or(|at| truth.now > *at + WITHIN);
        let well = machine.daemon == Daemon::Runs
            && machine.connected == Some(true)
            && machine.libvirt == Some(event::Libvirt::Up)
            && long_ago(Some(&machine.connected_since))
            && long_ago(self.disturbed.get(&node));
        let on_it = self.stands.iter().filter(|((_, on), _)| *on == node);
        for ((vm, _), (_, since)) in on_it.filter(|(_, (why, _))| well && *why == Stands::Crashed) {
            let shall_run = tree.vm(*vm, "state") == "start"
                && tree.vm(*vm, "node") == node.as_str()
                && tree.claim(*vm).eq([node.as_str()]);
            if shall_run && long_ago(Some(since)) && long_ago(self.since.get(vm)) && could_start(tree, *vm) {
                let seconds = truth.since(*since).as_secs();
                return Err(format!("{vm} has crashed on {node} {seconds} s ago, and is not started anew"));
            }
        }
        Ok(())
    }
}

/// Whether its definition can still be used.
fn could_start(tree: &Tree, vm: VmId) -> bool {
    let name = tree.text(&format!("/domains/{vm}")).and_then(|name| name.parse::<VmName>().ok());
    name.is_some_and(|name| DomainSpec::parse_as(tree.vm(vm, "xml"), vm, &name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::{
        liveness::Liveness,
        testing::{History, TIMING, definition, node, vm, vm_key},
    };

    fn turns(what: Guest) -> Event {
        Event::Guest { vm: vm(1), node: node("a"), what }
    }

    /// VM 1 runs on `a`, where all is well.
    fn history() -> History {
        let mut history = History::new(Liveness::new(TIMING));
        history
            .on("a", 1)
            .happens(Event::Daemon { node: node("a"), what: event::Daemon::Started { run: 1 } });
        history.happens(Event::Session { node: node("a"), what: event::Session::Connected { session: 1 } });
        history.happens(Event::Libvirt { node: node("a"), what: event::Libvirt::Up });
        history.writes(&[
            (&format!("/domains/{}", vm(1)), "vm1"),
            (&vm_key(1, "state"), "start"),
            (&vm_key(1, "node"), "a"),
            (&vm_key(1, "claim"), "a"),
            (&vm_key(1, "xml"), &definition(1)),
        ]);
        history.happens(turns(Guest::Executes));
        history
    }

    #[test]
    fn what_has_crashed_and_is_not_started_anew_is_a_violation() {
        let mut left = history();
        left.at_s(300)
            .happens(turns(Guest::Crashed))
            .at_s(400)
            .daemon_writes("a", &[("/nodes/a/keepalive", "1")]);
        let keepalive = left.commit(crate::checkers::testing::daemon("a"), &[("/nodes/a/keepalive", "2")]);
        left.at_s(430).violated_by(keepalive, "and is not started anew");
        let mut anew = history();
        anew.at_s(300).happens(turns(Guest::Crashed)).happens(turns(Guest::Gone));
        anew.at_s(310).happens(turns(Guest::Executes));
        anew.at_s(430).daemon_writes("a", &[("/nodes/a/keepalive", "1")]);
    }

    #[test]
    fn what_somebody_has_paused_goes_on_by_his_hand_only_and_is_told_at_last() {
        let mut resumed = history();
        resumed.at_s(300).happens(turns(Guest::Halted));
        resumed.violated_by(turns(Guest::Executes), "nobody has let it");
        let mut by_hand = history();
        by_hand.at_s(300).happens(turns(Guest::Halted));
        by_hand.happens(Event::LetGo { vm: vm(1), node: node("a") }).happens(turns(Guest::Executes));
        let settled = || Event::Phase(event::Phase::Settled);
        let mut untold = history();
        untold.at_s(300).happens(turns(Guest::Halted));
        untold.violated_by(settled(), "is not as desired");
        let mut told = history();
        told.at_s(300).happens(turns(Guest::Halted));
        told.daemon_writes("a", &[("/nodes/a/guests", &format!("{}=paused", vm(1)))]).happens(settled());
    }
}
