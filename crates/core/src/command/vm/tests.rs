use super::*;
use crate::{
    command::{
        RefusalKind,
        testing::{id, name, node, view, vm},
    },
    model::{Vm, VmKey, VmSet, VmState},
    plan::placement::{Overcommitted, Reserve, Sizes},
};

const XML: &str = "<domain type='kvm'><name>web1</name><uuid>11111111-0000-4000-8000-000000000001</uuid>\
    <memory unit='MiB'>64</memory><vcpu>1</vcpu><features/>\
    <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><console type='pty'/></devices></domain>";

type Answer = Result<Accepted, Refusal>;

fn roster(vms: &[(u8, &str)]) -> Roster {
    vms.iter().map(|&(n, name)| (id(n), name.to_owned())).collect()
}

fn define_with(
    target: Option<&str>,
    roster: &Roster,
    nodes: &[Node],
) -> Result<(NodeName, Accepted), Refusal> {
    let spec = DomainSpec::parse(XML).unwrap();
    let capacity = ClusterCapacity::count(&view(nodes, &[]), &Sizes::new(), &[].into());
    define(Define { spec: &spec, target, selector: Selector::Mem }, roster, nodes.iter(), &capacity)
}

/// The state that a change asks for, having checked that it was decided from the state it was read with.
fn desired(accepted: &Accepted) -> Option<VmState> {
    let Some(VmChange::Update { expect, set, .. }) = &accepted.change else {
        return None;
    };
    assert_eq!(expect, &[(VmKey::State, Some(7))]);
    let [VmSet::State(state)] = set[..] else { panic!("only the state: {set:?}") };
    Some(state)
}

#[test]
fn a_vm_is_defined_on_the_best_node_or_on_the_one_that_is_named() {
    let mut nodes = [node("hv1"), node("hv2")];
    nodes[0].report.mem_alloc_mib = 10;
    let (chosen, accepted) = define_with(None, &roster(&[]), &nodes).unwrap();
    assert_eq!(chosen, name("hv2"));
    assert!(accepted.notes.is_empty());
    let Some(VmChange::Define { id: defined, name: called, node, xml, .. }) = accepted.change else {
        panic!()
    };
    assert_eq!((defined, called.as_str(), node, xml.as_str()), (id(1), "web1", name("hv2"), XML));
    assert_eq!(define_with(Some("hv1"), &roster(&[]), &nodes).unwrap().0, name("hv1"));
}

#[test]
fn what_a_definition_leaves_out_is_filled_in_and_said() {
    let xml = XML.replace("<vcpu>1</vcpu>", "");
    let (view, spec) = (view(&[node("hv1")], &[]), DomainSpec::parse(&xml).unwrap());
    let capacity = ClusterCapacity::count(&view, &Sizes::new(), &[].into());
    let request = Define { spec: &spec, target: None, selector: Selector::Mem };
    let (_, accepted) = define(request, &roster(&[]), view.all_nodes(), &capacity).unwrap();
    assert_eq!(accepted.notes, ["filled in, as older clients cannot do without: <vcpu>1</vcpu>"]);
    let Some(VmChange::Define { xml, .. }) = accepted.change else { panic!() };
    assert!(xml.contains("<vcpu>1</vcpu>"), "{xml}");
}

#[test]
fn no_vm_is_called_as_another_ones_uuid_whichever_comes_first() {
    let nodes = [node("hv1")];
    let why = |roster: &Roster, xml: &str| {
        let spec = DomainSpec::parse(xml).unwrap();
        let capacity = ClusterCapacity::count(&view(&nodes, &[]), &Sizes::new(), &[].into());
        let request = Define { spec: &spec, target: None, selector: Selector::Mem };
        define(request, roster, nodes.iter(), &capacity).err().map(|refusal| refusal.why)
    };
    let called = |name: &str| XML.replace("web1", name);
    for other in [id(2).to_string(), id(2).to_string().to_uppercase(), id(2).to_string().replace('-', "")] {
        let form = why(&roster(&[(2, "web2")]), &called(&other)).unwrap();
        assert_eq!(form, "its name has the form of a UUID, and is not its own", "{other}");
    }
    assert_eq!(why(&roster(&[]), &called(&id(1).to_string())), None);
    let taken = id(1).to_string();
    let why = why(&roster(&[(2, &taken)]), XML).unwrap();
    assert_eq!(why, format!("VM {} has its UUID for a name", id(2)));
}

