//! Which address a guest gets by DHCPv6 (RFC 8415).
//!
//! A guest's address follows from who it is, so any primary finds the same one for it; the book of leases only says who else has it already. As in [`super::dhcp`], a lease
//! is written before its guest is told.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Write as _, net::Ipv6Addr};

use ipnet::Ipv6Net;

use super::{
    dhcp::{DECLINED_S, GRACE_S, MOST_LEASES, MOST_REMEMBERED},
    dns::RESERVED,
    guest_names::Names,
};
use crate::model::{
    HostName, Mac,
    dhcp6::{Asks6, Client, Duid, Granted, Lease6, Reply6, Request6, Status},
};

/// How long a guest has its address unless it asks again.
pub const LEASE6_S: u64 = 24 * 3600;

/// So many leases one card has at most. Guests want one; those without a disk say at each boot that they are somebody else.
const MOST_OF_A_CARD: usize = 8;

/// A network's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool6 {
    /// The gateway's address, in its network.
    pub gateway: Ipv6Net,
    /// The network's domain.
    pub domain: Option<String>,
}

impl Pool6 {
    /// `None`: the network is too small to have guests.
    pub fn new(gateway: Ipv6Net, domain: Option<String>) -> Option<Self> {
        (gateway.prefix_len() <= 126).then_some(Self { gateway, domain })
    }

    /// Whether a guest can have this address.
    pub(super) fn is_a_guests(&self, address: Ipv6Addr) -> bool {
        // The first is all routers' (RFC 4291, section 2.6.1).
        self.gateway.contains(&address)
            && address != self.gateway.addr()
            && address != self.gateway.trunc().addr()
    }

    /// The addresses that are tried for a guest, in this order: 48 bits of the end, so that none is one that a guest makes of its card.
    fn candidates(&self, client: &Client) -> impl Iterator<Item = Ipv6Addr> {
        let size = 1u128 << u32::from(128 - self.gateway.prefix_len()).min(48);
        let (net, from) = (u128::from(self.gateway.trunc().addr()), u128::from(number(client)));
        let tries = size.min((MOST_LEASES + MOST_REMEMBERED + 2) as u128);
        (0..tries).map(move |step| Ipv6Addr::from(net + (from + step) % size))
    }
}

/// A number that follows from who a guest is: FNV-1a, the same on every machine and of every version of this program.
fn number(client: &Client) -> u64 {
    let association = client.association.to_be_bytes();
    let bytes = client.mac.0.iter().chain(&association).chain(client.duid.bytes());
    let sum = bytes.fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The lower bits are those that count.
    sum ^ sum >> 32
}

/// What to do about a request, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer6 {
    /// Leases that have to be written.
    pub give: Vec<Lease6>,
    /// Leases that have to be removed.
    pub forget: Vec<Lease6>,
    /// What is said then.
    pub reply: Reply6,
}

/// A line of `/etc/hosts`.
pub(super) fn line(text: &mut String, pool: &Pool6, address: Ipv6Addr, name: &HostName) {
    let full = pool.domain.as_ref().map_or_else(String::new, |domain| format!("{name}.{domain} "));
    let _ = writeln!(text, "{address} {full}{name}");
}

/// Who has which address, in one network.
#[derive(Debug, Default)]
pub struct Book6 {
    leases: BTreeMap<Client, Lease6>,
    holders: BTreeMap<Ipv6Addr, Client>,
    /// In use by nobody knows whom, until then.
    declined: BTreeMap<Ipv6Addr, u64>,
}

impl Book6 {
    /// With what the state tree has. Of two leases of one address the one that ends later counts.
    pub fn new(leases: impl IntoIterator<Item = Lease6>) -> Self {
        let mut book = Self::default();
        for lease in leases {
            let other = book.holders.get(&lease.address).and_then(|holder| book.leases.get(holder));
            if other.is_none_or(|other| other.expires_s < lease.expires_s) {
                book.note(lease);
            }
        }
        book
    }

    /// Takes the leases that the state tree has now for all there are. What is declined stays so.
    pub fn reread(&mut self, leases: impl IntoIterator<Item = Lease6>) {
        let declined = std::mem::take(&mut self.declined);
        *self = Self { declined, ..Self::new(leases) };
    }

    /// All leases, by card.
    pub fn leases(&self) -> impl Iterator<Item = &Lease6> {
        self.leases.values()
    }

    /// A lease that is over.
    pub fn ended(&self, now_s: u64) -> Option<&Lease6> {
        self.leases.values().find(|lease| is_over(lease, now_s))
    }

    /// When the next lease is over.
    pub fn next_end(&self) -> Option<u64> {
        self.leases.values().map(|lease| lease.expires_s.saturating_add(GRACE_S)).min()
    }

    /// Takes note of a lease that is written; says whether that changes anything.
    pub fn note(&mut self, lease: Lease6) -> bool {
        if self.leases.get(&lease.client) == Some(&lease) {
            return false;
        }
        self.forget(&lease.client);
        if let Some(other) = self.holders.insert(lease.address, lease.client.clone()) {
            self.leases.remove(&other);
        }
        self.leases.insert(lease.client.clone(), lease);
        true
    }

