//! What Ceph and the tree have of what a command names, and nothing more.

use std::collections::BTreeMap;

use pvc_core::{
    model::{
        ClusterView, DomainSpec, NodeName, StorageCommand, Vm, VmId, VmName,
        ceph::{ImageName, PoolName, Users, VolumeName},
        found::Found,
        storage_command::Only,
        task::{Task, TaskState},
    },
    plan::{
        storage::{Facts, Locks, ShutOuts, locks},
        storage_fence::{images, of_vm_that_is_off},
        vm::last_words,
    },
};
use pvc_host::ceph::CephError;
use pvc_store::{
    StoreError,
    schema::{self, ceph},
};

use super::{Seen, TaskReconciler};
use crate::{controller::StepError, vm_clients::images_of};

/// So many images of a pool are late one after the other before no more are asked for.
const LATE: usize = 4;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ceph(#[from] CephError),
}

impl TaskReconciler {
    pub(super) async fn look(&self, view: &ClusterView, task: &Task) -> Result<Facts, Error> {
        let mut facts = Facts::default();
        let aside = |pool| image(pool, &VolumeName::of_task(&task.mark()));
        match &task.command {
            StorageCommand::PoolAdd { pool, .. } => facts.pool = self.ceph.pool(pool).await?,
            StorageCommand::PoolRemove { pool } => {
                let aside = PoolName::of_task(&task.mark());
                facts.pool = self.ceph.pool(pool).await?;
                facts.pool_aside = self.ceph.pool(&aside).await?;
                let now = if facts.pool_aside.is_some() { &aside } else { pool };
                facts.images = self.ceph.images(now).await?;
                facts.hidden = self.ceph.hidden(now).await?;
                facts.is_in_tree = self.is_there(ceph::pool_path(pool)).await?;
                self.users(view, |image| image.pool == *pool, &mut facts).await?;
            }
            StorageCommand::VolumeAdd { pool, volume, .. } => {
                facts.pool = self.ceph.pool(pool).await?;
                facts.image = self.ceph.image(&image(pool, volume)).await?;
                facts.space = self.ceph.figures().await?.space;
            }
            StorageCommand::VolumeResize { pool, volume, .. } => {
                self.of_volume(view, &image(pool, volume), &mut facts).await?;
            }
            StorageCommand::VolumeRename { pool, volume, new } => {
                self.of_volume(view, &image(pool, volume), &mut facts).await?;
                facts.renamed = self.ceph.image(&image(pool, new)).await?;
            }
            StorageCommand::VolumeClone { pool, volume, new, .. } => {
                facts.image = self.ceph.image(&image(pool, volume)).await?;
                facts.renamed = self.ceph.image(&image(pool, new)).await?;
                facts.aside = self.ceph.image(&aside(pool)).await?;
                facts.space = self.ceph.figures().await?.space;
            }
            StorageCommand::SnapshotRollback { pool, volume, .. } => {
                let image = image(pool, volume);
                self.of_volume(view, &image, &mut facts).await?;
                facts.used_by.retain(|name| may_execute(view, name));
                facts.aside = self.ceph.image(&aside(pool)).await?;
                facts.open = self.ceph.users(&image).await?.unwrap_or_default().watchers;
            }
            StorageCommand::VolumeRemove { pool, volume } => {
                self.of_volume(view, &image(pool, volume), &mut facts).await?;
                facts.is_in_tree = self.is_there(ceph::volume_path(pool, volume)).await?;
            }
            StorageCommand::SnapshotAdd { pool, volume, .. }
            | StorageCommand::SnapshotRename { pool, volume, .. } => {
                facts.image = self.ceph.image(&image(pool, volume)).await?;
            }
            StorageCommand::SnapshotRemove { pool, volume, snapshot } => {
                facts.image = self.ceph.image(&image(pool, volume)).await?;
                facts.is_in_tree = self.is_there(ceph::snapshot_path(pool, volume, snapshot)).await?;
            }
            StorageCommand::OsdIn { .. }
            | StorageCommand::OsdOut { .. }
            | StorageCommand::OsdSet { .. }
            | StorageCommand::OsdUnset { .. } => facts.osds = self.ceph.osds().await?,
            StorageCommand::FlushLocks { vm } => self.locks(view, *vm, &mut facts).await?,
            StorageCommand::Locks { pool } => facts.found = Some(self.who_holds_locks(view, pool).await?),
            StorageCommand::FenceList { node } => {
                facts.found = Some(Found::ShutOut(self.shut_out_now(view).await?.rows(view, node)));
            }
            StorageCommand::FenceLift { .. } => facts.shut_out = self.shut_out_now(view).await?,
            StorageCommand::OsdAdd { node, .. } => {
                facts.impossible = Some(match view.node(node) {
                    None => format!("there is no node {node}"),
                    Some(_) => format!("node {node} does not manage storage (enable_storage)"),
                });
            }
            StorageCommand::OsdRemove { id } => {
                facts.is_in_tree = self.is_there(ceph::osd_path(*id)).await?;
                let host = self.ceph.osd_map().await?.all.remove(id).map(|osd| osd.host);
                facts.impossible = host.map(|host| match host {
                    Some(host) => format!(
                        "OSD {id} is on {host}, which is no node of this cluster that manages storage: if it is down for good, `pvc storage osd remove --force {id}` removes it"
                    ),
                    None => format!("Ceph does not know on which host OSD {id} is: `ceph osd purge {id}` removes one that was never used"),
                });
            }
        }
        Ok(facts)
    }