#[test]
fn a_new_vm_goes_to_a_node_that_could_take_it_and_else_to_the_nearest_which_is_said() {
    let mut nodes = [node("hv1"), node("hv2")];
    nodes[0].report.mem_total_mib = 63;
    nodes[1].report.mem_alloc_mib = 10;
    assert_eq!(
        define_with(None, &roster(&[]), &nodes).unwrap().0,
        name("hv2"),
        "hv1 has less allocated, but no room"
    );
    nodes[1].report.mem_total_mib = 70;
    let (chosen, accepted) = define_with(None, &roster(&[]), &nodes).unwrap();
    assert_eq!(
        (chosen, accepted.notes),
        (name("hv1"), vec!["hv1 has 63 MiB of memory left, 64 MiB are needed".to_owned()])
    );
}

#[test]
fn a_vm_that_runs_somewhere_already_is_defined_there_and_nowhere_else() {
    let mut nodes = [node("hv1"), node("hv2"), node("hv3")];
    nodes[1].report.running = vec![id(1)];
    nodes[1].report.mem_total_mib = 1;
    for target in [None, Some("hv2")] {
        let (chosen, accepted) = define_with(target, &roster(&[]), &nodes).unwrap();
        assert_eq!(chosen, name("hv2"));
        assert_eq!(accepted.notes, ["it runs on hv2 already, which adopts it as it is"]);
    }
    let refused = define_with(Some("hv1"), &roster(&[]), &nodes).unwrap_err();
    assert_eq!(
        (refused.why.as_str(), refused.todo.as_str()),
        ("it runs on hv2", "define it on hv2, then migrate it to hv1")
    );
    nodes[2].report.running = vec![id(1)];
    assert_eq!(define_with(None, &roster(&[]), &nodes).unwrap_err().why, "it runs on hv2 and on hv3");
}

#[test]
fn a_node_that_does_not_run_may_be_named_and_that_is_said() {
    let mut nodes = [node("hv1"), node("hv2")];
    nodes[1].daemon_state.value = DaemonState::Dead;
    let (_, accepted) = define_with(Some("hv2"), &roster(&[]), &nodes).unwrap();
    assert_eq!(accepted.notes, ["hv2 is dead: bring it back; the VM cannot start before"]);
}

#[test]
fn a_definition_that_would_hurt_another_vm_is_refused() {
    let nodes = [node("hv1")];
    let taken = define_with(None, &roster(&[(2, "web1")]), &nodes).unwrap_err();
    assert!(taken.why.contains(&id(2).to_string()), "{taken}");
    let again = define_with(None, &roster(&[(1, "web1")]), &nodes).unwrap_err();
    assert!(again.todo.contains("undefine it first"), "{again}");
    let other = define_with(None, &roster(&[(1, "mail")]), &nodes).unwrap_err();
    assert!(other.todo.contains("UUID of its own"), "{other}");
    assert!([taken, again, other].iter().all(|r| r.kind == RefusalKind::Refused));
}

#[test]
fn a_definition_needs_a_node() {
    let unknown = define_with(Some("hv3"), &roster(&[]), &[node("hv1")]).unwrap_err();
    assert_eq!((unknown.kind, unknown.todo.as_str()), (RefusalKind::NotFound, "did you mean hv1?"));
    let mut stopped = node("hv1");
    stopped.daemon_state.value = DaemonState::Stop;
    assert_eq!(define_with(None, &roster(&[]), &[stopped]).unwrap_err().why, "no node's daemon runs");
    assert!(define_with(None, &roster(&[]), &[]).is_err());
}

/// Checks a command in every state: in `written` it writes its desired state, in `already` nothing, elsewhere it is refused.
fn table(expected: VmState, command: impl Fn(&Vm) -> Answer, written: &[VmState], already: &[VmState]) {
    for state in VmState::ALL {
        let answer = command(&vm(state, ""));
        if written.contains(&state) {
            assert_eq!(desired(&answer.unwrap()), Some(expected), "{expected} in {state}");
        } else if already.contains(&state) {
            let accepted = answer.unwrap();
            assert!(accepted.change.is_none() && !accepted.notes.is_empty(), "{expected} in {state}");
        } else {
            assert_eq!(answer.unwrap_err().kind, RefusalKind::Refused, "{expected} in {state}");
        }
    }
}

#[test]
fn the_stop_that_a_definition_begins_with_becomes_a_command_when_somebody_asks_for_it() {
    let mut vm = vm(VmState::Stop, "");
    vm.state.version = Some(0);
    for command in [stop, shutdown] {
        let change = command(&vm).unwrap().change;
        let Some(VmChange::Update { expect, set, .. }) = change else { panic!("{change:?}") };
        assert_eq!(expect, [(VmKey::State, Some(0))]);
        assert_eq!(set, [VmSet::State(VmState::Stop)]);
    }
}

