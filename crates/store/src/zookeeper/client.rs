//! A client of ZooKeeper's protocol: what the store needs of it, on tokio alone.
//!
//! One task owns the connection; handles send it requests. A request is sent when its method is called, in that order, and
//! without a connection it fails at once: no request outlives the moment at which its caller could know of its fate.
//! Watches end with their connection; whoever set one sets it again. See docs/decisions for why this is not a library's.
//!
//! ```text
//!             ┌──────────── the same session ───────────┐
//!             ▼                                         │
//! connect ─▶ Connected ──connection lost──▶ Disconnected ──the server says so──▶ Expired
//!             └──last handle dropped──▶ Closed
//! ```

pub(super) mod backoff;
mod error;
mod link;
mod multi;
mod task;
mod wire;

use std::{
    future::Future,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

pub(crate) use self::{
    error::Error,
    multi::{EPHEMERAL, MultiError, SEQUENTIAL, Written},
    wire::Stat,
};
use self::{
    link::{Link, Ticket},
    task::{Answer, Command, Task, Watcher},
    wire::{Reader, Writer, op},
};
use crate::Heard;

/// ZooKeeper's usual port.
const PORT: u16 = 2181;
/// Shortest time that a server is given to answer when a connection is opened.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A read that sets no one-time watch.
const NO_WATCH: &[u8] = &[0];
/// `PERSISTENT_RECURSIVE` of `AddWatchMode`.
const RECURSIVE: i32 = 1;

/// A key's data and what is known about it.
pub(crate) type Datum = (Vec<u8>, Stat);

fn datum(reader: &mut Reader<'_>) -> Result<Datum, Error> {
    Ok((reader.bytes()?.to_vec(), reader.stat()?))
}

/// What becomes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Connected,
    /// The session may still live on the servers.
    Disconnected,
    /// Its ephemeral keys are gone.
    Expired,
    Closed,
}

impl State {
    /// Whether it is over.
    pub(crate) fn is_terminated(self) -> bool {
        matches!(self, Self::Expired | Self::Closed)
    }
}

/// What a watch is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// This key was created, written or deleted.
    Changed(String),
    /// The session's state changed. After `Connected` and after the session's end nothing follows.
    Session(State),
}

/// A session. It is closed when its last handle is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    commands: mpsc::UnboundedSender<Command>,
    states: watch::Receiver<State>,
    known: Arc<Known>,
    chroot: Arc<str>,
}

/// What the task leaves for others.
#[derive(Debug, Default)]
struct Known {
    session_timeout_ms: AtomicU64,
    heard: Mutex<Heard>,
    /// Why the last connection was given up, if it was not simply lost.
    trouble: Mutex<Option<String>>,
    /// How many have begun to wait for the leader, and how many of them it has answered.
    syncs: (AtomicU64, tokio::sync::Mutex<u64>),
}

impl Known {
    fn granted(&self, session_timeout: Duration) {
        let ms = u64::try_from(session_timeout.as_millis()).unwrap_or(u64::MAX);
        self.session_timeout_ms.store(ms, Ordering::Relaxed);
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_trouble(&self, trouble: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
    }
}

impl Client {
    /// Opens a session with any of the servers `host:port,…[/chroot]`, each tried once, if possible within `patience`.
    pub(crate) async fn connect(
        connect: &str,
        session_timeout: Duration,
        patience: Duration,
    ) -> Result<Self, Error> {
        let (mut servers, chroot) = servers(connect)?;
        // The cluster's clients spread over its servers.
        let first = usize::try_from(RandomState::new().hash_one(connect) % 256).unwrap_or(0) % servers.len();
        servers.rotate_left(first);
        let mut ticket = Ticket::new(session_timeout);
        // One round over all servers fits into a session, and into a call: silent ones must not cost either while another answers.
        let turns = u32::try_from(servers.len()).unwrap_or(u32::MAX).max(3);
        let within = (session_timeout.min(patience) / turns).max(ANSWER_WITHIN);
        let sent = Instant::now();
        let link = Link::open(&servers, &mut ticket, within).await?;
        let known = Arc::new(Known::default());
        known.granted(ticket.timeout);
        *known.heard() = Heard::opened(sent);
        let (commands, orders) = mpsc::unbounded_channel();
        let (states_tx, states) = watch::channel(State::Connected);
        let chroot: Arc<str> = chroot.into();
        let own = Arc::clone(&known);
        let task = Task::new(servers, Arc::clone(&chroot), ticket, within, orders, states_tx, own);
        pvc_process::spawn(task.run(link));
        Ok(Self { commands, states, known, chroot })
    }

    /// As granted by the server of the present connection, or the last one.
    pub(crate) fn session_timeout(&self) -> Duration {
        Duration::from_millis(self.known.session_timeout_ms.load(Ordering::Relaxed))
    }

    /// See [`Heard::at`].
    pub(crate) fn leader_heard(&self) -> Option<Instant> {
        self.known.heard().at()
    }

