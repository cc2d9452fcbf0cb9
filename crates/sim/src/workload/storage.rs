//! What operators ask of storage. Nobody waits for what comes of it: that is a task of the primary.

use pvc_core::model::{StorageCommand, storage_command::Only};
use pvc_operate::storage;

use super::{No, Operator};

impl Operator<'_> {
    /// `pvc storage fence lift all`.
    pub(super) async fn lift_shut_outs(&self) -> Result<String, No> {
        self.ask_of_storage(&StorageCommand::FenceLift { client: Only::All }).await
    }

    /// `pvc vm flush-locks`.
    pub(super) async fn flush_locks(&self, vm: usize) -> Result<String, No> {
        self.ask_of_storage(&StorageCommand::FlushLocks { vm: self.id(vm) }).await
    }

    async fn ask_of_storage(&self, command: &StorageCommand) -> Result<String, No> {
        let now_s = self.cluster.around.journal.now().as_secs();
        let (id, _) = storage::ask(&self.client, command, false, "an operator", now_s).await?;
        Ok(format!("task {id}"))
    }
}
