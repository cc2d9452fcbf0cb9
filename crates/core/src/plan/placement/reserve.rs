//! Whether the cluster has memory left for what may happen: nodes whose VMs may take more than there is, and nodes whose VMs would find no
//! room if they died. For people: nothing is decided from it.

use std::cmp::Reverse;

use super::{ClusterCapacity, Selector, Size, Sizes, Unfit, kept_on, works};
use crate::model::{ClusterView, Node, NodeName, Vm, VmId, VmState};

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reserve {
    /// Nodes whose VMs may take more memory than they have.
    pub overcommitted: Vec<Overcommitted>,
    /// Nodes that work, and of each the VMs that no other node would have room for if it died.
    pub not_absorbed: Vec<(NodeName, Vec<VmId>)>,
}

/// A node whose VMs may take more memory than it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overcommitted {
    /// Which.
    pub node: NodeName,
    /// What its VMs may take, MiB.
    pub reserved_mib: u64,
    /// What it has, MiB.
    pub total_mib: u64,
}

impl Reserve {
    /// Looks at every node that works. Where there is only one, nothing is asked of the others.
    pub fn count(view: &ClusterView, capacity: &ClusterCapacity, sizes: &Sizes) -> Self {
        let working: Vec<&Node> = view.all_nodes().filter(|node| works(node)).collect();
        let overcommitted = working.iter().filter_map(|node| {
            let (reserved_mib, total_mib) = (capacity.reserved_mib(&node.name), node.report.mem_total_mib);
            // A node that has just started has not said yet how much it has.
            (total_mib > 0 && reserved_mib > total_mib).then(|| Overcommitted {
                node: node.name.clone(),
                reserved_mib,
                total_mib,
            })
        });
        let not_absorbed = working.iter().filter(|_| view.nodes.len() > 1).filter_map(|node| {
            let vms = not_absorbed(view, capacity.clone(), sizes, &node.name);
            (!vms.is_empty()).then(|| (node.name.clone(), vms))
        });
        Self { overcommitted: overcommitted.collect(), not_absorbed: not_absorbed.collect() }
    }
}

/// The largest first, as whoever wants to know the most that fits would try.
fn not_absorbed(
    view: &ClusterView,
    mut capacity: ClusterCapacity,
    sizes: &Sizes,
    lost: &NodeName,
) -> Vec<VmId> {
    let runs = |vm: &&Vm| {
        let desired = matches!(vm.state.value, VmState::Start | VmState::Restart | VmState::Migrate);
        desired && kept_on(vm).contains(lost)
    };
    let mut vms: Vec<(VmId, Size)> = view
        .good_vms()
        .filter(runs)
        .map(|vm| (vm.id, sizes.get(&vm.id).copied().unwrap_or_default()))
        .collect();
    vms.sort_by_key(|(id, size)| (Reverse(size.memory_mib), *id));
    let excluded = |node: &NodeName| (node == lost).then_some(Unfit::Excluded);
    vms.retain(|(id, size)| match capacity.choose(*id, *size, Selector::Mem, excluded) {
        Ok(target) => {
            capacity.reserve(&target, *id, *size);
            false
        }
        Err(_) => true,
    });
    vms.into_iter().map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::command::testing::{field, id, name, node, view, vm};

    /// Nodes of 1000 MiB, and running VMs of so much on each.
    fn count(nodes: &[(&str, &[u64])]) -> Reserve {
        let (mut vms, mut sizes) = (Vec::new(), Sizes::new());
        for (on, memory) in nodes {
            for memory_mib in *memory {
                let id = id(u8::try_from(vms.len() + 1).unwrap());
                vms.push(Vm { id, node: field(name(on)), ..vm(VmState::Start, on) });
                sizes.insert(id, Size { memory_mib: *memory_mib, vcpus: 1, ..Size::default() });
            }
        }
        let nodes: Vec<Node> = nodes.iter().map(|(name, _)| node(name)).collect();
        let view = view(&nodes, &vms);
        Reserve::count(&view, &ClusterCapacity::count(&view, &sizes, &BTreeSet::new()), &sizes)
    }

    #[test]
    fn what_others_have_room_for_is_absorbed_and_the_rest_is_named() {
        assert_eq!(count(&[("a", &[400]), ("b", &[400]), ("c", &[400])]), Reserve::default());
        // Both others have room for one of them each, and for no more.
        let full = count(&[("a", &[400, 300, 200]), ("b", &[600]), ("c", &[700])]);
        assert_eq!(
            full.not_absorbed,
            [(name("a"), vec![id(3)]), (name("b"), vec![id(4)]), (name("c"), vec![id(5)])]
        );
        assert_eq!(count(&[("a", &[400])]), Reserve::default(), "there is nobody else");
    }

    #[test]
    fn what_may_take_more_than_there_is_is_named() {
        let over = count(&[("a", &[600, 600]), ("b", &[])]).overcommitted;
        assert_eq!(over, [Overcommitted { node: name("a"), reserved_mib: 1200, total_mib: 1000 }]);
    }
}
