//! `pvc node …`: what the nodes' daemons say of themselves, and what is asked of them.

mod explain;
#[cfg(test)]
mod tests;

use pvc_core::model::{BmcReport, BmcWord};
use pvc_operate::{
    Progress,
    node::{Listed, NodeInfo, NodeList},
};

use super::{
    banner, confirm,
    follow::{follow, listening},
    now_unix_s, silences,
};
use crate::{
    args,
    door::{Door, Pending, Prepared},
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, pairs, printable, table},
    },
};

pub(super) async fn run(command: args::Node, door: &Door, out: &Out) -> Result<(), Failure> {
    use args::Node;
    match command {
        Node::List { limit } => {
            let wanted = |name: &str| limit.as_ref().is_none_or(|l| l.is_match(name));
            list(&door.nodes(wanted).await?, out)
        }
        Node::Info { long, node } => info(&door.node(&node).await?, long, out),
        Node::Flush(args) => followed(door, out, door.flush(&args.node).await?, &args).await,
        Node::Ready(args) => followed(door, out, door.ready(&args.node).await?, &args).await,
        Node::Primary(args) => {
            let asked = door.primary(&args.node).await?;
            follow(door, out, asked, (!args.no_wait).then_some(args.wait)).await
        }
        Node::Secondary(args) => {
            let asked = door.secondary(&args.node).await?;
            follow(door, out, asked, (!args.no_wait).then_some(args.wait)).await
        }
        Node::Fence { death, cancel: true } => out.answer(&door.cancel_fence(&death.follow.node).await?),
        Node::Fence { death, cancel: false } => {
            end(door, out, door.fence(&death.follow.node).await?, &death).await
        }
        Node::ConfirmDead { death, listen } => {
            let node = &death.follow.node;
            let prepare = async |progress: Progress<'_>| door.confirm_dead(node, listen, progress).await;
            end(door, out, listening(out, prepare).await?, &death).await
        }
        Node::Replace { yes, listen, node } => {
            let prepare = async |progress: Progress<'_>| door.replace(&node, listen, progress).await;
            let prepared = listening(out, prepare).await?;
            confirm::insist(prepared.question.as_deref(), &prepared.otherwise, yes)?;
            out.answer(&prepared.carry_out().await?)
        }
        Node::Remove { yes, listen, node } => {
            let prepare = async |progress: Progress<'_>| door.remove_node(&node, listen, progress).await;
            let prepared = listening(out, prepare).await?;
            confirm::insist(prepared.question.as_deref(), &prepared.otherwise, yes)?;
            out.answer(&prepared.carry_out().await?)
        }
        Node::Explain { node } => explain::explain(door, out, &node).await,
    }
}

async fn followed(door: &Door, out: &Out, asked: Pending, args: &args::Follow) -> Result<(), Failure> {
    follow(door, out, asked, args.wait.then_some(args.within)).await
}

/// Has a node put out of the cluster, if a person says yes.
async fn end(
    door: &Door,
    out: &Out,
    prepared: Prepared<'_, Pending>,
    args: &args::Death,
) -> Result<(), Failure> {
    confirm::insist(prepared.question.as_deref(), &prepared.otherwise, args.yes)?;
    let mut asked = prepared.carry_out().await?;
    if !args.follow.wait {
        asked.answer.notes.push(format!("`pvc node explain {}` shows how it goes", asked.subject));
    }
    followed(door, out, asked, &args.follow).await
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

fn list(nodes: &NodeList, out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&nodes.nodes);
    }
    let rows: Vec<Vec<Cell>> = nodes.nodes.iter().map(row).collect();
    out.write(&banner(nodes.maintenance))?;
    out.write(&table(&HEADER, &rows, out.colour()))?;
    out.write(&silences(&nodes.silent_s))?;
    for listed in &nodes.nodes {
        if let Listed::Good(node) = listed
            && let Some(why) = &node.cannot_start_because
        {
            out.write(&format!("{} can start no VMs: {}\n", node.name, printable(why)))?;
        }
    }
    for problem in nodes.nodes.iter().flat_map(Listed::problems) {
        out.write(&format!("? {}\n", printable(problem)))?;
    }
    Ok(())
}

fn row(listed: &Listed) -> Vec<Cell> {
    let node = match listed {
        Listed::Good(node) => node,
        Listed::Bad { name, .. } => {
            let unknown = std::iter::repeat_n(Cell::state("?"), HEADER.len() - 1);
            return std::iter::once(Cell::from(name)).chain(unknown).collect();
        }
    };
    vec![
        Cell::from(node.name.as_str()),
        Cell::state(node.daemon_state.as_str()),
        Cell::state(node.coordinator_state.as_str()),
        Cell::state(node.domain_state.as_str()),
        node.domains_count.to_string().into(),
        node.cpu_count.map_or_else(|| "?".to_owned(), |cpus| cpus.to_string()).into(),
        node.vcpu.allocated.to_string().into(),
        format!("{:.2}", node.load).into(),
        node.memory.total.to_string().into(),
        node.memory.used.to_string().into(),
        node.memory.free.to_string().into(),
        node.memory.allocated.to_string().into(),
    ]
}

fn info(node: &NodeInfo, long: bool, out: &Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(node);
    }
    let unknown = || Cell::new("not reported yet", Look::Busy);
    let text = |text: &Option<String>| text.as_ref().map_or_else(unknown, Cell::from);
    let mut lines = vec![
        ("name", Cell::from(node.name.as_str())),
        ("daemon", Cell::state(node.daemon_state.as_str())),
        ("mode", node.daemon_mode.as_str().into()),
        ("coordinator", Cell::state(node.coordinator_state.as_str())),
        ("domains", Cell::state(node.domain_state.as_str())),
        (
            "starts VMs",
            match &node.cannot_start_because {
                // Its last word: how old that is, its keepalive says.
                Some(why) => Cell::new(format!("no: {why}"), Look::Bad),
                None if node.can_start => "yes".into(),
                None => Cell::new("no: its daemon does not run", Look::Bad),
            },
        ),
        ("running VMs", node.domains_count.to_string().into()),
        ("CPUs", node.cpu_count.map_or_else(unknown, |cpus| cpus.to_string().into())),
        ("vCPUs allocated", node.vcpu.allocated.to_string().into()),
        ("load", format!("{:.2}", node.load).into()),
        ("memory total", mib(node.memory.total)),
        ("memory used", mib(node.memory.used)),
        ("memory free", mib(node.memory.free)),
        ("memory allocated", mib(node.memory.allocated)),
        ("BMC", node.bmc.as_ref().map_or_else(|| Cell::new("not asked yet", Look::Busy), bmc_cell)),
    ];
    if long {
        let every = node.keepalive_interval_s.map(|seconds| format!("every {seconds} s"));
        lines.extend([
            ("kernel", text(&node.kernel)),
            ("system", text(&node.os)),
            ("architecture", text(&node.arch)),
            ("last keepalive", format!("{} (its clock, seconds since 1970)", node.keepalive_unix_s).into()),
            ("keepalives", text(&every)),
            ("boot", text(&node.boot)),
        ]);
        lines.extend(node.running_domains.iter().map(|id| ("runs", Cell::from(id))));
    }
    lines.extend(node.problems.iter().map(|problem| ("broken key", Cell::new(problem, Look::Bad))));
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
