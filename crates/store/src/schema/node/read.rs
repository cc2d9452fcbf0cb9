//! A node from its keys, one by one: what cannot be read of one says nothing against the others. A node that must be fenced is not
//! spared because somebody spoilt, deleted or forbade a key of it.

use std::{net::IpAddr, time::Duration};

use pvc_core::model::{
    DaemonMode, DaemonState, DomainState, Field, Halt, KEEPALIVE_INTERVAL_S, Node, NodeName, NodeReport,
    Problem, StaticData, VmId,
};

use super::{
    BOOT, DAEMON_STATE, DOMAIN_STATE, FIGURES, GUESTS, INTERVAL, KEEPALIVE, MODE, ROUTER_STATE, RUNNING,
    SELF_FENCE, STATIC_DATA, STOPPED, STORAGE, STORAGE_HOST, VTEP, key, not_primary, path,
};
use crate::{
    schema::text::{Decoder, field, present},
    store::{Store, StoreError, Value},
};

const OWN_KEYS: [&str; 12] = [
    MODE,
    DAEMON_STATE,
    ROUTER_STATE,
    DOMAIN_STATE,
    STATIC_DATA,
    SELF_FENCE,
    BOOT,
    INTERVAL,
    VTEP,
    STORAGE,
    STORAGE_HOST,
    STOPPED,
];

/// The number of keys that [`paths`] names.
pub(crate) const READ_KEYS: usize = 1 + OWN_KEYS.len() + FIGURES.len();

/// A boot id has 36 characters; whatever else a machine calls its boots is no essay.
const LONGEST_BOOT: usize = 64;
/// No machine runs more VMs than fit into its memory.
const MOST_RUNNING: usize = 10_000;
/// The longest word in `staticdata`.
const LONGEST_WORD: usize = 200;

/// Whether a key below a node is among those that [`paths`] names.
pub(crate) fn is_read(key: &str) -> bool {
    OWN_KEYS.contains(&key) || FIGURES.contains(&key)
}

/// The keys that make a [`Node`], in the order that [`decode`] takes them. Passwords are not among them.
pub fn paths(name: &NodeName) -> Vec<String> {
    let keys = OWN_KEYS.iter().chain(&FIGURES).map(|k| key(name, k));
    std::iter::once(path(name)).chain(keys).collect()
}

/// A node from the values of its [`paths`]; `None` if there is no such node.
pub fn decode(name: &NodeName, values: &[Option<Value>]) -> Option<Node> {
    decode_shown(name, values, Vec::new())
}

/// As [`decode`]. The store refused to show the keys of `refused`: of these only the versions in `values` mean anything.
fn decode_shown(name: &NodeName, values: &[Option<Value>], refused: Vec<Problem>) -> Option<Node> {
    let keys = paths(name);
    let value = |i: usize| values.get(i).and_then(Option::as_ref);
    value(0)?;
    let mut d = Decoder::without(refused);
    let mode = mode(&mut d, &keys, value(0), value(1));
    let router_state = d.or(&keys[3], value(3), not_primary(mode));
    let domain_state = d.or(&keys[4], value(4), DomainState::Flushed);
    let static_data = static_data(&mut d, &keys[5], value(5));
    let self_fence_s = Some(d.number(&keys[6], value(6))).filter(|seconds| *seconds > 0);
    let boot = boot(&mut d, &keys[7], value(7));
    // What it said last outlives an unreadable key: the silence of a node that stopped in order means nothing.
    let stopped = value(12).zip(boot.as_ref()).is_some_and(|(stopped, boot)| stopped.data == boot.as_bytes());
    let otherwise = if stopped { DaemonState::Stop } else { DaemonState::Run };
    let daemon_state = d.or(&keys[2], value(2), otherwise);
    let keepalive_interval = interval(&mut d, &keys[8], value(8));
    let vtep = vtep(&mut d, &keys[9], value(9));
    let storage = storage(&mut d, &keys[10], value(10));
    let storage_host = d.optional::<IpAddr>(&keys[11], value(11)).value;
    let report = NodeReport {
        mem_total_mib: d.number(&keys[13], value(13)),
        mem_used_mib: d.number(&keys[14], value(14)),
        mem_free_mib: d.number(&keys[15], value(15)),
        mem_alloc_mib: d.number(&keys[16], value(16)),
        vcpu_alloc: d.number(&keys[17], value(17)),
        cpu_load: load(&mut d, &keys[18], value(18)),
        networks_count: d.number(&keys[19], value(19)),
        domains_count: d.number(&keys[20], value(20)),
        running: running(&mut d, &keys[21], value(21)),
        keepalive_unix_s: d.number(&keys[22], value(22)),
        halted: halted(&mut d, &keys[23], value(23)),
        // A daemon that does not say can start VMs, as all could before there was this key.
        cannot_start: d.text(&keys[24], value(24)).and_then(NodeReport::reason),
    };
    Some(Node {
        name: name.clone(),
        mode,
        daemon_state,
        router_state,
        domain_state,
        static_data,
        report,
        last_word: field((), value(21)),
        keepalive_version: value(22).map(|v| v.version),
        keepalive_zxid: value(22).map_or(0, |v| v.mzxid),
        keepalive_interval,
        boot,
        self_fence_s,
        vtep,
        storage,
        storage_host,
        problems: d.problems,
    })
}

