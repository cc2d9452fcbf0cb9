//! How a change is carried out: in earnest, as a trial that writes nothing (`dry_run`), or not at all, because it has been already (`Idempotency-Key`).

use std::time::Instant;

use axum::{
    body::to_bytes,
    extract::Request,
    http::{StatusCode, Uri},
    middleware::Next,
    response::Response,
    routing::MethodRouter,
};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Before, later, refuse};
use crate::{
    ask,
    limits::MostBytes,
    remembered::{Known, Ticket},
    reply::{Failed, NothingChanged, Said, json_with},
    who::Who,
    written,
};

const KEY: &str = "idempotency-key";

/// The longest key.
const LONGEST: usize = 128;

/// The longest answer of a change.
const MOST_ANSWER: usize = 1024 * 1024;

/// A change, and how it is carried out.
pub(super) struct Carried {
    request: Request,
    how: How,
}

enum How {
    InEarnest,
    Trial(MethodRouter),
    Keyed(Ticket),
    Again(Response),
}

impl Carried {
    /// What the request says of it; or the answer to what makes no sense.
    pub(super) async fn of(who: &Who, uri: &Uri, request: Request, before: Before) -> Result<Self, Response> {
        let Before { api, trial, most: MostBytes(most), answer_is_kept, .. } = before;
        let nonsense = |why: &str| refused(uri, StatusCode::BAD_REQUEST, why);
        match (dry_run(uri), trial) {
            (None, _) => return Err(nonsense("dry_run is true or false")),
            (Some(false), _) => {}
            (Some(true), Some(trial)) => return Ok(Self { request, how: How::Trial(trial) }),
            (Some(true), None) => {
                return Err(nonsense("dry_run is for changes below /api/v2: nothing was done"));
            }
        }
        let mut keys = request.headers().get_all(KEY).iter();
        let key = match (keys.next(), keys.next()) {
            (None, _) => return Ok(Self { request, how: How::InEarnest }),
            (Some(key), None) => key.as_bytes().to_vec(),
            (Some(_), Some(_)) => {
                return Err(nonsense("of two keys (Idempotency-Key) nobody could say which counts"));
            }
        };
        if !answer_is_kept {
            return Err(nonsense(
                "no key (Idempotency-Key) is taken here, since the answer is not kept: nothing was done",
            ));
        }
        let key = String::from_utf8(key).ok().filter(|key| {
            (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
        });
        let Some(key) = key else {
            return Err(nonsense("a key (Idempotency-Key) is 1 to 128 printable characters without blanks"));
        };
        let (method, kind) = (request.method().clone(), request.headers().get("if-match").cloned());
        let (request, body) = ask::whole(request, &api, most)
            .await
            .map_err(|failed| refused(uri, failed.status(), &failed.to_string()))?;
        if !api.gate.still(who) {
            let revoked = Failed::Revoked;
            return Err(refused(uri, revoked.status(), &revoked.to_string()));
        }
        let mut question = Sha256::new();
        for part in [
            method.as_str().as_bytes(),
            uri.to_string().as_bytes(),
            kind.as_ref().map_or(b"", |tag| tag.as_bytes()),
        ] {
            question.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            question.update(part);
        }
        question.update(&body);
        let how = match api.remembered.begin(who.token, &key, question.finalize().into(), Instant::now()) {
            Known::Nothing(ticket) => How::Keyed(ticket),
            Known::Answered(response) => How::Again(response),
            Known::Running => {
                let mut wait =
                    later(uri, "what was asked with this key is being carried out: ask again later");
                *wait.status_mut() = StatusCode::CONFLICT;
                return Err(wait);
            }
            Known::Another => {
                let why = "something else was asked with this key (Idempotency-Key): nothing was done; take another key";
                return Err(refused(uri, StatusCode::UNPROCESSABLE_ENTITY, why));
            }
        };
        Ok(Self { request, how })
    }

    /// Carries it out.
    pub(super) async fn out(self, uri: &Uri, next: Next) -> Response {
        let request = self.request;
        match self.how {
            How::InEarnest => in_earnest(request, next).await,
            How::Again(response) => response,
            How::Trial(handler) => {
                let tried = TowerToHyperService::new(handler).call(request).await;
                match tried {
                    Ok(response) => as_a_trial(uri, response).await,
                    Err(never) => match never {},
                }
            }
            How::Keyed(ticket) => match ticket.answered(in_earnest(request, next).await).await {
                Ok(response) => response,
                Err(_) => broken(uri),
            },
        }
    }
}

/// What came of it. Of what is no success the answer says whether it has changed anything.
async fn in_earnest(request: Request, next: Next) -> Response {
    let (mut response, is_written) = written::during(next.run(request)).await;
    if is_written {
        response.extensions_mut().remove::<NothingChanged>();
    } else if !response.status().is_success() {
        response.extensions_mut().insert(NothingChanged);
    }
    response
}

fn refused(uri: &Uri, status: StatusCode, why: &str) -> Response {
    let mut response = refuse(uri, status, why);
    response.extensions_mut().insert(NothingChanged);
    response
}

fn broken(uri: &Uri) -> Response {
    refuse(
        uri,
        StatusCode::INTERNAL_SERVER_ERROR,
        "the answer broke off while it was made: look whether it is done",
    )
}

/// Whether a trial is asked for; `None`: nobody knows.
fn dry_run(uri: &Uri) -> Option<bool> {
    let query = uri.query().unwrap_or_default();
    let given = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == ask::TRIAL);
    match given.as_ref().map(|(_, value)| value.as_ref()) {
        None | Some("false") => Some(false),
        Some("true") => Some(true),
        Some(_) => None,
    }
}

/// What would be done, without what there is only if it is: a token, a task's number, an address.
async fn as_a_trial(uri: &Uri, response: Response) -> Response {
    let said: Option<Said> = response.extensions().get().cloned();
    let mut response = if response.status().is_success() {
        let Ok(body) = to_bytes(response.into_body(), MOST_ANSWER).await else { return broken(uri) };
        let mut answer = match serde_json::from_slice(&body) {
            Ok(Value::Object(answer)) => answer,
            _ => serde_json::Map::new(),
        };
        answer.retain(|name, _| name != "token" && name != "task");
        answer.insert("dry_run".to_owned(), true.into());
        json_with(StatusCode::OK, &answer)
    } else {
        response
    };
    said.and_then(|said| response.extensions_mut().insert(Said(format!("a trial: {}", said.0))));
    response.extensions_mut().insert(NothingChanged);
    response
}
