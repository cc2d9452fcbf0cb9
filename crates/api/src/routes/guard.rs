//! Stands before each route that is not everybody's: who asks, whether that is enough for the route, and a line in the log.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::{
    body::HttpBody as _,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};
use pvc_config::Role;
use tokio::time::timeout;
use tracing::info;

use super::{is_old, refuse};
use crate::{
    api::{Api, Shared},
    ask,
    connection::{Connection, Held},
    gate::{Stranger, Who},
    limits::Limits,
    reply::{Said, text},
    shares::{Full, Place, Shares},
    taken::until_taken,
};

/// Before a route that changes nothing.
pub(super) async fn reading(
    State((api, role)): State<(Shared, Role)>,
    request: Request,
    next: Next,
) -> Response {
    let asker = match admitted(&api, role, &request, false) {
        Ok(asker) => asker,
        Err(refused) => return refused,
    };
    // First what it says, which may take it long, then a place.
    let request = match ask::at_hand(request, &api).await {
        Ok(request) => request,
        Err(failed) => return refuse(&asker.uri, failed.status(), &failed.to_string()),
    };
    asker.asks(request, next, &api.reads, &api.limits).await
}

/// Before a route whose answer does not end.
pub(super) async fn listening(
    State((api, role)): State<(Shared, Role)>,
    request: Request,
    next: Next,
) -> Response {
    let asker = match admitted(&api, role, &request, false) {
        Ok(asker) => asker,
        Err(refused) => return refused,
    };
    asker.asks(request, next, &api.listeners, &api.limits).await
}

/// Before a route that changes something: a line in the log, whatever came of it: who, from where, what, and what was answered.
pub(super) async fn changing(
    State((api, role)): State<(Shared, Role)>,
    request: Request,
    next: Next,
) -> Response {
    let asker = match admitted(&api, role, &request, true) {
        Ok(asker) => asker,
        Err(refused) => return refused,
    };
    let place = match asker.place(&api.changes, &api.limits).await {
        Ok(place) => place,
        Err(refused) => {
            info!("{}: refused, there is no place", asker.line);
            return refused;
        }
    };
    let changing = Unfinished(Some(asker.line.clone()));
    let response = next.run(asker.known(request)).await;
    let status = response.status().as_u16();
    let said = response.extensions().get::<Said>().map_or("", |said| said.0.as_str());
    changing.finish(status, said);
    asker.answered(response, place, &api.limits)
}

/// Somebody who may, and what is asked.
struct Asker {
    who: Who,
    from: IpAddr,
    uri: Uri,
    connection: Held,
    /// For the log: what is asked, from where, by whom.
    line: String,
}

impl Asker {
    /// Is answered, in a place of these.
    async fn asks(self, request: Request, next: Next, of: &Shares, limits: &Limits) -> Response {
        let place = match self.place(of, limits).await {
            Ok(place) => place,
            Err(refused) => return refused,
        };
        let response = next.run(self.known(request)).await;
        self.answered(response, place, limits)
    }

    /// A place of these, or the answer to who has to come back.
    async fn place(&self, of: &Shares, limits: &Limits) -> Result<Place, Response> {
        let why = match timeout(limits.place_within, of.take(self.who.token, self.from)).await {
            Ok(Ok(place)) => return Ok(place),
            Ok(Err(Full)) => "as many as may are being answered or wait: ask again later",
            Err(_) => {
                "the answers that this token may have at once are not taken, or others ask much: ask again later"
            }
        };
        let mut refused = refuse(&self.uri, StatusCode::SERVICE_UNAVAILABLE, why);
        refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        Err(refused)
    }

    /// The request, for handlers that want to know who asks.
    fn known(&self, mut request: Request) -> Request {
        request.extensions_mut().insert(self.who.clone());
        request
    }

    /// The answer: the connection and the place are held until it has been taken, which may take so long.
    fn answered(self, response: Response, place: Place, limits: &Limits) -> Response {
        let connection = match response.body().size_hint().exact() {
            Some(bytes) => self.connection.no_longer_than(limits.taken_within(bytes)),
            None => self.connection,
        };
        response.map(|body| until_taken(body, (connection, place)))
    }
}

/// Who asks; or the answer to who may not.
#[allow(clippy::result_large_err, reason = "an answer, made once")]
fn admitted(api: &Api, role: Role, request: &Request, changes: bool) -> Result<Asker, Response> {
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
    let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default().hold();
    Ok(Asker { who, from: address, uri: uri.clone(), connection, line })
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
