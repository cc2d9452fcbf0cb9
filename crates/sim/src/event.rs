//! What happens in a simulated world: the only words that checkers, the log and the hash of a run know.
//!
//! Truth (machines, guests, addresses, the network, the state tree) and words (faults, commands, log lines) are told apart, and no
//! event comes from a daemon's own view of the world but for [`Event::Log`].

mod text;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use pvc_core::model::{Mac, NodeName, VmId};
use pvc_store::Op;

/// An event with when it happened, counted from the world's beginning.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stamped {
    /// When.
    pub at: Duration,
    /// What.
    pub event: Event,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// A machine's power, or its freezing as a whole.
    Machine {
        /// Which.
        node: NodeName,
        /// What became of it.
        what: Machine,
    },
    /// A node's daemon.
    Daemon {
        /// Whose.
        node: NodeName,
        /// What became of it.
        what: Daemon,
    },
    /// A node's libvirt.
    Libvirt {
        /// Whose.
        node: NodeName,
        /// What became of it.
        what: Libvirt,
    },
    /// A node lacks what every guest needs to be started there, or has it again: a bridge, a storage.
    Lacks {
        /// Which.
        node: NodeName,
        /// Whether it lacks that from now on.
        lacks: bool,
    },
    /// A guest's process on a machine.
    Guest {
        /// Which VM.
        vm: VmId,
        /// On which machine.
        node: NodeName,
        /// What became of it.
        what: Guest,
    },
    /// A guest that is about to execute on a machine was started by no daemon.
    Stranger {
        /// Which VM.
        vm: VmId,
        /// On which machine.
        node: NodeName,
        /// Its claim names that all the same.
        claimed: bool,
    },
    /// Somebody is about to let a guest go on that was paused, or had met an I/O error.
    LetGo {
        /// Which VM.
        vm: VmId,
        /// On which machine.
        node: NodeName,
    },
    /// What a daemon asks of its hypervisor, when it asks.
    Asked {
        /// Whose.
        node: NodeName,
        /// About which VM.
        vm: VmId,
        /// What.
        what: Ask,
    },
    /// A floating address or a client network's gateway on a machine: there until then (or until it is removed or the machine is off); `None`: removed.
    Address {
        /// Where.
        node: NodeName,
        /// Which.
        address: IpAddr,
        /// Until when its lifetime lasts; `None`: removed.
        until: Option<Duration>,
    },
    /// Where a machine's tunnels send frames for a card from now on; `None`: to all, as those for cards that no entry names.
    Forward {
        /// Which machine.
        node: NodeName,
        /// Which card.
        card: Mac,
        /// Where to.
        to: Option<NodeName>,
    },
    /// A guest is told that it has an address.
    Leased {
        /// By whose daemon.
        by: NodeName,
        /// Whose guest.
        vm: VmId,
        /// In which network.
        network: usize,
        /// By which card.
        card: Mac,
        /// The address.
        address: Ipv4Addr,
    },
    /// A guest is about to say that it does not use the address that it was told.
    GivenUp {
        /// Whose.
        vm: VmId,
    },
    /// A direction of the network.
    Link {
        /// Which network.
        net: Net,
        /// From where.
        from: NodeName,
        /// To where.
        to: NodeName,
        /// Whether nothing passes from now on.
        cut: bool,
    },
    /// Which ZooKeeper server leads a quorum; `None`: there is none, and nothing can be read or written.
    Leader(Option<NodeName>),
    /// A daemon's session with ZooKeeper, as the servers see it.
    Session {
        /// Whose.
        node: NodeName,
        /// What became of it.
        what: Session,
    },
    /// The leader has confirmed to a daemon that it has seen all that was committed.
    Synced {
        /// Whose.
        node: NodeName,
    },
    /// A BMC was asked, and what it said; when it answered.
    Bmc {
        /// Who asked.
        by: NodeName,
        /// Whose BMC.
        of: NodeName,
        /// What.
        call: Power,
        /// What it said; `None`: nothing that arrived.
        said: Option<Said>,
    },
    /// A node was shut out of the storage, and its locks on these images are broken; when that was asked for.
    ShutOut {
        /// By whose daemon.
        by: NodeName,
        /// Who.
        of: NodeName,
        /// `pool/image` each.
        images: Vec<String>,
    },
    /// The state tree has changed.
    Commit(Commit),
    /// An operator's command, and what came of it at once.
    Command {
        /// Who.
        client: u32,
        /// What, in words.
        text: String,
        /// `done`, or why not.
        outcome: String,
        /// That there was nothing to write, because it is desired already.
        told: Option<Told>,
    },
    /// A fault of the schedule begins or ends.
    Fault {
        /// Which, in words.
        text: String,
        /// Whether it begins.
        begins: bool,
    },
    /// The run turns to another phase.
    Phase(Phase),
    /// A line of a daemon's log.
    Log {
        /// Whose.
        node: String,
        /// `INFO`, `WARN` …
        level: &'static str,
        /// The line.
        text: String,
    },
    /// A write of a guest has landed in an image, where another process has written last, or none.
    Wrote {
        /// Of which VM.
        vm: VmId,
        /// On which machine.
        node: NodeName,
        /// `pool/image`.
        image: String,
        /// Where in it.
        object: usize,
        /// The guest's process; counts all that were made.
        process: u64,
    },
    /// The monitors of Ceph have decided about a client.
    Blocklist {
        /// Which.
        client: String,
        /// Whose it is, if it is a QEMU's.
        whose: Option<(VmId, NodeName)>,
        /// Until when it is shut out; `None`: it is not, any more.
        until: Option<Duration>,
    },
}

