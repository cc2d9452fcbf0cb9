//! `/api/v2`: what there is as `pvc --format json` prints it, changes as JSON, and refusals as problem details (RFC 9457) with the words of the command line.

pub(crate) mod console;
pub(crate) mod events;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod outcome;
mod paged;
pub(crate) mod plan;
pub(crate) mod read;
pub(crate) mod screen;
mod socket;
pub(crate) mod storage;
pub(crate) mod token;
pub(crate) mod vm;

use std::{fmt::Display, str::FromStr};

use axum::{
    extract::{FromRequest, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use pvc_operate::{Answer, Asked as Pending, Failure, Kind};
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    api::Shared,
    ask::Ask,
    reply::{Failed, Said, json_with, text},
    who::{NO_NAMES, Who},
};

/// What a handler answers.
type Outcome = Result<Response, Problem>;

/// Why not, with a status of its own for each kind.
pub(crate) struct Problem {
    status: StatusCode,
    why: Failed,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let status = match failure.kind() {
            Kind::Failed if matches!(failure, Failure::NotYet { .. }) => StatusCode::GATEWAY_TIMEOUT,
            Kind::Refused => StatusCode::CONFLICT,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, why: failure.into() }
    }
}

impl From<Failed> for Problem {
    fn from(why: Failed) -> Self {
        Self { status: why.status(), why }
    }
}

impl Problem {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: Failed::Bad(why.into()) }
    }

    /// The same with another status.
    fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// What is not there is said without what might have been meant, to who is limited to VMs.
    fn without_names(self, who: &Who) -> Self {
        let names_none = who.vms.is_none() || self.status != StatusCode::NOT_FOUND;
        if names_none { self } else { Self::new(self.status, NO_NAMES) }
    }
}

/// A refusal before any handler.
pub(crate) fn refuse(status: StatusCode, why: &str) -> Response {
    Problem::new(status, why).into_response()
}

/// What to say when no handler has answered in time: whether anything was done nobody knows.
pub(crate) fn late(why: &str) -> Response {
    Problem { status: StatusCode::GATEWAY_TIMEOUT, why: Failed::Half(why.to_owned()) }.into_response()
}

impl Problem {
    /// In words, and as RFC 9457 has it.
    fn told(&self) -> (String, Value) {
        let detail = self.why.with_causes();
        let mut problem = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": detail,
        });
        if let Failed::Cluster(Failure::Refused(refusal)) = &self.why {
            problem["what"] = refusal.what.as_str().into();
            problem["why"] = refusal.why.as_str().into();
            problem["todo"] = refusal.todo.as_str().into();
        }
        if let Failed::Cluster(Failure::NotYet { waiting, .. }) = &self.why {
            problem["waiting"] = waiting.as_str().into();
        }
        (detail, problem)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (detail, problem) = self.told();
        let mut response = text(self.status, "application/problem+json", problem.to_string());
        response.extensions_mut().insert(Said(detail));
        self.why.marked(response)
    }
}

/// A request whose own mistakes are problem details, too.
pub(crate) struct Asked(Ask);

impl FromRequest<Shared> for Asked {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Shared) -> Result<Self, Problem> {
        Ok(Self(Ask::without_form(request, api).await?))
    }
}

impl Asked {
    /// The body, which is JSON of this form; an empty one is `{}`.
    fn body<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let body = self.0.raw().filter(|body| !body.is_empty()).unwrap_or("{}");
        serde_json::from_str(body).map_err(|error| {
            Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("the body is not the JSON that is expected: {error}"),
            )
        })
    }
}

/// The body of a request that says all by its path.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// What a value with this name says.
fn typed<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| Failed::Bad(format!("{name}: {error}")).into())
}

#[allow(clippy::unnecessary_wraps, reason = "the last word of a handler")]
fn said(status: StatusCode, said: Answer) -> Outcome {
    let mut response = json_with(status, &said);
    response.extensions_mut().insert(Said(said.message));
    Ok(response)
}

/// What is done.
fn done(answer: Answer) -> Outcome {
    said(StatusCode::OK, answer)
}

/// What was asked for: it is done, or the cluster has yet to do it.
fn asked_for(asked: Pending) -> Outcome {
    told(asked, |path| path)
}

/// The same of a VM: who is limited to VMs by their names follows it by that.
fn asked_of_vm(pending: Pending, asked: &Asked) -> Outcome {
    let name = asked.0.part("vm");
    told(pending, |path| if asked.0.is_limited() { outcome::by_name(&path, name) } else { path })
}

#[allow(clippy::unnecessary_wraps, reason = "the last word of a handler")]
fn told(asked: Pending, follow: impl Fn(String) -> String) -> Outcome {
    let status = if asked.is_settled() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let said = Said(asked.answer.message.clone());
    let mut told = outcome::Told::from(asked);
    told.follow = told.follow.map(follow);
    let mut response = json_with(status, &told);
    response.extensions_mut().insert(said);
    Ok(response)
}

/// What is new, and where.
fn created(answer: Answer, at: &str) -> Outcome {
    located(said(StatusCode::CREATED, answer)?, at)
}

#[allow(clippy::unnecessary_wraps, reason = "the last word of a handler")]
fn located(mut response: Response, at: &str) -> Outcome {
    if let Ok(at) = HeaderValue::from_str(at) {
        response.headers_mut().insert(header::LOCATION, at);
    }
    Ok(response)
}

#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Maintenance {
    maintenance: bool,
}

/// Turns maintenance on or off.
pub(crate) async fn set_maintenance(State(api): State<Shared>, asked: Asked) -> Outcome {
    let Maintenance { maintenance } = asked.body()?;
    done(api.cluster.set_maintenance(maintenance).await?)
}

/// With the path by which it is always found.
#[allow(clippy::unnecessary_wraps, reason = "the last word of a handler")]
fn located_content(mut response: Response, at: &str) -> Outcome {
    if let Ok(at) = HeaderValue::from_str(at) {
        response.headers_mut().insert(header::CONTENT_LOCATION, at);
    }
    Ok(response)
}

/// With its mark.
fn tagged(mut response: Response, tag: &str) -> Response {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