    /// The oldest task that waits for a node to make or remove an OSD, and no node will.
    pub(super) async fn nobodys(
        &self,
        view: &ClusterView,
        tasks: &[Seen],
    ) -> Result<Option<Seen>, StepError> {
        let manages = |name: &str| {
            view.all_nodes().any(|node| node.name.as_str() == name && node.storage != Some(false))
        };
        for seen in tasks.iter().filter(|seen| seen.task.state == TaskState::Waiting) {
            let is_nobodys = match &seen.task.command {
                StorageCommand::OsdAdd { node, .. } => !manages(node.as_str()),
                StorageCommand::OsdRemove { id } => {
                    let osds =
                        self.ceph.osd_map().await.map_err(|error| StepError::Failed(error.to_string()))?;
                    let host = osds.all.get(id).and_then(|osd| osd.host.clone());
                    // Forced, it needs no node.
                    !host.is_some_and(|host| seen.task.force || manages(&host))
                }
                _ => false,
            };
            if is_nobodys {
                return Ok(Some(seen.clone()));
            }
        }
        Ok(None)
    }

    async fn of_volume(&self, view: &ClusterView, image: &ImageName, facts: &mut Facts) -> Result<(), Error> {
        facts.image = self.ceph.image(image).await?;
        self.users(view, |used| used == image, facts).await?;
        Ok(())
    }

    async fn locks(&self, view: &ClusterView, id: VmId, facts: &mut Facts) -> Result<(), Error> {
        let Some(vm) = view.vm(id) else { return Ok(()) };
        let store = &*self.cluster.store;
        let (records, problems) = schema::vm_clients::read_all(store).await?;
        let mut images = images_of(store, vm).await?;
        let recorded = records.iter().filter(|record| record.vm == id);
        images.extend(recorded.flat_map(|record| record.clients.images.iter().cloned()));
        self.users(view, |image| images.contains(image), facts).await?;
        // Who executes nowhere has nothing open.
        facts.used_by.retain(|name| *name != vm.name && may_execute(view, name));
        if let Some(first) = problems.first() {
            facts.unreadable = Some(first.key.clone());
        }
        let mut users = BTreeMap::new();
        for image in images {
            let found = self.ceph.users(&image).await?.unwrap_or_default();
            users.insert(image, found);
        }
        let left = of_vm_that_is_off(id, &users, &records);
        let watched = |(image, users): (&ImageName, &Users)| {
            let image = image.clone();
            users.watchers.clone().into_iter().map(move |client| (image.clone(), client))
        };
        let open = users.iter().flat_map(watched).collect();
        let may_execute_on = may_execute_on(view, vm);
        facts.locks = Locks { vm: Some(vm.name.clone()), may_execute_on, left, open };
        Ok(())
    }

    async fn shut_out_now(&self, view: &ClusterView) -> Result<ShutOuts, Error> {
        let blocklisted = self.ceph.blocklisted().await?;
        let (notes, _) = schema::shut_out::read_all(&*self.cluster.store).await?;
        Ok(ShutOuts::new(view, &blocklisted, &notes, self.cluster.machine.unix_s()))
    }

    /// One image that cannot be looked at is told, and hides no other.
    async fn who_holds_locks(&self, view: &ClusterView, of: &Only<PoolName>) -> Result<Found, Error> {
        let blocklisted = self.ceph.blocklisted().await?;
        let (notes, _) = schema::shut_out::read_all(&*self.cluster.store).await?;
        let (records, _) = schema::vm_clients::read_all(&*self.cluster.store).await?;
        let (mut users, mut unknown) = (BTreeMap::new(), Vec::new());
        let pools = match of {
            Only::One(pool) => vec![pool.clone()],
            Only::All => {
                let pools = self.ceph.figures().await?.pools;
                pools.into_keys().filter_map(|name| name.parse().ok()).collect()
            }
        };
        for pool in &pools {
            match self.ceph.images(pool).await {
                Ok(names) => self.users_in(pool, &names, &mut users, &mut unknown).await,
                // One of something else than images has none.
                Err(CephError::Refused { .. }) if *of == Only::All => {}
                Err(error) => unknown.push(format!("pool {pool}: {error}")),
            }
        }
        let mut rows = locks(view, &users, &records, (&blocklisted, &notes));
        rows.unknown.extend(unknown);
        Ok(Found::Locks(rows))
    }

