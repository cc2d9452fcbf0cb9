//! What is answered: JSON, a message, or why not, with the words of the command line.

use std::error::Error;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use pvc_operate::{Failure, Kind};
use serde::Serialize;
use serde_json::json;

/// What was said of a change, for the log.
#[derive(Debug, Clone)]
pub(crate) struct Said(pub(crate) String);

/// Marks an answer to a change that has changed nothing: it was refused, or made no sense.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NothingChanged;

/// What a handler of the old API answers.
pub(crate) type Outcome = Result<Response, Failed>;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// A value that must be there is not.
    #[error("no {0} specified")]
    Missing(&'static str),
    /// A network was not defined, since a value that must be there is not: the old server has a status of its own for that.
    #[error("no {0} specified")]
    MissingOfNetwork(&'static str),
    /// The request makes no sense.
    #[error("{0}")]
    Bad(String),
    /// One half was done, the other was not.
    #[error("{0}")]
    Half(String),
    /// Nothing of what is asked for is there.
    #[error("{0}")]
    NotFound(String),
    /// It takes longer to send the body than anybody waits for.
    #[error("the body did not arrive in time")]
    SlowBody,
    /// The body is larger than any call's.
    #[error("the body is larger than {0} bytes, or was cut off")]
    LargeBody(usize),
    /// The body is not said to be what it has to be.
    #[error("the body is not read: send JSON as `Content-Type: application/json`")]
    NoJson,
    /// The token was taken away while the body was awaited.
    #[error("the token that this was asked with was taken away")]
    Revoked,
    /// The cluster did not do it.
    #[error(transparent)]
    Cluster(#[from] Failure),
}

impl Failed {
    /// The status of the old API: what is refused and what fails is 400.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Missing(_) | Self::Bad(_) | Self::Half(_) => StatusCode::BAD_REQUEST,
            Self::MissingOfNetwork(_) => StatusCode::from_u16(520).unwrap_or(StatusCode::BAD_REQUEST),
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::LargeBody(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Revoked => StatusCode::UNAUTHORIZED,
            Self::Cluster(failure) => match failure.kind() {
                Kind::NotFound => StatusCode::NOT_FOUND,
                Kind::Refused | Kind::Failed => StatusCode::BAD_REQUEST,
                Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            },
        }
    }

    /// Whether it is certain that nothing was written.
    pub(crate) fn nothing_changed(&self) -> bool {
        match self {
            Self::Half(_) => false,
            Self::Cluster(failure) => matches!(failure, Failure::Refused(_) | Failure::Uninitialised { .. }),
            _ => true,
        }
    }

    /// The answer, which says so of itself.
    pub(crate) fn marked(&self, mut response: Response) -> Response {
        if self.nothing_changed() {
            response.extensions_mut().insert(NothingChanged);
        }
        response
    }

    /// The message and those of its causes, on one line.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        self.marked(message(self.status(), self.with_causes()))
    }
}

/// `{"message": "…"}`, and the same for the log.
pub(crate) fn message(status: StatusCode, text: impl Into<String>) -> Response {
    let text = text.into();
    let mut response = json_with(status, &json!({ "message": text }));
    response.extensions_mut().insert(Said(text));
    response
}

/// What was done, with what to know besides.
#[allow(clippy::unnecessary_wraps, reason = "the last word of a handler")]
pub(crate) fn done(answer: pvc_operate::Answer) -> Outcome {
    let said = [answer.message].into_iter().chain(answer.notes).collect::<Vec<_>>();
    Ok(message(StatusCode::OK, said.join("; ")))
}

/// JSON.
#[allow(clippy::unnecessary_wraps, reason = "the last word of a handler")]
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    Ok(json_with(StatusCode::OK, value))
}

/// A list; what is empty is not found, as old clients expect it.
pub(crate) fn list(rows: &[impl Serialize], none: &str) -> Outcome {
    if rows.is_empty() { Err(Failed::NotFound(none.to_owned())) } else { json(&rows) }
}

/// A list of objects that is written one by one: none is in memory but as it is sent.
pub(crate) struct JsonList {
    json: Vec<u8>,
    rows: usize,
}

impl JsonList {
    /// The part of a list that begins with that row.
    pub(crate) fn from_row(row: usize) -> Self {
        Self { json: Vec::new(), rows: row }
    }

    /// One more: an object, and members of it that are JSON already.
    pub(crate) fn push(&mut self, object: &impl Serialize, members: &str) {
        self.json.push(if self.rows == 0 { b'[' } else { b',' });
        self.rows += 1;
        // Nothing of ours has no form in JSON.
        self.json.extend(serde_json::to_vec(object).unwrap_or_else(|_| b"{}".to_vec()));
        if members.is_empty() {
            return;
        }
        self.json.pop();
        if self.json.last() != Some(&b'{') {
            self.json.push(b',');
        }
        self.json.extend_from_slice(members.as_bytes());
        self.json.push(b'}');
    }

    /// A member more of the last one, which has some; its value is JSON already.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.json.pop();
        self.json.extend_from_slice(format!(",\"{name}\":").as_bytes());
        self.json.extend_from_slice(value.as_bytes());
        self.json.push(b'}');
    }

    /// The part, with the end of the list if it is the last.
    pub(crate) fn end(mut self, is_last: bool) -> Vec<u8> {
        if is_last {
            self.json.extend_from_slice(if self.rows == 0 { b"[]" } else { b"]" });
        }
        self.json
    }
}

/// What is JSON already.
pub(crate) fn json_body(json: impl Into<Body>) -> Response {
    body(StatusCode::OK, "application/json", json.into())
}

/// Text for people.
pub(crate) fn text(status: StatusCode, kind: &'static str, text: impl Into<Body>) -> Response {
    body(status, kind, text.into())
}

/// JSON with another status.
pub(crate) fn json_with(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(json) => body(status, "application/json", json.into()),
        Err(_) => body(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", Body::empty()),
    }
}

fn body(status: StatusCode, kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A definition is XML that a browser shows as a document, with whatever its author put into it.
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox");
    headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
    response
}
