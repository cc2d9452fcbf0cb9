//! How much memory of which node is spoken for, and which node has room for one more VM.
//!
//! A VM counts where its desired state keeps it and where it is claimed, so one that migrates counts at both ends. Whoever acts on a
//! choice writes it together with `/pvc/placement` in the version of the view that was counted (`placement_version`): of
//! two placements that counted the same memory as free, one conflicts and counts again. Within one view, further
//! placements are counted by [`ClusterCapacity::reserve`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    Selector,
    fitness::{Asker, Unfit, is_being_fenced, reasons},
};
use crate::{
    model::{ClusterView, DomainSpec, Node, NodeName, Vm, VmId, VmKey, VmState},
    sabotage::{self, Bug},
};

/// What a VM takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Whether it has RBD disks: a node that does not manage storage shuts no earlier run of it out of them.
    pub needs_storage: bool,
}

impl From<&DomainSpec> for Size {
    fn from(spec: &DomainSpec) -> Self {
        Self { memory_mib: spec.memory_mib, vcpus: spec.vcpus, needs_storage: !spec.rbd_images.is_empty() }
    }
}

/// The sizes of the VMs that were read. One that is missing counts with nothing but what its node reports.
pub type Sizes = BTreeMap<VmId, Size>;

/// The nodes that a VM's memory is kept for: where its desired state has it, and where it may be executing.
pub fn kept_on(vm: &Vm) -> BTreeSet<&NodeName> {
    let desired =
        matches!(vm.state.value, VmState::Start | VmState::Restart | VmState::Shutdown | VmState::Migrate);
    vm.claim.value.iter().chain(desired.then_some(&vm.node.value)).collect()
}

/// Why no node takes a VM: each node's reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoCapacity(pub Vec<(NodeName, Unfit)>);

impl NoCapacity {
    /// Whether some node would take it as soon as a migration there ends.
    pub fn is_busy(&self) -> bool {
        self.0.iter().any(|(_, unfit)| *unfit == Unfit::Busy)
    }
}

