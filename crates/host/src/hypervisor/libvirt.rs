//! The real hypervisor: QEMU machines through libvirt.
//!
//! `supervisor` makes and keeps the connection, `calls` gives each call its deadline, `connection` speaks to libvirt and
//! `watch` hears it, `library` and `ffi` know its C interface. Here is only what each word of the trait means in libvirt's.

mod calls;
mod connection;
mod console;
mod ffi;
mod footprint;
mod library;
mod peers;
mod record;
mod screen;
mod supervisor;
mod trial;
mod watch;

use std::{
    ffi::CString,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pvc_core::model::{DomainSpec, VmId, VmName};
use tokio::sync::mpsc;

use self::{
    calls::{Changes, Failure, Lane, Link, Target},
    connection::{Connection, Domain},
    library::{Fault, Libvirt},
    peers::Peers,
    supervisor::{Shared, Signal},
};
use super::{
    Activity, Event, Hypervisor, HypervisorError, Kept, Migration, Peer, Seen, Suspension, Undefined,
    Versions,
};

pub use self::{console::LibvirtConsoles, ffi::LibraryError, screen::LibvirtScreens};

/// The longest migration there can be. Whoever begins one watches it and ends it much earlier if it gets nowhere.
pub(super) const MIGRATION_BACKSTOP: Duration = Duration::from_hours(24);

/// How long libvirt may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Questions, and requests that only pass a word on.
    pub ask: Duration,
    /// Questions to another node's libvirt.
    pub ask_peer: Duration,
    /// Starting a guest's process.
    pub start: Duration,
    /// Ending one: libvirt itself waits 10 s between SIGTERM and SIGKILL.
    pub power_off: Duration,
    /// After how long a silent libvirtd is probed, in whole seconds; three unanswered probes end the connection. Longer than
    /// the five seconds after which libvirtd usually probes by itself, which makes ours unnecessary.
    pub probe: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            ask: Duration::from_secs(10),
            ask_peer: Duration::from_secs(5),
            start: Duration::from_mins(1),
            power_off: Duration::from_secs(30),
            probe: Duration::from_secs(7),
        }
    }
}

/// Why there is no hypervisor at all, as opposed to one that cannot be reached now.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// libvirt's library cannot be used.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The URI cannot be passed on.
    #[error("the libvirt URI {0:?} contains a NUL byte")]
    Uri(String),
    /// The system is out of threads.
    #[error("could not start the thread that connects to libvirt")]
    Thread(#[source] std::io::Error),
}

/// A libvirt that is connected to in the background, and again whenever the connection is lost.
pub struct LibvirtHypervisor {
    shared: Arc<Shared>,
    changes: Changes,
    peers: Peers,
    deadlines: Deadlines,
    logs: PathBuf,
}

impl LibvirtHypervisor {
    /// Begins to connect to `uri` (`qemu:///system`) and returns at once: until `Event::Connected`, calls end with
    /// `Unavailable`.
    pub fn start(uri: &str) -> Result<Arc<Self>, StartError> {
        Self::start_with(uri, ffi::LIBRARY, Path::new(record::LOGS), Deadlines::default())
    }

    /// As [`start`](Self::start), with another library file, guests' logs elsewhere, or other deadlines.
    pub fn start_with(
        uri: &str,
        library: &str,
        logs: &Path,
        deadlines: Deadlines,
    ) -> Result<Arc<Self>, StartError> {
        let uri = CString::new(uri).map_err(|_| StartError::Uri(uri.to_owned()))?;
        let libvirt = Libvirt::load(library)?;
        let target = Target { libvirt, uri, probe: deadlines.probe };
        let shared = supervisor::start(target.clone()).map_err(StartError::Thread)?;
        let changes = Changes::new(target, shared.workers.clone());
        let peers = Peers::new(libvirt, shared.workers.clone(), deadlines.probe);
        Ok(Arc::new(Self { shared, changes, peers, deadlines, logs: logs.to_owned() }))
    }

    /// Calls that libvirt has not answered yet, overdue ones included; each occupies a thread.
    pub fn calls_under_way(&self) -> usize {
        self.shared.workers.busy()
    }

