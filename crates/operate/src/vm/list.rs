//! All VMs. One that is broken is an entry with its problems; it never breaks the list.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

use std::collections::{BTreeMap, BTreeSet};

use pvc_core::model::{DomainDetails, Entry, NodeName, Problem, Vm, VmId, VmKey, VmState};
use pvc_store::schema::vm;
use serde::{Deserialize, Serialize};

use crate::{
    Cluster, Failure, Runners,
    definitions::Definition,
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
#[derive(Debug, Serialize, Deserialize)]
pub struct VmRow {
    /// Its name: its UUID, if what its key holds cannot be a name; empty if it is in no tree.
    pub name: String,
    pub uuid: VmId,
    /// What is asked of it; `None` here and below: it is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<VmState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrated: Option<String>,
    #[serde(flatten)]
    pub runners: Runners,
    /// Keys that do not hold what is shown of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unreadable: BTreeSet<VmKey>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub details: Option<DomainDetails>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// A list of VMs.
#[derive(Debug, Serialize, Deserialize)]
pub struct VmList {
    /// By name.
    pub vms: Vec<VmRow>,
    #[serde(flatten)]
    pub beside: Beside,
}

/// What there is to say beside a list of VMs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Beside {
    /// Keys that are no VM's.
    pub strays: Vec<Problem>,
    /// Nodes that should be heard of and are not, and for how many seconds.
    pub silent_s: BTreeMap<NodeName, u64>,
    pub maintenance: bool,
}

pub(super) type Running = BTreeMap<VmId, Runners>;

/// The names of VMs.
pub async fn names(cluster: &Cluster, filter: &Filter<'_>) -> Result<Vec<String>, Failure> {
    let nodes = cluster.nodes().await?;
    let target = filter.node.map(|node| nodes.find(node)).transpose()?.map(|node| &node.name);
    let (mut listing, running) = (cluster.listing(false).await?, nodes.runners());
    listing.vms.retain(|listed| Candidate::from(listed).matches(filter, target, &running));
    let names = listing.vms.into_iter().map(|listed| listed.name);
    // Who has none is no VM that a script could name.
    Ok(names.filter(|name| !name.is_empty()).collect())
}

/// What there is to say beside all VMs.
pub async fn beside(cluster: &Cluster, now_unix_s: u64) -> Result<Beside, Failure> {
    let nodes = cluster.nodes().await?;
    let (_, strays) = vm::ids(&cluster.children(vm::ROOT).await?);
    Ok(Beside { strays, silent_s: nodes.silent(now_unix_s), maintenance: nodes.maintenance })
}

/// VMs, and what nodes report that is not in the tree.
pub async fn list(cluster: &Cluster, filter: &Filter<'_>, now_unix_s: u64) -> Result<VmList, Failure> {
    let nodes = cluster.nodes().await?;
    let target = filter.node.map(|node| nodes.find(node)).transpose()?.map(|node| &node.name);
    let mut listing = cluster.listing(filter.long).await?;
    let mut running = nodes.runners();
    let known: BTreeSet<VmId> = listing.vms.iter().map(|listed| listed.id).collect();
    listing.vms.extend(unknown(|id| known.contains(&id), &running));
    // Whose name is lost, and what is in no tree, stands last.
    listing.vms.sort_by_key(|listed| listed.name.is_empty());
    listing.vms.retain(|listed| Candidate::from(listed).matches(filter, target, &running));
    if filter.wanted.is_some() || filter.state.is_some() || target.is_some() {
        listing.strays.clear();
    }
    let mut definitions = definitions(cluster, &listing, filter.long).await?;
    let row = |listed: Listed| {
        let definition = definitions.remove(&listed.id).unwrap_or_default();
        let runners = running.remove(&listed.id).unwrap_or_default();
        let row = Candidate::from(&listed).row(runners, definition.problem.as_deref());
        VmRow { details: definition.details, ..row }
    };
    Ok(VmList {
        vms: listing.vms.into_iter().map(row).collect(),
        beside: Beside {
            strays: listing.strays,
            silent_s: nodes.silent(now_unix_s),
            maintenance: nodes.maintenance,
        },
    })
}

/// A VM that may be listed.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) id: VmId,
    pub(super) name: &'a str,
    pub(super) entry: &'a Entry<Vm>,
}

impl<'a> From<&'a Listed> for Candidate<'a> {
    fn from(listed: &'a Listed) -> Self {
        Self { id: listed.id, name: &listed.name, entry: &listed.entry }
    }
}

impl Candidate<'_> {
    pub(super) fn matches(self, filter: &Filter<'_>, target: Option<&NodeName>, running: &Running) -> bool {
        let named = filter.wanted.is_none_or(|wanted| wanted(self.name) || wanted(&self.id.to_string()));
        named
            && match self.entry {
                Entry::Good(vm) => {
                    filter.state.is_none_or(|state| vm.state.value == state)
                        && target.is_none_or(|node| vm.node.value == *node)
                }
                // Whether a broken one would match is unknown: it shows in the unfiltered list. Of what is not in the tree it is known
                // where it runs.
                Entry::Bad(_) => {
                    let there =
                        |node| running.get(&self.id).is_some_and(|runners| runners.now.contains(node));
                    filter.state.is_none() && target.is_none_or(there)
                }
            }
    }

    /// As it is shown, without what is in its definition but what is wrong with that.
    pub(super) fn row(self, runners: Runners, of_definition: Option<&str>) -> VmRow {
        let problems = self.entry.problems().iter().map(ToString::to_string);
        let vm = self.entry.good();
        VmRow {
            name: self.name.to_owned(),
            uuid: self.id,
            state: vm.map(|vm| vm.state.value),
            node: vm.map(|vm| vm.node.value.to_string()),
            last_node: vm.map(last_node),
            migrated: vm.map(migrated),
            runners,
            unreadable: vm.map(|vm| vm.unread.clone()).unwrap_or_default(),
            details: None,
            problems: problems.chain(of_definition.map(str::to_owned)).collect(),
        }
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
    Ok(vms.into_iter().zip(texts).map(|(vm, text)| (vm.id, Definition::of(vm, text, long))).collect())
}

/// What nodes report that is not in the tree: nobody restarts, moves or recovers it, and nobody would know of it.
pub(super) fn unknown(is_known: impl Fn(VmId) -> bool, running: &Running) -> Vec<Listed> {
    let row = |(&id, runners): (&VmId, &Runners)| {
        let what = format!("not in the state tree, and runs on {}: `pvc vm explain {id}`", runners.words());
        let problem = Problem { key: vm::path(id), what };
        Listed { id, name: String::new(), entry: Entry::Bad(vec![problem]) }
    };
    running.iter().filter(|(id, _)| !is_known(**id)).map(row).collect()
}

pub(super) fn last_node(vm: &Vm) -> String {
    vm.last_node.value.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// `no`, or where it came from.
pub(super) fn migrated(vm: &Vm) -> String {
    vm.last_node.value.as_ref().map_or_else(|| "no".to_owned(), |node| format!("from {node}"))
}
