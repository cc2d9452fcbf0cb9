//! DHCP clients, as many as wanted on one card: what a rack of guests does when its power comes back.
//! Each has a hardware address and a name of its own, asks for answers by broadcast, and keeps nothing of what it is told but the address.

use std::{
    io::Read,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::node::Node;

/// How long an answer is waited for, before a client begins anew.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(10);
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const OPTIONS: usize = 240;

/// What a message is, by RFC 2132, 9.6.
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// An address that a client was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The client's name.
    pub name: String,
    /// Its hardware address, as the state tree writes it.
    pub mac: String,
    /// The address.
    pub address: Ipv4Addr,
    /// When it heard of it.
    pub at: Instant,
}

/// Clients on one card, in a network namespace of a node.
pub struct Clients {
    socket: Socket,
    clients: Vec<Client>,
}

struct Client {
    mac: [u8; 6],
    name: String,
    asked: Option<Instant>,
    given: Option<(Ipv4Addr, Instant)>,
}

impl Clients {
    /// On the card `card` in the network namespace `network` of the node.
    pub fn on(node: &Node, network: &str, card: &str) -> Result<Self> {
        let socket =
            node.in_network(network, || open(card))?.with_context(|| format!("no socket on {card}"))?;
        Ok(Self { socket, clients: Vec::new() })
    }

    /// One more, told from the others by `number`.
    pub fn add(&mut self, name: &str, number: u32) {
        let [_, a, b, c] = number.to_be_bytes();
        let mac = [0x52, 0x54, 0x00, a, b, c];
        self.clients.push(Client { mac, name: name.to_owned(), asked: None, given: None });
    }

    /// Asks until each of them has an address.
    pub fn ask(mut self, deadline: Duration) -> Result<Vec<Given>> {
        let began = Instant::now();
        while let missing @ 1.. = self.clients.iter().filter(|client| client.given.is_none()).count() {
            if began.elapsed() > deadline {
                bail!("{missing} of {} clients have no address after {deadline:?}", self.clients.len());
            }
            for index in 0..self.clients.len() {
                let due = |client: &Client| {
                    client.given.is_none() && client.asked.is_none_or(|at| at.elapsed() > AGAIN_AFTER)
                };
                if self.clients.get(index).is_some_and(due) {
                    self.send(index, DISCOVER, &[]);
                }
            }
            let tick = Timespec::try_from(TICK)?;
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&tick)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context("poll"),
            }
            let mut packet = [0; 1500];
            while let Ok(length) = (&self.socket).read(&mut packet) {
                if let Some(message) = Message::read(packet.get(..length).unwrap_or_default()) {
                    self.hears(&message);
                }
            }
        }
        let given = |client: Client| {
            let (address, at) = client.given?;
            Some(Given { mac: hex(client.mac), name: client.name, address, at })
        };
        Ok(self.clients.into_iter().filter_map(given).collect())
    }

    fn hears(&mut self, message: &Message) {
        let Some(client) = self.clients.get_mut(message.number).filter(|client| client.given.is_none())
        else {
            return;
        };
        match message.is {
            OFFER => {
                let (address, server) = (message.address.octets(), message.server.octets());
                self.send(message.number, REQUEST, &[&[50, 4][..], &address, &[54, 4], &server].concat());
            }
            ACK => client.given = Some((message.address, Instant::now())),
            NAK => client.asked = None,
            _ => {}
        }
    }

    fn send(&mut self, index: usize, is: u8, options: &[u8]) {
        let Some(client) = self.clients.get_mut(index) else { return };
        client.asked = Some(Instant::now());
        let number = u32::try_from(index).unwrap_or_default().to_be_bytes();
        // A request by Ethernet, of six bytes; its number; answers to all.
        let mut packet = [&[1, 1, 6, 0][..], &number, &[0, 0, 0x80, 0], &[0; 16], &client.mac].concat();
        packet.resize(OPTIONS - COOKIE.len(), 0);
        packet.extend(COOKIE);
        packet.extend([53, 1, is]);
        packet.extend(options);
        packet.extend([12, u8::try_from(client.name.len()).unwrap_or_default()]);
        packet.extend(client.name.bytes());
        packet.push(255);
        packet.resize(packet.len().max(300), 0);
        // What is lost is sent again.
        let _ = self.socket.send_to(&packet, &SockAddr::from(std::net::SocketAddr::from(([255; 4], 67))));
    }
}

fn open(card: &str) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.set_recv_buffer_size(1 << 20)?;
    socket.bind_device(Some(card.as_bytes()))?;
    socket.bind(&SockAddr::from(std::net::SocketAddr::from(([0; 4], 68))))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn hex(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What a server says.
struct Message {
    number: usize,
    is: u8,
    address: Ipv4Addr,
    server: Ipv4Addr,
}

impl Message {
    fn read(packet: &[u8]) -> Option<Self> {
        let four = |at: usize| -> Option<[u8; 4]> { packet.get(at..at + 4)?.try_into().ok() };
        if *packet.first()? != 2 || four(OPTIONS - COOKIE.len())? != COOKIE {
            return None;
        }
        let mut message = Self {
            number: u32::from_be_bytes(four(4)?).try_into().ok()?,
            is: 0,
            address: four(16)?.into(),
            server: Ipv4Addr::UNSPECIFIED,
        };
        let mut at = OPTIONS;
        while let [code, length, rest @ ..] = packet.get(at..)? {
            let value = rest.get(..usize::from(*length));
            match (code, value) {
                (0, _) => {
                    at += 1;
                    continue;
                }
                (255, _) => break,
                (53, Some([is])) => message.is = *is,
                (54, Some([a, b, c, d])) => message.server = [*a, *b, *c, *d].into(),
                (_, Some(_)) => {}
                (_, None) => return None,
            }
            at += 2 + usize::from(*length);
        }
        Some(message)
    }
}
