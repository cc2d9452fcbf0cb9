//! Serial consoles through libvirt. Each has a connection and a thread of its own, which ends with it: what hangs in libvirt hangs alone.
//!
//! The thread reads whatever libvirt's library has received at once, because that keeps without bound what nobody reads; what then waits for the client is
//! bounded (see `console`). It never holds the guest up for a client that is slow.

use std::{
    collections::HashMap,
    ffi::CString,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::model::{VmId, no_console};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    super::console::{Console, ConsoleError, Consoles, End, GuestEnd, Hold, Place, Turn, pair},
    Deadlines, StartError,
    connection::{Connection, Domain, Read, Stream},
    ffi,
    library::{Fault, Libvirt, STACK},
    peers::knock,
};
use crate::blocking::{Slot, Slots, Workers};

/// How often it is asked whether the connection still stands. libvirt closes one whose other side is silent; who waits for a stream of it is not told in all versions.
const LOOK: Duration = Duration::from_secs(1);
/// libvirt's own packets are no larger.
const PACKET: usize = 64 * 1024;
/// What is typed goes in small parts, so that little is under way to a guest that takes nothing.
const TYPED: usize = 1024;
/// So many packets are read before what was typed has its turn.
const PACKETS: usize = 16;

/// So many consoles of one libvirt may be being opened. One that does not answer holds whoever connects to it past every deadline, and takes no more than these.
const OPENING: usize = 2;

/// Consoles of this machine's and other nodes' guests.
pub struct LibvirtConsoles {
    libvirt: Libvirt,
    here: String,
    workers: Arc<Workers>,
    slots: Slots,
    opening: Mutex<HashMap<Place, Slots>>,
    deadlines: Deadlines,
}

impl LibvirtConsoles {
    /// Loads libvirt's library. `here` is this machine's libvirt (`qemu:///system`); at most so many consoles are open at once.
    pub fn start(here: &str, most: usize) -> Result<Self, StartError> {
        let libvirt = Libvirt::load(ffi::LIBRARY)?;
        let workers = Arc::new(Workers::new("console", STACK));
        Ok(Self {
            libvirt,
            here: here.to_owned(),
            workers,
            slots: Slots::new(most),
            opening: Mutex::default(),
            deadlines: Deadlines::default(),
        })
    }

    /// A turn to open one there; it is over when that libvirt has answered.
    async fn turn(&self, at: &Place, deadline: Instant) -> Result<Slot, ConsoleError> {
        let slots = {
            let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
            opening.entry(at.clone()).or_insert_with(|| Slots::new(OPENING)).clone()
        };
        slots.take::<()>(deadline).await.map_err(|_| ConsoleError::Refused {
            at: at.clone(),
            why: format!(
                "{OPENING} consoles of it are being opened already, and its libvirt does not answer"
            ),
        })
    }
}

#[async_trait]
impl Consoles for LibvirtConsoles {
    async fn open(&self, at: &Place, id: VmId, hold: Hold) -> Result<Console, ConsoleError> {
        let within = self.deadlines.ask;
        let deadline = Instant::now() + within;
        let late = || ConsoleError::Late { at: at.clone(), after: within };
        let turn = self.turn(at, deadline).await?;
        let slot = self.slots.take::<()>(deadline).await.map_err(|_| ConsoleError::Refused {
            at: at.clone(),
            why: "as many consoles are open as this process may have".to_owned(),
        })?;
        let (console, guest) = pair();
        let (answer, answered) = oneshot::channel();
        let call = Call {
            libvirt: self.libvirt,
            at: at.clone(),
            here: self.here.clone(),
            id,
            hold,
            within,
            probe: self.deadlines.probe,
        };
        let job = move || {
            let _slot = slot;
            call.carry(&guest, turn, answer);
        };
        self.workers.run(Box::new(job)).map_err(|error| ConsoleError::Refused {
            at: at.clone(),
            why: format!("no thread for its console: {error}"),
        })?;
        match timeout_at(deadline, answered).await {
            Ok(Ok(opened)) => opened.map(|()| console),
            // Too late, or its thread has panicked. What opens later finds that nobody waits, and closes.
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }
}

/// One console, as its thread knows it.
struct Call {
    libvirt: Libvirt,
    at: Place,
    here: String,
    id: VmId,
    hold: Hold,
    within: Duration,
    probe: Duration,
}

impl Call {
    /// From its opening to its end.
    fn carry(self, guest: &GuestEnd, turn: Slot, answer: oneshot::Sender<Result<(), ConsoleError>>) {
        let connection = match self.connect() {
            Ok(connection) => connection,
            Err(fault) => return drop(answer.send(Err(ConsoleError::unreachable(&self.at, fault.message)))),
        };
        let mut stream = match self.open(&connection, guest) {
            Ok(stream) => stream,
            Err(error) => return drop(answer.send(Err(error))),
        };
        drop(turn);
        if answer.send(Ok(())).is_err() {
            return;
        }
        match pump(&connection, &mut stream, guest) {
            Ok(()) => guest.end(End::Closed),
            // What ends with an error of the daemon's has ended: it says so of a guest that ends, in some versions.
            Err(fault) if connection.is_alive() => {
                tracing::debug!("a console ended: {fault}");
                guest.end(End::Closed);
            }
            Err(fault) => guest.end(End::Lost(fault.message)),
        }
    }

