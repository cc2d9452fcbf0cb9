//! `pvc node replace`: says that the machine that had a node's name is gone for good. What the name claims is started by the next one
//! that comes with it, so the consequences are spelt out, and a yes is wanted.

use std::time::Duration;

use pvc_core::{
    command::{find, node as command},
    model::NodeName,
    plan::machine::{Recorded, Ties},
};
use pvc_store::{CommitError, schema::machine};

use super::dead;
use crate::{
    cmd::confirm::{self, Otherwise},
    connect::Connection,
    failure::Failure,
    print::Out,
};

pub(super) async fn replace(
    cluster: &Connection,
    out: &Out,
    name: &str,
    yes: bool,
    listen: Duration,
) -> Result<(), Failure> {
    let view = cluster.view().await?;
    let node = match name.parse::<NodeName>() {
        Ok(node) => node,
        // Nothing is called so; what is meant may be.
        Err(_) => find::node_in(&view, name)?.name.clone(),
    };
    let mut life = dead::life(cluster, &node).await?;
    let seen = machine::read(&*cluster.store, &node).await?;
    let decide =
        |life: &command::Life| command::replace(&view, name, &seen.recorded, life, dead::signature());
    let first = decide(&life)?;
    if first.change.is_none() {
        return out.message(&format!("{name}: nothing to replace"), &first.notes);
    }
    if let Some(known) = view.node(&node) {
        life.heard = dead::heard(cluster, out, known, listen).await?;
    }
    let accepted = decide(&life)?;
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
    if !yes && !confirm::ask(&question, Otherwise::Refuse)? {
        return Err(Failure::Failed(format!("the machine of {name} was not taken for gone: not confirmed")));
    }
    let Some(gone) = accepted.change else { return Ok(()) };
    match cluster.store.commit(machine::replace(&node, &gone, &seen)).await {
        Ok(_) => out.message(&format!("{name} may be another machine now"), &accepted.notes),
        Err(CommitError::Conflict { .. }) => Err(Failure::Failed(format!(
            "a daemon has taken the name {name} meanwhile, so nothing was written: `pvc node explain {name}`"
        ))),
        Err(error) => Err(error.into()),
    }
}
