//! What becomes of a VM of dead node `x`, one row a case.

use std::sync::Arc;

use super::*;
use crate::{
    command::testing::{field, name, node, vm},
    model::{Entry, Node},
    plan::placement::Size,
};

fn view(vms: Vec<Vm>) -> ClusterView {
    let x = Node { daemon_state: field(DaemonState::Dead), ..node("x") };
    let mut unable = node("unable");
    unable.report.cannot_start = Some("no libvirt".into());
    let nodes =
        [x, node("s"), node("t"), Node { daemon_state: field(DaemonState::Stop), ..node("off") }, unable];
    ClusterView {
        nodes: Arc::new(nodes.map(|n| (n.name.clone(), Arc::new(n))).into()),
        vms: Arc::new(vms.into_iter().map(|vm| (vm.id, Arc::new(Entry::Good(vm)))).collect()),
        ..ClusterView::default()
    }
}

fn on(node: &str, state: VmState, claim: &str) -> Vm {
    Vm { node: field(name(node)), ..vm(state, claim) }
}

fn what(vm: Vm, action: Action) -> Option<What> {
    let mut orders = orders(&name("x"), &view(vec![vm]), &Sizes::new(), action, |_| false);
    assert!(orders.len() <= 1);
    orders.pop().map(|o| o.what)
}

#[test]
fn the_table_of_a_dead_nodes_vms_holds() {
    use VmState::{Delete, Failed, Migrate, Restart, Shutdown, Start, Stop};
    let assign = |node| Some(What::Assign(name(node)));
    let table = [
        // node, desired state, claim → order
        ("x", Start, "x", Some(What::Place)),
        ("x", Restart, "x", Some(What::Place)),
        ("x", Start, "", Some(What::Place)),
        ("x", Restart, "", Some(What::Place)),
        ("x", Stop, "x", Some(What::Release)),
        ("x", Shutdown, "x", Some(What::Release)),
        ("x", Delete, "x", Some(What::Release)),
        ("x", Failed, "x", Some(What::Release)),
        ("x", Stop, "", None),
        ("x", Shutdown, "", Some(What::Release)),
        ("x", Shutdown, "s", None),
        ("x", Migrate, "", Some(What::Place)),
        ("x", Failed, "", None),
        // It was migrating from x to t …
        ("t", Migrate, "x t", assign("t")),
        ("t", Migrate, "x", assign("t")),
        ("off", Migrate, "x", Some(What::Place)),
        ("unable", Migrate, "x", Some(What::Place)),
        ("t", Migrate, "t", None),
        ("x", Start, "t x", assign("t")),
        // … or from s to x.
        ("x", Migrate, "s x", assign("s")),
        ("x", Migrate, "x", Some(What::Place)),
        ("x", Migrate, "s", None),
        // It was moved without migration.
        ("t", Start, "x", Some(What::Release)),
        ("t", Restart, "x", Some(What::Release)),
        ("x", Start, "s", assign("s")),
        ("x", Start, "off", Some(What::Place)),
        ("t", Start, "t", None),
    ];
    for (node, desired, claim, expected) in table {
        assert_eq!(
            what(on(node, desired, claim), Action::Migrate),
            expected,
            "{desired} on {node}, claim {claim:?}"
        );
    }
}

#[test]
fn an_order_that_was_carried_out_leaves_nothing_to_do() {
    for desired in VmState::ALL {
        for node in ["x", "t", "off"] {
            for claim in ["", "x", "t x", "s x"] {
                let mut vm = on(node, desired, claim);
                let Some(order) = what(vm.clone(), Action::Migrate) else { continue };
                let change = change(&order, &name("x"), &vm, Some(&name("t")));
                let Some(VmChange::Update { set, expect, .. }) = change else {
                    panic!("{desired} {node} {claim}")
                };
                assert_eq!(expect.len(), 3, "state, node and claim are checked");
                for value in set {
                    match value {
                        VmSet::State(state) => vm.state = field(state),
                        VmSet::Node(node) => vm.node = field(node),
                        VmSet::LastNode(node) => vm.last_node = field(node),
                        VmSet::Claim(claim) => vm.claim = field(claim),
                        other => panic!("{other:?}"),
                    }
                }
                assert!(!vm.claim.value.names(&name("x")));
                assert_eq!(what(vm, Action::Migrate), None, "{desired} on {node}, claim {claim:?}");
            }
        }
    }
}

