//! The configuration as the rest of the house uses it: typed, complete, already checked.
//!
//! A `Config` exists only if the file had no error. It is built by [`crate::check()`] and never read from text elsewhere.

mod api;

pub use api::{ApiConfig, ApiToken, Authentication, Role, TlsFiles, Token};

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::{Ipv4Net, Ipv6Net};
use pvc_core::{
    model::name::NodeName,
    plan::{flush::Limits, placement::Selector, routing::Site},
};

use crate::{coordinators::Coordinator, secret::Secret};

/// Everything `pvcd.yaml` says. Field names are the manual's setting names; see `docs/manual/configuration.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `debug`: log more than an operator wants to read every day.
    pub debug: bool,
    /// `node`: this node's short host name.
    pub node: NodeName,
    /// `functions`: what this node does.
    pub functions: Functions,
    /// `cluster.coordinators`: at least one, in the file's order, no two the same.
    pub coordinators: Vec<Coordinator>,
    /// `cluster.networks`. Present if `functions.networking` is.
    pub networks: Option<PerNetwork<Network>>,
    /// `coordinator.dns.database`. Present if `functions.networking` is.
    pub dns_database: Option<DnsDatabase>,
    /// `coordinator.bgp`: the site's routers.
    pub bgp: Option<Site>,
    /// `system.fencing.intervals` or `system.intervals`.
    pub intervals: Intervals,
    /// `system.fencing.actions`.
    pub fencing: FenceActions,
    /// `system.fencing.ipmi`: how the other nodes fence this one.
    pub ipmi: Ipmi,
    /// `system.migration.target_selector`.
    pub target_selector: Selector,
    /// `system.migration.outgoing_limit` and `incoming_limit`: migrations at once when a node is emptied or filled.
    pub limits: Limits,
    /// `system.configuration.directories`, absolute all of them.
    pub directories: Directories,
    /// `system.configuration.logging`.
    pub logging: Logging,
    /// `system.configuration.metrics.listen`: a loopback address that Prometheus may ask; `None`: nobody may.
    pub metrics: Option<SocketAddr>,
    /// `system.configuration.networking`: this node's side of the networks. Present if `functions.networking` is.
    pub interfaces: Option<PerNetwork<Interface>>,
}

impl Config {
    /// Whether this node is one of the coordinators: by its name, its name with a domain, or an address of its own.
    pub fn is_coordinator(&self) -> bool {
        let own: Vec<Ipv4Addr> = self
            .interfaces
            .iter()
            .flat_map(|i| i.iter().filter_map(|(_, interface)| interface.address.map(|a| a.addr())))
            .collect();
        self.coordinators
            .iter()
            .any(|c| c.is_node(&self.node) || c.address().is_some_and(|a| own.contains(&a)))
    }

    /// The coordinators as a ZooKeeper client wants them: `pvc-hv1:2181,pvc-hv2:2181`.
    pub fn zookeeper_connect_string(&self) -> String {
        crate::coordinators::connect_string(&self.coordinators)
    }
}

/// `functions`: what this node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "the manual's switches, each on its own")]
pub struct Functions {
    /// `enable_hypervisor`: runs VMs.
    pub hypervisor: bool,
    /// `enable_networking`: manages client networks.
    pub networking: bool,
    /// `enable_storage`: manages virtual storage.
    pub storage: bool,
    /// `enable_api`: serves the API on the floating addresses while primary. Optional, `False` if absent.
    pub api: bool,
}

/// One value for each of the three networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerNetwork<T> {
    /// Towards the rest of the world.
    pub upstream: T,
    /// Between the nodes: keepalives, migrations, the client networks' VXLAN.
    pub cluster: T,
    /// Between the nodes: Ceph.
    pub storage: T,
}

impl<T> PerNetwork<T> {
    /// The three values with their networks' names, in the manual's order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        [("upstream", &self.upstream), ("cluster", &self.cluster), ("storage", &self.storage)].into_iter()
    }
}

/// One entry of `cluster.networks`: the same on all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// `domain`; `None` if the file says `None`.
    pub domain: Option<String>,
    /// `network`.
    pub network: Option<Ipv4Net>,
    /// `floating_ip`: a host address of `network`, nobody's own; the primary coordinator holds it.
    pub floating_ip: Option<Ipv4Net>,
    /// `gateway`: a host address of `network`, nobody's own.
    pub gateway: Option<Ipv4Addr>,
    /// `network6`.
    pub network6: Option<Ipv6Net>,
    /// `floating_ip6`: a host address of `network6`; the primary coordinator holds it.
    pub floating_ip6: Option<Ipv6Net>,
}

