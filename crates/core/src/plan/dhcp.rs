//! Which address a guest gets.
//!
//! A network's book has all leases, as the state tree has them. An address is given to one card at a time: a lease is written before its guest is told of
//! it, so whoever is primary next knows of it, and gives the address to nobody else.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use super::dns::RESERVED;
use crate::model::{
    HostName, Lease, Mac, Reservation,
    dhcp::{Asks, Request},
};

/// How long a guest has its address unless it asks again.
pub const LEASE_S: u64 = 48 * 3600;

/// How long what was offered is offered to nobody else.
const OFFER_S: u64 = 30;

/// How long an address rests that somebody was found to use.
pub(super) const DECLINED_S: u64 = 600;

/// How long an address that was given back is given to nobody else: anybody can give back another's.
const RELEASED_S: u64 = 60;

/// How long an address stays its last guest's after its lease has ended: clocks differ, and nobody asks on the wire who uses it.
pub(super) const GRACE_S: u64 = 3600;

/// So many offers and declined addresses are remembered: strangers cause them.
pub(super) const MOST_REMEMBERED: usize = 4096;

/// So many leases of a family a network has at most. Each is some keys of the state tree, and a single guest may pretend to be thousands.
pub(super) const MOST_LEASES: usize = 8192;

/// What a network gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The gateway's address, in its network.
    pub gateway: Ipv4Net,
    /// The network's domain.
    pub domain: Option<String>,
    /// The first and the last address for whoever asks.
    range: (Ipv4Addr, Ipv4Addr),
    /// Addresses that one card gets, and no other.
    reserved: BTreeMap<Mac, Reservation>,
    holders: BTreeMap<Ipv4Addr, Mac>,
}

impl Pool {
    /// With these addresses for whoever asks, and those that are reserved. What is reserved twice, or is no guest's, is the first card's, or nobody's.
    pub fn new(
        gateway: Ipv4Net,
        range: (Ipv4Addr, Ipv4Addr),
        reservations: impl IntoIterator<Item = Reservation>,
        domain: Option<String>,
    ) -> Self {
        let mut pool = Self { gateway, domain, range, reserved: BTreeMap::new(), holders: BTreeMap::new() };
        for reservation in reservations {
            let (mac, address) = (reservation.mac, reservation.address);
            let is_new = !pool.holders.contains_key(&address) && !pool.reserved.contains_key(&mac);
            if is_new && pool.is_a_guests(address) {
                pool.holders.insert(address, mac);
                pool.reserved.insert(mac, reservation);
            }
        }
        pool
    }

    /// The first and the last address for whoever asks.
    pub fn range(&self) -> (Ipv4Addr, Ipv4Addr) {
        self.range
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let (first, last) = self.range;
        (first..=last).contains(&address) && self.is_a_guests(address)
    }

    fn is_a_guests(&self, address: Ipv4Addr) -> bool {
        let net = self.gateway;
        let is_host = net.prefix_len() > 30 || (address != net.network() && address != net.broadcast());
        net.contains(&address) && is_host && address != net.addr()
    }

    /// What an operator has called the guests at cards.
    pub fn called(&self) -> impl Iterator<Item = (Mac, &HostName)> {
        self.reserved.values().filter_map(|reserved| Some((reserved.mac, reserved.name.as_ref()?)))
    }

    /// Whether it may be given to whoever asks.
    pub fn is_for_anyone(&self, address: Ipv4Addr) -> bool {
        self.contains(address) && !self.holders.contains_key(&address)
    }

    /// How many addresses there are for whoever asks.
    pub fn size(&self) -> u64 {
        let (first, last) = self.range;
        let all = (u64::from(u32::from(last)) + 1).saturating_sub(u32::from(first).into());
        let net = self.gateway;
        let own = [net.network(), net.broadcast(), net.addr()];
        let within: BTreeSet<Ipv4Addr> = self.holders.keys().copied().chain(own).collect();
        let others = within.range(first..).take_while(|address| **address <= last && **address >= first);
        all - others.filter(|address| !self.is_for_anyone(**address)).fold(0, |count, _| count + 1)
    }

    fn reserved_for_another(&self, address: Ipv4Addr, mac: Mac) -> bool {
        self.holders.get(&address).is_some_and(|holder| *holder != mac)
    }
}

/// What to do about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is not for this server, or nothing can be said.
    Nothing,
    /// All addresses have somebody.
    Full,
    /// Say that it could have this one.
    Offer(Ipv4Addr),
    /// See that the lease is written, then say that it has it.
    Give(Lease),
    /// Say that it may not have what it asks for.
    Refuse,
    /// Remove this lease of the card; say nothing.
    Forget(Ipv4Addr),
    /// Say all but an address.
    Inform,
}