impl fmt::Display for NoCapacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no node can take it")?;
        let told = self.0.iter().filter(|(_, unfit)| *unfit != Unfit::Excluded);
        for (i, (node, unfit)) in told.enumerate() {
            write!(f, "{} {node} {unfit}", if i == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

/// What is spoken for on one node.
#[derive(Debug, Clone)]
struct NodeCapacity {
    /// What speaks against it besides memory.
    reasons: Vec<Unfit>,
    /// Whether it manages storage, if it has said.
    storage: Option<bool>,
    total_mib: u64,
    /// What its VMs have, as it last reported.
    reported_mib: u64,
    reserved_mib: u64,
    vcpus: u64,
    load: f64,
    vms: BTreeSet<VmId>,
}

impl NodeCapacity {
    /// Memory that is spoken for. A VM whose definition cannot be read still counts if it runs: the node reports it.
    fn taken_mib(&self) -> u64 {
        self.reserved_mib.max(self.reported_mib)
    }

    fn free_mib(&self) -> u64 {
        self.total_mib.saturating_sub(self.taken_mib())
    }

    fn has_memory(&self, vm: VmId, size: Size) -> Result<(), Unfit> {
        let free_mib = self.free_mib();
        // What is counted here already needs no more.
        if self.vms.contains(&vm) || size.memory_mib <= free_mib {
            return Ok(());
        }
        Err(Unfit::Memory { free_mib, needed_mib: size.memory_mib })
    }

    fn reserve(&mut self, vm: VmId, size: Size) {
        if !sabotage::commits(Bug::IgnoreReservations) && self.vms.insert(vm) {
            self.reserved_mib = self.reserved_mib.saturating_add(size.memory_mib);
            self.vcpus += u64::from(size.vcpus);
        }
    }
}

/// Every node's room, as one view has it, and what was reserved on top.
#[derive(Debug, Clone)]
pub struct ClusterCapacity {
    capacity: BTreeMap<NodeName, NodeCapacity>,
}

impl ClusterCapacity {
    /// Counts. `silent` are the nodes whose keepalives the caller misses.
    pub fn count(view: &ClusterView, sizes: &Sizes, silent: &BTreeSet<NodeName>) -> Self {
        let capacity = |node: &Node| {
            let name = &node.name;
            let report = &node.report;
            let capacity = NodeCapacity {
                reasons: reasons(node, is_being_fenced(view, name), silent.contains(name)),
                storage: node.storage,
                total_mib: report.mem_total_mib,
                reported_mib: report.mem_alloc_mib,
                reserved_mib: 0,
                vcpus: 0,
                load: report.cpu_load,
                vms: BTreeSet::new(),
            };
            (name.clone(), capacity)
        };
        let mut capacity = Self { capacity: view.all_nodes().map(capacity).collect() };
        for vm in view.good_vms() {
            let size = sizes.get(&vm.id).copied().unwrap_or_default();
            // Of a claim that nobody can read the nodes say who executes the VM.
            let reports = |node: &&Node| vm.cannot_read(VmKey::Claim) && node.report.running.contains(&vm.id);
            let executes = view.all_nodes().filter(reports).map(|node| &node.name);
            for node in kept_on(vm).into_iter().chain(executes) {
                if let Some(capacity) = capacity.capacity.get_mut(node) {
                    capacity.reserve(vm.id, size);
                }
            }
        }
        capacity
    }

    /// The node for a VM: one that takes VMs, has room and is not excluded; of these the one with least of what the
    /// selector compares, then the first by name. What is lasting is told before what passes, such as [`Unfit::Busy`].
    ///
    /// # Errors
    /// Each node's reason, if there is none.
    pub fn choose(
        &self,
        vm: VmId,
        size: Size,
        selector: Selector,
        excluded: impl Fn(&NodeName) -> Option<Unfit>,
    ) -> Result<NodeName, NoCapacity> {
        let mut best: Option<(&NodeName, &NodeCapacity)> = None;
        let mut refused = Vec::new();
        for (name, capacity) in &self.capacity {
            let unfit = match excluded(name) {
                Some(Unfit::Excluded) => Err(Unfit::Excluded),
                excluded => self.admits(name, vm, size).and_then(|()| excluded.map_or(Ok(()), Err)),
            };
            match unfit {
                Err(unfit) => refused.push((name.clone(), unfit)),
                Ok(()) if best.is_none_or(|(_, other)| selector.orders(capacity, other)) => {
                    best = Some((name, capacity));
                }
                Ok(()) => {}
            }
        }
        best.map(|(name, _)| name.clone()).ok_or(NoCapacity(refused))
    }

    /// Whether a node takes a VM.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, node: &NodeName, vm: VmId, size: Size) -> Result<(), Unfit> {
        self.ask(Asker::Placement, node, vm, size)
    }

    /// Whether a node can take a VM back that came from it: it can start VMs and has memory for this one, whatever its state.
    ///
    /// # Errors
    /// Why not.
    pub fn takes_back(&self, node: &NodeName, vm: VmId, size: Size) -> Result<(), Unfit> {
        self.ask(Asker::Return, node, vm, size)
    }

    fn ask(&self, asker: Asker, node: &NodeName, vm: VmId, size: Size) -> Result<(), Unfit> {
        let capacity = self.capacity.get(node).ok_or(Unfit::Unknown)?;
        asker.first(&capacity.reasons)?;
        if size.needs_storage && capacity.storage == Some(false) {
            return Err(Unfit::NoStorage);
        }
        capacity.has_memory(vm, size)
    }

    /// Counts a VM on a node from now on.
    pub fn reserve(&mut self, node: &NodeName, vm: VmId, size: Size) {
        if let Some(capacity) = self.capacity.get_mut(node)
            && !capacity.vms.contains(&vm)
        {
            capacity.reserve(vm, size);
            // It has not run there yet, so no load average knows of it.
            capacity.load += f64::from(size.vcpus);
        }
    }

    /// Memory of a node that is not spoken for, MiB.
    pub fn free_mib(&self, node: &NodeName) -> u64 {
        self.capacity.get(node).map_or(0, NodeCapacity::free_mib)
    }

    /// Memory of a node that is kept for VMs, MiB.
    pub fn reserved_mib(&self, node: &NodeName) -> u64 {
        self.capacity.get(node).map_or(0, |capacity| capacity.reserved_mib)
    }
}

impl Selector {
    /// Whether `a` has less than `b` of what the selector compares.
    fn orders(self, a: &NodeCapacity, b: &NodeCapacity) -> bool {
        match self {
            Self::Mem => a.taken_mib() < b.taken_mib(),
            Self::Vcpus => a.vcpus < b.vcpus,
            Self::Load => a.load.total_cmp(&b.load).is_lt(),
            Self::Vms => a.vms.len() < b.vms.len(),
        }
    }
}
