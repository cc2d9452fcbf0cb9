//! `/nodes/<name>`: what a node says of itself, and what is wished of it.

#[cfg(test)]
mod tests;

use std::fmt;

use pvc_core::model::{
    DaemonMode, DaemonState, DomainState, Entry, Explanation, Node, NodeName, NodeReport, Problem,
    RouterState, StaticData, VmId,
};

use super::{
    SchemaError, explain,
    text::{Decoder, field, present},
};
use crate::store::{Check, CommitError, Committed, Store, StoreError, Transaction, Value};

/// The parent of all nodes.
pub const ROOT: &str = "/nodes";
/// The parent of all nodes' explanations **(ours)**.
pub const EXPLAIN_ROOT: &str = "/pvc/explain/node";

const MODE: &str = "daemonmode";
const DAEMON_STATE: &str = "daemonstate";
const ROUTER_STATE: &str = "routerstate";
const DOMAIN_STATE: &str = "domainstate";
const STATIC_DATA: &str = "staticdata";
const KEEPALIVE: &str = "keepalive";
/// **(ours)**
const SELF_FENCE: &str = "selffence";
/// The keys of a keepalive's figures, in the order of [`figures`].
const FIGURES: [&str; 10] = [
    "memtotal",
    "memused",
    "memfree",
    "memalloc",
    "vcpualloc",
    "cpuload",
    "networkscount",
    "domainscount",
    "runningdomains",
    KEEPALIVE,
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
    /// Its power controller.
    pub ipmi: Ipmi,
}

/// A node's own key; its value is the daemon mode.
pub fn path(name: &NodeName) -> String {
    format!("{ROOT}/{name}")
}

/// The key that wishes and answers whether the node takes VMs.
pub fn domain_state_path(name: &NodeName) -> String {
    key(name, DOMAIN_STATE)
}

fn key(name: &NodeName, key: &str) -> String {
    // Some twenty of them are made each time that a node is heard of.
    [ROOT, "/", name.as_str(), "/", key].concat()
}

/// Whether a key below [`ROOT`] is one of that node's figures, which each of its keepalives writes.
pub fn is_figure(path: &str, name: &NodeName) -> bool {
    let below = path.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')?.strip_prefix(name.as_str()));
    below.and_then(|rest| rest.strip_prefix('/')).is_some_and(|key| FIGURES.contains(&key))
}

/// How often a registration is tried again when keys appear or vanish meanwhile.
const ATTEMPTS: usize = 5;

/// Writes the node's keys with `daemonstate` = `init`, creating what is absent: an unknown node starts `flushed` and without
/// figures; a known one keeps its `domainstate` and figures.
pub async fn register(store: &dyn Store, node: &Registration) -> Result<Committed, SchemaError> {
    let router = match node.mode {
        DaemonMode::Coordinator => RouterState::Secondary,
        DaemonMode::Hypervisor => RouterState::Client,
    };
    let static_data = node.static_data.to_string();
    let name = &node.name;
    let mut written = vec![
        (path(name), node.mode.as_str()),
        (key(name, MODE), node.mode.as_str()),
        (key(name, DAEMON_STATE), DaemonState::Init.as_str()),
        (key(name, ROUTER_STATE), router.as_str()),
        (key(name, STATIC_DATA), &static_data),
        // A daemon that has just begun guards nothing yet.
        (key(name, SELF_FENCE), ""),
        (key(name, "ipmihostname"), &node.ipmi.hostname),
        (key(name, "ipmiusername"), &node.ipmi.username),
        (key(name, "ipmipassword"), &node.ipmi.password),
    ];
    let overwritten = written.len();
    written.push((key(name, DOMAIN_STATE), DomainState::Flushed.as_str()));
    for figure in FIGURES {
        written.push((key(name, figure), if figure == "runningdomains" { "" } else { "0" }));
    }
    let paths: Vec<String> = written.iter().map(|(path, _)| path.clone()).collect();
    let mut attempt = 1;
    loop {
        let present = store.stat_many(&paths).await?;
        let mut txn = Transaction::default();
        for (i, ((path, data), found)) in written.iter().zip(present).enumerate() {
            match found {
                None => txn.create(path.as_str(), *data),
                Some(_) if i < overwritten => txn.set(path.as_str(), *data, None),
                Some(_) => {}
            }
        }
        match store.commit(txn).await {
            Err(CommitError::Conflict { .. }) if attempt < ATTEMPTS => attempt += 1,
            outcome => return Ok(outcome?),
        }
    }
}