/// The node's own value and its `daemonmode` say the same; in a tree that is being written the first is all there is.
fn mode(d: &mut Decoder, keys: &[String], own: Option<&Value>, mode: Option<&Value>) -> DaemonMode {
    let said = mode.and_then(|mode| d.required::<DaemonMode>(&keys[1], Some(mode)));
    let own = || Decoder::default().required::<DaemonMode>(&keys[0], own);
    match said.or_else(own) {
        Some(mode) => mode.value,
        None => {
            if mode.is_none() {
                d.problem(&keys[1], "missing");
            }
            DaemonMode::Coordinator
        }
    }
}

fn static_data(d: &mut Decoder, key: &str, value: Option<&Value>) -> Option<StaticData> {
    let data = d.optional::<StaticData>(key, value).value?;
    let fits = [&data.kernel, &data.os, &data.arch].into_iter().all(|word| word.len() <= LONGEST_WORD);
    if !fits {
        d.problem(key, format_args!("a word of it has more than {LONGEST_WORD} characters"));
    }
    fits.then_some(data)
}

fn boot(d: &mut Decoder, key: &str, value: Option<&Value>) -> Option<String> {
    let boot = d.text(key, value).and_then(present)?;
    if boot.len() > LONGEST_BOOT || !boot.chars().all(|c| c.is_ascii_graphic()) {
        d.problem(key, format_args!("{boot:?} is not the id of a boot"));
        return None;
    }
    Some(boot.to_owned())
}

fn interval(d: &mut Decoder, key: &str, value: Option<&Value>) -> Option<Duration> {
    // Who has not said has no such key: an empty one was spoilt.
    let seconds: u32 = value.map(|_| d.number(key, value))?;
    if KEEPALIVE_INTERVAL_S.contains(&seconds) {
        return Some(Duration::from_secs(seconds.into()));
    }
    let (least, most) = KEEPALIVE_INTERVAL_S.into_inner();
    // What is no number at all has been told already.
    if d.problems.last().is_none_or(|told| told.key != key) {
        d.problem(key, format_args!("{seconds} s is not between {least} s and {most} s"));
    }
    None
}

/// Frames are sent there: to one machine, and not to the reader's own.
fn vtep(d: &mut Decoder, key: &str, value: Option<&Value>) -> Option<IpAddr> {
    let address = d.optional::<IpAddr>(key, value).value?;
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        d.problem(key, format_args!("{address} is no node's address"));
        return None;
    }
    Some(address)
}

fn storage(d: &mut Decoder, key: &str, value: Option<&Value>) -> Option<bool> {
    match d.text(key, value).and_then(present)? {
        "on" => Some(true),
        "off" => Some(false),
        other => {
            d.problem(key, format_args!("{other:?} is neither on nor off"));
            None
        }
    }
}

fn load(d: &mut Decoder, key: &str, value: Option<&Value>) -> f64 {
    let load: f64 = d.number(key, value);
    if load.is_finite() && load >= 0.0 {
        return load;
    }
    d.problem(key, format_args!("{load} is not a load average"));
    0.0
}

