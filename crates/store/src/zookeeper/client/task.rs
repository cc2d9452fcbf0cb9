//! The one owner of a session's connection: sends requests, matches answers, hands out events, keeps the session alive, and
//! gets a new connection when the old one is lost.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Event, Known, State,
    backoff::Backoff,
    error::Error,
    link::{HEADER, Link, Packet, Ticket},
    wire::{Reader, Writer, op},
};

/// Packets that answer no request.
const NOTIFICATION: i32 = -1;
const PING: i32 = -2;

/// Above this many bytes waiting to be sent, requests wait where they are.
const BACKLOG: usize = 4 << 20;
/// First and longest pause between rounds over all servers.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// A connection that is lost sooner counts as an attempt that failed.
const GOOD_AFTER: Duration = Duration::from_secs(5);
/// How long the server may take to confirm the session's end.
const FAREWELL: Duration = Duration::from_secs(1);

/// A request on its way to the task.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) op: i32,
    pub(super) body: Vec<u8>,
    /// Told of events from the moment the request is sent.
    pub(super) watcher: Option<Watcher>,
    pub(super) reply: oneshot::Sender<Result<Answer, Error>>,
}

/// An answer that is not an error.
#[derive(Debug)]
pub(super) struct Answer {
    packet: Vec<u8>,
    body: usize,
}

impl Answer {
    /// The body.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader(self.packet.get(self.body..).unwrap_or_default())
    }
}

/// Whoever watches a path and everything below it.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) path: String,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

impl Watcher {
    fn sees(&self, path: &str) -> bool {
        self.path == "/"
            || path
                .strip_prefix(self.path.as_str())
                .is_some_and(|below| below.is_empty() || below.starts_with('/'))
    }
}

/// A request that was sent.
#[derive(Debug)]
struct Pending {
    xid: i32,
    op: i32,
    sent: Instant,
    reply: oneshot::Sender<Result<Answer, Error>>,
}

/// Why a connection is not served any longer.
enum End {
    Lost,
    /// No handle is left.
    Unused,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Task {
    servers: Vec<String>,
    chroot: Arc<str>,
    ticket: Ticket,
    /// How long one server may take to answer when a connection is opened.
    within: Duration,
    commands: mpsc::UnboundedReceiver<Command>,
    states: watch::Sender<State>,
    known: Arc<Known>,
    watchers: Vec<Watcher>,
    pending: VecDeque<Pending>,
    /// When the sign of life that is not answered yet was sent.
    pinged: Option<Instant>,
    xid: i32,
}

impl Task {
    pub(super) fn new(
        servers: Vec<String>,
        chroot: Arc<str>,
        ticket: Ticket,
        within: Duration,
        commands: mpsc::UnboundedReceiver<Command>,
        states: watch::Sender<State>,
        known: Arc<Known>,
    ) -> Self {
        let (watchers, pending, pinged) = (Vec::new(), VecDeque::new(), None);
        Self { servers, chroot, ticket, within, commands, states, known, watchers, pending, pinged, xid: 0 }
    }

    /// Runs until the session is over.
    pub(super) async fn run(mut self, mut link: Link) {
        let mut backoff = Backoff::new(PAUSES);
        loop {
            let since = Instant::now();
            match self.serve(&mut link).await {
                End::Unused => {
                    let _unconfirmed = timeout(FAREWELL, self.close(&mut link)).await;
                    return self.publish(State::Closed);
                }
                End::Lost => {
                    drop(link);
                    self.publish(State::Disconnected);
                    // Dropped replies say that the connection is lost.
                    self.pending.clear();
                    self.pinged = None;
                }
            }
            if since.elapsed() >= GOOD_AFTER {
                backoff.reset();
            }
            match self.reconnect(&mut backoff).await {
                Ok(new) => link = new,
                Err(state) => return self.publish(state),
            }
            self.known.granted(self.ticket.timeout);
            self.publish(State::Connected);
            // The server knows no watches on this connection.
            self.watchers.clear();
        }
    }

    fn publish(&self, state: State) {
        self.states.send_replace(state);
        for watcher in &self.watchers {
            // A watcher that is gone needs nothing.
            let _ = watcher.events.send(Event::Session(state));
        }
    }

