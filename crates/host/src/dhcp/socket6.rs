//! The real port of IPv6. Requests are taken from the wire, all devices' by one socket: so each says from which card it came, a bridge that is made anew needs nothing, and
//! what a network's walls let through is all that comes. Answers go through the kernel.

use std::{
    io,
    io::IoSlice,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::AsRawFd as _,
};

use async_trait::async_trait;
use ipnet::Ipv6Net;
use nix::{
    libc::{in6_addr, in6_pktinfo},
    sys::socket::{ControlMessage, LinkAddr, MsgFlags, SockaddrIn6, recvfrom, sendmsg},
};
use pvc_core::model::{
    LINK_GATEWAY, Mac,
    dhcp6::{Advertisement, Reply6},
};
use rustix::net::netdevice::{index_to_name, name_to_index};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};
use tracing::debug;

use super::{Asked6, Asker, Dhcp6Exchange, message6};

/// As frames name it.
const IPV6: u16 = 0x86dd;
const SERVER: u16 = 547;
const CLIENT: u16 = 546;
const LONGEST: usize = 2048;
const HEADER: usize = 40;
const UDP: u8 = 17;
const ICMP: u8 = 58;
const ECHO_REQUEST: u8 = 128;
const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// A rack of guests that boot together fits in.
const BUFFER: usize = 1 << 20;
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

pub(super) struct Open {
    /// Hears requests.
    wire: AsyncFd<Socket>,
    /// Says DHCPv6.
    dhcp: Socket,
    /// Says router advertisements.
    icmp: Socket,
}

impl Open {
    /// Opens it.
    ///
    /// # Errors
    /// If another server has the port.
    pub(super) fn new() -> io::Result<Self> {
        let protocol = i32::from(IPV6.to_be());
        let wire = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(protocol)))?;
        // What comes before this is looked at all the same.
        wire.attach_filter(&asked_of_us())?;
        wire.set_nonblocking(true)?;
        let _ = wire.set_recv_buffer_size(BUFFER);

        let dhcp = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        dhcp.attach_filter(&[nothing()])?;
        dhcp.set_only_v6(true)?;
        // Servers that are bound to one device, as libvirt's are, may be beside it.
        dhcp.set_reuse_address(true)?;
        dhcp.set_nonblocking(true)?;
        dhcp.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, SERVER)).into())?;

        let icmp = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        icmp.attach_filter(&[nothing()])?;
        icmp.set_nonblocking(true)?;
        // Whoever hears one with less knows that it comes from elsewhere.
        icmp.set_unicast_hops_v6(255)?;
        icmp.set_multicast_hops_v6(255)?;
        icmp.set_multicast_loop_v6(false)?;
        // SAFETY: the socket owns its descriptor, and nobody swaps it.
        #[allow(unsafe_code, reason = "how tokio takes descriptors")]
        let wire = unsafe { AsyncFd::register_with_interest(wire, Interest::READABLE) }?;
        Ok(Self { wire, dhcp, icmp })
    }
}

/// A packet that is as long as this is taken.
fn accept(length: u32) -> SockFilter {
    SockFilter::new(RETURN, 0, 0, length)
}

fn nothing() -> SockFilter {
    accept(0)
}

/// Instructions of filters (`linux/bpf_common.h`): load one byte, two or four from there, jump by whether they are that, return.
const LOAD_FOUR: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const LOAD_PAIR: u16 = 0x28;
const JUMP_IF: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Takes of all that comes over IPv6 what is sent to DHCPv6's port, router solicitations, and what neighbours say of their addresses. What has further headers is none of these.
fn asked_of_us() -> [SockFilter; 13] {
    let byte = |at: u32| SockFilter::new(LOAD_BYTE, 0, 0, at);
    let pair = |at: u32| SockFilter::new(LOAD_PAIR, 0, 0, at);
    let four = |at: u32| SockFilter::new(LOAD_FOUR, 0, 0, at);
    // How many it passes over if it is, and if it is not.
    let is = |value: u32, yes: u8, no: u8| SockFilter::new(JUMP_IF, yes, no, value);
    [
        byte(6),
        is(UDP.into(), 0, 2),
        pair(42),
        is(SERVER.into(), 7, 8),
        is(ICMP.into(), 0, 7),
        byte(40),
        is(ROUTER_SOLICITATION.into(), 4, 0),
        is(NEIGHBOUR_ADVERTISEMENT.into(), 3, 0),
        is(NEIGHBOUR_SOLICITATION.into(), 0, 3),
        // Most solicitations look for others; who makes an address sends its own from none.
        four(8),
        is(0, 0, 1),
        accept(u32::MAX),
        nothing(),
    ]
}

