//! A keepalive in an operator's words.

use std::{collections::BTreeMap, fmt::Write as _};

use pvc_core::model::{ClusterView, DaemonState, NodeReport};

/// How this node is.
pub(super) fn node(report: &NodeReport) -> String {
    format!(
        "{} here with {} MiB and {} vCPUs; memory {} of {} MiB used; load {:.2}",
        count(report.domains_count, "VM"),
        report.mem_alloc_mib,
        report.vcpu_alloc,
        report.mem_used_mib,
        report.mem_total_mib,
        report.cpu_load,
    )
}

/// How the cluster is: `2 of 3 nodes run (node3 dead); 12 VMs: 10 start, 2 stop; primary node1`.
pub(super) fn cluster(view: &ClusterView) -> String {
    let mut text = String::new();
    let running = view.all_nodes().filter(|n| n.daemon_state.value == DaemonState::Run).count();
    let _ = write!(text, "{running} of {} run", count(view.nodes.len() as u64, "node"));
    let mut others: Vec<String> = Vec::new();
    for node in view.all_nodes() {
        match node.daemon_state.value {
            _ if !node.problems.is_empty() => others.push(format!("{} has broken keys", node.name)),
            DaemonState::Run => {}
            other => others.push(format!("{} {other}", node.name)),
        }
    }
    if !others.is_empty() {
        let _ = write!(text, " ({})", others.join(", "));
    }
    let _ = write!(text, "; {}", count(view.vms.len() as u64, "VM"));
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in view.vms.values() {
        *states.entry(entry.good().map_or("unreadable", |vm| vm.state.value.as_str())).or_default() += 1;
    }
    for (i, (state, n)) in states.into_iter().enumerate() {
        let _ = write!(text, "{} {n} {state}", if i == 0 { ":" } else { "," });
    }
    let primary = view.primary_node.value.as_ref().map_or("none", |name| name.as_str());
    let _ = write!(text, "; primary {primary}");
    text
}

fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pvc_core::model::{ClusterView, Entry, Problem, VmId};

    use super::*;

    #[test]
    fn a_node_is_told_in_one_line() {
        let report = NodeReport {
            mem_total_mib: 64000,
            mem_used_mib: 9000,
            mem_alloc_mib: 6144,
            vcpu_alloc: 4,
            cpu_load: 0.5,
            domains_count: 3,
            ..NodeReport::default()
        };
        assert_eq!(
            node(&report),
            "3 VMs here with 6144 MiB and 4 vCPUs; memory 9000 of 64000 MiB used; load 0.50"
        );
    }

    #[test]
    fn a_cluster_is_told_with_what_is_not_well() {
        assert_eq!(cluster(&ClusterView::default()), "0 of 0 nodes run; 0 VMs; primary none");
        let bad = || Problem { key: "k".into(), what: "w".into() };
        let id: VmId = "11111111-0000-4000-8000-000000000001".parse().unwrap();
        let view = ClusterView {
            vms: Arc::new([(id, Arc::new(Entry::Bad(vec![bad()])))].into()),
            primary_node: pvc_core::model::Field {
                value: Some("node1".parse().unwrap()),
                ..Default::default()
            },
            ..ClusterView::default()
        };
        assert_eq!(cluster(&view), "0 of 0 nodes run; 1 VM: 1 unreadable; primary node1");
    }
}
