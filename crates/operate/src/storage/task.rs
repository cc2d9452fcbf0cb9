//! Tasks: which there are, what became of each.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

use pvc_core::{
    command::task as command,
    model::{
        Problem,
        found::Found,
        task::{Task, TaskId, TaskState},
    },
};
use pvc_store::schema::task as schema;
use serde::Serialize;

use super::asked;
use crate::{
    Answer, Asked, Cluster, Failure,
    write::{ATTEMPTS, Tries},
};

/// A task with the words of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    pub state: &'static str,
    /// The node that carries it out, or did last, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it was over, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_at: Option<u64>,
    /// Why it failed, or what keeps it from going on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What it has found, if it was to look for something.
    #[serde(skip_serializing_if = "Option::is_none")]
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
            state,
            node,
            over_at,
            trouble: why.or(task.trouble),
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

/// Takes back a task that nobody has begun.
pub async fn cancel(cluster: &Cluster, id: TaskId, by: &str, now_s: u64) -> Result<Answer, Failure> {
    let mut tries = Tries::of(ATTEMPTS);
    loop {
        let seen = seen(cluster, id).await?;
        command::cancel(&seen.task)?;
        let written = cluster.store.commit(schema::cancel(&seen, by, now_s)).await;
        if tries.wrote(written.map(drop))? {
            return Ok(Answer::new(format!("task {id} is cancelled")));
        }
    }
}
