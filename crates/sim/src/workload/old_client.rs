//! A client of 2019 that moves a VM by undefining and defining it: it waits for nobody, so whoever executed the VM may still do so.

use std::time::Duration;

use pvc_core::model::{VmChange, VmState};
use pvc_store::{Op, Store as _, Transaction, schema};
use tokio::time::sleep;

use super::{No, Operator};
use crate::event::Phase;

impl Operator<'_> {
    /// Undefines one of the VMs that execute on a node, defines it anew on another, and starts it.
    pub(super) async fn redefine_elsewhere(&self, from: usize, to: usize) -> Result<String, No> {
        let (store, from, to) = (&*self.store, self.name(from), self.name(to));
        let runs_there = |number: &usize| {
            let id = self.id(*number);
            self.cluster.around.journal.truth(|truth| truth.executing(id).any(|(node, _)| *node == from))
        };
        let number = (0..self.cluster.vms.len()).find(runs_there);
        let number = number.ok_or_else(|| No::Refused("nothing runs there".into()))?;
        let id = self.id(number);
        let view = self.client.view().await?;
        let seen = view.vm(id).ok_or_else(|| No::Refused("no such VM".into()))?;
        let Some((xml, _)) = schema::vm::read_xml(store, id).await? else {
            return Err(No::Refused("it has no definition".into()));
        };
        // Nothing new is desired when it is calm.
        if self.cluster.around.journal.truth(|truth| truth.phase) != Phase::Chaos {
            return Err(No::Refused("it is calm".into()));
        }
        for state in [VmState::Stop, VmState::Delete] {
            self.write(&[(number, "state", state.as_str())]).await?;
            sleep(Duration::from_secs(2)).await;
        }
        let vm = schema::vm::path(id);
        let keys = store.children(&vm).await?.unwrap_or_default();
        for path in keys.into_iter().map(|key| format!("{vm}/{key}")).chain([vm.clone()]) {
            store.commit(Transaction { ops: vec![Op::Delete { path, version: None }] }).await?;
        }
        // Also when it has become calm meanwhile: no daemon ends what runs and is in no tree.
        let (name, rbd_images) = (seen.name.clone(), seen.rbd_images.clone());
        let define = VmChange::Define { id, name, node: to.clone(), xml, rbd_images };
        schema::vm::apply(store, &define).await?;
        self.write(&[(number, "state", "start")]).await?;
        Ok(format!("vm{number} from {from} to {to}"))
    }
}