    /// A question, on the standing connection.
    async fn ask<T: Send + 'static>(
        &self,
        doing: impl FnOnce() -> String + Send,
        ask: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let (link, within) = (self.link()?, self.deadlines.ask);
        let generation = link.generation;
        match link.clone().call(within, ask).await {
            Ok(answer) => Ok(answer),
            Err(failure) => {
                match &failure {
                    Failure::Fault(fault) if fault.is_connection() && !link.is_alive() => {
                        self.shared.signal(Signal::Lost { generation, reason: fault.message.clone() });
                    }
                    Failure::NotAsked | Failure::Late => self.shared.signal(Signal::Stuck { generation }),
                    _ => {}
                }
                Err(failure.into_error(within, doing()))
            }
        }
    }

    /// A change, on a connection of its own; not tried while the standing connection is down.
    async fn change<T: Send + 'static>(
        &self,
        (lane, within): (Lane, Duration),
        doing: impl FnOnce() -> String + Send,
        ask: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.link()?;
        self.changes.call(lane, within, ask).await.map_err(|failure| failure.into_error(within, doing()))
    }

    /// Makes the process of a VM by one of the two ways.
    async fn make(
        &self,
        spec: &DomainSpec,
        doing: impl FnOnce() -> String + Send,
        make: impl FnOnce(&Connection, VmId, &str, &Patience) -> Result<(), Fault> + Send + 'static,
    ) -> Result<(), HypervisorError> {
        let id = spec.id;
        let xml = spec.marked_unstarted().map_err(|error| HypervisorError::Unusable(error.to_string()))?;
        let begun = Instant::now();
        let patience = Patience { tidying: begun + self.deadlines.ask, start: begun + self.deadlines.start };
        let lane = if spec.rbd_images.is_empty() { Lane::Start } else { Lane::StartOnStorage };
        let limits = (lane, self.deadlines.start);
        self.change(limits, doing, move |connection| make(connection, id, &xml, &patience)).await
    }

    fn link(&self) -> Result<Arc<Link>, HypervisorError> {
        self.shared.link().map_err(HypervisorError::Unavailable)
    }
}

impl Drop for LibvirtHypervisor {
    fn drop(&mut self) {
        self.shared.signal(Signal::Stop);
    }
}

#[async_trait]
impl Hypervisor for LibvirtHypervisor {
    async fn active(&self) -> Result<Vec<Seen>, HypervisorError> {
        self.ask(|| "listing VMs".into(), Connection::active).await
    }

    async fn seen(&self, id: VmId) -> Result<Option<Seen>, HypervisorError> {
        let look =
            move |connection: &Connection| connection.lookup(id)?.map_or(Ok(None), |domain| domain.seen());
        self.ask(|| format!("looking at VM {id}"), look).await
    }

    async fn start(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        let doing = || format!("starting VM {}", spec.id);
        self.make(spec, doing, start).await
    }

    async fn prepare(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        let doing = || format!("making the process of VM {}", spec.id);
        self.make(spec, doing, |connection, id, xml, patience| {
            prepare(connection, id, xml, patience).map(drop)
        })
        .await
    }

    async fn could_start(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        let (limits, doing) =
            ((Lane::Trial, self.deadlines.ask), || format!("asking about a start of VM {}", spec.id));
        let spec = spec.clone();
        self.change(limits, doing, move |connection| trial::could_start(connection, &spec)).await
    }

    async fn ask_to_shut_down(&self, id: VmId) -> Result<(), HypervisorError> {
        let limits = (Lane::Shutdown, self.deadlines.ask);
        let doing = || format!("asking VM {id} to shut down");
        self.change(limits, doing, move |connection| ask_to_shut_down(connection, id)).await
    }

    async fn power_off(&self, id: VmId) -> Result<(), HypervisorError> {
        let limits = (Lane::PowerOff, self.deadlines.power_off);
        self.change(limits, || format!("powering off VM {id}"), move |connection| power_off(connection, id))
            .await
    }

    async fn migrate(&self, id: VmId, to: &Peer) -> Result<(), HypervisorError> {
        let limits = (Lane::Migrate, MIGRATION_BACKSTOP);
        let (doing, to) = (format!("migrating VM {id} to {to}"), to.clone());
        self.change(limits, || doing, move |connection| migrate(connection, id, &to)).await
    }

    async fn migration(&self, id: VmId) -> Result<Option<Migration>, HypervisorError> {
        let limits = (Lane::Migration, self.deadlines.ask);
        let doing = || format!("asking how VM {id} migrates");
        self.change(limits, doing, move |connection| migration(connection, id)).await
    }

    async fn abort_migration(&self, id: VmId) -> Result<(), HypervisorError> {
        let limits = (Lane::Migration, self.deadlines.ask);
        let doing = || format!("aborting the migration of VM {id}");
        self.change(limits, doing, move |connection| abort_migration(connection, id)).await
    }

