//! Has a node put out of the cluster, or ends that again. Fencing and an operator's word both end with its VMs started elsewhere, so
//! both say the consequences before they are carried out. Neither touches the node itself: a coordinator does.

use std::time::Duration;

use async_trait::async_trait;
use pvc_core::{
    command::node::{self as command, Life, Signature, step_words},
    model::{ClusterView, DaemonState, Entry, NodeName},
    text::some,
};
use pvc_store::schema::{explain, fence as record, node};

use super::{Listen, Prepared, life, look_up};
use crate::{
    Answer, Asked, Cluster, Failure, Goal, NodeGoal, failure,
    wait::{Look, Pursuit},
};

/// A fence or a death that nobody has said yes to yet.
#[derive(Debug)]
pub struct Death {
    name: NodeName,
    life: Life,
    signature: Signature,
    confirmed: bool,
}

/// Looks into fencing a node now, be it well or not. What would be refused is not asked.
pub async fn fence(cluster: &Cluster, name: &str, signature: Signature) -> Result<Prepared<Death>, Failure> {
    let (view, node) = look_up(cluster, name).await?;
    let life = life(cluster, &node.name).await?;
    let first = command::fence(&view, name, &life, signature.clone())?;
    let question = format!(
        "The power of {name} is cut now, be it well or not (its daemon is in state {}). {}",
        node.daemon_state.value,
        consequence(&view, &node.name, "end at once and are started on other nodes")
    );
    Ok(Prepared {
        question: first.change.map(|_| question),
        otherwise: format!("{name} is not fenced"),
        seen: super::seen(&view, &node.name, &life),
        done: Death { name: node.name, life, signature, confirmed: false },
    })
}

/// Looks into taking an operator's word that a node is dead, and listens whether it lives.
pub async fn confirm_dead(
    cluster: &Cluster,
    name: &str,
    signature: Signature,
    listen: Listen<'_>,
) -> Result<Prepared<Death>, Failure> {
    let (view, node) = look_up(cluster, name).await?;
    let life = life(cluster, &node.name).await?;
    let decide = |life: &Life| command::confirm_dead(&view, name, life, signature.clone());
    let (life, accepted) = listen.decide(cluster, Some(&node), life, decide).await?;
    let question = accepted.change.map(|_| {
        format!(
            "Your word is taken for the proof that {name} executes nothing. {} If it still runs, they run twice and destroy \
             their disks. Is its power off for certain?",
            consequence(&view, &node.name, "are started on other nodes")
        )
    });
    Ok(Prepared {
        question,
        otherwise: format!("{name} was not taken for dead"),
        seen: super::seen(&view, &node.name, &life),
        done: Death { name: node.name, life, signature, confirmed: true },
    })
}

impl Prepared<Death> {
    /// Somebody has said yes: has a coordinator do it.
    pub async fn carry_out(self, cluster: &Cluster) -> Result<Asked, Failure> {
        let Death { name, life, signature, confirmed } = self.done;
        let accepted = super::write(cluster, |view| {
            let decide = if confirmed { command::confirm_dead } else { command::fence };
            decide(view, name.as_str(), &life, signature.clone())
        })
        .await?;
        let words = if confirmed { "is taken for dead" } else { "is to be fenced" };
        Ok(Asked {
            subject: name.to_string(),
            answer: Answer { message: format!("{name} {words}"), notes: accepted.notes },
            written: accepted.change.is_some(),
            more: format!("It goes on; `pvc node explain {name}` says more"),
            patience: Duration::from_hours(1),
            pursuit: Some(Box::new(Fencing { name })),
        })
    }
}

/// Ends a fence that has proven nothing yet. Nobody need say yes: what is called off can be asked for again.
pub async fn cancel_fence(cluster: &Cluster, name: &str) -> Result<Answer, Failure> {
    let accepted = super::write(cluster, |view| command::cancel_fence(view, name)).await?;
    let done = if accepted.change.is_some() { "the fence is ended" } else { "nothing was done" };
    Ok(Answer { message: format!("{name}: {done}"), notes: accepted.notes })
}

fn consequence(view: &ClusterView, name: &NodeName, fate: &str) -> String {
    let mut vms: Vec<&str> =
        view.good_vms().filter(|vm| vm.claim.value.names(name)).map(|vm| vm.name.as_str()).collect();
    vms.sort_unstable();
    match vms.len() {
        0 => "It claims no VM.".to_owned(),
        n => format!("Its {n} VM(s) ({}) {fate}.", some(&vms)),
    }
}

/// A fence that is followed.
#[derive(Debug)]
pub(super) struct Fencing {
    pub(super) name: NodeName,
}

#[async_trait]
impl Pursuit for Fencing {
    fn paths(&self) -> Vec<String> {
        vec![record::path(&self.name), explain::node_path(&self.name), node::path(&self.name)]
    }

    fn goal(&self) -> Option<Goal> {
        Some(Goal::Node(self.name.clone(), NodeGoal::Fence))
    }

    async fn look(&mut self, cluster: &Cluster) -> Result<Look<Answer>, Failure> {
        let (store, name) = (&*cluster.store, &self.name);
        let said = node::read_explanation(store, name).await?.and_then(Result::ok);
        let fence = match record::read(store, name).await? {
            Some(Entry::Good(fence)) => fence,
            Some(Entry::Bad(problems)) => return Err(Failure::Failed(failure::list(&problems))),
            None => {
                let node = node::read(store, name).await?;
                return Ok(Look::Done(Answer::new(match node.map(|node| node.daemon_state.value) {
                    Some(DaemonState::Dead) => {
                        format!("{name} is out of the cluster, its VMs were seen running elsewhere")
                    }
                    Some(state) => format!("the fence of {name} is over: its daemon is in state {state}"),
                    None => format!("{name} was removed from the cluster"),
                })));
            }
        };
        let words = step_words(&fence.job);
        Ok(Look::NotYet(match said {
            Some(said) => format!("{words} ({})", said.because),
            None if fence.fencer.is_none() => format!("{words}; waiting for a coordinator"),
            None => words,
        }))
    }
}
