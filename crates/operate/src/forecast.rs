//! What would become of VMs. What it says is [`pvc_core::command::forecast`]'s business; here is read what that looks at.

use std::collections::{BTreeMap, BTreeSet};

use pvc_core::{
    command::{
        Roster, find,
        forecast::{Expected, Facts, Place, of_death, of_flush, of_vm},
    },
    model::{ClusterView, NodeName, VmId},
    plan::placement::{Selector, Sizes},
};

use crate::{Cluster, Failure, read::Looked};

/// What was read.
struct Ground {
    view: ClusterView,
    sizes: Sizes,
    damaged: BTreeMap<VmId, String>,
    silent: BTreeSet<NodeName>,
}

impl Ground {
    async fn read(cluster: &Cluster) -> Result<Self, Failure> {
        let view = cluster.view().await?;
        let Looked { sizes, damaged, .. } = cluster.looked(&view).await?;
        let silent = cluster.absent(&view).await?;
        Ok(Self { view, sizes, damaged, silent })
    }

    fn facts(&self, selector: Selector) -> Facts<'_> {
        let Self { view, sizes, damaged, silent } = self;
        Facts { view, sizes, damaged, silent, selector }
    }
}

/// What a flush of a node would do.
pub async fn flush(cluster: &Cluster, node: &str, selector: Selector) -> Result<Vec<Expected>, Failure> {
    let ground = Ground::read(cluster).await?;
    let node = find::node(ground.view.all_nodes(), node)?;
    Ok(of_flush(&ground.facts(selector), node))
}

/// What the death of a node would do.
pub async fn death(cluster: &Cluster, node: &str, selector: Selector) -> Result<Vec<Expected>, Failure> {
    let ground = Ground::read(cluster).await?;
    let node = find::node(ground.view.all_nodes(), node)?;
    Ok(of_death(&ground.facts(selector), &node.name))
}

/// Where a VM could go.
pub async fn vm(cluster: &Cluster, vm: &str, selector: Selector) -> Result<Vec<Place>, Failure> {
    let ground = Ground::read(cluster).await?;
    let id = Roster::of(&ground.view).find(vm)?;
    if let Some(why) = ground.damaged.get(&id) {
        return Err(Failure::Failed(format!(
            "nobody knows how much memory VM {vm} needs: its definition: {why}"
        )));
    }
    let found = ground.view.vm(id).ok_or_else(|| Failure::gone(id))?;
    Ok(of_vm(&ground.facts(selector), found))
}
