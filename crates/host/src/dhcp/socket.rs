//! The real port. One socket hears all devices, so a bridge that is made anew needs no other; each packet says on which device it came.

use std::{
    io,
    io::{IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsRawFd as _,
};

use async_trait::async_trait;
use nix::{
    cmsg_space,
    libc::{in_addr, in_pktinfo},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use pvc_core::model::dhcp::Reply;
use rustix::net::netdevice::index_to_name;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};
use tracing::debug;

use super::{
    Dhcp6Exchange, DhcpExchange, DhcpPort, Received, clock,
    message::{self, Envelope},
    socket6,
};

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// A rack of guests that boot together fits in.
const BUFFER: usize = 1 << 20;
const LONGEST: usize = 1500;

/// This machine's own port.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kernel;

impl DhcpPort for Kernel {
    fn open(&self) -> io::Result<Box<dyn DhcpExchange>> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Servers that are bound to one device, as libvirt's are, may be beside it.
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.set_nonblocking(true)?;
        let _ = socket.set_recv_buffer_size(BUFFER);
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, SERVER)).into())?;
        Ok(Box::new(Open { socket: UdpSocket::from_std(socket.into())? }))
    }

    fn open6(&self) -> io::Result<Box<dyn Dhcp6Exchange>> {
        Ok(Box::new(socket6::Open::new()?))
    }
}

struct Open {
    socket: UdpSocket,
}

#[async_trait]
impl DhcpExchange for Open {
    async fn receive(&self) -> io::Result<Received> {
        loop {
            if let Some(received) = self.socket.async_io(Interest::READABLE, || next(&self.socket)).await? {
                return Ok(received);
            }
        }
    }

    async fn time_is_kept_at(&self, address: Ipv4Addr) -> bool {
        clock::is_kept_at(address).await
    }

    fn answer(&self, to: &Envelope, reply: &Reply) {
        let refuses = matches!(reply, Reply::Refuse(_));
        // Who has no address yet cannot be asked for its hardware address: it is told where all hear it.
        let at = if to.has.is_unspecified() || refuses { Ipv4Addr::BROADCAST } else { to.has };
        let source = in_addr { s_addr: u32::from(message::server_of(reply)).to_be() };
        let info = in_pktinfo {
            ipi_ifindex: to.device.try_into().unwrap_or_default(),
            ipi_spec_dst: source,
            ipi_addr: in_addr { s_addr: 0 },
        };
        let packet = message::write(to, reply);
        let sent = sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&packet)],
            &[ControlMessage::Ipv4PacketInfo(&info)],
            MsgFlags::empty(),
            Some(&SockaddrIn::from(SocketAddrV4::new(at, CLIENT))),
        );
        if let Err(error) = sent {
            debug!("an answer by DHCP is not sent: {error}");
        }
    }
}

/// The next packet, if it is one that is answered.
fn next(socket: &UdpSocket) -> io::Result<Option<Received>> {
    let (mut packet, mut control) = ([0; LONGEST], cmsg_space!(in_pktinfo));
    let mut parts = [IoSliceMut::new(&mut packet)];
    let message =
        recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let (length, is_whole) = (message.bytes, !message.flags.contains(MsgFlags::MSG_TRUNC));
    let device = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4PacketInfo(info) => u32::try_from(info.ipi_ifindex).ok(),
        _ => None,
    });
    let Some(index) = device.filter(|_| is_whole) else { return Ok(None) };
    let Some((request, envelope)) = message::read(packet.get(..length).unwrap_or_default(), index) else {
        return Ok(None);
    };
    // It may be gone already.
    let device = index_to_name(socket, index).ok();
    Ok(device.map(|device| Received { device, request, envelope }))
}
