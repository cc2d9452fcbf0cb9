//! Reads what a command needs and no more: a few requests with many keys each, no mirror of the whole tree.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use pvc_core::{
    command::{self, Refusal, RefusalKind, Roster, find},
    model::{Claim, ClusterView, DaemonState, Entry, Field, Halt, Node, NodeName, Problem, Vm, VmId},
    plan::vm::last_words,
};
use pvc_store::{
    Children, Store, StoreError,
    schema::{maintenance, node, vm},
};

mod view;

use crate::{connect::Connection, failure::Failure};

/// All nodes.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    /// By name.
    pub(crate) all: Vec<Node>,
    /// Keys below `/nodes` that are no node's name, each with what is wrong with it.
    pub(crate) strays: Vec<(String, Problem)>,
    /// When they were read, by this machine's clock.
    now_unix_s: u64,
    /// Whether maintenance is on.
    pub(crate) maintenance: bool,
}

/// Who reports to be running a VM.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Runners {
    /// Nodes whose daemons work.
    pub(crate) now: Vec<NodeName>,
    /// Nodes whose daemons said so before they stopped.
    pub(crate) before: Vec<NodeName>,
    /// Why it does not execute on one of the first, if so.
    pub(crate) halted: Option<(NodeName, Halt)>,
}

impl Runners {
    /// Names for people: those that are only remembered with a question mark, nobody as `-`.
    pub(crate) fn words(&self) -> String {
        let now = self.now.iter().map(|node| match &self.halted {
            Some((on, halt)) if on == node => format!("{node} ({halt})"),
            _ => node.to_string(),
        });
        let names: Vec<String> = now.chain(self.before.iter().map(|node| format!("{node}?"))).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(",") }
    }
}

impl Runners {
    /// The same, without what a claim has answered since: who said before that it runs it was proven dead, or has released it.
    pub(crate) fn unanswered(mut self, view: &ClusterView, id: VmId, claim: &Field<Claim>) -> Self {
        let stands = |node: &NodeName| {
            claim.value.names(node) || last_words(view, id, claim).any(|other| other == node)
        };
        self.before.retain(stands);
        self
    }
}

/// A silence worth a word, or so many of the node's intervals. It is a hint for people and by two clocks; nothing is ever decided from it.
const SUSPICIOUS_S: u64 = 30;
const SUSPICIOUS_INTERVALS: u64 = 3;

/// What to say of a silent node.
pub(crate) fn silent(silence_s: u64) -> String {
    format!("nothing has been heard of its daemon for {silence_s} s (by its clock and this machine's)")
}

impl Nodes {
    /// Who runs what, as far as the nodes report it.
    pub(crate) fn runners(&self) -> BTreeMap<VmId, Runners> {
        let mut all: BTreeMap<VmId, Runners> = BTreeMap::new();
        for node in &self.all {
            for id in node.report.running.iter().collect::<BTreeSet<_>>() {
                let runners = all.entry(*id).or_default();
                match node.daemon_state.value {
                    DaemonState::Run => {
                        runners.now.push(node.name.clone());
                        let halt = node.report.halt(*id).map(|halt| (node.name.clone(), halt));
                        runners.halted = runners.halted.take().or(halt);
                    }
                    // Guests go on without the daemon.
                    DaemonState::Init | DaemonState::Shutdown | DaemonState::Stop => {
                        runners.before.push(node.name.clone());
                    }
                    // They ended with the node.
                    DaemonState::Dead => {}
                }
            }
        }
        all
    }

    /// For how long nothing has been heard of a node whose daemon should be running, in seconds; `None` if all is well.
    pub(crate) fn silent_s(&self, name: &NodeName) -> Option<u64> {
        let node = self.get(name)?;
        let heard = node.report.keepalive_unix_s;
        let expected = node.should_speak() && heard > 0;
        let silence = self.now_unix_s.saturating_sub(heard);
        let own = node.keepalive_interval.map_or(0, |interval| interval.as_secs());
        (expected && silence > SUSPICIOUS_S.max(own * SUSPICIOUS_INTERVALS)).then_some(silence)
    }

    /// A line above everything, if something about the whole cluster is out of the ordinary.
    pub(crate) fn banner(&self) -> String {
        if self.maintenance { format!("! {}\n", command::cluster::MAINTENANCE) } else { String::new() }
    }

    /// A line about each node that is silent.
    pub(crate) fn silences(&self) -> Vec<String> {
        let line = |node: &Node| {
            let silence = self.silent_s(&node.name)?;
            Some(format!("! {}: {}", node.name, silent(silence)))
        };
        self.all.iter().filter_map(line).collect()
    }

