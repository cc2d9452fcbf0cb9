//! The real hypervisor: QEMU machines through libvirt.
//!
//! The connection is made and kept by `supervisor`, calls get their deadlines from `calls`, `connection` speaks libvirt,
//! `ffi` knows its C interface. Here is only what each word of the trait means in libvirt's.

mod calls;
mod connection;
mod ffi;
mod supervisor;
mod workers;

use std::{ffi::CString, sync::Arc, time::Duration};

use async_trait::async_trait;
use pvc_core::model::{DomainSpec, VmId};
use tokio::sync::mpsc;

use self::{
    calls::{Failure, Lane},
    connection::{Connection, Fault, Libvirt},
    supervisor::{Shared, Signal},
};
use super::{Event, Hypervisor, HypervisorError, Seen};

pub use self::ffi::LibraryError;

/// How long libvirt may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Questions, and requests that only pass a word on.
    pub ask: Duration,
    /// Starting a guest's process.
    pub start: Duration,
    /// Ending one: libvirt itself waits 10 s between SIGTERM and SIGKILL.
    pub power_off: Duration,
    /// How often a silent libvirtd is probed, in whole seconds; three unanswered probes end the connection.
    pub probe: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            ask: Duration::from_secs(10),
            start: Duration::from_mins(1),
            power_off: Duration::from_secs(30),
            probe: Duration::from_secs(5),
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
    deadlines: Deadlines,
}

impl LibvirtHypervisor {
    /// Begins to connect to `uri` (`qemu:///system`) and returns at once: until `Event::Connected`, calls end with
    /// `Unavailable`.
    pub fn start(uri: &str) -> Result<Arc<Self>, StartError> {
        Self::start_with(uri, ffi::LIBRARY, Deadlines::default())
    }

    /// As [`start`](Self::start), with another library file or other deadlines.
    pub fn start_with(uri: &str, library: &str, deadlines: Deadlines) -> Result<Arc<Self>, StartError> {
        let c_uri = CString::new(uri).map_err(|_| StartError::Uri(uri.to_owned()))?;
        let libvirt = Libvirt::load(library)?;
        let shared = supervisor::start(libvirt, c_uri, deadlines.probe).map_err(StartError::Thread)?;
        Ok(Arc::new(Self { shared, deadlines }))
    }

    /// Calls that libvirt has not answered yet, overdue ones included; each occupies a thread.
    pub fn calls_under_way(&self) -> usize {
        self.shared.workers.busy()
    }

    async fn call<T: Send + 'static>(
        &self,
        lane: Lane,
        within: Duration,
        doing: impl FnOnce() -> String + Send,
        ask: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let link = self.shared.link().map_err(HypervisorError::Unavailable)?;
        let generation = link.generation;
        match link.clone().call(lane, within, ask).await {
            Ok(answer) => Ok(answer),
            Err(failure) => {
                match &failure {
                    Failure::Fault(fault) if fault.is_connection() && !link.is_alive() => {
                        self.shared.signal(Signal::Lost { generation, reason: fault.message.clone() });
                    }
                    Failure::NotAsked | Failure::Late if link.is_full(lane) => {
                        self.shared.signal(Signal::Stuck { generation });
                    }
                    _ => {}
                }
                Err(failure.into_error(within, doing()))
            }
        }
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
        self.call(Lane::Read, self.deadlines.ask, || "listing VMs".into(), Connection::active).await
    }

    async fn seen(&self, id: VmId) -> Result<Option<Seen>, HypervisorError> {
        self.call(
            Lane::Read,
            self.deadlines.ask,
            || format!("looking at VM {id}"),
            move |connection| connection.lookup(id)?.map_or(Ok(None), |domain| domain.seen()),
        )
        .await
    }

    async fn start(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        let (id, xml) = (spec.id, spec.xml.clone());
        self.call(
            Lane::Change,
            self.deadlines.start,
            || format!("starting VM {id}"),
            move |connection| {
                match connection.create(&xml) {
                    // libvirt has several refusals for what exists, and one text for another VM's name: the fact decides.
                    Err(fault) if !fault.is_connection() && is_active(connection, id)? => Ok(()),
                    result => result,
                }
            },
        )
        .await
    }

    async fn ask_to_shut_down(&self, id: VmId) -> Result<(), HypervisorError> {
        self.call(
            Lane::Change,
            self.deadlines.ask,
            || format!("asking VM {id} to shut down"),
            move |connection| {
                match connection.lookup(id)? {
                    Some(domain) if domain.was_active() => match domain.press_power_button() {
                        // It ended by itself meanwhile.
                        Err(fault) if !fault.is_connection() && !is_active(connection, id)? => Ok(()),
                        result => result,
                    },
                    _ => Ok(()),
                }
            },
        )
        .await
    }

    async fn power_off(&self, id: VmId) -> Result<(), HypervisorError> {
        self.call(
            Lane::PowerOff,
            self.deadlines.power_off,
            || format!("powering off VM {id}"),
            move |connection| {
                let Some(domain) = connection.lookup(id)? else {
                    return Ok(());
                };
                let result = domain.destroy();
                // Neither a success nor a failure is believed: the answer is whether it is gone.
                match result {
                    Err(fault) if fault.is_connection() => Err(fault),
                    result if is_active(connection, id)? => {
                        result.and(Err(Fault::ours(format!("VM {id} is still active after it was ended"))))
                    }
                    _ => Ok(()),
                }
            },
        )
        .await
    }

    fn events(&self) -> mpsc::UnboundedReceiver<Event> {
        self.shared.subscribe()
    }
}

fn is_active(connection: &Connection, id: VmId) -> Result<bool, Fault> {
    Ok(connection.lookup(id)?.is_some_and(|domain| domain.was_active()))
}