/// Sets the state of the node's daemon.
pub fn set_daemon_state(name: &NodeName, state: DaemonState) -> Transaction {
    let mut txn = Transaction::default();
    txn.set(key(name, DAEMON_STATE), state.as_str(), None);
    txn
}

/// Answers a wish about the node's VMs, unless a newer wish came meanwhile.
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

fn figures(report: &NodeReport) -> [String; 10] {
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
    ]
}

/// Says who is primary, in the words of old clients.
pub fn set_router_state(name: &NodeName, state: RouterState) -> Transaction {
    let mut txn = Transaction::default();
    txn.set(key(name, ROUTER_STATE), state.as_str(), None);
    txn
}

/// Says after how many seconds of silence the node has certainly been reset; `None`: nobody may count on that.
pub fn set_self_fence(name: &NodeName, seconds: Option<u32>) -> Transaction {
    let mut txn = Transaction::default();
    txn.set(key(name, SELF_FENCE), seconds.map(|s| s.to_string()).unwrap_or_default(), None);
    txn
}

/// Part of a fence's end: `daemonstate` = `run`, unless the node's state moved since it was seen.
pub(super) fn declare_running(seen: &Node) -> Transaction {
    let mut txn = Transaction::default();
    txn.set(key(&seen.name, DAEMON_STATE), DaemonState::Run.as_str(), seen.daemon_state.version);
    txn
}

/// Part of another transaction: it is done only if the node has not written a keepalive since it was seen.
pub(super) fn expect_silence(seen: &Node) -> Transaction {
    let mut txn = Transaction::default();
    let path = key(&seen.name, KEEPALIVE);
    match seen.keepalive_version {
        Some(version) => txn.check(path, Check::Version(version)),
        // ZooKeeper has no check for absence; a key that can be created was absent.
        None => {
            txn.create(path.as_str(), "");
            txn.delete(path, None);
        }
    }
    txn
}

/// Part of a fence: `daemonstate` = `dead`, unless the node's state moved since it was seen.
pub(super) fn declare_dead(seen: &Node) -> Transaction {
    let mut txn = Transaction::default();
    txn.set(key(&seen.name, DAEMON_STATE), DaemonState::Dead.as_str(), seen.daemon_state.version);
    txn
}

/// Part of another transaction: it is done only if the node's daemon has not said another state since it was seen.
pub(super) fn expect_daemon_state(seen: &Node) -> Transaction {
    let mut txn = Transaction::default();
    if let Some(version) = seen.daemon_state.version {
        txn.check(key(&seen.name, DAEMON_STATE), Check::Version(version));
    }
    txn
}

/// How to power a node off, read when it is needed and never kept: passwords are in no view.
pub async fn read_ipmi(store: &dyn Store, name: &NodeName) -> Result<Ipmi, StoreError> {
    let paths = ["ipmihostname", "ipmiusername", "ipmipassword"].map(|k| key(name, k));
    let mut values = store.get_many(&paths).await?.into_iter().map(|value| {
        let text = value.map(|v| String::from_utf8_lossy(&v.data).into_owned()).unwrap_or_default();
        present(&text).map(str::to_owned).unwrap_or_default()
    });
    let mut next = || values.next().unwrap_or_default();
    Ok(Ipmi { hostname: next(), username: next(), password: next() })
}

/// Why a node is not (yet) as wished **(ours)**.
pub fn explain_path(name: &NodeName) -> String {
    format!("{EXPLAIN_ROOT}/{name}")
}

/// Publishes why a node is not as wished, or that there is nothing to explain.
pub async fn explain(
    store: &dyn Store,
    name: &NodeName,
    explanation: Option<&Explanation>,
) -> Result<(), CommitError> {
    explain::write(store, &explain_path(name), explanation).await
}

/// Reads what is said about a node: `Ok(None)` if there is nothing to explain.
pub async fn read_explanation(
    store: &dyn Store,
    name: &NodeName,
) -> Result<Option<Result<Explanation, Problem>>, StoreError> {
    explain::read(store, explain_path(name)).await
}

const OWN_KEYS: [&str; 5] = [MODE, DAEMON_STATE, ROUTER_STATE, DOMAIN_STATE, STATIC_DATA];

