//! Running virtual machines. The words are ours: no libvirt type leaves this folder.

use std::time::Duration;

use async_trait::async_trait;
use pvc_core::model::{DomainSpec, VmId, VmName};
use tokio::sync::mpsc;

pub mod console;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod libvirt;
mod peer;
pub mod screen;
mod versions;

pub use peer::{Peer, Transport};
pub use pvc_core::model::{Halt, Migration, Progress, Suspension};
pub use versions::{Version, Versions};

/// An active domain as the hypervisor sees it. Inactive definitions are nobody's business here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its UUID.
    pub id: VmId,
    /// Its name as libvirt knows it.
    pub name: String,
    /// What it is doing.
    pub activity: Activity,
    /// Memory it was given, MiB (its maximum, not the balloon).
    pub memory_mib: u64,
    /// vCPUs it was given.
    pub vcpus: u32,
}

/// What an active domain is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Executing, or blocked on I/O.
    Running,
    /// Not executing, but its process and its claim on disks live, for this reason.
    Halted(Halt),
    /// Not executing, held by a migration: on its way to this node, or left behind by one that did not end in order.
    Held,
    /// Not executing: a migration has brought all of it, and it has not executed here yet.
    Arrived,
    /// Has never executed: left behind by a start that was given up before it let the guest go.
    Unstarted,
    /// Not executing, by [`Hypervisor::suspend`], and why.
    Suspended(Suspension),
    /// On its way down.
    ShuttingDown,
}

impl Activity {
    /// Why it does not execute, if no daemon of the cluster has stopped it.
    pub fn halt(self) -> Option<Halt> {
        match self {
            Self::Halted(halt) => Some(halt),
            _ => None,
        }
    }

    /// Whether it executes nothing and waits for [`Hypervisor::resume`].
    pub fn is_held(self) -> bool {
        matches!(self, Self::Held | Self::Arrived | Self::Unstarted | Self::Suspended(_))
    }
}

/// A definition that libvirt keeps, of a domain that is active or not. The cluster's definitions are in the state tree: it needs none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its UUID.
    pub id: VmId,
    /// Whether libvirt starts it by itself when the machine has booted.
    pub autostart: bool,
}

/// What came of removing a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undefined {
    /// It is not there any more. What is active runs on.
    Gone,
    /// Something would have been lost with it; this.
    Holds(String),
}

/// What a subscriber learns. Content is a hint; facts are read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This domain started, stopped, paused, crashed …
    Domain(VmId),
    /// The connection is up: everything may have changed meanwhile.
    Connected,
    /// The connection is lost; guests are not affected.
    Disconnected,
}

/// Why the hypervisor did not do as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HypervisorError {
    /// It cannot be reached now. Nothing is known about the outcome of a change.
    #[error("libvirt cannot be reached: {0}")]
    Unavailable(String),
    /// No answer within the deadline. Nothing is known about the outcome of a change.
    #[error("libvirt did not answer within {after:?} while {doing}")]
    Deadline {
        /// The deadline.
        after: Duration,
        /// What was being done.
        doing: String,
    },
    /// It answered that it could not, here and now: the text is libvirt's.
    #[error("libvirt: {0}")]
    Refused(String),
    /// It answered that the definition is wrong, which it is on any node.
    #[error("libvirt: {0}")]
    Unusable(String),
}

/// A hypervisor on this machine. "Already so" is success: starting what runs, powering off what is off.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// All active domains.
    async fn active(&self) -> Result<Vec<Seen>, HypervisorError>;

    /// One active domain, or `None` if it is not active.
    async fn seen(&self, id: VmId) -> Result<Option<Seen>, HypervisorError>;

    /// Starts a transient domain from its definition. Once the caller has given up, by its own end or by any other, no guest
    /// executes of it any more: whatever libvirt does later leaves it [`Activity::Unstarted`] at most.
    async fn start(&self, spec: &DomainSpec) -> Result<(), HypervisorError>;

    /// As [`start`](Self::start), but lets nothing execute: what it leaves is [`Activity::Unstarted`], with all its disks open, until
    /// [`resume`](Self::resume). Of what is there already nothing is changed.
    async fn prepare(&self, spec: &DomainSpec) -> Result<(), HypervisorError>;

    /// Whether it could be started here now, as far as that can be told without starting it: [`HypervisorError::Refused`] if not.
    async fn could_start(&self, spec: &DomainSpec) -> Result<(), HypervisorError>;

    /// Asks the guest to shut down (ACPI); returns when asked, not when done.
    async fn ask_to_shut_down(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Ends the domain at once; returns when it is confirmed not active.
    async fn power_off(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Moves a VM to another node while it runs, and returns when it is [`Activity::Arrived`] there (or paused there, if it was here)
    /// and not active here. After an error it may have arrived all the same, and it may be paused here or go on here: libvirt's source
    /// lets its guest go on when the target's last answer is lost. Goes on by itself if nobody waits for it any more, and
    /// for as long as it makes progress: whoever began it watches [`migration`](Self::migration) and aborts it.
    async fn migrate(&self, id: VmId, to: &Peer) -> Result<(), HypervisorError>;

    /// The migration of this VM from or to this node that is under way, if one is.
    async fn migration(&self, id: VmId) -> Result<Option<Migration>, HypervisorError>;

    /// Ends the migration of this VM from this node, which `migrate` then reports; returns when asked, not when done.
    async fn abort_migration(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Whether the VM's last run here is on record as migrated: it has arrived elsewhere, and nothing but somebody's hand lets it go on
    /// here, though its process may be there for a moment more. `false` if there is no such record.
    async fn has_left(&self, id: VmId, name: &VmName) -> Result<bool, HypervisorError>;

    /// Stops a VM from executing that does; any other, one that is paused for instance, is left as it is. It is
    /// [`Activity::Suspended`] until `resume`, whatever becomes of the caller and of libvirt's daemon.
    async fn suspend(&self, id: VmId, why: Suspension) -> Result<(), HypervisorError>;

    /// Lets a VM go on that is [`Activity::Held`], [`Activity::Arrived`], [`Activity::Unstarted`] or [`Activity::Suspended`] here; any
    /// other is left as it is.
    async fn resume(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Somebody's hand may have let go what we have held: what executes is not taken for held any more when somebody pauses it later. What does not
    /// execute is left as it is.
    async fn note_executes(&self, id: VmId) -> Result<(), HypervisorError>;

    /// One active domain of another node, as [`seen`](Self::seen) there; soon, or an error.
    async fn seen_at(&self, peer: &Peer, id: VmId) -> Result<Option<Seen>, HypervisorError>;

    /// For how long the guest's last migration to that node held it, if libvirt there still knows.
    async fn pause_at(&self, peer: &Peer, id: VmId) -> Result<Option<Duration>, HypervisorError>;

    /// What is installed here, or at that peer; soon, or an error.
    async fn versions(&self, at: Option<&Peer>) -> Result<Versions, HypervisorError>;

    /// All definitions that libvirt keeps.
    async fn kept(&self) -> Result<Vec<Kept>, HypervisorError>;

    /// Keeps libvirt from starting the domain by itself.
    async fn end_autostart(&self, id: VmId) -> Result<(), HypervisorError>;

    /// Removes the definition that libvirt keeps of a domain, and nothing else: no disk, no saved state, no firmware variables.
    async fn undefine(&self, id: VmId) -> Result<Undefined, HypervisorError>;

    /// A new subscription to events, beginning with `Connected` if the connection is up already. A full safety net re-reads anyway: no event is relied upon.
    fn events(&self) -> mpsc::UnboundedReceiver<Event>;
}
