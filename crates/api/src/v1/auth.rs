//! Login and logout: a session instead of a token in each request.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};

use crate::{
    api::Shared,
    ask::Ask,
    gate::Stranger,
    reply::{Outcome, message, text},
    session::CLOSED,
};

const FORM: &str = "<!DOCTYPE html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Log in</title></head><body>
<form method=\"post\"><label>Token <input type=\"password\" name=\"token\" autocomplete=\"off\"></label>
<button>Log in</button></form></body></html>
";

const OFF: &str = "Authentication is disabled.";

/// A form for people.
pub(crate) async fn form(State(api): State<Shared>) -> Response {
    if !api.gate.is_guarded() {
        return message(StatusCode::OK, OFF);
    }
    let mut response = text(StatusCode::OK, "text/html; charset=utf-8", FORM);
    let policy = HeaderValue::from_static("default-src 'none'; form-action 'self'; frame-ancestors 'none'");
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// Opens a session for who has a token.
pub(crate) async fn login(State(api): State<Shared>, headers: HeaderMap, ask: Ask) -> Outcome {
    if !api.gate.is_guarded() {
        return Ok(message(StatusCode::OK, OFF));
    }
    let token = ask.required("token")?;
    let settled = api.gate.settle(&headers, Some(token), ask.from()).await;
    match settled.and_then(|()| api.gate.open_session(token, &headers, ask.from())) {
        Ok(cookie) => Ok(to_the_greeting(&cookie)),
        Err(Stranger::Guesses) => Ok(text(
            StatusCode::TOO_MANY_REQUESTS,
            "text/plain; charset=utf-8",
            "Too many wrong tokens: wait a minute.\n",
        )),
        Err(Stranger::NotYet) => Ok(text(
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain; charset=utf-8",
            "The state store does not answer, so nobody knows whose token this is: try again.\n",
        )),
        Err(Stranger::Foreign) => Ok(text(
            StatusCode::FORBIDDEN,
            "text/plain; charset=utf-8",
            "A page of another site logs nobody in.\n",
        )),
        Err(_) => Ok(text(StatusCode::UNAUTHORIZED, "text/plain; charset=utf-8", "Authentication failed.\n")),
    }
}

/// Takes the session away.
pub(crate) async fn logout(State(api): State<Shared>) -> Response {
    if api.gate.is_guarded() { to_the_greeting(CLOSED) } else { message(StatusCode::OK, OFF) }
}

fn to_the_greeting(cookie: &str) -> Response {
    let mut response = text(StatusCode::FOUND, "text/plain; charset=utf-8", "");
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static("/api/v1"));
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}