/// The number of keys that [`paths`] names.
pub(crate) const READ_KEYS: usize = 1 + OWN_KEYS.len() + FIGURES.len() + 1;

/// Whether a key below a node is among those that [`paths`] names.
pub(crate) fn is_read(key: &str) -> bool {
    OWN_KEYS.contains(&key) || FIGURES.contains(&key) || key == SELF_FENCE
}

/// The keys that make a [`Node`], in the order that [`decode`] takes them. Passwords are not among them.
pub fn paths(name: &NodeName) -> Vec<String> {
    let keys = OWN_KEYS.iter().chain(&FIGURES).chain(&[SELF_FENCE]).map(|k| key(name, k));
    std::iter::once(path(name)).chain(keys).collect()
}

/// A node from the values of its [`paths`]; `None` if there is no such node.
pub fn decode(name: &NodeName, values: &[Option<Value>]) -> Option<Entry<Node>> {
    let keys = paths(name);
    let value = |i: usize| values.get(i).and_then(Option::as_ref);
    value(0)?;
    let mut d = Decoder::default();
    // The node's own value says the same; it is all there is in a tree that is being written.
    let mode = d.required::<DaemonMode>(&keys[1], value(1).or(value(0)));
    let daemon_state = d.required::<DaemonState>(&keys[2], value(2));
    let router_state = d.required::<RouterState>(&keys[3], value(3));
    let domain_state = d.required::<DomainState>(&keys[4], value(4));
    let static_data = d.optional::<StaticData>(&keys[5], value(5)).value;
    let report = NodeReport {
        mem_total_mib: d.number(&keys[6], value(6)),
        mem_used_mib: d.number(&keys[7], value(7)),
        mem_free_mib: d.number(&keys[8], value(8)),
        mem_alloc_mib: d.number(&keys[9], value(9)),
        vcpu_alloc: d.number(&keys[10], value(10)),
        cpu_load: load(&mut d, &keys[11], value(11)),
        networks_count: d.number(&keys[12], value(12)),
        domains_count: d.number(&keys[13], value(13)),
        running: running(&mut d, &keys[14], value(14)),
        keepalive_unix_s: d.number(&keys[15], value(15)),
    };
    let keepalive_version = field((), value(15)).version;
    let self_fence_s = Some(d.number(&keys[16], value(16))).filter(|seconds| *seconds > 0);
    let complete = (mode, daemon_state, router_state, domain_state, d.problems.is_empty());
    let (Some(mode), Some(daemon_state), Some(router_state), Some(domain_state), true) = complete else {
        return Some(Entry::Bad(d.problems));
    };
    Some(Entry::Good(Node {
        name: name.clone(),
        mode: mode.value,
        daemon_state,
        router_state,
        domain_state,
        static_data,
        report,
        keepalive_version,
        self_fence_s,
    }))
}

fn load(d: &mut Decoder, key: &str, value: Option<&Value>) -> f64 {
    let load: f64 = d.number(key, value);
    if load.is_finite() && load >= 0.0 {
        return load;
    }
    d.problem(key, format_args!("{load} is not a load average"));
    0.0
}

fn running(d: &mut Decoder, key: &str, value: Option<&Value>) -> Vec<VmId> {
    let Some(text) = d.text(key, value).and_then(present) else { return Vec::new() };
    let parsed: Result<Vec<VmId>, _> = text.split_ascii_whitespace().map(str::parse).collect();
    parsed.unwrap_or_else(|e| {
        d.problem(key, e);
        Vec::new()
    })
}

/// Reads one node as it is now.
pub async fn read(store: &dyn Store, name: &NodeName) -> Result<Option<Entry<Node>>, StoreError> {
    Ok(decode(name, &store.get_many(&paths(name)).await?))
}

/// Whether a node reports to run a VM, in a report written after the transaction `since`: an older one may tell of an
/// instance that has ended.
pub async fn reports_running(
    store: &dyn Store,
    name: &NodeName,
    id: VmId,
    since: i64,
) -> Result<bool, StoreError> {
    // In this order: should a report come between the two reads, it is counted for less than it says.
    let paths = [key(name, KEEPALIVE), key(name, "runningdomains")];
    let values = store.get_many(&paths).await?;
    let reported = values[0].as_ref().map_or(0, |keepalive| keepalive.mzxid);
    let ids = running(&mut Decoder::default(), &paths[1], values[1].as_ref());
    Ok(reported > since && ids.contains(&id))
}