/// One entry of `system.configuration.networking`: this node's side of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// `device`: the raw Linux network device. Whether it exists is start-up's business.
    pub device: String,
    /// `mtu` of the device, bytes.
    pub mtu: u16,
    /// `address`, with `by-id` already resolved; `None` if this node has no address there.
    pub address: Option<Ipv4Net>,
}

/// `coordinator.dns.database`: the DNS aggregator's PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsDatabase {
    /// `host`: name or address.
    pub host: String,
    /// `port`.
    pub port: u16,
    /// `name` of the database.
    pub name: String,
    /// `user`.
    pub user: String,
    /// `pass`.
    pub pass: Secret,
}

/// Keepalives and how many of them may be missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// `keepalive_interval`, seconds, at least 1.
    pub keepalive_interval_s: u32,
    /// `fence_intervals`: missed keepalives before the others fence a node; 0 = never.
    pub fence_intervals: u32,
    /// `suicide_intervals`: missed keepalives before a node resets itself; 0 = never.
    pub suicide_intervals: u32,
}

impl Intervals {
    /// Time between two keepalives.
    pub fn keepalive(self) -> Duration {
        Duration::from_secs(self.keepalive_interval_s.into())
    }

    /// Silence after which a node is suspected dead; `None` if fencing is disabled.
    pub fn fence_after(self) -> Option<Duration> {
        self.times(self.fence_intervals)
    }

    /// Time without an acknowledged keepalive after which a node resets itself; `None` if it never does.
    pub fn suicide_after(self) -> Option<Duration> {
        self.times(self.suicide_intervals)
    }

    /// Time without a sign of life after which the state store ends a node's session: three keepalives. The store's own sign of life
    /// is due after two fifths of a session without a request, so that a keepalive is one, too. Within what servers grant by their
    /// usual tick of 2 s, and long enough for a busy server to answer.
    pub fn session_timeout(self) -> Duration {
        (3 * self.keepalive()).clamp(Duration::from_secs(10), Duration::from_secs(40))
    }

    fn times(self, intervals: u32) -> Option<Duration> {
        let seconds = u64::from(self.keepalive_interval_s) * u64::from(intervals);
        (intervals > 0).then_some(Duration::from_secs(seconds))
    }
}

/// `system.fencing.actions`: what happens to a fenced node's VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceActions {
    /// `successful_fence`: the BMC confirmed the reset.
    pub successful: FenceAction,
    /// `failed_fence`: it did not. `Migrate` only ever comes with `suicide_intervals` above 0.
    pub failed: FenceAction,
}

/// What to do with a fenced node's VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceAction {
    /// `migrate`: start them on other nodes.
    Migrate,
    /// `None`: leave them alone.
    Nothing,
}

/// `system.fencing.ipmi`: this node's BMC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipmi {
    /// `host`: name or address.
    pub host: String,
    /// `user`.
    pub user: String,
    /// `pass`.
    pub pass: Secret,
    /// `cipher_suite`: the only one that this node uses with the other nodes' BMCs. Optional; 3, then 17, if absent.
    pub cipher_suite: Option<u8>,
}

/// `system.configuration.directories`. They need not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// `dynamic_directory`: ephemeral configuration files.
    pub dynamic: PathBuf,
    /// `log_directory`: the daemon's own log, if `file_logging`.
    pub log: PathBuf,
    /// `console_log_directory`: VM console logs.
    pub console_log: PathBuf,
}

/// `system.configuration.logging`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "the manual's switches, each on its own")]
pub struct Logging {
    /// `file_logging`: to a file in `log_directory`.
    pub file: bool,
    /// `stdout_logging`.
    pub stdout: bool,
    /// `log_colours`: ANSI colours.
    pub colours: bool,
    /// `log_dates`: date and time on each line.
    pub dates: bool,
    /// `log_keepalives`: a line for each keepalive.
    pub keepalives: bool,
    /// `log_keepalive_cluster_details`: with node status.
    pub keepalive_cluster_details: bool,
    /// `log_keepalive_storage_details`: with storage status.
    pub keepalive_storage_details: bool,
    /// `console_log_lines`: lines of each VM's console kept in ZooKeeper; 0 = none.
    pub console_log_lines: u32,
    /// `console_log_vm_rate`: bytes of each VM's console log that are written to ZooKeeper in a second, averaged over a minute; in
    /// the file it is KiB.
    pub console_log_vm_rate: u64,
    /// `console_log_node_rate`: … of all VMs of the node together.
    pub console_log_node_rate: u64,
}
