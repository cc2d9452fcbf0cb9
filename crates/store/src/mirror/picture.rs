//! The view that is being made: what was read goes in, what differs comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use pvc_core::model::{Claim, ClusterView, Entry, Fence, Field, Node, NodeName, Problem, Subject, Vm, VmId};

use super::dirty::Root;

/// All subjects of a view.
pub(super) fn subjects(view: &ClusterView) -> impl Iterator<Item = Subject> {
    let nodes = view.nodes.keys().cloned().map(Subject::Node);
    let vms = view.vms.keys().chain(view.orphan_claims.keys()).copied().map(Subject::Vm);
    let fences = view.fences.keys().cloned().map(Subject::Fence);
    let primary = view.primary_node.value.is_some() || view.primary_holder.is_some();
    let cluster = view.maintenance.then_some(Subject::Cluster);
    nodes.chain(vms).chain(fences).chain(primary.then_some(Subject::Primary)).chain(cluster)
}

/// The writer's copy of the view; its parts are shared with the published one until they change.
#[derive(Debug, Default)]
pub(super) struct ViewBuilder {
    view: ClusterView,
    strays: BTreeMap<Root, Vec<Problem>>,
    changed: BTreeSet<Subject>,
    /// Something differs that is no subject's.
    otherwise: bool,
}

impl ViewBuilder {
    pub(super) fn view(&self) -> &ClusterView {
        &self.view
    }

    /// What has changed since the last call, if anything: the new view and the subjects that differ.
    pub(super) fn take_changes(&mut self) -> Option<(ClusterView, BTreeSet<Subject>)> {
        let changed = std::mem::take(&mut self.changed);
        let otherwise = std::mem::take(&mut self.otherwise);
        (otherwise || !changed.is_empty()).then(|| (self.view.clone(), changed))
    }

    pub(super) fn set_node(&mut self, name: &NodeName, node: Option<Node>) {
        let before = self.view.nodes.get(name).cloned();
        if put(&mut self.view.nodes, name, node) {
            match (before, self.view.nodes.get(name)) {
                (Some(before), Some(now)) => {
                    self.changed.extend(said(&before, now).then(|| Subject::Keepalive(name.clone())));
                    self.changed.extend(became(&before, now).then(|| Subject::Node(name.clone())));
                }
                _ => drop(self.changed.insert(Subject::Node(name.clone()))),
            }
        }
    }

    pub(super) fn set_vm(&mut self, id: VmId, entry: Option<Entry<Vm>>) {
        if put(&mut self.view.vms, &id, entry) {
            self.changed.insert(Subject::Vm(id));
        }
    }

    pub(super) fn set_orphan_claim(&mut self, id: VmId, entry: Option<Entry<Field<Claim>>>) {
        if put(&mut self.view.orphan_claims, &id, entry) {
            self.changed.insert(Subject::Vm(id));
        }
    }

    pub(super) fn set_primary(&mut self, node: Field<Option<NodeName>>, problem: Option<Problem>) {
        if self.view.primary_node != node {
            self.view.primary_node = node;
            self.changed.insert(Subject::Primary);
        }
        self.set_strays(Root::Primary, problem.into_iter().collect());
    }

    pub(super) fn set_holder(&mut self, holder: Option<NodeName>) {
        if self.view.primary_holder != holder {
            self.view.primary_holder = holder;
            self.changed.insert(Subject::Primary);
        }
    }

    pub(super) fn set_maintenance(&mut self, on: bool, problem: Option<Problem>) {
        if self.view.maintenance != on {
            self.view.maintenance = on;
            self.changed.insert(Subject::Cluster);
        }
        self.set_strays(Root::Maintenance, problem.into_iter().collect());
    }

    pub(super) fn set_placement(&mut self, version: Option<i32>) {
        self.otherwise |= self.view.placement_version != version;
        self.view.placement_version = version;
    }

    pub(super) fn set_fences(&mut self, fences: BTreeMap<NodeName, Entry<Fence>>) {
        let names: BTreeSet<&NodeName> = self.view.fences.keys().chain(fences.keys()).collect();
        let differ = |name: &&&NodeName| self.view.fences.get(**name) != fences.get(**name);
        let changed: Vec<Subject> =
            names.iter().filter(differ).map(|name| Subject::Fence((*name).clone())).collect();
        if !changed.is_empty() {
            self.changed.extend(changed);
            self.view.fences = Arc::new(fences);
        }
    }

    pub(super) fn set_networks_count(&mut self, count: u64) {
        self.otherwise |= self.view.networks_count != count;
        self.view.networks_count = count;
    }

    /// Whether something is wrong with the names below a root.
    pub(super) fn has_strays(&self, root: Root) -> bool {
        self.strays.get(&root).is_some_and(|strays| !strays.is_empty())
    }

    /// Replaces what is wrong with the names below a root.
    pub(super) fn set_strays(&mut self, root: Root, mut problems: Vec<Problem>) {
        problems.sort_by(|a, b| a.key.cmp(&b.key));
        if self.strays.get(&root).map_or(&[][..], Vec::as_slice) == problems {
            return;
        }
        self.strays.insert(root, problems);
        self.view.strays = Arc::new(self.strays.values().flatten().cloned().collect());
        self.otherwise = true;
    }
}

/// A key below a root that is no object's.
pub(super) fn stray(root: Root, name: &str, why: impl Display) -> Problem {
    Problem { key: format!("{}/{name}", root.path()), what: why.to_string() }
}

/// Whether a keepalive is what makes these two differ, or part of it.
fn said(before: &Node, now: &Node) -> bool {
    before.keepalive_version != now.keepalive_version
        || before.keepalive_zxid != now.keepalive_zxid
        || before.report != now.report
        || before.last_word != now.last_word
}

/// Whether these two differ in more than what a keepalive says.
fn became(before: &Node, now: &Node) -> bool {
    let (report, last_word) = (now.report.clone(), now.last_word.clone());
    let (keepalive_version, keepalive_zxid) = (now.keepalive_version, now.keepalive_zxid);
    Node { report, last_word, keepalive_version, keepalive_zxid, ..before.clone() } != *now
}

/// Puts or removes an entry; false if that made no difference.
fn put<K: Ord + Clone, T: Clone + PartialEq>(
    map: &mut Arc<BTreeMap<K, Arc<T>>>,
    key: &K,
    entry: Option<T>,
) -> bool {
    if map.get(key).map(Arc::as_ref) == entry.as_ref() {
        return false;
    }
    let map = Arc::make_mut(map);
    match entry {
        Some(entry) => map.insert(key.clone(), Arc::new(entry)),
        None => map.remove(key),
    };
    true
}
