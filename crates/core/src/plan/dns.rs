//! The zones of the client networks' domains, and what leads to them from what the DNS aggregator's database has.
//!
//! ```text
//!   networks, reservations, leases ─► desired zones ─┐
//!                                                    ├─► changes, one transaction a zone
//!   the database's zones ────────────────────────────┘
//! ```
//!
//! Networks of one domain share its zone, and those of one /24 its reverse zone. Host names come from guests: a name gets a record only in the zone of its own
//! network, for an address of that network, and never takes one that somebody has. What others have written in the database stays.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::Diff;
use crate::{
    model::{
        HostName, Network, NetworkKind, Trouble, Vni,
        dns::{Data, Foreign, Record, SeenZone, Soa, ZoneAct, ZoneChange, Zones},
        host_name::LONGEST,
    },
    text::some,
};

/// Names that no guest gets: the gateways' names, old deployments' name servers, and what other machines ask for by themselves and then believe.
pub const RESERVED: [&str; 7] = [SERVER, GATEWAY, "pvc-ns1", "pvc-ns2", "localhost", "wpad", "isatap"];
const SERVER: &str = "ns";
const GATEWAY: &str = "gateway";

/// So many guests' names of a network are served: as many as a network of 14 bits has addresses.
pub const MOST: usize = 1 << 14;

/// A guest with a name and an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// Its network.
    pub vni: Vni,
    /// Who it is, among those of its network: a hardware address or a DHCP identifier.
    pub holder: String,
    /// As it calls itself, or as an operator has written: anything.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// An operator has given it the name.
    pub is_reserved: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Planned {
    /// One change a zone. None needs another's success.
    pub changes: Vec<ZoneChange>,
    /// What cannot be served, until somebody changes something.
    pub troubles: Vec<Trouble>,
}

/// Zones that the database has, by name.
pub type Seen = BTreeMap<String, SeenZone>;

/// Decides the next changes.
pub fn plan<'a>(networks: impl IntoIterator<Item = &'a Network>, guests: &[Named], seen: &Seen) -> Planned {
    let mut desired = Desired::default();
    for network in networks {
        desired.serve(network);
    }
    desired.name(guests, seen);
    let Desired { zones, mut troubles, askers, .. } = desired;

    let mut changes = Vec::new();
    for (zone, records) in &zones {
        match seen.get(zone) {
            Some(there) if !there.is_ours => {
                let what = format!(
                    "the database has a zone {zone} that this program did not make: nothing is written in it"
                );
                let todo = "use another domain, or remove that zone from the database";
                troubles.extend(askers.get(zone).map(|vni| Trouble::of(*vni, &what).with_todo(todo)));
            }
            there => changes.extend(change(zone, records, there)),
        }
    }
    for (zone, there) in seen.iter().filter(|(zone, there)| there.is_ours && !zones.contains_key(*zone)) {
        changes.extend(leave(zone, there));
    }
    Planned { changes, troubles }
}

/// What makes a zone as desired.
fn change(zone: &str, desired: &BTreeSet<Record>, there: Option<&SeenZone>) -> Option<ZoneChange> {
    let soa = |serial| Soa { server: server_of(zone, desired), contact: format!("root.{zone}"), serial };
    let zone = zone.to_owned();
    let Some(there) = there else {
        let add = desired.iter().cloned().collect();
        return Some(ZoneChange { zone, act: ZoneAct::Make(soa(1)), add, remove: Vec::new() });
    };
    let possible = desired.iter().filter(|record| !is_anothers(record, &there.others)).cloned();
    let diff = Diff::between(possible, there.ours.iter().cloned());
    if diff.add.is_empty() && diff.remove.is_empty() && there.serial.is_some() {
        return None;
    }
    let act = ZoneAct::Keep { from: there.serial, soa: soa(after(there.serial)) };
    Some(ZoneChange { zone, act, add: diff.add, remove: diff.remove })
}

/// What becomes of a zone of ours that no network has any more: it stays for the sake of others' records.
fn leave(zone: &str, there: &SeenZone) -> Option<ZoneChange> {
    let own_server = |record: &&Record| record.name == zone && matches!(record.data, Data::Ns(_));
    let zone = zone.to_owned();
    if there.others.is_empty() {
        let act = ZoneAct::Drop { from: there.serial };
        return Some(ZoneChange { zone, act, add: Vec::new(), remove: Vec::new() });
    }
    let remove: Vec<Record> = there.ours.iter().filter(|r| !own_server(r)).cloned().collect();
    if remove.is_empty() {
        return None;
    }
    let soa = Soa {
        server: server_of(&zone, &there.ours),
        contact: format!("root.{zone}"),
        serial: after(there.serial),
    };
    Some(ZoneChange { zone, act: ZoneAct::Keep { from: there.serial, soa }, add: Vec::new(), remove })
}

