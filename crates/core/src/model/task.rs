//! Tasks: what operators have asked of storage, and what became of it.

use serde::{Deserialize, Serialize};

use super::{
    ceph::{Changer, TaskMark},
    found::Found,
    osd::TasksOsd,
    storage_command::StorageCommand,
};

/// Counts up from 1.
pub type TaskId = u32;

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// What is asked for.
    #[serde(with = "line")]
    pub command: StorageCommand,
    /// Also if data is lost by it: a volume that shrinks.
    #[serde(default)]
    pub force: bool,
    /// Who asked.
    pub by: String,
    /// When, in seconds since 1970.
    pub asked_unix_s: u64,
    /// What became of it.
    pub state: TaskState,
    /// What keeps it from going on, until it does.
    #[serde(default)]
    pub trouble: Option<String>,
    /// How far the change is that is under way, in percent; only of what Ceph tells that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<u8>,
    /// The client of Ceph by which an image was last changed for it, written before the change. Whoever carries the task on, and is not the one who
    /// knows that this change has ended, has it shut out first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changer: Option<Changer>,
    /// The OSD that is made or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub osd: Option<TasksOsd>,
    /// That it is to end before it is done, of one that was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Cancel>,
    /// What it has found, if it is to look for something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
}

/// Somebody wants a task to end before it is done. Whoever carries the task out, now or next, finds this there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Who.
    pub by: String,
    /// When, in seconds since 1970.
    pub at_unix_s: u64,
    /// Why it goes on all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Cancel {
    /// What the task has failed for then.
    pub fn why(&self) -> String {
        format!("cancelled by {}", self.by)
    }
}

impl Task {
    /// For what it leaves in Ceph until it is over.
    pub fn mark(&self) -> TaskMark {
        TaskMark { id: self.id, asked_unix_s: self.asked_unix_s }
    }

    /// That it is to end, until that is refused.
    pub fn is_to_end(&self) -> Option<&Cancel> {
        self.cancel.as_ref().filter(|cancel| cancel.refused.is_none())
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        matches!(self.state, TaskState::Done { .. } | TaskState::Failed { .. })
    }
}

/// What became of a task. It is written in this order, and what is over stays so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
#[allow(missing_docs, reason = "when in seconds since 1970, and by whom or why")]
pub enum TaskState {
    /// Nothing was done yet.
    Waiting,
    /// It was found to be possible, and is carried out: from here on a part of it may be done.
    Running { node: String, since_unix_s: u64 },
    /// It is done.
    Done { at_unix_s: u64 },
    /// It is not done, and is tried no more.
    Failed {
        at_unix_s: u64,
        why: String,
        /// It was never begun: nothing was changed.
        #[serde(default)]
        refused: bool,
    },
}

/// A command as its line.
mod line {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::StorageCommand;

    pub(super) fn serialize<S: Serializer>(command: &StorageCommand, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(command)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<StorageCommand, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
