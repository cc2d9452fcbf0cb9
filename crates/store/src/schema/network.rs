//! `/networks/<vni>`: a client network's keys.
//!
//! Written by clients; the daemon reads them and writes leases. An unset value may be empty or `None`.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use pvc_core::model::{
    Entry, Network, Vni,
    network::{Dhcp4, DomainName, Lease, Mac, NetworkKind, Reservation, Rule},
};

use super::{
    subtree::{Keys, read_keys},
    text::{Decoder, truth, truth_word},
};
use crate::{Store, StoreError, Transaction, Value, schema::root::NETWORKS};

const LEASES: &str = "dhcp4_leases";
const RESERVATIONS: &str = "dhcp4_reservations";
const RULES: [&str; 2] = ["firewall_rules/in", "firewall_rules/out"];

/// A network's own key; its value is the description.
pub fn path(vni: Vni) -> String {
    format!("{NETWORKS}/{vni}")
}

/// Creates all keys of a new network.
pub fn define(network: &Network) -> Transaction {
    let root = path(network.vni);
    let mut txn = Transaction::default();
    for (key, value) in encode(network) {
        txn.create(if key.is_empty() { root.clone() } else { format!("{root}/{key}") }, value);
    }
    txn
}

/// Reads one network as it is now.
pub async fn read(store: &dyn Store, vni: Vni) -> Result<Option<Entry<Network>>, StoreError> {
    Ok(read_keys(store, &path(vni)).await?.map(|keys| decode(vni, &keys)))
}

