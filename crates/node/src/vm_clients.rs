//! The Ceph clients by which VMs write are shut out before anybody else writes. Who they are is recorded by `reconcile::client_records`.

use std::collections::BTreeSet;

use pvc_core::{
    model::{
        ClusterView, DomainSpec, NodeName, Problem, Vm,
        ceph::{ImageName, Recorded},
    },
    plan::storage_fence::{Claimed, Request, images, of_dead_node, of_ended_instances},
};
use pvc_host::storage_fence::StorageFence;
use pvc_store::{Store, StoreError, schema};

/// Shuts out everything of a node that is proven dead, and removes what is recorded of it.
///
/// # Errors
/// In words for an operator: somebody may still be writing.
pub(crate) async fn shut_out_node(
    store: &dyn Store,
    storage: &dyn StorageFence,
    dead: &NodeName,
    view: &ClusterView,
) -> Result<(), String> {
    let (records, problems) = schema::vm_clients::read_all(store).await.map_err(text)?;
    readable(problems.into_iter().filter(|problem| problem.key.ends_with(&format!("@{dead}"))))?;
    let mut claimed = Vec::new();
    for vm in view.good_vms().filter(|vm| vm.claim.value.names(dead)) {
        let images = images_of(store, vm).await.map_err(text)?;
        claimed.push(Claimed { images, shared: !vm.claim.value.is_only(dead) });
    }
    let request = of_dead_node(dead, &claimed, &records);
    let theirs: Vec<&Recorded> = records.iter().filter(|record| record.node == *dead).collect();
    carry_out(store, storage, dead, &request, &theirs).await
}

/// Shuts out whatever is recorded of a VM that is off everywhere and about to start on this node, and removes the records.
///
/// # Errors
/// As [`shut_out_node`].
pub(crate) async fn shut_out_ended(
    store: &dyn Store,
    storage: &dyn StorageFence,
    me: &NodeName,
    spec: &DomainSpec,
) -> Result<(), String> {
    if let Some(strange) = images(&spec.rbd_images).1.first() {
        return Err(format!(
            "the name of its RBD image {strange} is none that pvcd can look at; it must be pool/image"
        ));
    }
    let vm = spec.id;
    let (records, problems) = schema::vm_clients::read_vm(store, vm).await.map_err(text)?;
    readable(problems.into_iter())?;
    let request = of_ended_instances(vm, &records);
    let of = records.first().map_or(me, |record| &record.node);
    carry_out(store, storage, of, &request, &records.iter().collect::<Vec<_>>()).await
}

async fn carry_out(
    store: &dyn Store,
    storage: &dyn StorageFence,
    of: &NodeName,
    request: &Request,
    records: &[&Recorded],
) -> Result<(), String> {
    if !request.is_empty() {
        storage.shut_out(of, request).await.map_err(|error| error.to_string())?;
    }
    for record in records {
        schema::vm_clients::remove(store, record).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What a VM may have open: its list goes stale, since clients change the definition alone. A name that cannot be looked at is left out:
/// this node starts no VM with one, and the list may say anything.
pub(crate) async fn images_of(store: &dyn Store, vm: &Vm) -> Result<BTreeSet<ImageName>, StoreError> {
    let (mut all, _) = images(&vm.rbd_images);
    if let Some((xml, _)) = schema::vm::read_xml(store, vm.id).await?
        && let Ok(spec) = DomainSpec::parse_as(&xml, vm.id, &vm.name)
    {
        // One that cannot be read has started nothing.
        all.extend(images(&spec.rbd_images).0);
    }
    Ok(all)
}

fn text(error: StoreError) -> String {
    error.to_string()
}

/// Whom a record that cannot be read is about is not known, so nobody is known to be shut out.
fn readable(mut problems: impl Iterator<Item = Problem>) -> Result<(), String> {
    match problems.next() {
        None => Ok(()),
        Some(problem) => Err(problem.to_string()),
    }
}
