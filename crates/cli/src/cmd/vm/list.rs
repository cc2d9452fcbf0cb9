//! `pvc vm list`. One broken VM is a row with question marks and a footnote; it never breaks the list.
//!
//! What is asked (`asked`, `node`) and what is seen (`runs on`) stand in columns of their own.

use std::collections::{BTreeMap, BTreeSet};

use pvc_core::model::{DomainDetails, DomainSpec, Entry, Halt, NodeName, Problem, Vm, VmId, VmKey, VmState};
use pvc_store::schema::vm;
use serde::Serialize;

use crate::{
    args,
    connect::Connection,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look, printable, table},
    },
    read::{Listed, Listing, Runners},
};

pub(super) async fn list(cluster: &Connection, out: &Out, args: &args::List) -> Result<(), Failure> {
    let nodes = cluster.nodes().await?;
    let target = args.target.as_deref().map(|node| nodes.find(node)).transpose()?.map(|node| &node.name);
    let mut listing = cluster.listing().await?;
    let running = nodes.runners();
    if !args.raw {
        listing.vms.extend(unknown(&listing, &running));
    }
    listing.vms.retain(|listed| {
        let matches = |l: &regex_lite::Regex| l.is_match(&listed.name) || l.is_match(&listed.id.to_string());
        let wanted = |vm: &Vm| {
            args.state.is_none_or(|s| vm.state.value == s) && target.is_none_or(|t| vm.node.value == *t)
        };
        // Whether a broken one would match is unknown: it shows in the unfiltered list.
        let unfiltered = args.state.is_none() && target.is_none();
        // Of what is not in the tree it is known where it runs.
        let there = || args.state.is_none() && target.is_some_and(|t| running[&listed.id].now.contains(t));
        args.limit.as_ref().is_none_or(matches)
            && listed.entry.good().map_or_else(|| unfiltered || there(), wanted)
    });
    if args.limit.is_some() || args.state.is_some() || target.is_some() {
        listing.strays.clear();
    }
    if args.raw {
        return raw(&listing, out);
    }
    let details = details(cluster, &listing, args.long).await?;
    if out.is_json() {
        json(&listing, &running, &details, out)
    } else {
        out.write(&nodes.banner())?;
        people(&listing, &running, &details, args.long, &nodes.silences(), out)
    }
}

/// What the definitions say, and whether they could be started from. What is damaged is told before somebody has to start from it.
async fn details(cluster: &Connection, listing: &Listing, long: bool) -> Result<Details, Failure> {
    let defined = listing.vms.iter().filter(|listed| listed.entry.good().is_some());
    let ids: Vec<VmId> = defined.clone().map(|listed| listed.id).collect();
    let texts = cluster.definition_texts(&ids).await?;
    let read = |(listed, text): (&Listed, Result<String, String>)| {
        let definition = match text {
            Ok(xml) => Definition {
                problem: listed.entry.good().and_then(|vm| {
                    let spec = DomainSpec::parse_as(&xml, vm.id, &vm.name);
                    spec.err().map(|e| format!("the definition is damaged: {e}"))
                }),
                details: long.then(|| DomainDetails::parse(&xml).ok()).flatten(),
            },
            Err(why) => Definition { problem: Some(format!("the definition: {why}")), details: None },
        };
        (listed.id, definition)
    };
    Ok(defined.zip(texts).map(read).collect())
}

/// What nodes report that is not in the tree: nobody restarts, moves or recovers it, and nobody would know of it.
fn unknown(listing: &Listing, running: &Running) -> Vec<Listed> {
    let known: BTreeSet<VmId> = listing.vms.iter().map(|listed| listed.id).collect();
    let row = |(&id, runners): (&VmId, &Runners)| {
        let what = format!("not in the state tree, and runs on {}: `pvc vm explain {id}`", runners.words());
        let problem = Problem { key: vm::path(id), what };
        Listed { id, name: String::new(), entry: Entry::Bad(vec![problem]) }
    };
    running.iter().filter(|(id, _)| !known.contains(id)).map(row).collect()
}

fn raw(listing: &Listing, out: &Out) -> Result<(), Failure> {
    let names: Vec<&str> = listing.vms.iter().map(|listed| listed.name.as_str()).collect();
    if out.is_json() {
        return out.json(&names);
    }
    out.write(&names.iter().map(|name| printable(name) + "\n").collect::<String>())
}

/// A VM in JSON, with the words of the API. `running_on` is what the nodes report, all else what is asked of them.
#[derive(Serialize)]
struct VmJson<'a> {
    name: &'a str,
    uuid: VmId,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    migrated: Option<String>,
    running_on: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_executing: Option<Halt>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    details: Option<&'a DomainDetails>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

type Running = BTreeMap<VmId, Runners>;
type Details = BTreeMap<VmId, Definition>;

/// What a definition says, and what is wrong with it.
struct Definition {
    details: Option<DomainDetails>,
    problem: Option<String>,
}

fn json(listing: &Listing, running: &Running, details: &Details, out: &Out) -> Result<(), Failure> {
    out.json(&listing.vms.iter().map(|listed| one(listed, running, details)).collect::<Vec<_>>())
}

