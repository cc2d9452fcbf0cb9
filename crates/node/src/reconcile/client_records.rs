//! Records the Ceph clients of what executes on this node, and removes the records of what has ended in order.
//!
//! A record only grows while its VM is here: a client that is not heard of for a while may go on. What ended without closing its images
//! keeps its record until its clients are shut out, which is done before the VM's next start.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use pvc_core::model::{
    ClusterView, NodeName, Vm, VmId,
    ceph::{ClientAddress, ImageName, Recorded, VmClients},
};
use pvc_host::{
    ceph::{Ceph, CephError},
    hypervisor::Seen,
};
use pvc_store::{CommitError, Store, Transaction, mirror::Mirror, schema};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, warn};

use super::vm::{Active, LastEvents};
use crate::{pool_turns::PoolTurns, vm_clients::images_of};

/// How soon it is looked again at what is not recorded, or not gone, yet: twice as long each time, since a list of images may name what
/// nobody opens.
const AGAIN: Duration = Duration::from_secs(2);
/// How often what is recorded is looked at again, and the longest of those: a disk may have been added.
const VERIFY: Duration = Duration::from_mins(2);

/// See the module's documentation.
pub(crate) struct Recorder {
    pub(crate) me: NodeName,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) mirror: Mirror,
    pub(crate) ceph: Arc<dyn Ceph>,
    /// What runs here.
    pub(crate) active: watch::Receiver<Active>,
    /// What libvirt says of it.
    pub(crate) events: watch::Receiver<LastEvents>,
}

/// What is known of the clients of one VM.
struct Noted {
    /// Whether it was here when it was looked at, and the last event of it before that.
    seen: (bool, Option<u64>),
    /// It is being looked at.
    busy: bool,
    /// When it is looked at next, and how long after that if it is not complete then.
    due: Instant,
    pause: Duration,
    /// What was told of it last.
    failed: Option<String>,
}

/// A VM that is looked at.
enum Look {
    /// It executes here.
    Here(VmId),
    /// It is off here, and is recorded.
    Gone(Recorded),
}

impl Look {
    fn vm(&self) -> VmId {
        match self {
            Self::Here(id) => *id,
            Self::Gone(record) => record.vm,
        }
    }
}

/// Whether all of a VM is recorded, or gone, or why that is not known.
type Outcome = (VmId, Result<bool, String>);

impl Recorder {
    /// Records, for ever. Each VM is looked at by itself: what one of them waits for holds up no other.
    pub(crate) async fn run(self) {
        let Self { me, store, mirror, ceph, active, events } = self;
        let desk = Desk { me, store, mirror, ceph, turns: PoolTurns::default() };
        tokio::select! {
            biased;
            () = Self::record(&desk, active, events) => {}
            () = desk.keep_saying_host() => {}
        }
    }

    /// Until nobody says any more what runs here.
    async fn record(
        desk: &Desk,
        mut active: watch::Receiver<Active>,
        mut events: watch::Receiver<LastEvents>,
    ) {
        let mut noted = HashMap::<VmId, Noted>::new();
        let mut under_way = FuturesUnordered::new();
        let (mut trouble, mut pause) = (None, AGAIN);
        loop {
            let here = active.borrow_and_update().clone();
            let seen = |events: &LastEvents, id| {
                (here.as_ref().is_some_and(|here| here.contains_key(&id)), events.of(id))
            };
            let looks = match &here {
                Some(here) => desk.all(here).await,
                None => Ok(Vec::new()),
            };
            // Nothing is looked at before then.
            let mut hold = None;
            match looks {
                Ok(looks) => {
                    (trouble, pause) = (None, AGAIN);
                    let last = events.borrow_and_update();
                    let known: BTreeSet<VmId> = looks.iter().map(Look::vm).collect();
                    noted.retain(|id, noted| noted.busy || known.contains(id));
                    for look in looks {
                        let (id, seen) = (look.vm(), seen(&last, look.vm()));
                        let noted = noted.entry(id).or_insert_with(|| Noted::new(seen));
                        if !noted.busy && (noted.seen != seen || noted.due <= Instant::now()) {
                            (noted.busy, noted.seen) = (true, seen);
                            under_way.push(desk.look(look));
                        }
                    }
                }
                Err(why) => {
                    if let Some(why) = why {
                        tell(&mut trouble, why);
                    }
                    hold = Some(Instant::now() + pause);
                    pause = (pause * 2).min(VERIFY);
                }
            }
            // Until there is something to be looked at.
            loop {
                let due = noted.values().filter(|noted| !noted.busy).map(|noted| noted.due);
                let next = hold.or_else(|| due.min()).unwrap_or_else(|| Instant::now() + VERIFY);
                tokio::select! {
                    biased;
                    Some((id, outcome)) = under_way.next() => {
                        if let Some(noted) = noted.get_mut(&id) {
                            noted.note(outcome, noted.seen == seen(&events.borrow(), id));
                        }
                    }
                    changed = active.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    // It may be another instance: what has ended and begun between two looks is here all the same.
                    changed = events.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    () = sleep_until(next) => break,
                }
            }
        }
    }
}