/// Whose hand makes values unreadable. What it writes is nobody's word, and no checker sees it.
pub const VANDAL: u32 = 99;

/// What an operator was told instead of being obeyed: what he wants is desired already.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Told {
    /// Of which VM.
    pub vm: VmId,
    /// Whether he wants it to run.
    pub runs: bool,
    /// The transaction in which the desired state that he saw was written.
    pub seen: i64,
}

/// What becomes of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Machine {
    /// It has power, and boots for the how manieth time.
    On {
        /// Counts from 1.
        boot: u64,
    },
    /// It has none: nothing of it executes any more.
    Off,
    /// Its programs, guests among them, do not run; its kernel does.
    Frozen,
    /// They run on.
    Thawed,
    /// Its wall clock was set, by so many seconds.
    ClockJumped(i64),
    /// From now on its BMC may say that it is off, or accept a reset, though it runs on.
    BmcLies(bool),
}

/// What becomes of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Daemon {
    /// A new process.
    Started {
        /// Counts from 1, over all boots of the machine.
        run: u64,
    },
    /// `kill -9`, or the end of its machine.
    Killed,
    /// It ended by itself.
    Ended(String),
    /// None of its tasks runs.
    Frozen,
    /// They run on.
    Thawed,
}

/// What becomes of libvirt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Libvirt {
    /// It answers.
    Up,
    /// It is not there.
    Down,
    /// It does not answer.
    Frozen,
}

/// What becomes of a guest's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guest {
    /// It is there and executes.
    Executes,
    /// It is there and does not execute: a migration or a daemon holds it.
    Held,
    /// It is there and does not execute: somebody has paused it, or it has met an I/O error.
    Halted,
    /// It is there and has crashed.
    Crashed,
    /// It is gone.
    Gone,
}

/// What a daemon asks of its hypervisor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ask {
    /// To start it.
    Start,
    /// To press its power button.
    ShutDown,
    /// To end it at once.
    PowerOff,
    /// To migrate it.
    Migrate(NodeName),
    /// The migration has ended, as its caller is told.
    Migrated(Result<(), String>),
    /// To abort the migration.
    Abort,
    /// To stop it from executing.
    Suspend,
    /// To let it go on.
    Resume,
}

/// What a BMC is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the calls of the trait")]
pub enum Power {
    Status,
    Off,
    On,
    Reset,
}

/// What a BMC says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Said {
    /// The machine has power.
    On,
    /// The machine has none.
    Off,
    /// It does what it is asked.
    Accepted,
    /// It will not, or does not know who asks.
    Refused,
}

/// What becomes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Session {
    /// Its client is connected to a server of the quorum.
    Connected {
        /// The session.
        session: u64,
    },
    /// Its client has no connection.
    Silent {
        /// The session.
        session: u64,
    },
    /// The servers have ended it: its ephemeral keys are gone.
    Ended {
        /// The session.
        session: u64,
    },
}

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Net {
    /// To and between ZooKeeper's servers.
    Store,
    /// Between the nodes: their libvirts, migrations.
    Cluster,
    /// Where the clients are.
    Upstream,
    /// From nodes to BMCs.
    Bmc,
}

impl Net {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Store, Self::Cluster, Self::Upstream, Self::Bmc];
}

/// A transaction that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Commit {
    /// Whose.
    pub by: Author,
    /// Its number.
    pub zxid: i64,
    /// What was asked for, checks included.
    pub ops: Vec<Op>,
    /// What is different now.
    pub changes: Vec<Change>,
}

/// Who writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Author {
    /// A node's daemon.
    Daemon {
        /// Whose.
        node: NodeName,
        /// Its run, see [`Daemon::Started`].
        run: u64,
    },
    /// An operator's client.
    Client(u32),
    /// The servers, when a session ends.
    Servers,
}

/// A key that a transaction has changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Change {
    /// Which.
    pub path: String,
    /// What it was; `None`: it was not there.
    pub before: Option<Key>,
    /// What it is; `None`: it is not there any more.
    pub after: Option<Key>,
}

/// A key of the state tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Its content.
    pub data: Vec<u8>,
    /// Its data version.
    pub version: i32,
}

/// What a run does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Faults happen.
    Chaos,
    /// No fault is left, every machine has power or is on its way, no new command is given.
    Calm,
    /// It has been calm for as long as a cluster may take to be as desired: what is not now is a violation.
    Settled,
}
