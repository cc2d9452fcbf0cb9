//! Commands on nodes, and what is known of them.

mod dead;
mod domain_state;
mod explain;
mod fences;
mod info;
mod primary;
mod remove;
mod replace;

pub use dead::{Death, cancel_fence, confirm_dead, fence};
pub use domain_state::{flush, ready};
pub use explain::{FenceShown, NodeExplanation, Vms, explain};
pub use fences::{FenceRow, fences};
pub use info::{Listed, Memory, NodeInfo, NodeList, info, list};
pub use primary::{primary, secondary};
pub use remove::remove;
pub use replace::replace;

use async_trait::async_trait;
use pvc_core::{
    command::{
        Accepted, Refusal, find,
        node::{Life, NodeChange},
    },
    model::{ClusterView, Node, NodeName},
};
use pvc_store::{
    Clash, CommitError, Transaction,
    schema::{fence, node, owner, primary as holder},
};

use crate::{
    Answer, Cluster, Failure, Goal, NodeGoal, Progress,
    wait::{Look, Pursuit, Waited, until},
    write::{ATTEMPTS, Tries},
};

/// What is looked at until a node is so.
pub(crate) fn pursuit(node: NodeName, goal: NodeGoal) -> Box<dyn Pursuit> {
    match goal {
        NodeGoal::Flush => Box::new(domain_state::Flushing::of(node, domain_state::Kind::Flush)),
        NodeGoal::Ready => Box::new(domain_state::Flushing::of(node, domain_state::Kind::Ready)),
        NodeGoal::Fence => Box::new(dead::Fencing { name: node }),
        NodeGoal::Primary => Box::new(primary::HandOver { node, takes: true }),
        NodeGoal::Secondary => Box::new(primary::HandOver { node, takes: false }),
    }
}

/// Decides and writes, anew if somebody else was faster.
async fn write(
    cluster: &Cluster,
    decide: impl Fn(&ClusterView) -> Result<Accepted<NodeChange>, Refusal>,
) -> Result<Accepted<NodeChange>, Failure> {
    let mut tries = Tries::of(ATTEMPTS);
    loop {
        let accepted = decide(&cluster.view().await?)?;
        let Some(change) = &accepted.change else { return Ok(accepted) };
        let written = match transaction(cluster, change).await? {
            Some(transaction) => cluster.store.commit(transaction).await,
            None => Err(CommitError::Conflict { op: 0, path: fence::ROOT.to_owned(), clash: Clash::Changed }),
        };
        if tries.wrote(written)? {
            return Ok(accepted);
        }
    }
}

/// What is to be written; `None`: it is not as it was any more.
async fn transaction(cluster: &Cluster, change: &NodeChange) -> Result<Option<Transaction>, Failure> {
    Ok(Some(match change {
        NodeChange::DomainState { node, state, version } => node::set_domain_state(node, *state, *version),
        NodeChange::Primary { seen, node } => holder::desired(seen, node.as_ref()),
        NodeChange::Fence { seen, job } => fence::ask(seen, job),
        NodeChange::ConfirmDead { seen, fence, job } => fence::confirm_dead(seen, fence.as_ref(), job),
        NodeChange::CancelFence { seen, fence: Some(fence) } => fence::cancel(fence, seen),
        NodeChange::CancelFence { seen, fence: None } => {
            let raw = fence::read_unreadable(&*cluster.store, &seen.name).await?;
            return Ok(raw.map(|raw| fence::cancel_unreadable(&raw, seen)));
        }
    }))
}

/// A command that may end with VMs started elsewhere: looked into, and not carried out before somebody has said yes.
#[derive(Debug)]
pub struct Prepared<T> {
    /// What to say yes to; `None`: it is so already, and nothing will be written.
    pub question: Option<String>,
    /// What is the case if nobody does: `hv2 is not fenced`.
    pub otherwise: String,
    /// What was seen when the question was made, beyond what it says: a yes to this one is none to another.
    seen: String,
    done: T,
}

