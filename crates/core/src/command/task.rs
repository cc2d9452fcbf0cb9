//! Commands on tasks.

use super::Refusal;
use crate::{
    model::{
        Node,
        task::{Task, TaskId, TaskState},
    },
    plan::storage::{never_cancelled, osd::Host},
};

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

/// How a task is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// At once: nobody has begun it.
    AtOnce,
    /// By who carries it out, as soon as that is safe; by the primary, if its node does not go on with it.
    ByItsWorker,
}

/// Has a task end before it is done. `nodes`: all that there are.
pub fn cancel<'n>(task: &Task, nodes: impl IntoIterator<Item = &'n Node>) -> Result<Cancelled, Refusal> {
    match &task.state {
        TaskState::Waiting => Ok(Cancelled::AtOnce),
        TaskState::Running { node, .. } => match never_cancelled(&task.command) {
            None => Ok(Cancelled::ByItsWorker),
            Some(_) if task.command.is_of_a_device() && Host::of(nodes, node) != Host::Serves => {
                Ok(Cancelled::ByItsWorker)
            }
            Some(why) => Err(goes_on(task, format!("{node} carries it out already, and {why}"))),
        },
        TaskState::Done { .. } | TaskState::Failed { .. } => Err(Refusal::refused(
            not_cancelled(task),
            "it is over",
            format!("`pvc task info {}` says how it ended", task.id),
        )),
    }
}

/// It cannot be ended where it is.
pub fn goes_on(task: &Task, why: String) -> Refusal {
    let todo = format!("`pvc task wait {}` waits until it is over", task.id);
    Refusal::refused(not_cancelled(task), why, todo)
}

fn not_cancelled(task: &Task) -> String {
    format!("task {} was not cancelled", task.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{command::testing::node, model::DaemonState};

    #[test]
    fn what_is_over_is_not_cancelled_and_what_is_begun_only_by_its_worker() {
        let task = |state| Task {
            id: 3,
            command: "osd_out 1".parse().unwrap(),
            force: false,
            by: "somebody".into(),
            asked_unix_s: 1,
            state,
            trouble: None,
            progress: None,
            changer: None,
            osd: None,
            cancel: None,
            found: None,
        };
        assert_eq!(cancel(&task(TaskState::Waiting), []).ok(), Some(Cancelled::AtOnce));
        let running = TaskState::Running { node: "hv1".into(), since_unix_s: 1 };
        assert!(cancel(&task(running.clone()), []).unwrap_err().why.contains("hv1"));
        let removal = Task { command: "volume_remove vms,a".parse().unwrap(), ..task(running.clone()) };
        assert_eq!(cancel(&removal, []).ok(), Some(Cancelled::ByItsWorker));
        assert!(cancel(&task(TaskState::Done { at_unix_s: 1 }), []).unwrap_err().why.contains("over"));

        // What its node does not go on with, the primary ends.
        let removal = Task { command: "osd_remove 1".parse().unwrap(), ..task(running) };
        let mut hv1 = node("hv1");
        assert!(cancel(&removal, [&hv1]).unwrap_err().why.contains("half removed"));
        hv1.daemon_state.value = DaemonState::Dead;
        for nodes in [vec![&hv1], vec![]] {
            assert_eq!(cancel(&removal, nodes).ok(), Some(Cancelled::ByItsWorker));
        }
    }
}
