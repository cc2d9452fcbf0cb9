//! One VM: its keys, its definition, its console.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

use std::collections::BTreeSet;

use pvc_core::model::{DomainDetails, NodeName, VmId, VmKey, VmState};
use pvc_store::schema::vm;
use serde::{Deserialize, Serialize};

use super::{
    list::{last_node, migrated},
    log::last_lines,
};
use crate::{Cluster, Failure, Nodes, Runners, read::said_last};

/// A VM, with the words of the API; `running_on` and `claim` are ours.
#[derive(Debug, Serialize, Deserialize)]
pub struct VmInfo {
    pub name: String,
    pub uuid: VmId,
    pub state: VmState,
    pub node: String,
    pub last_node: String,
    pub migrated: String,
    pub failed_reason: String,
    #[serde(flatten)]
    pub runners: Runners,
    /// Whose last word is that it runs there, which no claim has answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_run_on: Vec<NodeName>,
    /// Keys that do not hold what is shown of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unreadable: BTreeSet<VmKey>,
    /// The nodes that may be executing it.
    pub claim: Vec<NodeName>,
    #[serde(flatten)]
    pub details: Option<DomainDetails>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    pub xml: String,
}

/// A VM's definition.
#[derive(Debug, Serialize, Deserialize)]
pub struct Dump {
    pub uuid: VmId,
    pub xml: String,
    /// Moves whenever the definition is written.
    #[serde(skip)]
    pub version: i32,
}

/// The end of a VM's console.
#[derive(Debug, Serialize, Deserialize)]
pub struct Console {
    pub uuid: VmId,
    pub log: String,
}

/// The definition of a VM.
pub async fn dump(cluster: &Cluster, reference: &str) -> Result<Dump, Failure> {
    let uuid = cluster.find_vm(reference).await?;
    let found = vm::read_xml(&*cluster.store, uuid).await?;
    let (xml, version) = found.ok_or_else(|| Failure::Failed(format!("VM {reference} has no definition")))?;
    Ok(Dump { uuid, xml, version })
}

impl Console {
    /// The last lines of a window.
    pub fn of(uuid: VmId, window: &str, lines: usize) -> Self {
        Self { uuid, log: last_lines(window, lines).to_owned() }
    }
}

/// A VM that must be in order.
pub async fn info(cluster: &Cluster, reference: &str) -> Result<VmInfo, Failure> {
    let id = cluster.find_vm(reference).await?;
    let vm = cluster.vm(id).await?;
    let view = cluster.view_without_vms().await?;
    let runners = Nodes::of(&view).runners().remove(&id).unwrap_or_default().unanswered(&view, id, &vm.claim);
    let xml = vm::read_xml(&*cluster.store, id).await?.map(|(xml, _)| xml).unwrap_or_default();
    let details = DomainDetails::parse(&xml).map_err(|e| format!("the definition is unreadable: {e}"));
    Ok(VmInfo {
        name: vm.name.to_string(),
        uuid: id,
        state: vm.state.value,
        node: vm.node.value.to_string(),
        last_node: last_node(&vm),
        migrated: migrated(&vm),
        failed_reason: vm.failed_reason.value.clone(),
        claim: vm.claim.value.iter().cloned().collect(),
        problem: details.as_ref().err().cloned(),
        details: details.ok(),
        xml,
        may_run_on: said_last(&view, id, &vm.claim),
        runners,
        unreadable: vm.unread,
    })
}
