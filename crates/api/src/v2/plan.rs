//! What would happen if, as `pvc plan` says it.

use axum::extract::State;
use pvc_core::plan::placement::Selector;
use pvc_operate::forecast;

use super::{Asked, Outcome, Problem, typed};
use crate::{api::Shared, ask::Ask, reply::json};

/// What the flush of a node would do.
pub(crate) async fn flush(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&forecast::flush(api.seen(), ask.part("node"), selector(&ask)?).await?)?)
}

/// What the death of a node would do.
pub(crate) async fn death(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&forecast::death(api.seen(), ask.part("node"), selector(&ask)?).await?)?)
}

/// Where a VM could go.
pub(crate) async fn vm(State(api): State<Shared>, Asked(ask): Asked) -> Outcome {
    Ok(json(&forecast::vm(api.seen(), ask.part("vm"), selector(&ask)?).await?)?)
}

fn selector(ask: &Ask) -> Result<Selector, Problem> {
    ask.given("selector").map_or(Ok(Selector::default()), |word| typed("selector", word))
}
