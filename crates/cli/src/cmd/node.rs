//! `pvc node …`: what the nodes' daemons say of themselves, and what is asked of them.

mod dead;
mod explain;
mod remove;
mod replace;
#[cfg(test)]
mod tests;
mod wish;

use pvc_core::model::{BmcReport, BmcWord, Problem};
use pvc_store::schema::bmc;
use serde::Serialize;

use crate::{
    args,
    connect::Connection,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, pairs, printable, table},
    },
    read::{Nodes, now_unix_s},
};

pub(super) async fn run(command: args::Node, cluster: &Connection, out: &Out) -> Result<(), Failure> {
    use args::Node;
    match command {
        Node::List { limit } => {
            let mut nodes = cluster.nodes().await?;
            let shown = |name: &str| limit.as_ref().is_none_or(|l| l.is_match(name));
            nodes.all.retain(|node| shown(node.name.as_str()));
            nodes.strays.retain(|(name, _)| shown(name));
            list(&nodes, out)
        }
        Node::Info { long, node } => {
            let nodes = cluster.nodes().await?;
            let node = nodes.find(&node)?;
            let bmc = bmc::read(&*cluster.store, &node.name).await?;
            info(node, bmc.as_ref(), long, out)
        }
        Node::Flush(follow) => wish::domain_state(cluster, out, wish::Kind::Flush, &follow).await,
        Node::Ready(follow) => wish::domain_state(cluster, out, wish::Kind::Ready, &follow).await,
        Node::Primary(handover) => wish::primary(cluster, out, &handover).await,
        Node::Secondary(handover) => wish::secondary(cluster, out, &handover).await,
        Node::Fence { death, cancel: true } => dead::cancel(cluster, out, &death.follow.node).await,
        Node::Fence { death, cancel: false } => dead::fence(cluster, out, &death).await,
        Node::ConfirmDead { death, listen } => dead::confirm(cluster, out, &death, listen).await,
        Node::Replace { yes, listen, node } => replace::replace(cluster, out, &node, yes, listen).await,
        Node::Remove { yes, listen, node } => remove::remove(cluster, out, &node, yes, listen).await,
        Node::Explain { node } => explain::explain(cluster, out, &node).await,
    }
}

/// A node in JSON, with the words of the API.
#[derive(Serialize)]
struct NodeJson<'a> {
    name: &'a str,
    daemon_mode: &'a str,
    daemon_state: &'a str,
    coordinator_state: &'a str,
    domain_state: &'a str,
    cpu_count: Option<u32>,
    kernel: Option<&'a str>,
    os: Option<&'a str>,
    arch: Option<&'a str>,
    load: f64,
    domains_count: u64,
    running_domains: Vec<String>,
    vcpu: Vcpu,
    memory: Memory,
    can_start: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cannot_start_because: Option<&'a str>,
    keepalive_unix_s: u64,
    keepalive_interval_s: Option<u64>,
    boot: Option<&'a str>,
    /// What its BMC said last; left out of lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    bmc: Option<&'a BmcReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Vcpu {
    total: Option<u32>,
    allocated: u64,
}

/// MiB each.
#[derive(Serialize)]
struct Memory {
    total: u64,
    allocated: u64,
    used: u64,
    free: u64,
}

/// A key that is no node's, in JSON.
#[derive(Serialize)]
struct BadJson<'a> {
    name: &'a str,
    problems: Vec<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum AnyJson<'a> {
    Good(Box<NodeJson<'a>>),
    Bad(BadJson<'a>),
}

fn json(node: &pvc_core::model::Node) -> NodeJson<'_> {
    let (machine, report) = (node.static_data.as_ref(), &node.report);
    NodeJson {
        name: node.name.as_str(),
        daemon_mode: node.mode.as_str(),
        daemon_state: node.daemon_state.value.as_str(),
        coordinator_state: node.router_state.value.as_str(),
        domain_state: node.domain_state.value.as_str(),
        cpu_count: machine.map(|m| m.cpu_count),
        kernel: machine.map(|m| m.kernel.as_str()),
        os: machine.map(|m| m.os.as_str()),
        arch: machine.map(|m| m.arch.as_str()),
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
        cannot_start_because: report.cannot_start.as_deref(),
        keepalive_unix_s: report.keepalive_unix_s,
        keepalive_interval_s: node.keepalive_interval.map(|interval| interval.as_secs()),
        boot: node.boot.as_deref(),
        bmc: None,
        problems: node.problems.iter().map(Problem::to_string).collect(),
    }
}

const HEADER: [&str; 12] = [
    "name",
    "daemon",
    "coordinator",
    "domains",
    "vms",
    "cpus",
    "vcpus",
    "load",
    "mem total",
    "used",
    "free",
    "allocated",
];

