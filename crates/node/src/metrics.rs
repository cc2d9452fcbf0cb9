//! Figures for Prometheus: every name and what it means is in this file; the rest of the daemon only says what happened.
//!
//! Without `system.configuration.metrics.listen` nothing is recorded and nothing listens. What only is (how many VMs run here) is
//! looked up when somebody asks; what happens is counted as it happens. Never a name, an address or a text of a guest or client as a
//! label: the number of series is fixed by the program.

mod gauges;
mod serve;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use pvc_core::model::NodeName;
use pvc_store::{Store, mirror::Mirror};

const KEEPALIVE: &str = "pvcd_keepalive_seconds";
const KEEPALIVE_FAILURES: &str = "pvcd_keepalive_failures_total";
const PLAN: &str = "pvcd_plan_seconds";
const CLAIM_CONFLICTS: &str = "pvcd_claim_conflicts_total";
const VM_START: &str = "pvcd_vm_start_seconds";
const VM_STARTS: &str = "pvcd_vm_starts_total";
const VM_MIGRATION: &str = "pvcd_vm_migration_seconds";
const VM_MIGRATIONS: &str = "pvcd_vm_migrations_total";
const CONSOLE_BYTES: &str = "pvcd_console_bytes_total";
const CONSOLE_HELD: &str = "pvcd_console_held_total";
const FENCE_STEPS: &str = "pvcd_fence_steps_total";
const NODE_VMS: &str = "pvcd_node_vms";
const NODE_VMS_HALTED: &str = "pvcd_node_vms_not_executing";
const NODE_VCPUS: &str = "pvcd_node_vcpus_allocated";
const NODE_MEMORY: &str = "pvcd_node_memory_bytes";
const NODE_LOAD: &str = "pvcd_node_load1";
const NODE_STARTS: &str = "pvcd_node_can_start_vms";
const NODE_PRIMARY: &str = "pvcd_node_primary";
const NODE_SELF_FENCE: &str = "pvcd_node_self_fence_seconds";
const CLUSTER_NODES: &str = "pvcd_cluster_nodes";
const CLUSTER_VMS: &str = "pvcd_cluster_vms";
const CLUSTER_FENCES: &str = "pvcd_cluster_fences";
const CLUSTER_MAINTENANCE: &str = "pvcd_cluster_maintenance";
const CLUSTER_PROBLEMS: &str = "pvcd_cluster_unreadable_objects";
/// Told by the primary.
pub(crate) const NOT_ABSORBED: &str = "pvcd_cluster_vms_not_absorbed";
pub(crate) const OVERCOMMITTED: &str = "pvcd_cluster_nodes_overcommitted";
/// Told by the node that asks.
pub(crate) const BMC_USABLE: &str = "pvcd_bmc_usable";
/// Told by the primary.
const NAMES_BEHIND: &str = "pvcd_names_behind";
const STORE_SESSION: &str = "pvcd_store_session";

/// From a millisecond to minutes.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Plans only compute.
const PLAN_SECONDS: &[f64] = &[0.000_01, 0.000_1, 0.001, 0.01, 0.1, 1.0];

/// The recorder of this process and where it is asked.
#[derive(Clone)]
pub struct Metrics {
    listen: SocketAddr,
    handle: PrometheusHandle,
}

/// Where the figures come from that are looked up.
pub struct Sources {
    /// This node.
    pub me: NodeName,
    /// The state tree, for its session.
    pub store: Arc<dyn Store>,
    /// The cluster.
    pub mirror: Mirror,
}

impl Metrics {
    /// Records what happens in this process from now on, to be told on that address.
    ///
    /// # Errors
    /// If this process records already.
    pub fn install(listen: SocketAddr) -> anyhow::Result<Self> {
        let recorder = recorder()?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| anyhow::anyhow!("{error}"))?;
        describe();
        Ok(Self { listen, handle })
    }

    /// Answers whoever asks, for ever. An address that is in use is tried again.
    pub async fn serve(&self, sources: Sources) {
        serve::serve(self.listen, &self.handle, &Arc::new(sources)).await;
    }
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    Ok(PrometheusBuilder::new()
        .set_buckets(SECONDS)?
        .set_buckets_for_metric(Matcher::Full(PLAN.into()), PLAN_SECONDS)?
        .build_recorder())
}

/// A keepalive was acknowledged.
pub(crate) fn keepalive(took: Duration) {
    histogram!(KEEPALIVE).record(took);
}

/// A keepalive was not acknowledged.
pub(crate) fn keepalive_failed() {
    counter!(KEEPALIVE_FAILURES).increment(1);
}

/// A plan about a `subject` (`vm`, `fence` …) was made.
pub(crate) fn planned(subject: &'static str, took: Duration) {
    histogram!(PLAN, "subject" => subject).record(took);
}

/// Whether guests' names that are to be served are not in the DNS database yet.
pub(crate) fn names_behind(are: bool) {
    gauge!(NAMES_BEHIND).set(f64::from(u8::from(are)));
}

