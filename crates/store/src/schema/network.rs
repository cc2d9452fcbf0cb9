//! `/networks/<vni>`: a client network's own keys, read one by one: what cannot be read of it says nothing against the rest.
//!
//! Written by clients. An unset value may be empty or `None`. What is leased in it lies deeper and is not read here; its firewall's rules are read by `rules`.

pub mod counts;
pub mod guests;
pub mod leases;
pub mod leases6;
pub mod reservations;
pub mod rules;
pub mod senders;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use pvc_core::{
    model::{
        Network, Problem, Vni,
        network::{Dhcp4, DomainName, Ip4, Ip6},
    },
    text::one_line,
};

use super::text::{Decoder, present, truth, truth_word};
use crate::{Check, CommitError, Store, StoreError, Transaction, Value, put};

/// The parent of all networks.
pub const ROOT: &str = "/networks";

/// The longest description that is shown, in characters.
const LONGEST: usize = 200;

/// The keys below a network's own that are read.
const KEYS: [&str; 15] = [
    "nettype",
    "domain",
    "ip4_network",
    "ip4_gateway",
    "dhcp4_flag",
    "dhcp4_start",
    "dhcp4_end",
    "dhcp_flag",
    "dhcp_start",
    "dhcp_end",
    "ip6_network",
    "ip6_gateway",
    "dhcp6_flag",
    GUARD,
    FILTER,
];

/// **(ours)** Whether guests' ports are guarded. Absent or empty: as the network's type says.
const GUARD: &str = "guard";

/// **(ours)** Whether guests send from no other addresses than their own. Absent or empty: from any.
const FILTER: &str = "filter";

/// What old clients expect below a network, and fill.
const PARENTS: [&str; 5] =
    ["dhcp4_leases", "dhcp4_reservations", "firewall_rules", "firewall_rules/in", "firewall_rules/out"];

/// The number of keys that [`paths`] names.
pub(crate) const READ_KEYS: usize = 1 + KEYS.len();

/// A network's own key; its value is the description.
pub fn path(vni: Vni) -> String {
    format!("{ROOT}/{vni}")
}

/// The network that a key is about, if it is below one of these children of a network.
fn network_of(key: &str, children: &[&str]) -> Option<Vni> {
    let mut parts = key.strip_prefix(ROOT)?.strip_prefix('/')?.split('/');
    let vni = parts.next()?.parse().ok()?;
    children.contains(&parts.next()?).then_some(vni)
}

/// Whether a key below a network is among those that [`paths`] names.
pub(crate) fn is_read(key: &str) -> bool {
    KEYS.contains(&key)
}

/// The keys that make a [`Network`], in the order that [`decode`] takes them.
pub fn paths(vni: Vni) -> Vec<String> {
    std::iter::once(path(vni)).chain(KEYS.map(|key| format!("{}/{key}", path(vni)))).collect()
}

/// The networks whose keys these are, and the keys that are no network's.
pub fn listed(names: &[String]) -> (Vec<Vni>, Vec<Problem>) {
    let (mut vnis, mut strays) = (Vec::new(), Vec::new());
    for name in names {
        match name.parse::<Vni>() {
            Ok(vni) => vnis.push(vni),
            Err(e) => strays.push(Problem { key: format!("{ROOT}/{name}"), what: e.to_string() }),
        }
    }
    vnis.sort_unstable();
    (vnis, strays)
}

/// A network from the values of its [`paths`]; `None` if there is no such network.
pub fn decode(vni: Vni, values: &[Option<Value>]) -> Option<Network> {
    let own = values.first()?.as_ref()?;
    let mut reader = Reader { root: path(vni), values, d: Decoder::default() };
    let r = &mut reader;
    let mut network = Network::bare(vni);
    let text = r.d.text(&path(vni), Some(own)).unwrap_or_default();
    if text.chars().count() > LONGEST {
        r.d.problem(&path(vni), format_args!("the description has more than {LONGEST} characters"));
    }
    network.description = one_line(&text.trim().chars().take(LONGEST).collect::<String>());
    network.kind = r.required("nettype");
    network.domain = r.optional("domain");
    let flag = r.newer("dhcp4_flag", "dhcp_flag");
    let (start, end) = (r.newer("dhcp4_start", "dhcp_start"), r.newer("dhcp4_end", "dhcp_end"));
    let dhcp = Dhcp4 { enabled: r.truth(flag), start: r.optional(start), end: r.optional(end) };
    network.ip4 = Ip4 { network: r.optional("ip4_network"), gateway: r.optional("ip4_gateway"), dhcp };
    network.ip6 = Ip6 {
        network: r.optional("ip6_network"),
        gateway: r.optional("ip6_gateway"),
        dhcp_enabled: r.truth("dhcp6_flag"),
    };
    network.guard = r.is_said(GUARD).then(|| r.truth(GUARD));
    network.filter = r.is_said(FILTER) && r.truth(FILTER);
    network.problems = reader.d.problems;
    Some(network)
}

/// A network, and the versions of the keys that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The network.
    pub network: Network,
    versions: BTreeMap<String, i32>,
}

