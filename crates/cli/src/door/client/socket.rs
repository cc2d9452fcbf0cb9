//! A WebSocket of the API: bytes both ways, and words. The library speaks it; here are its bounds, and whether the other side lives.
//!
//! Nothing waits without a bound, and nothing is kept that is larger than what the service sends at once: a frame that is, ends it before it is read.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Sink, Stream as _};
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::{
    StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{self, HeaderMap, HeaderName},
    upgrade::{self, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{ANSWERED_WITHIN, Call, Client, MOST, Reply, TAKEN_WITHIN, Token};
use crate::failure::Failure;

/// The largest frame, either way, bytes: the service's.
pub(crate) const FRAME: usize = 64 * 1024;
/// So much waits for a service that takes nothing, bytes.
const MOST_UNSENT: usize = FRAME;
/// After so long without a word the service is asked whether it lives …
const SILENCE: Duration = Duration::from_secs(5);
/// … and after so many that it has not answered, it does not.
const UNANSWERED: u32 = 3;
/// How long the end may take: what was sent before it is on its way still.
const FAREWELL: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub(crate) struct Socket {
    way: WebSocketStream<TokioIo<Upgraded>>,
    unsent: VecDeque<Bytes>,
    /// Why nothing is sent any more.
    is_deaf: Option<Error>,
    /// When it is asked next whether it lives.
    ask_at: Instant,
    unanswered: u32,
    place: String,
    /// What is in no word of the service's.
    token: Option<Token>,
}

/// What is heard.
#[derive(Debug)]
pub(crate) enum Heard {
    Bytes(Bytes),
    Text(String),
    /// All that was to be sent is on its way.
    Sent,
    /// It was closed, with this code and reason.
    Closed(Option<(u16, String)>),
    /// The service is gone, and why that is known.
    Lost(String),
    /// It is none of our API's.
    Rubbish(Failure),
}

impl Client {
    /// Asks for a WebSocket. What stands in the way is an ordinary answer.
    pub(crate) async fn socket(&self, call: Call) -> Result<Socket, Failure> {
        let key = generate_key();
        let call = call
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key);
        let stream = self.connected().await?;
        let begun = timeout(ANSWERED_WITHIN, async {
            let request = self.request(&call)?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
            // It ends with the answer, or hands on what becomes of the connection.
            tokio::spawn(async move { drop(connection.with_upgrades().await) });
            let answer = sender.send_request(request).await.map_err(std::io::Error::other)?;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                let headers = answer.headers().clone();
                let upgraded = upgrade::on(answer).await.map_err(std::io::Error::other)?;
                return Ok(Ok((upgraded, headers)));
            }
            let (head, body) = answer.into_parts();
            let body = timeout(TAKEN_WITHIN, Limited::new(body, MOST).collect()).await;
            let body = body.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
            Ok(Err((head.status, head.headers, body)))
        });
        let place = self.endpoint.to_string();
        let begun =
            begun.await.unwrap_or_else(|_| Err(super::late())).map_err(|cause| self.broken(&call, cause))?;
        let (upgraded, headers) = match begun {
            Ok(upgraded) => upgraded,
            Err((status, _, _)) if status.is_success() => {
                let why = format!(
                    "{place} answered {} and no WebSocket: is it of another version?",
                    status.as_u16()
                );
                return Err(Failure::Rubbish(why));
            }
            Err((status, headers, body)) => {
                return Err(self.failure(&call, status, Reply { headers, body, place }));
            }
        };
        let is_ours = value(&headers, header::UPGRADE).eq_ignore_ascii_case("websocket")
            && value(&headers, header::SEC_WEBSOCKET_ACCEPT) == derive_accept_key(key.as_bytes());
        if !is_ours {
            return Err(Failure::Rubbish(format!(
                "{place} changes to another protocol than it was asked for"
            )));
        }
        let bounds = WebSocketConfig::default()
            .read_buffer_size(FRAME)
            .write_buffer_size(0)
            .max_write_buffer_size(4 * FRAME)
            .max_frame_size(Some(FRAME))
            .max_message_size(Some(FRAME));
        let way = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(bounds)).await;
        let ask_at = Instant::now() + SILENCE;
        let token = self.token.clone();
        Ok(Socket { way, unsent: VecDeque::new(), is_deaf: None, ask_at, unanswered: 0, place, token })
    }
}

