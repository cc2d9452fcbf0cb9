//! Nodes.

use axum::extract::State;
use pvc_operate::node::{self as command, Listed, NodeInfo};
use serde::Serialize;
use serde_json::json;

use super::{exactly_or_nearly, no_such};
use crate::{
    api::Shared,
    ask::Ask,
    clock::now_unix_s,
    limit::Limit,
    reply::{Failed, Outcome, done, json, list as answer_list},
};

/// A node, with the words and types of the old API: counts and load are texts, memory is MiB.
#[derive(Serialize)]
struct Row {
    name: String,
    daemon_state: String,
    coordinator_state: String,
    domain_state: String,
    cpu_count: String,
    kernel: String,
    os: String,
    arch: String,
    load: String,
    domains_count: String,
    running_domains: Vec<String>,
    vcpu: Vcpu,
    memory: command::Memory,
}

#[derive(Serialize)]
struct Vcpu {
    total: String,
    allocated: String,
}

impl From<&NodeInfo> for Row {
    fn from(node: &NodeInfo) -> Self {
        let cpus = node.cpu_count.unwrap_or_default().to_string();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self {
            name: node.name.to_string(),
            daemon_state: node.daemon_state.to_string(),
            coordinator_state: node.coordinator_state.to_string(),
            domain_state: node.domain_state.to_string(),
            kernel: text(&node.kernel),
            os: text(&node.os),
            arch: text(&node.arch),
            load: node.load.to_string(),
            domains_count: node.domains_count.to_string(),
            running_domains: node.running_domains.clone(),
            vcpu: Vcpu { total: cpus.clone(), allocated: node.vcpu.allocated.to_string() },
            cpu_count: cpus,
            memory: node.memory.clone(),
        }
    }
}

async fn rows(api: &Shared, wanted: impl Fn(&str) -> bool) -> Result<Vec<Row>, Failed> {
    let nodes = command::list(api.seen(), now_unix_s(), wanted).await?.nodes;
    // A key that is no node's has nothing that an old client could read.
    let good = nodes.iter().filter_map(|listed| match listed {
        Listed::Good(node) => Some(Row::from(&**node)),
        Listed::Bad { .. } => None,
    });
    Ok(good.collect())
}

/// All that are wanted.
pub(crate) async fn list(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    answer_list(&rows(&api, |name| limit.wants(name)).await?, "no node is called so")
}

/// One.
pub(crate) async fn item(State(api): State<Shared>, ask: Ask) -> Outcome {
    let wanted = ask.part("node");
    let limit = Limit::parse(Some(wanted)).ok();
    let near = |name: &str| limit.as_ref().is_some_and(|limit| limit.wants(name));
    let found = exactly_or_nearly(rows(&api, |_| true).await?, wanted, |row| vec![row.name.clone()], near);
    answer_list(&found, "there is no such node")
}

/// The state of its daemon.
pub(crate) async fn daemon_state(State(api): State<Shared>, ask: Ask) -> Outcome {
    let node = command::info(api.seen(), ask.part("node")).await?;
    json(&json!({ "name": node.name, "daemon_state": node.daemon_state.to_string() }))
}

/// Whether it is primary.
pub(crate) async fn coordinator_state(State(api): State<Shared>, ask: Ask) -> Outcome {
    let node = command::info(api.seen(), ask.part("node")).await?;
    json(&json!({ "name": node.name, "coordinator_state": node.coordinator_state.to_string() }))
}

/// Whether it takes VMs.
pub(crate) async fn domain_state(State(api): State<Shared>, ask: Ask) -> Outcome {
    let node = command::info(api.seen(), ask.part("node")).await?;
    json(&json!({ "name": node.name, "domain_state": node.domain_state.to_string() }))
}

/// Makes it primary, or has it step down.
pub(crate) async fn set_coordinator_state(State(api): State<Shared>, ask: Ask) -> Outcome {
    let node = ask.part("node");
    let asked = match ask.required("coordinator-state")? {
        "primary" => command::primary(&api.cluster, node).await?,
        "secondary" => command::secondary(&api.cluster, node).await?,
        other => return Err(no_such("coordinator-state", other, "primary or secondary")),
    };
    done(asked.answer)
}

/// Sends its VMs away, or has it take them.
pub(crate) async fn set_domain_state(State(api): State<Shared>, ask: Ask) -> Outcome {
    let node = ask.part("node");
    let asked = match ask.required("domain-state")? {
        "flush" => command::flush(&api.cluster, node).await?,
        "ready" | "unflush" => command::ready(&api.cluster, node).await?,
        other => return Err(no_such("domain-state", other, "flush or ready")),
    };
    done(asked.answer)
}
