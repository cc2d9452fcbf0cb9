//! The cluster on one screen: what is wrong first, then what goes on, then totals. Pure, and never decides anything: what it
//! says is for people.

mod keys;
mod networks;
mod nodes;
mod primary;
#[cfg(test)]
mod tests;
mod trouble_to_come;
mod undefined;
mod unsettled;
mod vms;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::unsettled::{Unsettled, unsettled};
use super::cluster;
use crate::{
    model::{
        BmcReport, ClusterView, DaemonMode, DaemonState, Explanation, FlushProgress, Halt, Node, NodeName,
        Trouble, Vm, VmId, VmState,
    },
    plan::placement::{Asker, Reserve, fit},
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
    /// What nodes that are heard of cannot do of client networks.
    pub networks: &'a BTreeMap<NodeName, Vec<Trouble>>,
    /// What the primary, or who is to be, says that is the matter with it.
    pub primary_says: Option<&'a Explanation>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something does not work.
    Wrong,
    /// Something goes on, or is not as usual by somebody's command.
    Notice,
}

/// One thing an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What is the case: `hv2 is dead`.
    pub what: String,
    /// The command that says more, or does something about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    /// So many are well.
    pub well: usize,
    /// Of so many.
    pub of: usize,
}

/// The sums.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    pub networks: usize,
}

/// The screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    survey.networks();
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

    fn switches(&mut self) {
        if self.facts.view.maintenance {
            self.notice(cluster::MAINTENANCE, Some("pvc maintenance off".to_owned()));
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
        networks: view.networks.len(),
        ..Totals::default()
    };
    for node in view.all_nodes().filter(|node| facts.works(node)) {
        totals.nodes.well += 1;
        totals.nodes_ready += usize::from(fit(view, &node.name, Asker::Placement).is_ok());
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
