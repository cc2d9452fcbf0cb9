//! Reads what a command needs and no more: a few requests with many keys each, no mirror of the whole tree.

use std::collections::BTreeMap;

use pvc_core::{
    command::{Roster, find},
    model::{ClusterView, Entry, Node, NodeName, Problem, Vm, VmId},
};
use pvc_store::{
    Store, StoreError,
    schema::{maintenance, node, vm},
};

mod runners;
mod view;

pub use runners::Runners;
pub(crate) use runners::{runners, said_last};
pub(crate) use view::Looked;

use crate::{Cluster, Failure, watched::Figures};

/// All nodes.
#[derive(Debug, Default)]
pub struct Nodes {
    /// By name.
    pub all: Vec<Node>,
    /// Keys below `/nodes` that are no node's name, each with what is wrong with it.
    pub strays: Vec<(String, Problem)>,
    /// Whether maintenance is on.
    pub maintenance: bool,
}

/// A silence worth a word, or so many of the node's intervals. It is a hint for people and by two clocks; nothing is ever decided from it.
const SUSPICIOUS_S: u64 = 30;
const SUSPICIOUS_INTERVALS: u64 = 3;

/// What to say of a silent node.
pub fn silence_words(silence_s: u64) -> String {
    format!("nothing has been heard of its daemon for {silence_s} s (by its clock and this machine's)")
}

impl Nodes {
    /// The nodes of a view.
    pub fn of(view: &ClusterView) -> Self {
        let below = format!("{}/", node::ROOT);
        let name = |stray: &Problem| Some((stray.key.strip_prefix(&below)?.to_owned(), stray.clone()));
        Self {
            all: view.all_nodes().cloned().collect(),
            strays: view.strays.iter().filter_map(name).collect(),
            maintenance: view.maintenance,
        }
    }

    /// For how long nothing has been heard of a node whose daemon should be running, in seconds; `None` if all is well.
    pub fn silent_s(&self, name: &NodeName, now_unix_s: u64) -> Option<u64> {
        let node = self.get(name)?;
        let heard = node.report.keepalive_unix_s;
        let expected = node.should_speak() && heard > 0;
        let silence = now_unix_s.saturating_sub(heard);
        let own = node.keepalive_interval.map_or(0, |interval| interval.as_secs());
        (expected && silence > SUSPICIOUS_S.max(own * SUSPICIOUS_INTERVALS)).then_some(silence)
    }

    /// The nodes that should be heard of and are not, and for how many seconds.
    pub fn silent(&self, now_unix_s: u64) -> BTreeMap<NodeName, u64> {
        let silent = |node: &Node| Some((node.name.clone(), self.silent_s(&node.name, now_unix_s)?));
        self.all.iter().filter_map(silent).collect()
    }

    /// The node of that name.
    pub fn get(&self, name: &NodeName) -> Option<&Node> {
        self.all.iter().find(|node| node.name == *name)
    }

    /// The node an operator means.
    pub fn find(&self, reference: &str) -> Result<&Node, Failure> {
        if let Some((_, problem)) = self.strays.iter().find(|(name, _)| name == reference) {
            return Err(Failure::unreadable(&format!("node {reference}"), std::slice::from_ref(problem)));
        }
        Ok(find::node(self.all.iter(), reference)?)
    }
}

/// One VM of a list: what it is called, and the VM or what is wrong with it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) id: VmId,
    pub(crate) name: String,
    pub(crate) entry: Entry<Vm>,
}

/// What a list needs to know.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) vms: Vec<Listed>,
    /// Keys below `/domains` that are no VMs.
    pub(crate) strays: Vec<Problem>,
}

