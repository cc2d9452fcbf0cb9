//! Stands before each route that is not everybody's: who asks, whether that is enough for the route, and a line in the log.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequestParts as _, RawPathParams, Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};
use futures_util::StreamExt as _;
use pvc_config::Role;
use pvc_core::model::{VmName, audit::AuditEntry};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Before, Reach, carried::Carried, is_old, later, refuse};
use crate::{
    api::{Api, Shared},
    ask,
    clock::until,
    connection::{Connection, Held},
    gate::Stranger,
    limits::Limits,
    noted::{IN_A_LINE, IN_AN_ENTRY, beginning, keep},
    reply::{NothingChanged, Said, text},
    shares::{Full, Place, Shares},
    taken::until_taken,
    talk::Talk,
    vms::Pieces,
    who::{NO_NAMES, Who},
};

/// Before a route that changes nothing.
pub(super) async fn reading(State(before): State<Before>, request: Request, next: Next) -> Response {
    let (asker, request) = match admitted(&before, request, false).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let api = before.api;
    // First what it says, which may take it long, then a place.
    let (request, says_more) = match ask::at_hand(request, &api).await {
        Ok(at_hand) => at_hand,
        Err(failed) => return refuse(&asker.uri, failed.status(), &failed.to_string()),
    };
    let question = (asker.who.token, format!("{} {}", request.method(), request.uri()));
    let request = asker.known(request);
    let uri = asker.uri.clone();
    let made = async {
        // Old clients may send values in a body, and with it another question.
        if says_more {
            return next.run(request).await;
        }
        api.readings.of(question, || next.run(request)).await.unwrap_or_else(|error| {
            warn!("what {uri} answers broke off while it was made: {error}");
            refuse(
                &uri,
                StatusCode::INTERNAL_SERVER_ERROR,
                "the answer broke off while it was made: ask again",
            )
        })
    };
    let (who, uri) = (asker.who.clone(), asker.uri.clone());
    asker.asks(async { without_names(&who, &uri, made.await) }, &api.reads, &api).await
}

/// Before a route whose answer does not end.
pub(super) async fn listening(State(before): State<Before>, request: Request, next: Next) -> Response {
    let session_end = before.api.gate.session_end(request.headers());
    let (asker, request) = match admitted(&before, request, false).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let api = before.api;
    let request = asker.known(request);
    let (gate, who) = (Arc::clone(&api), asker.who.clone());
    let made = async {
        // Whose token is taken away, or whose session is over, hears nothing from then on.
        let ends = async move {
            tokio::select! {
                () = gate.gate.until_revoked(&who) => {}
                () = until(session_end) => {}
            }
        };
        next.run(request)
            .await
            .map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(ends))))
    };
    asker.asks(made, &api.listeners, &api).await
}

/// Before a route that changes something: a line in the log, whatever came of it: who, from where, what, and what was answered. What has begun runs to
/// its end in its place, whether or not who has asked waits for it.
pub(super) async fn changing(State(before): State<Before>, request: Request, next: Next) -> Response {
    let (asker, request) = match admitted(&before, request, true).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let api = Arc::clone(&before.api);
    let place = match asker.place(&api.changes, &api).await {
        Ok(place) => place,
        Err(refused) => {
            info!("{}: refused, there is no place, or its token was taken away", asker.line);
            return refused;
        }
    };
    let how = match Carried::of(&asker.who, &asker.uri, asker.known(request), before).await {
        Ok(how) => how,
        Err(refused) => {
            info!("{}: refused, {} {:?}", asker.line, refused.status(), said(&refused));
            return Asker::answered(refused, place, &api.limits);
        }
    };
    let (changing, uri) = (asker.changes(&api), asker.uri.clone());
    let change = tokio::spawn(async move {
        let response = how.out(&asker.uri, next).await;
        changing.finish(&response);
        (without_names(&asker.who, &asker.uri, response), place)
    });
    match change.await {
        Ok((response, place)) => Asker::answered(response, place, &api.limits),
        Err(error) => {
            warn!("{} was not carried out to its end: {error}", uri.path());
            refuse(
                &uri,
                StatusCode::INTERNAL_SERVER_ERROR,
                "this broke off; it may be done, in part or whole",
            )
        }
    }
}