    async fn suspend(&self, id: VmId, why: Suspension) -> Result<(), HypervisorError> {
        let limits = (Lane::Migration, self.deadlines.ask);
        let doing = || format!("suspending VM {id}");
        self.change(limits, doing, move |connection| suspend(connection, id, why)).await
    }

    async fn has_left(&self, _: VmId, name: &VmName) -> Result<bool, HypervisorError> {
        let (within, log) = (self.deadlines.ask, self.logs.join(format!("{name}.log")));
        let deadline = tokio::time::Instant::now() + within;
        let answer = self.shared.workers.call(deadline, move || Ok(record::says_left(&log))).await;
        answer.map_err(|failure| failure.into_error(within, format!("reading how VM {name} ended")))
    }

    async fn resume(&self, id: VmId) -> Result<(), HypervisorError> {
        let limits = (Lane::Resume, self.deadlines.ask);
        self.change(limits, || format!("resuming VM {id}"), move |connection| resume(connection, id)).await
    }

    async fn note_executes(&self, id: VmId) -> Result<(), HypervisorError> {
        let doing = || format!("noting that VM {id} executes");
        // Hardly any is marked: that is asked at no cost of a connection.
        let is_marked = move |connection: &Connection| match connection.lookup(id)? {
            Some(domain) => domain.is_marked_as_held(),
            None => Ok(false),
        };
        if !self.ask(doing, is_marked).await? {
            return Ok(());
        }
        let limits = (Lane::Migration, self.deadlines.ask);
        self.change(limits, doing, move |connection| note_executes(connection, id)).await
    }

    async fn seen_at(&self, peer: &Peer, id: VmId) -> Result<Option<Seen>, HypervisorError> {
        let doing = || format!("looking for VM {id} at {peer}");
        let look =
            move |connection: &Connection| connection.lookup(id)?.map_or(Ok(None), |domain| domain.seen());
        self.peers.ask(peer, self.deadlines.ask_peer, doing, look).await
    }

    async fn pause_at(&self, peer: &Peer, id: VmId) -> Result<Option<Duration>, HypervisorError> {
        let doing = || format!("asking {peer} how VM {id} arrived");
        let look = move |connection: &Connection| {
            connection.lookup(id)?.map_or(Ok(None), |domain| domain.pause_on_arrival())
        };
        self.peers.ask(peer, self.deadlines.ask_peer, doing, look).await
    }

    async fn versions(&self, at: Option<&Peer>) -> Result<Versions, HypervisorError> {
        match at {
            None => self.ask(|| "asking for its version".into(), Connection::versions).await,
            Some(peer) => {
                let doing = || format!("asking {peer} for its version");
                self.peers.ask(peer, self.deadlines.ask_peer, doing, Connection::versions).await
            }
        }
    }

    async fn kept(&self) -> Result<Vec<Kept>, HypervisorError> {
        self.ask(|| "listing definitions".into(), Connection::kept).await
    }

    async fn end_autostart(&self, id: VmId) -> Result<(), HypervisorError> {
        let limits = (Lane::Migration, self.deadlines.ask);
        let doing = || format!("ending the autostart of VM {id}");
        let end = move |connection: &Connection| {
            connection.lookup(id)?.map_or(Ok(()), |domain| domain.end_autostart())
        };
        self.change(limits, doing, end).await
    }

    async fn undefine(&self, id: VmId) -> Result<Undefined, HypervisorError> {
        let limits = (Lane::Migration, self.deadlines.ask);
        let doing = || format!("removing libvirt's definition of VM {id}");
        let undefine = move |connection: &Connection| {
            connection.lookup(id)?.map_or(Ok(Undefined::Gone), |domain| domain.undefine())
        };
        self.change(limits, doing, undefine).await
    }

    fn events(&self) -> mpsc::UnboundedReceiver<Event> {
        self.shared.subscribe()
    }
}

/// How long libvirtd gets before it is asked again for a start that its tidying up was in the way of.
const TIDYING: Duration = Duration::from_millis(20);

/// Until when what is waited for.
struct Patience {
    tidying: Instant,
    /// When the caller gives up.
    start: Instant,
}

/// The process; `None` if there was one.
fn prepare<'c>(
    connection: &'c Connection,
    id: VmId,
    xml: &str,
    patience: &Patience,
) -> Result<Option<Domain<'c>>, Fault> {
    loop {
        match connection.create(xml) {
            // A moment's matter, and no reason to call a VM failed that is started again after a crash.
            Err(fault) if fault.is_being_removed() && Instant::now() < patience.tidying => {
                std::thread::sleep(TIDYING);
            }
            // libvirt refuses what exists in several ways, and another VM's name in the same words: the fact decides.
            Err(fault) if !fault.is_connection() && is_active(connection, id)? => return Ok(None),
            result => return result.map(Some),
        }
    }
}