impl Open {
    /// The next packet, if it is one that is answered.
    fn next(&self) -> io::Result<Option<(Asked6, Asker)>> {
        let mut packet = [0; LONGEST];
        let (length, from) = recvfrom::<LinkAddr>(self.wire.as_raw_fd(), &mut packet)?;
        let (Some(from), Some(packet)) = (from, packet.get(..length)) else { return Ok(None) };
        let Some(mac) = from.addr().map(Mac) else { return Ok(None) };
        let Some((asked, address)) = read(packet, mac) else { return Ok(None) };
        // It may be gone already.
        let index = u32::try_from(from.ifindex()).unwrap_or_default();
        let device = index_to_name(&self.dhcp, index).ok();
        Ok(device.map(|device| (asked, Asker { device, address })))
    }
}

/// Sends from the address that all routers have.
fn send(socket: &Socket, to: SocketAddrV6, packet: &[u8]) -> io::Result<()> {
    let info =
        in6_pktinfo { ipi6_addr: in6_addr { s6_addr: LINK_GATEWAY.octets() }, ipi6_ifindex: to.scope_id() };
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(packet)],
        &[ControlMessage::Ipv6PacketInfo(&info)],
        MsgFlags::empty(),
        Some(&SockaddrIn6::from(to)),
    )?;
    Ok(())
}

/// Reads a packet from its IPv6 header on. Nobody speaks DHCPv6 to one address, nor from another than a card's own: `fe80::/10`.
fn read(packet: &[u8], mac: Mac) -> Option<(Asked6, Option<Ipv6Addr>)> {
    let (header, payload) = packet.split_first_chunk::<HEADER>()?;
    let address = |at: usize| -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(header.get(at..at + 16)?).ok()?))
    };
    let (from, to) = (address(8)?, address(24)?);
    // What is longer than it says is the card's filling.
    let payload = payload.get(..usize::from(u16::from_be_bytes([header[4], header[5]])))?;
    match (header[6], header[7]) {
        (UDP, _) if to == ALL_SERVERS && from.is_unicast_link_local() => {
            let (udp, message) = payload.split_first_chunk::<8>()?;
            let is_whole = usize::from(u16::from_be_bytes([udp[4], udp[5]])) == payload.len();
            if u16::from_be_bytes([udp[2], udp[3]]) != SERVER || !is_whole {
                return None;
            }
            let (request, number) = message6::read(message, mac)?;
            Some((Asked6::Dhcp(request, number), Some(from)))
        }
        // It has passed no router.
        (ICMP, 255) if payload.starts_with(&[ROUTER_SOLICITATION, 0]) && payload.len() >= 8 => {
            let from = if from.is_unspecified() { None } else { Some(from) };
            let may_ask = from.is_none_or(|from| from.is_unicast_link_local());
            may_ask.then_some((Asked6::Router, from))
        }
        (ICMP, 255) => {
            let (head, target) = payload.split_first_chunk::<8>()?;
            let target = Ipv6Addr::from(*target.first_chunk::<16>()?);
            let says_so = match head[..2] {
                // It asks whether anybody has the address that it is about to have.
                [NEIGHBOUR_SOLICITATION, 0] => from.is_unspecified(),
                [NEIGHBOUR_ADVERTISEMENT, 0] => from == target,
                _ => false,
            };
            let net = Ipv6Net::new_assert(target, 64);
            let is_own = says_so && !target.is_unicast_link_local() && mac.own_address(net) == target;
            (is_own && mac.is_a_cards()).then_some((Asked6::Has(mac, target), Some(target)))
        }
        _ => None,
    }
}

#[async_trait]
impl Dhcp6Exchange for Open {
    async fn receive(&self) -> io::Result<(Asked6, Asker)> {
        loop {
            let next = self.wire.async_io(Interest::READABLE, |_| self.next()).await?;
            if let Some(next) = next {
                return Ok(next);
            }
        }
    }

    fn answer(&self, to: &Asker, number: [u8; 3], reply: &Reply6) {
        let sent = name_to_index(&self.dhcp, &to.device).map_err(io::Error::from).and_then(|index| {
            let address = to.address.ok_or(io::ErrorKind::AddrNotAvailable)?;
            send(&self.dhcp, SocketAddrV6::new(address, CLIENT, 0, index), &message6::write(number, reply))
        });
        if let Err(error) = sent {
            debug!("an answer by DHCPv6 is not sent: {error}");
        }
    }

