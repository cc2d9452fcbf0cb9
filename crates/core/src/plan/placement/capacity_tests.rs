//! Rooms under stale views: whatever the order, what is reserved on a node never exceeds its memory.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    command::testing::{field, id, name, node, vm},
    model::{
        Claim, ClusterView, DaemonState, DomainState, Entry, Field, Node, NodeName, Vm, VmId, VmKey, VmState,
    },
};

fn size(memory_mib: u64) -> Size {
    Size { memory_mib, vcpus: 1, ..Size::default() }
}

fn hv(text: &str, mem_total_mib: u64) -> Node {
    let mut node = node(text);
    node.report.mem_total_mib = mem_total_mib;
    node
}

fn machine(n: u8, state: VmState, on: &str, claim: &str) -> Vm {
    let mut vm = vm(state, claim);
    (vm.id, vm.node) = (id(n), field(name(on)));
    vm
}

fn view(nodes: Vec<Node>, vms: Vec<Vm>) -> ClusterView {
    ClusterView {
        nodes: Arc::new(nodes.into_iter().map(|n| (n.name.clone(), Arc::new(n))).collect()),
        vms: Arc::new(vms.into_iter().map(|v| (v.id, Arc::new(Entry::Good(v)))).collect()),
        ..ClusterView::default()
    }
}

fn capacity(view: &ClusterView, sizes: &[(u8, u64)]) -> ClusterCapacity {
    let sizes = sizes.iter().map(|(n, mib)| (id(*n), size(*mib))).collect();
    ClusterCapacity::count(view, &sizes, &[name("mute")].into())
}

fn anybody(_: &NodeName) -> Option<Unfit> {
    None
}

#[test]
fn a_vm_counts_where_its_desired_state_keeps_it_and_where_it_is_claimed() {
    use VmState::{Delete, Failed, Migrate, Restart, Shutdown, Start, Stop};
    for (state, on, claim, at_a, at_b) in [
        (Start, "a", "", 100, 0),
        (Restart, "a", "a", 100, 0),
        (Shutdown, "a", "a", 100, 0),
        (Migrate, "b", "a", 100, 100),
        (Migrate, "b", "a b", 100, 100),
        (Migrate, "b", "", 0, 100),
        (Start, "b", "a", 100, 100),
        (Stop, "a", "", 0, 0),
        (Stop, "a", "a", 100, 0),
        (Failed, "a", "", 0, 0),
        (Delete, "a", "b", 0, 100),
    ] {
        let view = view(vec![hv("a", 1000), hv("b", 1000)], vec![machine(1, state, on, claim)]);
        let capacity = capacity(&view, &[(1, 100)]);
        let counted = (capacity.reserved_mib(&name("a")), capacity.reserved_mib(&name("b")));
        assert_eq!(counted, (at_a, at_b), "{state} on {on}, claim {claim:?}");
    }
}

#[test]
fn a_vm_whose_claim_nobody_can_read_counts_where_a_node_says_that_it_executes() {
    let mut a = hv("a", 1000);
    a.report.running = [id(1)].into();
    let mut moves = machine(1, VmState::Migrate, "b", "");
    moves.unread.insert(VmKey::Claim);
    let capacity = capacity(&view(vec![a, hv("b", 1000)], vec![moves]), &[(1, 100)]);
    assert_eq!((capacity.reserved_mib(&name("a")), capacity.reserved_mib(&name("b"))), (100, 100));
}

#[test]
fn only_nodes_that_work_take_vms_and_are_heard_are_chosen_and_each_other_says_why_not() {
    let mut nodes: Vec<Node> =
        ["dead", "flushing", "full", "here", "mute", "fenced", "unable"].map(|n| hv(n, 1000)).into();
    nodes[0].daemon_state.value = DaemonState::Dead;
    nodes[1].domain_state.value = DomainState::Flush;
    nodes[2].report.mem_total_mib = 150;
    nodes[6].report.cannot_start = Some("libvirt is gone".into());
    let fence = Entry::Bad(Vec::new());
    let mut view = view(nodes, vec![machine(1, VmState::Start, "full", "full")]);
    view.fences = Arc::new([(name("fenced"), fence)].into());
    let capacity = capacity(&view, &[(1, 100)]);
    let not_here = |node: &NodeName| (node.as_str() == "here").then_some(Unfit::Excluded);
    let refused = capacity.choose(id(2), size(100), Selector::Mem, not_here).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no node can take it: dead has a daemon in state dead; fenced is being fenced; \
         flushing takes no VMs: it is in state flush; full has 50 MiB of memory left, 100 MiB are needed; mute is silent; \
         unable can start no VMs: libvirt is gone"
    );
    assert!(!refused.is_busy());
    assert_eq!(capacity.choose(id(2), size(100), Selector::Mem, anybody), Ok(name("here")));
    assert_eq!(
        capacity.choose(id(1), size(100), Selector::Mem, not_here),
        Ok(name("full")),
        "it is counted there"
    );
    assert_eq!(capacity.admits(&name("gone"), id(2), size(1)), Err(Unfit::Unknown));
    assert_eq!(capacity.admits(&name("flushing"), id(2), size(1)), Err(Unfit::Domains(DomainState::Flush)));
    assert_eq!(capacity.takes_back(&name("flushing"), id(2), size(1)), Ok(()));
    assert!(capacity.takes_back(&name("unable"), id(2), size(1)).is_err());
}