impl<T> Prepared<T> {
    /// All that a yes is bound to: the question, and what was seen when it was made.
    pub fn bound(&self) -> String {
        format!("{}\n{}", self.question.as_deref().unwrap_or_default(), self.seen)
    }
}

/// What there is of a node that a yes is bound to: who runs there, and all the VMs that it claims. What it reports changes with each keepalive.
fn seen(view: &ClusterView, name: &NodeName, life: &Life) -> String {
    let mut vms: Vec<String> =
        view.good_vms().filter(|vm| vm.claim.value.names(name)).map(|vm| vm.id.to_string()).collect();
    vms.sort_unstable();
    let node = view.node(name).map(|node| {
        let states = (node.daemon_state.value, node.domain_state.value, node.router_state.value);
        (states, node.daemon_state.version, node.domain_state.version, node.boot.clone())
    });
    format!("{name} {:?} {} {node:?} {}", life.instance, life.has_bmc, vms.join(" "))
}

async fn look_up(cluster: &Cluster, name: &str) -> Result<(ClusterView, Node), Failure> {
    let view = cluster.view().await?;
    let node = find::node_in(&view, name)?.clone();
    Ok((view, node))
}

/// What is known of a node's life, but whether its keepalives arrive: that takes listening.
async fn life(cluster: &Cluster, name: &NodeName) -> Result<Life, Failure> {
    let store = &*cluster.store;
    let held = owner::read(store, name).await?;
    let instance = held.map(|held| held.by.map_or_else(|| "unknown".to_owned(), |owner| owner.instance));
    let has_bmc = !node::read_ipmi(store, name).await?.hostname.is_empty();
    Ok(Life { instance, heard: false, has_bmc })
}

/// How long to listen whether a node lives, and who hears of the waiting.
#[derive(Clone, Copy)]
pub struct Listen<'a> {
    /// At least so long; zero: not at all, since who asks stands before the machine and sees that it has no power.
    pub at_least: std::time::Duration,
    /// Hears what is waited for.
    pub progress: Progress<'a>,
}

impl Listen<'_> {
    /// Decides, and if something is to be done, again after listening whether the node lives.
    async fn decide<T>(
        self,
        cluster: &Cluster,
        node: Option<&Node>,
        life: Life,
        decide: impl Fn(&Life) -> Result<Accepted<T>, Refusal>,
    ) -> Result<(Life, Accepted<T>), Failure> {
        let first = decide(&life)?;
        let Some(node) = node.filter(|_| first.change.is_some()) else { return Ok((life, first)) };
        let life = Life { heard: self.hears(cluster, node).await?, ..life };
        let accepted = decide(&life)?;
        Ok((life, accepted))
    }

    /// Whether a keepalive arrives, for as long as it takes a node that speaks seldom. Clocks are not asked: they differ.
    async fn hears(self, cluster: &Cluster, seen: &Node) -> Result<bool, Failure> {
        if self.at_least.is_zero() {
            return Ok(false);
        }
        let listen =
            seen.keepalive_interval.map_or(self.at_least, |interval| self.at_least.max(interval * 5 / 4));
        let mut hearing = Hearing { name: seen.name.clone(), seen: seen.keepalive_version };
        Ok(matches!(until(cluster, &mut hearing, listen, self.progress).await?, Waited::Done(_)))
    }
}

/// A node that is listened to.
#[derive(Debug)]
struct Hearing {
    name: NodeName,
    seen: Option<i32>,
}

#[async_trait]
impl Pursuit for Hearing {
    fn paths(&self) -> Vec<String> {
        vec![node::path(&self.name)]
    }

    fn goal(&self) -> Option<Goal> {
        None
    }

    async fn look(&mut self, cluster: &Cluster) -> Result<Look<Answer>, Failure> {
        let now = node::read(&*cluster.store, &self.name).await?;
        let moved = now.is_some_and(|node| node.keepalive_version != self.seen);
        Ok(if moved {
            Look::Done(Answer::default())
        } else {
            Look::NotYet(format!("listening whether {} lives", self.name))
        })
    }
}