/// Every key below the network's own with its value, parents first.
fn encode(n: &Network) -> Vec<(String, String)> {
    fn text(value: Option<impl Display>) -> String {
        value.map(|v| v.to_string()).unwrap_or_default()
    }
    let mut keys: Vec<(String, String)> = [
        ("", n.description.clone()),
        ("nettype", n.kind.to_string()),
        ("domain", text(n.domain.as_ref().map(DomainName::as_str))),
        ("ip4_network", text(n.ip4_network)),
        ("ip4_gateway", text(n.ip4_gateway)),
        ("dhcp4_flag", truth_word(n.dhcp4.enabled).to_owned()),
        ("dhcp4_start", text(n.dhcp4.start)),
        ("dhcp4_end", text(n.dhcp4.end)),
        ("ip6_network", text(n.ip6_network)),
        ("ip6_gateway", text(n.ip6_gateway)),
        ("dhcp6_flag", truth_word(n.dhcp6_enabled).to_owned()),
        (LEASES, String::new()),
        (RESERVATIONS, String::new()),
        ("firewall_rules", String::new()),
        (RULES[0], String::new()),
        (RULES[1], String::new()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    for (mac, lease) in &n.leases {
        let key = format!("{LEASES}/{mac}");
        keys.push((key.clone(), String::new()));
        keys.push((format!("{key}/ipaddr"), lease.address.to_string()));
        keys.push((format!("{key}/hostname"), lease.hostname.clone()));
        keys.push((format!("{key}/expiry"), lease.expiry_unix_s.to_string()));
        keys.push((format!("{key}/clientid"), lease.client_id.clone()));
    }
    for (mac, reservation) in &n.reservations {
        let key = format!("{RESERVATIONS}/{mac}");
        keys.push((key.clone(), "static".to_owned()));
        keys.push((format!("{key}/ipaddr"), reservation.address.to_string()));
        keys.push((format!("{key}/hostname"), reservation.hostname.clone()));
    }
    for (direction, rules) in RULES.iter().zip([&n.rules_in, &n.rules_out]) {
        for rule in rules {
            let key = format!("{direction}/{}", rule.description);
            keys.push((key.clone(), String::new()));
            keys.push((format!("{key}/order"), rule.order.to_string()));
            keys.push((format!("{key}/rule"), rule.rule.clone()));
        }
    }
    keys
}

/// A network from all keys at (`""`) and below its own.
pub fn decode(vni: Vni, keys: &Keys) -> Entry<Network> {
    let mut reader = Reader { root: path(vni), keys, d: Decoder::default() };
    let r = &mut reader;
    let description = r.text("");
    let kind = r.required::<NetworkKind>("nettype");
    let dhcp_flag = r.newer("dhcp4_flag", "dhcp_flag");
    let dhcp_start = r.newer("dhcp4_start", "dhcp_start");
    let dhcp_end = r.newer("dhcp4_end", "dhcp_end");
    let dhcp4 =
        Dhcp4 { enabled: r.truth(dhcp_flag), start: r.optional(dhcp_start), end: r.optional(dhcp_end) };
    let (domain, ip4_network, ip4_gateway) =
        (r.optional("domain"), r.optional("ip4_network"), r.optional("ip4_gateway"));
    let (ip6_network, ip6_gateway) = (r.optional("ip6_network"), r.optional("ip6_gateway"));
    let dhcp6_enabled = r.truth("dhcp6_flag");
    let leases = r.by_mac(LEASES, |r, key| {
        Some(Lease {
            address: r.required(&format!("{key}/ipaddr"))?,
            hostname: r.text(&format!("{key}/hostname")),
            expiry_unix_s: r.number(&format!("{key}/expiry")),
            client_id: r.text(&format!("{key}/clientid")),
        })
    });
    let reservations = r.by_mac(RESERVATIONS, |r, key| {
        let hostname = r.text(&format!("{key}/hostname"));
        Some(Reservation { address: r.required(&format!("{key}/ipaddr"))?, hostname })
    });
    let [rules_in, rules_out] = RULES.map(|direction| r.rules(direction));
    let problems = reader.d.problems;
    match (kind, problems.is_empty()) {
        (Some(kind), true) => Entry::Good(Network {
            vni,
            description,
            kind,
            domain,
            ip4_network,
            ip4_gateway,
            dhcp4,
            ip6_network,
            ip6_gateway,
            dhcp6_enabled,
            leases,
            reservations,
            rules_in,
            rules_out,
        }),
        _ => Entry::Bad(problems),
    }
}

/// Reads keys by their names below the network.
struct Reader<'a> {
    root: String,
    keys: &'a Keys,
    d: Decoder,
}

impl Reader<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.keys.get(key)
    }

    fn path(&self, key: &str) -> String {
        format!("{}/{key}", self.root)
    }

    fn text(&mut self, key: &str) -> String {
        self.d.text(&self.path(key), self.keys.get(key)).unwrap_or_default().to_owned()
    }

    fn required<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<T> {
        self.d.required(&self.path(key), self.keys.get(key)).map(|field| field.value)
    }

    fn optional<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<T> {
        self.d.optional(&self.path(key), self.keys.get(key)).value
    }

    fn number<T: FromStr + Default>(&mut self, key: &str) -> T {
        self.d.number(&self.path(key), self.keys.get(key))
    }

    fn truth(&mut self, key: &str) -> bool {
        truth(&mut self.d, &format!("{}/{key}", self.root), self.keys.get(key))
    }

    /// Which of two names of one thing was written later: old clients' *modify* forgets the 4.
    fn newer(&self, key: &'static str, misspelt: &'static str) -> &'static str {
        let written = |key| self.value(key).map(|v| v.mzxid);
        if written(misspelt) > written(key) { misspelt } else { key }
    }

    /// The names of the keys directly below one.
    fn children(&self, parent: &str) -> Vec<String> {
        let prefix = format!("{parent}/");
        let below = self.keys.range(prefix.clone()..).map_while(|(key, _)| key.strip_prefix(&prefix));
        below.filter(|rest| !rest.contains('/')).map(str::to_owned).collect()
    }

    fn by_mac<T>(
        &mut self,
        parent: &str,
        mut read: impl FnMut(&mut Self, &str) -> Option<T>,
    ) -> BTreeMap<Mac, T> {
        let mut all = BTreeMap::new();
        for name in self.children(parent) {
            let key = format!("{parent}/{name}");
            let path = self.path(&key);
            let mac = self.d.parse::<Mac>(&path, &name);
            if let (Some(mac), Some(item)) = (mac, read(self, &key))
                && all.insert(mac, item).is_some()
            {
                self.d.problem(&path, "the same hardware address is there in another spelling");
            }
        }
        all
    }

    fn rules(&mut self, direction: &str) -> Vec<Rule> {
        let mut rules = Vec::new();
        for description in self.children(direction) {
            let key = format!("{direction}/{description}");
            let (order, rule) = (self.required(&format!("{key}/order")), self.text(&format!("{key}/rule")));
            if let Some(order) = order {
                rules.push(Rule { description, order, rule });
            }
        }
        rules.sort_by(|a, b| (a.order, &a.description).cmp(&(b.order, &b.description)));
        rules
    }
}
