//! Records the Ceph clients of what executes on this node, and removes the records of what has ended in order.
//!
//! A record only grows while its VM is here: a client that is not heard of for a while may go on. What ended without closing its images
//! keeps its record until its clients are shut out, which is done before the VM's next start.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use pvc_core::model::{
    ClusterView, NodeName, Vm, VmId,
    ceph::{ClientAddress, ImageName, Recorded, VmClients},
};
use pvc_host::ceph::{Ceph, CephError};
use pvc_store::{CommitError, Store, Transaction, mirror::Mirror, schema};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{debug, warn};

use super::vm::{Active, LastEvents};
use crate::vm_clients::images_of;

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

/// When a VM was recorded, and the last event of it before.
type Known = HashMap<VmId, (Instant, Option<u64>)>;

/// What one round leaves to the next.
#[derive(Default)]
struct Left {
    /// Something is not recorded, or not gone, yet.
    open: bool,
    /// What could not be looked at, and why.
    failed: Vec<String>,
}

impl Recorder {
    /// Records, for ever.
    pub(crate) async fn run(mut self) {
        let mut recorded = Known::new();
        let (mut said, mut wait) = (Vec::new(), AGAIN);
        loop {
            let Left { open, failed } = self.round(&mut recorded).await;
            for news in failed.iter().filter(|why| !said.contains(*why)) {
                warn!("the clients by which VMs write cannot be recorded now: {news}");
            }
            let complete = !open && failed.is_empty();
            said = failed;
            tokio::select! {
                biased;
                changed = self.active.changed() => match changed {
                    Ok(()) => wait = AGAIN,
                    Err(_) => return,
                },
                // It may be another instance: what has ended and begun between two looks is here all the same.
                changed = self.events.changed() => match changed {
                    Ok(()) => wait = AGAIN,
                    Err(_) => return,
                },
                () = sleep(if complete { VERIFY } else { wait }) => wait = (wait * 2).min(VERIFY),
            }
        }
    }

    /// Records all that executes, and removes the records of what does not. What of one VM cannot be looked at holds up no other.
    async fn round(&mut self, recorded: &mut Known) -> Left {
        let mut left = Left::default();
        let Some(active) = self.active.borrow_and_update().clone() else { return left };
        recorded.retain(|id, _| active.contains_key(id));
        if !self.mirror.synced() {
            left.open = true;
            return left;
        }
        let view = self.mirror.view();
        let host = match self.say_host(&view).await {
            Ok(host) => host,
            Err(why) => {
                left.failed.push(why);
                return left;
            }
        };
        let events: HashMap<VmId, Option<u64>> = {
            let last = self.events.borrow_and_update();
            active.keys().map(|id| (*id, last.of(*id))).collect()
        };
        for (id, event) in events {
            let is_known = |(at, before): &(Instant, Option<u64>)| at.elapsed() < VERIFY && *before == event;
            if recorded.get(&id).is_some_and(is_known) {
                continue;
            }
            let Some(vm) = view.vm(id) else { continue };
            match self.record(vm, host).await {
                Ok(true) => drop(recorded.insert(id, (Instant::now(), event))),
                Ok(false) => left.open = true,
                Err(why) => left.failed.push(format!("{}: {why}", vm.name)),
            }
        }
        let records = match schema::vm_clients::read_node(&*self.store, &self.me).await {
            Ok((records, _)) => records,
            Err(error) => {
                left.failed.push(error.to_string());
                return left;
            }
        };
        let (here, gone): (Vec<_>, Vec<_>) =
            records.iter().partition(|record| active.contains_key(&record.vm));
        let live = here.into_iter().flat_map(|record| record.clients.clients.iter().copied()).collect();
        for record in gone {
            match self.remove_if_closed(record, &live).await {
                Ok(closed) => left.open |= !closed,
                Err(why) => left.failed.push(format!("{}: {why}", record.vm)),
            }
        }
        left
    }

    /// Where the Ceph clients of this node are, which is said while it lives: whoever fences it finds by it whom it has not recorded.
    async fn say_host(&self, view: &ClusterView) -> Result<IpAddr, String> {
        let host = self.ceph.own_address().await.map_err(text)?.host.ip();
        if view.node(&self.me).is_some_and(|me| me.storage_host != Some(host)) {
            let said = schema::node::say_storage_host(&*self.store, &self.me, host).await;
            said.map_err(|error| error.to_string())?;
        }
        Ok(host)
    }

    /// Whether each of its images is open now, by a client that is recorded. A start records, too: what that has written meanwhile stays.
    async fn record(&self, vm: &Vm, host: IpAddr) -> Result<bool, String> {
        let images = images_of(&*self.store, vm).await.map_err(|error| error.to_string())?;
        if images.is_empty() {
            return Ok(true);
        }
        let (records, _) =
            schema::vm_clients::read_vm(&*self.store, vm.id).await.map_err(|error| error.to_string())?;
        let before = records.iter().find(|record| record.node == self.me);
        let mut clients = before.map_or_else(VmClients::default, |record| record.clients.clone());
        let (mut all_open, mut failed) = (true, None);
        clients.images.extend(images);
        for image in &clients.images {
            match self.clients(image, host).await {
                Ok(here) => {
                    all_open &= !here.is_empty();
                    clients.clients.extend(here);
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

    async fn clients(&self, image: &ImageName, host: IpAddr) -> Result<Vec<ClientAddress>, CephError> {
        let users = self.ceph.users(image).await?.unwrap_or_default();
        Ok(users.addresses().filter(|client| client.host.ip() == host).collect())
    }

    /// It is off here: if it closed its images, nothing of it is left to be shut out. Whether it did. Those of an image that is another
    /// VM's, too, may be that one's: `live` are recorded of VMs that are here.
    async fn remove_if_closed(
        &self,
        record: &Recorded,
        live: &BTreeSet<ClientAddress>,
    ) -> Result<bool, String> {
        let own = |user: &ClientAddress| record.clients.clients.contains(user) && !live.contains(user);
        for image in &record.clients.images {
            let users = self.ceph.users(image).await.map_err(|error| format!("{image}: {error}"))?;
            if users.unwrap_or_default().addresses().any(|user| own(&user)) {
                return Ok(false);
            }
        }
        schema::vm_clients::remove(&*self.store, record).await.map_err(|error| error.to_string())?;
        debug!(vm = %record.vm, "it has closed its images here");
        Ok(true)
    }
}

fn text(error: CephError) -> String {
    error.to_string()
}
