//! Commands on what DHCP gives out in a network: who has which address, and which addresses are reserved.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::{Accepted, Refusal, check};
use crate::{
    model::{HostName, Lease, Mac, NameError, Network, NetworkKind, Reservation},
    plan::{
        dhcp::{Pool, ends},
        dns,
        gateway_services::{MOST_RESERVATIONS, pool},
    },
};

/// A reservation as it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewReservation<'a> {
    /// The hardware address of the card.
    pub mac: &'a str,
    /// What it always gets.
    pub address: &'a str,
    /// What it is called.
    pub name: Option<&'a str>,
}

/// Decides on a reservation beside those that are there. It takes the place of what its card has.
pub fn add(
    network: &Network,
    new: NewReservation<'_>,
    there: &[Reservation],
    leases: &[Lease],
    now_s: u64,
) -> Result<Accepted<Reservation>, Refusal> {
    let vni = network.vni;
    let refuse = |(why, todo): (String, String)| {
        Refusal::refused(format!("nothing was reserved in network {vni}"), why, todo)
    };
    let net = subnet(network).map_err(refuse)?;
    let reservation = checked(network, net, new, there).map_err(refuse)?;
    if there.contains(&reservation) {
        return Ok(Accepted::already("it is so already"));
    }
    let is_first = !there.iter().any(|other| other.mac == reservation.mac);
    if is_first && there.len() >= MOST_RESERVATIONS {
        let why = format!("there are {} reservations, and no more are served", there.len());
        return Err(refuse((why, format!("remove some by `pvc network dhcp static remove {vni}`"))));
    }
    let notes = notes(network, &reservation, leases, now_s);
    Ok(Accepted::write(reservation, notes))
}

