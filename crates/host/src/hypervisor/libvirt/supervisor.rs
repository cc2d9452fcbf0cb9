//! Keeps one connection to libvirt open, for as long as somebody holds the hypervisor.
//!
//! ```text
//!   connecting ──opened──► connected ──closed, dead, stuck──► connecting
//!        └─failed: again after 0.1 s, doubling to 3.2 s─┘
//! ```
//! One thread that opens connections, never two at a time: opening one to a frozen libvirtd blocks until that libvirtd
//! goes on or ends. Losing a connection never harms a guest. Never decides anything about guests.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc},
    time::Duration,
};

use pvc_core::model::VmId;
use tokio::sync::mpsc as events;

use super::{
    super::Event,
    calls::{Link, Target},
    connection::Connection,
    footprint,
    library::{Fault, STACK},
    watch::Observer,
};
use crate::blocking::Workers;

const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(3200));

/// Connections that may exist at once: the one in use and those whose last question is still unanswered. A libvirtd that
/// accepts connections but answers no questions gets no more than these.
const MAX_LINKS: usize = 4;

/// What the supervisor is told. Generations keep late news of an old connection from ending a new one.
pub(super) enum Signal {
    /// The connection is gone.
    Lost { generation: u64, reason: String },
    /// The connection stands but its questions are not answered.
    Stuck { generation: u64 },
    /// Nobody needs connections any more.
    Stop,
}

/// What callers and the supervisor share.
pub(super) struct Shared {
    status: Mutex<Status>,
    subscribers: Mutex<Vec<events::UnboundedSender<Event>>>,
    signals: mpsc::Sender<Signal>,
    pub(super) workers: Arc<Workers>,
}

enum Status {
    Connecting { why: String },
    Connected(Arc<Link>),
}

impl Shared {
    /// The connection in use, or why there is none.
    pub(super) fn link(&self) -> Result<Arc<Link>, String> {
        match &*lock(&self.status) {
            Status::Connected(link) => Ok(link.clone()),
            Status::Connecting { why } => Err(why.clone()),
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        // The supervisor ends only after `Stop`; later news interests nobody.
        let _ = self.signals.send(signal);
    }

    /// A subscription that begins with `Connected` where that is so already.
    pub(super) fn subscribe(&self) -> events::UnboundedReceiver<Event> {
        let (sender, receiver) = events::unbounded_channel();
        // Under both locks: no change of status falls between the look and the subscription.
        let status = lock(&self.status);
        if matches!(*status, Status::Connected(_)) {
            let _ = sender.send(Event::Connected);
        }
        lock(&self.subscribers).push(sender);
        receiver
    }

    fn tell(&self, event: &Event) {
        lock(&self.subscribers).retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    fn become_status(&self, status: Status, event: &Event) {
        let mut current = lock(&self.status);
        let old = std::mem::replace(&mut *current, status);
        self.tell(event);
        drop(current);
        // Outside the lock: closes the connection if no call uses it.
        drop(old);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread.
pub(super) fn start(target: Target) -> std::io::Result<Arc<Shared>> {
    let (sender, signals) = mpsc::channel();
    let shared = Arc::new(Shared {
        status: Mutex::new(Status::Connecting { why: "the first connection is not made yet".into() }),
        subscribers: Mutex::default(),
        signals: sender,
        workers: Arc::new(Workers::new("libvirt-call", STACK)),
    });
    let supervisor = Supervisor { target, shared: shared.clone(), signals, links: Vec::new() };
    std::thread::Builder::new()
        .name("libvirt-link".into())
        .stack_size(STACK)
        .spawn(move || supervisor.run())?;
    Ok(shared)
}

struct Supervisor {
    target: Target,
    shared: Arc<Shared>,
    signals: mpsc::Receiver<Signal>,
    links: Vec<Weak<Link>>,
}

/// The supervisor was told to stop.
struct Stopped;

impl Supervisor {
    fn run(mut self) {
        let mut generation = 0;
        while let Ok(link) = self.connect(generation) {
            self.links.retain(|link| link.strong_count() > 0);
            self.links.push(Arc::downgrade(&link));
            tracing::info!(uri = %self.target.uri.to_string_lossy(), "connected to libvirt");
            self.shared.become_status(Status::Connected(link), &Event::Connected);
            if generation == 0
                && let Err(error) = footprint::give_back()
            {
                tracing::debug!(%error, "memory that is not needed any more stays resident");
            }
            let lost = self.wait_for_loss(generation);
            let why = lost.as_ref().map_or("the daemon is stopping", String::as_str);
            if lost.is_ok() {
                tracing::warn!(
                    reason = why,
                    "lost the connection to libvirt; guests are not affected; reconnecting"
                );
            }
            self.shared.become_status(Status::Connecting { why: why.to_owned() }, &Event::Disconnected);
            if lost.is_err() {
                return;
            }
            generation += 1;
        }
    }

    /// Tries until there is a connection. Says what is wrong when that changes, not each time; after a loss, which was
    /// said already, only if it lasts longer than a restart of libvirtd.
    fn connect(&self, generation: u64) -> Result<Arc<Link>, Stopped> {
        let (mut wait, mut said) = (BACK_OFF.0, String::new());
        loop {
            let fault = match self.open(generation) {
                Ok(connection) => {
                    return Ok(Arc::new(Link::new(connection, self.shared.workers.clone(), generation)));
                }
                Err(fault) => fault,
            };
            if fault.message != said && (generation == 0 || wait == BACK_OFF.1) {
                said.clone_from(&fault.message);
                let uri = self.target.uri.to_string_lossy();
                tracing::warn!(%uri, %fault, "could not connect to libvirt; trying until it works");
            }
            *lock(&self.shared.status) = Status::Connecting { why: fault.message };
            match self.signals.recv_timeout(wait) {
                Ok(Signal::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Stopped),
                // News of an earlier connection must not shorten the wait to a busy loop: count it as waited.
                Ok(_) | Err(mpsc::RecvTimeoutError::Timeout) => wait = (wait * 2).min(BACK_OFF.1),
            }
        }
    }

    fn open(&self, generation: u64) -> Result<Connection, Fault> {
        let mut connection = self.target.open()?;
        connection.watch(Arc::new(Relay { shared: Arc::downgrade(&self.shared), generation }))?;
        Ok(connection)
    }

    fn wait_for_loss(&mut self, current: u64) -> Result<String, Stopped> {
        loop {
            match self.signals.recv() {
                Ok(Signal::Lost { generation, reason }) if generation == current => return Ok(reason),
                Ok(Signal::Stuck { generation }) if generation == current => {
                    self.links.retain(|link| link.strong_count() > 0);
                    if self.links.len() < MAX_LINKS {
                        return Ok("its questions are not answered".into());
                    }
                }
                Ok(Signal::Stop) | Err(_) => return Err(Stopped),
                Ok(_) => {}
            }
        }
    }
}

/// Passes libvirt's callbacks on. Weak: libvirt keeps it for as long as it keeps the connection.
struct Relay {
    shared: Weak<Shared>,
    generation: u64,
}

impl Observer for Relay {
    fn domain_changed(&self, id: VmId) {
        if let Some(shared) = self.shared.upgrade() {
            shared.tell(&Event::Domain(id));
        }
    }

    fn closed(&self, reason: &'static str) {
        if let Some(shared) = self.shared.upgrade() {
            shared.signal(Signal::Lost { generation: self.generation, reason: reason.into() });
        }
    }
}
