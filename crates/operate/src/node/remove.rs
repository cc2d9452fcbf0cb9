//! Takes a node out of the state tree, once it is certain that it executes nothing.

use pvc_core::command::{
    Accepted,
    node::{self as command, Life, Removal},
};
use pvc_store::{
    CommitError,
    schema::{node, vm},
};

use super::{Listen, Prepared, life, look_up};
use crate::{Answer, Cluster, Failure};

/// Looks into removing a node, and listens whether it lives.
pub async fn remove(
    cluster: &Cluster,
    name: &str,
    listen: Listen<'_>,
) -> Result<Prepared<Accepted<Removal>>, Failure> {
    let (view, known) = look_up(cluster, name).await?;
    let life = life(cluster, &known.name).await?;
    let decide = |life: &Life| command::remove(&view, name, life);
    let (life, done) = listen.decide(cluster, Some(&known), life, decide).await?;
    let question = format!("Everything that the cluster knows of {name} is removed. Does it not come back?");
    let seen = super::seen(&view, &known.name, &life);
    Ok(Prepared { question: Some(question), otherwise: format!("{name} was not removed"), seen, done })
}

impl Prepared<Accepted<Removal>> {
    /// Somebody has said yes: removes it.
    pub async fn carry_out(self, cluster: &Cluster) -> Result<Answer, Failure> {
        let store = &*cluster.store;
        let Some(removal) = &self.done.change else { return Ok(Answer::default()) };
        let written = async {
            for stays in &removal.stay {
                vm::apply(store, stays).await?;
            }
            node::remove(store, &removal.seen, removal.placement_version).await
        };
        match written.await {
            Err(CommitError::Conflict { .. }) => Err(Failure::Failed(format!(
                "{}: somebody has changed the state tree meanwhile: try again",
                self.otherwise
            ))),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(Answer {
                message: format!("{} is removed from the cluster", removal.seen.name),
                notes: self.done.notes,
            }),
        }
    }
}
