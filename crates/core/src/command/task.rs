//! Commands on tasks.

use super::Refusal;
use crate::model::task::{Task, TaskId, TaskState};

/// There is none of that number.
pub fn missing(id: TaskId) -> Refusal {
    Refusal::not_found(
        format!("there is no task {id}"),
        "it was never asked for, or it was over long ago",
        "`pvc task list` shows those that there are",
    )
}

/// The primary has not begun it.
pub fn refused(task: &Task, why: String) -> Refusal {
    Refusal::refused(format!("could not {}", task.command.in_words()), why, "nothing was changed")
}

/// Takes back a task that nobody has begun.
pub fn cancel(task: &Task) -> Result<(), Refusal> {
    let what = format!("task {} was not cancelled", task.id);
    match &task.state {
        TaskState::Waiting => Ok(()),
        TaskState::Running { node, .. } => Err(Refusal::refused(
            what,
            format!("{node} carries it out already, and a part of it may be done"),
            format!("`pvc task wait {}` waits until it is over", task.id),
        )),
        TaskState::Done { .. } | TaskState::Failed { .. } => Err(Refusal::refused(
            what,
            "it is over",
            format!("`pvc task info {}` says how it ended", task.id),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_begun_or_over_is_not_cancelled() {
        let task = |state| Task {
            id: 3,
            command: "osd_out 1".parse().unwrap(),
            force: false,
            by: "somebody".into(),
            asked_unix_s: 1,
            state,
            trouble: None,
            found: None,
        };
        assert!(cancel(&task(TaskState::Waiting)).is_ok());
        let running = TaskState::Running { node: "hv1".into(), since_unix_s: 1 };
        assert!(cancel(&task(running)).unwrap_err().why.contains("hv1"));
        assert!(cancel(&task(TaskState::Done { at_unix_s: 1 })).unwrap_err().why.contains("over"));
    }
}
