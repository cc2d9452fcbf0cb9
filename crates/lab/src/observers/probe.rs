//! Asks at a steady pace, by ICMP echo requests or for a name, and tells how long no answer came.
//! Counts the time between answers, not the requests that were lost: routers keep requests while nobody has the address, and
//! deliver them later. A probe that is held up by a busy machine reports more silence than there was, never less.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::question;
use crate::{lab::Lab, node::Node};

/// How long answers are waited for after the last request.
const LATEST: Duration = Duration::from_millis(500);
const LENGTH: usize = 16;
/// Tells probes of one process apart.
static NEXT_ID: AtomicU16 = AtomicU16::new(1);

/// What a probe saw.
#[derive(Clone, Debug)]
pub struct Reach {
    /// How many requests were sent, or would have been, had there been a way to the address.
    pub sent: usize,
    /// How many were answered, however late.
    pub answered: usize,
    /// The longest time in which no answer arrived.
    pub silence: Duration,
}

/// The longest time between any two answers, from the first request to the end.
struct Silence {
    heard: Instant,
    longest: Duration,
}

impl Silence {
    fn from(start: Instant) -> Self {
        Self { heard: start, longest: Duration::ZERO }
    }

    fn ends(&mut self, now: Instant) {
        self.longest = self.longest.max(now.saturating_duration_since(self.heard));
        self.heard = now;
    }
}

/// A probe at work, on a thread of its own.
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Reach>>,
}

impl Probe {
    /// Probes `address` from the lab's switch, once every `interval`.
    pub fn start(lab: &Lab, address: IpAddr, interval: Duration) -> Result<Self> {
        // A socket stays in the network that it was opened in.
        let socket = lab.in_switch_network(|| open(address))??;
        Self::over(socket, address, interval)
    }

    /// The same, from a network namespace that `ip netns` has made on a node.
    pub fn start_on(node: &Node, network: &str, address: IpAddr, interval: Duration) -> Result<Self> {
        Self::over(node.in_network(network, || open(address))??, address, interval)
    }

    /// Asks a DNS server for the addresses of a name, from the lab's switch. Only an answer that has one counts.
    pub fn of_name(lab: &Lab, server: IpAddr, name: &str, interval: Duration) -> Result<Self> {
        let socket = lab.in_switch_network(|| question::open(server))??;
        let name = name.to_owned();
        Self::run(socket, SocketAddr::new(server, question::PORT), interval, Asks::Name(name))
    }

    fn over(socket: Socket, address: IpAddr, interval: Duration) -> Result<Self> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self::run(socket, SocketAddr::new(address, 0), interval, Asks::Echo { address, id })
    }

    fn run(socket: Socket, to: SocketAddr, interval: Duration, asks: Asks) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name(format!("probe {}", to.ip()))
            .spawn(move || probe(&socket, to, interval, &asks, &ended))?;
        Ok(Self { stop, thread })
    }

    /// Ends it; what it saw.
    pub fn finish(self) -> Result<Reach> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// What a probe asks.
enum Asks {
    Echo { address: IpAddr, id: u16 },
    Name(String),
}

impl Asks {
    fn request(&self, index: usize) -> Vec<u8> {
        match self {
            Self::Echo { address, id } => echo_request(*address, *id, index).into(),
            Self::Name(name) => question::packet(short(index), name),
        }
    }

    /// The number of the request that `packet` answers, if it is an answer to this probe.
    fn answered(&self, packet: &[u8], sent: usize) -> Option<usize> {
        match self {
            Self::Echo { address, id } => answered(*address, *id, packet),
            Self::Name(name) => {
                let (number, _) = question::answer(packet, name)?;
                // The last one of that number.
                let ago = short(sent.checked_sub(1)?).wrapping_sub(number);
                (sent - 1).checked_sub(ago.into())
            }
        }
    }
}

/// The lower half.
fn short(index: usize) -> u16 {
    u16::try_from(index & 0xffff).unwrap_or_default()
}