/// Reads all networks; answers also which keys are no network's.
pub async fn read_all(store: &dyn Store) -> Result<(BTreeMap<Vni, Seen>, Vec<Problem>), StoreError> {
    /// Bounds an answer.
    const AT_ONCE: usize = 200;
    let names = store.children(ROOT).await?.unwrap_or_default();
    let (vnis, strays) = listed(&names);
    let mut networks = BTreeMap::new();
    for vnis in vnis.chunks(AT_ONCE) {
        let keys: Vec<String> = vnis.iter().flat_map(|vni| paths(*vni)).collect();
        let values = store.get_many(&keys).await?;
        for ((vni, keys), values) in vnis.iter().zip(keys.chunks(READ_KEYS)).zip(values.chunks(READ_KEYS)) {
            let Some(network) = decode(*vni, values) else { continue };
            let version =
                |(key, value): (&String, &Option<Value>)| Some((key.clone(), value.as_ref()?.version));
            let versions = keys.iter().zip(values).filter_map(version).collect();
            networks.insert(*vni, Seen { network, versions });
        }
    }
    Ok((networks, strays))
}

/// Creates all keys of a new network.
pub fn define(network: &Network) -> Transaction {
    let mut txn = Transaction::default();
    let unsaid =
        |key: &str, value: &str| value.is_empty() && [GUARD, FILTER].iter().any(|ours| key.ends_with(ours));
    for (key, value) in encode(network).into_iter().filter(|(key, value)| !unsaid(key, value)) {
        txn.create(key, value);
    }
    for parent in PARENTS {
        txn.create(format!("{}/{parent}", path(network.vni)), "");
    }
    txn
}

/// Writes what differs from what was seen, unless anything of it has moved since. A key that cannot be read stays unless it is given
/// something else to say.
pub fn modify(seen: &Seen, network: &Network) -> Transaction {
    let mut txn = Transaction::default();
    for ((key, before), (_, value)) in encode(&seen.network).into_iter().zip(encode(network)) {
        match seen.versions.get(&key) {
            Some(version) if before == value => txn.check(key, Check::Version(*version)),
            Some(version) => txn.set(key, value, Some(*version)),
            None if before == value => {}
            None => txn.create(key, value),
        }
    }
    txn
}

/// Removes a network with all that is below it, unless its own keys have moved since it was seen.
pub async fn remove(store: &dyn Store, seen: &Seen) -> Result<(), CommitError> {
    let root = path(seen.network.vni);
    let mut txn = Transaction::default();
    for (key, version) in &seen.versions {
        txn.check(key.as_str(), Check::Version(*version));
    }
    let found = put::subtree(store, &root).await.map_err(CommitError::Failed)?;
    for key in found.into_iter().flat_map(|found| found.leaves_first) {
        txn.delete(key, None);
    }
    store.commit(txn).await.map(drop)
}

/// The keys that clients write, with their values.
fn encode(n: &Network) -> Vec<(String, String)> {
    fn text(value: Option<impl Display>) -> String {
        value.map(|v| v.to_string()).unwrap_or_default()
    }
    let below = [
        ("nettype", text(n.kind)),
        ("domain", text(n.domain.as_ref().map(DomainName::as_str))),
        ("ip4_network", text(n.ip4.network)),
        ("ip4_gateway", text(n.ip4.gateway)),
        ("dhcp4_flag", truth_word(n.ip4.dhcp.enabled).to_owned()),
        ("dhcp4_start", text(n.ip4.dhcp.start)),
        ("dhcp4_end", text(n.ip4.dhcp.end)),
        ("ip6_network", text(n.ip6.network)),
        ("ip6_gateway", text(n.ip6.gateway)),
        ("dhcp6_flag", truth_word(n.ip6.dhcp_enabled).to_owned()),
        (GUARD, n.guard.map(truth_word).unwrap_or_default().to_owned()),
        (FILTER, if n.filter { truth_word(true) } else { "" }.to_owned()),
    ];
    let root = path(n.vni);
    let below = below.map(|(key, value)| (format!("{root}/{key}"), value));
    std::iter::once((root.clone(), n.description.clone())).chain(below).collect()
}

/// Reads keys by their names below the network.
struct Reader<'a> {
    root: String,
    values: &'a [Option<Value>],
    d: Decoder,
}

impl Reader<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        let at = KEYS.iter().position(|known| *known == key)?;
        self.values.get(at + 1)?.as_ref()
    }

    fn path(&self, key: &str) -> String {
        format!("{}/{key}", self.root)
    }

    fn required<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<T> {
        let (path, value) = (self.path(key), self.value(key).cloned());
        self.d.required(&path, value.as_ref()).map(|field| field.value)
    }

    fn optional<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<T> {
        let (path, value) = (self.path(key), self.value(key).cloned());
        self.d.optional(&path, value.as_ref()).value
    }

    /// Whether a key says anything but "nothing".
    fn is_said(&self, key: &str) -> bool {
        let text = self.value(key).map(|value| String::from_utf8_lossy(&value.data));
        text.is_some_and(|text| present(&text).is_some())
    }

    fn truth(&mut self, key: &str) -> bool {
        let (path, value) = (self.path(key), self.value(key).cloned());
        truth(&mut self.d, &path, value.as_ref())
    }

    /// Which of two names of one thing was written later: old clients' *modify* forgets the 4.
    fn newer(&self, key: &'static str, misspelt: &'static str) -> &'static str {
        let written = |key| self.value(key).map(|v| v.mzxid);
        if written(misspelt) > written(key) { misspelt } else { key }
    }
}