/// Who has which address, in one network.
#[derive(Debug, Default)]
pub struct Book {
    leases: BTreeMap<Mac, Lease>,
    holders: BTreeMap<Ipv4Addr, Mac>,
    /// Offered to a card, or in use by nobody knows whom (`None`), until then.
    held: BTreeMap<Ipv4Addr, (Option<Mac>, u64)>,
}

impl Book {
    /// With what the state tree has. Of two leases of one address the one that ends later counts.
    pub fn new(leases: impl IntoIterator<Item = Lease>) -> Self {
        let mut book = Self::default();
        for lease in leases {
            let later = |other: &Lease| other.expires_s >= lease.expires_s;
            if !book.of(lease.address).is_some_and(later) {
                book.note(lease);
            }
        }
        book
    }

    /// Takes the leases that the state tree has now for all there are. What is offered or declined stays so.
    pub fn reread(&mut self, leases: impl IntoIterator<Item = Lease>) {
        let held = std::mem::take(&mut self.held);
        *self = Self { held, ..Self::new(leases) };
    }

    /// All leases, by card.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    fn of(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.leases.get(self.holders.get(&address)?)
    }

    /// A lease that is over.
    pub fn ended(&self, now_s: u64) -> Option<&Lease> {
        self.leases.values().find(|lease| is_over(lease, now_s))
    }

    /// When the next lease is over.
    pub fn next_end(&self) -> Option<u64> {
        self.leases.values().map(|lease| ends(lease).saturating_add(GRACE_S)).min()
    }

    /// Takes note of a lease that is written; says whether that changes anything.
    pub fn note(&mut self, lease: Lease) -> bool {
        if self.leases.get(&lease.mac) == Some(&lease) {
            self.held.remove(&lease.address);
            return false;
        }
        if let Some(before) = self.leases.remove(&lease.mac) {
            self.holders.remove(&before.address);
        }
        if let Some(other) = self.holders.insert(lease.address, lease.mac) {
            self.leases.remove(&other);
        }
        self.held.remove(&lease.address);
        self.leases.insert(lease.mac, lease);
        true
    }

    /// Takes note that the card has none any more.
    pub fn forget(&mut self, mac: Mac) {
        if let Some(before) = self.leases.remove(&mac) {
            self.holders.remove(&before.address);
        }
    }

    /// Decides what to do about a request that came at that time.
    pub fn answer(&mut self, pool: &Pool, request: &Request, now_s: u64) -> Answer {
        let mac = request.mac;
        match request.asks {
            Asks::Discover(wanted) => match self.choose(pool, mac, wanted, now_s) {
                Some(address) => {
                    self.hold(address, Some(mac), now_s + OFFER_S, now_s);
                    Answer::Offer(address)
                }
                None => Answer::Full,
            },
            // It has chosen another server's offer.
            Asks::Take(server, _) if server != pool.gateway.addr() => {
                self.held.retain(|_, (holder, _)| *holder != Some(mac));
                Answer::Nothing
            }
            Asks::Take(_, address) | Asks::Keep(address) => {
                if self.choose(pool, mac, Some(address), now_s) != Some(address) {
                    return Answer::Refuse;
                }
                self.give(pool, request, address, now_s)
            }
            Asks::Decline(address) => {
                if self.leases.get(&mac).is_none_or(|lease| lease.address != address) {
                    return Answer::Nothing;
                }
                self.hold(address, None, now_s + DECLINED_S, now_s);
                Answer::Forget(address)
            }
            Asks::Release(address) => {
                if self.leases.get(&mac).is_none_or(|lease| lease.address != address) {
                    return Answer::Nothing;
                }
                self.hold(address, Some(mac), now_s + RELEASED_S, now_s);
                Answer::Forget(address)
            }
            Asks::Inform => Answer::Inform,
        }
    }

    fn give(&self, pool: &Pool, request: &Request, address: Ipv4Addr, now_s: u64) -> Answer {
        let Request { mac, client_id, .. } = request.clone();
        // What cannot be a name in this domain is left out.
        let domain = pool.domain.as_deref().unwrap_or_default();
        let name = request.name.as_ref().and_then(|said| HostName::of(said, domain).ok());
        // Nor does a guest get a name that another one has.
        let name = name.filter(|name| !self.has_name(pool, name, mac, now_s));
        let lease = Lease { mac, address, name, expires_s: now_s + LEASE_S, client_id };
        // A guest that asks again and again is not written again and again. What is written already is looked for all the same: others write there.
        let had = self.leases.get(&mac).filter(|had| {
            let same = Lease { expires_s: lease.expires_s, ..(*had).clone() } == lease;
            same && had.expires_s <= lease.expires_s && had.expires_s > now_s + LEASE_S * 9 / 10
        });
        Answer::Give(had.cloned().unwrap_or(lease))
    }

    /// What guests call themselves, by card.
    pub fn names(&self, now_s: u64) -> impl Iterator<Item = (Mac, &HostName)> {
        let lasts = move |lease: &&Lease| ends(lease) > now_s;
        self.leases.values().filter(lasts).filter_map(|lease| Some((lease.mac, lease.name.as_ref()?)))
    }

    /// When the next lease that lasts ends.
    pub fn next_name_end(&self, now_s: u64) -> Option<u64> {
        self.leases.values().map(ends).filter(|end| *end > now_s).min()
    }

    /// What the guest at a card calls itself.
    pub fn name_of(&self, mac: Mac, now_s: u64) -> Option<&HostName> {
        self.leases.get(&mac).filter(|lease| ends(lease) > now_s)?.name.as_ref()
    }

    /// Whether another guest has that name.
    pub fn has_name(&self, pool: &Pool, name: &HostName, mac: Mac, now_s: u64) -> bool {
        let is_it = |other: &Option<HostName>| other.as_ref() == Some(name);
        let reserved = pool.reserved.values().any(|r| r.mac != mac && is_it(&r.name));
        reserved || self.leases.values().any(|l| l.mac != mac && ends(l) > now_s && is_it(&l.name))
    }

    /// The address that a card gets: what is reserved for it, what it has, what it wants, the one that its own number leads to, any that is free.
    fn choose(&self, pool: &Pool, mac: Mac, wanted: Option<Ipv4Addr>, now_s: u64) -> Option<Ipv4Addr> {
        // Who has it keeps it until its lease ends; the card gets another one meanwhile.
        let reserved = pool.reserved.get(&mac).map(|reserved| reserved.address);
        if let Some(address) = reserved.filter(|address| self.is_free(*address, mac, now_s)) {
            return Some(address);
        }
        let may = |address: &Ipv4Addr| {
            pool.contains(*address)
                && !pool.reserved_for_another(*address, mac)
                && self.is_free(*address, mac, now_s)
        };
        let has = self.leases.get(&mac).map(|lease| lease.address);
        let offered = || {
            let held =
                self.held.iter().find(|(_, (holder, until))| *holder == Some(mac) && *until > now_s)?;
            Some(*held.0)
        };
        if has.is_none() && self.leases.len() >= MOST_LEASES {
            return None;
        }
        has.filter(may).or_else(|| offered().filter(may)).or_else(|| wanted.filter(may)).or_else(|| {
            let (first, last) = (u32::from(pool.range.0), u32::from(pool.range.1));
            let size = u64::from(last.saturating_sub(first)) + 1;
            let from =
                mac.0.iter().fold(0u64, |sum, byte| sum.wrapping_mul(131).wrapping_add((*byte).into()))
                    % size;
            let at = |step: u64| {
                u32::try_from((from + step) % size).ok().map(|offset| Ipv4Addr::from(first + offset))
            };
            (0..size).filter_map(at).find(|address| may(address))
        })
    }

    fn is_free(&self, address: Ipv4Addr, mac: Mac, now_s: u64) -> bool {
        let held = self.held.get(&address).filter(|(_, until)| *until > now_s);
        let lease = self.of(address).filter(|lease| !is_over(lease, now_s));
        held.is_none_or(|(holder, _)| *holder == Some(mac)) && lease.is_none_or(|lease| lease.mac == mac)
    }

    fn hold(&mut self, address: Ipv4Addr, holder: Option<Mac>, until: u64, now_s: u64) {
        if self.held.len() >= MOST_REMEMBERED {
            self.held.retain(|_, (_, until)| *until > now_s);
        }
        if holder.is_some() {
            self.held.retain(|_, (other, _)| *other != holder);
        }
        if self.held.len() < MOST_REMEMBERED {
            self.held.insert(address, (holder, until));
        }
    }
}