fn open(address: IpAddr) -> Result<Socket> {
    let socket = match address {
        IpAddr::V4(_) => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)),
        IpAddr::V6(_) => Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)),
    };
    let socket = socket.context("could not open a raw socket")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn probe(
    socket: &Socket,
    to: SocketAddr,
    interval: Duration,
    asks: &Asks,
    stop: &AtomicBool,
) -> Result<Reach> {
    let (address, to) = (to.ip(), SockAddr::from(to));
    let mut requests: Vec<bool> = Vec::new();
    let mut next = Instant::now();
    let mut silence = Silence::from(next);
    let mut end = None;
    loop {
        let now = Instant::now();
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(now + LATEST);
            silence.ends(now);
        }
        match end {
            Some(end) if now >= end || requests.iter().all(|answered| *answered) => break,
            None if now >= next => {
                // No route or no neighbour is an address that does not answer.
                let _ = socket.send_to(&asks.request(requests.len()), &to);
                requests.push(false);
                // A probe that was late itself does not make up for it with a burst.
                next = (next + interval).max(now);
                continue;
            }
            _ => {}
        }
        let until = end.unwrap_or(next).saturating_duration_since(Instant::now());
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&Timespec::try_from(until)?)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("poll"),
        }
        let mut packet = [0; 512];
        while let Ok(length) = (&*socket).read(&mut packet) {
            if let Some(index) = asks.answered(&packet[..length], requests.len())
                && let Some(request) = requests.get_mut(index)
            {
                *request = true;
                if end.is_none() {
                    silence.ends(Instant::now());
                }
            }
        }
    }
    if requests.is_empty() {
        bail!("the probe of {address} was stopped before it began");
    }
    let answered = requests.iter().filter(|answered| **answered).count();
    Ok(Reach { sent: requests.len(), answered, silence: silence.longest })
}

/// Type, code, checksum, identifier, sequence number, then the request's whole number: the sequence number starts over.
fn echo_request(address: IpAddr, id: u16, index: usize) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[0] = if address.is_ipv4() { 8 } else { 128 };
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&(index as u64).to_be_bytes()[6..]);
    packet[8..].copy_from_slice(&(index as u64).to_be_bytes());
    if address.is_ipv4() {
        // For IPv6 the kernel does it.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// RFC 1071.
fn checksum(packet: &[u8]) -> u16 {
    let mut sum: u32 =
        packet.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The number of the request that `packet` answers, if it is an answer to this probe.
fn answered(address: IpAddr, id: u16, packet: &[u8]) -> Option<usize> {
    let (reply, message) = match address {
        // With IPv4, a raw socket delivers the header too.
        IpAddr::V4(_) => (0, packet.get(usize::from(packet.first()? & 15) * 4..)?),
        IpAddr::V6(_) => (129, packet),
    };
    let ours = message.first() == Some(&reply) && message.get(4..6) == Some(&id.to_be_bytes()[..]);
    let index: [u8; 8] = message.get(8..LENGTH)?.try_into().ok()?;
    ours.then(|| usize::try_from(u64::from_be_bytes(index)).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_lasts_from_answer_to_answer_and_to_the_end() {
        let zero = Instant::now();
        let mut silence = Silence::from(zero);
        let mut ends = |ms| {
            silence.ends(zero + Duration::from_millis(ms));
            silence.longest.as_millis()
        };
        assert_eq!([ends(3), ends(4), ends(9), ends(10), ends(20)], [3, 3, 5, 5, 10]);
    }

    #[test]
    fn an_address_of_this_machine_answers_and_an_unused_one_does_not() {
        for (address, answers) in [("127.0.0.1", true), ("240.0.0.1", false)] {
            let address: IpAddr = address.parse().unwrap();
            let probe = Probe::over(open(address).unwrap(), address, Duration::from_millis(1)).unwrap();
            thread::sleep(Duration::from_millis(200));
            let reach = probe.finish().unwrap();
            assert!(reach.sent > 10, "{reach:?}");
            assert_eq!(reach.answered, if answers { reach.sent } else { 0 }, "{address}: {reach:?}");
            assert_eq!(reach.silence < Duration::from_millis(190), answers, "{address}: {reach:?}");
        }
    }
}
