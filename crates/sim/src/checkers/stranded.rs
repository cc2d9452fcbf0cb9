//! Part of liveness: what shall run, and its node cannot start, runs elsewhere within minutes where another node could start it; and nothing is
//! placed on a node that says that it can start nothing.
//!
//! Judged while other things go wrong, so only of VMs that nothing happened to, and of nodes that nothing happens to: libvirt, daemon and session of
//! both are as they have been, no node was fenced, and ZooKeeper had a quorum all the while. What a node without libvirt claims it keeps: only
//! its libvirt could say that no guest executes (decision 99). Each node that has refused a VM is left alone with it (decision 100).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pvc_core::model::{DomainSpec, NodeName, VmId};

use crate::keys;
use crate::{
    event::{self, Commit, Event, Libvirt, Net, Stamped},
    tree::Tree,
    truth::{Daemon, Machine, Truth},
};

/// A node tries for half a minute, and its keys may be written and read slowly; a chosen node may refuse it by chance.
const WITHIN: Duration = Duration::from_mins(2);

/// How long it may take until everybody knows what a node says, and what was placed before has been written.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Stranded {
    /// When something last happened to all …
    disturbed: Duration,
    /// … to each node …
    nodes: BTreeMap<NodeName, Duration>,
    /// … and to each VM, other than that daemons moved it.
    vms: BTreeMap<VmId, Duration>,
    /// Since when nodes have said that they can start nothing.
    unable: BTreeMap<NodeName, Duration>,
}

