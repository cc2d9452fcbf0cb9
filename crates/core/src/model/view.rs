//! A consistent-enough snapshot of the state tree. It may lag behind; every write is checked against versions instead.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    claim::Claim,
    entry::{Entry, Field, Problem},
    fence::Fence,
    name::{NodeName, VmName},
    network::{Network, Overlay, Vni},
    node::Node,
    vm::Vm,
    vm_id::VmId,
};

/// The cluster as last read. Cheap to clone; its parts are shared.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    /// By name.
    pub nodes: Arc<BTreeMap<NodeName, Arc<Node>>>,
    /// By UUID.
    pub vms: Arc<BTreeMap<VmId, Arc<Entry<Vm>>>>,
    /// `/pvc/claim` of those that are not in `/domains`: what a client deleted may still be executing.
    pub orphan_claims: Arc<BTreeMap<VmId, Arc<Entry<Field<Claim>>>>>,
    /// `/primary_node`: desired state and fact; `None` = `none`.
    pub primary_node: Field<Option<NodeName>>,
    /// `/pvc/primary`: who holds the floating addresses and what goes with them; ephemeral.
    pub primary_holder: Option<NodeName>,
    /// `/pvc/fence`: by the node that is fenced.
    pub fences: Arc<BTreeMap<NodeName, Entry<Fence>>>,
    /// `/pvc/maintenance`: `on` suspends fencing and disarms watchdogs.
    pub maintenance: bool,
    /// Version of `/pvc/placement`, which every placement moves: two placements never count the same free memory.
    pub placement_version: Option<i32>,
    /// Keys whose names are no object's (a non-UUID below `/domains` …).
    pub strays: Arc<Vec<Problem>>,
    /// By number.
    pub networks: Arc<BTreeMap<Vni, Arc<Network>>>,
    /// `/pvc/overlay`.
    pub overlay: Overlay,
}

impl Entry<Vm> {
    /// What is wrong with its keys.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Good(vm) => &vm.problems,
            Self::Bad(problems) => problems,
        }
    }
}

impl ClusterView {
    /// The readable VM of that id.
    pub fn vm(&self, id: VmId) -> Option<&Vm> {
        self.vms.get(&id)?.good()
    }

    /// The readable VMs of that name. More than one is possible: nothing in the tree forbids it.
    pub fn vms_named<'a>(&'a self, name: &'a VmName) -> impl Iterator<Item = &'a Vm> {
        self.good_vms().filter(move |vm| vm.name == *name)
    }

    /// All readable VMs, by id.
    pub fn good_vms(&self) -> impl Iterator<Item = &Vm> {
        self.vms.values().filter_map(|e| e.good())
    }

    /// The readable claim on a VM that is not in the tree.
    pub fn orphan_claim(&self, id: VmId) -> Option<&Field<Claim>> {
        self.orphan_claims.get(&id)?.good()
    }

    /// The node of that name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name).map(Arc::as_ref)
    }

    /// All nodes, by name.
    pub fn all_nodes(&self) -> impl Iterator<Item = &Node> + Clone {
        self.nodes.values().map(Arc::as_ref)
    }
}