#[test]
fn each_selector_compares_its_figure_then_the_name() {
    let mut nodes: Vec<Node> = ["a", "b", "c", "d"].map(|n| hv(n, 10_000)).into();
    for (node, load) in nodes.iter_mut().zip([3.0, 2.0, 1.0, 4.0]) {
        node.report.cpu_load = load;
    }
    // a: least memory, b: fewest vCPUs, c: least load, d: fewest VMs.
    let vms = vec![
        machine(1, VmState::Start, "a", "a"),
        machine(2, VmState::Start, "a", "a"),
        machine(3, VmState::Start, "b", "b"),
        machine(4, VmState::Start, "b", "b"),
        machine(5, VmState::Start, "c", "c"),
        machine(6, VmState::Start, "c", "c"),
        machine(7, VmState::Start, "d", "d"),
    ];
    let of = |memory_mib, vcpus| Size { memory_mib, vcpus, ..Size::default() };
    let sizes = [(1, 10, 4), (2, 10, 4), (3, 100, 1), (4, 100, 1), (5, 100, 4), (6, 100, 4), (7, 300, 9)];
    let sizes: Sizes = sizes.into_iter().map(|(n, m, c)| (id(n), of(m, c))).collect();
    let capacity = ClusterCapacity::count(&view(nodes, vms), &sizes, &[].into());
    let chosen = Selector::ALL.map(|s| capacity.choose(id(9), size(1), s, anybody).unwrap().to_string());
    assert_eq!(chosen, ["a", "b", "c", "d"]);

    let even =
        ClusterCapacity::count(&view(vec![hv("b", 100), hv("a", 100)], vec![]), &Sizes::new(), &[].into());
    for selector in Selector::ALL {
        assert_eq!(even.choose(id(9), size(1), selector, anybody), Ok(name("a")));
    }
}

#[test]
fn what_has_rbd_disks_goes_to_no_node_that_says_that_it_manages_no_storage() {
    let says = |text, storage| Node { storage, ..hv(text, 1000) };
    let nodes = vec![says("a", Some(false)), says("b", None), says("c", Some(true))];
    let capacity = ClusterCapacity::count(&view(nodes, vec![]), &Sizes::new(), &[].into());
    let rbd = Size { needs_storage: true, ..size(1) };
    assert_eq!(capacity.choose(id(9), size(1), Selector::Mem, anybody), Ok(name("a")));
    assert_eq!(capacity.choose(id(9), rbd, Selector::Mem, anybody), Ok(name("b")), "it may");
    let not = |node: &NodeName| (node.as_str() == "b").then_some(Unfit::Excluded);
    assert_eq!(capacity.choose(id(9), rbd, Selector::Mem, not), Ok(name("c")));
    assert_eq!(capacity.takes_back(&name("a"), id(9), rbd), Err(Unfit::NoStorage));
    assert_eq!(capacity.admits(&name("a"), id(9), rbd), Err(Unfit::NoStorage));
}

#[test]
fn placements_of_one_round_spread_whatever_the_selector() {
    for selector in Selector::ALL {
        let nodes = vec![hv("a", 1000), hv("b", 1000), hv("c", 1000)];
        let mut capacity = ClusterCapacity::count(&view(nodes, vec![]), &Sizes::new(), &[].into());
        let mut chosen = Vec::new();
        for n in 0..6 {
            let node = capacity.choose(id(n), size(100), selector, anybody).unwrap();
            capacity.reserve(&node, id(n), size(100));
            chosen.push(node.to_string());
        }
        assert_eq!(chosen, ["a", "b", "c", "a", "b", "c"], "{selector}");
    }
}

