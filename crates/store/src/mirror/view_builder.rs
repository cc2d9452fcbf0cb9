//! The view that is being made: what was read goes in, what differs comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pvc_core::model::{Claim, ClusterView, Entry, Field, Node, NodeName, Problem, Subject, Vm, VmId};

use super::objects::Objects;
use crate::{
    Value,
    schema::{maintenance, overlay, primary, root, text::field},
};

/// The writer's copy of the view; its parts are shared with the published one until they change.
#[derive(Debug, Default)]
pub(super) struct ViewBuilder {
    view: ClusterView,
    /// By the root below which they are.
    strays: BTreeMap<&'static str, Vec<Problem>>,
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

    /// Puts, changes or removes an object of a kind that is nothing more.
    pub(super) fn set<K: Objects>(&mut self, id: K::Id, object: Option<K::Object>) {
        if K::map(&self.view).get(&id) == object.as_ref() {
            return;
        }
        let map = Arc::make_mut(K::map_mut(&mut self.view));
        match object {
            Some(object) => map.insert(id.clone(), object),
            None => map.remove(&id),
        };
        self.changed.insert(K::subject(id));
    }

    pub(super) fn set_primary(&mut self, value: Option<&Value>) {
        let (node, problem) = match root::decode_primary(value) {
            Ok(node) => (field(node, value), None),
            Err(problem) => (field(None, value), Some(problem)),
        };
        if self.view.primary_node != node {
            self.view.primary_node = node;
            self.changed.insert(Subject::Primary);
        }
        self.set_stray(primary::PRIMARY_NODE, problem);
    }

    pub(super) fn set_holder(&mut self, value: Option<&Value>) {
        let holder = primary::decode_holder(value);
        if self.view.primary_holder != holder {
            self.view.primary_holder = holder;
            self.changed.insert(Subject::Primary);
        }
    }

    pub(super) fn set_maintenance(&mut self, value: Option<&Value>) {
        let (on, problem) = maintenance::decode(value);
        if self.view.maintenance != on {
            self.view.maintenance = on;
            self.changed.insert(Subject::Cluster);
        }
        self.set_stray(maintenance::MAINTENANCE, problem);
    }

    pub(super) fn set_overlay(&mut self, value: Option<&Value>) {
        let (overlay, problem) = overlay::decode(value);
        if self.view.overlay != overlay {
            self.view.overlay = overlay;
            self.changed.insert(Subject::Cluster);
        }
        self.set_stray(overlay::OVERLAY, problem);
    }

    pub(super) fn set_placement(&mut self, version: Option<i32>) {
        self.otherwise |= self.view.placement_version != version;
        self.view.placement_version = version;
    }

    fn set_stray(&mut self, root: &'static str, problem: Option<Problem>) {
        self.set_strays(root, problem.into_iter().collect());
    }

    /// Whether something is wrong with the names below a root.
    pub(super) fn has_strays(&self, root: &str) -> bool {
        self.strays.get(root).is_some_and(|strays| !strays.is_empty())
    }

    /// Replaces what is wrong with the names below a root.
    pub(super) fn set_strays(&mut self, root: &'static str, mut problems: Vec<Problem>) {
        problems.sort_by(|a, b| a.key.cmp(&b.key));
        if self.strays.get(root).map_or(&[][..], Vec::as_slice) == problems {
            return;
        }
        self.strays.insert(root, problems);
        self.view.strays = Arc::new(self.strays.values().flatten().cloned().collect());
        self.otherwise = true;
    }
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