fn one<'a>(listed: &'a Listed, running: &'a Running, details: &'a Details) -> VmJson<'a> {
    let vm = listed.entry.good();
    VmJson {
        name: &listed.name,
        uuid: listed.id,
        state: vm.map(|vm| vm.state.value.as_str()),
        node: vm.map(|vm| vm.node.value.as_str()),
        last_node: vm.map(|vm| vm.last_node.value.as_ref().map(NodeName::as_str).unwrap_or_default()),
        migrated: vm.map(migrated),
        running_on: running.get(&listed.id).into_iter().flat_map(|r| &r.now).map(NodeName::as_str).collect(),
        not_executing: running.get(&listed.id).and_then(|r| r.halted.as_ref()).map(|(_, halt)| *halt),
        details: details.get(&listed.id).and_then(|d| d.details.as_ref()),
        problems: problems(listed, details),
    }
}

fn people(
    listing: &Listing,
    running: &Running,
    details: &Details,
    long: bool,
    silences: &[String],
    out: &Out,
) -> Result<(), Failure> {
    let mut header = vec!["name", "uuid", "asked", "node", "runs on", "migrated"];
    if long {
        header.extend(["memory", "vcpus", "networks"]);
    }
    let row = |listed: &Listed| {
        let mut row = vec![Cell::from(shown_name(listed)), listed.id.to_string().into()];
        match &listed.entry {
            Entry::Good(vm) => {
                row.extend([asked(vm), wished_node(vm), runs_on(vm, running), migrated(vm).into()]);
            }
            Entry::Bad(_) => {
                let runners = running.get(&listed.id).map(Runners::words).unwrap_or_default();
                let unknown = || Cell::state("?");
                row.extend([unknown(), unknown(), Cell::new(runners, Look::Bad), unknown()]);
            }
        }
        match details.get(&listed.id).and_then(|definition| definition.details.as_ref()) {
            _ if !long => {}
            Some(details) => row.extend(in_definition(details)),
            None => row.extend(std::iter::repeat_n(Cell::state("?"), 3)),
        }
        row
    };
    let rows: Vec<Vec<Cell>> = listing.vms.iter().map(row).collect();
    let mut text = table(&header, &rows, out.colour());
    for silence in silences {
        text.push_str(silence);
        text.push('\n');
    }
    for listed in &listing.vms {
        for problem in problems(listed, details) {
            text.push_str(&printable(&format!("? {}: {problem}", shown_name(listed))));
            text.push('\n');
        }
    }
    for stray in &listing.strays {
        text.push_str(&printable(&format!("? {stray}")));
        text.push('\n');
    }
    out.write(&text)
}

/// A VM whose name is lost is still to be seen.
fn shown_name(listed: &Listed) -> &str {
    if listed.name.is_empty() { "?" } else { &listed.name }
}

fn in_definition(details: &DomainDetails) -> [Cell; 3] {
    let number = |n: Option<u64>| n.map_or_else(|| Cell::state("?"), |n| n.to_string().into());
    let sources: Vec<&str> = details.networks.iter().map(|card| card.source.as_str()).collect();
    let sources = if sources.is_empty() { "-".to_owned() } else { sources.join(",") };
    [number(details.memory_mib), number(details.vcpus.map(u64::from)), sources.into()]
}

/// The nodes that report to run it. Red: elsewhere than asked; yellow: nobody says so now, though it is asked to run.
fn runs_on(vm: &Vm, running: &Running) -> Cell {
    let asked_to_run = match vm.state.value {
        VmState::Start | VmState::Restart | VmState::Migrate => true,
        VmState::Stop | VmState::Shutdown | VmState::Failed | VmState::Delete => false,
    };
    let nobody = Runners::default();
    let runners = running.get(&vm.id).unwrap_or(&nobody);
    let look = match &runners.now[..] {
        [] if asked_to_run || !runners.before.is_empty() => Look::Busy,
        [] => Look::Plain,
        _ if runners.halted.is_some() => Look::Bad,
        [node] if *node == vm.node.value => Look::Good,
        _ => Look::Bad,
    };
    Cell::new(runners.words(), look)
}

/// The word of its key `state`, `?` if that cannot be read.
pub(super) fn asked(vm: &Vm) -> Cell {
    Cell::state(if vm.cannot_read(VmKey::State) { "?" } else { vm.state.value.as_str() })
}

/// The node of its key `node`, `?` if that cannot be read.
pub(super) fn wished_node(vm: &Vm) -> Cell {
    if vm.cannot_read(VmKey::Node) { Cell::state("?") } else { vm.node.value.as_str().into() }
}

/// `no`, or where it came from.
pub(super) fn migrated(vm: &Vm) -> String {
    vm.last_node.value.as_ref().map_or_else(|| "no".to_owned(), |node| format!("from {node}"))
}

fn problems(listed: &Listed, details: &Details) -> Vec<String> {
    let mut problems: Vec<String> = listed.entry.problems().iter().map(ToString::to_string).collect();
    problems.extend(details.get(&listed.id).and_then(|definition| definition.problem.clone()));
    problems
}
