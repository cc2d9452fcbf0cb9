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
const MOST: usize = 16;

/// A socket for trains.
pub(super) type Trains = Channel<ConnectionHandle<RouteNetlinkMessage>>;

/// One request.
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
            let told = self.request("change devices", &[], async |handle| run(&handle, train).await).await;
            answers.extend(told.unwrap_or_else(|error| {
                let why = match error {
                    LinksError::Deadline { .. } => Why::Late,
                    LinksError::Kernel { cause, .. } => Why::Broken(cause.to_string()),
                    LinksError::NoDevice { .. } => Why::Broken(error.to_string()),
                };
                vec![Err(why); train.len()]
            }));
        }
        answers
    }
}

async fn run(
    handle: &ConnectionHandle<RouteNetlinkMessage>,
    train: &[Request],
) -> Result<Vec<Answer>, Error> {
    let messages: Vec<_> = train
        .iter()
        .map(|request| {
            let mut message = NetlinkMessage::from(request.message.clone());
            message.header.flags = request.flags;
            message
        })
        .collect();
    let told = handle.request_batch(messages, SocketAddr::new(0, 0)).map_err(|_| Error::RequestFailed)?;
    let (mut told, mut answers, mut content) = (std::pin::pin!(told), Vec::with_capacity(train.len()), None);
    while let Some(message) = told.next().await {
        match message.payload {
            NetlinkPayload::InnerMessage(message) => content = Some(message),
            NetlinkPayload::Error(error) => {
                let code = error.raw_code().saturating_abs();
                let fine = train.get(answers.len()).map(|request| request.fine).unwrap_or_default();
                let is_done = code == 0 || fine.contains(&code);
                let content = content.take();
                answers.push(if is_done { Ok(content) } else { Err(Why::Refused(code)) });
            }
            _ => {}
        }
    }
    // Or it cannot be said which of them were done.
    if answers.len() == train.len() { Ok(answers) } else { Err(Error::RequestFailed) }
}
