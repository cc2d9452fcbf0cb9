//! Gratuitous ARP (RFC 5227: a request *and* a reply, since some systems heed only one) and unsolicited neighbour advertisements
//! (RFC 4861, 7.2.6), as Ethernet frames through a raw socket of our own: `arping` sends no advertisements.

use std::{
    io,
    mem::size_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const EVERYBODY: [u8; 6] = [0xff; 6];
/// All nodes on the wire, as IPv6 and as Ethernet say it.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// The frames that announce an address at an Ethernet address.
pub(super) fn frames(mac: [u8; 6], address: IpAddr) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => vec![arp(mac, address, 1), arp(mac, address, 2)],
        IpAddr::V6(address) => vec![advertisement(mac, address)],
    }
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes()].concat()
}

/// Operation 1 asks for, 2 tells its own address.
fn arp(mac: [u8; 6], address: Ipv4Addr, operation: u16) -> Vec<u8> {
    let mut frame = ethernet(EVERYBODY, mac, ARP);
    // Ethernet, IPv4, the lengths of their addresses.
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend(if operation == 1 { [0; 6] } else { EVERYBODY });
    frame.extend(address.octets());
    frame
}

fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    // Type 136; flags: override, and router, since who moves addresses about here is one. Option 2: target link-layer address.
    let mut message = vec![136, 0, 0, 0, 0xa0, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac);
    let length = u16::try_from(message.len()).unwrap_or_default();
    let sum = checksum(address, ALL_NODES, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(ALL_NODES_MAC, mac, IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    // Next header 58: ICMPv6. Hop limit 255: others are ignored.
    frame.extend([58, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

/// RFC 4443, 2.3: over a pseudo header and the message.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
    let bytes = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, 58], message].concat();
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// How many bytes of frames may wait for slow devices: one that is stuck must not keep the others' from being sent.
const ROOM: usize = 4 << 20;

/// What frames are sent by. It is kept: when such a socket is closed, the kernel waits some ten milliseconds until nobody looks at it any more,
/// and so does the thread.
pub(super) struct Announcer(Socket);

impl Announcer {
    pub(super) fn open() -> io::Result<Self> {
        // Protocol 0: it receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        // In a container that is not ours to say.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &ROOM);
        Ok(Self(socket))
    }

    /// Sends a frame on a device without waiting.
    #[allow(unsafe_code, reason = "no crate offers sendto with a sockaddr_ll")]
    pub(super) fn send(&self, device: u32, frame: &[u8]) -> io::Result<()> {
        // SAFETY: sockaddr_ll is plain numbers, for which zeros are valid.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::c_ushort::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        to.sll_ifindex = i32::try_from(device).map_err(io::Error::other)?;
        to.sll_halen = 6;
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
        // SAFETY: the socket is open for as long as `self` is borrowed; both buffers are valid for the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                length,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    #[test]
    fn arp_is_announced_as_request_and_as_reply() {
        let frames = frames(MAC, "10.255.0.254".parse().unwrap());
        assert_eq!(frames.len(), 2);
        for (frame, operation) in frames.iter().zip([1, 2]) {
            assert_eq!(frame.len(), 42);
            assert_eq!(frame[..14], [&EVERYBODY[..], &MAC, &[8, 6]].concat());
            assert_eq!(frame[21], operation);
            assert_eq!(frame[22..28], MAC, "the sender is the new holder");
            assert_eq!((&frame[28..32], &frame[38..42]), (&[10, 255, 0, 254][..], &[10, 255, 0, 254][..]));
        }
    }

    #[test]
    fn an_advertisement_is_to_all_nodes_overrides_and_checks_out() {
        let address: Ipv6Addr = "fd00::fe".parse().unwrap();
        let frames = frames(MAC, address.into());
        let [frame] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(frame[..6], ALL_NODES_MAC);
        assert_eq!((frame[20], frame[21]), (58, 255));
        let message = &frame[54..];
        assert_eq!((message[0], message[4] & 0x20), (136, 0x20), "with the override flag");
        assert_eq!(message[8..24], address.octets());
        assert_eq!(message[26..], MAC);
        assert_eq!(checksum(address, ALL_NODES, message), 0, "a right checksum sums up to nothing");
    }
}
