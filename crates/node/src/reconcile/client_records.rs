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
    NodeName, VmId,
    ceph::{ClientAddress, ImageName, Recorded, VmClients},
};
use pvc_host::ceph::{Ceph, CephError};
use pvc_store::{Store, mirror::Mirror, schema};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{debug, warn};

use super::vm::Active;
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
}

impl Recorder {
    /// Records, for ever.
    pub(crate) async fn run(mut self) {
        let mut recorded: HashMap<VmId, Instant> = HashMap::new();
        let (mut said, mut wait) = (String::new(), AGAIN);
        loop {
            let complete = match self.round(&mut recorded).await {
                Ok(complete) => {
                    said.clear();
                    complete
                }
                Err(why) => {
                    if why != said {
                        warn!("the clients by which VMs write cannot be recorded now: {why}");
                        said = why;
                    }
                    false
                }
            };
            tokio::select! {
                biased;
                changed = self.active.changed() => match changed {
                    Ok(()) => wait = AGAIN,
                    Err(_) => return,
                },
                () = sleep(if complete { VERIFY } else { wait }) => wait = (wait * 2).min(VERIFY),
            }
        }
    }

    /// Whether all that executes is recorded, and nothing is of what does not.
    async fn round(&mut self, recorded: &mut HashMap<VmId, Instant>) -> Result<bool, String> {
        let Some(active) = self.active.borrow_and_update().clone() else { return Ok(true) };
        recorded.retain(|id, _| active.contains_key(id));
        if !self.mirror.synced() {
            return Ok(false);
        }
        let (view, mut complete) = (self.mirror.view(), true);
        let due = active.keys().filter(|id| recorded.get(*id).is_none_or(|at| at.elapsed() >= VERIFY));
        for id in due.copied().collect::<Vec<VmId>>() {
            let Some(vm) = view.vm(id) else { continue };
            let images = images_of(&*self.store, vm).await.map_err(|error| error.to_string())?;
            if images.is_empty() || self.record(id, images).await? {
                recorded.insert(id, Instant::now());
            } else {
                complete = false;
            }
        }
        let records = schema::vm_clients::read_node(&*self.store, &self.me).await;
        for record in records.map_err(|error| error.to_string())?.0 {
            if !active.contains_key(&record.vm) {
                complete &= self.remove_if_closed(&record).await?;
            }
        }
        Ok(complete)
    }

    /// Whether each of its images is open now, by a client that is recorded.
    async fn record(&self, vm: VmId, images: BTreeSet<ImageName>) -> Result<bool, String> {
        let host = self.ceph.own_address().await.map_err(text)?.host.ip();
        let (records, _) =
            schema::vm_clients::read_vm(&*self.store, vm).await.map_err(|error| error.to_string())?;
        let before = records.into_iter().find(|record| record.node == self.me).map(|record| record.clients);
        let mut clients: VmClients = before.clone().unwrap_or_default();
        let mut all_open = true;
        clients.images.extend(images);
        for image in &clients.images {
            let here = self.clients(image, host).await.map_err(text)?;
            all_open &= !here.is_empty();
            clients.clients.extend(here);
        }
        if before.as_ref() != Some(&clients) && !clients.clients.is_empty() {
            let done = schema::vm_clients::record(&*self.store, vm, &self.me, &clients).await;
            done.map_err(|error| error.to_string())?;
            debug!(%vm, "its Ceph clients are recorded: {:?}", clients.clients);
        }
        Ok(all_open)
    }

    async fn clients(&self, image: &ImageName, host: IpAddr) -> Result<Vec<ClientAddress>, CephError> {
        let users = self.ceph.users(image).await?.unwrap_or_default();
        Ok(users.addresses().filter(|client| client.host.ip() == host).collect())
    }

    /// It is off here: if it closed its images, nothing of it is left to be shut out. Whether it did.
    async fn remove_if_closed(&self, record: &Recorded) -> Result<bool, String> {
        for image in &record.clients.images {
            let users = self.ceph.users(image).await.map_err(text)?.unwrap_or_default();
            if users.addresses().any(|user| record.clients.clients.contains(&user)) {
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