#[test]
fn what_a_node_reports_counts_even_if_no_definition_tells() {
    let mut node = hv("a", 1000);
    node.report.mem_alloc_mib = 900;
    let capacity = capacity(&view(vec![node], vec![machine(1, VmState::Start, "a", "a")]), &[]);
    let refused = capacity.admits(&name("a"), id(2), size(200));
    assert_eq!(refused, Err(Unfit::Memory { free_mib: 100, needed_mib: 200 }));
}

/// What happens in a cluster with several placers, each with a view of its own age.
#[derive(Debug, Clone)]
enum Act {
    /// A placer reads the cluster.
    Look(usize),
    /// A placer gives a VM a node, from the view it has, with several of them reserved one after another.
    Place(usize, Vec<u8>),
    /// A VM that moves has arrived.
    Arrive(u8),
    /// An operator stops a VM.
    Stop(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..3_usize).prop_map(Act::Look),
        5 => (0..3_usize, prop::collection::vec(0..8_u8, 1..4)).prop_map(|(p, vms)| Act::Place(p, vms)),
        3 => (0..8_u8).prop_map(Act::Arrive),
        1 => (0..8_u8).prop_map(Act::Stop),
    ]
}

/// The true state and its placement version; VMs carry their own in `state.version`.
#[derive(Clone)]
struct Truth {
    nodes: Vec<Node>,
    vms: Vec<Vm>,
    placement: i32,
}

impl Truth {
    fn vm(&mut self, id: VmId) -> &mut Vm {
        self.vms.iter_mut().find(|vm| vm.id == id).unwrap()
    }

    /// A transaction: done if neither the placement nor the VM has moved since it was seen.
    fn place(&mut self, seen: &Vm, placement: i32, to: &NodeName) -> bool {
        let fresh = self.placement == placement && self.vm(seen.id).state.version == seen.state.version;
        if fresh {
            self.placement += 1;
            let vm = self.vm(seen.id);
            vm.state = Field { value: VmState::Migrate, version: vm.state.version.map(|v| v + 1), zxid: 0 };
            vm.node.value = to.clone();
        }
        fresh
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn however_placements_interleave_reserved_memory_never_exceeds_a_nodes(
        memory in prop::collection::vec(1..6_u64, 3),
        vm_sizes in prop::collection::vec(1..4_u64, 8),
        selector in prop::sample::select(Selector::ALL.to_vec()),
        acts in prop::collection::vec(act(), 1..80),
    ) {
        let nodes: Vec<Node> = memory.iter().zip(["a", "b", "c"]).map(|(mib, n)| hv(n, *mib)).collect();
        let vms = (0..8).map(|n| machine(n, VmState::Stop, "a", "")).collect();
        let sizes: Sizes = (0..8).map(|n| (id(n), size(vm_sizes[usize::from(n)]))).collect();
        let mut truth = Truth { nodes, vms, placement: 0 };
        let mut views = vec![truth.clone(); 3];
        for act in acts {
            match act {
                Act::Look(placer) => views[placer] = truth.clone(),
                Act::Place(placer, vms) => {
                    let seen = views[placer].clone();
                    let mut capacity = ClusterCapacity::count(&view(seen.nodes.clone(), seen.vms.clone()), &sizes, &[].into());
                    let mut placement = seen.placement;
                    for n in vms {
                        let vm = seen.vms.iter().find(|vm| vm.id == id(n)).unwrap();
                        if let Ok(node) = capacity.choose(vm.id, sizes[&vm.id], selector, anybody) {
                            // Its own placement is one more than what it saw: it goes on with what it reserved.
                            if truth.place(vm, placement, &node) {
                                placement += 1;
                                capacity.reserve(&node, vm.id, sizes[&vm.id]);
                            }
                        }
                    }
                }
                Act::Arrive(n) => {
                    let vm = truth.vm(id(n));
                    if vm.state.value == VmState::Migrate {
                        vm.state = Field { value: VmState::Start, version: vm.state.version.map(|v| v + 1), zxid: 0 };
                        vm.claim.value = Claim::only(&vm.node.value);
                    }
                }
                Act::Stop(n) => {
                    let vm = truth.vm(id(n));
                    vm.state = Field { value: VmState::Stop, version: vm.state.version.map(|v| v + 1), zxid: 0 };
                    vm.claim.value = Claim::none();
                }
            }
            let capacity = ClusterCapacity::count(&view(truth.nodes.clone(), truth.vms.clone()), &sizes, &[].into());
            for node in &truth.nodes {
                let (reserved, total) = (capacity.reserved_mib(&node.name), node.report.mem_total_mib);
                prop_assert!(reserved <= total, "{}: {reserved} of {total} MiB", node.name);
            }
        }
    }
}
