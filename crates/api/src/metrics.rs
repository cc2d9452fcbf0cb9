//! Figures for Prometheus: of the whole cluster, as its nodes report them, and of this service. Every name and what it means is in this file.
//!
//! Labels are nodes' names and words of this program; never a name, an address or a text of a guest or of who asks.

use std::{convert::Infallible, time::Duration};

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
    with_local_recorder,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use pvc_core::model::{DaemonState, DomainState, RouterState, VmState};
use pvc_operate::node::{Listed, NodeInfo, NodeList};
use tokio::time::sleep;

/// The version of the text format that is spoken.
pub(crate) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

const REQUESTS: &str = "pvc_api_requests_total";
const REQUEST_TIME: &str = "pvc_api_request_seconds";
const PLACES: &str = "pvc_api_places_taken";
const NODE_UP: &str = "pvc_node_up";
const NODE_READY: &str = "pvc_node_ready";
const NODE_PRIMARY: &str = "pvc_node_primary";
const NODE_STARTS: &str = "pvc_node_can_start_vms";
const NODE_VMS: &str = "pvc_node_vms";
const NODE_VCPUS: &str = "pvc_node_vcpus_allocated";
const NODE_CPUS: &str = "pvc_node_cpus";
const NODE_MEMORY: &str = "pvc_node_memory_bytes";
const NODE_LOAD: &str = "pvc_node_load1";
const NODE_SILENT: &str = "pvc_node_silent_seconds";
const VMS: &str = "pvc_vms";
const MAINTENANCE: &str = "pvc_maintenance";

/// From a millisecond to the longest that a change is waited for.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How often.
const UPKEEP: Duration = Duration::from_mins(1);

const MIB: f64 = 1024.0 * 1024.0;

/// What this service has answered since it began.
pub(crate) struct Metrics(PrometheusRecorder);

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self(recorder());
        with_local_recorder(&metrics.0, || {
            describe_counter!(REQUESTS, "Answers by method, route and status.");
            describe_histogram!(REQUEST_TIME, Unit::Seconds, "Time to an answer's head, by what is asked.");
        });
        metrics
    }
}

impl Metrics {
    /// Something was answered: by that row of the table of routes, if there is one.
    pub(crate) fn answered(
        &self,
        method: &'static str,
        path: &'static str,
        kind: &'static str,
        code: u16,
        took: Duration,
    ) {
        with_local_recorder(&self.0, || {
            counter!(REQUESTS, "method" => method, "path" => path, "code" => code.to_string()).increment(1);
            histogram!(REQUEST_TIME, "kind" => kind).record(took);
        });
    }

    /// Puts samples into their buckets, also if nobody asks.
    pub(crate) async fn keep_small(&self) -> Infallible {
        loop {
            sleep(UPKEEP).await;
            self.0.handle().run_upkeep();
        }
    }

    /// All figures, in Prometheus' text format.
    pub(crate) fn render(&self, now: &Now<'_>) -> String {
        // A node that is gone has no figures any more: what only is, is told anew each time.
        let gauges = recorder();
        with_local_recorder(&gauges, || now.tell());
        self.0.handle().render() + &gauges.handle().render()
    }
}

fn recorder() -> PrometheusRecorder {
    let builder = PrometheusBuilder::new();
    // Fails for an empty list only.
    builder.set_buckets(SECONDS).unwrap_or_else(|_| PrometheusBuilder::new()).build_recorder()
}

/// What is at the moment that somebody asks.
pub(crate) struct Now<'a> {
    pub(crate) nodes: &'a NodeList,
    /// How many VMs are in each state.
    pub(crate) vms: &'a [(VmState, usize)],
    /// How many places of this service are taken, by what for.
    pub(crate) places: [(&'static str, usize); 4],
}

#[allow(clippy::cast_precision_loss, reason = "2^53 MiB are enough for everybody")]
impl Now<'_> {
    fn tell(&self) {
        describe();
        for (kind, taken) in self.places {
            gauge!(PLACES, "kind" => kind).set(taken as f64);
        }
        for (state, count) in self.vms {
            gauge!(VMS, "state" => state.as_str()).set(*count as f64);
        }
        gauge!(MAINTENANCE).set(one_if(self.nodes.maintenance));
        for node in &self.nodes.nodes {
            let Listed::Good(node) = node else { continue };
            self.tell_node(node);
        }
    }

    fn tell_node(&self, node: &NodeInfo) {
        let set = |name: &'static str, value: f64| gauge!(name, "node" => node.name.to_string()).set(value);
        let silent_s = self.nodes.silent_s.get(&node.name);
        let is_up = node.daemon_state == DaemonState::Run && silent_s.is_none();
        set(NODE_UP, one_if(is_up));
        set(NODE_SILENT, silent_s.copied().unwrap_or_default() as f64);
        set(NODE_PRIMARY, one_if(node.coordinator_state == RouterState::Primary));
        set(NODE_READY, one_if(node.domain_state == DomainState::Ready));
        if !is_up {
            // What it said last may be over.
            return;
        }
        set(NODE_STARTS, one_if(node.can_start));
        set(NODE_VMS, node.domains_count as f64);
        set(NODE_VCPUS, node.vcpu.allocated as f64);
        set(NODE_CPUS, node.vcpu.total.map_or(f64::NAN, f64::from));
        set(NODE_LOAD, node.load);
        let memory = &node.memory;
        for (kind, mib) in [
            ("total", memory.total),
            ("used", memory.used),
            ("free", memory.free),
            ("allocated", memory.allocated),
        ] {
            gauge!(NODE_MEMORY, "node" => node.name.to_string(), "kind" => kind).set(mib as f64 * MIB);
        }
    }
}

fn describe() {
    describe_gauge!(
        PLACES,
        "Requests that are being answered (reads, changes), and listeners and consoles that are open."
    );
    describe_gauge!(NODE_UP, "1: its daemon runs, and its keepalives arrive.");
    describe_gauge!(
        NODE_SILENT,
        Unit::Seconds,
        "For how long nothing was heard of a node that should speak."
    );
    describe_gauge!(NODE_PRIMARY, "1: it is the primary coordinator.");
    describe_gauge!(NODE_READY, "1: it takes VMs; 0: it is flushed, or its VMs go or come back.");
    describe_gauge!(NODE_STARTS, "1: it can start VMs.");
    describe_gauge!(NODE_VMS, "VMs that run on it.");
    describe_gauge!(NODE_VCPUS, "Virtual CPUs of these.");
    describe_gauge!(NODE_CPUS, "Its CPUs.");
    describe_gauge!(NODE_LOAD, "Its load average over a minute.");
    describe_gauge!(NODE_MEMORY, Unit::Bytes, "Its memory: total, used, free, and allocated to VMs.");
    describe_gauge!(VMS, "VMs by desired state.");
    describe_gauge!(MAINTENANCE, "1: silent nodes are not fenced.");
}

fn one_if(is: bool) -> f64 {
    f64::from(u8::from(is))
}
