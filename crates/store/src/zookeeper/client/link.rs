//! One TCP connection to one server, from its opening through the handshake to whole packets in both directions.

use std::{io, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};

use super::{
    error::Error,
    wire::{Reader, Writer},
};

/// Free room for each read.
const READ_BYTES: usize = 4096;
/// Received bytes are kept in a buffer that is given back when it grew beyond this.
const USUAL_BYTES: usize = 64 * 1024;
/// Longest packet that is kept: a thousand keys of the largest size that servers take (`jute.maxbuffer`, 1 MiB) do not fit, nor do
/// they occur; whoever reads many asks for fewer when it is told [`Error::TooLong`]. A list of 100,000 VMs has 4 MiB.
const LONGEST: usize = 16 << 20;
/// Longest packet that is believed and passed over: the most keys that are asked for at once, each of the largest size.
const LONGEST_BELIEVED: usize = 512 << 20;
/// Longest answer to a handshake; usual are 37 bytes.
const LONGEST_WELCOME: usize = 1024;
/// The bytes of a packet that say what it answers.
pub(super) const HEADER: usize = 16;
/// A server that is not reached by then has the next one tried beside it (RFC 8305 recommends this pause).
const BESIDE_AFTER: Duration = Duration::from_millis(250);
/// No server grants less: its shortest tick in use is 50 ms, in tests.
const SHORTEST_SESSION: Duration = Duration::from_millis(100);

/// A session as the server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    /// 0 asks for a new session.
    pub(super) id: i64,
    pub(super) password: Vec<u8>,
    /// What is asked for …
    pub(super) asked: Duration,
    /// … and what was granted last: never more.
    pub(super) timeout: Duration,
    /// The newest transaction seen: a server that lags behind it refuses us.
    pub(super) zxid: i64,
}

impl Ticket {
    /// Asks for a new session.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { id: 0, password: vec![0; 16], asked: timeout, timeout, zxid: 0 }
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    received: Vec<u8>,
    /// Bytes that belong to a packet that was too long, and are thrown away as they come.
    skip: usize,
    sending: Vec<u8>,
    sent: usize,
}

/// A packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    /// It was longer than is kept: only its header is here.
    pub(super) cut_off: bool,
}

impl Link {
    /// Tries the servers in their order: each has `within` to be reached, beside the others, and then, alone, `within` to answer.
    /// The session goes on or begins, as the ticket says, which is then updated.
    /// [`Error::SessionExpired`] if the server no longer knows the session.
    pub(super) async fn open(
        servers: &[String],
        ticket: &mut Ticket,
        within: Duration,
    ) -> Result<Self, Error> {
        let mut untried = servers.iter();
        let mut reaching = FuturesUnordered::new();
        loop {
            reaching.extend(untried.next().map(|server| timeout(within, reach(server))));
            if reaching.is_empty() {
                return Err(Error::NoHosts);
            }
            let reached = tokio::select! {
                reached = reaching.next() => reached,
                () = sleep(BESIDE_AFTER), if untried.len() > 0 => None,
            };
            // Why a server is not reached is the network's business; the store says which do not answer.
            let Some(Ok(Ok(stream))) = reached else { continue };
            // One at a time: a session that is taken over by two connections at once loses one of them, perhaps the one in use.
            match timeout(within, Self::greet(stream, ticket)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(Error::SessionExpired)) => return Err(Error::SessionExpired),
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    async fn greet(stream: TcpStream, ticket: &mut Ticket) -> Result<Self, Error> {
        let lost = |_: io::Error| Error::ConnectionLost;
        stream.set_nodelay(true).map_err(lost)?;
        let mut link = Self { stream, received: Vec::new(), skip: 0, sending: Vec::new(), sent: 0 };
        let mut hello = Writer::default();
        let timeout_ms = i32::try_from(ticket.asked.as_millis()).unwrap_or(i32::MAX);
        hello.int(0).long(ticket.zxid).int(timeout_ms).long(ticket.id).bytes(&ticket.password).bool(false);
        link.send(&hello.0);
        let welcome = loop {
            if let Some(length) = link.length()?
                && length > LONGEST_WELCOME
            {
                return Err(Error::Malformed);
            }
            if let Some(packet) = link.packet()? {
                break packet.bytes;
            }
            link.progress().await.map_err(lost)?;
        };
        let mut reader = Reader(&welcome);
        let (_protocol, timeout_ms, id) = (reader.int()?, reader.int()?, reader.long()?);
        if timeout_ms == 0 {
            return Err(Error::SessionExpired);
        }
        let granted = Duration::from_millis(u64::try_from(timeout_ms).map_err(|_| Error::Malformed)?);
        if granted < SHORTEST_SESSION {
            return Err(Error::Malformed);
        }
        ticket.id = id;
        ticket.password = reader.bytes()?.to_vec();
        // A server grants more than was asked for if its least is more. Nobody here relies on that.
        ticket.timeout = granted.min(ticket.asked);
        Ok(link)
    }

    /// Queues a packet.
    pub(super) fn send(&mut self, packet: &[u8]) {
        let mut framed = Writer(std::mem::take(&mut self.sending));
        framed.bytes(packet);
        self.sending = framed.0;
    }

    fn wants_to_send(&self) -> bool {
        self.sent < self.sending.len()
    }

    /// Bytes that are queued.
    pub(super) fn backlog(&self) -> usize {
        self.sending.len() - self.sent
    }

    /// Sends what is queued or receives something, whichever is possible first; tells whether it received. An error at the
    /// connection's end. May be dropped at any await.
    pub(super) async fn progress(&mut self) -> io::Result<bool> {
        self.received.reserve(if self.skip > 0 { USUAL_BYTES } else { READ_BYTES });
        let wants_to_send = self.wants_to_send();
        let (mut read, mut write) = self.stream.split();
        let received = tokio::select! {
            written = write.write(&self.sending[self.sent..]), if wants_to_send => {
                self.sent += written?;
                if !self.wants_to_send() {
                    self.sent = 0;
                    self.sending.clear();
                    self.sending.shrink_to(USUAL_BYTES);
                }
                return Ok(false);
            }
            received = read.read_buf(&mut self.received) => received?,
        };
        if received == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(true) }
    }

    /// How long the next packet is, if that is known yet.
    fn length(&self) -> Result<Option<usize>, Error> {
        let Some((length, _)) = self.received.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Error::Malformed)?;
        if length > LONGEST_BELIEVED { Err(Error::Malformed) } else { Ok(Some(length)) }
    }

    /// The next packet that was received.
    pub(super) fn packet(&mut self) -> Result<Option<Packet>, Error> {
        let skipped = self.skip.min(self.received.len());
        self.received.drain(..skipped);
        self.skip -= skipped;
        let Some(length) = self.length()? else { return Ok(None) };
        let cut_off = length > LONGEST;
        let kept = if cut_off { HEADER } else { length };
        let Some(bytes) = self.received.get(4..4 + kept).map(<[u8]>::to_vec) else {
            // Room for the rest of it, in steps that the received bytes justify.
            self.received.reserve(kept.min(self.received.len().max(USUAL_BYTES)));
            return Ok(None);
        };
        self.received.drain(..4 + kept);
        self.received.shrink_to(USUAL_BYTES);
        self.skip = length - kept;
        Ok(Some(Packet { bytes, cut_off }))
    }
}

/// A connection to the first of a server's addresses that takes one.
async fn reach(server: &str) -> io::Result<TcpStream> {
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for address in lookup_host(server).await? {
        outcome = TcpStream::connect(address).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
