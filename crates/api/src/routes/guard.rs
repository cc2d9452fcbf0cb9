//! Stands before each route that is not everybody's: who asks, whether that is enough for the route, and a line in the log.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};
use pvc_config::Role;
use tracing::info;

use super::{is_old, refuse};
use crate::{
    api::{Api, Shared},
    gate::{Stranger, Who},
    reply::{Said, text},
};

/// Before a route that changes nothing.
pub(super) async fn reading(
    State((api, role)): State<(Shared, Role)>,
    mut request: Request,
    next: Next,
) -> Response {
    match admitted(&api, role, &request, false) {
        Ok((who, _)) => {
            // Never closed. Whoever waits here does so within the time of an answer.
            let _place = api.reads.acquire().await;
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Err(refused) => refused,
    }
}

/// Before a route that changes something: a line in the log, whatever came of it: who, from where, what, and what was answered.
pub(super) async fn changing(
    State((api, role)): State<(Shared, Role)>,
    mut request: Request,
    next: Next,
) -> Response {
    let (who, line) = match admitted(&api, role, &request, true) {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    request.extensions_mut().insert(who);
    let changing = Unfinished(Some(line));
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let said = response.extensions().get::<Said>().map_or("", |said| said.0.as_str());
    changing.finish(status, said);
    response
}

/// Who asks, and a line that says so; or the answer to who may not.
#[allow(clippy::result_large_err, reason = "an answer, made once")]
fn admitted(api: &Api, role: Role, request: &Request, changes: bool) -> Result<(Who, String), Response> {
    let from = request.extensions().get::<SocketAddr>().copied();
    let address = from.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |from| from.ip());
    let (method, uri) = (request.method(), request.uri());
    let from = from.map(|from| from.to_string()).unwrap_or_default();
    let line = format!("{method} {} from {from}", beginning(uri.path()));
    let who = api.gate.who(request.headers(), changes, address).map_err(|stranger| match stranger {
        // Whoever opens the page has nothing to show yet: that is no line.
        Stranger::Nobody if !changes => unknown(uri),
        Stranger::Nobody | Stranger::Wrong => {
            info!("{line}: refused, nobody knows who asks");
            unknown(uri)
        }
        Stranger::Foreign => {
            info!("{line}: refused, a page of another site asks");
            refuse(uri, StatusCode::FORBIDDEN, FOREIGN)
        }
        // Its first ones had lines.
        Stranger::Guesses => {
            let why = "too many wrong tokens came from this address: wait a minute";
            refuse(uri, StatusCode::TOO_MANY_REQUESTS, why)
        }
    })?;
    let line = format!("{line} by {:?}", who.name);
    if who.role < role {
        info!("{line}: refused, its token has not the role");
        let why = format!("this takes a token with the role {}", word(role));
        return Err(refuse(uri, StatusCode::FORBIDDEN, &why));
    }
    Ok((who, line))
}

const FOREIGN: &str = "a page of another site asks, or this service is asked for by a name that is not its own: a proxy has to hand on Host as it is";

fn word(role: Role) -> &'static str {
    match role {
        Role::Read => "read",
        Role::Operate => "operate or admin",
        Role::Admin => "admin",
    }
}

/// A change that is being made. Whoever asks may hang up in the middle of it: that is written, too.
struct Unfinished(Option<String>);

impl Unfinished {
    fn finish(mut self, status: u16, said: &str) {
        if let Some(line) = self.0.take() {
            // Quoted: descriptions, names and values are of other people's making.
            info!("{line}: {status} {:?}", beginning(said));
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(line) = self.0.take() {
            info!("{line}: nobody waited for the answer; it may be done, in part or whole");
        }
    }
}

/// As much of a text as a line of the log takes.
fn beginning(text: &str) -> &str {
    const MOST: usize = 500;
    text.char_indices().nth(MOST).map_or(text, |(end, _)| &text[..end])
}

fn unknown(path: &Uri) -> Response {
    let why = "Authentication required: send X-Api-Key.";
    let mut response = if is_old(path) {
        text(StatusCode::UNAUTHORIZED, "text/plain; charset=utf-8", format!("{why}\n"))
    } else {
        refuse(path, StatusCode::UNAUTHORIZED, why)
    };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey"));
    response
}
