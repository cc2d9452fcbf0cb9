//! The cluster on one screen: what is wrong first, then what goes on, then totals. Pure, and never decides anything: what it
//! says is for people.

#[cfg(test)]
mod tests;
mod trouble_to_come;
mod undefined;
mod vms;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use serde::Serialize;

use super::{cluster, node::step_words};
use crate::{
    model::{
        BmcReport, ClusterView, DaemonMode, DaemonState, DomainState, Entry, Explanation, FenceStep,
        FlushProgress, Halt, NO_HYPERVISOR, Node, NodeName, Problem, Vm, VmId, VmName, VmState,
    },
    plan::placement::Reserve,
};

/// Everything there is to look at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The cluster.
    pub view: &'a ClusterView,
    /// What nodes say of their flushes.
    pub flushes: &'a BTreeMap<NodeName, FlushProgress>,
    /// Nodes that should be heard of and are not, and for how many seconds.
    pub silent_s: &'a BTreeMap<NodeName, u64>,
    /// VMs that could not be started from their definitions, and what is wrong with those.
    pub damaged: &'a BTreeMap<VmId, String>,
    /// VMs whose definitions lack what clients of the 0.5 generation cannot do without.
    pub bare: &'a BTreeSet<VmId>,
    /// What nodes' BMCs said last.
    pub bmcs: &'a BTreeMap<NodeName, BmcReport>,
    /// Whether there is memory left for what may happen.
    pub reserve: &'a Reserve,
    /// What the primary, or who is to be, says that is the matter with it.
    pub primary_says: Option<&'a Explanation>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something does not work.
    Wrong,
    /// Something goes on, or is not as usual by somebody's wish.
    Notice,
}

/// One thing an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What is the case: `hv2 is dead`.
    pub what: String,
    /// The command that says more, or does something about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Count {
    /// So many are well.
    pub well: usize,
    /// Of so many.
    pub of: usize,
}

/// The sums.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Nodes whose daemons run and are heard of.
    pub nodes: Count,
    /// Of these, nodes that take VMs.
    pub nodes_ready: usize,
    /// Coordinators whose daemons run and are heard of.
    pub coordinators: Count,
    /// VMs that are asked to run and run where they shall, of those that are asked to.
    pub vms: Count,
    /// VMs that are off as asked.
    pub vms_off: usize,
    /// VMs that could not do what was asked of them.
    pub vms_failed: usize,
    /// Memory of the nodes that work, MiB.
    pub memory_mib: u64,
    /// Of it, allocated to VMs, MiB.
    pub memory_allocated_mib: u64,
    /// Client networks.
    pub networks: u64,
}

/// The screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Who holds the floating addresses.
    pub primary: Option<NodeName>,
    /// Whether maintenance is on.
    pub maintenance: bool,
    /// What is wrong, then what goes on.
    pub findings: Vec<Finding>,
    /// The sums.
    pub totals: Totals,
}

/// Names in a sentence before they become a number.
const NAMED: usize = 5;

/// Looks at everything.
pub fn survey(facts: Facts<'_>) -> Status {
    let mut survey = Survey { facts, findings: Vec::new() };
    survey.quorum();
    survey.nodes();
    survey.intervals();
    survey.fences();
    survey.vms();
    survey.damaged();
    survey.undefined();
    survey.primary();
    survey.bmcs();
    survey.memory();
    survey.bare();
    survey.switches();
    survey.shared_names();
    survey.broken_keys();
    let totals = totals(&survey);
    let mut findings = survey.findings;
    // Stable: within a level the order is that of looking.
    findings.sort_by_key(|finding| finding.level);
    Status {
        primary: facts.view.primary_holder.clone(),
        maintenance: facts.view.maintenance,
        findings,
        totals,
    }
}

impl Facts<'_> {
    fn works(&self, node: &Node) -> bool {
        node.daemon_state.value == DaemonState::Run && !self.silent_s.contains_key(&node.name)
    }

    fn coordinators(&self) -> Count {
        let all = || self.view.all_nodes().filter(|node| node.mode == DaemonMode::Coordinator);
        Count { well: all().filter(|node| self.works(node)).count(), of: all().count() }
    }

    /// Where a VM is reported to run by a daemon that works.
    fn seen(&self, vm: &Vm) -> BTreeSet<&NodeName> {
        let reports = |node: &&Node| {
            node.daemon_state.value == DaemonState::Run && node.report.running.contains(&vm.id)
        };
        self.view.all_nodes().filter(reports).map(|node| &node.name).collect()
    }
}

impl Facts<'_> {
    /// Why it does not execute on the node that is to run it, if so.
    fn halt(&self, vm: &Vm) -> Option<Halt> {
        self.view.node(&vm.node.value)?.report.halt(vm.id)
    }
}

struct Survey<'a> {
    facts: Facts<'a>,
    findings: Vec<Finding>,
}

