//! Tasks: which there are, what became of each.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

use std::borrow::Cow;

use async_trait::async_trait;
use pvc_core::{
    command::task::{self as command, Cancelled},
    model::{
        Problem,
        found::Found,
        task::{Task, TaskId, TaskState},
    },
};
use pvc_store::schema::task as schema;
use serde::{Deserialize, Serialize};

use super::asked;
use crate::{
    Answer, Asked, Cluster, Failure, Goal, TaskGoal,
    wait::{Look, Pursuit},
    write::{ATTEMPTS, Tries},
};

/// A task with the words of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    pub id: TaskId,
    /// What is asked for, as a line.
    pub command: String,
    /// … and in words.
    pub what: String,
    /// Also if data is lost by it.
    pub force: bool,
    /// Who asked.
    pub by: String,
    /// When, in seconds since 1970.
    pub asked_at: u64,
    /// `waiting`, `running`, `done` or `failed`.
    pub state: Cow<'static, str>,
    /// The node that carries it out, or did last, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it was over, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_at: Option<u64>,
    /// Why it failed, or what keeps it from going on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// How far it is, in percent, while that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<u8>,
    /// Who wants it to end before it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
    /// Why it goes on all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goes_on: Option<String>,
    /// What it has found, if it was to look for something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
}

impl From<Task> for TaskRow {
    fn from(task: Task) -> Self {
        let (state, node, over_at, why) = match task.state {
            TaskState::Waiting => ("waiting", None, None, None),
            TaskState::Running { node, .. } => ("running", Some(node), None, None),
            TaskState::Done { at_unix_s } => ("done", None, Some(at_unix_s), None),
            TaskState::Failed { at_unix_s, why, .. } => ("failed", None, Some(at_unix_s), Some(why)),
        };
        Self {
            id: task.id,
            command: task.command.to_string(),
            what: task.command.in_words(),
            force: task.force,
            by: task.by,
            asked_at: task.asked_unix_s,
            progress: task.progress.filter(|_| state == "running"),
            goes_on: task
                .cancel
                .as_ref()
                .and_then(|cancel| cancel.refused.clone())
                .filter(|_| state == "running"),
            state: state.into(),
            node,
            over_at,
            trouble: why.or(task.trouble),
            cancelled_by: task.cancel.map(|cancel| cancel.by),
            found: task.found,
        }
    }
}

async fn seen(cluster: &Cluster, id: TaskId) -> Result<schema::Seen, Failure> {
    let seen = schema::read(&*cluster.store, id).await?;
    Ok(seen.ok_or_else(|| command::missing(id))?)
}

pub(super) async fn read(cluster: &Cluster, id: TaskId) -> Result<Task, Failure> {
    Ok(seen(cluster, id).await?.task)
}

/// All tasks, the oldest first, and what is wrong with those that cannot be read.
pub async fn list(cluster: &Cluster) -> Result<(Vec<TaskRow>, Vec<Problem>), Failure> {
    let (tasks, problems) = schema::read_all(&*cluster.store).await?;
    Ok((tasks.into_iter().map(|seen| seen.task.into()).collect(), problems))
}

/// One task.
pub async fn info(cluster: &Cluster, id: TaskId) -> Result<TaskRow, Failure> {
    Ok(read(cluster, id).await?.into())
}

/// Follows a task.
pub async fn wait(cluster: &Cluster, id: TaskId) -> Result<Asked, Failure> {
    let task = read(cluster, id).await?;
    Ok(asked(id, format!("task {id} is asked for: {}", task.command.in_words())))
}

/// Has a task end before it is done: at once if nobody has begun it, otherwise as soon as that is safe.
pub async fn cancel(cluster: &Cluster, id: TaskId, by: &str, now_s: u64) -> Result<Asked, Failure> {
    let mut tries = Tries::of(ATTEMPTS);
    loop {
        let seen = seen(cluster, id).await?;
        // Whether its node goes on with it matters only for what is done to devices.
        let nodes = if seen.task.command.is_of_a_device() { cluster.nodes().await?.all } else { Vec::new() };
        let how = command::cancel(&seen.task, &nodes)?;
        let store = &*cluster.store;
        let written = match how {
            Cancelled::AtOnce => schema::cancel(store, &seen, by, now_s).await,
            Cancelled::ByItsWorker if seen.task.is_to_end().is_some() => Ok(()),
            Cancelled::ByItsWorker => schema::ask_to_end(store, &seen, by, now_s).await,
        };
        if tries.wrote(written)? {
            let (message, pursuit): (_, Option<Box<dyn Pursuit>>) = match how {
                Cancelled::AtOnce => (format!("task {id} is cancelled"), None),
                Cancelled::ByItsWorker => {
                    (format!("task {id} is to be cancelled"), Some(Box::new(Ending(id))))
                }
            };
            return Ok(Asked { answer: Answer::new(message), pursuit, ..asked(id, String::new()) });
        }
    }
}

/// A task that is to end before it is done.
#[derive(Debug)]
pub(super) struct Ending(pub(super) TaskId);

#[async_trait]
impl Pursuit for Ending {
    fn paths(&self) -> Vec<String> {
        vec![schema::path(self.0)]
    }

    fn goal(&self) -> Option<Goal> {
        Some(Goal::Task(self.0, TaskGoal::Cancel))
    }

    async fn look(&mut self, cluster: &Cluster) -> Result<Look<Answer>, Failure> {
        let (id, task) = (self.0, read(cluster, self.0).await?);
        let refused = task.cancel.as_ref().and_then(|cancel| cancel.refused.clone());
        Ok(match &task.state {
            TaskState::Done { .. } => {
                return Err(command::goes_on(&task, "it was done before".to_owned()).into());
            }
            TaskState::Failed { why, .. } => Look::Done(Answer::new(format!("task {id} is over: {why}"))),
            _ if refused.is_some() => {
                return Err(command::goes_on(&task, refused.unwrap_or_default()).into());
            }
            _ => {
                let because = task.trouble.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                Look::NotYet(format!("it ends what it has begun{because}"))
            }
        })
    }
}
