//! Makes a coordinator primary, or has it step down, and looks until another one holds the addresses.

use std::time::Duration;

use async_trait::async_trait;
use pvc_core::{
    command::{find, node as command},
    model::{ClusterView, NodeName, RouterState},
};
use pvc_store::schema::{node, primary as holder};

use crate::{
    Answer, Asked, Cluster, Failure, Goal, NodeGoal,
    wait::{Look, Pursuit},
};

/// Makes a coordinator primary.
pub async fn primary(cluster: &Cluster, name: &str) -> Result<Asked, Failure> {
    let accepted = super::write(cluster, |view| command::primary(view, name)).await?;
    asked(name, "is to become primary", accepted, true)
}

/// Has the primary step down; another coordinator is elected.
pub async fn secondary(cluster: &Cluster, name: &str) -> Result<Asked, Failure> {
    let accepted = super::write(cluster, |view| command::secondary(view, name)).await?;
    asked(name, "is to step down", accepted, false)
}

fn asked(
    name: &str,
    words: &str,
    accepted: pvc_core::command::Accepted<command::NodeChange>,
    takes: bool,
) -> Result<Asked, Failure> {
    Ok(Asked {
        subject: name.to_owned(),
        answer: Answer { message: format!("{name} {words}"), notes: accepted.notes },
        written: accepted.change.is_some(),
        more: format!("The command stands; `pvc node explain {name}` says more"),
        patience: Duration::from_secs(30),
        pursuit: Some(Box::new(HandOver { node: find::name(name)?, takes })),
    })
}

/// A hand-over that is followed.
#[derive(Debug)]
pub(super) struct HandOver {
    pub(super) node: NodeName,
    /// It is to become primary, else to be it no more.
    pub(super) takes: bool,
}

#[async_trait]
impl Pursuit for HandOver {
    fn paths(&self) -> Vec<String> {
        vec![holder::PRIMARY_NODE.to_owned(), holder::HOLDER.to_owned(), node::ROOT.to_owned()]
    }

    fn goal(&self) -> Option<Goal> {
        let goal = if self.takes { NodeGoal::Primary } else { NodeGoal::Secondary };
        Some(Goal::Node(self.node.clone(), goal))
    }

    async fn look(&mut self, cluster: &Cluster) -> Result<Look<Answer>, Failure> {
        let view = cluster.view_without_vms().await?;
        if self.takes { self.taken(&view) } else { Ok(self.left(&view)) }
    }
}

impl HandOver {
    fn taken(&self, view: &ClusterView) -> Result<Look<Answer>, Failure> {
        let name = &self.node;
        let serves = view.node(name).is_some_and(|node| node.router_state.value == RouterState::Primary);
        if view.primary_holder.as_ref() == Some(name) && serves {
            return Ok(Look::Done(Answer::new(format!("{name} is primary"))));
        }
        if view.primary_node.value.as_ref() != Some(name) {
            let who = view.primary_node.value.as_ref().map_or("nobody", NodeName::as_str);
            let what = format!("{name}: somebody else has asked for {who} to be primary meanwhile");
            return Err(Failure::Failed(what));
        }
        Ok(Look::NotYet(match &view.primary_holder {
            Some(holder) if holder != name => format!("waiting for {holder} to step down"),
            Some(_) => format!("{name} is taking over"),
            None => format!("waiting for {name}"),
        }))
    }

    fn left(&self, view: &ClusterView) -> Look<Answer> {
        let name = &self.node;
        match &view.primary_holder {
            Some(holder) if holder == name => Look::NotYet(format!("waiting for {holder} to step down")),
            Some(now) => Look::Done(Answer {
                message: format!("{name} is not primary"),
                notes: vec![format!("{now} is primary now")],
            }),
            None => Look::NotYet("waiting for another coordinator to take over".to_owned()),
        }
    }
}
