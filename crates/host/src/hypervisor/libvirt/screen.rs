//! Screens through libvirt: it has QEMU take one end of a pair of sockets, and hands us the other. That needs this machine's own libvirt, QEMU's monitor and
//! for a moment the domain's job. Each opening has a connection and a thread of its own: what hangs there hangs alone, and nothing of the daemon's waits.

use std::{
    collections::BTreeSet,
    ffi::CString,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::model::{VmId, screen};
use tokio::time::Instant;

use super::{
    super::screen::{Screen, ScreenError, Screens},
    Deadlines, StartError,
    connection::{Connection, Domain},
    ffi,
    library::{Fault, Libvirt, STACK},
};
use crate::blocking::{Failure, Slots, Workers};

/// So many may be being opened, or hang.
const OPENING: usize = 4;

/// Screens of this machine's guests.
pub struct LibvirtScreens {
    libvirt: Libvirt,
    here: String,
    workers: Arc<Workers>,
    slots: Slots,
    openings: Openings,
    deadlines: Deadlines,
}

/// Whose screens are being opened, or hang: one of each guest at once, so that a guest whose job hangs, or lasts as a migration does, takes one place of all.
#[derive(Clone, Default)]
struct Openings(Arc<Mutex<BTreeSet<VmId>>>);

/// One of them, until it is dropped.
struct Opening {
    of: Openings,
    id: VmId,
}

impl Openings {
    fn begin(&self, id: VmId) -> Option<Opening> {
        let is_first = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        is_first.then(|| Opening { of: self.clone(), id })
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.of.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl LibvirtScreens {
    /// Loads libvirt's library. `here` is this machine's libvirt (`qemu:///system`).
    pub fn start(here: &str) -> Result<Self, StartError> {
        Ok(Self {
            libvirt: Libvirt::load(ffi::LIBRARY)?,
            here: here.to_owned(),
            workers: Arc::new(Workers::new("screen-opening", STACK)),
            slots: Slots::new(OPENING),
            openings: Openings::default(),
            deadlines: Deadlines::default(),
        })
    }
}

#[async_trait]
impl Screens for LibvirtScreens {
    async fn open(&self, id: VmId) -> Result<Screen, ScreenError> {
        let (within, probe) = (self.deadlines.ask, self.deadlines.probe);
        let deadline = Instant::now() + within;
        let opening = self.openings.begin(id).ok_or(ScreenError::Busy)?;
        let slot = self.slots.take::<()>(deadline).await.map_err(|_| ScreenError::Busy)?;
        let (libvirt, here) = (self.libvirt, self.here.clone());
        let opened = self.workers.call(deadline, move || {
            let _held = (slot, opening);
            open(libvirt, &here, probe, id)
        });
        opened.await.map_err(|failure| match failure {
            Failure::Fault(error) => error,
            Failure::NotAsked => ScreenError::Busy,
            Failure::Late => ScreenError::Late(within),
            Failure::NoThread(error) => ScreenError::Failed(format!("no thread for it: {error}")),
        })
    }
}

fn open(libvirt: Libvirt, here: &str, probe: Duration, id: VmId) -> Result<Screen, ScreenError> {
    let failed = |fault: Fault| ScreenError::Failed(fault.message);
    let uri = CString::new(here).map_err(|_| ScreenError::Failed("a NUL byte in its URI".into()))?;
    let connection = Connection::open(libvirt, &uri, probe).map_err(failed)?;
    let domain = connection.lookup(id).map_err(failed)?.filter(Domain::was_active);
    let Some(domain) = domain else { return Err(ScreenError::NotActive) };
    let number = screen(&domain.active_definition().map_err(failed)?).map_err(ScreenError::Lacking)?;
    // A password that the display has is asked for on it, as everywhere.
    let socket = domain
        .open_graphics(number)
        .map_err(|fault| if fault.is_out_of_place() { ScreenError::NotActive } else { failed(fault) })?;
    Ok(Screen(UnixStream::from(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_opened_once_at_a_time_and_others_beside_it() {
        let openings = Openings::default();
        let [one, other] =
            [1, 2].map(|n| format!("5a0b0ad5-2f1c-4f3e-9a3d-6d0d6b2f8c{n:02x}").parse().unwrap());
        let first = openings.begin(one).unwrap();
        assert!(openings.begin(one).is_none());
        assert!(openings.begin(other).is_some());
        drop(first);
        assert!(openings.begin(one).is_some());
    }
}
