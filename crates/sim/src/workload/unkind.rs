//! Operators and clients that do what the manual advises against: they name no node, write definitions that nobody can use, undefine
//! and define again at once, stop what a flush has just shut down. And the operator who repairs it when it is calm.

use std::{sync::Arc, time::Duration};

use pvc_core::model::{ClusterView, DomainSpec, VmState};
use pvc_store::{Op, Store as _, Transaction};
use tokio::time::sleep;

use super::{No, Operator, perform};
use crate::{
    cluster::Cluster,
    event::Phase,
    schedule::{Command, Definition, OldState},
};

/// How many VMs of a node are stopped at once.
const A_FEW: usize = 3;

/// Undefines a VM, defines it again and starts it, without a pause.
pub(super) async fn redefine(cluster: Arc<Cluster>, client: u32, vm: usize) {
    for command in [Command::Undefine(vm), Command::Define(vm), Command::Start(vm)] {
        // Nothing new is desired when it is calm.
        if cluster.around.journal.truth(|truth| truth.phase) != Phase::Chaos {
            return;
        }
        perform(Arc::clone(&cluster), client, command).await;
    }
}

/// Stops a few of the VMs that are on a node, or were before its flush: by a command, or as an old client.
pub(super) async fn stop_on(cluster: Arc<Cluster>, client: u32, node: usize) {
    let name = cluster.nodes[node].name.clone();
    let is_there = |tree: &crate::tree::Tree, number: &usize| {
        let id = cluster.vms[*number];
        tree.vm(id, "node") == name.as_str() || tree.vm(id, "lastnode") == name.as_str()
    };
    let all: Vec<usize> = cluster
        .around
        .journal
        .tree(|tree| (0..cluster.vms.len()).filter(|number| is_there(tree, number)).take(A_FEW).collect());
    for (n, vm) in all.into_iter().enumerate() {
        let command = match n {
            0 => Command::Stop(vm),
            1 => Command::WriteState(vm, OldState::Stop),
            _ => Command::Shutdown(vm),
        };
        perform(Arc::clone(&cluster), client, command).await;
        sleep(Duration::from_millis(300)).await;
    }
}

/// Starts a few of the VMs that are off on a node: by a command, which may look whether it can, or as an old client.
pub(super) async fn start_on(cluster: Arc<Cluster>, client: u32, node: usize) {
    let name = cluster.nodes[node].name.clone();
    let is_off = |tree: &crate::tree::Tree, number: &usize| {
        let id = cluster.vms[*number];
        tree.vm(id, "node") == name.as_str() && tree.vm(id, "state") == "stop"
    };
    let all: Vec<usize> = cluster
        .around
        .journal
        .tree(|tree| (0..cluster.vms.len()).filter(|number| is_off(tree, number)).take(A_FEW).collect());
    for (n, vm) in all.into_iter().enumerate() {
        let command = if n == 0 { Command::Start(vm) } else { Command::WriteState(vm, OldState::Start) };
        perform(Arc::clone(&cluster), client, command).await;
        sleep(Duration::from_millis(300)).await;
    }
}

impl Operator<'_> {
    /// As an old API's `migrate` without a node.
    pub(super) async fn write_none(&self, vm: usize) -> Result<String, No> {
        let now = self.client.view().await?;
        let seen = now.vm(self.id(vm)).ok_or_else(|| No::Refused("no such VM".into()))?;
        if seen.state.value != VmState::Start {
            return Err(No::Refused("it does not run".into()));
        }
        let from = seen.node.value.to_string();
        self.write(&[(vm, "state", "migrate"), (vm, "node", "None"), (vm, "lastnode", &from)]).await
    }

    /// As an old client's `modify -r`, whatever is there.
    pub(super) async fn write_modify(&self, vm: usize, how: Definition) -> Result<String, No> {
        let xml = self.definition(vm, how);
        let id = self.id(vm);
        let set = |path: String, text: &str| Op::Set { path, data: text.as_bytes().to_vec(), version: None };
        let ops = vec![
            set(format!("/domains/{id}"), &format!("vm{vm}")),
            set(format!("/domains/{id}/xml"), &xml),
            set(format!("/domains/{id}/state"), "restart"),
        ];
        self.store.commit(Transaction { ops }).await?;
        Ok("done".into())
    }
}

/// What an operator does when it is calm: definitions that nobody can use are written again, and what a broken machine had is
/// given another home.
pub(super) async fn repair(cluster: &Arc<Cluster>, operator: &Operator<'_>, view: &ClusterView) {
    let gone = cluster.gone();
    if let Some(gone) = gone {
        perform(Arc::clone(cluster), 0, Command::ConfirmDead(gone)).await;
    }
    for (number, id) in cluster.vms.iter().enumerate() {
        let path = format!("/domains/{id}/xml");
        let xml = cluster.around.journal.tree(|tree| tree.text(&path).map(str::to_owned));
        let Some(xml) = xml else { continue };
        if DomainSpec::parse(&xml).is_err() {
            let data = operator.definition(number, Definition::Good).into_bytes();
            let _ =
                operator.store.commit(Transaction { ops: vec![Op::Set { path, data, version: None }] }).await;
        }
        let there =
            gone.filter(|gone| view.vm(*id).is_some_and(|vm| vm.node.value == cluster.nodes[*gone].name));
        if let Some(gone) = there {
            let other = (gone + 1 + number % (cluster.nodes.len() - 1)) % cluster.nodes.len();
            perform(Arc::clone(cluster), 0, Command::Move(number, other)).await;
        }
    }
}
