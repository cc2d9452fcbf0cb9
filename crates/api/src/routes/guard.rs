//! Stands before each route that is not everybody's: who asks, whether that is enough for the route, and a line in the log.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    body::HttpBody as _,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};
use pvc_config::Role;
use pvc_core::model::audit::AuditEntry;
use tokio::time::timeout;
use tracing::info;

use super::{is_old, refuse};
use crate::{
    api::{Api, Shared},
    ask,
    clock::now_unix_s,
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
    let (request, says_more) = match ask::at_hand(request, &api).await {
        Ok(at_hand) => at_hand,
        Err(failed) => return refuse(&asker.uri, failed.status(), &failed.to_string()),
    };
    let question = (asker.who.token, format!("{} {}", request.method(), request.uri()));
    let request = asker.known(request);
    let made = async {
        // Old clients may send values in a body, and with it another question.
        if says_more {
            next.run(request).await
        } else {
            api.readings.of(question, || next.run(request)).await
        }
    };
    asker.asks(made, &api.reads, &api.limits).await
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
    let request = asker.known(request);
    asker.asks(next.run(request), &api.listeners, &api.limits).await
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
    let changing = asker.changes(&api);
    let response = next.run(asker.known(request)).await;
    let status = response.status().as_u16();
    let said = response.extensions().get::<Said>().map_or("", |said| said.0.as_str());
    changing.finish(status, said);
    Asker::answered(response, place, &api.limits)
}

/// Somebody who may, and what is asked.
struct Asker {
    who: Who,
    from: IpAddr,
    uri: Uri,
    connection: Connection,
    /// What is asked, without values.
    what: String,
    /// For the log: that, from where, by whom.
    line: String,
}

impl Asker {
    /// Is answered, in a place of these.
    async fn asks(self, made: impl Future<Output = Response>, of: &Shares, limits: &Limits) -> Response {
        let place = match self.place(of, limits).await {
            Ok(place) => place,
            Err(refused) => return refused,
        };
        Self::answered(made.await, place, limits)
    }

    /// A place of these, or the answer to who has to come back. Only from here on is the connection kept from those that make room:
    /// who has yet to send what it asks keeps nobody out.
    async fn place(&self, of: &Shares, limits: &Limits) -> Result<(Held, Place), Response> {
        let held = self.connection.clone().hold();
        let why = match timeout(limits.place_within, of.take(self.who.token, self.from)).await {
            Ok(Ok(place)) => return Ok((held, place)),
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

    /// What it is about to change.
    fn changes(&self, api: &Shared) -> Unfinished {
        let entry = AuditEntry {
            id: 0,
            at_unix_s: 0,
            by: beginning(&self.who.name, IN_AN_ENTRY).to_owned(),
            from: self.from.to_string(),
            what: self.what.clone(),
            status: None,
            said: String::new(),
        };
        Unfinished(Some((Arc::clone(api), self.line.clone(), entry)))
    }

    /// The answer: the connection and the place are held until it has been taken, which may take so long.
    fn answered(response: Response, (held, place): (Held, Place), limits: &Limits) -> Response {
        let connection = match response.body().size_hint().exact() {
            Some(bytes) => held.no_longer_than(limits.taken_within(bytes)),
            None => held,
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
    let line = format!("{method} {} from {from}", beginning(uri.path(), IN_A_LINE));
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
    let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
    let what = format!("{method} {}", beginning(uri.path(), IN_AN_ENTRY));
    Ok(Asker { who, from: address, uri: uri.clone(), connection, what, line })
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
struct Unfinished(Option<(Shared, String, AuditEntry)>);

impl Unfinished {
    fn finish(mut self, status: u16, said: &str) {
        self.end(Some(status), said);
    }

    /// A line in the log, and an entry for those who look later. Texts are quoted: descriptions, names and values are of other people's making.
    fn end(&mut self, status: Option<u16>, said: &str) {
        let Some((api, line, entry)) = self.0.take() else { return };
        match status {
            Some(status) => info!("{line}: {status} {:?}", beginning(said, IN_A_LINE)),
            None => info!("{line}: {said}"),
        }
        let said = beginning(said, IN_AN_ENTRY).to_owned();
        api.audit.say(AuditEntry { at_unix_s: now_unix_s(), status, said, ..entry });
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.end(None, "nobody waited for the answer; it may be done, in part or whole");
    }
}

/// As much of a text as a line of the log takes …
const IN_A_LINE: usize = 500;
/// … and as much as is kept of it.
const IN_AN_ENTRY: usize = 200;

fn beginning(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
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