    /// The node of that name.
    pub(crate) fn get(&self, name: &NodeName) -> Option<&Node> {
        self.all.iter().find(|node| node.name == *name)
    }

    /// The node an operator means.
    pub(crate) fn find(&self, reference: &str) -> Result<&Node, Failure> {
        if let Some((_, problem)) = self.strays.iter().find(|(name, _)| name == reference) {
            return Err(unreadable(&format!("node {reference}"), std::slice::from_ref(problem)));
        }
        Ok(find::node(self.all.iter(), reference)?)
    }
}

/// One VM of a list: its name as found, and the VM or what is wrong with it.
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

impl Connection {
    fn store(&self) -> &dyn Store {
        &*self.store
    }

    async fn children(&self, root: &str) -> Result<Children, Failure> {
        let children = self.store.children(root).await?;
        children.ok_or_else(|| Failure::Uninitialised { addresses: self.addresses.clone() })
    }

    /// Reads all nodes.
    pub(crate) async fn nodes(&self) -> Result<Nodes, Failure> {
        let mut children = self.children(node::ROOT).await?;
        children.sort_unstable();
        let mut nodes = Nodes { now_unix_s: now_unix_s(), ..Nodes::default() };
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
    pub(crate) async fn roster(&self) -> Result<Roster, Failure> {
        let ids: Vec<VmId> = vm::ids(&self.children(vm::ROOT).await?).0.into_iter().collect();
        let paths: Vec<String> = ids.iter().map(|&id| vm::path(id)).collect();
        let values = self.store.get_many(&paths).await?;
        let named = ids.into_iter().zip(values).filter_map(|(id, value)| Some((id, text(&value?.data))));
        Ok(named.collect())
    }

    /// Reads what the list of VMs shows: the first four keys of each.
    pub(crate) async fn listing(&self) -> Result<Listing, Failure> {
        const KEYS: usize = 4;
        let (ids, strays) = vm::ids(&self.children(vm::ROOT).await?);
        let ids: Vec<VmId> = ids.into_iter().collect();
        let mut listing = Listing { strays, ..Listing::default() };
        let paths: Vec<String> = ids.iter().flat_map(|&id| vm::paths(id).into_iter().take(KEYS)).collect();
        let values = self.store.get_many(&paths).await?;
        for (&id, values) in ids.iter().zip(values.chunks(KEYS)) {
            let (Some(Some(own)), Some(entry)) = (values.first(), vm::decode(id, values, None)) else {
                continue;
            };
            listing.vms.push(Listed { id, name: text(&own.data), entry });
        }
        listing.vms.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        Ok(listing)
    }

    /// Finds the VM an operator means.
    pub(crate) async fn find_vm(&self, reference: &str) -> Result<VmId, Failure> {
        Ok(self.roster().await?.find(reference)?)
    }

    /// Reads a VM that is known to have existed a moment ago.
    pub(crate) async fn entry(&self, id: VmId) -> Result<Entry<Vm>, Failure> {
        vm::read(self.store(), id).await?.ok_or_else(|| gone(id).into())
    }

    /// Reads a VM that must be in order.
    pub(crate) async fn vm(&self, id: VmId) -> Result<Vm, Failure> {
        match self.entry(id).await? {
            Entry::Good(vm) => Ok(vm),
            Entry::Bad(problems) => Err(unreadable(&format!("VM {id}"), &problems)),
        }
    }

    /// Reads a VM's definition.
    pub(crate) async fn xml(&self, id: VmId) -> Result<Option<String>, Failure> {
        Ok(vm::read_xml(self.store(), id).await?.map(|(xml, _)| xml))
    }
}

/// This machine's clock.
pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A VM that was there a moment ago.
pub(crate) fn gone(id: VmId) -> Refusal {
    Refusal {
        kind: RefusalKind::NotFound,
        what: format!("VM {id} is gone"),
        why: "somebody has undefined it meanwhile".into(),
        todo: "`pvc vm list` shows all VMs".into(),
    }
}

fn unreadable(what: &str, problems: &[Problem]) -> Failure {
    let list: Vec<String> = problems.iter().map(Problem::to_string).collect();
    Failure::Failed(format!("{what} is not in order, so nothing is done with it: {}", list.join("; ")))
}

fn problem(root: &str, child: &str, e: &pvc_core::model::NameError) -> Problem {
    Problem { key: format!("{root}/{child}"), what: e.to_string() }
}

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}