#[test]
fn a_recovered_vm_is_started_elsewhere_and_remembers_where_it_was() {
    let vm = on("x", VmState::Restart, "x");
    let Some(VmChange::Update { set, .. }) = change(&What::Place, &name("x"), &vm, Some(&name("t"))) else {
        panic!("nothing to write")
    };
    let expected = [
        VmSet::Node(name("t")),
        VmSet::State(VmState::Start),
        VmSet::LastNode(Some(name("x"))),
        VmSet::Claim(Claim::none()),
    ];
    assert_eq!(set, expected);
    assert_eq!(change(&What::Place, &name("x"), &vm, None), None, "never written without a node");
}

#[test]
fn what_a_dead_source_was_sending_is_an_old_copy_that_nobody_claims_and_is_started_anew() {
    for desired in [VmState::Migrate, VmState::Restart, VmState::Start] {
        let vm = on("t", desired, "x t");
        let Some(VmChange::Update { set, .. }) = change(&What::Assign(name("t")), &name("x"), &vm, None)
        else {
            panic!()
        };
        assert_eq!(
            set,
            [VmSet::Node(name("t")), VmSet::State(VmState::Start), VmSet::Claim(Claim::none())],
            "{desired}"
        );
    }
}

#[test]
fn a_guest_that_survives_at_the_source_of_a_migration_is_still_to_be_restarted() {
    let vm = on("t", VmState::Restart, "t x");
    let Some(What::Assign(to)) = what(vm.clone(), Action::Migrate) else { panic!() };
    let Some(VmChange::Update { set, .. }) = change(&What::Assign(to), &name("x"), &vm, None) else {
        panic!()
    };
    assert!(set.contains(&VmSet::State(VmState::Restart)), "with the claim, which is thereby no younger");
    assert!(set.contains(&VmSet::Claim(Claim::only(&name("t")))));
}

#[test]
fn a_desired_state_that_is_fulfilled_by_the_death_is_answered_unless_another_node_has_it_too() {
    let sets = |vm: &Vm| match change(&What::Release, &name("x"), vm, None) {
        Some(VmChange::Update { set, .. }) => set,
        other => panic!("{other:?}"),
    };
    let both = vec![VmSet::State(VmState::Stop), VmSet::Claim(Claim::none())];
    assert_eq!(sets(&on("x", VmState::Shutdown, "x")), both);
    assert_eq!(sets(&on("x", VmState::Stop, "x")), [VmSet::Claim(Claim::none())]);
    assert_eq!(sets(&on("x", VmState::Shutdown, "t x")), [VmSet::Claim(Claim::only(&name("t")))]);
}

#[test]
fn what_the_node_never_claimed_needs_no_storage_fence() {
    let rbd = |claim| Vm { rbd_images: vec!["vms/web1".into()], ..on("x", VmState::Start, claim) };
    let locked = |vm, sizes: &Sizes, action, is_shut_out| {
        let orders = orders(&name("x"), &view(vec![vm]), sizes, action, |_| is_shut_out);
        (orders[0].what.clone(), orders[0].locked)
    };
    let none = Sizes::new();
    assert_eq!(locked(rbd("x"), &none, Action::Migrate, false), (What::Place, true));
    assert_eq!(locked(rbd(""), &none, Action::Migrate, false), (What::Place, false));
    let kept = (What::Release, true);
    assert_eq!(locked(rbd("x"), &none, Action::Nothing, false), kept, "its claim protects the image");
    assert_eq!(locked(rbd("x"), &none, Action::Migrate, true), (What::Place, false));
    // Its list was emptied by a client that knows no better.
    let sizes = [(rbd("x").id, Size { needs_storage: true, ..Size::default() })].into();
    let defined = on("x", VmState::Start, "x");
    assert_eq!(locked(defined, &sizes, Action::Migrate, false), (What::Place, true));
}

#[test]
fn a_node_that_is_not_to_be_recovered_keeps_its_vms() {
    assert_eq!(what(on("x", VmState::Start, "x"), Action::Nothing), Some(What::Release));
    assert_eq!(what(on("x", VmState::Start, ""), Action::Nothing), None);
    let migrating = what(on("t", VmState::Migrate, "x t"), Action::Nothing);
    assert_eq!(migrating, Some(What::Assign(name("t"))), "it may run there already");
}

#[test]
fn a_fence_leaves_nothing_of_its_node_in_claims_of_vms_that_are_gone() {
    let mut view = view(vec![]);
    let claims = [(1, "x"), (2, "x s"), (3, "s"), (4, "")];
    let entry = |claim: &str| Arc::new(Entry::Good(field(claim.parse::<Claim>().unwrap())));
    view.orphan_claims =
        Arc::new(claims.map(|(n, claim)| (crate::command::testing::id(n), entry(claim))).into());
    let left: Vec<String> = orphans(&name("x"), &view)
        .into_iter()
        .map(|change| match change {
            VmChange::Orphan { version: Some(7), left, .. } => left.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(left, ["", "s"]);
}
