//! Chooses a node for a VM. Deterministic: ties break by node name, so two clients with the same view choose alike.
//! Never writes. [`ClusterCapacity`] counts memory, for VMs that shall run; [`choose`] only says where a new VM, which is off, belongs.

mod capacity;
#[cfg(test)]
mod capacity_tests;
mod fitness;
mod reserve;

pub use capacity::{ClusterCapacity, NoCapacity, Size, Sizes, kept_on};
pub use fitness::{Asker, Unfit, fit};
pub use reserve::{Overcommitted, Reserve};

use std::{cmp::Ordering, fmt, str::FromStr};

use crate::model::{DaemonState, DomainState, NameError, Node};

/// What the chosen node shall have least of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Selector {
    /// `mem`: memory allocated to VMs.
    #[default]
    Mem,
    /// `vcpus`: vCPUs allocated to VMs.
    Vcpus,
    /// `load`: load average.
    Load,
    /// `vms`: VMs.
    Vms,
}

impl Selector {
    /// Every selector, in the order of the manual.
    pub const ALL: [Self; 4] = [Self::Mem, Self::Vcpus, Self::Load, Self::Vms];

    /// The word in configuration and commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mem => "mem",
            Self::Vcpus => "vcpus",
            Self::Load => "load",
            Self::Vms => "vms",
        }
    }

    fn compare(self, a: &Node, b: &Node) -> Ordering {
        let (a, b) = (&a.report, &b.report);
        match self {
            Self::Mem => a.mem_alloc_mib.cmp(&b.mem_alloc_mib),
            Self::Vcpus => a.vcpu_alloc.cmp(&b.vcpu_alloc),
            Self::Load => a.cpu_load.total_cmp(&b.cpu_load),
            Self::Vms => a.domains_count.cmp(&b.domains_count),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Selector {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| NameError {
            what: "target selector",
            found: text.to_owned(),
            allowed: "mem, vcpus, load or vms",
        })
    }
}

/// Whether VMs may be given to a node at all: its daemon works.
pub fn works(node: &Node) -> bool {
    node.daemon_state.value == DaemonState::Run
}

/// The node for a new VM: one whose daemon works and whose keys can be read; rather one that can start VMs than one that cannot now, and rather
/// one that takes VMs (`ready`) than one that is flushed, since a new cluster's nodes all start flushed; then the selector; then the name.
pub fn choose<'a>(nodes: impl IntoIterator<Item = &'a Node>, selector: Selector) -> Option<&'a Node> {
    let preference = |node: &Node| match node.domain_state.value {
        _ if !node.can_start() => 4,
        DomainState::Ready => 0,
        DomainState::Unflush => 1,
        DomainState::Flushed => 2,
        DomainState::Flush => 3,
    };
    let home = |node: &&Node| Asker::Home.first(&fitness::reasons(node, false, false)).is_ok();
    nodes.into_iter().filter(home).min_by(|a, b| {
        (preference(a).cmp(&preference(b)))
            .then_with(|| selector.compare(a, b))
            .then_with(|| a.name.cmp(&b.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::node;

    fn chosen(nodes: &[Node], selector: Selector) -> Option<&str> {
        choose(nodes, selector).map(|n| n.name.as_str())
    }

    #[test]
    fn each_selector_takes_the_node_with_least_of_its_figure() {
        let mut nodes = [node("a"), node("b"), node("c"), node("d")];
        for (i, n) in nodes.iter_mut().enumerate() {
            n.report.mem_alloc_mib = if i == 0 { 1 } else { 5 };
            n.report.vcpu_alloc = if i == 1 { 1 } else { 5 };
            n.report.cpu_load = if i == 2 { 0.1 } else { 5.0 };
            n.report.domains_count = if i == 3 { 1 } else { 5 };
        }
        let all: Vec<_> = Selector::ALL.iter().map(|&s| chosen(&nodes, s)).collect();
        assert_eq!(all, [Some("a"), Some("b"), Some("c"), Some("d")]);
    }

    #[test]
    fn ties_break_by_name_and_an_unreadable_load_is_no_advantage() {
        let mut nodes = [node("b"), node("a")];
        assert_eq!(chosen(&nodes, Selector::Mem), Some("a"));
        nodes[1].report.cpu_load = f64::NAN;
        assert_eq!(chosen(&nodes, Selector::Load), Some("b"));
    }

    #[test]
    fn a_node_that_takes_vms_goes_before_one_that_is_flushed_and_one_without_daemon_gets_none() {
        let mut nodes = [node("a"), node("b"), node("c")];
        nodes[0].domain_state.value = DomainState::Flushed;
        nodes[1].daemon_state.value = DaemonState::Dead;
        nodes[2].report.mem_alloc_mib = 1000;
        assert_eq!(chosen(&nodes, Selector::Mem), Some("c"));
        nodes[2].daemon_state.value = DaemonState::Stop;
        assert_eq!(chosen(&nodes, Selector::Mem), Some("a"), "a new cluster's nodes are all flushed");
        nodes[0].daemon_state.value = DaemonState::Init;
        assert_eq!(chosen(&nodes, Selector::Mem), None);
    }

    #[test]
    fn a_node_that_can_start_nothing_comes_last() {
        let mut nodes = [node("a"), node("b")];
        nodes[0].report.cannot_start = Some("no libvirt".into());
        nodes[1].domain_state.value = DomainState::Flushed;
        assert_eq!(chosen(&nodes, Selector::Mem), Some("b"));
        assert_eq!(chosen(&nodes[..1], Selector::Mem), Some("a"));
    }

    #[test]
    fn selectors_are_read_as_they_are_written() {
        for selector in Selector::ALL {
            assert_eq!(selector.to_string().parse(), Ok(selector));
        }
        assert!("memory".parse::<Selector>().is_err());
    }
}