/// The name server that the zone's own record names.
fn server_of(zone: &str, records: &BTreeSet<Record>) -> String {
    let named = records.iter().find_map(|record| match &record.data {
        Data::Ns(server) if record.name == zone => Some(server.clone()),
        _ => None,
    });
    named.unwrap_or_else(|| format!("{SERVER}.{zone}"))
}

/// Whether somebody else has written this record, or an alias, beside which there may be nothing (RFC 1034, section 3.6.2).
fn is_anothers(record: &Record, others: &BTreeSet<Foreign>) -> bool {
    let from = Foreign { name: record.name.clone(), kind: String::new(), content: String::new() };
    others.range(from..).take_while(|other| other.name == record.name).any(|other| {
        other.kind == "CNAME" || Data::read(&other.kind, &other.content).as_ref() == Some(&record.data)
    })
}

/// The serial number after this one; zero has a special meaning to some servers.
fn after(serial: Option<u32>) -> u32 {
    serial.unwrap_or(0).wrapping_add(1).max(1)
}

/// The zones that networks and guests ask for.
#[derive(Default)]
struct Desired {
    zones: Zones,
    served: BTreeMap<Vni, Served>,
    /// Who was the first to ask for a zone.
    askers: BTreeMap<String, Vni>,
    troubles: Vec<Trouble>,
}

/// A network whose names are served.
struct Served {
    domain: String,
    /// Networks of addresses, each with its gateway.
    subnets: Vec<(IpNet, IpAddr)>,
}

impl Desired {
    /// Takes a network's zones, with the names of the cluster's own in them.
    fn serve(&mut self, network: &Network) {
        let vni = network.vni;
        if network.kind != Some(NetworkKind::Managed) {
            return;
        }
        let Some(domain) = network.domain.as_ref().map(|d| d.as_str().to_ascii_lowercase()) else { return };
        let v4 = network.ip4.network.map(IpNet::from).zip(network.ip4.gateway.map(IpAddr::from));
        let v6 = network.ip6.network.map(IpNet::from).zip(network.ip6.gateway.map(IpAddr::from));
        // What is larger has no reverse zone of its own.
        let inside = |(net, gateway): &(IpNet, IpAddr)| net.contains(gateway) && net.prefix_len() >= 8;
        let subnets: Vec<(IpNet, IpAddr)> = v4.into_iter().chain(v6).filter(inside).collect();
        if subnets.is_empty() {
            return;
        }
        if domain.rsplit('.').next() == Some("arpa") {
            let trouble =
                Trouble::of(vni, format!("its domain {domain} is for reverse zones: it is not served"));
            self.troubles.push(trouble.with_todo(format!("`pvc network modify {vni} --domain`")));
            return;
        }
        let server = format!("{SERVER}.{domain}");
        if server.len().max(GATEWAY.len() + 1 + domain.len()) > LONGEST {
            let trouble = Trouble::of(vni, "its domain is too long to have names in it");
            self.troubles.push(trouble.with_todo(format!("`pvc network modify {vni} --domain`")));
            return;
        }
        self.put(&domain, domain.clone(), Data::Ns(server.clone()));
        self.askers.entry(domain.clone()).or_insert(vni);
        for (net, gateway) in &subnets {
            self.put(&domain, server.clone(), (*gateway).into());
            self.put(&domain, format!("{GATEWAY}.{domain}"), (*gateway).into());
            let reverse = reverse_zone(*net);
            self.askers.entry(reverse.clone()).or_insert(vni);
            // A zone has the name server of the first of its networks.
            if !self.zones.contains_key(&reverse) {
                self.put(&reverse, reverse.clone(), Data::Ns(server.clone()));
            }
            self.put(&reverse, reverse_name(*gateway), Data::Ptr(format!("{GATEWAY}.{domain}")));
        }
        self.served.insert(vni, Served { domain, subnets });
    }

