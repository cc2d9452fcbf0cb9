//! Requests that go to the kernel many at a time: it does those of a train one after another, whatever became of those before, and answers each.

use std::io;

use futures_util::StreamExt as _;
use rtnetlink::{
    Error,
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    proto::{self, ConnectionHandle},
    sys::{SocketAddr, protocols::NETLINK_ROUTE},
};

use super::{super::LinksError, channel::Channel};

/// So many requests go at once. The kernel does them before the send returns: nothing else has a turn of this thread meanwhile, which is some
/// milliseconds, and the answers wait where there is room for about two hundred.
pub(super) const MOST: usize = 16;

/// A socket for trains.
pub(super) type Trains = Channel<ConnectionHandle<RouteNetlinkMessage>>;

/// One request.
#[derive(Clone)]
pub(super) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    /// The error codes that mean "already so".
    fine: &'static [i32],
}

impl Request {
    pub(super) fn new(message: RouteNetlinkMessage, flags: u16, fine: &'static [i32]) -> Self {
        Self { message, flags: NLM_F_REQUEST | NLM_F_ACK | flags, fine }
    }

    /// Until a device is gone, the kernel waits for all who may still look at it: tens of milliseconds.
    fn is_slow(&self) -> bool {
        matches!(self.message, RouteNetlinkMessage::DelLink(_))
    }
}

/// Why a request was not done.
#[derive(Debug, Clone)]
pub(super) enum Why {
    /// When its turn came, it was too late for it.
    TooLate,
    /// The kernel's error code.
    Refused(i32),
    /// No answer in time.
    Late,
    /// The socket broke.
    Broken(String),
}

impl Why {
    pub(super) fn error(&self, doing: String) -> LinksError {
        match self {
            Self::Refused(code) => LinksError::Kernel { doing, cause: io::Error::from_raw_os_error(*code) },
            Self::Broken(why) => LinksError::Kernel { doing, cause: io::Error::other(why.clone()) },
            Self::Late => LinksError::Deadline { doing },
            Self::TooLate => LinksError::TooLate { doing },
        }
    }
}

/// What the kernel tells who asks, and nothing to others.
pub(super) type Answer = Result<Option<RouteNetlinkMessage>, Why>;

impl Trains {
    pub(super) fn lay() -> io::Result<Self> {
        Self::opened_by(|| {
            let (mut connection, handle, _) = proto::new_connection(NETLINK_ROUTE)?;
            // Each request's end is told, or it could not be said whose an answer is.
            connection.set_forward_ack(true);
            tokio::spawn(connection);
            Ok(handle)
        })
    }

    /// Sends them in as many trains as they need; answers for each, in their order.
    pub(super) async fn send(&self, requests: &[Request]) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(requests.len());
        let together = requests.chunk_by(|one, next| !one.is_slow() && !next.is_slow());
        for train in together.flat_map(|some| some.chunks(MOST)) {
            answers.extend(self.send_one(train.len(), || Some(train.to_vec())).await);
        }
        answers
    }

    /// Sends one train of so many requests, at most [`MOST`]; answers for each, in their order. It is loaded when it is its turn; `None`: it is too late for that.
    pub(super) async fn send_one(
        &self,
        length: usize,
        load: impl FnOnce() -> Option<Vec<Request>>,
    ) -> Vec<Answer> {
        let told = self
            .request("change devices", &[], async |handle| match load() {
                Some(train) => run(&handle, train).await,
                None => Ok(vec![Err(Why::TooLate); length]),
            })
            .await;
        told.unwrap_or_else(|error| {
            let why = match error {
                LinksError::Deadline { .. } => Why::Late,
                LinksError::Kernel { cause, .. } => Why::Broken(cause.to_string()),
                LinksError::NoDevice { .. } | LinksError::TooLate { .. } => Why::Broken(error.to_string()),
            };
            vec![Err(why); length]
        })
    }
}

async fn run(
    handle: &ConnectionHandle<RouteNetlinkMessage>,
    train: Vec<Request>,
) -> Result<Vec<Answer>, Error> {
    let (mut messages, mut fine) = (Vec::with_capacity(train.len()), Vec::with_capacity(train.len()));
    for request in train {
        let mut message = NetlinkMessage::from(request.message);
        message.header.flags = request.flags;
        messages.push(message);
        fine.push(request.fine);
    }
    let told = handle.request_batch(messages, SocketAddr::new(0, 0)).map_err(|_| Error::RequestFailed)?;
    let (mut told, mut answers, mut content) = (std::pin::pin!(told), Vec::with_capacity(fine.len()), None);
    while let Some(message) = told.next().await {
        match message.payload {
            NetlinkPayload::InnerMessage(message) => content = Some(message),
            NetlinkPayload::Error(error) => {
                let code = error.raw_code().saturating_abs();
                let is_done = code == 0 || fine.get(answers.len()).is_some_and(|fine| fine.contains(&code));
                let content = content.take();
                answers.push(if is_done { Ok(content) } else { Err(Why::Refused(code)) });
            }
            _ => {}
        }
    }
    // Or it cannot be said which of them were done.
    if answers.len() == fine.len() { Ok(answers) } else { Err(Error::RequestFailed) }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_train_is_loaded_when_it_is_its_turn_and_not_when_it_is_asked_for() {
        let (trains, loaded) = (Trains::lay().unwrap(), AtomicBool::new(false));
        let asked = trains.send_one(1, || {
            loaded.store(true, Ordering::Relaxed);
            None
        });
        let mut asked = std::pin::pin!(asked);
        trains
            .request("stand before it", &[], async |_| {
                assert!(timeout(Duration::from_millis(50), &mut asked).await.is_err());
                assert!(!loaded.load(Ordering::Relaxed), "what it says is of before its turn");
                Ok(())
            })
            .await
            .unwrap();
        let answers = asked.await;
        assert!(matches!(answers[..], [Err(Why::TooLate)]), "{answers:?}");
    }
}