    fn advertise(&self, to: &Asker, advertisement: &Advertisement) -> io::Result<()> {
        let index = name_to_index(&self.dhcp, &to.device)?;
        // Where somebody in the network asks who hears what, the bridge gives its own machine only what that has asked for. It may have already.
        let _ = self.dhcp.join_multicast_v6(&ALL_SERVERS, index);
        let address = to.address.unwrap_or(ALL_NODES);
        let packet = message6::advertisement(advertisement);
        send(&self.icmp, SocketAddrV6::new(address, 0, 0, index), &packet)
    }

    fn look_for(&self, whom: &Asker) {
        // The kernel asks its neighbours before it can send this.
        let echo = [ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 0];
        if let (Some(address), Ok(index)) = (whom.address, name_to_index(&self.dhcp, &whom.device)) {
            let _ = send(&self.icmp, SocketAddrV6::new(address, 0, 0, index), &echo);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 7]);

    fn packet(from: &str, to: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
        let from: Ipv6Addr = from.parse().unwrap();
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&[0x60, 0, 0, 0][..], &length, &[next, hops], &from.octets(), &to.octets()].concat();
        [&head[..], payload].concat()
    }

    fn udp(to: u16) -> Vec<u8> {
        let message = [1, 9, 8, 7, 0, 1, 0, 4, 0, 3, 0, 1];
        [&[2, 34][..], &to.to_be_bytes(), &[0, 20, 0, 0], &message].concat()
    }

    #[test]
    fn requests_are_told_from_what_else_is_on_the_wire() {
        let (asked, from) = read(&packet("fe80::7", ALL_SERVERS, UDP, 1, &udp(547)), MAC).unwrap();
        assert!(matches!(asked, Asked6::Dhcp(_, [9, 8, 7])) && from == Some("fe80::7".parse().unwrap()));
        let solicitation = [133, 0, 0, 0, 0, 0, 0, 0];
        let router: Ipv6Addr = "ff02::2".parse().unwrap();
        let asks = |from: &str| read(&packet(from, router, ICMP, 255, &solicitation), MAC);
        assert_eq!(asks("fe80::7"), Some((Asked6::Router, Some("fe80::7".parse().unwrap()))));
        assert_eq!(asks("::"), Some((Asked6::Router, None)));
        let own: Ipv6Addr = "fd00::5054:ff:fe00:7".parse().unwrap();
        let says = |from: &str, kind: u8, target: &str| {
            let target: Ipv6Addr = target.parse().unwrap();
            let said = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
            read(&packet(from, ALL_NODES, ICMP, 255, &said), MAC)
        };
        let has = Some((Asked6::Has(MAC, own), Some(own)));
        assert_eq!(says("::", 135, "fd00::5054:ff:fe00:7"), has);
        assert_eq!(says("fd00::5054:ff:fe00:7", 136, "fd00::5054:ff:fe00:7"), has);
        assert_eq!(says("fd00::9", 135, "fd00::5054:ff:fe00:7"), None, "it looks for another");
        assert_eq!(says("fe80::9", 136, "fd00::5054:ff:fe00:7"), None);
        assert_eq!(says("::", 135, "fd00::5054:ff:fe00:8"), None, "it is not of its card");
        assert_eq!(says("::", 135, "fe80::5054:ff:fe00:7"), None);
        let mut filled = packet("fe80::7", ALL_SERVERS, UDP, 1, &udp(547));
        filled.extend([0; 7]);
        assert!(read(&filled, MAC).is_some());
        for bad in [
            packet("fd00::7", ALL_SERVERS, UDP, 1, &udp(547)),
            packet("fe80::7", LINK_GATEWAY, UDP, 1, &udp(547)),
            packet("fe80::7", ALL_SERVERS, UDP, 1, &udp(546)),
            packet("fe80::7", ALL_SERVERS, UDP, 1, &udp(547)[..19]),
            packet("fe80::7", ALL_SERVERS, 0, 1, &udp(547)),
            packet("fd00::7", router, ICMP, 255, &solicitation),
            packet("fe80::7", router, ICMP, 64, &solicitation),
            packet("fe80::7", router, ICMP, 255, &solicitation[..7]),
            packet("fe80::7", router, ICMP, 255, &[134, 0, 0, 0, 0, 0, 0, 0]),
            filled[..59].to_vec(),
            filled[..30].to_vec(),
        ] {
            assert_eq!(read(&bad, MAC), None, "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_of_a_stranger_do_harm(
            mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            next in proptest::sample::select(vec![UDP, ICMP]),
        ) {
            if let Some(byte) = bytes.get_mut(6) {
                *byte = next;
            }
            let _ = read(&bytes, MAC);
        }
    }
}
