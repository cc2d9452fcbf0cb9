//! Which task of OSDs is this node's. What is decided of one: see `pvc_core::plan::storage::osd::whose`.

use std::collections::BTreeSet;

use pvc_core::{
    model::{
        StorageCommand,
        osd::Osds,
        task::{Cancel, Task, TaskState},
    },
    plan::storage::{
        never_cancelled,
        osd::{Whose, whose},
    },
};
use pvc_store::schema::task::{self, Seen};

use super::OsdReconciler;
use crate::controller::StepError;

/// A task that this node carries out.
pub(super) struct Mine {
    pub(super) seen: Seen,
    /// Another node has begun it, and it is to end, for this reason.
    pub(super) to_end: Option<String>,
    /// Another task has its number.
    pub(super) is_others_number: bool,
}

impl OsdReconciler {
    /// The oldest task of this row that is this node's, and is not over.
    pub(super) async fn mine(&self) -> Result<Option<Mine>, StepError> {
        let (mut tasks, _) = task::read_all(&*self.cluster.store).await?;
        tasks.retain(|seen| !seen.task.is_over());
        let numbers = |of: &Task| -> BTreeSet<u32> {
            let others = tasks.iter().filter(|seen| seen.task.id != of.id);
            others.filter_map(|seen| seen.task.osd.as_ref()?.id).collect()
        };
        let mut osds = None;
        for seen in &tasks {
            let needs_map = match &seen.task.command {
                // What others have begun stands beside what is removed: this node's own new ones wait for none of it.
                StorageCommand::OsdAdd { node, .. } if (*node == self.cluster.me) == self.removes => continue,
                StorageCommand::OsdAdd { .. } => false,
                StorageCommand::OsdRemove { .. } if self.removes => true,
                _ => continue,
            };
            if needs_map && osds.is_none() {
                osds = Some(self.osds().await?);
            }
            let none = Osds::default();
            let map = osds.as_ref().unwrap_or(&none);
            let mut found = self.whose(&seen.task, map);
            let takes_over = matches!(&seen.task.state, TaskState::Running { node, .. } if *node != self.cluster.me.as_str());
            if takes_over && matches!(found, Whose::Mine | Whose::MineToEnd(_)) {
                // That another node does not do it is nothing to be mistaken about.
                self.cluster.catch_up_with_everybody().await?;
                found = self.whose(&seen.task, map);
            }
            let to_end = match found {
                Whose::Mine => None,
                Whose::MineToEnd(why) => Some(why),
                Whose::Others => continue,
                Whose::Waits(why) => {
                    self.tell(seen, &why, None).await?;
                    continue;
                }
                Whose::Back(node) => {
                    self.hand_back(seen, node).await?;
                    continue;
                }
            };
            let number = seen.task.osd.as_ref().and_then(|own| own.id);
            let is_others_number = number.is_some_and(|number| numbers(&seen.task).contains(&number));
            return Ok(Some(Mine { seen: seen.clone(), to_end, is_others_number }));
        }
        Ok(None)
    }

    fn whose(&self, task: &Task, osds: &Osds) -> Whose {
        let view = self.cluster.view();
        whose(task, osds, (self.cluster.me.as_str(), self.cluster.is_primary(&view)), view.all_nodes())
    }

    /// Its node was away when this one began.
    async fn hand_back(&self, seen: &Seen, node: String) -> Result<(), StepError> {
        let Some(own) = seen.task.osd.clone() else { return Ok(()) };
        let running = TaskState::Running { node, since_unix_s: self.cluster.machine.unix_s() };
        self.own(seen, own, Some(running)).await.map(drop)
    }

    /// Somebody wanted it to end while its node was away, which is back.
    pub(super) async fn goes_on(&self, seen: &Seen) -> Result<(), StepError> {
        let why = never_cancelled(&seen.task.command).unwrap_or_default();
        let why = format!("{} carries it out again, and {why}", self.cluster.me);
        let cancel = seen.task.cancel.clone().map(|cancel| Cancel { refused: Some(why), ..cancel });
        let task = Task { cancel, ..seen.task.clone() };
        task::by_node(&*self.cluster.store, seen, task, &[]).await?;
        Ok(())
    }

    async fn osds(&self) -> Result<Osds, StepError> {
        self.ceph.osd_map().await.map_err(|error| StepError::Failed(error.to_string()))
    }

    /// Whether this node is removing one.
    pub(super) async fn removes_one(&self) -> Result<bool, StepError> {
        let (tasks, _) = task::read_all(&*self.cluster.store).await?;
        Ok(tasks.iter().any(|Seen { task, .. }| {
            matches!(&task.state, TaskState::Running { node, .. } if *node == self.cluster.me.as_str())
                && matches!(task.command, StorageCommand::OsdRemove { .. })
        }))
    }
}
