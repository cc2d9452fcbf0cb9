//! Asks the HTTP API: one connection a request, each with a deadline, each answer bounded. The token goes to the address that it belongs to and nowhere else: no redirect is
//! followed, and without TLS it leaves this machine only where that is asked for.

mod socket;

use std::{
    fmt,
    io::{self, ErrorKind},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{self, HeaderMap, HeaderName},
};
use hyper_util::rt::TokioIo;
use pvc_core::command::{Refusal, RefusalKind};
use pvc_operate::Kind;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

pub(crate) use self::socket::{FRAME, Heard, Socket};
use super::endpoint::{Endpoint, Token};
use crate::failure::Failure;

/// How long it may take until somebody takes the request. While the primary changes nobody does for a moment, so it is tried again.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// How long an answer may take: the service gives itself a minute.
const ANSWERED_WITHIN: Duration = Duration::from_secs(75);
/// The longest answer, bytes: of 40,000 VMs.
const MOST: usize = 64 << 20;

/// A client of one API.
pub(crate) struct Client {
    endpoint: Endpoint,
    token: Option<Token>,
    tls: Option<TlsConnector>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    has_query: bool,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
}

/// An answer that is none of a failure.
pub(crate) struct Reply {
    headers: HeaderMap,
    body: Bytes,
    /// Who has said it, for messages.
    place: String,
}

/// Why there is nothing else to answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Problem {
    status: Option<u16>,
    detail: String,
    what: Option<String>,
    why: Option<String>,
    todo: Option<String>,
    waiting: Option<String>,
}

impl Call {
    /// Reads what is below `/api/v2` by these parts.
    pub(crate) fn get(parts: &[&str]) -> Self {
        Self::new(Method::GET, parts)
    }

    pub(crate) fn post(parts: &[&str]) -> Self {
        Self::new(Method::POST, parts)
    }

    pub(crate) fn put(parts: &[&str]) -> Self {
        Self::new(Method::PUT, parts)
    }

    pub(crate) fn patch(parts: &[&str]) -> Self {
        Self::new(Method::PATCH, parts)
    }

    pub(crate) fn delete(parts: &[&str]) -> Self {
        Self::new(Method::DELETE, parts)
    }

    fn new(method: Method, parts: &[&str]) -> Self {
        let mut path = "/api/v2".to_owned();
        for part in parts {
            path.extend(["/", &escaped(part)]);
        }
        Self { method, path, has_query: false, headers: Vec::new(), body: Bytes::new() }
    }

    /// Reads what an answer has named.
    pub(crate) fn follow(path: &str) -> Result<Self, Failure> {
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic()) && path.len() <= 2048;
        if !is_plain || !path.starts_with("/api/v2/") {
            return Err(Failure::Rubbish("it names no path of its own to follow".to_owned()));
        }
        Ok(Self { path: path.to_owned(), ..Self::get(&[]) })
    }

    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.path.push(if std::mem::replace(&mut self.has_query, true) { '&' } else { '?' });
        self.path.extend([name, "=", &escaped(value)]);
        self
    }

    fn is_change(&self) -> bool {
        self.method != Method::GET
    }

    /// What to say besides when nobody has answered.
    fn in_doubt(&self) -> &'static str {
        if self.is_change() { "; what was asked for may be done, or not" } else { "" }
    }

    pub(crate) fn query_if(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        // Nothing of ours has no form in JSON.
        self.body = serde_json::to_vec(body).unwrap_or_default().into();
        self.header(header::CONTENT_TYPE, "application/json")
    }

    pub(crate) fn xml(mut self, body: &str) -> Self {
        self.body = Bytes::copy_from_slice(body.as_bytes());
        self.header(header::CONTENT_TYPE, "application/xml")
    }
}

/// As a part of a path, or a value of a query, has it.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte);
    let escaped = text.bytes().map(|byte| match byte {
        byte if plain(byte) || byte == b'.' && text != "." && text != ".." => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    escaped.collect()
}

impl Reply {
    /// Its text.
    pub(crate) fn text(self) -> Result<String, Failure> {
        String::from_utf8(self.body.into())
            .map_err(|_| Failure::Rubbish(format!("{} answered with what is no text", self.place)))
    }

    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What it says, which is JSON of this form.
    fn json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let kind = self.header(header::CONTENT_TYPE).unwrap_or_default();
        if kind.split(';').next() != Some("application/json") {
            return Err(Failure::Rubbish(format!("{} answered with what is not JSON", self.place)));
        }
        // Without the words of the error, which has those of the answer, and a stranger may answer with what was sent.
        serde_json::from_slice(&self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let place = &self.place;
            Failure::Rubbish(format!(
                "{place} answered with JSON of another form (line {line}, column {column}): is it of another version?"
            ))
        })
    }
}

