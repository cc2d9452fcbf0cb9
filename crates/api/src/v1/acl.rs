//! The rules of a network's firewall.

use axum::extract::State;
use pvc_core::{command::network::acl::NewRule, model::rule::Direction};
use pvc_operate::{
    Cluster,
    network::acl::{self as command, RuleRow},
};
use serde::Serialize;

use super::{exactly_or_nearly, no_such, or_none};
use crate::{
    api::Shared,
    ask::Ask,
    limit::Limit,
    reply::{Failed, Outcome, done, list as answer_list},
};

/// A rule, with the words of the old API.
#[derive(Serialize)]
struct Row {
    direction: &'static str,
    order: String,
    description: String,
    rule: String,
}

impl From<RuleRow> for Row {
    fn from(row: RuleRow) -> Self {
        Self {
            direction: row.direction.as_str(),
            order: or_none(row.order),
            description: row.description,
            rule: row.rule,
        }
    }
}

async fn rows(cluster: &Cluster, ask: &Ask) -> Result<Vec<Row>, Failed> {
    let rules = command::list(cluster, ask.part("network"), direction(ask)?).await?;
    Ok(rules.into_iter().map(Row::from).collect())
}

/// All that are wanted, in their order.
pub(crate) async fn list(State(api): State<Shared>, ask: Ask) -> Outcome {
    let limit = Limit::parse(ask.given("limit"))?;
    let mut rows = rows(api.seen(), &ask).await?;
    rows.retain(|row| limit.wants(&row.description));
    answer_list(&rows, "no rule is called so")
}

/// One.
pub(crate) async fn item(State(api): State<Shared>, ask: Ask) -> Outcome {
    let wanted = ask.part("acl");
    let names = |row: &Row| vec![row.description.clone()];
    let found = exactly_or_nearly(rows(api.seen(), &ask).await?, wanted, names, |name| name.contains(wanted));
    answer_list(&found, "there is no such rule")
}

/// Adds one.
pub(crate) async fn add(State(api): State<Shared>, ask: Ask) -> Outcome {
    let (name, text) = (ask.required("description")?, ask.required("rule")?);
    ask.required("direction")?;
    let direction = direction(&ask)?.ok_or(Failed::Missing("direction"))?;
    let order = ask
        .given("order")
        .map(|order| order.parse().map_err(|_| no_such("order", order, "a whole number from 0")));
    let new = NewRule { name, direction, order: order.transpose()?, text };
    done(command::add(&api.cluster, ask.part("network"), &new).await?)
}

/// Removes one; with `direction` only if it is of that one.
pub(crate) async fn remove(State(api): State<Shared>, ask: Ask) -> Outcome {
    let name = ask.part("acl");
    if direction(&ask)?.is_some()
        && !rows(&api.cluster, &ask).await?.iter().any(|row| row.description == name)
    {
        return Err(Failed::NotFound("there is no such rule of this direction".to_owned()));
    }
    done(command::remove(&api.cluster, ask.part("network"), name).await?)
}

fn direction(ask: &Ask) -> Result<Option<Direction>, Failed> {
    let Some(text) = ask.given("direction") else { return Ok(None) };
    let found = Direction::ALL.into_iter().find(|direction| direction.as_str() == text);
    found.map(Some).ok_or_else(|| no_such("direction", text, "in or out"))
}
