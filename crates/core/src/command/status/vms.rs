//! What is the case with the VMs of the tree, in groups.

use std::collections::{BTreeMap, BTreeSet};

use super::{Survey, listed};
use crate::{
    model::{Claim, Halt, NodeName, Vm, VmState},
    plan::vm::last_words,
};

/// What is the case with VMs, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Twice,
    Failed,
    Elsewhere,
    NotRunning,
    Halted(Halt),
    Unheard,
    Broken,
    Busy,
    StillRunning,
}

impl Group {
    pub(super) fn words(self, many: bool) -> &'static str {
        match (self, many) {
            (Self::Twice, false) => "is reported by more than one node",
            (Self::Twice, true) => "are reported by more than one node each",
            (Self::Failed, false) => "has failed",
            (Self::Failed, true) => "have failed",
            (Self::Elsewhere, false) => "runs elsewhere than asked",
            (Self::Elsewhere, true) => "run elsewhere than asked",
            (Self::NotRunning, false) => "is to run and is not seen running",
            (Self::NotRunning, true) => "are to run and are not seen running",
            (Self::Halted(halt), _) => halt.is_stopped(many),
            (Self::Unheard, false) => "is to be off and may still run on a node that does not answer",
            (Self::Unheard, true) => "are to be off and may still run on nodes that do not answer",
            (Self::Broken, false) => "has broken keys",
            (Self::Broken, true) => "have broken keys",
            (Self::Busy, false) => "is migrating, restarting or shutting down",
            (Self::Busy, true) => "are migrating, restarting or shutting down",
            (Self::StillRunning, false) => "is to be off and still runs",
            (Self::StillRunning, true) => "are to be off and still run",
        }
    }
}

impl Survey<'_> {
    pub(super) fn vms(&mut self) {
        let view = self.facts.view;
        let mut groups: BTreeMap<Group, Vec<String>> = BTreeMap::new();
        for (id, entry) in view.vms.iter() {
            let vm = entry.good();
            if let Some(group) = self.group_with_problems(vm) {
                let name = vm.map_or_else(|| id.to_string(), |vm| vm.name.to_string());
                groups.entry(group).or_default().push(name);
            }
        }
        for (group, mut names) in groups {
            names.sort_unstable();
            let what = format!("{} {}", listed(&names), group.words(names.len() > 1));
            let todo = names.first().map(|name| format!("pvc vm explain {name}"));
            match group {
                Group::Busy
                | Group::StillRunning
                | Group::Halted(Halt::Paused | Halt::Asleep | Halt::Busy) => {
                    self.notice(what, todo);
                }
                _ => self.wrong(what, todo),
            }
        }
    }

    /// The worst that is the case with a VM, or with keys that cannot be read.
    pub(super) fn group_with_problems(&self, vm: Option<&Vm>) -> Option<Group> {
        let Some(vm) = vm else { return Some(Group::Broken) };
        let broken = (!vm.problems.is_empty()).then_some(Group::Broken);
        self.group(vm).into_iter().chain(broken).min()
    }

    fn group(&self, vm: &Vm) -> Option<Group> {
        let seen = self.facts.seen(vm);
        let on_its_node = seen.contains(&vm.node.value);
        // Guests go on without the daemon that said last that they run.
        let reported: BTreeSet<&NodeName> = seen.iter().copied().chain(self.said_last(vm)).collect();
        match vm.state.value {
            // While it migrates both ends may report it for the moment between two keepalives.
            VmState::Migrate | VmState::Restart | VmState::Shutdown | VmState::Delete => Some(Group::Busy),
            VmState::Failed => Some(Group::Failed),
            _ if reported.len() > 1 => Some(Group::Twice),
            VmState::Start if on_its_node => self.facts.halt(vm).map(Group::Halted),
            VmState::Start if seen.is_empty() => Some(Group::NotRunning),
            VmState::Start => Some(Group::Elsewhere),
            VmState::Stop if !seen.is_empty() => Some(Group::StillRunning),
            VmState::Stop if !reported.is_empty() || self.is_unheard(&vm.claim.value) => Some(Group::Unheard),
            VmState::Stop => None,
        }
    }

    /// Who said last that it executes the VM, where no claim has answered that.
    fn said_last<'a>(&'a self, vm: &'a Vm) -> impl Iterator<Item = &'a NodeName> {
        let says = |name: &&NodeName| {
            self.facts.view.node(name).is_some_and(|node| node.report.running.contains(&vm.id))
        };
        last_words(self.facts.view, vm.id, &vm.claim).filter(says)
    }

    /// Whether a claimant cannot be asked.
    pub(super) fn is_unheard(&self, claim: &Claim) -> bool {
        let works = |name: &NodeName| self.facts.view.node(name).is_some_and(|node| self.facts.works(node));
        claim.iter().any(|name| !works(name))
    }

    /// Whether it runs where it shall; while it is under way, anywhere.
    pub(super) fn runs_as_asked(&self, vm: &Vm) -> bool {
        match self.group(vm) {
            None => true,
            Some(Group::Busy) => !self.facts.seen(vm).is_empty(),
            Some(_) => false,
        }
    }

    /// Whether nobody runs it, for all that is known.
    pub(super) fn is_off(&self, vm: &Vm) -> bool {
        self.facts.seen(vm).is_empty()
            && self.said_last(vm).next().is_none()
            && !self.is_unheard(&vm.claim.value)
    }

    /// Those that run, or are off, and could not be started again: that is not to be learned when their node has died.
    pub(super) fn damaged(&mut self) {
        let view = self.facts.view;
        let mut names: Vec<String> = Vec::new();
        for id in self.facts.damaged.keys() {
            names.extend(view.vm(*id).map(|vm| vm.name.to_string()));
        }
        names.sort_unstable();
        let Some(first) = names.first() else { return };
        let what = if names.len() > 1 { "have definitions that are" } else { "has a definition that is" };
        let todo = Some(format!("pvc vm explain {first}"));
        self.wrong(
            format!("{} {what} damaged or missing, and could not be started again", listed(&names)),
            todo,
        );
    }
}
