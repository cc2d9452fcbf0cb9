//! Why a node is as it is: its daemon, its fence, its flush, what keeps VMs from it. Works also, and above all, when something is broken:
//! whatever can be read is told.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

mod conclusion;

use pvc_core::{
    model::{
        ClusterView, DaemonMode, DaemonState, DomainState, Entry, Explanation, Fence, FenceJob,
        FlushProgress, Node, NodeName, Problem, RouterState, VmId,
    },
    plan::placement::{Size, Unfit},
};
use pvc_store::schema::{flush, node, owner, primary};
use serde::{Deserialize, Serialize};

use super::look_up;
use crate::{
    Cluster, Failure, Nodes,
    explain::{Said, problems, told},
};

/// Everything that is known of a node, with the words of the API.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeExplanation {
    pub name: NodeName,
    pub daemon_mode: DaemonMode,
    pub daemon_state: DaemonState,
    pub coordinator_state: RouterState,
    pub domain_state: DomainState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_s: Option<u64>,
    /// Whether its daemon has a session.
    pub connected: bool,
    pub maintenance: bool,
    pub primary_asked: Option<NodeName>,
    pub primary: Option<NodeName>,
    /// `None` also if its record cannot be read.
    pub fence: Option<FenceShown>,
    pub flush: Option<FlushProgress>,
    pub explanation: Option<Explanation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_primary: Option<Explanation>,
    pub takes_vms: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_none_because: Option<String>,
    pub memory_reserved_mib: u64,
    pub vms: Vms,
    /// What cannot be read of its keys, its fence, its flush and what its daemon says.
    pub problems: Vec<String>,
    pub conclusion: String,
}

/// Its fence.
#[derive(Debug, Serialize, Deserialize)]
pub struct FenceShown {
    #[serde(flatten)]
    pub job: FenceJob,
    /// Who works on it now; `None`: nobody.
    pub fencer: Option<NodeName>,
}

/// Everything that is known of a node.
#[derive(Debug)]
pub(crate) struct Facts {
    pub node: Node,
    pub silent_s: Option<u64>,
    pub connected: bool,
    pub maintenance: bool,
    pub primary_asked: Option<NodeName>,
    pub primary: Option<NodeName>,
    pub fence: Option<Entry<Fence>>,
    pub flush: Option<Result<FlushProgress, Problem>>,
    pub said: Said,
    pub as_primary: Option<Explanation>,
    pub unfit: Option<Unfit>,
    pub reserved_mib: u64,
    pub vms: Vms,
}

/// VMs by name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Vms {
    /// Which it may be executing.
    pub claimed: Vec<String>,
    /// Which belong here, asked to run or not.
    pub belong: Vec<String>,
    /// Which are to return when it takes VMs again.
    pub away: Vec<String>,
}

/// Explains a node.
pub async fn explain(
    cluster: &Cluster,
    reference: &str,
    now_unix_s: u64,
) -> Result<NodeExplanation, Failure> {
    let (view, node) = look_up(cluster, reference).await?;
    let (store, name) = (&*cluster.store, node.name.clone());
    let ground = cluster.capacity(&view).await?;
    let as_primary = primary::read_explanation(store).await?.and_then(Result::ok);
    Ok(NodeExplanation::from(Facts {
        silent_s: Nodes::of(&view).silent_s(&name, now_unix_s),
        connected: owner::read(store, &name).await?.is_some(),
        maintenance: view.maintenance,
        primary_asked: view.primary_node.value.clone(),
        primary: view.primary_holder.clone(),
        fence: view.fences.get(&name).cloned(),
        flush: flush::read(store, &name).await?,
        said: node::read_explanation(store, &name).await?,
        as_primary: as_primary.filter(|said| said.by == name.as_str()),
        unfit: ground.capacity.admits(&name, VmId::NIL, Size::default()).err(),
        reserved_mib: ground.capacity.reserved_mib(&name),
        vms: vms(&view, &name),
        node,
    }))
}

fn vms(view: &ClusterView, name: &NodeName) -> Vms {
    let named = |of: &dyn Fn(&pvc_core::model::Vm) -> bool| {
        let mut names: Vec<String> =
            view.good_vms().filter(|vm| of(vm)).map(|vm| vm.name.to_string()).collect();
        names.sort_unstable();
        names
    };
    Vms {
        claimed: named(&|vm| vm.claim.value.names(name)),
        belong: named(&|vm| vm.node.value == *name),
        away: named(&|vm| vm.last_node.value.as_ref() == Some(name)),
    }
}

impl From<Facts> for NodeExplanation {
    fn from(facts: Facts) -> Self {
        let conclusion = conclusion::conclude(&facts);
        let broken = facts.node.problems.iter().chain(facts.fence.iter().flat_map(problems));
        let broken = broken.chain(facts.flush.iter().filter_map(|flush| flush.as_ref().err()));
        let (explanation, unreadable) = told(facts.said);
        let problems = broken.map(ToString::to_string).chain(unreadable).collect();
        let node = facts.node;
        Self {
            name: node.name,
            daemon_mode: node.mode,
            daemon_state: node.daemon_state.value,
            coordinator_state: node.router_state.value,
            domain_state: node.domain_state.value,
            silent_s: facts.silent_s,
            connected: facts.connected,
            maintenance: facts.maintenance,
            primary_asked: facts.primary_asked,
            primary: facts.primary,
            fence: match facts.fence {
                Some(Entry::Good(Fence { job, fencer, .. })) => Some(FenceShown { job, fencer }),
                Some(Entry::Bad(_)) | None => None,
            },
            flush: facts.flush.and_then(Result::ok),
            explanation,
            as_primary: facts.as_primary,
            takes_vms: facts.unfit.is_none(),
            takes_none_because: facts.unfit.map(|unfit| format!("it {unfit}")),
            memory_reserved_mib: facts.reserved_mib,
            vms: facts.vms,
            problems,
            conclusion,
        }
    }
}