impl Cluster {
    fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Reads all nodes.
    pub async fn nodes(&self) -> Result<Nodes, Failure> {
        if let Some(view) = self.known(Figures::Newest).await? {
            return Ok(Nodes::of(&view));
        }
        let mut children = self.children(node::ROOT).await?;
        children.sort_unstable();
        let mut nodes = Nodes::default();
        let switch = self.store.get(maintenance::MAINTENANCE).await?;
        nodes.maintenance = maintenance::decode(switch.as_ref()).0;
        let mut names: Vec<NodeName> = Vec::with_capacity(children.len());
        for child in children {
            match child.parse() {
                Ok(name) => names.push(name),
                Err(e) => nodes.strays.push((child.clone(), problem(node::ROOT, &child, &e))),
            }
        }
        let paths: Vec<Vec<String>> = names.iter().map(node::paths).collect();
        let values = match self.store.get_many(&paths.concat()).await {
            // One that may not be read costs nobody else.
            Err(StoreError::Refused { .. }) => {
                for name in &names {
                    nodes.all.extend(node::read(self.store(), name).await?);
                }
                return Ok(nodes);
            }
            values => values?,
        };
        let mut values = values.into_iter();
        for (name, paths) in names.iter().zip(paths) {
            let values: Vec<_> = values.by_ref().take(paths.len()).collect();
            // None: it was deleted between the two requests.
            nodes.all.extend(node::decode(name, &values));
        }
        Ok(nodes)
    }

    /// Reads the names of all VMs.
    pub async fn roster(&self) -> Result<Roster, Failure> {
        if let Some(view) = self.known(Figures::Any).await? {
            return Ok(Roster::of(&view));
        }
        let ids: Vec<VmId> = vm::ids(&self.children(vm::ROOT).await?).0.into_iter().collect();
        let paths: Vec<String> = ids.iter().map(|&id| vm::path(id)).collect();
        let values = self.store.get_many(&paths).await?;
        let named = |(id, value)| Some((id, vm::decode(id, &[value], None)?.good()?.name.to_string()));
        Ok(ids.into_iter().zip(values).filter_map(named).collect())
    }

    /// Reads what the list of VMs shows: the first four keys of each, or with `reasons` why they failed, too.
    pub(crate) async fn listing(&self, reasons: bool) -> Result<Listing, Failure> {
        let keys = if reasons { 5 } else { 4 };
        let (ids, strays) = vm::ids(&self.children(vm::ROOT).await?);
        let ids: Vec<VmId> = ids.into_iter().collect();
        let mut listing = Listing { strays, ..Listing::default() };
        let paths: Vec<String> = ids.iter().flat_map(|&id| vm::paths(id).into_iter().take(keys)).collect();
        let values = self.store.get_many(&paths).await?;
        for (&id, values) in ids.iter().zip(values.chunks(keys)) {
            let Some(entry) = vm::decode(id, values, None) else { continue };
            let name = entry.good().map(|vm| vm.name.to_string()).unwrap_or_default();
            listing.vms.push(Listed { id, name, entry });
        }
        listing.vms.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        Ok(listing)
    }

    /// Finds the VM an operator means.
    pub async fn find_vm(&self, reference: &str) -> Result<VmId, Failure> {
        Ok(self.roster().await?.find(reference)?)
    }

    /// Reads a VM that is known to have existed a moment ago.
    pub(crate) async fn entry(&self, id: VmId) -> Result<Entry<Vm>, Failure> {
        if let Some(view) = self.known(Figures::Any).await? {
            return view.vms.get(&id).map(|entry| (**entry).clone()).ok_or_else(|| Failure::gone(id));
        }
        vm::read(self.store(), id).await?.ok_or_else(|| Failure::gone(id))
    }

    /// Reads a VM that must be in order.
    pub async fn vm(&self, id: VmId) -> Result<Vm, Failure> {
        match self.entry(id).await? {
            Entry::Good(vm) => Ok(vm),
            Entry::Bad(problems) => Err(Failure::unreadable(&format!("VM {id}"), &problems)),
        }
    }

    /// Reads a VM's definition.
    pub(crate) async fn xml(&self, id: VmId) -> Result<Option<String>, Failure> {
        Ok(vm::read_xml(self.store(), id).await?.map(|(xml, _)| xml))
    }
}

fn problem(root: &str, child: &str, e: &pvc_core::model::NameError) -> Problem {
    Problem { key: format!("{root}/{child}"), what: e.to_string() }
}
