//! All VMs. One that is broken is an entry with its problems; it never breaks the list.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

use std::collections::{BTreeMap, BTreeSet};

use pvc_core::model::{DomainDetails, DomainSpec, Entry, Halt, NodeName, Problem, Vm, VmId, VmState};
use pvc_store::schema::vm;
use serde::Serialize;

use crate::{
    Cluster, Failure, Runners,
    read::{Listed, Listing},
};

/// Which VMs; one that is broken matches no state and no node.
pub struct Filter<'a> {
    pub node: Option<&'a str>,
    pub state: Option<VmState>,
    pub wanted: Option<&'a (dyn Fn(&str) -> bool + Sync)>,
    pub long: bool,
}

/// A VM of a list, with the words of the API.
#[derive(Debug, Serialize)]
pub struct VmRow {
    /// Its name, which may be anything if it is broken.
    pub name: String,
    pub uuid: VmId,
    /// What is asked of it; `None` here and below: it is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<VmState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migrated: Option<String>,
    pub running_on: Vec<NodeName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_executing: Option<Halt>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub details: Option<DomainDetails>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The definition itself, if a long list is asked for.
    #[serde(skip)]
    pub xml: Option<String>,
    #[serde(skip)]
    pub vm: Option<Vm>,
    #[serde(skip)]
    pub runners: Runners,
}

/// A list of VMs.
#[derive(Debug)]
pub struct VmList {
    /// By name.
    pub vms: Vec<VmRow>,
    pub strays: Vec<Problem>,
    /// Nodes that should be heard of and are not, and for how many seconds.
    pub silent_s: BTreeMap<NodeName, u64>,
    pub maintenance: bool,
}

type Running = BTreeMap<VmId, Runners>;

/// The names of VMs.
pub async fn names(cluster: &Cluster, filter: &Filter<'_>) -> Result<Vec<String>, Failure> {
    let nodes = cluster.nodes().await?;
    let target = filter.node.map(|node| nodes.find(node)).transpose()?.map(|node| &node.name);
    let (mut listing, running) = (cluster.listing(false).await?, nodes.runners());
    listing.vms.retain(|listed| matches(listed, filter, target, &running));
    Ok(listing.vms.into_iter().map(|listed| listed.name).collect())
}

/// VMs, and what nodes report that is not in the tree.
pub async fn list(cluster: &Cluster, filter: &Filter<'_>, now_unix_s: u64) -> Result<VmList, Failure> {
    let nodes = cluster.nodes().await?;
    let target = filter.node.map(|node| nodes.find(node)).transpose()?.map(|node| &node.name);
    let mut listing = cluster.listing(filter.long).await?;
    let mut running = nodes.runners();
    listing.vms.extend(unknown(&listing, &running));
    listing.vms.retain(|listed| matches(listed, filter, target, &running));
    if filter.wanted.is_some() || filter.state.is_some() || target.is_some() {
        listing.strays.clear();
    }
    let mut definitions = definitions(cluster, &listing, filter.long).await?;
    let row = |listed: Listed| {
        let definition = definitions.remove(&listed.id).unwrap_or_default();
        let runners = running.remove(&listed.id).unwrap_or_default();
        row(listed, runners, definition)
    };
    Ok(VmList {
        vms: listing.vms.into_iter().map(row).collect(),
        strays: listing.strays,
        silent_s: nodes.silent(now_unix_s),
        maintenance: nodes.maintenance,
    })
}

fn matches(listed: &Listed, filter: &Filter<'_>, target: Option<&NodeName>, running: &Running) -> bool {
    let named = filter.wanted.is_none_or(|wanted| wanted(&listed.name) || wanted(&listed.id.to_string()));
    named
        && match &listed.entry {
            Entry::Good(vm) => {
                filter.state.is_none_or(|state| vm.state.value == state)
                    && target.is_none_or(|node| vm.node.value == *node)
            }
            // Whether a broken one would match is unknown: it shows in the unfiltered list. Of what is not in the tree it is known
            // where it runs.
            Entry::Bad(_) => {
                let there = |node| running.get(&listed.id).is_some_and(|runners| runners.now.contains(node));
                filter.state.is_none() && target.is_none_or(there)
            }
        }
}

/// What a definition says, as far as a list wants to know it.
#[derive(Default)]
struct Definition {
    problem: Option<String>,
    details: Option<DomainDetails>,
    xml: Option<String>,
}

fn row(listed: Listed, runners: Runners, definition: Definition) -> VmRow {
    let problems =
        listed.entry.problems().iter().map(ToString::to_string).chain(definition.problem).collect();
    let vm = listed.entry.good();
    VmRow {
        uuid: listed.id,
        state: vm.map(|vm| vm.state.value),
        node: vm.map(|vm| vm.node.value.clone()),
        last_node: vm.map(last_node),
        migrated: vm.map(migrated),
        running_on: runners.now.clone(),
        not_executing: runners.halted.as_ref().map(|(_, halt)| *halt),
        details: definition.details,
        xml: definition.xml,
        problems,
        vm: vm.cloned(),
        runners,
        name: listed.name,
    }
}

/// What is wrong with each definition, before somebody has to start from it, and what it says if that is asked for.
async fn definitions(
    cluster: &Cluster,
    listing: &Listing,
    long: bool,
) -> Result<BTreeMap<VmId, Definition>, Failure> {
    let vms: Vec<&Vm> = listing.vms.iter().filter_map(|listed| listed.entry.good()).collect();
    let texts = cluster.definition_texts(&vms.iter().map(|vm| vm.id).collect::<Vec<_>>()).await?;
    let read = |(vm, text): (&Vm, Result<String, String>)| {
        let definition = match text {
            Ok(xml) => {
                let broken = DomainSpec::parse_as(&xml, vm.id, &vm.name).err();
                Definition {
                    problem: broken.map(|e| format!("the definition is damaged: {e}")),
                    details: if long { DomainDetails::parse(&xml).ok() } else { None },
                    xml: long.then_some(xml),
                }
            }
            Err(why) => {
                Definition { problem: Some(format!("the definition: {why}")), ..Definition::default() }
            }
        };
        (vm.id, definition)
    };
    Ok(vms.into_iter().zip(texts).map(read).collect())
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

pub(super) fn last_node(vm: &Vm) -> String {
    vm.last_node.value.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// `no`, or where it came from.
pub(super) fn migrated(vm: &Vm) -> String {
    vm.last_node.value.as_ref().map_or_else(|| "no".to_owned(), |node| format!("from {node}"))
}
