//! Why a node is as it is: its daemon, its fence, its flush, what keeps VMs from it. Works also, and above all, when something is broken:
//! whatever can be read is told.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

mod conclusion;

use pvc_core::{
    model::{ClusterView, Entry, Explanation, Fence, FenceJob, FlushProgress, Node, NodeName, Problem, VmId},
    plan::placement::{Size, Unfit},
};
use pvc_store::schema::{flush, node, owner, primary};
use serde::{Serialize, Serializer};

use super::look_up;
use crate::{
    Cluster, Failure, Nodes,
    explain::{Said, problems},
};

/// Everything that is known of a node.
#[derive(Debug)]
pub struct NodeExplanation {
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
#[derive(Debug, Default, Serialize)]
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
    Ok(NodeExplanation {
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
    })
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

impl NodeExplanation {
    /// The one sentence that an operator came for.
    pub fn conclusion(&self) -> String {
        conclusion::conclude(self)
    }
}

impl Serialize for NodeExplanation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            name: &'a NodeName,
            daemon_state: &'a str,
            coordinator_state: &'a str,
            domain_state: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            silent_s: Option<u64>,
            connected: bool,
            maintenance: bool,
            primary_asked: Option<&'a NodeName>,
            primary: Option<&'a NodeName>,
            fence: Option<FenceShape<'a>>,
            flush: Option<&'a FlushProgress>,
            explanation: Option<&'a Explanation>,
            #[serde(skip_serializing_if = "Option::is_none")]
            as_primary: Option<&'a Explanation>,
            takes_vms: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            takes_none_because: Option<String>,
            memory_reserved_mib: u64,
            vms: &'a Vms,
            problems: Vec<String>,
            conclusion: String,
        }
        #[derive(Serialize)]
        struct FenceShape<'a> {
            #[serde(flatten)]
            job: &'a FenceJob,
            fencer: Option<&'a NodeName>,
        }
        let node = &self.node;
        let broken = node.problems.iter().chain(self.fence.iter().flat_map(problems));
        let broken = broken.chain(self.flush.iter().filter_map(|flush| flush.as_ref().err()));
        let broken = broken.chain(self.said.iter().filter_map(|said| said.as_ref().err()));
        let fence = self.fence.as_ref().and_then(Entry::good);
        let shape = Shape {
            name: &node.name,
            daemon_state: node.daemon_state.value.as_str(),
            coordinator_state: node.router_state.value.as_str(),
            domain_state: node.domain_state.value.as_str(),
            silent_s: self.silent_s,
            connected: self.connected,
            maintenance: self.maintenance,
            primary_asked: self.primary_asked.as_ref(),
            primary: self.primary.as_ref(),
            fence: fence.map(|fence| FenceShape { job: &fence.job, fencer: fence.fencer.as_ref() }),
            flush: self.flush.as_ref().and_then(|flush| flush.as_ref().ok()),
            explanation: self.said.as_ref().and_then(|said| said.as_ref().ok()),
            as_primary: self.as_primary.as_ref(),
            takes_vms: self.unfit.is_none(),
            takes_none_because: self.unfit.as_ref().map(|unfit| format!("it {unfit}")),
            memory_reserved_mib: self.reserved_mib,
            vms: &self.vms,
            problems: broken.map(ToString::to_string).collect(),
            conclusion: self.conclusion(),
        };
        shape.serialize(serializer)
    }
}
