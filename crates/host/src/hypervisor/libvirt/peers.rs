//! Questions to other nodes' libvirts.
//!
//! Each on a connection of its own, since they are rare. A node that is silent holds whoever connects to it, for minutes
//! and past every deadline; so few may ask one node at a time, and none waits for another node's answer.

use std::{
    collections::HashMap,
    ffi::CString,
    net::{TcpStream, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    super::{HypervisorError, Peer},
    calls::Failure,
    connection::Connection,
    library::{Fault, Libvirt},
};
use crate::blocking::{Slots, Workers};

/// How many questions to one node may be under way.
const SLOTS: usize = 2;

/// See the module's documentation.
pub(super) struct Peers {
    libvirt: Libvirt,
    workers: Arc<Workers>,
    probe: Duration,
    slots: Mutex<HashMap<Peer, Slots>>,
}

impl Peers {
    pub(super) fn new(libvirt: Libvirt, workers: Arc<Workers>, probe: Duration) -> Self {
        Self { libvirt, workers, probe, slots: Mutex::default() }
    }

    /// Asks the libvirt of `peer`.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        peer: &Peer,
        within: Duration,
        doing: impl FnOnce() -> String + Send,
        ask: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let answer = self.call(peer.clone(), within, ask).await;
        answer.map_err(|failure| failure.into_error(within, doing()))
    }

    async fn call<T: Send + 'static>(
        &self,
        peer: Peer,
        within: Duration,
        ask: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + within;
        let uri = CString::new(peer.uri())
            .map_err(|_| Failure::Fault(Fault::ours("a NUL byte in its URI".into())))?;
        let slots = self
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(peer.clone())
            .or_insert_with(|| Slots::new(SLOTS))
            .clone();
        let slot = slots.take(deadline).await?;
        let (libvirt, probe) = (self.libvirt, self.probe);
        let question = move || {
            let _slot = slot;
            knock(&peer, within)?;
            let connection = Connection::open(libvirt, &uri, probe)?;
            ask(&connection)
        };
        self.workers.call(deadline, question).await
    }
}

/// Fails soon where nobody answers: libvirt would wait for as long as the kernel does, two minutes.
pub(super) fn knock(peer: &Peer, within: Duration) -> Result<(), Fault> {
    let Some(address) = peer.address() else { return Ok(()) };
    let nobody = |error| Fault::transport(format!("{peer} cannot be reached: {error}"));
    let mut last = None;
    for address in address.to_socket_addrs().map_err(nobody)? {
        match TcpStream::connect_timeout(&address, within) {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => nobody(error),
        None => Fault::transport(format!("{peer} has no address")),
    })
}
