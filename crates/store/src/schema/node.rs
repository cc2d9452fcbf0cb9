//! `/nodes/<name>`: what a node says of itself, and what shall become of it.

mod read;
mod remove;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use pvc_core::model::{
    DaemonMode, DaemonState, DomainState, Explanation, Node, NodeName, NodeReport, Problem, RouterState,
    StaticData, Subject,
};

use super::{SchemaError, explain, text::present};
use crate::store::{Check, CommitError, Committed, Store, StoreError, Transaction};

pub(crate) use read::{READ_KEYS, is_read, read_key_by_key};
pub use read::{Reported, decode, paths, read, reported};
pub use remove::remove;

/// The parent of all nodes.
pub const ROOT: &str = "/nodes";
const MODE: &str = "daemonmode";
const DAEMON_STATE: &str = "daemonstate";
const ROUTER_STATE: &str = "routerstate";
const DOMAIN_STATE: &str = "domainstate";
const STATIC_DATA: &str = "staticdata";
const KEEPALIVE: &str = "keepalive";
const RUNNING: &str = "runningdomains";
/// **(ours)**
const SELF_FENCE: &str = "selffence";
/// **(ours)**
const BOOT: &str = "boot";
/// **(ours)**
const INTERVAL: &str = "keepalive_interval";
/// **(ours)**
const GUESTS: &str = "guests";
/// **(ours)**
const HYPERVISOR: &str = "hypervisor";
/// **(ours)**
const VTEP: &str = "vtep";
/// **(ours)**
const STORAGE: &str = "storage";
/// **(ours)**
const STORAGE_HOST: &str = "storage_host";
/// **(ours)**
const STOPPED: &str = "stopped";
/// The keys of a keepalive's figures, in the order of [`figures`].
const FIGURES: [&str; 12] = [
    "memtotal",
    "memused",
    "memfree",
    "memalloc",
    "vcpualloc",
    "cpuload",
    "networkscount",
    "domainscount",
    RUNNING,
    KEEPALIVE,
    GUESTS,
    HYPERVISOR,
];

/// How the other nodes can power this one off.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Ipmi {
    /// Name or address of the controller.
    pub hostname: String,
    /// Its user.
    pub username: String,
    /// That user's password. In the tree because the other nodes need it; never in logs.
    pub password: String,
}

impl fmt::Debug for Ipmi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ipmi {{ hostname: {:?}, username: {:?}, .. }}", self.hostname, self.username)
    }
}

/// What a daemon writes about its node when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The node.
    pub name: NodeName,
    /// What kind of node it is.
    pub mode: DaemonMode,
    /// The machine.
    pub static_data: StaticData,
    /// The boot of it that this daemon runs in.
    pub boot: String,
    /// How often it writes a keepalive.
    pub keepalive_interval: Duration,
    /// The address that frames for its guests in managed networks are sent to; `None`: no managed network is there.
    pub vtep: Option<IpAddr>,
    /// Whether it manages storage.
    pub storage: bool,
    /// Its power controller.
    pub ipmi: Ipmi,
}

/// A node's own key; its value is the daemon mode.
pub fn path(name: &NodeName) -> String {
    format!("{ROOT}/{name}")
}

/// The key that asks and answers whether the node takes VMs.
pub fn domain_state_path(name: &NodeName) -> String {
    key(name, DOMAIN_STATE)
}

/// `daemonstate` of a node.
pub(crate) fn state_path(name: &NodeName) -> String {
    key(name, DAEMON_STATE)
}

fn key(name: &NodeName, key: &str) -> String {
    // Some twenty of them are made each time that a node is heard of.
    [ROOT, "/", name.as_str(), "/", key].concat()
}

/// A key that keepalives write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// The keepalive itself: that the node lives.
    Keepalive,
    /// What is another nearly every time.
    Passing,
    /// What changes when a VM begins or ends, or the machine does.
    Lasting,
}

/// Whose figure it is, and of what kind, if that path is one.
pub(crate) fn figure(path: &str) -> Option<(&str, Figure)> {
    let (name, key) = path.strip_prefix(ROOT)?.strip_prefix('/')?.split_once('/')?;
    let figure = match key {
        KEEPALIVE => Figure::Keepalive,
        "memused" | "memfree" | "cpuload" => Figure::Passing,
        key if FIGURES.contains(&key) => Figure::Lasting,
        _ => return None,
    };
    Some((name, figure))
}

