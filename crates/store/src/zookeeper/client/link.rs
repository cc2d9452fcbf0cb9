//! One TCP connection to one server, from its opening through the handshake to whole packets in both directions.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{
    error::Error,
    wire::{Reader, Writer},
};

/// Free room for each read.
const READ_BYTES: usize = 4096;
/// Received bytes are kept in a buffer that is given back when it grew beyond this.
const USUAL_BYTES: usize = 64 * 1024;
/// Longest packet that is believed: more than all keys of a large cluster in one answer.
const LONGEST: usize = 1 << 30;

/// A session as the server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    /// 0 asks for a new session.
    pub(super) id: i64,
    pub(super) password: Vec<u8>,
    pub(super) timeout: Duration,
    /// The newest transaction seen: a server that lags behind it refuses us.
    pub(super) zxid: i64,
}

impl Ticket {
    /// Asks for a new session.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { id: 0, password: vec![0; 16], timeout, zxid: 0 }
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    received: Vec<u8>,
    sending: Vec<u8>,
    sent: usize,
}

impl Link {
    /// Tries the servers, each for at most `within`. The session goes on or begins, as the ticket says, which is then updated.
    /// [`Error::SessionExpired`] if the server no longer knows the session.
    pub(super) async fn open(
        servers: &[String],
        ticket: &mut Ticket,
        within: Duration,
    ) -> Result<Self, Error> {
        for server in servers {
            match timeout(within, Self::open_one(server, ticket)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(Error::SessionExpired)) => return Err(Error::SessionExpired),
                // Why is the network's business; the store says which servers do not answer.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(Error::NoHosts)
    }

    async fn open_one(server: &str, ticket: &mut Ticket) -> Result<Self, Error> {
        let lost = |_: io::Error| Error::ConnectionLost;
        let mut stream = None;
        for address in lookup_host(server).await.map_err(lost)? {
            stream = TcpStream::connect(address).await.ok();
            if stream.is_some() {
                break;
            }
        }
        let stream = stream.ok_or(Error::ConnectionLost)?;
        stream.set_nodelay(true).map_err(lost)?;
        let mut link = Self { stream, received: Vec::new(), sending: Vec::new(), sent: 0 };
        let mut hello = Writer::default();
        let timeout_ms = i32::try_from(ticket.timeout.as_millis()).unwrap_or(i32::MAX);
        hello.int(0).long(ticket.zxid).int(timeout_ms).long(ticket.id).bytes(&ticket.password).bool(false);
        link.send(&hello.0);
        let welcome = loop {
            if let Some(packet) = link.packet()? {
                break packet;
            }
            link.progress().await.map_err(lost)?;
        };
        let mut reader = Reader(&welcome);
        let (_protocol, timeout_ms, id) = (reader.int()?, reader.int()?, reader.long()?);
        let timeout_ms = u64::try_from(timeout_ms).unwrap_or(0);
        if timeout_ms == 0 {
            return Err(Error::SessionExpired);
        }
        ticket.id = id;
        ticket.password = reader.bytes()?.to_vec();
        ticket.timeout = Duration::from_millis(timeout_ms);
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
        self.received.reserve(READ_BYTES);
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

    /// The next whole packet that was received.
    pub(super) fn packet(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let Some((length, rest)) = self.received.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Error::Malformed)?;
        if length > LONGEST {
            return Err(Error::Malformed);
        }
        let Some(packet) = rest.get(..length) else {
            // Room for the rest of it, in steps that the received bytes justify.
            self.received.reserve(length.min(self.received.len().max(USUAL_BYTES)));
            return Ok(None);
        };
        let packet = packet.to_vec();
        self.received.drain(..4 + length);
        self.received.shrink_to(USUAL_BYTES);
        Ok(Some(packet))
    }
}