impl Survey<'_> {
    fn wrong(&mut self, what: impl Into<String>, todo: impl Into<Option<String>>) {
        self.findings.push(Finding { level: Level::Wrong, what: what.into(), todo: todo.into() });
    }

    fn notice(&mut self, what: impl Into<String>, todo: impl Into<Option<String>>) {
        self.findings.push(Finding { level: Level::Notice, what: what.into(), todo: todo.into() });
    }

    fn quorum(&mut self) {
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

    fn nodes(&mut self) {
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

    /// A node that works and cannot do what it is for. One that is configured so is as somebody wished.
    fn hypervisor(&mut self, node: &Node) {
        if let Some(why) = &node.report.cannot_start
            && node.daemon_state.value == DaemonState::Run
            && why != NO_HYPERVISOR
        {
            self.wrong(format!("{} can start no VMs: {why}", node.name), explain(&node.name));
        }
    }

    /// Each node is measured by its own interval, so a difference is no fault; but one that nobody wanted is easily overlooked.
    fn intervals(&mut self) {
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

    fn fences(&mut self) {
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
            let what = format!("{name} is being fenced{who}: {}", step_words(&fence.job.step));
            match fence.job.step {
                FenceStep::Failed { .. } if fence.job.confirmed_dead.is_none() => {
                    self.wrong(what, Some(format!("if it is off for certain: pvc node confirm-dead {name}")));
                }
                _ => self.notice(what, Some(format!("pvc node explain {name}"))),
            }
        }
    }

    fn primary(&mut self) {
        let view = self.facts.view;
        let holds = |node: &NodeName| format!("{node} holds the floating addresses");
        match (&view.primary_node.value, &view.primary_holder) {
            (Some(wished), Some(holder)) if wished == holder => {}
            (Some(wished), Some(holder)) => {
                self.notice(format!("{wished} is to become primary, {}", holds(holder)), explain(wished));
            }
            (Some(wished), None) => {
                self.wrong(format!("nobody is primary: {wished} is to be"), explain(wished));
            }
            (None, Some(holder)) => {
                self.notice(format!("{holder} is stepping down as primary"), explain(holder));
            }
            (None, None) if self.facts.coordinators().well > 0 => self.wrong("nobody is primary", None),
            // The missing coordinators are told above.
            (None, None) => {}
        }
        // What is left of a node that is primary no more concerns nobody.
        if let (Some(holder), Some(said)) = (&view.primary_holder, self.facts.primary_says)
            && let (true, Some(error)) = (said.by == holder.as_str(), &said.error)
        {
            self.wrong(format!("{holder} is primary with trouble: {error}"), explain(holder));
        }
    }

    fn switches(&mut self) {
        if self.facts.view.maintenance {
            self.notice(cluster::MAINTENANCE, Some("pvc maintenance off".to_owned()));
        }
    }

    /// Old clients define a second VM of a name; both run.
    fn shared_names(&mut self) {
        let mut ids: BTreeMap<&VmName, Vec<VmId>> = BTreeMap::new();
        for vm in self.facts.view.good_vms() {
            ids.entry(&vm.name).or_default().push(vm.id);
        }
        let shared: Vec<_> = ids.into_iter().filter(|(_, ids)| ids.len() > 1).collect();
        for (name, ids) in shared.iter().take(NAMED) {
            let ids: Vec<String> = ids.iter().map(VmId::to_string).collect();
            let what = format!(
                "{} VMs are called {name} and can only be told apart by UUID: {}",
                ids.len(),
                ids.join(", ")
            );
            self.notice(what, Some("pvc vm list".to_owned()));
        }
    }

    fn broken_keys(&mut self) {
        let view = self.facts.view;
        let broken = view.all_nodes().map(|node| &node.problems);
        let vms = view.vms.values().flat_map(|entry| entry.problems());
        let claims = view.orphan_claims.values().filter_map(|entry| match entry.as_ref() {
            Entry::Bad(problems) => Some(problems),
            Entry::Good(_) => None,
        });
        let all: Vec<&Problem> =
            broken.chain(claims).flatten().chain(vms).chain(view.strays.iter()).collect();
        for problem in all.iter().take(NAMED) {
            self.wrong(format!("broken key {problem}"), None);
        }
        if all.len() > NAMED {
            self.wrong(
                format!("and {} more broken keys", all.len() - NAMED),
                Some("pvc vm list; pvc node list".to_owned()),
            );
        }
    }
}

fn explain(node: &NodeName) -> String {
    format!("pvc node explain {node}")
}

/// `VM a`, `VMs a and b`, `VMs a, b, c, d, e and 7 more`.
fn listed(names: &[String]) -> String {
    match names {
        [] => "no VM".to_owned(),
        [name] => format!("VM {name}"),
        [first @ .., last] if names.len() <= NAMED => format!("VMs {} and {last}", first.join(", ")),
        _ => format!("VMs {} and {} more", names[..NAMED].join(", "), names.len() - NAMED),
    }
}

fn totals(survey: &Survey<'_>) -> Totals {
    let facts = survey.facts;
    let view = facts.view;
    let mut totals = Totals {
        nodes: Count { well: 0, of: view.nodes.len() },
        coordinators: facts.coordinators(),
        networks: view.networks_count,
        ..Totals::default()
    };
    for node in view.all_nodes().filter(|node| facts.works(node)) {
        totals.nodes.well += 1;
        totals.nodes_ready += usize::from(node.can_start() && node.domain_state.value == DomainState::Ready);
        totals.memory_mib = totals.memory_mib.saturating_add(node.report.mem_total_mib);
        totals.memory_allocated_mib = totals.memory_allocated_mib.saturating_add(node.report.mem_alloc_mib);
    }
    for vm in view.good_vms() {
        match vm.state.value {
            VmState::Start | VmState::Restart | VmState::Migrate => {
                totals.vms.of += 1;
                totals.vms.well += usize::from(survey.runs_as_asked(vm));
            }
            VmState::Failed => totals.vms_failed += 1,
            VmState::Stop | VmState::Shutdown | VmState::Delete => {
                totals.vms_off += usize::from(survey.is_off(vm));
            }
        }
    }
    totals
}