    /// Why the connection was given up, if it was not simply lost; told once.
    pub(crate) fn take_trouble(&self) -> Option<String> {
        self.known.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The session's state.
    pub(crate) fn states(&self) -> watch::Receiver<State> {
        self.states.clone()
    }

    /// The session's state now.
    pub(crate) fn state(&self) -> State {
        *self.states.borrow()
    }

    /// A key's data.
    pub(crate) fn get_data(&self, path: &str) -> impl Future<Output = Result<Datum, Error>> + use<> {
        let answer = self.ask_about(op::GET_DATA, path, NO_WATCH);
        async { datum(&mut answer.await?.reader()) }
    }

    /// The names of a key's children.
    pub(crate) fn get_children(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<Vec<String>, Error>> + use<> {
        let answer = self.ask_about(op::GET_CHILDREN, path, NO_WATCH);
        async { answer.await?.reader().texts() }
    }

    /// What is known about a key without its data; `None` if there is none.
    pub(crate) fn exists(&self, path: &str) -> impl Future<Output = Result<Option<Stat>, Error>> + use<> {
        let answer = self.ask_about(op::EXISTS, path, NO_WATCH);
        async {
            match answer.await {
                Ok(answer) => answer.reader().stat().map(Some),
                Err(Error::NoNode) => Ok(None),
                Err(error) => Err(error),
            }
        }
    }

    /// Catches up with the leader. One request serves all who have begun to wait before it is sent: whoever sets many watches at once
    /// pays for two.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        let (waiting, answered) = &self.known.syncs;
        let mine = waiting.fetch_add(1, Ordering::Relaxed) + 1;
        let mut answered = answered.lock().await;
        if *answered < mine {
            let served = waiting.load(Ordering::Relaxed);
            self.ask_about(op::SYNC, "/", &[]).await?;
            *answered = served;
        }
        Ok(())
    }

    /// Watches a key and everything below it.
    pub(crate) fn watch(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<mpsc::UnboundedReceiver<Event>, Error>> + use<> {
        let (events, watch) = mpsc::unbounded_channel();
        let answer = self.full(path).map(|path| {
            let mut body = Writer::default();
            body.bytes(path.as_bytes()).int(RECURSIVE);
            self.ask(op::ADD_WATCH, body, Some(Watcher { path, events }))
        });
        async {
            answer?.await?;
            Ok(watch)
        }
    }

    /// A request that begins with a path.
    fn ask_about(
        &self,
        op: i32,
        path: &str,
        rest: &[u8],
    ) -> impl Future<Output = Result<Answer, Error>> + use<> {
        let reply = self.full(path).map(|path| {
            let mut body = Writer::default();
            body.bytes(path.as_bytes());
            body.0.extend(rest);
            self.ask(op, body, None)
        });
        async { reply?.await }
    }

    /// Sends a request now; its answer comes later.
    fn ask(
        &self,
        op: i32,
        body: Writer,
        watcher: Option<Watcher>,
    ) -> impl Future<Output = Result<Answer, Error>> + use<> {
        let (reply, answer) = oneshot::channel();
        // If the task has ended the reply is dropped with the command, and the wait below ends.
        let _ = self.commands.send(Command { op, body: body.0, watcher, reply });
        async { answer.await.unwrap_or(Err(Error::ConnectionLost)) }
    }

    /// The path as the server knows it; refuses what is not a path.
    fn full(&self, path: &str) -> Result<String, Error> {
        let Some(below) = path.strip_prefix('/') else {
            return Err(Error::BadArguments("a path begins with /"));
        };
        if !below.is_empty() && below.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return Err(Error::BadArguments("a path has no empty names, no . and no .."));
        }
        if path.contains('\0') {
            return Err(Error::BadArguments("a path contains no null character"));
        }
        Ok(if self.chroot.is_empty() {
            path.to_owned()
        } else if below.is_empty() {
            self.chroot.as_ref().to_owned()
        } else {
            format!("{}{path}", self.chroot)
        })
    }
}

/// `host:port` of each server, and the root below which all paths are, empty for `/`.
fn servers(connect: &str) -> Result<(Vec<String>, &str), Error> {
    let (hosts, chroot) = match connect.find('/') {
        Some(at) => connect.split_at(at),
        None => (connect, ""),
    };
    let named = hosts.split(',').map(str::trim).filter(|host| !host.is_empty());
    let servers: Vec<String> = named.map(with_port).collect();
    if servers.is_empty() {
        return Err(Error::BadArguments("no server is named"));
    }
    Ok((servers, chroot.trim_end_matches('/')))
}

fn with_port(host: &str) -> String {
    // The colons of an address without brackets are its own.
    let has_port = host.rsplit_once(':').is_some_and(|(before, port)| {
        port.parse::<u16>().is_ok() && (!before.contains(':') || before.ends_with(']'))
    });
    if has_port { host.to_owned() } else { format!("{host}:{PORT}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_a_port_and_perhaps_a_root() {
        let of = |text| servers(text).map(|(servers, root)| (servers.join(" "), root.to_owned()));
        assert_eq!(of("a:2182, b").unwrap(), ("a:2182 b:2181".into(), String::new()));
        assert_eq!(of("[::1]:7,[::1]/x/y/").unwrap(), ("[::1]:7 [::1]:2181".into(), "/x/y".into()));
        assert_eq!(of("/x").unwrap_err(), Error::BadArguments("no server is named"));
    }

    #[test]
    fn only_paths_are_sent_and_all_are_below_the_root() {
        let client = |root: &str| Client {
            commands: mpsc::unbounded_channel().0,
            states: watch::channel(State::Connected).1,
            known: Arc::default(),
            chroot: root.into(),
        };
        for wrong in ["", "a", "/a/", "//", "/a//b", "/a/../b", "/.", "/a\0"] {
            assert!(client("").full(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(client("").full("/").unwrap(), "/");
        assert_eq!(client("").full("/a/b.c").unwrap(), "/a/b.c");
        assert_eq!(client("/root").full("/").unwrap(), "/root");
        assert_eq!(client("/root").full("/a").unwrap(), "/root/a");
    }
}
