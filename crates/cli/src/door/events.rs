//! What becomes of the cluster from now on, at either door.

use std::time::Duration;

use pvc_core::command::news::News;
use pvc_operate::events::{Heard, Listener};
use tokio::time::{sleep, timeout};

use super::{Call, Client, Door, client::Stream};
use crate::failure::Failure;

/// The service says something every 15 s.
const SILENT_FOR: Duration = Duration::from_secs(40);
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The longest line: of one event.
const LONGEST: usize = 1 << 20;

/// Who listens.
pub(crate) enum Listening<'a> {
    Direct(Box<Listener>),
    Api { api: &'a Client, stream: Option<Stream>, unread: Vec<u8> },
}

impl Door {
    /// Begins to listen.
    pub(crate) async fn listen(&self) -> Result<Listening<'_>, Failure> {
        match self {
            Self::Direct(cluster) => Ok(Listening::Direct(Box::new(Listener::begin(cluster).await?))),
            Self::Api(api) => {
                let stream = Some(api.stream(Call::get(&["events"])).await?);
                Ok(Listening::Api { api, stream, unread: Vec::new() })
            }
        }
    }

    /// What answers here, in words.
    pub(crate) fn who(&self) -> &'static str {
        match self {
            Self::Direct(_) => "the state store",
            Self::Api(_) => "the API",
        }
    }
}

impl Listening<'_> {
    /// What is next; `None`: the cluster is not watched any more.
    pub(crate) async fn next(&mut self) -> Result<Option<Heard>, Failure> {
        let (api, stream, unread) = match self {
            Self::Direct(listener) => return Ok(listener.next().await),
            Self::Api { api, stream, unread } => (api, stream, unread),
        };
        loop {
            let Some(open) = stream else {
                match api.stream(Call::get(&["events"])).await {
                    Ok(open) => {
                        unread.clear();
                        *stream = Some(open);
                        return Ok(Some(Heard::Back));
                    }
                    Err(failure) if failure.may_pass() => sleep(TRY_AGAIN).await,
                    Err(failure) => return Err(failure),
                }
                continue;
            };
            let news = news(unread);
            if !news.is_empty() {
                return Ok(Some(Heard::News(news)));
            }
            match timeout(SILENT_FOR, open.next()).await {
                Ok(Some(bytes)) if unread.len() + bytes.len() <= LONGEST => unread.extend_from_slice(&bytes),
                // It ended, says nothing any more, or more than any event: it is listened anew.
                _ => {
                    *stream = None;
                    return Ok(Some(Heard::Lost));
                }
            }
        }
    }
}

/// Takes the events that are whole, and what they say to people.
fn news(unread: &mut Vec<u8>) -> Vec<News> {
    let Some(end) = unread.windows(2).rposition(|pair| pair == b"\n\n") else { return Vec::new() };
    let whole: Vec<u8> = unread.drain(..end + 2).collect();
    let whole = String::from_utf8_lossy(&whole);
    let told = whole.split("\n\n").filter_map(|event| event.strip_prefix("event: news\ndata: "));
    told.filter_map(|news| serde_json::from_str(news).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_when_they_are_whole_and_only_what_is_for_people() {
        let text = "event: ready\ndata: {}\n\n: alive\n\nevent: news\ndata: {\"kind\":\"vm\",\"id\":\"1\",\"name\":\"web1\",\"what\":\"gone\"}\n\nevent: news\ndata: rubbish\n\nevent: new";
        let mut unread = Vec::new();
        let mut all = Vec::new();
        for byte in text.bytes() {
            unread.push(byte);
            all.extend(news(&mut unread));
        }
        assert_eq!(all.iter().map(|news| news.what.as_str()).collect::<Vec<_>>(), ["gone"]);
        assert_eq!(unread, b"event: new");
    }
}
