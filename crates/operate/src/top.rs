//! What who watches a cluster wants to see at once: nodes with their load, VMs by state, and which are not as asked, and why.

use std::collections::BTreeMap;

use pvc_core::{
    command::status::{Status, Unsettled, survey, unsettled},
    model::{Subject, VmState},
};
use pvc_store::schema::explain;
use serde::{Deserialize, Serialize};

use crate::{
    Cluster, Failure,
    node::{self, Listed},
    status::look,
};

/// One look at a cluster.
#[derive(Debug, Serialize, Deserialize)]
pub struct Top {
    /// What `pvc status` says.
    pub status: Status,
    /// All nodes.
    pub nodes: Vec<Listed>,
    /// Seconds for which nothing was heard of nodes that should speak.
    pub silent_s: BTreeMap<String, u64>,
    /// VMs by what is asked of them; those whose keys cannot be read are not in it.
    pub vms: BTreeMap<VmState, usize>,
    /// VMs that are not as asked.
    pub waits: Vec<Waits>,
    /// … and so many more.
    pub more_wait: usize,
}

/// A VM that is not as asked, and why.
#[derive(Debug, Serialize, Deserialize)]
pub struct Waits {
    /// Which, and what is the case.
    #[serde(flatten)]
    pub vm: Unsettled,
    /// Why, as a daemon says; `None`: none says anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// Looks, at `most` VMs that wait.
pub async fn top(cluster: &Cluster, now_unix_s: u64, most: usize) -> Result<Top, Failure> {
    let (status, vms, (waits, more_wait)) = look(cluster, now_unix_s, |facts| {
        let mut vms = BTreeMap::new();
        for vm in facts.view.good_vms() {
            *vms.entry(vm.state.value).or_insert(0) += 1;
        }
        (survey(facts), vms, unsettled(facts, most))
    })
    .await?;
    let list = node::list(cluster, now_unix_s, |_| true).await?;
    let mut told = Vec::with_capacity(waits.len());
    for vm in waits {
        let said = explain::read(&*cluster.store, &Subject::Vm(vm.id)).await?.and_then(Result::ok);
        told.push(Waits { vm, because: said.as_ref().map(crate::vm::said) });
    }
    let silent_s = list.silent_s.into_iter().map(|(node, silence)| (node.to_string(), silence)).collect();
    Ok(Top { status, nodes: list.nodes, silent_s, vms, waits: told, more_wait })
}
