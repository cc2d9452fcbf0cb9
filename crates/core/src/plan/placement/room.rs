//! How much memory of which node is spoken for, and which node has room for one more VM.
//!
//! A VM counts where its wish keeps it and where it is claimed, so one that migrates counts at both ends. Whoever acts on a
//! choice writes it together with `/pvc/placement` in the version of the view that was counted (`placement_version`): of
//! two placements that counted the same memory as free, one conflicts and counts again. Within one view, further
//! placements are counted by [`Rooms::reserve`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::Selector;
use crate::{
    model::{ClusterView, DaemonState, DomainState, Entry, FenceStep, Node, NodeName, Vm, VmId, VmState},
    sabotage::{self, Bug},
};

/// What a VM takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Virtual CPUs.
    pub vcpus: u32,
}

/// The sizes of the VMs that were read. One that is missing counts with nothing but what its node reports.
pub type Sizes = BTreeMap<VmId, Size>;

/// The nodes that a VM's memory is kept for: where its wish has it, and where it may be executing.
pub fn kept_on(vm: &Vm) -> BTreeSet<&NodeName> {
    let wished =
        matches!(vm.state.value, VmState::Start | VmState::Restart | VmState::Shutdown | VmState::Migrate);
    vm.claim.value.iter().chain(wished.then_some(&vm.node.value)).collect()
}

/// Why a node cannot take a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// The asker excludes it: the VM is there, or shall leave it.
    Excluded,
    /// It could not start the VM.
    Refused,
    /// As many migrations go on as the asker allows.
    Busy,
    /// Its keys cannot be read.
    Unreadable,
    /// It has not been heard of for too long.
    Silent,
    /// It is being fenced.
    Fenced,
    /// Its daemon does not work.
    Daemon(DaemonState),
    /// It can start no VMs now, as it says, for this reason.
    Hypervisor(String),
    /// It takes no VMs now.
    Domains(DomainState),
    /// Its memory is spoken for.
    Memory {
        /// What is left of it, MiB.
        free_mib: u64,
        /// What the VM needs, MiB.
        needed_mib: u64,
    },
    /// There is no such node.
    Unknown,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded => f.write_str("is the one that it leaves"),
            Self::Refused => f.write_str("could not start it"),
            Self::Busy => f.write_str("takes in as many at once as it may"),
            Self::Unreadable => f.write_str("has keys that cannot be read"),
            Self::Silent => f.write_str("is silent"),
            Self::Fenced => f.write_str("is being fenced"),
            Self::Daemon(state) => write!(f, "has a daemon in state {state}"),
            Self::Hypervisor(why) => write!(f, "can start no VMs: {why}"),
            Self::Domains(state) => write!(f, "takes no VMs: it is in state {state}"),
            Self::Memory { free_mib, needed_mib } => {
                write!(f, "has {free_mib} MiB of memory left, {needed_mib} MiB are needed")
            }
            Self::Unknown => f.write_str("is not in the cluster"),
        }
    }
}

/// Why no node takes a VM: each node's reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoom(pub Vec<(NodeName, Unfit)>);

impl NoRoom {
    /// Whether some node would take it as soon as a migration there ends.
    pub fn is_busy(&self) -> bool {
        self.0.iter().any(|(_, unfit)| *unfit == Unfit::Busy)
    }
}

impl fmt::Display for NoRoom {
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
struct Room {
    /// Why it takes no VMs at all, if so.
    unfit: Option<Unfit>,
    total_mib: u64,
    /// What its VMs have, as it last reported.
    reported_mib: u64,
    reserved_mib: u64,
    vcpus: u64,
    load: f64,
    vms: BTreeSet<VmId>,
}

impl Room {
    /// Memory that is spoken for. A VM whose definition cannot be read still counts if it runs: the node reports it.
    fn taken_mib(&self) -> u64 {
        self.reserved_mib.max(self.reported_mib)
    }

