//! Where a VM's guest is, as far as the state tree says, and when that changes: for who follows it from node to node.

use pvc_core::model::{NodeName, VmId, VmKey, VmName, VmState};
use pvc_store::{Watch, schema::vm};

use crate::{Cluster, Failure, wait::changed};

/// Told when it changes.
pub struct Whereabouts {
    id: VmId,
    watches: Vec<Watch>,
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// What the VM is called.
    pub name: VmName,
    /// The nodes that may be executing it, in the order of its claim: the first is where a migration that is under way comes from.
    pub nodes: Vec<NodeName>,
    /// What is desired.
    pub state: VmState,
}

impl Home {
    /// Whether it executes nowhere, and nobody wants it to.
    pub fn is_off(&self) -> bool {
        is_off(self.state, &self.nodes)
    }
}

/// Whether a VM executes nowhere, and nobody wants it to.
pub fn is_off(state: VmState, claim: &[NodeName]) -> bool {
    let is_unwanted = matches!(state, VmState::Stop | VmState::Shutdown | VmState::Failed | VmState::Delete);
    is_unwanted && claim.is_empty()
}

impl Whereabouts {
    /// Watches a VM.
    pub fn watch(cluster: &Cluster, id: VmId) -> Self {
        let paths = [VmKey::Claim, VmKey::State].map(|key| vm::key_path(id, key));
        Self { id, watches: paths.iter().map(|path| cluster.store.watch(path)).collect() }
    }

    /// Looks.
    pub async fn look(&self, cluster: &Cluster) -> Result<Home, Failure> {
        let vm = cluster.vm(self.id).await?;
        let nodes = vm.claim.value.iter().cloned().collect();
        Ok(Home { name: vm.name, nodes, state: vm.state.value })
    }

    /// Returns when it may have changed since this was called last. Nothing is lost when this future is dropped.
    pub async fn changed(&mut self) {
        changed(&mut self.watches).await;
    }
}
