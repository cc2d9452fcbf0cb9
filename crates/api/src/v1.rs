//! `/api/v1`: the API of the 0.5 generation, as its clients expect it. `docs/manual/api.md` says where it is right and the old server was not.

pub(crate) mod acl;
pub(crate) mod auth;
pub(crate) mod lease;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod storage;
pub(crate) mod vm;

use axum::{http::StatusCode, response::Response};

use crate::reply::{Failed, message};

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

/// A word that is none of those that there are.
fn no_such(name: &str, found: &str, allowed: &str) -> Failed {
    Failed::Bad(format!("{name} is {found:?}; it can be {allowed}"))
}

/// As the tree of the old generation writes what is absent.
fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "None".to_owned(), |value| value.to_string())
}
