//! Flush and ready: writes the desired state of a node's VMs, and looks until it is so.

use std::time::Duration;

use async_trait::async_trait;
use pvc_core::{
    command::{Roster, find, node as command},
    model::{ClusterView, DomainState, FlushProgress, Node, NodeName},
};
use pvc_store::schema::{explain, flush as progress, node};

use crate::{
    Answer, Asked, Cluster, Failure, Goal, NodeGoal,
    wait::{Look, Pursuit},
};

/// An hour: a node full of large guests takes its time.
const PATIENCE: Duration = Duration::from_hours(1);

/// Has a node send its VMs away.
pub async fn flush(cluster: &Cluster, name: &str) -> Result<Asked, Failure> {
    ask(cluster, name, Kind::Flush).await
}

/// Has a node take VMs, first those that were sent away from it.
pub async fn ready(cluster: &Cluster, name: &str) -> Result<Asked, Failure> {
    ask(cluster, name, Kind::Ready).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Flush,
    Ready,
}

async fn ask(cluster: &Cluster, name: &str, kind: Kind) -> Result<Asked, Failure> {
    let accepted = super::write(cluster, |view: &ClusterView| match kind {
        Kind::Flush => command::flush(view, name),
        Kind::Ready => command::ready(view, name),
    })
    .await?;
    let (words, opposite) = match kind {
        Kind::Flush => ("is to be flushed", "ready"),
        Kind::Ready => ("is to take VMs", "flush"),
    };
    let node = find::name(name)?;
    Ok(Asked {
        subject: name.to_owned(),
        answer: Answer { message: format!("{name} {words}"), notes: accepted.notes },
        written: accepted.change.is_some(),
        more: format!(
            "It goes on; `pvc node explain {name}` says more, `pvc node {opposite} {name}` calls it off"
        ),
        patience: PATIENCE,
        pursuit: Some(Box::new(Flushing::of(node, kind))),
    })
}

/// A flush or an unflush that is followed.
#[derive(Debug)]
pub(super) struct Flushing {
    node: NodeName,
    kind: Kind,
    last: FlushProgress,
}

impl Flushing {
    pub(super) fn of(node: NodeName, kind: Kind) -> Self {
        Self { node, kind, last: FlushProgress::default() }
    }
}

#[async_trait]
impl Pursuit for Flushing {
    fn paths(&self) -> Vec<String> {
        vec![node::domain_state_path(&self.node), progress::path(&self.node), explain::node_path(&self.node)]
    }

    fn goal(&self) -> Option<Goal> {
        let goal = if self.kind == Kind::Flush { NodeGoal::Flush } else { NodeGoal::Ready };
        Some(Goal::Node(self.node.clone(), goal))
    }

    async fn look(&mut self, cluster: &Cluster) -> Result<Look<Answer>, Failure> {
        let (store, name) = (&*cluster.store, &self.node);
        if let Some(Ok(progress)) = progress::read(store, name).await? {
            self.last = progress;
        }
        let said = node::read_explanation(store, name).await?.and_then(Result::ok);
        let node = match node::read(store, name).await? {
            Some(node) => node,
            // Gone: this says what there is.
            None => cluster.nodes().await?.find(name.as_str())?.clone(),
        };
        match judge(self.kind, &node, &self.last, said.map(|e| format!("{}: {}", e.doing, e.because)))? {
            Look::NotYet(what) => Ok(Look::NotYet(what)),
            Look::Done(()) => {
                let done = if self.kind == Kind::Flush { "is flushed" } else { "takes VMs" };
                let notes = stuck(&self.last, &cluster.roster().await?);
                Ok(Look::Done(Answer { message: format!("{name} {done}"), notes }))
            }
        }
    }
}

/// Whether it is done, cannot be done any more, or not yet.
fn judge(
    kind: Kind,
    node: &Node,
    progress: &FlushProgress,
    said: Option<String>,
) -> Result<Look<()>, Failure> {
    let state = node.domain_state.value;
    let (going_on, done) = match kind {
        Kind::Flush => (DomainState::Flush, DomainState::Flushed),
        Kind::Ready => (DomainState::Unflush, DomainState::Ready),
    };
    if state == done {
        return Ok(Look::Done(()));
    }
    if state != going_on {
        let what = format!("{}: somebody else has asked for {state} meanwhile, which counts", node.name);
        return Err(Failure::Failed(what));
    }
    let moved = progress.total.saturating_sub(progress.left);
    let how_far = match progress.total {
        0 => format!("waiting for {}", node.name),
        total => format!("{moved} of {total} VMs have moved, {} are moving", progress.moving),
    };
    Ok(Look::NotYet(match (said, progress.stuck.len()) {
        (Some(said), _) if progress.total == 0 => said,
        (_, 0) => how_far,
        (_, n) => format!("{how_far}, {n} cannot"),
    }))
}

/// What became of the VMs that did not move as desired.
fn stuck(progress: &FlushProgress, roster: &Roster) -> Vec<String> {
    let name = |id: &str| id.parse().ok().and_then(|id| roster.name(id)).unwrap_or(id).to_owned();
    progress.stuck.iter().map(|stuck| format!("VM {}: {}", name(&stuck.vm), stuck.reason)).collect()
}
