use super::*;
use crate::{
    command::testing::{field, id, name, node, view, vm},
    model::{DaemonState, DomainState, FenceJob, FenceStep, Proof, RouterState, VmState},
};

fn told(before: &ClusterView, now: &ClusterView) -> Vec<String> {
    let line = |news: News| format!("{:?} {}: {}", news.kind, news.name, news.what);
    between(before, now).into_iter().map(line).collect()
}

fn fenced(view: &ClusterView, step: Option<FenceStep>, fencer: Option<&str>) -> ClusterView {
    let mut view = view.clone();
    let fence = step.map(|step| Fence {
        node: name("hv2"),
        job: FenceJob {
            step,
            instance: None,
            by: "hv1".into(),
            at_unix_s: 0,
            confirmed_dead: None,
            asked: None,
            boot: None,
            freed: BTreeSet::new(),
            earlier: Vec::new(),
            keepalive_version: None,
        },
        version: 0,
        fencer: fencer.map(name),
    });
    view.fences = Arc::new(fence.into_iter().map(|fence| (name("hv2"), Entry::Good(fence))).collect());
    view
}

#[test]
fn a_failover_is_told_from_the_silence_to_the_start_elsewhere() {
    let before =
        view(&[node("hv1"), node("hv2")], &[Vm { node: field(name("hv2")), ..vm(VmState::Start, "hv2") }]);
    let dead = Node { daemon_state: field(DaemonState::Dead), ..node("hv2") };
    let moved = Vm { node: field(name("hv1")), ..vm(VmState::Start, "") };
    let silent = fenced(
        &view(&[node("hv1"), dead.clone()], &[before.vm(id(1)).unwrap().clone()]),
        Some(FenceStep::Shooting),
        Some("hv1"),
    );
    assert_eq!(
        told(&before, &silent),
        ["Node hv2: daemon: run → dead", "Node hv2: is being fenced, by hv1: its power is being cut"]
    );
    let recovered = fenced(
        &view(&[node("hv1"), dead.clone()], &[moved]),
        Some(FenceStep::Recovered { proof: Proof::PowerOff }),
        None,
    );
    let lines = told(&silent, &recovered);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("Node hv2: is being fenced, nobody works on it now"), "{lines:?}");
    assert_eq!(lines[1..], ["Vm web1: node: hv2 → hv1", "Vm web1: claimed by: hv2 → nobody"]);
    let mut runs = node("hv1");
    runs.report.running = vec![id(1)];
    let over = view(&[runs, dead], &[Vm { node: field(name("hv1")), ..vm(VmState::Start, "hv1") }]);
    assert_eq!(
        told(&recovered, &over),
        [
            "Vm web1: hv1 says that it runs there",
            "Node hv2: its fence is over",
            "Vm web1: claimed by: nobody → hv1"
        ]
    );
}

#[test]
fn what_appears_changes_and_goes_is_told_once_and_figures_are_not() {
    let mut before = view(&[node("hv1")], &[]);
    before.primary_holder = Some(name("hv1"));
    let mut busy = node("hv1");
    busy.report.cpu_load = 7.0;
    busy.domain_state.value = DomainState::Flush;
    busy.router_state.value = RouterState::Primary;
    busy.report.cannot_start = Some("no libvirt".into());
    let failed = Vm { failed_reason: field("no disk".into()), ..vm(VmState::Start, "") };
    let mut now = view(&[busy, node("hv3")], &[failed]);
    now.maintenance = true;
    assert_eq!(
        told(&before, &now),
        [
            "Cluster : primary: hv1 → nobody",
            "Cluster : maintenance: off → on",
            "Node hv1: router: secondary → primary",
            "Node hv1: VMs: ready → flush",
            "Node hv1: can start no VMs: no libvirt",
            "Node hv3: is in the cluster",
            "Vm web1: is defined",
        ]
    );
    let renamed = Vm { name: "web2".parse().unwrap(), xml_version: Some(1), ..vm(VmState::Stop, "") };
    let later = view(&[node("hv3")], &[Vm { failed_reason: field("no bridge".into()), ..renamed }]);
    let lines = told(&ClusterView { primary_holder: None, maintenance: true, ..now.clone() }, &later);
    assert_eq!(
        lines,
        [
            "Cluster : maintenance: on → off",
            "Node hv1: was removed from the cluster",
            "Vm web2: name: web1 → web2",
            "Vm web2: desired: start → stop",
            "Vm web2: its definition was written",
            "Vm web2: says: no bridge",
        ]
    );
    assert_eq!(told(&now, &now), [""; 0]);
    let mut figures = now.clone();
    let mut busier = (*now.nodes[&name("hv1")]).clone();
    busier.report.cpu_load = 9.0;
    Arc::make_mut(&mut figures.nodes).insert(name("hv1"), Arc::new(busier));
    assert_eq!(told(&now, &figures), [""; 0]);
}