    /// Takes note that it has none any more.
    pub fn forget(&mut self, client: &Client) {
        if let Some(before) = self.leases.remove(client) {
            self.holders.remove(&before.address);
        }
    }

    /// Whether a guest at another card has that name.
    pub fn has_name(&self, name: &HostName, mac: Mac, now_s: u64) -> bool {
        let has = |lease: &Lease6| {
            lease.client.mac != mac && lease.expires_s > now_s && lease.name.as_ref() == Some(name)
        };
        self.leases.values().any(has)
    }

    /// What guests call themselves, by card.
    pub fn names(&self, now_s: u64) -> impl Iterator<Item = (Mac, &HostName)> {
        let lasts = move |lease: &&Lease6| lease.expires_s > now_s;
        self.leases.values().filter(lasts).filter_map(|lease| Some((lease.client.mac, lease.name.as_ref()?)))
    }

    /// When the next lease that lasts ends.
    pub fn next_name_end(&self, now_s: u64) -> Option<u64> {
        self.leases.values().map(|lease| lease.expires_s).filter(|end| *end > now_s).min()
    }

    /// What the guest at a card calls itself.
    pub fn name_of(&self, mac: Mac, now_s: u64) -> Option<&HostName> {
        let lasts = |lease: &&Lease6| lease.client.mac == mac && lease.expires_s > now_s;
        self.leases.values().filter(lasts).find_map(|lease| lease.name.as_ref())
    }

    /// Decides what to do about a request that came at that time; `None`: it is not for this server, or nothing can be said. `is_anothers` knows the names
    /// of those who have them otherwise.
    pub fn answer(
        &mut self,
        pool: &Pool6,
        request: &Request6,
        is_anothers: impl Fn(&HostName) -> bool,
        now_s: u64,
    ) -> Option<Answer6> {
        let own = Duid::of_gateway(pool.gateway.addr());
        let is_named = request.server.as_ref().map(|server| *server == own);
        // Whom each kind has to name, and whom it must not (RFC 8415, section 16).
        let is_for_us = match request.asks {
            Asks6::Discover | Asks6::KeepFromAny | Asks6::Confirm => is_named.is_none(),
            Asks6::Take | Asks6::Keep | Asks6::Decline | Asks6::Release => is_named == Some(true),
            Asks6::Inform => is_named != Some(false) && request.wants.is_empty(),
        };
        if !is_for_us || request.client.is_none() && request.asks != Asks6::Inform {
            return None;
        }
        let mut answer = Answer6 {
            give: Vec::new(),
            forget: Vec::new(),
            reply: Reply6 {
                is_offer: request.asks == Asks6::Discover,
                server: own,
                client: request.client.clone(),
                granted: Vec::new(),
                status: None,
                resolver: pool.gateway.addr(),
                domain: pool.domain.clone(),
            },
        };
        match request.asks {
            Asks6::Inform => {}
            Asks6::Confirm => {
                let mut all = request.wants.iter().flat_map(|(_, addresses)| addresses).peekable();
                all.peek()?;
                let fits = all.all(|address| pool.gateway.contains(address));
                answer.reply.status = Some(if fits { Status::Success } else { Status::NotOnLink });
            }
            Asks6::Release | Asks6::Decline => self.let_go(request, now_s, &mut answer),
            Asks6::Discover | Asks6::Take | Asks6::Keep | Asks6::KeepFromAny => {
                self.grant(pool, request, is_anothers, now_s, &mut answer);
            }
        }
        Some(answer)
    }

    fn grant(
        &self,
        pool: &Pool6,
        request: &Request6,
        is_anothers: impl Fn(&HostName) -> bool,
        now_s: u64,
        answer: &mut Answer6,
    ) {
        let domain = pool.domain.as_deref().unwrap_or_default();
        let name = request.name.as_ref().and_then(|said| HostName::of(said, domain).ok());
        // A guest does not get a name that another one has.
        let name = name.filter(|name| !self.has_name(name, request.mac, now_s) && !is_anothers(name));
        let mut taken: Vec<Ipv6Addr> = Vec::new();
        for (association, said) in &request.wants {
            let mut granted =
                Granted { association: *association, address: None, not: Vec::new(), status: None };
            let client = of(request, *association);
            match client.and_then(|client| Some((self.choose(pool, &client, &taken, now_s)?, client))) {
                Some((address, client)) => {
                    taken.push(address);
                    let lease = Lease6 { client, address, name: name.clone(), expires_s: now_s + LEASE6_S };
                    let lease = self.had(&lease, now_s).unwrap_or(lease);
                    let left = u32::try_from(lease.expires_s.saturating_sub(now_s)).unwrap_or(u32::MAX);
                    granted.address = Some((address, left));
                    if !answer.reply.is_offer {
                        answer.give.push(lease);
                    }
                }
                None => granted.status = Some(Status::NoAddresses),
            }
            if matches!(request.asks, Asks6::Keep | Asks6::KeepFromAny) {
                let is_his = |address: &&Ipv6Addr| granted.address.is_some_and(|(his, _)| his == **address);
                granted.not = said.iter().filter(|address| !is_his(address)).copied().collect();
            }
            answer.reply.granted.push(granted);
        }
        self.take_names(request, answer);
        self.make_room(request.mac, answer);
    }