/// Somebody was faster to write what this node had decided about a VM.
pub(crate) fn claim_conflict() {
    counter!(CLAIM_CONFLICTS).increment(1);
}

/// A guest was started.
pub(crate) fn vm_started(took: Duration) {
    histogram!(VM_START).record(took);
    counter!(VM_STARTS, "outcome" => "started").increment(1);
}

/// A guest could not be started.
pub(crate) fn vm_start_failed() {
    counter!(VM_STARTS, "outcome" => "failed").increment(1);
}

/// A live migration from here ended.
pub(crate) fn vm_migrated(succeeded: bool, took: Duration) {
    histogram!(VM_MIGRATION).record(took);
    counter!(VM_MIGRATIONS, "outcome" => if succeeded { "migrated" } else { "failed" }).increment(1);
}

/// A console log of so many bytes was sent to the store.
pub(crate) fn console_written(bytes: usize) {
    counter!(CONSOLE_BYTES).increment(bytes.try_into().unwrap_or(u64::MAX));
}

/// A console log has to wait for its budget, or the node's.
pub(crate) fn console_held() {
    counter!(CONSOLE_HELD).increment(1);
}

/// This node did a step of a fence.
pub(crate) fn fence_step(step: &'static str, succeeded: bool) {
    counter!(FENCE_STEPS, "step" => step, "outcome" => if succeeded { "done" } else { "failed" })
        .increment(1);
}

fn describe() {
    describe_histogram!(KEEPALIVE, Unit::Seconds, "From sending a keepalive to ZooKeeper's acknowledgement");
    describe_counter!(KEEPALIVE_FAILURES, "Keepalives that ZooKeeper did not acknowledge");
    describe_histogram!(PLAN, Unit::Seconds, "Time to decide one step, by what it is about");
    describe_counter!(
        CLAIM_CONFLICTS,
        "Writes about VMs that were refused because somebody was faster; normal in small numbers"
    );
    describe_histogram!(VM_START, Unit::Seconds, "Time that libvirt took to start a guest");
    describe_counter!(VM_STARTS, "Starts of guests on this node, by outcome");
    describe_histogram!(
        VM_MIGRATION,
        Unit::Seconds,
        "Time that a live migration from this node took, whatever its outcome"
    );
    describe_counter!(VM_MIGRATIONS, "Live migrations from this node, by outcome");
    describe_counter!(CONSOLE_BYTES, Unit::Bytes, "Bytes of console logs that were written to ZooKeeper");
    describe_counter!(
        CONSOLE_HELD,
        "Times that a console log waited because the budget for console logs was spent"
    );
    describe_counter!(FENCE_STEPS, "Steps of fences that this node did, by step and outcome");
    describe_gauge!(NODE_VMS, "VMs that run on this node");
    describe_gauge!(
        NODE_VMS_HALTED,
        "Of these, VMs that do not execute, by why: paused, io-error, watchdog, crashed, asleep, busy"
    );
    describe_gauge!(NODE_VCPUS, "vCPUs given to the VMs that run on this node");
    describe_gauge!(NODE_MEMORY, Unit::Bytes, "Memory of this node: total, used, free, and allocated to VMs");
    describe_gauge!(NODE_LOAD, "One-minute load average of this node");
    describe_gauge!(
        NODE_STARTS,
        "1 if this node can start VMs; 0 while its libvirt does not answer, or it has none"
    );
    describe_gauge!(NODE_PRIMARY, "1 if this node is the primary coordinator");
    describe_gauge!(
        NODE_SELF_FENCE,
        Unit::Seconds,
        "Time without ZooKeeper after which this node has certainly reset itself; 0: it does not"
    );
    describe_gauge!(CLUSTER_NODES, "Nodes by the state of their daemon");
    describe_gauge!(CLUSTER_VMS, "VMs by their desired state");
    describe_gauge!(CLUSTER_FENCES, "Fences that are not over");
    describe_gauge!(CLUSTER_MAINTENANCE, "1 while maintenance is on: nobody is fenced");
    describe_gauge!(CLUSTER_PROBLEMS, "Objects of the state tree that this node cannot read");
    describe_gauge!(
        BMC_USABLE,
        "1 if a node's BMC answers as a fence needs, 0 if not; NaN where another node asks it"
    );
    describe_gauge!(
        NOT_ABSORBED,
        "VMs that would find no room elsewhere if the node died whose death costs most; told by the primary, 0 elsewhere"
    );
    describe_gauge!(
        OVERCOMMITTED,
        "Nodes whose VMs may take more memory than they have; told by the primary, 0 elsewhere"
    );
    describe_gauge!(
        NAMES_BEHIND,
        "1 while names that are to be served are not in the DNS database; told by the primary"
    );
    describe_gauge!(STORE_SESSION, "1 for the state that the session with ZooKeeper is in");
}