impl Client {
    pub(crate) fn new(endpoint: Endpoint, token: Option<Token>, tls: Option<TlsConnector>) -> Self {
        Self { endpoint, token, tls }
    }

    /// Asks, and reads JSON.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, Failure> {
        self.send(call).await?.json()
    }

    /// Asks. A failure of the cluster's has its words and its kind.
    pub(crate) async fn send(&self, call: Call) -> Result<Reply, Failure> {
        let mut stream = self.connected().await?;
        let asked = timeout(ANSWERED_WITHIN, self.exchange(&mut stream, &call)).await;
        let (status, headers, body) =
            asked.unwrap_or_else(|_| Err(late())).map_err(|cause| self.broken(&call, cause))?;
        let reply = Reply { headers, body, place: self.endpoint.to_string() };
        if status.is_success() { Ok(reply) } else { Err(self.failure(&call, status, reply)) }
    }

    fn broken(&self, call: &Call, cause: io::Error) -> Failure {
        Failure::NoAnswer(format!("{} did not answer: {cause}{}", self.endpoint, call.in_doubt()))
    }

    async fn connected(&self) -> Result<Box<dyn Channel>, Failure> {
        let until = Instant::now() + TAKEN_WITHIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let why = match timeout(left, self.connect()).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) if is_passing(&error) && left > TRY_AGAIN => {
                    sleep(TRY_AGAIN).await;
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("not within {} s", TAKEN_WITHIN.as_secs()),
            };
            return Err(Failure::NoApi { place: self.endpoint.to_string(), why });
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Channel>> {
        let stream = TcpStream::connect((self.endpoint.host.as_str(), self.endpoint.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.endpoint.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }

    async fn exchange(
        &self,
        stream: &mut Box<dyn Channel>,
        call: &Call,
    ) -> io::Result<(StatusCode, HeaderMap, Bytes)> {
        let request = self.request(call)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let answer = async {
            let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
            let body = Limited::new(body, MOST).collect().await.map_err(io::Error::other)?;
            Ok((head.status, head.headers, body.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        // The connection carries the answer, and may end before that is taken.
        tokio::select! {
            answer = &mut answer => answer,
            ended = connection => {
                ended.map_err(io::Error::other)?;
                answer.await
            }
        }
    }

    fn request(&self, call: &Call) -> io::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.path.as_str())
            .header(header::HOST, self.endpoint.authority())
            .header(header::USER_AGENT, concat!("pvc/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if call.headers.iter().all(|(name, _)| name != header::CONNECTION) {
            // One request each.
            request = request.header(header::CONNECTION, "close");
        }
        if let Some(token) = &self.token {
            request = request.header("x-api-key", token.header());
        }
        request.body(Full::new(call.body.clone())).map_err(io::Error::other)
    }

    /// Asks for what does not end.
    pub(crate) async fn stream(&self, call: Call) -> Result<Stream, Failure> {
        let stream = self.connected().await?;
        let begun = async {
            let request = self.request(&call)?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            let connection = tokio::spawn(async move { drop(connection.await) }).abort_handle();
            let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
            Ok((head, Stream { body, connection }))
        };
        let begun = timeout(ANSWERED_WITHIN, begun).await;
        let (head, mut stream) =
            begun.unwrap_or_else(|_| Err(late())).map_err(|cause| self.broken(&call, cause))?;
        if head.status.is_success() {
            return Ok(stream);
        }
        let body = timeout(TAKEN_WITHIN, stream.next()).await.ok().flatten().unwrap_or_default();
        let reply = Reply { headers: head.headers, body, place: self.endpoint.to_string() };
        Err(self.failure(&call, head.status, reply))
    }

    /// Who says so, for messages.
    pub(crate) fn place(&self) -> String {
        self.endpoint.to_string()
    }

    /// The token is none, or none any more.
    pub(crate) fn no_token(&self) -> Failure {
        Failure::NoToken { place: self.place() }
    }

    /// A text that a stranger may have sent, without the token.
    fn without_token(&self, said: &str) -> String {
        self.token.as_ref().map_or_else(|| said.to_owned(), |token| token.hidden_in(said))
    }

    /// What text in a WebSocket says: JSON of this form.
    pub(crate) fn told<T: DeserializeOwned>(&self, text: &str) -> Result<T, Failure> {
        serde_json::from_str(text).map_err(|_| {
            Failure::Rubbish(format!(
                "{} says what is not understood: is it of another version?",
                self.endpoint
            ))
        })
    }

    fn failure(&self, call: &Call, status: StatusCode, reply: Reply) -> Failure {
        let place = &self.endpoint;
        if status.is_redirection() {
            return Failure::Rubbish(format!(
                "{place} answered {}: it sends elsewhere, where the token is not sent; name the API itself",
                status.as_u16()
            ));
        }
        let is_problem = reply.header(header::CONTENT_TYPE) == Some("application/problem+json");
        // A stranger may answer with what was sent.
        let said = String::from_utf8_lossy(&reply.body);
        let said = self.without_token(&said);
        let Some(problem) = serde_json::from_str::<Problem>(&said).ok().filter(|_| is_problem) else {
            let told = format!("{place} answered {} and no reason", status.as_u16());
            // It may be somebody on the way who says so, of a request that has arrived.
            let nobody_knows = status.is_server_error() && call.is_change();
            return if nobody_knows || Self::is_passing(status) {
                Failure::NoAnswer(format!("{told}{}", call.in_doubt()))
            } else {
                Failure::Rubbish(told)
            };
        };
        self.failure_of(status, problem, call.in_doubt())
    }

    /// What a problem says that came with a word for its status.
    pub(crate) fn failed(&self, problem: Problem) -> Failure {
        let status = problem.status.and_then(|status| StatusCode::from_u16(status).ok());
        self.failure_of(status.unwrap_or_default(), problem, "")
    }

    fn failure_of(&self, status: StatusCode, problem: Problem, in_doubt: &str) -> Failure {
        let kind = match status {
            StatusCode::CONFLICT
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN => Kind::Refused,
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::SERVICE_UNAVAILABLE => Kind::Unavailable,
            _ => Kind::Failed,
        };
        let Problem { status: _, mut detail, what, why, todo, waiting } = problem;
        if status == StatusCode::UNAUTHORIZED {
            return self.no_token();
        }
        if let (Some(what), Some(why), Some(todo)) = (what, why, todo) {
            let kind = if kind == Kind::NotFound { RefusalKind::NotFound } else { RefusalKind::Refused };
            return Failure::Cluster(Refusal { kind, what, why, todo }.into());
        }
        if waiting.is_none() && Self::is_passing(status) {
            // What the cluster waits for is said; this is the service, which has given up.
            if status == StatusCode::GATEWAY_TIMEOUT {
                detail += in_doubt;
            }
            return Failure::Told { kind: Kind::Unavailable, words: detail, waiting };
        }
        Failure::Told { kind, words: detail, waiting }
    }

    /// Whether another attempt may be answered.
    fn is_passing(status: StatusCode) -> bool {
        [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT]
            .contains(&status)
    }
}

/// Nobody has answered in time.
fn late() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, format!("not within {} s", ANSWERED_WITHIN.as_secs()))
}

/// Whether another attempt may do: nobody listens there while the primary changes.
fn is_passing(error: &io::Error) -> bool {
    use ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
    };
    [ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable]
        .contains(&error.kind())
}

/// An answer that does not end.
pub(crate) struct Stream {
    body: Incoming,
    connection: AbortHandle,
}

impl Stream {
    /// What comes next; `None`: it has ended.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Ok(bytes) = self.body.frame().await?.ok()?.into_data() {
                return Some(bytes);
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// With TLS or without.
trait Channel: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Channel for T {}

/// Who trusts these certificates.
pub(crate) fn tls(roots: tokio_rustls::rustls::RootCertStore) -> Result<TlsConnector, Failure> {
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = tokio_rustls::rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Usage(format!("TLS cannot be spoken here: {error}")))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()).into())
}

#[cfg(test)]
mod tests;
