//! Nodes and VMs for tables.

use std::sync::Arc;

use crate::{
    model::{
        Claim, ClusterView, DaemonMode, DaemonState, DomainState, Entry, Field, Moment, Node, NodeName,
        NodeReport, RouterState, StaticData, Vm, VmId, VmState,
    },
    plan::liveness::Heard,
};

pub(crate) fn field<T>(value: T) -> Field<T> {
    Field { value, version: Some(7), zxid: 1 }
}

pub(crate) fn name(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub(crate) fn id(number: u8) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{number:02x}").parse().unwrap()
}

/// A node that runs, takes VMs and has 1000 MiB.
pub(crate) fn node(node: &str) -> Node {
    Node {
        name: name(node),
        mode: DaemonMode::Coordinator,
        daemon_state: field(DaemonState::Run),
        router_state: field(RouterState::Secondary),
        domain_state: field(DomainState::Ready),
        static_data: Some(StaticData {
            cpu_count: 8,
            kernel: "6.1".into(),
            os: "GNU/Linux".into(),
            arch: "x86_64".into(),
        }),
        report: NodeReport { mem_total_mib: 1000, ..NodeReport::default() },
        keepalive_version: Some(3),
        keepalive_zxid: 1,
        keepalive_interval: None,
        boot: Some("boot".into()),
        self_fence_s: None,
        vtep: None,
        storage: Some(true),
        storage_host: None,
        problems: Vec::new(),
        last_word: field(()),
    }
}

/// What is heard of these nodes at that moment: a keepalive is another one if its version is.
pub(crate) fn heard(view: &ClusterView, now: Moment) -> Heard {
    let number = |node: &Node| node.keepalive_version.map(|version| u64::from(version.cast_unsigned()));
    let last = view.all_nodes().filter_map(|node| Some((node.name.clone(), (number(node)?, now))));
    Heard { gaps: 0, last: last.collect() }
}

/// VM `web1`, number 1, on `hv1`.
pub(crate) fn vm(state: VmState, claim: &str) -> Vm {
    Vm {
        id: id(1),
        name: "web1".parse().unwrap(),
        state: field(state),
        node: field(name("hv1")),
        last_node: field(None),
        failed_reason: field(String::new()),
        claim: field(claim.parse::<Claim>().unwrap()),
        migration_method: crate::model::MigrationMethod::default(),
        rbd_images: Vec::new(),
        xml_version: Some(0),
        xml_zxid: Some(0),
        unread: std::collections::BTreeSet::new(),
        problems: Vec::new(),
    }
}

/// A cluster of these.
pub(crate) fn view(nodes: &[Node], vms: &[Vm]) -> ClusterView {
    ClusterView {
        nodes: Arc::new(nodes.iter().map(|n| (n.name.clone(), Arc::new(n.clone()))).collect()),
        vms: Arc::new(vms.iter().map(|v| (v.id, Arc::new(Entry::Good(v.clone())))).collect()),
        placement_version: Some(4),
        ..ClusterView::default()
    }
}