/// Before a route that becomes a talk: it is a change as far as browsers and roles are concerned, and has entries for its beginning and its end.
pub(super) async fn talking(State(before): State<Before>, request: Request, next: Next) -> Response {
    let session_end = before.api.gate.session_end(request.headers());
    let (asker, request) = match admitted(&before, request, true).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let api = before.api;
    let (held, place) = match asker.place(&api.talks, &api).await {
        Ok(place) => place,
        Err(refused) => {
            info!("{}: refused, there is no place, or its token was taken away", asker.line);
            return refused;
        }
    };
    let mut request = asker.known(request);
    let talk = Arc::new(Talk::new(&api, &asker.line, asker.entry(), session_end, place));
    request.extensions_mut().insert(Arc::clone(&talk));
    let response = next.run(request).await;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // The talk goes on, in its place, and is no request of this connection any more.
        return response;
    }
    info!("{}: {} {:?}", asker.line, response.status().as_u16(), beginning(said(&response), IN_A_LINE));
    let response = without_names(&asker.who, &asker.uri, response);
    Asker::answered(response, (held, talk), &api.limits)
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
    async fn asks(self, made: impl Future<Output = Response>, of: &Shares, api: &Api) -> Response {
        let place = match self.place(of, api).await {
            Ok(place) => place,
            Err(refused) => return refused,
        };
        Self::answered(made.await, place, &api.limits)
    }

    /// A place of these, or the answer to who has to come back. Only from here on is the connection kept from those that make room:
    /// who has yet to send what it asks keeps nobody out.
    async fn place(&self, of: &Shares, api: &Api) -> Result<(Held, Place), Response> {
        let held = self.connection.clone().hold();
        let why = match timeout(api.limits.place_within, of.take(self.who.token, self.from)).await {
            // Its token may have been taken away meanwhile.
            Ok(Ok(_)) if !api.gate.still(&self.who) => return Err(unknown(&self.uri)),
            Ok(Ok(place)) => return Ok((held, place)),
            Ok(Err(Full)) => "as many as may are being answered or wait: ask again later",
            Err(_) => {
                "the answers that this token may have at once are not taken, or others ask much: ask again later"
            }
        };
        Err(later(&self.uri, why))
    }

    /// The request, for handlers that want to know who asks.
    fn known(&self, mut request: Request) -> Request {
        request.extensions_mut().insert(self.who.clone());
        request
    }

    /// What it is about to change.
    fn changes(&self, api: &Shared) -> Unfinished {
        Unfinished(Some((Arc::clone(api), self.line.clone(), self.entry())))
    }

    fn entry(&self) -> AuditEntry {
        AuditEntry {
            id: 0,
            at_unix_s: 0,
            by: beginning(&self.who.name, IN_AN_ENTRY).to_owned(),
            from: self.from.to_string(),
            what: self.what.clone(),
            status: None,
            said: String::new(),
        }
    }

    /// The answer: the connection and the place are held until it has been taken, which may take so long.
    fn answered<P: Send + Sync + 'static>(
        mut response: Response,
        (held, place): (Held, P),
        limits: &Limits,
    ) -> Response {
        let pieces = response.extensions_mut().remove::<Pieces>();
        let bytes =
            pieces.as_ref().map(|pieces| pieces.bytes).or_else(|| response.body().size_hint().exact());
        let connection = match bytes {
            Some(bytes) => held.no_longer_than(limits.taken_within(bytes)),
            None => held,
        };
        let response = match pieces {
            Some(pieces) => response.map(|_| pieces.body()),
            None => response,
        };
        response.map(|body| until_taken(body, (connection, place)))
    }
}

