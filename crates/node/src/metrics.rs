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
use pvc_core::{
    model::{NodeName, ceph::Figures},
    plan::routing::Counted,
};
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
const CLUSTER_VMS_WAITING: &str = "pvcd_cluster_vms_waiting";
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
const NAMES_BEHIND_SECONDS: &str = "pvcd_names_behind_seconds";
const NAMES_LAG: &str = "pvcd_names_lag_seconds";
/// Told by the primary.
const LEASES: &str = "pvcd_network_leases";
const POOLS: &str = "pvcd_network_pool_addresses";
const POOL_USED: &str = "pvcd_network_pool_used_ratio";
const FORWARDS: &str = "pvcd_network_forwards";
const RULE_PACKETS: &str = "pvcd_network_rule_packets_total";
const RULE_BYTES: &str = "pvcd_network_rule_bytes_total";
const DROPPED: &str = "pvcd_network_dropped_packets_total";
const ROUTING_MISSED: &str = "pvcd_routing_missed";
/// Told by each node that asks Ceph.
const STORAGE_HEALTH: &str = "pvcd_storage_health";
const STORAGE_ANSWERED: &str = "pvcd_storage_answered_timestamp_seconds";
const STORAGE_BYTES: &str = "pvcd_storage_bytes";
const STORAGE_OSDS: &str = "pvcd_storage_osds";
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

/// What there is of the routing daemon and its sessions; `None`: it is not needed.
pub(crate) fn routing(counted: Option<Counted>) {
    let (bgpd, nodes, routers) =
        counted.map_or((0, 0, 0), |c| (usize::from(!c.speaks), c.nodes_missed, c.routers_missed));
    for (what, missed) in [("bgpd", bgpd), ("nodes", nodes), ("routers", routers)] {
        gauge!(ROUTING_MISSED, "what" => what).set(u32::try_from(missed).unwrap_or(u32::MAX));
    }
}

/// For how long guests' names that are to be served have not been in the DNS database; `None`: they are.
pub(crate) fn names_behind(since: Option<Duration>) {
    gauge!(NAMES_BEHIND).set(f64::from(u8::from(since.is_some())));
    gauge!(NAMES_BEHIND_SECONDS).set(since.unwrap_or_default().as_secs_f64());
}

/// Names that were to be served are in the DNS database, so long after that was seen.
pub(crate) fn names_caught_up(after: Duration) {
    histogram!(NAMES_LAG).record(after);
}

/// How many addresses of networks' ranges are given out by this node, of how many, and the largest share of one network's.
#[allow(clippy::cast_precision_loss, reason = "a network has thousands")]
pub(crate) fn pools(given: u64, of: u64, fullest: f64) {
    gauge!(LEASES).set(given as f64);
    gauge!(POOLS).set(of as f64);
    gauge!(POOL_USED).set(fullest);
}

/// How many entries this node's tunnels have, by who has written them.
#[allow(clippy::cast_precision_loss, reason = "a node has thousands")]
pub(crate) fn forwards(written: usize, learnt: usize, routed: usize) {
    for (by, count) in [("pvcd", written), ("tunnel", learnt), ("frr", routed)] {
        gauge!(FORWARDS, "by" => by).set(count as f64);
    }
}

/// Rules of networks matched so much more.
pub(crate) fn rules_matched(direction: &'static str, packets: u64, bytes: u64) {
    counter!(RULE_PACKETS, "direction" => direction).increment(packets);
    counter!(RULE_BYTES, "direction" => direction).increment(bytes);
}

/// A wall dropped so many packets more.
pub(crate) fn dropped(wall: &'static str, packets: u64) {
    counter!(DROPPED, "wall" => wall).increment(packets);
}

/// Ceph has answered at that time, in seconds since 1970 (0: not yet), and said this (`None`: nothing new).
#[allow(clippy::cast_precision_loss, reason = "2^53 bytes, and seconds, are enough for everybody")]
pub(crate) fn storage(answered_unix_s: u64, figures: Option<&Figures>) {
    gauge!(STORAGE_ANSWERED).set(answered_unix_s as f64);
    // Of a Ceph that does not answer here nothing is known: what it said last may be over, and other nodes are told.
    let known = |of: fn(&Figures) -> f64| figures.map_or(f64::NAN, of);
    gauge!(STORAGE_HEALTH).set(known(|figures| match figures.health.as_str() {
        "HEALTH_OK" => 0.0,
        "HEALTH_WARN" => 1.0,
        // Also what nobody has heard of.
        _ => 2.0,
    }));
    gauge!(STORAGE_BYTES, "kind" => "used").set(known(|figures| figures.space.used_bytes as f64));
    gauge!(STORAGE_BYTES, "kind" => "free").set(known(|figures| figures.space.free_bytes as f64));
    gauge!(STORAGE_BYTES, "kind" => "total").set(known(|figures| figures.space.total_bytes as f64));
    gauge!(STORAGE_OSDS, "state" => "all").set(known(|figures| figures.osds[0] as f64));
    gauge!(STORAGE_OSDS, "state" => "up").set(known(|figures| figures.osds[1] as f64));
    gauge!(STORAGE_OSDS, "state" => "in").set(known(|figures| figures.osds[2] as f64));
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
    describe_gauge!(CLUSTER_VMS_WAITING, "VMs that are to run and that no working daemon sees running");
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
    describe_gauge!(
        NAMES_BEHIND_SECONDS,
        Unit::Seconds,
        "Since when names that are to be served are not in the DNS database; told by the primary"
    );
    describe_histogram!(
        NAMES_LAG,
        Unit::Seconds,
        "From seeing a name that is to be served to having it in the DNS database"
    );
    describe_gauge!(
        LEASES,
        "Addresses of networks' ranges that are given out; told by the primary, 0 elsewhere"
    );
    describe_gauge!(
        POOLS,
        "Addresses in networks' ranges, without reserved ones; told by the primary, 0 elsewhere"
    );
    describe_gauge!(
        POOL_USED,
        "Share of the addresses that the fullest network has given out, from 0 to 1; told by the primary"
    );
    describe_gauge!(FORWARDS, "Entries of this node's tunnels, by who wrote them: pvcd, tunnel, frr");
    describe_gauge!(
        ROUTING_MISSED,
        "What FRR has not here, where it is needed: bgpd itself, sessions with nodes that run, sessions with the site's routers"
    );
    describe_counter!(RULE_PACKETS, "Packets that the rules of networks matched on this node, by direction");
    describe_counter!(
        RULE_BYTES,
        Unit::Bytes,
        "Bytes that the rules of networks matched on this node, by direction"
    );
    describe_counter!(DROPPED, "Packets that this node's walls dropped, by wall");
    describe_storage();
    describe_gauge!(STORE_SESSION, "1 for the state that the session with ZooKeeper is in");
}

fn describe_storage() {
    describe_gauge!(
        STORAGE_HEALTH,
        "What Ceph said last: 0 HEALTH_OK, 1 HEALTH_WARN, 2 all else; told by each node that asks it"
    );
    describe_gauge!(
        STORAGE_ANSWERED,
        Unit::Seconds,
        "When Ceph answered this node last, since 1970; 0: not yet. Told by each node that asks it"
    );
    describe_gauge!(STORAGE_BYTES, Unit::Bytes, "Space of all OSDs: used, free and total");
    describe_gauge!(STORAGE_OSDS, "OSDs that there are, that are up, and that are in");
}
