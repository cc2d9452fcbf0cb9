//! Asks a DNS server for the IPv4 address of a name, and reads nothing of its answers that is not about that.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::lab::Lab;

pub(super) const PORT: u16 = 53;
const HEADER: usize = 12;

/// Who asks a DNS server from the lab's switch.
pub struct Resolver {
    socket: Socket,
    server: SocketAddr,
    number: u16,
}

impl Resolver {
    /// Asks that server.
    pub fn new(lab: &Lab, server: IpAddr) -> Result<Self> {
        let socket = lab.in_switch_network(|| open(server))??;
        socket.set_nonblocking(false)?;
        Ok(Self { socket, server: SocketAddr::new(server, PORT), number: 0 })
    }

    /// The name's address; `None` if it has none, or no answer comes in time.
    pub fn ask(&mut self, name: &str, within: Duration) -> Result<Option<Ipv4Addr>> {
        self.number = self.number.wrapping_add(1);
        self.socket.set_read_timeout(Some(within))?;
        // No route or no neighbour is a server that does not answer.
        let _ = self.socket.send_to(&packet(self.number, name), &SockAddr::from(self.server));
        let mut received = [0; 1500];
        while let Ok(length) = (&self.socket).read(&mut received) {
            let said = received.get(..length).unwrap_or_default();
            match answer(said, name) {
                Some((number, address)) if number == self.number => return Ok(Some(address)),
                None if said.starts_with(&self.number.to_be_bytes()) => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// A socket for [`packet`], which waits for nothing.
pub(super) fn open(server: IpAddr) -> Result<Socket> {
    let family = if server.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(family, Type::DGRAM, Some(Protocol::UDP)).context("could not open a socket")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// RFC 1035: the number, one question, the name label by label, type A, class IN.
pub(super) fn packet(number: u16, name: &str) -> Vec<u8> {
    let mut packet = Vec::from(number.to_be_bytes());
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        packet.extend(label.bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// The number and the first address of an answer to such a question that has one.
pub(super) fn answer(received: &[u8], name: &str) -> Option<(u16, Ipv4Addr)> {
    let number = u16::from_be_bytes(received.get(..2)?.try_into().ok()?);
    let question = packet(number, name);
    let is_answer = received.get(2)? & 0x80 != 0 && received.get(3)? % 16 == 0;
    let asked = received.get(HEADER..question.len())? == question.get(HEADER..)?;
    // A record: a pointer to the name, type A, class IN, 4 bytes of time, 2 of length, the address.
    let record = received.get(question.len()..question.len() + 16)?;
    let address = record.starts_with(&[0xc0, 0x0c, 0, 1, 0, 1]) && record.get(10..12)? == [0, 4];
    let octets: [u8; 4] = record.get(12..)?.try_into().ok()?;
    (is_answer && asked && address).then(|| (number, octets.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_is_an_answer() {
        let mut said = packet(7, "a.test");
        assert_eq!(answer(&said, "a.test"), None, "that is a question");
        said[2] = 0x81;
        assert_eq!(answer(&said, "a.test"), None, "there is no record");
        said.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, 3]);
        assert_eq!(answer(&said, "a.test"), Some((7, [10, 1, 2, 3].into())));
        assert_eq!(answer(&said, "b.test"), None, "of another name");
        said[3] = 2;
        assert_eq!(answer(&said, "a.test"), None, "the server has failed");
    }
}