impl Noted {
    fn new(seen: (bool, Option<u64>)) -> Self {
        Self { seen, busy: false, due: Instant::now(), pause: AGAIN, failed: None }
    }

    /// What a look has found; `current`: nothing was heard of the VM since that look began.
    fn note(&mut self, outcome: Result<bool, String>, current: bool) {
        self.busy = false;
        let complete = outcome == Ok(true);
        match outcome {
            Ok(_) => self.failed = None,
            Err(why) => tell(&mut self.failed, why),
        }
        if complete || !current {
            self.pause = AGAIN;
        }
        let pause = if complete { VERIFY } else { self.pause };
        self.due = if current { Instant::now() + pause } else { Instant::now() };
        if !complete {
            self.pause = (self.pause * 2).min(VERIFY);
        }
    }
}

/// Once for as long as it stays so.
fn tell(said: &mut Option<String>, why: String) {
    if said.as_ref() != Some(&why) {
        warn!("the clients by which VMs write cannot be recorded now: {why}");
    }
    *said = Some(why);
}

/// What looks are made with.
struct Desk {
    me: NodeName,
    store: Arc<dyn Store>,
    mirror: Mirror,
    ceph: Arc<dyn Ceph>,
    turns: PoolTurns,
}

impl Desk {
    /// All that is to be looked at now and then.
    ///
    /// # Errors
    /// It cannot be told; why, if that is to be said here.
    async fn all(&self, here: &BTreeMap<VmId, Seen>) -> Result<Vec<Look>, Option<String>> {
        if !self.mirror.synced() {
            return Err(None);
        }
        let view = self.mirror.view();
        let records = schema::vm_clients::read_node(&*self.store, &self.me).await;
        let (records, _) = records.map_err(|error| Some(error.to_string()))?;
        let gone = records.into_iter().filter(|record| !here.contains_key(&record.vm));
        let known = here.keys().copied().filter(|id| view.vm(*id).is_some());
        Ok(known.map(Look::Here).chain(gone.map(Look::Gone)).collect())
    }

    async fn look(&self, look: Look) -> Outcome {
        let id = look.vm();
        let done = match look {
            Look::Here(id) => match self.mirror.view().vm(id) {
                Some(vm) => self.record(vm).await.map_err(|why| format!("{}: {why}", vm.name)),
                None => Ok(false),
            },
            Look::Gone(record) => {
                let done = self.remove_if_closed(&record).await;
                done.map_err(|why| format!("{}: {why}", record.vm))
            }
        };
        (id, done)
    }

    /// Says for ever where the Ceph clients of this node are. By itself: a connection to Ceph that hangs holds up nobody who is looked at by another way.
    async fn keep_saying_host(&self) {
        let (mut trouble, mut pause) = (None, AGAIN);
        loop {
            let synced = self.mirror.synced();
            let said = if synced { self.say_host(&self.mirror.view()).await } else { Ok(()) };
            pause = match said {
                Ok(()) => {
                    trouble = None;
                    if synced { VERIFY } else { AGAIN }
                }
                Err(why) => {
                    tell(&mut trouble, format!("where this node's clients are: {why}"));
                    (pause * 2).min(VERIFY)
                }
            };
            sleep(pause).await;
        }
    }