    /// Of a pool that does not answer only a few images are asked for.
    async fn users_in(
        &self,
        pool: &PoolName,
        names: &[String],
        users: &mut BTreeMap<ImageName, Result<Users, String>>,
        unknown: &mut Vec<String>,
    ) {
        let mut late = 0;
        for name in names.iter().filter_map(|name| format!("{pool}/{name}").parse::<ImageName>().ok()) {
            if late == LATE {
                unknown.push(format!("pool {pool} does not answer: nothing more of it was looked at"));
                return;
            }
            let found = self.ceph.users(&name).await;
            late = if matches!(found, Err(CephError::Late { .. })) { late + 1 } else { 0 };
            users.insert(name, found.map(Option::unwrap_or_default).map_err(|error| error.to_string()));
        }
    }

    async fn is_there(&self, path: String) -> Result<bool, StoreError> {
        Ok(self.cluster.store.get(&path).await?.is_some())
    }

    /// The VMs that have such an image, by their definitions or their lists.
    async fn users(
        &self,
        view: &ClusterView,
        such: impl Fn(&ImageName) -> bool,
        facts: &mut Facts,
    ) -> Result<(), StoreError> {
        facts.unreadable = view.vms.iter().find(|(_, vm)| vm.good().is_none()).map(|(id, _)| id.to_string());
        for vm in view.good_vms() {
            let mut named = vm.rbd_images.clone();
            match schema::vm::read_xml(&*self.cluster.store, vm.id).await {
                Ok(Some((xml, _))) => match DomainSpec::parse_as(&xml, vm.id, &vm.name) {
                    Ok(spec) => named.extend(spec.rbd_images),
                    Err(_) => facts.unreadable = Some(vm.name.to_string()),
                },
                Ok(None) => {}
                Err(StoreError::Refused { .. }) => facts.unreadable = Some(vm.name.to_string()),
                Err(error) => return Err(error),
            }
            // What is in a namespace, or is no name of an image, is at least in a pool.
            let strange = |name: &&str| {
                let image = name.split('/').next().map(|pool| format!("{pool}/?"));
                image.and_then(|image| image.parse::<ImageName>().ok())
            };
            let (images, odd) = images(&named);
            if images.iter().any(&such) || odd.iter().filter_map(strange).any(|image| such(&image)) {
                facts.used_by.push(vm.name.clone());
            }
        }
        self.recorded(view, such, facts).await
    }

    /// A VM that executes has open what its definition names no more, until it starts anew.
    async fn recorded(
        &self,
        view: &ClusterView,
        such: impl Fn(&ImageName) -> bool,
        facts: &mut Facts,
    ) -> Result<(), StoreError> {
        let (records, problems) = schema::vm_clients::read_all(&*self.cluster.store).await?;
        if let Some(first) = problems.first() {
            facts.unreadable = Some(first.key.clone());
        }
        for record in records.iter().filter(|record| record.clients.images.iter().any(&such)) {
            // What is recorded of one that is deleted is removed with its end.
            if let Some(vm) = view.vm(record.vm).filter(|vm| !facts.used_by.contains(&vm.name)) {
                facts.used_by.push(vm.name.clone());
            }
        }
        Ok(())
    }
}

/// In words. A claim may have been deleted while its VM executed: what nodes said last counts, too, this one's as any other's.
pub(super) fn may_execute_on(view: &ClusterView, vm: &Vm) -> Option<String> {
    if !vm.claim.value.is_empty() {
        return Some(vm.claim.value.to_string());
    }
    let said: Vec<&str> = last_words(view, vm.id, &vm.claim).map(NodeName::as_str).collect();
    (!said.is_empty()).then(|| format!("{} by its last word (runningdomains)", said.join(", ")))
}

fn may_execute(view: &ClusterView, name: &VmName) -> bool {
    view.good_vms().any(|vm| vm.name == *name && may_execute_on(view, vm).is_some())
}

fn image(pool: &PoolName, volume: &VolumeName) -> ImageName {
    ImageName { pool: pool.clone(), volume: volume.clone() }
}
