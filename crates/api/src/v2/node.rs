//! Changes of nodes.

use axum::extract::State;
use pvc_operate::node as command;

use super::{Asked, Nothing, Outcome, asked_for};
use crate::api::Shared;

/// Sends a node's VMs away.
pub(crate) async fn flush(State(api): State<Shared>, asked: Asked) -> Outcome {
    asked_for(command::flush(&api.cluster, node(&asked)?).await?)
}

/// Has a node take VMs, first those that were sent away from it.
pub(crate) async fn ready(State(api): State<Shared>, asked: Asked) -> Outcome {
    asked_for(command::ready(&api.cluster, node(&asked)?).await?)
}

/// Makes a coordinator primary.
pub(crate) async fn primary(State(api): State<Shared>, asked: Asked) -> Outcome {
    asked_for(command::primary(&api.cluster, node(&asked)?).await?)
}

/// Has the primary step down.
pub(crate) async fn secondary(State(api): State<Shared>, asked: Asked) -> Outcome {
    asked_for(command::secondary(&api.cluster, node(&asked)?).await?)
}

fn node(asked: &Asked) -> Result<&str, super::Problem> {
    let Nothing {} = asked.body()?;
    Ok(asked.0.part("node"))
}
