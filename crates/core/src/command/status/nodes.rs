//! What is the case with the nodes: coordinators, daemons, what they do with their VMs, fences.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{Count, Survey, explain};
use crate::{
    command::node::step_words,
    model::{DaemonState, DomainState, Entry, FenceStep, NO_HYPERVISOR, Node},
};

impl Survey<'_> {
    pub(super) fn quorum(&mut self) {
        let Count { well, of } = self.facts.coordinators();
        if of == 0 {
            self.wrong("there is no coordinator", Some("start pvcd on the coordinators".to_owned()));
        } else if well == 0 {
            self.wrong(
                "no coordinator works: nobody is fenced, nobody is primary",
                Some("start pvcd on the coordinators".to_owned()),
            );
        } else if well < of / 2 + 1 {
            let what =
                format!("only {well} of {of} coordinators work: one more failure may end the state store");
            self.wrong(what, Some("bring the others back".to_owned()));
        }
    }

    pub(super) fn nodes(&mut self) {
        let view = self.facts.view;
        for (name, node) in view.nodes.iter() {
            if !node.problems.is_empty() {
                let what = format!("{name} has keys that cannot be read, so it is given no VMs");
                self.wrong(what, explain(name));
            }
            if let Some(silence) = self.facts.silent_s.get(name) {
                self.wrong(format!("{name} has been silent for {silence} s"), explain(name));
            }
            match node.daemon_state.value {
                DaemonState::Dead => self.wrong(format!("{name} is dead"), explain(name)),
                DaemonState::Run => {}
                DaemonState::Stop => self.wrong(format!("the daemon of {name} is stopped"), explain(name)),
                DaemonState::Init => self.notice(format!("the daemon of {name} is starting"), None),
                DaemonState::Shutdown => self.notice(format!("the daemon of {name} is stopping"), None),
            }
            self.hypervisor(node);
            self.domain_state(node);
        }
    }

    /// A node that works and cannot do what it is for. One that is configured so is as somebody asked for.
    fn hypervisor(&mut self, node: &Node) {
        if let Some(why) = &node.report.cannot_start
            && node.daemon_state.value == DaemonState::Run
            && why != NO_HYPERVISOR
        {
            self.wrong(format!("{} can start no VMs: {why}", node.name), explain(&node.name));
        }
    }

    /// Each node is measured by its own interval, so a difference is no fault; but one that nobody wanted is easily overlooked.
    pub(super) fn intervals(&mut self) {
        let view = self.facts.view;
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        let of = |node: &Node| node.keepalive_interval.map(|interval| interval.as_secs());
        for interval in view.all_nodes().filter_map(of) {
            *counts.entry(interval).or_default() += 1;
        }
        // Of two that are as usual the shorter one.
        let Some((&usual, _)) = counts.iter().max_by_key(|(interval, count)| (**count, Reverse(**interval)))
        else {
            return;
        };
        for node in view.all_nodes() {
            if let Some(other) = of(node).filter(|interval| *interval != usual) {
                let what = format!(
                    "{} speaks every {other} s, most nodes every {usual} s: so is its silence measured",
                    node.name
                );
                self.notice(what, None);
            }
        }
    }

    fn domain_state(&mut self, node: &Node) {
        let name = &node.name;
        let progress = self.facts.flushes.get(name);
        let gone = |what: &str| match progress {
            Some(p) => format!("{name} {what}: {} of {} VMs left, {} moving", p.left, p.total, p.moving),
            None => format!("{name} {what}"),
        };
        match node.domain_state.value {
            DomainState::Flush => {
                self.notice(gone("is sending its VMs away"), explain(name));
            }
            DomainState::Unflush => {
                self.notice(gone("is taking its VMs back"), explain(name));
            }
            DomainState::Flushed if node.daemon_state.value == DaemonState::Run => {
                let takes_none = format!("{name} takes no VMs: it is flushed");
                match node.report.running.len() {
                    0 => self.notice(takes_none, Some(format!("pvc node ready {name}"))),
                    some => {
                        self.notice(format!("{takes_none}, and {some} VM(s) still run on it"), explain(name));
                    }
                }
            }
            DomainState::Ready | DomainState::Flushed => {}
        }
    }

    pub(super) fn fences(&mut self) {
        let view = self.facts.view;
        for (name, entry) in view.fences.iter() {
            let cancel = || Some(format!("to take it back: pvc node fence {name} --cancel"));
            let Entry::Good(fence) = entry else {
                self.wrong(format!("the record of the fence of {name} cannot be read"), cancel());
                continue;
            };
            if let Some(word) = fence.job.word() {
                let said = if fence.job.confirmed_dead.is_some() { "is dead" } else { "is to be fenced" };
                self.notice(format!("a word of {} waits, that {name} {said}", word.by), cancel());
            }
            let who = fence
                .fencer
                .as_ref()
                .map_or_else(|| ", nobody works on it".to_owned(), |f| format!(" by {f}"));
            let what = format!("{name} is being fenced{who}: {}", step_words(&fence.job));
            match fence.job.step {
                FenceStep::Failed { .. } if fence.job.confirmed_dead.is_none() => {
                    self.wrong(what, Some(format!("if it is off for certain: pvc node confirm-dead {name}")));
                }
                _ => self.notice(what, Some(format!("pvc node explain {name}"))),
            }
        }
    }
}
