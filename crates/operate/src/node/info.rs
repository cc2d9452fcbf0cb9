//! What nodes report of themselves.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

use std::collections::BTreeMap;

use pvc_core::model::{
    BmcReport, DaemonMode, DaemonState, DomainState, Node, NodeName, Problem, RouterState,
};
use pvc_store::schema::bmc;
use serde::{Deserialize, Serialize};

use crate::{Cluster, Failure};

/// A node, with the words of the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub name: NodeName,
    pub daemon_mode: DaemonMode,
    pub daemon_state: DaemonState,
    pub coordinator_state: RouterState,
    pub domain_state: DomainState,
    /// CPUs; this and the next three are `None` until it reports them.
    pub cpu_count: Option<u32>,
    pub kernel: Option<String>,
    pub os: Option<String>,
    pub arch: Option<String>,
    pub load: f64,
    pub domains_count: u64,
    pub running_domains: Vec<String>,
    pub vcpu: Vcpu,
    pub memory: Memory,
    pub can_start: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cannot_start_because: Option<String>,
    /// When it spoke last, by its clock.
    pub keepalive_unix_s: u64,
    pub keepalive_interval_s: Option<u64>,
    pub boot: Option<String>,
    /// What its BMC said last; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcReport>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// CPUs, real and virtual.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vcpu {
    pub total: Option<u32>,
    pub allocated: u64,
}

/// MiB each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    pub total: u64,
    pub allocated: u64,
    pub used: u64,
    pub free: u64,
}

/// An entry of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Listed {
    Good(Box<NodeInfo>),
    Bad {
        /// The key's name.
        name: String,
        /// What is wrong with it.
        problems: Vec<String>,
    },
}

impl Listed {
    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            Self::Good(node) => node.name.as_str(),
            Self::Bad { name, .. } => name,
        }
    }

    /// What is wrong with it.
    pub fn problems(&self) -> &[String] {
        match self {
            Self::Good(node) => &node.problems,
            Self::Bad { problems, .. } => problems,
        }
    }
}

/// All nodes.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeList {
    /// By name, then the keys that are no node's.
    pub nodes: Vec<Listed>,
    /// Nodes that should be heard of and are not, and for how many seconds.
    pub silent_s: BTreeMap<NodeName, u64>,
    pub maintenance: bool,
}

/// The nodes whose names are `wanted`.
pub async fn list(
    cluster: &Cluster,
    now_unix_s: u64,
    wanted: impl Fn(&str) -> bool,
) -> Result<NodeList, Failure> {
    let mut nodes = cluster.nodes().await?;
    nodes.all.retain(|node| wanted(node.name.as_str()));
    let good = nodes.all.iter().map(|node| Listed::Good(Box::new(NodeInfo::of(node))));
    let strays = nodes.strays.iter().filter(|(name, _)| wanted(name));
    let bad =
        strays.map(|(name, problem)| Listed::Bad { name: name.clone(), problems: vec![problem.to_string()] });
    Ok(NodeList {
        nodes: good.chain(bad).collect(),
        silent_s: nodes.silent(now_unix_s),
        maintenance: nodes.maintenance,
    })
}

/// One node, with what its BMC said last.
pub async fn info(cluster: &Cluster, reference: &str) -> Result<NodeInfo, Failure> {
    let nodes = cluster.nodes().await?;
    let node = nodes.find(reference)?;
    let bmc = bmc::read(&*cluster.store, &node.name).await?;
    Ok(NodeInfo { bmc, ..NodeInfo::of(node) })
}

impl NodeInfo {
    fn of(node: &Node) -> Self {
        let (machine, report) = (node.static_data.as_ref(), &node.report);
        Self {
            name: node.name.clone(),
            daemon_mode: node.mode,
            daemon_state: node.daemon_state.value,
            coordinator_state: node.router_state.value,
            domain_state: node.domain_state.value,
            cpu_count: machine.map(|m| m.cpu_count),
            kernel: machine.map(|m| m.kernel.clone()),
            os: machine.map(|m| m.os.clone()),
            arch: machine.map(|m| m.arch.clone()),
            load: report.cpu_load,
            domains_count: report.domains_count,
            running_domains: report.running.iter().map(ToString::to_string).collect(),
            vcpu: Vcpu { total: machine.map(|m| m.cpu_count), allocated: report.vcpu_alloc },
            memory: Memory {
                total: report.mem_total_mib,
                allocated: report.mem_alloc_mib,
                used: report.mem_used_mib,
                free: report.mem_free_mib,
            },
            can_start: node.can_start(),
            cannot_start_because: report.cannot_start.clone(),
            keepalive_unix_s: report.keepalive_unix_s,
            keepalive_interval_s: node.keepalive_interval.map(|interval| interval.as_secs()),
            boot: node.boot.clone(),
            bmc: None,
            problems: node.problems.iter().map(Problem::to_string).collect(),
        }
    }
}
