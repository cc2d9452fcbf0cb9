//! Hears that tables change: the kernel multicasts each transaction. Of what it says only which tables are touched is read.

use std::{io, sync::Arc, time::Duration};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use tokio::{io::unix::AsyncFd, sync::watch, time::sleep};
use tracing::{debug, warn};

use super::mark::{Generations, Heard};

/// NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h), as a bit.
const TABLES: u32 = 1 << (7 - 1);

/// Room for what the kernel says of a hundred networks that are loaded at once. What does not fit is missed, and that is noticed.
pub(super) const ROOM: usize = 8 * 1024 * 1024;

/// The pause after an error that is none of the known ones.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn open(room: usize) -> io::Result<AsyncFd<Socket>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.set_non_blocking(true)?;
    if let Err(error) = set_socket_recv_buffer_size_force(&socket, room) {
        debug!("the kernel gives no more room than usual for changes of the firewall: {error}");
    }
    socket.bind(&SocketAddr::new(0, TABLES))?;
    // SAFETY: a socket has its descriptor to itself, always the same one, until it is dropped.
    #[allow(unsafe_code, reason = "tokio asks for this promise")]
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// Counts what is heard, and signals what touches our tables, or was missed.
pub(super) async fn listen(
    socket: AsyncFd<Socket>,
    generations: Arc<Generations>,
    told: watch::Sender<Heard>,
    changed: watch::Sender<()>,
) {
    let (mut heard, mut has_missed) = (*told.borrow(), false);
    loop {
        match next(&socket).await {
            // Until all of what was waiting is taken, more is dropped without a word.
            Ok(Some(_)) if has_missed => {}
            Ok(Some(said)) => heard.hear(&said),
            Ok(None) if has_missed => {
                if let Ok(generation) = generations.now() {
                    heard.miss(generation);
                    has_missed = false;
                }
            }
            Ok(None) => {}
            Err(error) => {
                has_missed = true;
                if error.raw_os_error() != Some(libc::ENOBUFS) {
                    warn!("cannot hear of changes of the firewall: {error}; looking now and then instead");
                    sleep(PAUSE).await;
                }
            }
        }
        let before = told.send_replace(heard);
        if before.touched != heard.touched {
            changed.send_replace(());
        }
    }
}

/// What was said; `None`: all was taken.
async fn next(socket: &AsyncFd<Socket>) -> io::Result<Option<Vec<u8>>> {
    let mut ready = socket.readable().await?;
    match ready.try_io(|socket| socket.get_ref().recv_from_full()) {
        Ok(received) => received.map(|(said, _)| Some(said)),
        Err(_would_block) => Ok(None),
    }
}
