//! A node as the state tree describes it.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    entry::{Field, Problem},
    halt::Halt,
    name::{NameError, NodeName},
    vm_id::VmId,
};

/// The intervals between keepalives that a node may have, seconds. Beyond an hour nobody waits for a dead node.
pub const KEEPALIVE_INTERVAL_S: RangeInclusive<u32> = 1..=3600;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, $allowed:literal { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// The word in the state tree.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(NameError { what: $what, found: text.to_owned(), allowed: $allowed }),
                }
            }
        }
    };
}

words! {
    /// `daemonmode`: what kind of node this is.
    DaemonMode, "daemon mode", "coordinator or hypervisor" {
        /// Takes part in the ZooKeeper quorum and may become primary.
        Coordinator = "coordinator",
        /// Runs VMs only.
        Hypervisor = "hypervisor",
    }
}

words! {
    /// `daemonstate`: the life of the node's daemon.
    DaemonState, "daemon state", "init, run, shutdown, stop or dead" {
        /// Starting.
        Init = "init",
        /// Working.
        Run = "run",
        /// Stopping in order.
        Shutdown = "shutdown",
        /// Stopped in order.
        Stop = "stop",
        /// Declared dead by the node that fences it.
        Dead = "dead",
    }
}

words! {
    /// `routerstate`: who holds the floating addresses.
    RouterState, "router state", "primary, secondary or client" {
        /// The primary coordinator.
        Primary = "primary",
        /// Another coordinator.
        Secondary = "secondary",
        /// Not a coordinator.
        Client = "client",
    }
}

words! {
    /// `domainstate`: whether the node takes VMs; desired state (`flush`, `unflush`) and answer (`flushed`, `ready`).
    DomainState, "domain state", "ready, flush, flushed or unflush" {
        /// Takes VMs.
        Ready = "ready",
        /// Shall send its VMs away.
        Flush = "flush",
        /// Has none and takes none.
        Flushed = "flushed",
        /// Shall take its VMs back.
        Unflush = "unflush",
    }
}

/// `staticdata`: what does not change while a machine is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the words of `staticdata` in their order")]
pub struct StaticData {
    pub cpu_count: u32,
    pub kernel: String,
    pub os: String,
    pub arch: String,
}

impl fmt::Display for StaticData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.cpu_count, self.kernel, self.os, self.arch)
    }
}

impl FromStr for StaticData {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        if let [cpus, kernel, os, arch] = words[..]
            && let Ok(cpu_count) = cpus.parse()
        {
            return Ok(Self { cpu_count, kernel: kernel.into(), os: os.into(), arch: arch.into() });
        }
        Err(NameError {
            what: "node description",
            found: text.to_owned(),
            allowed: "\"<cpu count> <kernel> <os> <arch>\"",
        })
    }
}

/// What a keepalive reports: the last known figures of this node.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct NodeReport {
    /// Physical memory, MiB.
    pub mem_total_mib: u64,
    /// Memory in use, MiB.
    pub mem_used_mib: u64,
    /// Memory that nothing uses, MiB. Caches, which the kernel would give up, are neither used nor free.
    pub mem_free_mib: u64,
    /// Memory allocated to the VMs that run here, MiB.
    pub mem_alloc_mib: u64,
    /// vCPUs allocated to the VMs that run here.
    pub vcpu_alloc: u64,
    /// One-minute load average.
    pub cpu_load: f64,
    /// Client networks in the cluster.
    pub networks_count: u64,
    /// VMs that run here.
    pub domains_count: u64,
    /// The VMs that run here.
    pub running: Vec<VmId>,
    /// Those of them that do not execute, each with the reason, by id **(ours)**.
    pub halted: Vec<(VmId, Halt)>,
    /// Why no VM can be started here, in a line; `None`: they can, or the daemon does not say.
    pub cannot_start: Option<String>,
    /// Wall clock of that node, seconds since 1970: for people and old clients, never compared between nodes.
    pub keepalive_unix_s: u64,
}

