//! What is, as the mirror and the session have it at the moment that somebody asks.

use std::collections::BTreeSet;

use metrics::gauge;
use pvc_core::model::{DaemonState, Halt, Node, Vm, VmId, VmState};
use pvc_store::Session;

use super::Sources;

const MIB: f64 = 1024.0 * 1024.0;

const DAEMON_STATES: [DaemonState; 5] =
    [DaemonState::Init, DaemonState::Run, DaemonState::Shutdown, DaemonState::Stop, DaemonState::Dead];

/// Sets all gauges.
#[allow(clippy::cast_precision_loss, reason = "2^53 MiB are enough for everybody")]
pub(super) fn look_up(sources: &Sources) {
    let view = sources.mirror.view();
    if let Some(me) = view.node(&sources.me) {
        let report = &me.report;
        gauge!(super::NODE_VMS).set(report.domains_count as f64);
        for halt in Halt::ALL {
            let count = report.halted.iter().filter(|(_, why)| *why == halt).count();
            gauge!(super::NODE_VMS_HALTED, "reason" => halt.as_str()).set(count as f64);
        }
        gauge!(super::NODE_VCPUS).set(report.vcpu_alloc as f64);
        gauge!(super::NODE_LOAD).set(report.cpu_load);
        for (kind, mib) in [
            ("total", report.mem_total_mib),
            ("used", report.mem_used_mib),
            ("free", report.mem_free_mib),
            ("allocated", report.mem_alloc_mib),
        ] {
            gauge!(super::NODE_MEMORY, "kind" => kind).set(mib as f64 * MIB);
        }
        gauge!(super::NODE_STARTS).set(one_if(me.report.cannot_start.is_none()));
        gauge!(super::NODE_SELF_FENCE).set(f64::from(me.self_fence_s.unwrap_or(0)));
    }
    gauge!(super::NODE_PRIMARY).set(one_if(view.primary_holder.as_ref() == Some(&sources.me)));
    for state in DAEMON_STATES {
        let count = view.all_nodes().filter(|node| node.daemon_state.value == state).count();
        gauge!(super::CLUSTER_NODES, "state" => state.as_str()).set(count as f64);
    }
    for state in VmState::ALL {
        let count = view.good_vms().filter(|vm| vm.state.value == state).count();
        gauge!(super::CLUSTER_VMS, "state" => state.as_str()).set(count as f64);
    }
    // What a dead node left behind says nothing.
    let speaks = |node: &&Node| node.daemon_state.value == DaemonState::Run;
    let running: BTreeSet<VmId> =
        view.all_nodes().filter(speaks).flat_map(|node| node.report.running.iter().copied()).collect();
    let waits = |vm: &&Vm| {
        let is_to_run = matches!(vm.state.value, VmState::Start | VmState::Restart | VmState::Migrate);
        is_to_run && !running.contains(&vm.id)
    };
    gauge!(super::CLUSTER_VMS_WAITING).set(view.good_vms().filter(waits).count() as f64);
    gauge!(super::CLUSTER_FENCES).set(view.fences.len() as f64);
    gauge!(super::CLUSTER_MAINTENANCE).set(one_if(view.maintenance));
    let bad = view.all_nodes().filter(|node| !node.problems.is_empty()).count()
        + view.vms.values().filter(|entry| !entry.problems().is_empty()).count()
        + view.strays.len();
    gauge!(super::CLUSTER_PROBLEMS).set(bad as f64);
    let session = *sources.store.session().borrow();
    for (state, is) in [
        ("healthy", session.is_healthy()),
        ("suspended", matches!(session, Session::Suspended { .. })),
        ("connecting", matches!(session, Session::Connecting)),
    ] {
        gauge!(super::STORE_SESSION, "state" => state).set(one_if(is));
    }
}

fn one_if(is: bool) -> f64 {
    f64::from(u8::from(is))
}
