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

use crate::{
    model::{
        Claim, NodeName, VmId,
        ceph::{ClientAddress, ImageName, Lock, Recorded, Users},
    },
    sabotage::{self, Bug},
};

/// An entry that ends sooner than this, in seconds, is written again: five years.
pub const LEAST_S: u64 = 5 * 365 * 24 * 3600;

/// Who is shut out of those users of an image of whom nothing is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unrecorded {
    /// Those that are on these hosts.
    On(BTreeSet<IpAddr>),
    /// All: nobody else may have it open.
    All,
}

impl Unrecorded {
    fn includes(&self, client: &ClientAddress) -> bool {
        match self {
            Self::On(hosts) => hosts.contains(&client.host.ip()),
            Self::All => true,
        }
    }
}

/// Who is to be shut out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The clients of the instances that must not write any more.
    pub recorded: BTreeSet<ClientAddress>,
    /// The clients of instances that may: none of them is shut out, whatever else is said of it.
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
    if !open.is_empty() && !sabotage::commits(Bug::LocksBeforeBlocklist) {
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
    let mut clients = recorded.clone();
    for (image, unrecorded) in images {
        let users = facts.users.get(image).into_iter().flat_map(Users::addresses);
        clients.extend(users.filter(|client| unrecorded.includes(client)));
    }
    clients.retain(|client| !spared.contains(client));
    clients
}

/// A VM that some node may be executing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// By whom. Of several the first executes it, until that leaves the claim to another.
    pub by: Claim,
    /// The images of the VM's list and of its definition.
    pub images: BTreeSet<ImageName>,
}

/// Everything of a node that is proven dead: whatever is recorded of it; whoever has open what only it may have open; and, of what others
/// may have open too, whoever is on its hosts, `published` or recorded. If no host of it is known, that is nobody: it has never spoken
/// to Ceph, and everybody there may be somebody who lives.
pub fn of_dead_node(
    dead: &NodeName,
    published: Option<IpAddr>,
    claimed: &[Claimed],
    records: &[Recorded],
) -> Request {
    let mut request = Request::default();
    let (theirs, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.node == *dead);
    request.spared.extend(others.iter().flat_map(|record| &record.clients.clients));
    let recorded = theirs.iter().flat_map(|record| &record.clients.clients);
    request.recorded.extend(recorded.filter(|client| !request.spared.contains(client)));
    let hosts: BTreeSet<IpAddr> =
        request.recorded.iter().map(|client| client.host.ip()).chain(published).collect();
    for image in theirs.iter().flat_map(|record| &record.clients.images) {
        request.images.insert(image.clone(), Unrecorded::On(hosts.clone()));
    }
    for image in claimed.iter().filter(|vm| vm.by.names(dead)).flat_map(|vm| &vm.images) {
        let lives = |vm: &Claimed| vm.images.contains(image) && executes_elsewhere(&vm.by, dead);
        let unrecorded =
            if claimed.iter().any(lives) { Unrecorded::On(hosts.clone()) } else { Unrecorded::All };
        request.images.insert(image.clone(), unrecorded);
    }
    request
}

/// A guest that a dead source was sending has not executed at its target, and is started anew.
fn executes_elsewhere(claim: &Claim, dead: &NodeName) -> bool {
    claim.iter().next().is_some_and(|first| first != dead)
}

/// Whatever is recorded of a VM that is off everywhere and about to start. An image may be another VM's as well, of which a record names
/// all who have it open on its node: those are not this VM's alone.
pub fn of_ended_instances(vm: VmId, records: &[Recorded]) -> Request {
    let mut request = Request::default();
    let (its, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.vm == vm);
    request.spared.extend(others.iter().flat_map(|record| &record.clients.clients));
    for Recorded { clients, .. } in its {
        request.recorded.extend(clients.clients.difference(&request.spared));
        request.images.extend(clients.images.iter().map(|image| (image.clone(), nobody())));
    }
    request
}

/// What is left of a VM that executes nowhere, and whose images no other VM may have open: what is recorded of it, and who holds a lock there and
/// is not heard any more. Who is heard may be an operator's tool, and is spared.
pub fn of_vm_that_is_off(vm: VmId, users: &BTreeMap<ImageName, Users>, records: &[Recorded]) -> Request {
    let mut request = of_ended_instances(vm, records);
    for (image, users) in users {
        let silent = users.locks.iter().map(|lock| lock.address).filter(|at| !users.watchers.contains(at));
        let silent: BTreeSet<_> = silent.filter(|at| !request.spared.contains(at)).collect();
        if !silent.is_empty() {
            request.recorded.extend(silent);
            request.images.insert(image.clone(), nobody());
        }
    }
    request
}

fn nobody() -> Unrecorded {
    Unrecorded::On(BTreeSet::new())
}

impl Request {
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