#[test]
fn every_desired_state_in_every_state_is_written_or_already_so_or_refused() {
    use VmState::{Failed, Migrate, Restart, Shutdown, Start, Stop};
    let nodes = [node("hv1")];
    table(Start, |vm| start(vm, nodes.iter()), &[Stop, Shutdown, Restart, Failed], &[Start]);
    table(Stop, stop, &[Start, Shutdown, Restart, Migrate, Failed], &[Stop]);
    table(Shutdown, shutdown, &[Start, Restart], &[Shutdown, Stop]);
    table(Restart, restart, &[Start], &[Restart]);
}

#[test]
fn a_failed_vm_that_still_runs_can_be_shut_down() {
    assert_eq!(desired(&shutdown(&vm(VmState::Failed, "hv1")).unwrap()), Some(VmState::Shutdown));
}

#[test]
fn a_start_that_must_wait_for_its_node_says_so() {
    let mut nodes = [node("hv1"), node("hv2")];
    nodes[0].daemon_state.value = DaemonState::Dead;
    let accepted = start(&vm(VmState::Stop, ""), nodes.iter()).unwrap();
    assert_eq!(desired(&accepted), Some(VmState::Start));
    assert_eq!(accepted.notes, ["hv1 is dead: bring it back"]);
}

#[test]
fn a_start_that_nobody_could_do_is_refused() {
    let mut nodes = [node("hv1")];
    nodes[0].daemon_state.value = DaemonState::Stop;
    assert_eq!(start(&vm(VmState::Stop, ""), nodes.iter()).unwrap_err().why, "no node's daemon runs");
    let refusal = start(&vm(VmState::Stop, ""), [node("hv2")].iter()).unwrap_err();
    assert_eq!(refusal.why, "its node hv1 does not exist");
}

#[test]
fn undefine_stops_then_marks_then_removes() {
    let nodes = [node("hv1")];
    let step = |state, claim: &str| undefine(&vm(state, claim), nodes.iter());
    let set = |state, keys: &[VmKey]| {
        Undefine::Change(VmChange::Update {
            id: id(1),
            expect: keys.iter().map(|&key| (key, Some(7))).collect(),
            set: vec![VmSet::State(state)],
        })
    };
    for state in VmState::ALL {
        match state {
            VmState::Stop => assert_eq!(step(state, ""), set(VmState::Delete, &[VmKey::State, VmKey::Claim])),
            VmState::Delete => {
                let expect = vec![(VmKey::State, Some(7)), (VmKey::Claim, Some(7))];
                assert_eq!(step(state, ""), Undefine::Last(VmChange::Remove { id: id(1), expect }));
            }
            _ => assert_eq!(step(state, "hv1"), set(VmState::Stop, &[VmKey::State]), "{state}"),
        }
    }
}

#[test]
fn undefine_never_removes_what_somebody_may_be_executing() {
    let mut old = node("hv2");
    old.report.running = vec![id(1)];
    for state in [VmState::Stop, VmState::Delete] {
        let claimed = undefine(&vm(state, "hv1 hv3"), [node("hv1")].iter());
        assert_eq!(claimed, Undefine::WaitFor(vec![name("hv1"), name("hv3")]), "{state}");
        let reported = undefine(&vm(state, ""), [old.clone()].iter());
        assert_eq!(reported, Undefine::WaitFor(vec![name("hv2")]), "a node of the old generation, {state}");
    }
    old.daemon_state.value = DaemonState::Dead;
    let step = undefine(&vm(VmState::Stop, ""), [old].iter());
    assert!(matches!(step, Undefine::Change(_)), "a dead node's last report proves nothing");
}

#[test]
fn what_a_flush_has_shut_down_is_desired_off_though_it_is_off() {
    for state in [VmState::Stop, VmState::Shutdown] {
        let mut flushed = vm(state, "");
        assert_eq!(desired(&shutdown(&flushed).unwrap()), None);
        flushed.last_node.value = Some(flushed.node.value.clone());
        flushed.last_node.zxid = flushed.state.zxid;
        assert_eq!(desired(&stop(&flushed).unwrap()), Some(VmState::Stop));
        assert_eq!(desired(&shutdown(&flushed).unwrap()), Some(state));
    }
}

#[test]
fn a_start_that_the_cluster_has_no_memory_for_is_told() {
    let over = Overcommitted { node: name("hv1"), reserved_mib: 1200, total_mib: 1000 };
    let not_absorbed = vec![(name("hv1"), vec![id(1)]), (name("hv2"), vec![id(2)])];
    let started = vm(VmState::Start, "hv1");
    assert_eq!(
        strained(&started, &Reserve { overcommitted: vec![over], not_absorbed }),
        [
            "the VMs of hv1 may take 1200 MiB of memory now, it has 1000",
            "if hv1 dies, no other node has room for it"
        ]
    );
    assert_eq!(strained(&started, &Reserve::default()), Vec::<String>::new());
}