    /// Where the Ceph clients of this node are, which is said while it lives: whoever fences it finds by it whom it has not recorded.
    async fn say_host(&self, view: &ClusterView) -> Result<(), String> {
        let host = self.ceph.own_address().await.map_err(text)?.host.ip();
        if view.node(&self.me).is_some_and(|me| me.storage_host != Some(host)) {
            let said = schema::node::say_storage_host(&*self.store, &self.me, host).await;
            said.map_err(text)?;
        }
        Ok(())
    }

    /// Whether each of its images is open now, by a client that is recorded. A start records, too: what that has written meanwhile stays.
    async fn record(&self, vm: &Vm) -> Result<bool, String> {
        let images = images_of(&*self.store, vm).await.map_err(text)?;
        if images.is_empty() {
            return Ok(true);
        }
        // By all the pools that are asked, those also that only the record names.
        let recorded = schema::vm_clients::read_vm(&*self.store, vm.id).await.map_err(text)?.0;
        let mine = recorded.into_iter().filter(|record| record.node == self.me);
        let asked = images.iter().cloned().chain(mine.flat_map(|record| record.clients.images)).collect();
        let _turn = self.turns.of(&asked).acquire_owned().await;
        let here = self.ceph.own_hosts().await.map_err(text)?;
        // Anew: it may have waited.
        let (records, _) = schema::vm_clients::read_vm(&*self.store, vm.id).await.map_err(text)?;
        let before = records.iter().find(|record| record.node == self.me);
        let mut clients = before.map_or_else(VmClients::default, |record| record.clients.clone());
        let (mut all_open, mut failed) = (true, None);
        clients.images.extend(images);
        clients.boot = self.mirror.view().node(&self.me).and_then(|me| me.boot.clone());
        for image in &clients.images {
            match self.clients(image, &here).await {
                Ok(open) => {
                    all_open &= !open.is_empty();
                    clients.clients.extend(open);
                }
                // Those of the others are recorded all the same.
                Err(error) => failed = Some(format!("{image}: {error}")),
            }
        }
        if before.map(|record| &record.clients) != Some(&clients) && !clients.clients.is_empty() {
            let (record, also) = ((&clients, before), Transaction::default());
            match schema::vm_clients::record(&*self.store, vm.id, &self.me, record, &also).await {
                Ok(()) => debug!(vm = %vm.name, "its Ceph clients are recorded: {:?}", clients.clients),
                // Its start has recorded them meanwhile: it is looked again.
                Err(CommitError::Conflict { .. }) => all_open = false,
                Err(error) => return Err(error.to_string()),
            }
        }
        failed.map_or(Ok(all_open), Err)
    }

    async fn clients(
        &self,
        image: &ImageName,
        here: &BTreeSet<IpAddr>,
    ) -> Result<Vec<ClientAddress>, CephError> {
        let users = self.ceph.users(image).await?.unwrap_or_default();
        Ok(users.addresses().filter(|client| here.contains(&client.host.ip())).collect())
    }

    /// It is off here: if it closed its images, nothing of it is left to be shut out. Whether it did. Those of an image that is another
    /// VM's, too, may be that one's, as whose they are recorded.
    async fn remove_if_closed(&self, record: &Recorded) -> Result<bool, String> {
        let _turn = self.turns.of(&record.clients.images).acquire_owned().await;
        let (records, _) = schema::vm_clients::read_node(&*self.store, &self.me).await.map_err(text)?;
        let others = records.iter().filter(|other| other.vm != record.vm);
        let others: BTreeSet<_> = others.flat_map(|other| &other.clients.clients).collect();
        let own = |user: &ClientAddress| record.clients.clients.contains(user) && !others.contains(user);
        for image in &record.clients.images {
            let users = self.ceph.users(image).await.map_err(|error| format!("{image}: {error}"))?;
            if users.unwrap_or_default().addresses().any(|user| own(&user)) {
                return Ok(false);
            }
        }
        schema::vm_clients::remove(&*self.store, record).await.map_err(text)?;
        debug!(vm = %record.vm, "it has closed its images here");
        Ok(true)
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