/// How often a registration is tried again when keys appear or vanish meanwhile.
const ATTEMPTS: usize = 5;

/// Writes the node's keys with `daemonstate` = `init`, creating what is absent: an unknown node starts `flushed` and without
/// figures; a known one keeps its `domainstate` and figures.
pub async fn register(store: &dyn Store, node: &Registration) -> Result<Committed, SchemaError> {
    let router = not_primary(node.mode);
    let static_data = node.static_data.to_string();
    let interval = node.keepalive_interval.as_secs().to_string();
    let vtep = vtep(node);
    let name = &node.name;
    let mut written = vec![
        (path(name), node.mode.as_str()),
        (key(name, MODE), node.mode.as_str()),
        (key(name, DAEMON_STATE), DaemonState::Init.as_str()),
        (key(name, ROUTER_STATE), router.as_str()),
        (key(name, STATIC_DATA), &static_data),
        (key(name, BOOT), &node.boot),
        (key(name, INTERVAL), &interval),
        (key(name, VTEP), &vtep),
        (key(name, STORAGE), storage(node)),
        // A daemon that has just begun guards nothing yet.
        (key(name, SELF_FENCE), ""),
        (key(name, STOPPED), ""),
        (key(name, "ipmihostname"), &node.ipmi.hostname),
        (key(name, "ipmiusername"), &node.ipmi.username),
        (key(name, "ipmipassword"), &node.ipmi.password),
    ];
    let overwritten = written.len();
    written.push((key(name, DOMAIN_STATE), DomainState::Flushed.as_str()));
    for figure in FIGURES {
        written.push((
            key(name, figure),
            if matches!(figure, RUNNING | GUESTS | HYPERVISOR) { "" } else { "0" },
        ));
    }
    let mut attempt = 1;
    loop {
        // One request, where asking for each key would be one a key.
        let below = store.children(&path(name)).await?;
        let own = below.is_some().then(|| path(name));
        let present: BTreeSet<String> =
            own.into_iter().chain(below.into_iter().flatten().map(|below| key(name, &below))).collect();
        let mut txn = Transaction::default();
        for (i, (path, data)) in written.iter().enumerate() {
            if !present.contains(path) {
                txn.create(path.as_str(), *data);
            } else if i < overwritten {
                txn.set(path.as_str(), *data, None);
            }
        }
        match store.commit(txn).await {
            Err(CommitError::Conflict { .. }) if attempt < ATTEMPTS => attempt += 1,
            outcome => return Ok(outcome?),
        }
    }
}

/// The boot in which a node's daemon registered last, if the tree has one.
///
/// # Errors
/// If the store does not answer.
pub async fn boot_of(store: &dyn Store, node: &NodeName) -> Result<Option<String>, StoreError> {
    let value = store.get(&key(node, BOOT)).await?;
    Ok(value.and_then(|value| String::from_utf8(value.data).ok()))
}

/// Writes a node's own keys again that say something else than its daemon, or nothing that can be read: each by itself, so that one
/// that nobody may write holds up no other. Its state and its figures go with its keepalives. Answers which were written; what failed is
/// still to be seen, and tried again.
pub async fn repair(store: &dyn Store, node: &Registration, seen: &Node, is_primary: bool) -> Vec<String> {
    let router = if is_primary { RouterState::Primary } else { not_primary(node.mode) };
    let (static_data, interval, vtep) =
        (node.static_data.to_string(), node.keepalive_interval.as_secs().to_string(), vtep(node));
    let differ = [
        (MODE, node.mode.as_str(), seen.mode != node.mode || seen.cannot_read(MODE)),
        (ROUTER_STATE, router.as_str(), seen.cannot_read(ROUTER_STATE)),
        (STATIC_DATA, &static_data, seen.static_data.as_ref() != Some(&node.static_data)),
        (BOOT, &node.boot, seen.boot.as_ref() != Some(&node.boot)),
        (INTERVAL, &interval, seen.keepalive_interval != Some(node.keepalive_interval)),
        (VTEP, &vtep, seen.vtep != node.vtep || seen.cannot_read(VTEP)),
        (STORAGE, storage(node), seen.storage != Some(node.storage)),
    ];
    let mut written = Vec::new();
    for (key, value, _) in differ.into_iter().filter(|(.., differs)| *differs) {
        let path = self::key(&node.name, key);
        let mut set = Transaction::default();
        // Who is primary is said by others, too: not over a newer word of theirs.
        set.set(path.as_str(), value, seen.router_state.version.filter(|_| key == ROUTER_STATE));
        let mut create = Transaction::default();
        create.create(path.as_str(), value);
        let mut outcome = store.commit(set).await;
        if let Err(CommitError::Conflict { .. }) = outcome {
            outcome = store.commit(create).await;
        }
        if outcome.is_ok() {
            written.push(path);
        }
    }
    written
}