    fn admits(&self, vm: VmId, size: Size) -> Result<(), Unfit> {
        let free_mib = self.total_mib.saturating_sub(self.taken_mib());
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

/// From the moment it was declared dead until its VMs have new homes.
fn is_being_fenced(view: &ClusterView, node: &NodeName) -> bool {
    view.fences.get(node).is_some_and(|entry| match entry {
        Entry::Good(fence) => !matches!(fence.job.step, FenceStep::Recovered { .. }),
        Entry::Bad(_) => true,
    })
}

/// Every node's room, as one view has it, and what was reserved on top.
#[derive(Debug, Clone)]
pub struct Rooms {
    rooms: BTreeMap<NodeName, Room>,
}

impl Rooms {
    /// Counts. `silent` are the nodes whose keepalives the caller misses.
    pub fn count(view: &ClusterView, sizes: &Sizes, silent: &BTreeSet<NodeName>) -> Self {
        let room = |node: &Node| {
            let name = &node.name;
            let unfit = match (node.daemon_state.value, node.domain_state.value) {
                _ if is_being_fenced(view, name) => Some(Unfit::Fenced),
                (daemon, _) if daemon != DaemonState::Run => Some(Unfit::Daemon(daemon)),
                _ if silent.contains(name) => Some(Unfit::Silent),
                _ if !node.problems.is_empty() => Some(Unfit::Unreadable),
                _ if let Some(why) = &node.report.cannot_start => Some(Unfit::Hypervisor(why.clone())),
                (_, domains) if domains != DomainState::Ready => Some(Unfit::Domains(domains)),
                _ => None,
            };
            let report = &node.report;
            let room = Room {
                unfit,
                total_mib: report.mem_total_mib,
                reported_mib: report.mem_alloc_mib,
                reserved_mib: 0,
                vcpus: 0,
                load: report.cpu_load,
                vms: BTreeSet::new(),
            };
            (name.clone(), room)
        };
        let mut rooms = Self { rooms: view.all_nodes().map(room).collect() };
        for vm in view.good_vms() {
            let size = sizes.get(&vm.id).copied().unwrap_or_default();
            for node in kept_on(vm) {
                if let Some(room) = rooms.rooms.get_mut(node) {
                    room.reserve(vm.id, size);
                }
            }
        }
        rooms
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
    ) -> Result<NodeName, NoRoom> {
        let mut best: Option<(&NodeName, &Room)> = None;
        let mut refused = Vec::new();
        for (name, room) in &self.rooms {
            let unfit = match (excluded(name), &room.unfit) {
                (Some(Unfit::Excluded), _) => Err(Unfit::Excluded),
                (_, Some(unfit)) => Err(unfit.clone()),
                (excluded, None) => room.admits(vm, size).and_then(|()| excluded.map_or(Ok(()), Err)),
            };
            match unfit {
                Err(unfit) => refused.push((name.clone(), unfit)),
                Ok(()) if best.is_none_or(|(_, other)| selector.orders(room, other)) => {
                    best = Some((name, room));
                }
                Ok(()) => {}
            }
        }
        best.map(|(name, _)| name.clone()).ok_or(NoRoom(refused))
    }

    /// Whether a node takes a VM.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, node: &NodeName, vm: VmId, size: Size) -> Result<(), Unfit> {
        let room = self.rooms.get(node).ok_or(Unfit::Unknown)?;
        room.unfit.clone().map_or_else(|| room.admits(vm, size), Err)
    }

    /// Whether a node that takes its own VMs back can start this one and has memory for it, whatever its state.
    ///
    /// # Errors
    /// Why not.
    pub fn has_room(&self, node: &NodeName, vm: VmId, size: Size) -> Result<(), Unfit> {
        let room = self.rooms.get(node).ok_or(Unfit::Unknown)?;
        match &room.unfit {
            Some(unfit @ Unfit::Hypervisor(_)) => Err(unfit.clone()),
            _ => room.admits(vm, size),
        }
    }

    /// Counts a VM on a node from now on.
    pub fn reserve(&mut self, node: &NodeName, vm: VmId, size: Size) {
        if let Some(room) = self.rooms.get_mut(node)
            && !room.vms.contains(&vm)
        {
            room.reserve(vm, size);
            // It has not run there yet, so no load average knows of it.
            room.load += f64::from(size.vcpus);
        }
    }

    /// Memory of a node that is kept for VMs, MiB.
    pub fn reserved_mib(&self, node: &NodeName) -> u64 {
        self.rooms.get(node).map_or(0, |room| room.reserved_mib)
    }
}

impl Selector {
    /// Whether `a` has less than `b` of what the selector compares.
    fn orders(self, a: &Room, b: &Room) -> bool {
        match self {
            Self::Mem => a.taken_mib() < b.taken_mib(),
            Self::Vcpus => a.vcpus < b.vcpus,
            Self::Load => a.load.total_cmp(&b.load).is_lt(),
            Self::Vms => a.vms.len() < b.vms.len(),
        }
    }
}