    /// A guest that says after a boot that it is somebody else has its name at its new address, not at one that it has no more.
    fn take_names(&self, request: &Request6, answer: &mut Answer6) {
        let is_before = |lease: &&Lease6| {
            let is_his = |given: &Lease6| given.name.is_some() && given.name == lease.name;
            lease.client.mac == request.mac
                && Some(&lease.client.duid) != request.client.as_ref()
                && answer.give.iter().any(is_his)
        };
        let before: Vec<Lease6> = self.leases.values().filter(is_before).cloned().collect();
        answer.give.extend(before.into_iter().map(|lease| Lease6 { name: None, ..lease }));
    }

    /// Of the leases of a card that has too many those go that end first.
    fn make_room(&self, mac: Mac, answer: &mut Answer6) {
        let is_new = |lease: &&Lease6| !self.leases.contains_key(&lease.client);
        let new = answer.give.iter().filter(is_new).count();
        let is_given = |lease: &Lease6| answer.give.iter().any(|given| given.client == lease.client);
        let mut others: Vec<&Lease6> =
            self.leases.values().filter(|lease| lease.client.mac == mac && !is_given(lease)).collect();
        let too_many = (others.len() + answer.give.len()).saturating_sub(MOST_OF_A_CARD);
        if new > 0 && too_many > 0 {
            others.sort_by_key(|lease| lease.expires_s);
            answer.forget.extend(others.into_iter().take(too_many).cloned());
        }
    }

    /// What is written and lasts long enough: a guest that asks again and again is not written again and again.
    fn had(&self, lease: &Lease6, now_s: u64) -> Option<Lease6> {
        let had = self.leases.get(&lease.client)?;
        let same = Lease6 { expires_s: lease.expires_s, ..had.clone() } == *lease;
        let lasts = had.expires_s <= lease.expires_s && had.expires_s > now_s + LEASE6_S * 9 / 10;
        (same && lasts).then(|| had.clone())
    }

    /// The address that a guest gets: what it has, else the first that is free of those that follow from who it is.
    fn choose(&self, pool: &Pool6, client: &Client, taken: &[Ipv6Addr], now_s: u64) -> Option<Ipv6Addr> {
        let is_free = |address: &Ipv6Addr| {
            let is_declined = self.declined.get(address).is_some_and(|until| *until > now_s);
            let lease = self.holders.get(address).and_then(|holder| self.leases.get(holder));
            let is_anothers = lease.is_some_and(|lease| lease.client != *client && !is_over(lease, now_s));
            pool.is_a_guests(*address) && !is_declined && !is_anothers && !taken.contains(address)
        };
        let has = self.leases.get(client).map(|lease| lease.address);
        if has.is_none() && self.leases.len() >= MOST_LEASES {
            return None;
        }
        has.filter(is_free).or_else(|| pool.candidates(client).find(is_free))
    }

    fn let_go(&mut self, request: &Request6, now_s: u64, answer: &mut Answer6) {
        answer.reply.status = Some(Status::Success);
        for (association, said) in &request.wants {
            let lease = of(request, *association).and_then(|client| self.leases.get(&client));
            match lease.filter(|lease| said.contains(&lease.address)).cloned() {
                Some(lease) => {
                    if request.asks == Asks6::Decline {
                        self.decline(lease.address, now_s);
                    }
                    answer.forget.push(lease);
                }
                None => answer.reply.granted.push(Granted {
                    association: *association,
                    address: None,
                    not: Vec::new(),
                    status: Some(Status::NoBinding),
                }),
            }
        }
    }

    fn decline(&mut self, address: Ipv6Addr, now_s: u64) {
        if self.declined.len() >= MOST_REMEMBERED {
            self.declined.retain(|_, until| *until > now_s);
        }
        if self.declined.len() < MOST_REMEMBERED {
            self.declined.insert(address, now_s + DECLINED_S);
        }
    }
}

fn of(request: &Request6, association: u32) -> Option<Client> {
    Some(Client { mac: request.mac, association, duid: request.client.clone()? })
}

/// Whether its address is anybody's.
fn is_over(lease: &Lease6, now_s: u64) -> bool {
    lease.expires_s.saturating_add(GRACE_S) <= now_s
}

/// The guests' names, as `/etc/hosts` would have them.
pub fn hosts(pool: &Pool6, book: &Book6, names: &Names<'_>, now_s: u64) -> String {
    let mut text = String::new();
    for lease in book.leases().filter(|lease| lease.expires_s > now_s && pool.is_a_guests(lease.address)) {
        let Some(name) = &lease.name else { continue };
        if names.holder(name) == Some(lease.client.mac) && !RESERVED.contains(&name.as_str()) {
            line(&mut text, pool, lease.address, name);
        }
    }
    text
}