    /// Serves requests over one connection.
    async fn serve(&mut self, link: &mut Link) -> End {
        let timeout = self.ticket.timeout;
        let (mut said, mut heard) = (Instant::now(), Instant::now());
        loop {
            loop {
                match link.packet() {
                    Ok(Some(packet)) => {
                        if let Err(error) = self.hear(packet) {
                            return self.lost(&error);
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return self.lost(&error),
                }
            }
            // As ZooKeeper's own client, lost after two thirds of silence. A sign of life after two fifths, not after its third: who
            // writes every third of a session needs none.
            let (ping_at, lost_at) = (said + timeout * 2 / 5, heard + timeout * 2 / 3);
            tokio::select! {
                progress = link.progress() => match progress {
                    Ok(true) => heard = Instant::now(),
                    Ok(false) => {}
                    Err(_) => return End::Lost,
                },
                command = self.commands.recv(), if link.backlog() < BACKLOG => match command {
                    Some(command) => {
                        self.say(link, command);
                        while link.backlog() < BACKLOG && let Ok(command) = self.commands.try_recv() {
                            self.say(link, command);
                        }
                        said = Instant::now();
                    }
                    None => return End::Unused,
                },
                () = sleep_until(ping_at.min(lost_at)) => {
                    if Instant::now() >= lost_at {
                        return End::Lost;
                    }
                    link.send(&packet(PING, op::PING, &[]));
                    said = Instant::now();
                    self.pinged.get_or_insert(said);
                }
            }
        }
    }

    /// The server cannot be understood.
    fn lost(&self, error: &Error) -> End {
        self.known.set_trouble(error.to_string());
        End::Lost
    }

    /// Queues a request.
    fn say(&mut self, link: &mut Link, command: Command) {
        self.xid = self.xid.checked_add(1).unwrap_or(1);
        link.send(&packet(self.xid, command.op, &command.body));
        self.watchers.extend(command.watcher);
        let (op, sent) = (command.op, Instant::now());
        self.pending.push_back(Pending { xid: self.xid, op, sent, reply: command.reply });
    }

    /// Takes in a packet. Answers come in the order of the requests.
    fn hear(&mut self, packet: Packet) -> Result<(), Error> {
        let Packet { bytes: packet, cut_off } = packet;
        let mut reader = Reader(&packet);
        let (xid, zxid, code) = (reader.int()?, reader.long()?, reader.int()?);
        self.ticket.zxid = self.ticket.zxid.max(zxid);
        match xid {
            PING => {
                if let Some(sent) = self.pinged.take() {
                    self.known.heard().answered(sent);
                }
                return Ok(());
            }
            NOTIFICATION => {
                let _kind_and_state = (reader.int()?, reader.int()?);
                let path = reader.text()?;
                self.tell(&path);
                return Ok(());
            }
            _ => {}
        }
        let asked = self.pending.pop_front().filter(|asked| asked.xid == xid).ok_or(Error::Malformed)?;
        let answer = match Error::of(code) {
            Some(error) => Err(error),
            None if cut_off => Err(Error::TooLong),
            None => Ok(Answer { packet, body: HEADER }),
        };
        let mut heard = self.known.heard();
        match answer {
            // With an outcome for each of its operations, whatever they are: a quorum has agreed to it.
            Ok(_) if asked.op == op::MULTI => heard.acknowledged(asked.sent, self.ticket.timeout),
            _ => heard.answered(asked.sent),
        }
        drop(heard);
        // Whoever does not wait any longer needs no answer.
        let _ = asked.reply.send(answer);
        Ok(())
    }

    /// Hands out an event, and forgets watchers that are gone. The server goes on watching for them until the connection ends,
    /// which costs a packet an event and cannot be wrong.
    fn tell(&mut self, path: &str) {
        let ours = match path.strip_prefix(&*self.chroot) {
            Some("") => "/",
            Some(ours) if ours.starts_with('/') => ours,
            _ => return,
        };
        self.watchers.retain(|watcher| {
            !watcher.sees(path) || watcher.events.send(Event::Changed(ours.to_owned())).is_ok()
        });
    }

    /// Gets a new connection for the session; an error tells how it ended. Requests fail meanwhile.
    async fn reconnect(&mut self, backoff: &mut Backoff) -> Result<Link, State> {
        let Self { servers, ticket, within, commands, known, .. } = self;
        let attempts = async {
            // The first comes at once, unless the last connection was of no use.
            if backoff.began() {
                sleep(backoff.pause()).await;
            }
            backoff.begin();
            loop {
                servers.rotate_left(1);
                let sent = Instant::now();
                match Link::open(servers, ticket, *within).await {
                    Ok(link) => {
                        known.heard().answered(sent);
                        return Ok(link);
                    }
                    Err(Error::SessionExpired) => return Err(State::Expired),
                    Err(_) => sleep(backoff.pause()).await,
                }
            }
        };
        tokio::pin!(attempts);
        loop {
            tokio::select! {
                outcome = &mut attempts => return outcome,
                command = commands.recv() => match command {
                    Some(command) => {
                        let _ = command.reply.send(Err(Error::ConnectionLost));
                    }
                    // It cannot be closed without a connection: it expires.
                    None => return Err(State::Closed),
                }
            }
        }
    }

    /// Ends the session, so that its ephemeral keys go at once; returns when the server has confirmed it.
    async fn close(&mut self, link: &mut Link) {
        let (reply, mut confirmed) = oneshot::channel();
        self.say(link, Command { op: op::CLOSE, body: Vec::new(), watcher: None, reply });
        while matches!(confirmed.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            if link.progress().await.is_err() {
                return;
            }
            while let Ok(Some(packet)) = link.packet() {
                if self.hear(packet).is_err() {
                    return;
                }
            }
        }
    }
}

/// A request with its header.
fn packet(xid: i32, op: i32, body: &[u8]) -> Vec<u8> {
    let mut packet = Writer(Vec::with_capacity(body.len() + 8));
    packet.int(xid).int(op);
    packet.0.extend(body);
    packet.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_sees_its_key_and_what_is_below_it() {
        let watcher = |path: &str| Watcher { path: path.to_owned(), events: mpsc::unbounded_channel().0 };
        assert!(watcher("/").sees("/a") && watcher("/a").sees("/a") && watcher("/a").sees("/a/b/c"));
        assert!(!watcher("/a").sees("/ab") && !watcher("/a/b").sees("/a"));
    }
}
