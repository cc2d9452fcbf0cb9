//! `/api/v1`: the API of the 0.5 generation, as its clients expect it. `docs/manual/api.md` says where it is right and the old server was not.

pub(crate) mod auth;
pub(crate) mod node;
pub(crate) mod vm;

use axum::{http::StatusCode, response::Response};

use crate::reply::message;

/// The status of the greeting, which is in no standard.
const GREETING: u16 = 209;

/// Says that this is the API.
pub(crate) async fn greeting() -> Response {
    let status = StatusCode::from_u16(GREETING).unwrap_or(StatusCode::OK);
    message(status, "Parallel Virtual Cluster API")
}

/// Of those that are called `reference`, exactly so; where none is, those that it finds as a `limit` does.
fn exactly_or_nearly<T>(
    rows: Vec<T>,
    reference: &str,
    names: impl Fn(&T) -> Vec<String>,
    near: impl Fn(&str) -> bool,
) -> Vec<T> {
    let is = |row: &T| names(row).iter().any(|name| name == reference);
    let some_are = rows.iter().any(is);
    rows.into_iter()
        .filter(|row| if some_are { is(row) } else { names(row).iter().any(|name| near(name)) })
        .collect()
}
