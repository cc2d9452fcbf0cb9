use super::*;
use crate::{
    command::testing::{field, id, name, node, view, vm},
    model::MigrationMethod,
    plan::placement::Size,
};

/// Nodes of 1000 MiB, and VMs of so much on each, which run there.
fn cluster(nodes: &[(&str, &[u64])]) -> (ClusterView, Sizes) {
    let (mut vms, mut sizes) = (Vec::new(), Sizes::new());
    for (on, memory) in nodes {
        for memory_mib in *memory {
            let id = id(u8::try_from(vms.len() + 1).unwrap());
            let vm_name = format!("vm{}", vms.len() + 1).parse().unwrap();
            vms.push(Vm { id, name: vm_name, node: field(name(on)), ..vm(VmState::Start, on) });
            sizes.insert(id, Size { memory_mib: *memory_mib, vcpus: 1, needs_storage: false });
        }
    }
    let nodes: Vec<Node> = nodes.iter().map(|(name, _)| node(name)).collect();
    (view(&nodes, &vms), sizes)
}

fn change(view: &mut ClusterView, number: u8, change: impl FnOnce(&mut Vm)) {
    let vms = Arc::make_mut(&mut view.vms);
    if let Some(Entry::Good(vm)) = vms.get_mut(&id(number)).map(Arc::make_mut) {
        change(vm);
    }
}

fn with<T>(
    view: &ClusterView,
    sizes: &Sizes,
    damaged: &[(u8, &str)],
    ask: impl FnOnce(&Facts<'_>) -> T,
) -> T {
    let damaged = damaged.iter().map(|(number, why)| (id(*number), (*why).to_owned())).collect();
    ask(&Facts { view, sizes, damaged: &damaged, silent: &BTreeSet::new(), selector: Selector::Mem })
}

/// `vm1 migrates hv2`.
fn told(all: &[Expected]) -> Vec<String> {
    let line = |one: &Expected| {
        let node = one.node.as_ref().map(|node| format!(" {node}")).unwrap_or_default();
        format!("{} {:?}{node}", one.name, one.fate)
    };
    all.iter().map(line).collect()
}

fn flush(view: &ClusterView, sizes: &Sizes, damaged: &[(u8, &str)]) -> Vec<Expected> {
    with(view, sizes, damaged, |facts| of_flush(facts, view.node(&name("hv1")).unwrap()))
}

fn death(view: &ClusterView, sizes: &Sizes, damaged: &[(u8, &str)]) -> Vec<Expected> {
    with(view, sizes, damaged, |facts| of_death(facts, &name("hv1")))
}

#[test]
fn a_flush_sends_the_largest_first_and_shuts_down_what_finds_no_room() {
    let (view, sizes) = cluster(&[("hv1", &[300, 600, 200]), ("hv2", &[350]), ("hv3", &[800])]);
    let expected = flush(&view, &sizes, &[]);
    assert_eq!(told(&expected), ["vm2 Migrates hv2", "vm3 Migrates hv3", "vm1 ShutDown"]);
    assert!(expected[2].why.contains("300 MiB are needed"), "{}", expected[2].why);
    assert_eq!(expected[0].memory_mib, Some(600));
}

#[test]
fn a_flush_leaves_what_may_not_be_shut_down() {
    let (mut view, sizes) = cluster(&[("hv1", &[300, 300, 100]), ("hv2", &[900])]);
    change(&mut view, 1, |vm| vm.migration_method = MigrationMethod::Live);
    let expected = flush(&view, &sizes, &[(2, "it is no XML")]);
    assert_eq!(told(&expected), ["vm3 Migrates hv2", "vm1 Stays hv1", "vm2 Stays hv1"]);
    assert!(expected[1].why.contains("its migration method is live"), "{}", expected[1].why);
    assert!(expected[2].why.contains("it is no XML"), "{}", expected[2].why);
}

#[test]
fn a_flush_of_an_empty_node_and_of_one_whose_vms_are_off_does_nothing() {
    let (mut view, sizes) = cluster(&[("hv1", &[300]), ("hv2", &[])]);
    change(&mut view, 1, |vm| {
        vm.state.value = VmState::Stop;
        vm.claim.value = Claim::default();
    });
    assert_eq!(told(&flush(&view, &sizes, &[])), [""; 0]);
}

#[test]
fn a_death_starts_what_finds_room_and_names_what_does_not() {
    let (view, sizes) = cluster(&[("hv1", &[300, 600, 100]), ("hv2", &[350]), ("hv3", &[800])]);
    let expected = death(&view, &sizes, &[(3, "it is missing")]);
    assert_eq!(told(&expected), ["vm1 Starts hv2", "vm2 Down", "vm3 Down"]);
    assert!(
        expected[1].why.contains("hv2 has 350 MiB of memory left, 600 MiB are needed"),
        "{}",
        expected[1].why
    );
    assert!(expected[2].why.contains("it is missing"));
}

#[test]
fn a_death_leaves_what_is_off_and_what_runs_elsewhere() {
    let (mut view, sizes) = cluster(&[("hv1", &[100, 100, 100]), ("hv2", &[100])]);
    change(&mut view, 1, |vm| {
        vm.state.value = VmState::Stop;
        vm.claim.value = Claim::default();
    });
    // On its way: whoever is left in the claim has it.
    change(&mut view, 2, |vm| {
        vm.state.value = VmState::Migrate;
        vm.node.value = name("hv2");
        vm.claim.value = "hv1 hv2".parse().unwrap();
    });
    assert_eq!(told(&death(&view, &sizes, &[])), ["vm2 Starts hv2", "vm3 Starts hv2"]);
}

#[test]
fn each_node_says_what_it_has_for_a_vm_and_one_is_chosen() {
    let (mut view, sizes) = cluster(&[("hv1", &[400]), ("hv2", &[700]), ("hv3", &[300]), ("hv4", &[])]);
    let nodes = Arc::make_mut(&mut view.nodes);
    Arc::make_mut(nodes.get_mut(&name("hv4")).unwrap()).domain_state.value = DomainState::Flushed;
    let places = with(&view, &sizes, &[], |facts| of_vm(facts, view.vm(id(1)).unwrap()));
    let told: Vec<(&str, u64, bool, &str)> = places
        .iter()
        .map(|place| {
            (place.node.as_str(), place.free_mib, place.chosen, place.unfit.as_deref().unwrap_or(""))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("hv1", 600, false, "is the one that it leaves"),
            ("hv2", 300, false, "has 300 MiB of memory left, 400 MiB are needed"),
            ("hv3", 700, true, ""),
            ("hv4", 1000, false, "takes no VMs: it is in state flushed"),
        ]
    );
}