fn value(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl Socket {
    /// Whether there is room for as much as is sent at once.
    pub(crate) fn has_room(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Sends this, as [`Self::next`] is waited for. `false`: there is no room for it, and nothing of it is sent.
    #[must_use]
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        let waiting: usize = self.unsent.iter().map(Bytes::len).sum();
        if self.is_deaf.is_some() || waiting + bytes.len() > MOST_UNSENT {
            return false;
        }
        self.unsent.push_back(Bytes::copy_from_slice(bytes));
        true
    }

    /// What is heard next; after an end nothing comes. Nothing is lost when this future is dropped.
    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            let (ask_at, has_to_send) = (self.ask_at, !self.unsent.is_empty());
            let message = tokio::select! {
                biased;
                message = poll_fn(|cx| match self.poll(cx) {
                    Poll::Pending if has_to_send && self.unsent.is_empty() => Poll::Ready(None),
                    read => read.map(Some),
                }) => message,
                () = sleep_until(ask_at) => {
                    if let Some(error) = &self.is_deaf {
                        return Heard::Lost(error.to_string());
                    }
                    if self.unanswered == UNANSWERED {
                        return Heard::Lost("it says nothing any more".to_owned());
                    }
                    self.unanswered += 1;
                    self.ask_at = Instant::now() + SILENCE;
                    self.put(Message::Ping(Bytes::new()));
                    continue;
                }
            };
            let Some(message) = message else { return Heard::Sent };
            (self.ask_at, self.unanswered) = (Instant::now() + SILENCE, 0);
            return match message {
                None => Heard::Lost("it was closed without a word".to_owned()),
                Some(Ok(Message::Binary(bytes))) => Heard::Bytes(bytes),
                Some(Ok(Message::Text(text))) => Heard::Text(self.without_token(text.as_str())),
                Some(Ok(Message::Close(said))) => Heard::Closed(
                    said.map(|said| (said.code.into(), self.without_token(said.reason.as_str()))),
                ),
                Some(Ok(_)) => continue,
                Some(Err(Error::Io(error))) => Heard::Lost(error.to_string()),
                Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                    Heard::Lost("it was closed without a word".to_owned())
                }
                Some(Err(error)) => Heard::Rubbish(Failure::Rubbish(format!(
                    "{} sent what no API sends: {error}",
                    self.place
                ))),
            };
        }
    }

    /// A stranger may say what was sent.
    fn without_token(&self, said: &str) -> String {
        self.token.as_ref().map_or_else(|| said.to_owned(), |token| token.hidden_in(said))
    }

    /// Reads, and sends what waits. Where nothing can be sent any more, there may be a reason in what is read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        let read = Pin::new(&mut self.way).poll_next(cx);
        if self.is_deaf.is_none()
            && let Err(error) = self.push(cx)
        {
            self.unsent.clear();
            self.is_deaf = Some(error);
        }
        read
    }

    fn push(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.way).poll_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok(()),
            }
            let Some(bytes) = self.unsent.pop_front() else { break };
            Pin::new(&mut self.way).start_send(Message::Binary(bytes))?;
        }
        match Pin::new(&mut self.way).poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    /// Sends this before what waits, when there is a way. A ping more or less is none that anybody misses.
    fn put(&mut self, message: Message) {
        if self.is_deaf.is_none() {
            self.is_deaf = Pin::new(&mut self.way).start_send(message).err();
        }
    }

    /// Closes it: what was sent before is sent yet, if the other side takes it.
    pub(crate) async fn close(mut self) {
        let farewell = async {
            let sent = poll_fn(|cx| {
                // What is printed now is seen by nobody.
                while let Poll::Ready(Some(Ok(_))) = self.poll(cx) {}
                if self.unsent.is_empty() { Poll::Ready(()) } else { Poll::Pending }
            });
            sent.await;
            self.put(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })));
            while let Heard::Bytes(_) | Heard::Text(_) | Heard::Sent = self.next().await {}
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}

#[cfg(test)]
mod tests;