fn list(nodes: &Nodes, out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        let good = nodes.all.iter().map(|node| AnyJson::Good(Box::new(json(node))));
        let bad = nodes
            .strays
            .iter()
            .map(|(name, problem)| AnyJson::Bad(BadJson { name, problems: vec![problem.to_string()] }));
        return out.json(&good.chain(bad).collect::<Vec<_>>());
    }
    let mut rows: Vec<Vec<Cell>> = nodes.all.iter().map(row).collect();
    for (name, _) in &nodes.strays {
        let unknown = std::iter::repeat_n(Cell::state("?"), HEADER.len() - 1);
        rows.push(std::iter::once(Cell::from(name)).chain(unknown).collect());
    }
    out.write(&nodes.banner())?;
    out.write(&table(&HEADER, &rows, out.colour()))?;
    for silence in nodes.silences() {
        out.write(&format!("{silence}\n"))?;
    }
    for (node, why) in
        nodes.all.iter().filter_map(|node| Some((&node.name, node.report.cannot_start.as_ref()?)))
    {
        out.write(&format!("{node} can start no VMs: {}\n", printable(why)))?;
    }
    let strays = nodes.strays.iter().map(|(_, problem)| problem);
    for problem in nodes.all.iter().flat_map(|node| &node.problems).chain(strays) {
        out.write(&format!("? {}\n", printable(&problem.to_string())))?;
    }
    Ok(())
}

fn row(node: &pvc_core::model::Node) -> Vec<Cell> {
    let report = &node.report;
    let cpus = node.static_data.as_ref().map_or_else(|| "?".to_owned(), |m| m.cpu_count.to_string());
    vec![
        Cell::from(node.name.as_str()),
        Cell::state(node.daemon_state.value.as_str()),
        Cell::state(node.router_state.value.as_str()),
        Cell::state(node.domain_state.value.as_str()),
        report.domains_count.to_string().into(),
        cpus.into(),
        report.vcpu_alloc.to_string().into(),
        format!("{:.2}", report.cpu_load).into(),
        report.mem_total_mib.to_string().into(),
        report.mem_used_mib.to_string().into(),
        report.mem_free_mib.to_string().into(),
        report.mem_alloc_mib.to_string().into(),
    ]
}

fn info(node: &pvc_core::model::Node, bmc: Option<&BmcReport>, long: bool, out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&NodeJson { bmc, ..json(node) });
    }
    let report = &node.report;
    let unknown = || Cell::new("not reported yet", Look::Busy);
    let machine = |part: fn(&pvc_core::model::StaticData) -> String| {
        node.static_data.as_ref().map_or_else(unknown, |m| part(m).into())
    };
    let mut lines = vec![
        ("name", Cell::from(node.name.as_str())),
        ("daemon", Cell::state(node.daemon_state.value.as_str())),
        ("mode", node.mode.as_str().into()),
        ("coordinator", Cell::state(node.router_state.value.as_str())),
        ("domains", Cell::state(node.domain_state.value.as_str())),
        (
            "starts VMs",
            match &report.cannot_start {
                // Its last word: how old that is, its keepalive says.
                Some(why) => Cell::new(format!("no: {why}"), Look::Bad),
                None if node.can_start() => "yes".into(),
                None => Cell::new("no: its daemon does not run", Look::Bad),
            },
        ),
        ("running VMs", report.domains_count.to_string().into()),
        ("CPUs", machine(|m| m.cpu_count.to_string())),
        ("vCPUs allocated", report.vcpu_alloc.to_string().into()),
        ("load", format!("{:.2}", report.cpu_load).into()),
        ("memory total", mib(report.mem_total_mib)),
        ("memory used", mib(report.mem_used_mib)),
        ("memory free", mib(report.mem_free_mib)),
        ("memory allocated", mib(report.mem_alloc_mib)),
        ("BMC", bmc.map_or_else(|| Cell::new("not asked yet", Look::Busy), bmc_cell)),
    ];
    if long {
        lines.extend([
            ("kernel", machine(|m| m.kernel.clone())),
            ("system", machine(|m| m.os.clone())),
            ("architecture", machine(|m| m.arch.clone())),
            ("last keepalive", format!("{} (its clock, seconds since 1970)", report.keepalive_unix_s).into()),
            (
                "keepalives",
                node.keepalive_interval
                    .map_or_else(unknown, |every| format!("every {} s", every.as_secs()).into()),
            ),
            ("boot", node.boot.as_deref().map_or_else(unknown, Cell::from)),
        ]);
        lines.extend(report.running.iter().map(|id| ("runs", Cell::from(id.to_string()))));
    }
    let broken = |problem: &Problem| ("broken key", Cell::new(problem.to_string(), Look::Bad));
    lines.extend(node.problems.iter().map(broken));
    out.write(&pairs(&lines, out.colour()))
}

fn bmc_cell(report: &BmcReport) -> Cell {
    let host = &report.host;
    let (says, look) = match (report.trouble(), &report.word) {
        (Some(trouble), _) => (trouble, Look::Bad),
        (None, BmcWord::Off) => (format!("{host} says that its machine is off"), Look::Busy),
        (None, _) => (format!("{host} says that its machine is on"), Look::Plain),
    };
    let ago = now_unix_s().saturating_sub(report.at_unix_s);
    Cell::new(format!("{says}; asked by {} {ago} s ago", report.by), look)
}

fn mib(mib: u64) -> Cell {
    format!("{mib} MiB").into()
}
