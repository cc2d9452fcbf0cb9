//! Hears that tables change: the kernel multicasts each transaction. What it says is not read.

use std::{io, time::Duration};

use rtnetlink::sys::{
    AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER,
};
use tokio::{sync::watch, time::sleep};
use tracing::warn;

/// NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h), as a bit.
const TABLES: u32 = 1 << (7 - 1);

/// The pause after an error that is none of the known ones.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn open() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind(&SocketAddr::new(0, TABLES))?;
    Ok(socket)
}

/// Signals whatever is heard, and that something was missed.
pub(super) async fn listen(socket: TokioSocket, changed: watch::Sender<()>) {
    loop {
        if let Err(error) = socket.recv_from_full().await
            // So many messages that some were dropped.
            && error.raw_os_error() != Some(libc::ENOBUFS)
        {
            warn!("cannot hear of changes of the firewall: {error}; looking now and then instead");
            sleep(PAUSE).await;
        }
        changed.send_replace(());
    }
}