fn vtep(node: &Registration) -> String {
    node.vtep.map(|address| address.to_string()).unwrap_or_default()
}

fn storage(node: &Registration) -> &'static str {
    if node.storage { "on" } else { "off" }
}

/// Says where this node's Ceph clients are. Who is dead cannot say it any more, so a daemon that starts leaves it as it is.
pub async fn say_storage_host(store: &dyn Store, name: &NodeName, host: IpAddr) -> Result<(), CommitError> {
    crate::put::put(store, &key(name, STORAGE_HOST), host.to_string().into_bytes()).await
}

/// Whether a figure of the node cannot be read.
pub fn has_broken_figures(seen: &Node) -> bool {
    FIGURES.iter().any(|figure| seen.cannot_read(figure))
}

/// Whether the node's daemon is readably in that state.
pub fn says(seen: &Node, state: DaemonState) -> bool {
    seen.daemon_state.value == state && !seen.cannot_read(DAEMON_STATE)
}

fn not_primary(mode: DaemonMode) -> RouterState {
    match mode {
        DaemonMode::Coordinator => RouterState::Secondary,
        DaemonMode::Hypervisor => RouterState::Client,
    }
}

/// Sets the state of the node's daemon.
pub fn set_daemon_state(name: &NodeName, state: DaemonState) -> Transaction {
    let mut txn = Transaction::default();
    txn.set(key(name, DAEMON_STATE), state.as_str(), None);
    txn
}

/// Says beside `daemonstate` that the node's daemon stops in order in this boot, in case that key cannot be read later.
pub async fn say_stopped(store: &dyn Store, name: &NodeName, boot: &str) -> Result<(), CommitError> {
    crate::put::put(store, &key(name, STOPPED), boot.as_bytes().to_vec()).await
}

/// Answers a desired state of the node's VMs, unless a newer desired state came meanwhile.
pub fn set_domain_state(name: &NodeName, state: DomainState, version: Option<i32>) -> Transaction {
    let mut txn = Transaction::default();
    txn.set(key(name, DOMAIN_STATE), state.as_str(), version);
    txn
}

/// One keepalive: all figures in one transaction. Those that equal `acknowledged`, the last report that the store is known
/// to hold, are left out, so that nobody reads them again; `keepalive` is always written. After a lost answer pass `None`.
pub fn report(name: &NodeName, report: &NodeReport, acknowledged: Option<&NodeReport>) -> Transaction {
    let before = acknowledged.map(figures);
    let mut txn = Transaction::default();
    for (i, (figure, value)) in FIGURES.iter().zip(figures(report)).enumerate() {
        let unchanged = before.as_ref().is_some_and(|b| b[i] == value);
        if !unchanged || *figure == KEEPALIVE {
            txn.set(key(name, figure), value, None);
        }
    }
    txn
}

fn figures(report: &NodeReport) -> [String; 12] {
    let mut running = String::with_capacity(report.running.len() * 37);
    for id in &report.running {
        if !running.is_empty() {
            running.push(' ');
        }
        running.push_str(&id.to_string());
    }
    [
        report.mem_total_mib.to_string(),
        report.mem_used_mib.to_string(),
        report.mem_free_mib.to_string(),
        report.mem_alloc_mib.to_string(),
        report.vcpu_alloc.to_string(),
        report.cpu_load.to_string(),
        report.networks_count.to_string(),
        report.domains_count.to_string(),
        running,
        report.keepalive_unix_s.to_string(),
        report.halted.iter().map(|(id, halt)| format!("{id}={halt}")).collect::<Vec<_>>().join(" "),
        report.cannot_start.clone().unwrap_or_default(),
    ]
}

