//! What Ceph, this node and the definitions of VMs have of what a task of OSDs names.

use pvc_core::{
    model::{StorageCommand, ceph::OsdId, task::Task},
    plan::storage::osd::Facts,
};
use pvc_store::schema::ceph::osd_path;
use tokio::time::Instant;

use super::{ATTEMPTS, Memory, OsdReconciler, definitions::Definitions, text};
use crate::controller::StepError;

impl OsdReconciler {
    /// What a task is planned from that this node carries out.
    pub(super) async fn look(&self, task: &Task) -> Result<Facts, String> {
        {
            let mut memory = self.memory();
            if memory.of != Some(task.id) {
                *memory = Memory { of: Some(task.id), ..Memory::default() };
            }
        }
        let own = task.osd.clone();
        let osds = self.ceph.osd_map().await.map_err(text)?;
        let mut facts = Facts { own, osds, ..Facts::default() };
        let id = match &task.command {
            StorageCommand::OsdAdd { device, .. } => {
                let vms = self.definitions().await?;
                match self.host.device(device, &vms.names()).await {
                    Ok(found) => {
                        facts.disk_of = found.as_ref().and_then(|found| vms.vm(found.named.as_ref()?));
                        facts.device = found;
                        facts.unread_vm = vms.unread;
                        self.memory().looks = 0;
                    }
                    Err(error) => {
                        let mut memory = self.memory();
                        memory.looks += 1;
                        if memory.looks < ATTEMPTS {
                            return Err(text(error));
                        }
                        facts.unreadable = Some(text(error));
                    }
                }
                facts.removes_another = self.removes_one().await.map_err(|error| format!("{error:?}"))?;
                facts.own.as_ref().and_then(|own| own.id).map(OsdId)
            }
            StorageCommand::OsdRemove { id } => {
                facts.is_in_tree = self.cluster.store.get(&osd_path(*id)).await.map_err(text)?.is_some();
                let is_out = facts.osds.all.get(id).is_some_and(|osd| !osd.is_in);
                if facts.own.is_some() && is_out {
                    facts.unsafe_since = self.ceph.unsafe_to_destroy(*id).await.map_err(text)?;
                }
                Some(*id)
            }
            _ => None,
        };
        if let Some(id) = id {
            facts.local = self.host.local(id).await.map_err(text)?;
        }
        let mut memory = self.memory();
        if let Some(osd) = id.and_then(|id| facts.osds.all.get(&id)) {
            memory.most_pgs = memory.most_pgs.max(osd.pgs);
            let since = memory.silent.unwrap_or_else(Instant::now);
            memory.silent = (osd.was_up && !osd.is_up).then_some(since);
        }
        facts.silent = memory.silent.map(|since| since.elapsed());
        facts.given_up.clone_from(&memory.given_up);
        facts.is_written = memory.is_written;
        facts.starts = memory.started.map(|started| started.elapsed());
        Ok(facts)
    }

    async fn definitions(&self) -> Result<Definitions, String> {
        Definitions::read(&self.cluster).await.map_err(|error| match error {
            StepError::Failed(why) => why,
            error => format!("the definitions of VMs could not be read: {error:?}"),
        })
    }
}
