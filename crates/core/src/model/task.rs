//! Tasks: what operators have asked of storage, and what became of it.

use serde::{Deserialize, Serialize};

use super::{found::Found, storage_command::StorageCommand};

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
    /// What it has found, if it is to look for something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
}

impl Task {
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