/// Says who is primary, in the words of old clients.
pub fn set_router_state(name: &NodeName, state: RouterState) -> Transaction {
    let mut txn = Transaction::default();
    txn.set(key(name, ROUTER_STATE), state.as_str(), None);
    txn
}

/// Says after how many seconds of silence the node has certainly been reset; `None`: nobody may count on that. Over the version that is
/// there: an earlier write whose answer was lost, and which is carried out late, is void once this is done.
pub async fn promise(store: &dyn Store, name: &NodeName, seconds: Option<u32>) -> Result<(), CommitError> {
    let path = key(name, SELF_FENCE);
    let text = seconds.map(|s| s.to_string()).unwrap_or_default();
    let there = store.get(&path).await.map_err(CommitError::Failed)?;
    let mut txn = Transaction::default();
    match there {
        Some(there) => txn.set(path, text, Some(there.version)),
        None => txn.create(path, text),
    }
    store.commit(txn).await.map(drop)
}

/// Whether a node readably promises that.
pub fn promises(seen: &Node, seconds: Option<u32>) -> bool {
    seen.self_fence_s == seconds && !seen.cannot_read(SELF_FENCE)
}

/// Part of a fence's end: `daemonstate` = `run`, unless the node's state moved since it was seen.
pub(super) fn declare_running(seen: &Node) -> Transaction {
    say_of(seen, DaemonState::Run)
}

/// Part of another transaction: it is done only if the node has not written a keepalive since it was seen.
pub(super) fn expect_silence(seen: &Node) -> Transaction {
    as_seen(key(&seen.name, KEEPALIVE), seen.keepalive_version)
}

/// Part of a fence: `daemonstate` = `dead`, unless the node's state moved since it was seen.
pub(super) fn declare_dead(seen: &Node) -> Transaction {
    say_of(seen, DaemonState::Dead)
}

fn say_of(seen: &Node, state: DaemonState) -> Transaction {
    let mut txn = Transaction::default();
    let path = key(&seen.name, DAEMON_STATE);
    match seen.daemon_state.version {
        Some(version) => txn.set(path, state.as_str(), Some(version)),
        None => txn.create(path, state.as_str()),
    }
    txn
}

/// Part of another transaction: it is done only if the node's daemon has not said another state since it was seen.
pub fn expect_daemon_state(seen: &Node) -> Transaction {
    as_seen(key(&seen.name, DAEMON_STATE), seen.daemon_state.version)
}

fn as_seen(path: String, version: Option<i32>) -> Transaction {
    let mut txn = Transaction::default();
    match version {
        Some(version) => txn.check(path, Check::Version(version)),
        // ZooKeeper has no check for absence; a key that can be created was absent.
        None => {
            txn.create(path.as_str(), "");
            txn.delete(path, None);
        }
    }
    txn
}

/// Part of another transaction: it is done only if the node has not said anew what it executes since it was seen.
pub fn expect_last_word(seen: &Node) -> Transaction {
    let mut txn = Transaction::default();
    if let Some(version) = seen.last_word.version {
        txn.check(key(&seen.name, RUNNING), Check::Version(version));
    }
    txn
}

/// The longest host name there can be, in characters. Users and passwords of BMCs are far shorter.
const LONGEST_IPMI: usize = 253;

/// How to power a node off, read when it is needed and never kept: passwords are in no view. Whatever is longer than it can be is cut: it
/// reaches no BMC either way, and what is reported of it stays short.
pub async fn read_ipmi(store: &dyn Store, name: &NodeName) -> Result<Ipmi, StoreError> {
    let paths = ["ipmihostname", "ipmiusername", "ipmipassword"].map(|k| key(name, k));
    let mut values = store.get_many(&paths).await?.into_iter().map(|value| {
        let text = value.map(|v| String::from_utf8_lossy(&v.data).into_owned()).unwrap_or_default();
        present(&text).map(|text| text.chars().take(LONGEST_IPMI).collect()).unwrap_or_default()
    });
    let mut next = || values.next().unwrap_or_default();
    Ok(Ipmi { hostname: next(), username: next(), password: next() })
}

/// Reads what is said about a node: `Ok(None)` if there is nothing to explain.
pub async fn read_explanation(
    store: &dyn Store,
    name: &NodeName,
) -> Result<Option<Result<Explanation, Problem>>, StoreError> {
    explain::read(store, &Subject::Node(name.clone())).await
}
