//! Says what a fence waits for: in the log when it is news, and for `pvc node explain` and `pvc vm explain`. Best effort: it
//! never holds up or fails a fence.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pvc_core::{
    model::{ClusterView, DaemonMode, Explanation, NodeName, Subject, Vm},
    plan::placement,
};
use pvc_host::machine::Machine;
use pvc_store::{Store, schema};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Dependencies;

const SAY_WITHIN: Duration = Duration::from_secs(1);

/// What this daemon has said of nodes.
pub(super) struct Tell {
    store: Arc<dyn Store>,
    machine: Arc<dyn Machine>,
    me: NodeName,
    said: BTreeMap<NodeName, String>,
}

impl Tell {
    pub(super) fn new(store: Arc<dyn Store>, machine: Arc<dyn Machine>, me: NodeName) -> Self {
        Self { store, machine, me, said: BTreeMap::new() }
    }

    /// A node's fence waits for this, or there is nothing to say any more. Takes a second at most: who waits for it is the one who
    /// measures silence.
    pub(super) async fn waits(&mut self, node: &NodeName, why: &str, view: &ClusterView) {
        if timeout(SAY_WITHIN, self.say(node, why, view)).await.is_err() {
            debug!(%node, "the state store is slow: what its fence waits for is not published");
        }
    }

    async fn say(&mut self, node: &NodeName, why: &str, view: &ClusterView) {
        if why.is_empty() {
            // What is told of a fence under way, by whomever, is true until its end.
            if self.said.remove(node).is_some() && !view.fences.contains_key(node) {
                settled(&*self.store, node).await;
            }
            return;
        }
        // Figures that move are no news.
        let gist: String = why.chars().filter(|c| !c.is_ascii_digit()).collect();
        if self.said.get(node) == Some(&gist) {
            return;
        }
        self.said.insert(node.clone(), gist);
        if !self.speaks(node, view) {
            return debug!(%node, "{why}");
        }
        warn!(%node, "{why}");
        let explanation = explanation(&*self.machine, &self.me, "fencing", why);
        if let Err(error) =
            schema::explain::write(&*self.store, &Subject::Fence(node.clone()), Some(&explanation)).await
        {
            debug!(%node, %error, "could not publish what its fence waits for");
        }
    }

    /// The fencer speaks, and where there is none the first of the coordinators that work.
    fn speaks(&self, node: &NodeName, view: &ClusterView) -> bool {
        let fence = view.fences.get(node).and_then(|entry| entry.good());
        if let Some(fencer) = fence.and_then(|fence| fence.fencer.as_ref()) {
            return *fencer == self.me;
        }
        let mut coordinators =
            view.all_nodes().filter(|n| n.mode == DaemonMode::Coordinator && placement::works(n));
        coordinators.find(|n| n.name != *node).is_none_or(|first| first.name == self.me)
    }
}

/// There is nothing to explain about a node any more, unless its own daemon says so.
pub(super) async fn settled(store: &dyn Store, node: &NodeName) {
    let left = schema::node::read_explanation(store, node).await;
    let Ok(Some(Ok(left))) = left else { return };
    if left.by == node.as_str() {
        return;
    }
    if let Err(error) = schema::explain::write(store, &Subject::Fence(node.clone()), None).await {
        debug!(%node, %error, "could not withdraw an explanation");
    }
}

/// Publishes why a dead node's VM does not run; answers whether that is news.
pub(super) async fn vm(dependencies: &Dependencies, vm: &Vm, because: &str) -> bool {
    let known = schema::vm::read_explanation(&*dependencies.store, vm.id).await;
    if let Ok(Some(Ok(known))) = known
        && known.because == because
    {
        return false;
    }
    let explanation = explanation(&*dependencies.machine, &dependencies.me, "waiting", because);
    if let Err(error) =
        schema::explain::write(&*dependencies.store, &Subject::Vm(vm.id), Some(&explanation)).await
    {
        debug!(vm = %vm.name, %error, "could not publish why it is not recovered");
    }
    true
}

/// A dead node's VM has a home again: what was said of it before is void.
pub(super) async fn vm_settled(dependencies: &Dependencies, vm: &Vm) {
    if let Err(error) = schema::explain::write(&*dependencies.store, &Subject::Vm(vm.id), None).await {
        debug!(vm = %vm.name, %error, "could not withdraw an explanation");
    }
}

fn explanation(machine: &dyn Machine, by: &NodeName, doing: &str, because: &str) -> Explanation {
    Explanation {
        by: by.to_string(),
        at_unix_s: machine.unix_s(),
        doing: doing.to_owned(),
        because: because.to_owned(),
        error: None,
    }
}