    fn connect(&self) -> Result<Connection, Fault> {
        let uri = match &self.at {
            Place::Here => self.here.clone(),
            Place::Peer(peer) => {
                knock(peer, self.within)?;
                peer.uri()
            }
        };
        let uri = CString::new(uri).map_err(|_| Fault::ours("a NUL byte in its URI".into()))?;
        Connection::open(self.libvirt, &uri, self.probe)
    }

    fn open<'c>(&self, connection: &'c Connection, guest: &GuestEnd) -> Result<Stream<'c>, ConsoleError> {
        let refused = |fault: Fault| {
            if fault.is_connection() {
                ConsoleError::unreachable(&self.at, fault.message)
            } else {
                ConsoleError::Refused { at: self.at.clone(), why: fault.message }
            }
        };
        let domain = connection.lookup(self.id).map_err(refused)?.filter(Domain::was_active);
        let Some(domain) = domain else { return Err(ConsoleError::NotActive(self.at.clone())) };
        let mut stream = domain.open_console(self.hold == Hold::Take).map_err(|fault| {
            if fault.is_console_in_use() {
                return ConsoleError::Taken;
            }
            if fault.is_console_to_come() {
                return ConsoleError::NotActive(self.at.clone());
            }
            // Why it cannot be opened is in its definition as a rule, and libvirt's words about that help nobody.
            let lack = domain.active_definition().ok().and_then(|xml| no_console(&xml));
            lack.map_or_else(|| refused(fault), ConsoleError::Lacking)
        })?;
        stream.watch(Box::new(guest.stirrer())).map_err(refused)?;
        Ok(stream)
    }
}

/// Carries both ways until one side ends it.
fn pump(connection: &Connection, stream: &mut Stream<'_>, guest: &GuestEnd) -> Result<(), Fault> {
    let mut packet = vec![0; PACKET];
    // At first there may be something, whatever was told before the callback stood.
    let (mut there_is_more, mut is_full) = (true, false);
    loop {
        let at_most = if there_is_more { Duration::ZERO } else { LOOK };
        let turn = if is_full { guest.wait_for_guest(at_most) } else { guest.wait(at_most) };
        if turn == Turn::Left {
            return Ok(());
        }
        there_is_more = false;
        for n in 0..PACKETS {
            match stream.read(&mut packet)? {
                Read::Bytes(bytes) => guest.print(&packet[..bytes]),
                Read::Nothing => break,
                Read::End => {
                    stream.finish();
                    return Ok(());
                }
            }
            there_is_more = n + 1 == PACKETS;
        }
        let typed = guest.typed(TYPED);
        if !typed.is_empty() {
            let taken = stream.write(&typed)?;
            guest.taken(taken);
            is_full = taken == 0;
        }
        stream.arm(is_full)?;
        if !connection.is_alive() {
            return Err(Fault::transport("the connection is lost".to_owned()));
        }
    }
}
