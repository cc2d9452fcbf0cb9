//! What `pvc node explain` and `pvc vm explain` say about a fence. Best effort: it never fails a fence.

use pvc_core::{
    model::{ClusterView, DaemonMode, Explanation, NodeName, Subject, Vm},
    plan::placement,
};
use pvc_store::{CommitError, Store, schema};
use tracing::debug;

use crate::controller::Cluster;

/// Whether `me` speaks about a node: the fencer does, and where there is none the first of the coordinators that work.
pub(super) fn speaks(me: &NodeName, node: &NodeName, view: &ClusterView) -> bool {
    let fence = view.fences.get(node).and_then(|entry| entry.good());
    if let Some(fencer) = fence.and_then(|fence| fence.fencer.as_ref()) {
        return fencer == me;
    }
    let mut coordinators =
        view.all_nodes().filter(|n| n.mode == DaemonMode::Coordinator && placement::works(n));
    coordinators.find(|n| n.name != *node).is_none_or(|first| first.name == *me)
}

/// There is nothing to explain about a node any more, unless its own daemon says so. Answers whether that is so now.
pub(super) async fn settled(store: &dyn Store, node: &NodeName) -> bool {
    let subject = Subject::Fence(node.clone());
    let outcome = match schema::explain::read(store, &subject).await {
        Ok(Some(Ok(left))) if left.by != node.as_str() => schema::explain::write(store, &subject, None).await,
        Ok(_) => Ok(()),
        Err(error) => Err(CommitError::Failed(error)),
    };
    outcome.inspect_err(|error| debug!(%node, %error, "could not withdraw an explanation")).is_ok()
}

/// Publishes why a dead node's VM does not run; answers whether that is news.
pub(super) async fn vm(cluster: &Cluster, vm: &Vm, because: &str) -> bool {
    let known = schema::vm::read_explanation(&*cluster.store, vm.id).await;
    if let Ok(Some(Ok(known))) = known
        && known.because == because
    {
        return false;
    }
    let explanation = explanation(cluster, because);
    if let Err(error) = schema::explain::write(&*cluster.store, &Subject::Vm(vm.id), Some(&explanation)).await
    {
        debug!(vm = %vm.name, %error, "could not publish why it is not recovered");
    }
    true
}

/// A dead node's VM has a home again: what was said of it before is void.
pub(super) async fn vm_settled(cluster: &Cluster, vm: &Vm) {
    if let Err(error) = schema::explain::write(&*cluster.store, &Subject::Vm(vm.id), None).await {
        debug!(vm = %vm.name, %error, "could not withdraw an explanation");
    }
}

fn explanation(cluster: &Cluster, because: &str) -> Explanation {
    Explanation {
        by: cluster.me.to_string(),
        at_unix_s: cluster.machine.unix_s(),
        doing: "waiting".to_owned(),
        because: because.to_owned(),
        error: None,
    }
}