/// The card whose reservation `reference` means: a hardware address, an address or a name. `cards` are all that have one, readable or not.
pub fn find(
    network: &Network,
    reference: &str,
    there: &[Reservation],
    cards: &[Mac],
) -> Result<Mac, Refusal> {
    if let Some(card) = reference.parse().ok().filter(|mac: &Mac| cards.contains(mac)) {
        return Ok(card);
    }
    let address: Option<Ipv4Addr> = reference.parse().ok();
    let is_meant = |r: &&Reservation| {
        let name = r.name.as_ref().map(ToString::to_string);
        address == Some(r.address) || name.is_some_and(|name| name.eq_ignore_ascii_case(reference))
    };
    let found: Vec<Mac> = there.iter().filter(is_meant).map(|r| r.mac).collect();
    match found[..] {
        [card] => Ok(card),
        [] => Err(Refusal::not_found(
            format!("network {} has no reservation {reference:?}", network.vni),
            "none has this hardware address, address or name",
            format!("`pvc network dhcp static list {}` shows all", network.vni),
        )),
        _ => Err(Refusal::refused(
            format!("{reference:?} is ambiguous"),
            format!("{} cards have such a reservation", found.len()),
            format!(
                "use a hardware address: {}",
                found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}

/// The network in which addresses can be reserved.
fn subnet(network: &Network) -> Result<Ipv4Net, (String, String)> {
    match (network.kind, network.ip4.network) {
        (Some(NetworkKind::Managed), Some(net)) => Ok(net),
        (Some(NetworkKind::Managed), None) => {
            let todo = format!("give it one by `pvc network modify --ipnet NETWORK {}`", network.vni);
            Err(("the network has no IPv4 network".to_owned(), todo))
        }
        (Some(NetworkKind::Bridged), _) => {
            let why = "the network is bridged: its addresses are given by whoever is outside";
            Err((why.to_owned(), "reserve it there".to_owned()))
        }
        (None, _) => {
            let todo = format!("write managed or bridged to the key /networks/{}/nettype", network.vni);
            Err(("the network's type cannot be read".to_owned(), todo))
        }
    }
}

fn checked(
    network: &Network,
    net: Ipv4Net,
    new: NewReservation<'_>,
    there: &[Reservation],
) -> Result<Reservation, (String, String)> {
    let mac = new.mac.parse().map_err(|e: NameError| {
        (e.to_string(), "`pvc network info` shows the cards of VMs in the network".to_owned())
    })?;
    if !Mac::is_a_cards(mac) {
        let why = format!("{mac} is no network card's: it is a group's, or zero");
        return Err((why, "`pvc network info` shows the cards of VMs in the network".to_owned()));
    }
    let address: Ipv4Addr = new
        .address
        .parse()
        .map_err(|_| (format!("{:?} is no IPv4 address", new.address), format!("choose one in {net}")))?;
    check::host(net, address, "the address")?;
    if network.ip4.gateway == Some(address) {
        return Err((format!("{address} is the network's gateway"), "choose another address".to_owned()));
    }
    let mut others = there.iter().filter(|other| other.mac != mac);
    if let Some(other) = others.clone().find(|other| other.address == address) {
        let todo = format!(
            "choose another address, or free this one by `pvc network dhcp static remove {} {}`",
            network.vni, other.mac
        );
        return Err((format!("it is reserved for {}", other.mac), todo));
    }
    let name = new.name.map(|said| name(network, said)).transpose()?;
    let has_it = |other: &&Reservation| name.is_some() && other.name == name;
    if let Some(other) = others.find(has_it) {
        let why = format!("{} is called so by its reservation", other.mac);
        return Err((why, "choose another name".to_owned()));
    }
    Ok(Reservation { mac, address, name })
}

fn name(network: &Network, said: &str) -> Result<HostName, (String, String)> {
    let domain = network.domain.as_ref().map_or("", |domain| domain.as_str());
    let wrong = |why: String| (why, "choose a name such as web1".to_owned());
    let host = HostName::of(said, domain).map_err(|e| wrong(format!("{said:?} is no name: {e}")))?;
    if dns::RESERVED.contains(&host.as_str()) {
        return Err((format!("{host} is the cluster's own name"), "choose another name".to_owned()));
    }
    Ok(host)
}

/// What does not stand against a reservation, but keeps it from its card for a while, or for good.
fn notes(network: &Network, reservation: &Reservation, leases: &[Lease], now_s: u64) -> Vec<String> {
    let Reservation { mac, address, .. } = reservation;
    let mut notes = Vec::new();
    let lasting = || leases.iter().filter(|lease| ends(lease) > now_s);
    if let Some(other) = lasting().find(|lease| lease.address == *address && lease.mac != *mac) {
        let ends = in_words(other.expires_s, now_s);
        notes
            .push(format!("{} has a lease of {address} (ends: {ends}): {mac} gets it after that", other.mac));
    }
    if let Some(own) = lasting().find(|lease| lease.mac == *mac && lease.address != *address) {
        notes.push(format!("{mac} has {}: it gets {address} when it asks again", own.address));
    }
    if serving(network, &[]).is_none() {
        notes.push(format!(
            "DHCP is not served in network {}: the card gets nothing until `pvc network modify --dhcp` with a range and a gateway",
            network.vni
        ));
    }
    notes
}

/// What DHCP gives out in the network; `None`: it does not.
fn serving(network: &Network, reserved: &[Reservation]) -> Option<Pool> {
    let net = subnet(network).ok()?;
    let gateway = network.ip4.gateway.filter(|gateway| net.contains(gateway))?;
    let gateway = Ipv4Net::new(gateway, net.prefix_len()).ok()?;
    Some(Pool::new(gateway, pool(network)?, reserved.iter().cloned(), None))
}

/// An address that somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The card that has it.
    pub mac: Mac,
    /// The address.
    pub address: Ipv4Addr,
    /// What the guest is called.
    pub name: Option<HostName>,
    /// It is reserved for the card.
    pub is_reserved: bool,
    /// When its lease ends, in seconds since 1970, 0 is never; `None`: there is no lease.
    pub expires_s: Option<u64>,
}

/// Who has which address, by address: leases and reservations.
pub fn holdings(reserved: &[Reservation], leases: &[Lease]) -> Vec<Holding> {
    let mut all: BTreeMap<(Ipv4Addr, Mac), Holding> = BTreeMap::new();
    for Reservation { mac, address, name } in reserved.iter().cloned() {
        let holding = Holding { mac, address, name, is_reserved: true, expires_s: None };
        all.insert((address, mac), holding);
    }
    for Lease { mac, address, name, expires_s, .. } in leases.iter().cloned() {
        let holding = Holding { mac, address, name, is_reserved: false, expires_s: None };
        all.entry((address, mac)).or_insert(holding).expires_s = Some(expires_s);
    }
    all.into_values().collect()
}

/// How many of the addresses for whoever asks are given out, and how many there are; `None`: DHCP is not served.
pub fn fill(network: &Network, reserved: &[Reservation], leases: &[Lease], now_s: u64) -> Option<(u64, u64)> {
    let pool = serving(network, reserved)?;
    let lasting = leases.iter().filter(|lease| ends(lease) > now_s);
    let given = lasting.filter(|lease| pool.is_for_anyone(lease.address)).fold(0, |count, _| count + 1);
    Some((given, pool.size()))
}

/// When a lease ends, seen from now.
pub fn in_words(expires_s: u64, now_s: u64) -> String {
    match (expires_s, expires_s.saturating_sub(now_s)) {
        (0, _) => "never".to_owned(),
        (_, 0) => "over".to_owned(),
        (_, left @ ..120) => format!("in {left} s"),
        (_, left @ ..7200) => format!("in {} min", left / 60),
        (_, left) => format!("in {} h", left / 3600),
    }
}
