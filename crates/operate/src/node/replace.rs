//! Takes an operator's word that the machine that had a node's name is gone for good. What the name claims is started by the next one
//! that comes with it, so the consequences are said before.

use pvc_core::{
    command::{
        Accepted, find,
        node::{self as command, Life, Signature},
    },
    model::{MachineRecord, NodeName},
    plan::machine::{Recorded, Ties},
};
use pvc_store::{
    CommitError,
    schema::machine::{self, Seen},
};

use super::{Listen, Prepared, life};
use crate::{Answer, Cluster, Failure};

/// A machine that nobody has taken for gone yet.
#[derive(Debug)]
pub struct Replacement {
    node: NodeName,
    seen: Seen,
    accepted: Accepted<MachineRecord>,
}

/// Looks into taking the machine of a name for gone, and listens whether it lives.
pub async fn replace(
    cluster: &Cluster,
    name: &str,
    signature: Signature,
    listen: Listen<'_>,
) -> Result<Prepared<Replacement>, Failure> {
    let view = cluster.view().await?;
    let node = match name.parse::<NodeName>() {
        Ok(node) => node,
        // Nothing is called so; what is meant may be.
        Err(_) => find::node_in(&view, name)?.name.clone(),
    };
    let life = life(cluster, &node).await?;
    let seen = machine::read(&*cluster.store, &node).await?;
    let decide = |life: &Life| command::replace(&view, name, &seen.recorded, life, signature.clone());
    let (life, accepted) = listen.decide(cluster, view.node(&node), life, decide).await?;
    let machine = match &seen.recorded {
        Recorded::Machine(machine) => machine.to_string(),
        Recorded::Nobody | Recorded::Unreadable => "which is not recorded".to_owned(),
    };
    let question = format!(
        "Your word is taken for the proof that the machine that had the name {name}, {machine}, executes nothing and does not come \
         back. By the cluster's books {}: the next machine that comes as {name} starts that. If the first still runs it, it runs twice \
         and destroys its disks. Is its power off for certain?",
        Ties::of(&node, &view)
    );
    Ok(Prepared {
        question: accepted.change.is_some().then_some(question),
        otherwise: format!("the machine of {name} was not taken for gone"),
        seen: super::seen(&view, &node, &life),
        done: Replacement { node, seen, accepted },
    })
}

impl Prepared<Replacement> {
    /// Somebody has said yes: another machine may take the name.
    pub async fn carry_out(self, cluster: &Cluster) -> Result<Answer, Failure> {
        let Replacement { node, seen, accepted: Accepted { change, notes } } = self.done;
        let Some(gone) = change else {
            return Ok(Answer { message: format!("{node}: nothing to replace"), notes });
        };
        match cluster.store.commit(machine::replace(&node, &gone, &seen)).await {
            Ok(_) => Ok(Answer { message: format!("{node} may be another machine now"), notes }),
            Err(CommitError::Conflict { .. }) => Err(Failure::Failed(format!(
                "a daemon has taken the name {node} meanwhile, so nothing was written: `pvc node explain {node}`"
            ))),
            Err(error) => Err(error.into()),
        }
    }
}