/// The guests' names, as `/etc/hosts` would have them. Of two guests that want a name, the one for which it is reserved has it, or the first by card.
pub fn hosts(pool: &Pool, book: &Book, now_s: u64) -> String {
    let reserved = pool.reserved.values().filter_map(|r| Some((r.address, r.name.as_ref()?)));
    let leased = book.leases().filter(|lease| ends(lease) > now_s);
    let leased = leased.filter_map(|lease| Some((lease.address, lease.name.as_ref()?)));
    let (mut text, mut taken) = (String::new(), BTreeSet::new());
    for (address, name) in reserved.chain(leased) {
        let name = name.to_string().to_ascii_lowercase();
        if RESERVED.contains(&name.as_str()) || !taken.insert(name.clone()) {
            continue;
        }
        let full = pool.domain.as_ref().map_or_else(String::new, |domain| format!("{name}.{domain} "));
        let _ = writeln!(text, "{address} {full}{name}");
    }
    text
}

/// Whether its address is anybody's.
fn is_over(lease: &Lease, now_s: u64) -> bool {
    ends(lease).saturating_add(GRACE_S) <= now_s
}

/// When a lease ends; 0 is never.
pub fn ends(lease: &Lease) -> u64 {
    if lease.expires_s == 0 { u64::MAX } else { lease.expires_s }
}
