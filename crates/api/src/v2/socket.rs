//! The client's side of a talk with a guest: a WebSocket, of which nothing is waited for without a bound.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    extract::{
        WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code, rejection::WebSocketUpgradeRejection},
    },
    http::StatusCode,
    response::Response,
};
use pvc_console::{MOST_TYPED, Nodes};
use pvc_core::model::Node;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::Problem;
use crate::{api::Shared, talk::Talk, who::Who};

/// How often a client is asked whether it lives.
const PING: Duration = Duration::from_secs(15);
/// The largest frame, either way, bytes.
pub(super) const FRAME: usize = MOST_TYPED;

const REVOKED: &str = "its token is not good any more";
const OVER: &str = "its session is over";
const ENDS: &str = "the service ends";
/// How long it is listened for whether the other side has read the end.
const FAREWELL: Duration = Duration::from_secs(1);
/// Codes from here on are a program's own: with the status of an ordinary answer above it.
const REFUSED: u16 = 4000;
/// The most that a close may say, bytes (RFC 6455).
const MOST_REASON: usize = 123;

pub(super) type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// What becomes a WebSocket, with bounds.
pub(super) fn bounded(upgrade: Upgrade) -> Result<WebSocketUpgrade, Problem> {
    let upgrade = upgrade.map_err(|error| {
        Problem::new(StatusCode::UPGRADE_REQUIRED, format!("this is a WebSocket (RFC 6455): {error}"))
    })?;
    Ok(upgrade.max_message_size(FRAME).max_frame_size(FRAME).max_write_buffer_size(4 * FRAME))
}

/// A browser shows its page no answer but the WebSocket: a refusal comes in it.
pub(super) fn refuse_inside(
    upgrade: WebSocketUpgrade,
    api: &Shared,
    who: &Who,
    talk: Arc<Talk>,
    problem: Problem,
) -> Response {
    let (problem, patience) = (problem.without_names(who), api.limits.taken_within);
    upgrade.on_upgrade(move |socket| async move {
        let (words, told) = problem.told();
        talk.is_refused(&words);
        Client::new(socket, patience).refuse(problem.status, told.to_string()).await;
    })
}

/// Returns when a talk has to end, whatever is said: with the code and the reason.
pub(super) async fn has_to_end(api: &Shared, who: &Who, talk: &Talk) -> (u16, &'static str) {
    tokio::select! {
        () = api.gate.until_revoked(who) => (close_code::POLICY, REVOKED),
        () = talk.until_session_ends() => (close_code::POLICY, OVER),
        () = api.until_end() => (close_code::AWAY, ENDS),
    }
}

/// Where nodes are in the cluster network, as each says for tunnels. Their names are not known to be found from here.
pub(super) async fn nodes(api: &Shared) -> Result<Nodes, Problem> {
    let known = api.seen().nodes().await?;
    let address = |node: &Node| match node.vtep? {
        IpAddr::V4(address) => Some((node.name.clone(), address)),
        IpAddr::V6(_) => None,
    };
    Ok(Nodes { addresses: known.all.iter().filter_map(address).collect(), ..Nodes::default() })
}

/// See the module's documentation.
pub(super) struct Client {
    socket: WebSocket,
    /// It has answered since it was asked last.
    is_alive: bool,
    pub(super) patience: Duration,
}

/// What a client says.
pub(super) enum Said {
    /// This, to the guest.
    Bytes(axum::body::Bytes),
    /// Nothing but that it lives.
    Lives,
    /// That it is over, in this way.
    Over(&'static str),
    /// Nothing any more.
    Gone,
}

impl Client {
    pub(super) fn new(socket: WebSocket, patience: Duration) -> Self {
        Self { socket, is_alive: true, patience }
    }

    /// When it is asked next whether it lives.
    pub(super) async fn pings() -> Interval {
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.tick().await;
        pings
    }

    /// What it says next. Nothing is lost when this future is dropped while nothing was said.
    pub(super) async fn next(&mut self) -> Said {
        match self.socket.recv().await {
            Some(Ok(Message::Binary(bytes))) => {
                self.is_alive = true;
                Said::Bytes(bytes)
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                self.is_alive = true;
                Said::Lives
            }
            Some(Ok(Message::Text(_))) => {
                self.close(close_code::UNSUPPORTED, "what is typed is sent as binary frames").await;
                Said::Over("the client sent text")
            }
            Some(Ok(Message::Close(_))) | None => Said::Over("the client closed it"),
            Some(Err(_)) => Said::Gone,
        }
    }

    /// Asks whether it lives; `false`: it has not answered since it was asked last.
    pub(super) async fn ping(&mut self) -> bool {
        std::mem::replace(&mut self.is_alive, false) && self.send(Message::Ping(Vec::new().into())).await
    }

    /// Tells why there is nothing.
    async fn refuse(mut self, status: StatusCode, problem: String) {
        if self.say(problem).await {
            self.close(REFUSED + status.as_u16(), "refused").await;
            self.farewell().await;
        }
    }

    pub(super) async fn print(&mut self, bytes: &[u8]) -> bool {
        for part in bytes.chunks(FRAME) {
            if !self.send(Message::Binary(part.to_vec().into())).await {
                return false;
            }
        }
        true
    }

    pub(super) async fn say(&mut self, line: String) -> bool {
        self.send(Message::Text(line.into())).await
    }

    /// Of a reason that is too long the beginning.
    pub(super) async fn close(&mut self, code: u16, why: &str) {
        let end = (0..=why.len().min(MOST_REASON)).rev().find(|end| why.is_char_boundary(*end));
        let reason = why.get(..end.unwrap_or(0)).unwrap_or_default().to_owned();
        self.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
    }

    /// What is still on its way from there, unread, would have the kernel break the connection off before the end of it is read.
    pub(super) async fn farewell(mut self) {
        let _ = timeout(FAREWELL, async { while let Some(Ok(_)) = self.socket.recv().await {} }).await;
    }

    /// Whether it took it in time.
    async fn send(&mut self, message: Message) -> bool {
        matches!(timeout(self.patience, self.socket.send(message)).await, Ok(Ok(())))
    }
}
