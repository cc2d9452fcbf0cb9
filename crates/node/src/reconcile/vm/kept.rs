//! Takes away what libvirt keeps beside the cluster's definitions: an autostart flag starts a VM at the next boot whatever the cluster
//! says by then, and a definition of its own is what `virsh start` starts.
//!
//! Only of VMs that the state tree has, with a definition to start them from; never anything that would be lost with it. Guests run
//! on. What is done, or cannot be, is told once.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use pvc_core::model::{ClusterView, Vm, VmId, VmState};
use pvc_host::hypervisor::{Hypervisor, HypervisorError, Kept, Undefined};
use tracing::{debug, info, warn};

/// See the module's documentation.
#[derive(Default)]
pub(super) struct KeptDefinitions {
    told: Mutex<BTreeSet<VmId>>,
}

impl KeptDefinitions {
    /// Looks at all of them once.
    pub(super) async fn tidy(&self, hypervisor: &dyn Hypervisor, view: &ClusterView) {
        let kept = match hypervisor.kept().await {
            Ok(kept) => kept,
            Err(error) => {
                debug!(%error, "could not list libvirt's own definitions");
                return;
            }
        };
        for kept in kept {
            let Some(vm) = view.vm(kept.id).filter(|vm| is_ours_to_tidy(vm)) else { continue };
            if let Err(error) = self.take_away(hypervisor, kept, vm).await {
                debug!(vm = %vm.name, %error, "could not take away libvirt's own definition");
            }
        }
    }

    async fn take_away(
        &self,
        hypervisor: &dyn Hypervisor,
        kept: Kept,
        vm: &Vm,
    ) -> Result<(), HypervisorError> {
        if kept.autostart {
            hypervisor.end_autostart(vm.id).await?;
            warn!(vm = %vm.name, "libvirt would have started it at boot by itself: autostart is off now");
        }
        // The cluster's definition may be the only other one.
        if vm.xml_version.is_none() {
            return Ok(());
        }
        match hypervisor.undefine(vm.id).await? {
            Undefined::Gone => {
                info!(vm = %vm.name, "libvirt's own definition of it is removed: the cluster has one");
            }
            Undefined::Holds(what) => {
                if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(vm.id) {
                    warn!(
                        vm = %vm.name,
                        "libvirt has a definition of its own, with which would be lost: {what}. It is kept; never start it with virsh"
                    );
                }
            }
        }
        Ok(())
    }
}

/// One that is being migrated, or removed from the cluster, is left as it is.
fn is_ours_to_tidy(vm: &Vm) -> bool {
    vm.state.value != VmState::Delete && vm.claim.value.between().is_none()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pvc_core::model::{Entry, VmChange};
    use pvc_host::hypervisor::{Activity, Seen, fake::FakeHypervisor};
    use pvc_store::{memory::MemoryTree, schema};

    use super::*;

    fn id(n: u8) -> VmId {
        format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
    }

    #[tokio::test]
    async fn what_libvirt_keeps_of_the_clusters_vms_is_taken_away_unless_something_is_lost_with_it() {
        let store = MemoryTree::new().client();
        schema::root::init(&*store).await.unwrap();
        let mut view = ClusterView::default();
        for n in 1..=3 {
            let (node, name) = ("a".parse().unwrap(), format!("vm{n}").parse().unwrap());
            let define =
                VmChange::Define { id: id(n), name, node, xml: "<domain/>".into(), rbd_images: vec![] };
            schema::vm::apply(&*store, &define).await.unwrap();
            let mut vm = schema::vm::read(&*store, id(n)).await.unwrap().unwrap().good().unwrap().clone();
            if n == 3 {
                vm.xml_version = None;
            }
            Arc::make_mut(&mut view.vms).insert(id(n), Arc::new(Entry::Good(vm)));
        }
        let hypervisor = FakeHypervisor::new();
        let guest = |n: u8| Seen {
            id: id(n),
            name: format!("vm{n}"),
            activity: Activity::Running,
            memory_mib: 64,
            vcpus: 1,
        };
        for n in 1..=4 {
            hypervisor.define(guest(n), true);
        }
        hypervisor.boot();
        hypervisor.holds(id(2), "snapshots");
        KeptDefinitions::default().tidy(&*hypervisor, &view).await;
        let left: Vec<(VmId, bool)> =
            hypervisor.kept().await.unwrap().iter().map(|kept| (kept.id, kept.autostart)).collect();
        assert_eq!(left, [(id(2), false), (id(3), false), (id(4), true)], "4 is none of the cluster's");
        assert_eq!(hypervisor.executing().len(), 4, "guests run on");
    }
}
