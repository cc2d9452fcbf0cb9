//! Storage: what there is, and tasks for what is to change. The primary coordinator carries them out and decides whether each can be.

mod list;
mod task;

use std::time::Duration;

use async_trait::async_trait;
use pvc_core::{
    command::{Refusal, RefusalKind, task::refused},
    model::{
        StorageCommand,
        task::{TaskId, TaskState},
    },
};
use pvc_store::schema::task as schema;

pub use self::{
    list::{OsdRow, PoolRow, SnapshotRow, Texts, VolumeRow, osds, pools, snapshots, texts, volumes},
    task::{TaskRow, cancel, info, list as tasks, wait},
};
use crate::{
    Answer, Asked, Cluster, Failure, Goal, TaskGoal,
    wait::{Look, Pursuit},
};

/// Most changes take less than a second; one that removes a large volume does not.
const PATIENCE: Duration = Duration::from_mins(10);

/// Asks for a change; answers also which task it is. `force`: also if data is lost by it. `by` is shown with the task; `now_s` is the time, in seconds since 1970.
pub async fn ask(
    cluster: &Cluster,
    command: &StorageCommand,
    force: bool,
    by: &str,
    now_s: u64,
) -> Result<(TaskId, Asked), Failure> {
    let id = schema::ask(&*cluster.store, command, force, by, now_s).await.map_err(|error| match error {
        schema::AskError::Commit(error) => Failure::Commit(error),
        full @ schema::AskError::TooMany => Failure::Refused(Refusal {
            kind: RefusalKind::Refused,
            what: format!("nothing was asked for: {}", command.in_words()),
            why: full.to_string(),
            todo: "`pvc task list` shows what waits, and for whom".to_owned(),
        }),
        error => Failure::Failed(error.to_string()),
    })?;
    Ok((id, asked(id, format!("task {id} is asked for: {}", command.in_words()))))
}

/// What is looked at until a task is over.
pub(crate) fn pursuit(id: TaskId, goal: TaskGoal) -> Box<dyn Pursuit> {
    match goal {
        TaskGoal::Done => Box::new(Followed(id)),
        TaskGoal::Cancel => Box::new(task::Ending(id)),
    }
}

fn asked(id: TaskId, message: String) -> Asked {
    Asked {
        subject: format!("task {id}"),
        answer: Answer::new(message),
        written: true,
        more: format!("It goes on by itself; `pvc task info {id}` says how far it is"),
        patience: PATIENCE,
        pursuit: Some(Box::new(Followed(id))),
    }
}

/// A task that is followed.
#[derive(Debug)]
struct Followed(TaskId);

#[async_trait]
impl Pursuit for Followed {
    fn paths(&self) -> Vec<String> {
        vec![schema::path(self.0)]
    }

    fn goal(&self) -> Option<Goal> {
        Some(Goal::Task(self.0, TaskGoal::Done))
    }

    async fn look(&mut self, cluster: &Cluster) -> Result<Look<Answer>, Failure> {
        let task = task::read(cluster, self.0).await?;
        let because = |trouble: Option<String>| trouble.map(|why| format!(": {why}")).unwrap_or_default();
        Ok(match task.state {
            TaskState::Done { .. } => Look::Done(Answer::new(format!("done: {}", task.command.in_words()))),
            TaskState::Failed { ref why, refused: true, .. } => {
                return Err(refused(&task, why.clone()).into());
            }
            TaskState::Failed { why, .. } => {
                return Err(Failure::Failed(format!("could not {}: {why}", task.command.in_words())));
            }
            TaskState::Running { node, .. } => {
                let far = task.progress.map(|percent| format!(", {percent} % done")).unwrap_or_default();
                Look::NotYet(format!("{node} works on it{far}{}", because(task.trouble)))
            }
            TaskState::Waiting if task.command.is_of_a_device() => {
                let whom = match &task.command {
                    StorageCommand::OsdAdd { node, .. } => format!("waiting for node {node}"),
                    _ => "waiting for the node that has the OSD".to_owned(),
                };
                Look::NotYet(format!("{whom}{}", because(task.trouble)))
            }
            TaskState::Waiting => {
                let view = cluster.view_without_vms().await?;
                let primary = view.primary_holder.as_ref().map_or_else(
                    || "there is no primary coordinator now".to_owned(),
                    |primary| match view.node(primary).and_then(|node| node.storage) {
                        Some(false) => format!(
                            "the primary coordinator {primary} does not manage storage (enable_storage): \
                             `pvc node primary` makes one primary that does"
                        ),
                        _ => format!("waiting for the primary coordinator {primary}"),
                    },
                );
                Look::NotYet(format!("{primary}{}", because(task.trouble)))
            }
        })
    }
}