fn start(connection: &Connection, id: VmId, xml: &str, patience: &Patience) -> Result<(), Fault> {
    let Some(domain) = prepare(connection, id, xml, patience)? else { return Ok(()) };
    // From here on libvirt shows the domain to everybody who asks: what is done to it, however late, finds it or nothing.
    if Instant::now() >= patience.start {
        return Err(Fault::ours(format!("VM {id} was given up before it was let go")));
    }
    match domain.begin() {
        Err(fault) if fault.is_connection() => Err(fault),
        Err(fault) => {
            domain.destroy()?;
            Err(fault)
        }
        Ok(()) => Ok(()),
    }
}

fn ask_to_shut_down(connection: &Connection, id: VmId) -> Result<(), Fault> {
    let Some(domain) = connection.lookup(id)?.filter(Domain::was_active) else { return Ok(()) };
    match domain.press_power_button() {
        // It ended by itself meanwhile.
        Err(fault) if !fault.is_connection() && !is_active(connection, id)? => Ok(()),
        result => result,
    }
}

fn power_off(connection: &Connection, id: VmId) -> Result<(), Fault> {
    let Some(domain) = connection.lookup(id)?.filter(Domain::was_active) else { return Ok(()) };
    match domain.destroy() {
        Err(fault) if fault.is_connection() => Err(fault),
        // Neither a success nor a failure is believed: the answer is whether it is gone.
        result if is_active(connection, id)? => {
            result.and(Err(Fault::ours(format!("VM {id} is still active after it was ended"))))
        }
        _ => Ok(()),
    }
}

fn migrate(connection: &Connection, id: VmId, to: &Peer) -> Result<(), Fault> {
    let Some(domain) = connection.lookup(id)?.filter(Domain::was_active) else {
        return Err(Fault::ours(format!("VM {id} is not active here")));
    };
    domain.migrate(to)?;
    if is_active(connection, id)? {
        return Err(Fault::ours(format!("VM {id} is still active here after its migration to {to}")));
    }
    Ok(())
}

fn migration(connection: &Connection, id: VmId) -> Result<Option<Migration>, Fault> {
    let Some(domain) = connection.lookup(id)?.filter(Domain::was_active) else { return Ok(None) };
    match domain.migration() {
        // It ended, or arrived elsewhere, between the two questions.
        Err(fault) if !fault.is_connection() && !is_active(connection, id)? => Ok(None),
        result => result,
    }
}

fn abort_migration(connection: &Connection, id: VmId) -> Result<(), Fault> {
    let Some(domain) = connection.lookup(id)?.filter(Domain::was_active) else { return Ok(()) };
    if !matches!(domain.migration()?, Some(Migration::Leaving(_))) {
        return Ok(());
    }
    match domain.abort_job() {
        // It came to its end meanwhile.
        Err(fault) if !fault.is_connection() && migration(connection, id)?.is_none() => Ok(()),
        result => result,
    }
}

fn resume(connection: &Connection, id: VmId) -> Result<(), Fault> {
    let Some(domain) = connection.lookup(id)? else { return Ok(()) };
    match domain.activity()? {
        Some(Activity::Held | Activity::Arrived) => domain.go_on(),
        Some(Activity::Unstarted) => domain.begin(),
        Some(Activity::Suspended(why)) => domain.end_suspension(why),
        _ => Ok(()),
    }
}

fn note_executes(connection: &Connection, id: VmId) -> Result<(), Fault> {
    let Some(domain) = connection.lookup(id)? else { return Ok(()) };
    if domain.activity()? == Some(Activity::Running) { domain.unmark() } else { Ok(()) }
}

fn suspend(connection: &Connection, id: VmId, why: Suspension) -> Result<(), Fault> {
    let Some(domain) = connection.lookup(id)? else { return Ok(()) };
    if domain.activity()? != Some(Activity::Running) {
        return Ok(());
    }
    match domain.suspend(why) {
        // It ended, or somebody has paused it, between the two.
        Err(fault) if !fault.is_connection() && domain.activity()? != Some(Activity::Running) => Ok(()),
        result => result,
    }
}

fn is_active(connection: &Connection, id: VmId) -> Result<bool, Fault> {
    Ok(connection.lookup(id)?.is_some_and(|domain| domain.was_active()))
}
