//! What the kernel says of changes. Whoever hears of one looks again, so nothing more of it is read than whom it concerns: in a swarm of devices
//! each is told of many times, at length.

use std::{io, iter, time::Duration};

use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkBuffer,
    sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, warn};

/// The pause before a socket that broke is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// The kernel says no more at once.
const LONGEST: usize = 64 * 1024;

/// Signals each message of these groups that concerns the listener, by its kind and as a whole.
pub(super) async fn listen(
    changed: watch::Sender<()>,
    groups: &[MulticastGroup],
    concerns: fn(u16, &[u8]) -> bool,
) {
    loop {
        match open(groups) {
            Ok(socket) => {
                let error = hear(&socket, &changed, concerns).await;
                debug!("the socket that hears of network changes has ended, another is opened: {error}");
            }
            Err(error) => warn!("cannot hear of network changes: {error}; looking now and then instead"),
        }
        sleep(REOPEN_AFTER).await;
        changed.send_replace(());
    }
}

fn open(groups: &[MulticastGroup]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let groups = groups.iter().fold(0, |all, group| all | 1 << (*group as u32 - 1));
    socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}

/// Until the socket is no good any more.
async fn hear(
    socket: &TokioSocket,
    changed: &watch::Sender<()>,
    concerns: fn(u16, &[u8]) -> bool,
) -> io::Error {
    let mut heard = Vec::with_capacity(LONGEST);
    loop {
        heard.clear();
        let is_news = match socket.recv(&mut heard).await {
            Ok(()) => messages(&heard).any(|(kind, message)| concerns(kind, message)),
            // More was said than there is room for, and nobody knows what.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => true,
            Err(error) => return error,
        };
        if is_news {
            changed.send_replace(());
        }
    }
}

fn messages(mut heard: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(heard).ok()?;
        let (kind, length) = (message.message_type(), message.length() as usize);
        let (message, _) = heard.split_at_checked(length)?;
        heard = heard.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, message))
    })
}
