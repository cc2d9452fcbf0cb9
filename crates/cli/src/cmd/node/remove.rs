//! `pvc node remove`: takes a node out of the state tree, once it is certain that it executes nothing.

use std::time::Duration;

use pvc_core::command::{find, node as command};
use pvc_store::{
    CommitError,
    schema::{node, vm},
};

use super::dead;
use crate::{
    cmd::confirm::{self, Otherwise},
    connect::Connection,
    failure::Failure,
    print::Out,
};

pub(super) async fn remove(
    cluster: &Connection,
    out: &Out,
    name: &str,
    yes: bool,
    listen: Duration,
) -> Result<(), Failure> {
    let view = cluster.view().await?;
    let known = find::node_in(&view, name)?;
    let mut life = dead::life(cluster, &known.name).await?;
    command::remove(&view, name, &life)?;
    life.heard = dead::heard(cluster, out, known, listen).await?;
    let accepted = command::remove(&view, name, &life)?;
    let question = format!("Everything that the cluster knows of {name} is removed. Does it not come back?");
    if !yes && !confirm::ask(&question, Otherwise::Refuse)? {
        return Err(Failure::Failed(format!("{name} was not removed: not confirmed")));
    }
    let Some(removal) = accepted.change else { return Ok(()) };
    for stays in &removal.stay {
        moved(name, vm::apply(&*cluster.store, stays).await.map(drop))?;
    }
    moved(name, node::remove(&*cluster.store, &removal.seen, removal.placement_version).await)?;
    out.message(&format!("{name} is removed from the cluster"), &accepted.notes)
}

fn moved(name: &str, outcome: Result<(), CommitError>) -> Result<(), Failure> {
    match outcome {
        Err(CommitError::Conflict { .. }) => {
            let why = "somebody has changed the state tree meanwhile: try again";
            Err(Failure::Failed(format!("{name} was not removed: {why}")))
        }
        outcome => Ok(outcome?),
    }
}