/// One node as read from the state tree, key by key. Who must be fenced is not spared because a key of it cannot be read: that key
/// is named in `problems` and counts as what is said at its field.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The key below `/nodes`.
    pub name: NodeName,
    /// `daemonmode`, or what the node's own key says of it; a coordinator if neither can be read: the quorum that a fence must leave is
    /// then counted too large, never too small.
    pub mode: DaemonMode,
    /// `daemonstate`. If it cannot be read: `stop` if the daemon said beside it (`stopped`) that it stopped in order in this boot, else
    /// `run`, so that the node's silence is noticed.
    pub daemon_state: Field<DaemonState>,
    /// `routerstate`; who is not primary, if it cannot be read.
    pub router_state: Field<RouterState>,
    /// `domainstate`; `flushed` if it cannot be read.
    pub domain_state: Field<DomainState>,
    /// `staticdata`; absent while the daemon has not written it.
    pub static_data: Option<StaticData>,
    /// The last keepalive's figures, those that cannot be read as zero.
    pub report: NodeReport,
    /// Version and transaction of the `runningdomains` key: when the node last said what it executes.
    pub last_word: Field<()>,
    /// Version of the `keepalive` key: liveness is seen from its change, by the observer's own clock. `None` if there is no such key.
    pub keepalive_version: Option<i32>,
    /// Transaction of its last keepalive: what it reports was so then.
    pub keepalive_zxid: i64,
    /// `keepalive_interval`: after how long this node's next keepalive is due; `None` if it has not said.
    pub keepalive_interval: Option<Duration>,
    /// `boot`: the boot of its machine in which its daemon registered.
    pub boot: Option<String>,
    /// `selffence`: the seconds without an acknowledged keepalive after which this node has certainly been reset; `None`: silence
    /// of whatever length proves nothing.
    pub self_fence_s: Option<u32>,
    /// `vtep`: the address that frames for its guests in managed networks are sent to; `None`: no managed network is there.
    pub vtep: Option<IpAddr>,
    /// `storage`: whether it manages storage, and so may start VMs with RBD disks; `None` if it has not said, as nodes of the 0.5
    /// generation do not.
    pub storage: Option<bool>,
    /// `storage_host`: where its Ceph clients are, as it was last seen there; `None`: nobody has seen one yet.
    pub storage_host: Option<IpAddr>,
    /// The keys that cannot be read.
    pub problems: Vec<Problem>,
}

/// What a node says in whose configuration `enable_hypervisor` is `False`.
pub const NO_HYPERVISOR: &str = "it runs no VMs: enable_hypervisor is False in its configuration";

/// The longest [`NodeReport::cannot_start`], characters.
const LONGEST_REASON: usize = 300;

impl NodeReport {
    /// Why a VM that runs there does not execute, if so.
    pub fn halt(&self, id: VmId) -> Option<Halt> {
        self.halted.iter().find(|(halted, _)| *halted == id).map(|(_, halt)| *halt)
    }

    /// A reason as it is told: one line of bounded length.
    pub fn reason(text: &str) -> Option<String> {
        let line: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
        let line = line.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let line: String = line.chars().take(LONGEST_REASON).collect();
        (!line.is_empty()).then(|| line.trim_end().to_owned())
    }
}

impl Node {
    /// Whether VMs that are given to it are started: its daemon works, and says nothing else.
    pub fn can_start(&self) -> bool {
        self.daemon_state.value == DaemonState::Run && self.report.cannot_start.is_none()
    }

    /// Whether its daemon should be speaking: it works, or is on its way to or from that. One that stopped in order says nothing, and
    /// one that is dead has been heard enough.
    pub fn should_speak(&self) -> bool {
        matches!(self.daemon_state.value, DaemonState::Init | DaemonState::Run | DaemonState::Shutdown)
    }

    /// Whether that key of it cannot be read.
    pub fn cannot_read(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| problem.key.rsplit('/').next() == Some(key))
    }
}