impl Stranded {
    pub(super) fn step(&mut self, truth: &Truth, tree: &Tree, event: &Stamped) -> Result<(), String> {
        match &event.event {
            Event::Machine { node, what } if !matches!(what, event::Machine::ClockJumped(_)) => {
                self.happens_to(node, truth);
            }
            Event::Daemon { node, .. }
            | Event::Session { node, .. }
            | Event::Libvirt { node, .. }
            | Event::Lacks { node, .. } => self.happens_to(node, truth),
            Event::Guest { vm, .. } => drop(self.vms.insert(*vm, truth.now)),
            Event::Link { net: Net::Store, .. } | Event::Leader(_) => self.disturbed = truth.now,
            Event::Commit(commit) => {
                self.note(truth, commit);
                self.placed(truth, tree, commit)?;
                let speaks = |path: &str| matches!(keys::of_node(path), Some((_, "keepalive")));
                if commit.changes.iter().any(|change| speaks(&change.path)) {
                    return tree.vms().try_for_each(|vm| self.is_taken_care_of(truth, tree, vm));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn happens_to(&mut self, node: &NodeName, truth: &Truth) {
        self.nodes.insert(node.clone(), truth.now);
    }

    fn note(&mut self, truth: &Truth, commit: &Commit) {
        for change in &commit.changes {
            if change.path.starts_with("/pvc/fence/") {
                self.disturbed = truth.now;
            }
            match (keys::of_vm(&change.path), keys::of_node(&change.path)) {
                (Some((vm, _)), _) if commit.daemon().is_none() => drop(self.vms.insert(vm, truth.now)),
                (_, Some((node, "daemonstate" | "domainstate"))) => self.happens_to(&node, truth),
                (_, Some((node, "hypervisor"))) if change.is().is_empty() => drop(self.unable.remove(&node)),
                (_, Some((node, "hypervisor"))) => drop(self.unable.entry(node).or_insert(truth.now)),
                _ => {}
            }
        }
    }

    /// Of its own ability a node may know better than what it said last.
    fn placed(&self, truth: &Truth, tree: &Tree, commit: &Commit) -> Result<(), String> {
        let Some(by) = commit.daemon() else { return Ok(()) };
        if self.unable.is_empty() || commit.changes.iter().all(|change| change.path != "/pvc/placement") {
            return Ok(());
        }
        for change in &commit.changes {
            let Some((vm, "node")) = keys::of_vm(&change.path) else { continue };
            let Ok(to) = change.is().parse::<NodeName>() else { continue };
            let known = self.unable.get(&to).is_some_and(|since| truth.since(*since) > KNOWN_WITHIN);
            if known && to != *by && change.was() != change.is() && tree.vm(vm, "state") != "stop" {
                let why = tree.node(&to, "hypervisor");
                return Err(format!("{by} places {vm} on {to}, which can start nothing: {why}"));
            }
        }
        Ok(())
    }

    fn is_taken_care_of(&self, truth: &Truth, tree: &Tree, vm: VmId) -> Result<(), String> {
        let Ok(node) = tree.vm(vm, "node").parse::<NodeName>() else { return Ok(()) };
        let machine = truth.machine(&node);
        let no_libvirt = machine.libvirt == Some(Libvirt::Down);
        if !no_libvirt && machine.lacks.is_none() || tree.vm(vm, "state") != "start" {
            return Ok(());
        }
        let long = |at: Option<&Duration>| truth.since(at.copied().unwrap_or_default()) > WITHIN;
        let here = || is_there(&machine) && long(self.nodes.get(&node)) && decides(truth, tree, &node);
        let waits = long(self.vms.get(&vm)) && long(Some(&self.disturbed));
        if !waits || !here() || !is_free(truth, tree, vm, (!no_libvirt).then_some(&node)) {
            return Ok(());
        }
        let Ok(spec) = DomainSpec::parse(tree.vm(vm, "xml")) else { return Ok(()) };
        let could = |(other, machine): &(&NodeName, &Machine)| {
            let able = machine.libvirt == Some(Libvirt::Up) && machine.lacks.is_none();
            let takes =
                tree.node(other, "daemonstate") == "run" && tree.node(other, "domainstate") == "ready";
            let refused = || tree.vm(vm, "refused_by").split_whitespace().any(|name| name == other.as_str());
            **other != node
                && able
                && is_there(machine)
                && takes
                && long(self.nodes.get(*other))
                && !truth.is_spoilt_below(&format!("/nodes/{other}/"))
                && !refused()
                && free_mib(tree, other) >= spec.memory_mib
        };
        match truth.machines.iter().find(could) {
            Some((other, _)) => Err(format!(
                "{vm} shall run and has not for {} s: {node} cannot start it, and {other} could",
                truth.since(self.vms.get(&vm).copied().unwrap_or_default()).as_secs()
            )),
            None => Ok(()),
        }
    }
}

fn is_there(machine: &Machine) -> bool {
    machine.works() && machine.daemon == Daemon::Runs && machine.connected == Some(true)
}

/// A node that is being emptied or filled has its own ways, and one whose keys nobody can read has none.
fn decides(truth: &Truth, tree: &Tree, node: &NodeName) -> bool {
    matches!(tree.node(node, "domainstate"), "ready" | "flushed")
        && !truth.is_spoilt_below(&format!("/nodes/{node}/"))
}

/// No process of it is anywhere, nobody but its own node may be executing it, and everybody can read that.
fn is_free(truth: &Truth, tree: &Tree, vm: VmId, but: Option<&NodeName>) -> bool {
    let id = vm.to_string();
    let named = |node: &NodeName| tree.node(node, "runningdomains").split_whitespace().any(|said| said == id);
    truth.guests.get(&vm).is_none_or(BTreeMap::is_empty)
        && truth.strangers.keys().all(|(stranger, _)| *stranger != vm)
        && tree.claim(vm).all(|name| but.is_some_and(|node| node.as_str() == name))
        && truth.machines.keys().all(|node| !named(node))
        && !truth.is_spoilt_below(&format!("/domains/{vm}/"))
        && !truth.is_spoilt(&format!("/pvc/claim/{vm}"))
}

/// What is left of a node's memory, by what is kept on it and by what it says.
fn free_mib(tree: &Tree, node: &NodeName) -> u64 {
    let said = |key: &str| tree.node(node, key).parse::<u64>().unwrap_or_default();
    let kept = |vm: &VmId| {
        let desired = matches!(tree.vm(*vm, "state"), "start" | "restart" | "shutdown" | "migrate");
        let nodes: BTreeSet<&str> = tree.claim(*vm).chain(desired.then(|| tree.vm(*vm, "node"))).collect();
        nodes.contains(node.as_str())
    };
    let sizes = tree.vms().filter(kept).filter_map(|vm| DomainSpec::parse(tree.vm(vm, "xml")).ok());
    let reserved: u64 = sizes.map(|spec| spec.memory_mib).sum();
    said("memtotal").saturating_sub(reserved.max(said("memalloc")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::{
        liveness::Liveness,
        testing::{History, TIMING, daemon, definition, node, vm, vm_key},
    };

    /// VM 1 shall run on `a` since second 10, and `b` could start it.
    fn history() -> History {
        let mut history = History::new(Liveness::new(TIMING));
        for name in ["a", "b"] {
            works(&mut history, name);
            history.happens(Event::Libvirt { node: node(name), what: Libvirt::Up });
            history.writes(&[(&format!("/nodes/{name}/memtotal"), "1000")]);
        }
        history.at_s(10).writes(&[
            (&format!("/domains/{}", vm(1)), "vm1"),
            (&vm_key(1, "state"), "start"),
            (&vm_key(1, "node"), "a"),
            (&vm_key(1, "xml"), &definition(1)),
        ]);
        history
    }

    fn works(history: &mut History, name: &str) {
        let started = Event::Daemon { node: node(name), what: event::Daemon::Started { run: 1 } };
        let connected = Event::Session { node: node(name), what: event::Session::Connected { session: 1 } };
        history.on(name, 1).happens(started).happens(connected);
        history.writes(&[
            (&format!("/nodes/{name}/daemonstate"), "run"),
            (&format!("/nodes/{name}/domainstate"), "ready"),
        ]);
    }

    fn loses_libvirt(history: &mut History) {
        history.at_s(20).happens(Event::Libvirt { node: node("a"), what: Libvirt::Down });
    }

    fn speaks(history: &mut History) -> Event {
        history.commit(daemon("b"), &[("/nodes/b/keepalive", "1")])
    }

    #[test]
    fn what_its_node_cannot_start_is_started_elsewhere() {
        for lacks in [false, true] {
            let mut history = history();
            if lacks {
                history.writes(&[(&vm_key(1, "claim"), "a")]);
                history.at_s(20).happens(Event::Lacks { node: node("a"), lacks: true });
            } else {
                loses_libvirt(&mut history);
            }
            let early = speaks(&mut history);
            history.at_s(140).happens(early);
            let late = speaks(&mut history);
            history.at_s(141).violated_by(late, "a cannot start it, and b could");
        }
    }

    #[test]
    fn what_excuses_it() {
        let excuses: [fn(&mut History) -> &mut History; 8] = [
            |h| h.daemon_writes("a", &[(&vm_key(1, "claim"), "a")]),
            |h| h.daemon_writes("a", &[("/nodes/a/runningdomains", &vm(1).to_string())]),
            |h| h.writes(&[("/nodes/b/memtotal", "500")]),
            |h| h.writes(&[("/nodes/b/domainstate", "flushed")]),
            |h| h.daemon_writes("a", &[(&vm_key(1, "refused_by"), "a b")]),
            |h| h.daemon_writes("a", &[(&vm_key(1, "state"), "stop")]),
            |h| h.daemon_writes("b", &[("/pvc/fence/x", "{}")]),
            |h| h.happens(Event::Leader(Some(node("b")))),
        ];
        for excuse in excuses {
            let mut history = history();
            loses_libvirt(&mut history);
            excuse(history.at_s(100));
            let late = speaks(&mut history);
            history.at_s(200).happens(late);
        }
    }

    #[test]
    fn that_daemons_move_it_from_one_such_node_to_the_next_is_no_excuse() {
        let mut history = history();
        works(&mut history, "c");
        for name in ["a", "c"] {
            history.at_s(20).happens(Event::Lacks { node: node(name), lacks: true });
        }
        history.at_s(100).daemon_writes("a", &[(&vm_key(1, "node"), "c")]);
        let late = speaks(&mut history);
        history.at_s(141).violated_by(late, "c cannot start it, and b could");
    }

    #[test]
    fn nothing_is_placed_on_a_node_that_says_that_it_can_start_nothing() {
        let place = |at_s, by: &str| {
            let mut history = history();
            loses_libvirt(&mut history);
            history.daemon_writes("a", &[("/nodes/a/hypervisor", "libvirt does not answer")]);
            history.writes(&[(&vm_key(1, "node"), "b")]);
            let event = history.commit(daemon(by), &[("/pvc/placement", "1"), (&vm_key(1, "node"), "a")]);
            history.at_s(at_s);
            (history, event)
        };
        let (mut early, event) = place(40, "b");
        early.happens(event);
        let (mut own, event) = place(41, "a");
        own.happens(event);
        let (mut late, event) = place(41, "b");
        late.violated_by(event, "which can start nothing: libvirt does not answer");
    }
}
