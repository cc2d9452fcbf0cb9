//! `pvc node remove`: a node is not part of the cluster any more.

use super::Life;
use crate::{
    command::{Accepted, Refusal, find},
    model::{ClusterView, DaemonMode, DaemonState, Node, VmChange, VmKey, VmSet},
    plan::machine::Ties,
    text::some,
};

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Removal {
    /// The node, as it was seen: whatever it says meanwhile is a conflict.
    pub seen: Box<Node>,
    /// The placement that was seen: so is a VM that is given to it meanwhile.
    pub placement_version: Option<i32>,
    /// VMs that came from it stay where they are. Before the removal, one by one.
    pub stay: Vec<VmChange>,
}

/// Removes a node that has stopped or is dead, to which no VM belongs, and which executes nothing.
pub fn remove(view: &ClusterView, name: &str, life: &Life) -> Result<Accepted<Removal>, Refusal> {
    let node = find::node_in(view, name)?;
    let name = &node.name;
    let refused =
        |why: String, todo: String| Err(Refusal::refused(format!("{name} was not removed"), why, todo));
    if life.heard || life.instance.is_some() {
        return refused(
            "its daemon is connected to the state store".to_owned(),
            format!("`pvc node flush -w {name}`, then stop pvcd there, for good"),
        );
    }
    let belong: Vec<&str> =
        view.good_vms().filter(|vm| vm.node.value == *name).map(|vm| vm.name.as_str()).collect();
    if let Some(first) = belong.first() {
        return refused(
            format!("{} VM(s) belong to it: {}", belong.len(), some(&belong)),
            format!("`pvc vm move {first}` gives it to another node, also while it is off"),
        );
    }
    let ties = Ties::of(name, view);
    if !ties.is_empty() {
        return refused(
            format!("it may be executing something: {ties}"),
            format!(
                "`pvc node explain {name}`; if it is off for good, `pvc node confirm-dead {name}` frees its VMs"
            ),
        );
    }
    if !matches!(node.daemon_state.value, DaemonState::Stop | DaemonState::Dead) {
        return refused(
            format!("its daemon is in state {}, and is fenced if it stays silent", node.daemon_state.value),
            "wait until that is over, or start pvcd there and stop it in order".to_owned(),
        );
    }
    let from_here = view.good_vms().filter(|vm| vm.last_node.value.as_ref() == Some(name));
    let stay = from_here.map(|vm| VmChange::update(vm, &[VmKey::LastNode], vec![VmSet::LastNode(None)]));
    let change = Removal {
        seen: Box::new(node.clone()),
        placement_version: view.placement_version,
        stay: stay.collect(),
    };
    let coordinator = (node.mode == DaemonMode::Coordinator).then(|| {
        "take it out of cluster.coordinators in every pvcd.yaml, and out of ZooKeeper's servers".to_owned()
    });
    let again = format!("a pvcd that starts as {name} adds it again");
    Ok(Accepted::write(change, coordinator.into_iter().chain([again])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::testing::{field, id, name, node, view, vm},
        model::{Vm, VmState},
    };

    fn stopped() -> Node {
        Node { daemon_state: field(DaemonState::Stop), ..node("hv3") }
    }

    fn ask(node: Node, vms: &[Vm], life: &Life) -> Result<Removal, String> {
        let view = view(&[self::node("hv1"), node], vms);
        match remove(&view, "hv3", life) {
            Ok(accepted) => Ok(accepted.change.unwrap()),
            Err(refusal) => Err(refusal.why),
        }
    }

    #[test]
    fn a_node_that_may_execute_something_or_owns_a_vm_is_not_removed() {
        let here = Life::default();
        assert!(ask(stopped(), &[], &here).is_ok());
        assert!(ask(Node { daemon_state: field(DaemonState::Dead), ..node("hv3") }, &[], &here).is_ok());
        let refused = |node: Node, vms: &[Vm], life: &Life, why: &str| {
            let said = ask(node, vms, life).unwrap_err();
            assert!(said.contains(why), "{said}");
        };
        refused(stopped(), &[], &Life { heard: true, ..Life::default() }, "connected");
        refused(stopped(), &[], &Life { instance: Some("i".into()), ..Life::default() }, "connected");
        refused(node("hv3"), &[], &here, "state run");
        let belongs = Vm { node: field(name("hv3")), ..vm(VmState::Stop, "") };
        refused(stopped(), &[belongs], &here, "1 VM(s) belong to it: web1");
        refused(stopped(), &[vm(VmState::Start, "hv1 hv3")], &here, "claims web1");
        let mut said = stopped();
        said.report.running = vec![id(7)];
        refused(said, &[], &here, "1 VM(s) ran on it by its last word");
    }

    #[test]
    fn vms_that_came_from_it_stay_where_they_are() {
        let came = Vm { last_node: field(Some(name("hv3"))), ..vm(VmState::Start, "hv1") };
        let removal = ask(stopped(), &[came], &Life::default()).unwrap();
        let [VmChange::Update { set, .. }] = removal.stay.as_slice() else { panic!("{removal:?}") };
        assert_eq!(set.as_slice(), [VmSet::LastNode(None)]);
    }
}
