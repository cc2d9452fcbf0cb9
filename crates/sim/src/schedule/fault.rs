//! What can happen to a cluster, and what its operators can do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{event::Net, physics::ceph::CephFault};

/// What goes wrong. Nodes and VMs are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the rates of the options say what they are")]
pub enum Fault {
    Power(usize),
    PowerOfTwo(usize, usize),
    /// Without the firmware's tests afterwards.
    ShortPower(usize),
    Reset(usize),
    Freeze(usize),
    FreezeDaemon(usize),
    KillDaemon(usize),
    StopDaemon(usize),
    RestartLibvirt(usize),
    FreezeLibvirt(usize),
    /// A node cannot start any guest.
    Lack(usize),
    CrashGuest(usize),
    /// Its process stays.
    PanicGuest(usize),
    PauseGuest(usize),
    /// A disk of it fails, and works again.
    IoError(usize),
    BadGuests,
    Isolate(usize),
    CutNet(Net, usize),
    CutOneWay(Net, usize, usize),
    Flap(usize),
    Split(u64),
    EndServer(usize),
    SlowStore(u64),
    LoseAnswers(usize, u32),
    Expire(usize),
    FallBehind(usize),
    Bmc(usize, Bmc),
    Clock(usize, i64),
    /// A VM's definition with autostart is left on a node that is reset at once.
    Autostart(usize, usize),
    /// A VM is started by hand on a node.
    StartByHand(usize, usize),
    /// A VM that belongs to a node is started there by hand; the second number chooses among all that do.
    StartOwnByHand(usize, usize),
    /// A guest that runs on a node, unknown to the cluster, is defined there.
    DefineRunning(usize, usize),
    DieHalfway(usize, Halfway),
    Gone(usize, bool),
    /// A copy of a node's disk boots in another machine.
    Clone(usize),
    Reinstall(usize),
    Garble(Key, Rubbish),
    Ceph(CephFault),
}

/// When a daemon's machine loses power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they say it")]
pub enum Halfway {
    Init,
    Shutdown,
}

/// Whose key is made unreadable; the second number chooses among all that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they say it")]
pub enum Key {
    Node(usize, usize),
    Vm(usize, usize),
    /// The claim of a VM that this node alone may be executing then.
    ClaimOn(usize, usize),
}

/// What a key holds that nobody can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they say it")]
pub enum Rubbish {
    Empty,
    NoText,
    NoWord,
    Long,
}

/// What is the matter with a BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they say it")]
pub enum Bmc {
    Silent,
    Slow(u64),
    AnswersAreLost,
    OffTakesAWhile(u64),
    OffIsIgnored,
    OffIsRefused,
    OffIsALie,
    ResetIsALie,
}

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the client's commands, and what old clients write")]
pub enum Command {
    Define(usize),
    Undefine(usize),
    Start(usize),
    Stop(usize),
    Shutdown(usize),
    Restart(usize),
    Migrate(usize, Option<usize>),
    Unmigrate(usize),
    Move(usize, usize),
    Flush(usize),
    Ready(usize),
    Primary(usize),
    Secondary(usize),
    Maintenance(bool),
    ConfirmDead(usize),
    Fence(usize),
    /// Whatever was or is on the node: a few are stopped, the guests at once.
    StopOn(usize),
    /// A few of those that are off there, as old and new clients start them.
    StartOn(usize),
    Redefine(usize),
    /// As an old client: the key, whatever it holds.
    WriteState(usize, OldState),
    /// As an old client: three keys in one transaction.
    WriteMigrate(usize, usize),
    /// As an old client whose operator names no node.
    WriteNone(usize),
    /// As an old client's `modify -r`.
    WriteModify(usize, Definition),
    /// As an old client: a VM that executes on the first node is undefined, which waits for nobody, defined anew on the second, and started.
    RedefineElsewhere(usize, usize),
    /// Cannot wait: asks for the first, watches the guest itself, and as soon as it is done, writes the second as an old client.
    Impatient {
        vm: usize,
        first: First,
        then: OldState,
        /// How long that takes, in milliseconds.
        after_ms: u64,
    },
    /// Lets in again whose processes are proven dead.
    LiftShutOuts,
    FlushLocks(usize),
}

/// What an old client makes of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they say it")]
pub enum Definition {
    Good,
    Renamed,
    Truncated,
    WithoutMemory,
    Empty,
}

/// What an impatient operator asks for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the client's commands")]
pub enum First {
    Restart,
    Shutdown,
    Migrate,
}

/// A state that old clients write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they say it")]
pub enum OldState {
    Start,
    Stop,
    Shutdown,
    Restart,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