/// Ids that can be read count also beside some that cannot: each may be what keeps a VM from being started twice.
fn running(d: &mut Decoder, key: &str, value: Option<&Value>) -> Vec<VmId> {
    let Some(text) = d.text(key, value).and_then(present) else { return Vec::new() };
    let mut wrong: Option<String> = None;
    let mut ids: Vec<VmId> = Vec::new();
    for word in text.split_ascii_whitespace() {
        match word.parse::<VmId>() {
            Ok(_) if ids.len() == MOST_RUNNING => {
                wrong = Some(format!("more than {MOST_RUNNING} VMs"));
                break;
            }
            Ok(id) => ids.push(id),
            Err(e) => wrong = wrong.or_else(|| Some(e.to_string())),
        }
    }
    if let Some(wrong) = wrong {
        d.problem(key, wrong);
    }
    ids
}

/// Which guests do not execute, and why. A node of the 0.5 generation has no such key.
fn halted(d: &mut Decoder, key: &str, value: Option<&Value>) -> Vec<(VmId, Halt)> {
    let Some(text) = d.text(key, value).and_then(present) else { return Vec::new() };
    let mut halted = Vec::new();
    for word in text.split_ascii_whitespace() {
        if halted.len() == MOST_RUNNING {
            d.problem(key, format_args!("more than {MOST_RUNNING} VMs"));
            break;
        }
        let (id, halt) = word.split_once('=').unwrap_or((word, ""));
        match (id.parse(), halt.parse()) {
            (Ok(id), Ok(halt)) => halted.push((id, halt)),
            (Err(error), _) | (_, Err(error)) => {
                d.problem(key, error);
                break;
            }
        }
    }
    halted
}

/// Reads one node as it is now.
pub async fn read(store: &dyn Store, name: &NodeName) -> Result<Option<Node>, StoreError> {
    match store.get_many(&paths(name)).await {
        Err(StoreError::Refused { .. }) => read_key_by_key(store, name).await,
        values => Ok(decode(name, &values?)),
    }
}

/// Reads one node some of whose keys the store refuses to show. It tells these keys' versions all the same, so that also who may
/// not read a keepalive notices that it is written.
pub(crate) async fn read_key_by_key(store: &dyn Store, name: &NodeName) -> Result<Option<Node>, StoreError> {
    let keys = paths(name);
    let stats = store.stat_many(&keys).await?;
    let (mut values, mut refused) = (Vec::with_capacity(keys.len()), Vec::new());
    for (key, stat) in keys.into_iter().zip(stats) {
        values.push(match store.get(&key).await {
            Err(StoreError::Refused { why, .. }) => {
                refused.push(Problem { key, what: format!("the state store refuses to show it: {why}") });
                let hidden = |s: crate::Stat| Value {
                    data: Vec::new(),
                    version: s.version,
                    mzxid: s.mzxid,
                    children: 0,
                };
                stat.map(hidden)
            }
            value => value?,
        });
    }
    Ok(decode_shown(name, &values, refused))
}

/// What a node reports about a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// Not that it runs there.
    Nothing,
    /// It executes there.
    Executes,
    /// It has a process there that executes nothing, for this reason.
    Halted(Halt),
}

/// What a node reports about a VM in a report that was written after the transaction `since`: an older one may tell of an
/// instance that has ended.
pub async fn reported(
    store: &dyn Store,
    name: &NodeName,
    id: VmId,
    since: i64,
) -> Result<Reported, StoreError> {
    // In this order: should a report come between the reads, it is counted for less than it says.
    let paths = [key(name, KEEPALIVE), key(name, RUNNING), key(name, GUESTS)];
    let values = store.get_many(&paths).await?;
    let written = values[0].as_ref().map_or(0, |keepalive| keepalive.mzxid);
    let mut d = Decoder::default();
    if written <= since || !running(&mut d, &paths[1], values[1].as_ref()).contains(&id) {
        return Ok(Reported::Nothing);
    }
    let halted = halted(&mut d, &paths[2], values[2].as_ref());
    let halt = halted.into_iter().find(|(halted, _)| *halted == id);
    Ok(halt.map_or(Reported::Executes, |(_, halt)| Reported::Halted(halt)))
}

impl Decoder {
    /// A key of a node, or what it counts as if it cannot be read.
    fn or<T>(&mut self, key: &str, value: Option<&Value>, otherwise: T) -> Field<T>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        self.required(key, value).unwrap_or_else(|| field(otherwise, value))
    }
}