    /// Takes the guests' names. Of several who want one, an operator's word counts first, then who has it already.
    fn name(&mut self, guests: &[Named], seen: &Seen) {
        let mut count: BTreeMap<Vni, usize> = BTreeMap::new();
        let mut wanted: BTreeMap<Wish, BTreeMap<Holder<'_>, Claim>> = BTreeMap::new();
        let mut refused = BTreeMap::<Vni, usize>::new();
        let mut guests: Vec<&Named> = guests.iter().collect();
        // What an operator has written is not crowded out.
        guests.sort_by_key(|guest| !guest.is_reserved);
        for guest in guests {
            let Some(served) = self.served.get(&guest.vni) else { continue };
            let Some((net, _)) =
                served.subnets.iter().find(|(net, gateway)| may_have(*net, *gateway, guest.address))
            else {
                *refused.entry(guest.vni).or_default() += 1;
                continue;
            };
            let Ok(host) = HostName::of(&guest.name, &served.domain) else {
                *refused.entry(guest.vni).or_default() += 1;
                continue;
            };
            let name = format!("{host}.{}", served.domain);
            // A name that is a zone of its own is that zone's.
            if RESERVED.contains(&host.as_str()) || self.zones.contains_key(&name) {
                *refused.entry(guest.vni).or_default() += 1;
                continue;
            }
            let count = count.entry(guest.vni).or_default();
            *count += 1;
            if *count > MOST {
                *refused.entry(guest.vni).or_default() += 1;
                continue;
            }
            let key = (served.domain.clone(), name);
            let claim = wanted.entry(key).or_default().entry((guest.vni, &guest.holder)).or_default();
            claim.is_reserved |= guest.is_reserved;
            claim.addresses.insert((guest.address, reverse_zone(*net)));
        }
        for (vni, count) in refused {
            self.troubles.push(Trouble::of(vni, format!(
                "{count} guests' names are not served: they are no host names, are the cluster's own, or their addresses are not the network's"
            )));
        }
        let mut contested = BTreeMap::<Vni, Vec<String>>::new();
        for ((domain, name), claims) in wanted {
            if claims.len() > 1 {
                for vni in claims.keys().map(|(vni, _)| *vni).collect::<BTreeSet<_>>() {
                    contested.entry(vni).or_default().push(name.clone());
                }
            }
            let has = |claim: &Claim| {
                let mine = |(address, _): &(IpAddr, String)| {
                    let record = Record { name: name.clone(), data: (*address).into() };
                    seen.get(&domain).is_some_and(|zone| zone.ours.contains(&record))
                };
                claim.addresses.iter().any(mine)
            };
            let first = claims.into_values().min_by_key(|claim| (!claim.is_reserved, !has(claim)));
            for (address, reverse) in first.into_iter().flat_map(|claim| claim.addresses) {
                self.put(&domain, name.clone(), address.into());
                self.put(&reverse, reverse_name(address), Data::Ptr(name.clone()));
            }
        }
        for (vni, names) in contested {
            let names = some(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let what =
                format!("more than one guest calls itself so: {names}: who had the name first keeps it");
            self.troubles.push(Trouble::of(vni, what));
        }
    }

    fn put(&mut self, zone: &str, name: String, data: Data) {
        self.zones.entry(zone.to_owned()).or_default().insert(Record { name, data });
    }
}

/// A domain and a name in it.
type Wish = (String, String);

/// Who may wish for one: a guest of a network.
type Holder<'a> = (Vni, &'a str);

/// One guest's wish for a name.
#[derive(Default)]
struct Claim {
    is_reserved: bool,
    /// Each with its reverse zone.
    addresses: BTreeSet<(IpAddr, String)>,
}

/// Whether a guest of the network can have this address.
fn may_have(net: IpNet, gateway: IpAddr, address: IpAddr) -> bool {
    let is_the_nets = match net {
        // Point-to-point networks have neither (RFC 3021).
        IpNet::V4(net) if net.prefix_len() < 31 => address == net.network() || address == net.broadcast(),
        _ => false,
    };
    net.contains(&address) && address != gateway && !is_the_nets
}

/// The reverse zone that an address network's names are in: the smallest that ends at a label and has all of them (RFC 1035, section 3.5; RFC 3596, section 2.5).
fn reverse_zone(net: IpNet) -> String {
    let labels = match net {
        IpNet::V4(net) => usize::from(net.prefix_len() / 8).min(3),
        IpNet::V6(net) => usize::from(net.prefix_len() / 4).min(31),
    };
    let all = if net.addr().is_ipv4() { 4 } else { 32 };
    let name = reverse_name(net.network());
    name.splitn(all - labels + 1, '.').last().unwrap_or_default().to_owned()
}

fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            let labels: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            format!("{}.ip6.arpa", labels.join("."))
        }
    }
}