/// Who asks, and the request; or the answer to who may not.
async fn admitted(before: &Before, request: Request, changes: bool) -> Result<(Asker, Request), Response> {
    let Before { api, role, reach, .. } = before;
    let from = request.extensions().get::<SocketAddr>().copied();
    let address = from.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |from| from.ip());
    let (method, uri) = (request.method(), request.uri());
    let from = from.map(|from| from.to_string()).unwrap_or_default();
    let line = format!("{method} {} from {from}", beginning(uri.path(), IN_A_LINE));
    let settled = api.gate.settle(request.headers(), None, address).await;
    let who = settled.and_then(|()| api.gate.who(request.headers(), changes, address));
    let who = who.map_err(|stranger| match stranger {
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
        Stranger::NotYet => later(
            uri,
            "the state store does not answer, so nobody knows whose token this is: ask again later",
        ),
    })?;
    let line = format!("{line} by {:?}", who.name);
    if who.role < *role {
        info!("{line}: refused, its token has not the role");
        let why = format!("this takes a token with the role {}", word(*role));
        return Err(refuse(uri, StatusCode::FORBIDDEN, &why));
    }
    let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
    let what = format!("{method} {}", beginning(uri.path(), IN_AN_ENTRY));
    let asker = Asker { who, from: address, uri: uri.clone(), connection, what, line };
    let request = within_reach(&asker, *reach, request).await?;
    Ok((asker, request))
}

/// The request, unless its token is limited to VMs and it is about something else.
async fn within_reach(asker: &Asker, reach: Reach, request: Request) -> Result<Request, Response> {
    let Some(vms) = &asker.who.vms else { return Ok(request) };
    let (mut parts, body) = request.into_parts();
    let may = match reach {
        Reach::OfWhoAsks => true,
        Reach::Whole => false,
        // By its name: a UUID would have to be looked up.
        Reach::OneVm => RawPathParams::from_request_parts(&mut parts, &())
            .await
            .is_ok_and(|path| path.iter().any(|(name, value)| name == "vm" && asker.who.may_see(value))),
    };
    if may {
        return Ok(Request::from_parts(parts, body));
    }
    info!("{}: refused, its token is limited to VMs", asker.line);
    let names: Vec<&str> = vms.iter().map(VmName::as_str).collect();
    let why = format!(
        "this token is good for {} only, below /api/v2/vms and by name",
        pvc_core::text::some(&names)
    );
    Err(refuse(&asker.uri, StatusCode::FORBIDDEN, &why))
}

/// What is not there is answered with what might have been meant: a token that is limited to VMs is not told of others.
fn without_names(who: &Who, uri: &Uri, response: Response) -> Response {
    if who.vms.is_none() || response.status() != StatusCode::NOT_FOUND {
        return response;
    }
    refuse(uri, StatusCode::NOT_FOUND, NO_NAMES)
}

const FOREIGN: &str = "a page of another site asks, or this service is asked for by a name that is not its own: a proxy has to hand on Host as it is";

fn word(role: Role) -> &'static str {
    match role {
        Role::Read => "read",
        Role::Operate => "operate or admin",
        Role::Admin => "admin",
    }
}

fn said(response: &Response) -> &str {
    response.extensions().get::<Said>().map_or("", |said| said.0.as_str())
}

/// A change that is being made. One that breaks off is written, too.
struct Unfinished(Option<(Shared, String, AuditEntry)>);

impl Unfinished {
    /// A line in the log, and, if something may have changed, an entry for those who look later: what changes nothing pushes nothing out of what is kept.
    /// Texts are quoted: descriptions, names and values are of other people's making.
    fn finish(mut self, response: &Response) {
        let Some((api, line, entry)) = self.0.take() else { return };
        let status = response.status().as_u16();
        let said = said(response);
        info!("{line}: {status} {:?}", beginning(said, IN_A_LINE));
        if response.extensions().get::<NothingChanged>().is_none() {
            keep(&api, AuditEntry { status: Some(status), ..entry }, said);
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some((api, line, entry)) = self.0.take() else { return };
        let said = "it broke off; it may be done, in part or whole";
        info!("{line}: {said}");
        keep(&api, entry, said);
    }
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
