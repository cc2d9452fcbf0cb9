//! Who is shut out of the storage before a VM starts anew, and in which order.
//!
//! ```text
//!   Blocklist ──► BreakLocks ──► Done
//!       ▲              │ that it was broken may have shortened an entry
//!       └──────────────┘
//! ```
//!
//! A lock is no fence: one that is broken without the blocklist leaves a writer that goes on, and nobody is told. So no lock is touched
//! before its holder is blocklisted for years, and nothing is done before that was seen in Ceph's own list. Before each step but the
//! first, whoever carries it out waits for the latest map of the OSDs. Decided anew from what Ceph says after each step, so it may be
//! repeated from any point.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::model::{
    NodeName, VmId,
    ceph::{ClientAddress, ImageName, Lock, Recorded, Users},
};

/// An entry that ends sooner than this, in seconds, is written again: five years.
pub const LEAST_S: u64 = 5 * 365 * 24 * 3600;

/// What becomes of the users of an image of whom nothing is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unrecorded {
    /// They are left alone.
    Spared,
    /// Those that are on a host of which somebody is recorded to be shut out; all, if nobody is.
    OfTheseHosts,
    /// All are shut out: nobody else may have it open.
    ShutOut,
}

/// Who is to be shut out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The clients of the instances that must not write any more.
    pub recorded: BTreeSet<ClientAddress>,
    /// The clients of instances that may.
    pub spared: BTreeSet<ClientAddress>,
    /// What the former may have open.
    pub images: BTreeMap<ImageName, Unrecorded>,
}

/// Everything a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Who is to be shut out.
    pub request: &'a Request,
    /// Who uses the request's images; what is not there has no users.
    pub users: &'a BTreeMap<ImageName, Users>,
    /// Whom Ceph has shut out, and until when (seconds since 1970).
    pub blocklisted: &'a BTreeMap<ClientAddress, u64>,
    /// Now, by the same clock.
    pub now_unix_s: u64,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Shut these out, for years.
    Blocklist(BTreeSet<ClientAddress>),
    /// Take these locks.
    BreakLocks(BTreeSet<(ImageName, Lock)>),
    /// All of them are shut out and hold nothing.
    Done(BTreeSet<ClientAddress>),
}

/// Decides the next step.
pub fn plan(facts: &Facts<'_>) -> Step {
    let clients = clients(facts);
    let lasts = |client: &ClientAddress| {
        facts.blocklisted.get(client).is_some_and(|until| *until >= facts.now_unix_s + LEAST_S)
    };
    let open: BTreeSet<ClientAddress> = clients.iter().copied().filter(|client| !lasts(client)).collect();
    if !open.is_empty() {
        return Step::Blocklist(open);
    }
    let used = facts.users.iter().filter(|(image, _)| facts.request.images.contains_key(image));
    let held = used.flat_map(|(image, users)| users.locks.iter().map(move |lock| (image, lock)));
    let theirs = held.filter(|(_, lock)| clients.contains(&lock.address));
    let locks: BTreeSet<_> = theirs.map(|(image, lock)| (image.clone(), lock.clone())).collect();
    if locks.is_empty() { Step::Done(clients) } else { Step::BreakLocks(locks) }
}

/// Everybody who is to be shut out, as far as is known now.
fn clients(facts: &Facts<'_>) -> BTreeSet<ClientAddress> {
    let Request { recorded, spared, images } = facts.request;
    let hosts: BTreeSet<IpAddr> = recorded.iter().map(|client| client.host.ip()).collect();
    let mut clients = recorded.clone();
    for (image, unrecorded) in images {
        let users = facts.users.get(image).into_iter().flat_map(Users::addresses);
        clients.extend(users.filter(|client| {
            !spared.contains(client)
                && match unrecorded {
                    Unrecorded::Spared => false,
                    Unrecorded::OfTheseHosts => hosts.is_empty() || hosts.contains(&client.host.ip()),
                    Unrecorded::ShutOut => true,
                }
        }));
    }
    clients
}

/// What a node that may have been executing a VM may have open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The images of the VM's list and of its definition.
    pub images: BTreeSet<ImageName>,
    /// Another node claims it, too: it has, or has had, the same images open.
    pub shared: bool,
}

/// Everything of a node that is proven dead: whatever is recorded of it, and whoever has open what only it may have open.
pub fn of_dead_node(dead: &NodeName, claimed: &[Claimed], records: &[Recorded]) -> Request {
    let mut request = Request::default();
    for record in records {
        if record.node == *dead {
            request.add(record);
        } else {
            request.spared.extend(&record.clients.clients);
        }
    }
    for Claimed { images, shared } in claimed {
        let unrecorded = if *shared { Unrecorded::OfTheseHosts } else { Unrecorded::ShutOut };
        for image in images {
            let known = request.images.entry(image.clone()).or_insert(unrecorded);
            *known = unrecorded.max(*known);
        }
    }
    request
}

/// Whatever is recorded of a VM that is off everywhere and about to start.
pub fn of_ended_instances(vm: VmId, records: &[Recorded]) -> Request {
    let mut request = Request::default();
    records.iter().filter(|record| record.vm == vm).for_each(|record| request.add(record));
    request
}

impl Request {
    fn add(&mut self, record: &Recorded) {
        self.recorded.extend(&record.clients.clients);
        for image in &record.clients.images {
            self.images.entry(image.clone()).or_insert(Unrecorded::Spared);
        }
    }

    /// Whether there is nobody to be shut out, and nothing to look for anybody at.
    pub fn is_empty(&self) -> bool {
        self.recorded.is_empty() && self.images.is_empty()
    }
}

/// The images of a VM's list, or of its definition, and the names that cannot be an image's: those cannot be looked at. A snapshot is
/// nobody's to write to, and a list of old clients may hold a lone `/`.
pub fn images<'a>(listed: impl IntoIterator<Item = &'a String>) -> (BTreeSet<ImageName>, Vec<&'a str>) {
    let written =
        listed.into_iter().map(String::as_str).filter(|image| *image != "/" && !image.contains('@'));
    let (mut images, mut strange) = (BTreeSet::new(), Vec::new());
    for name in written {
        match name.parse() {
            Ok(image) => drop(images.insert(image)),
            Err(_) => strange.push(name),
        }
    }
    (images, strange)
}
