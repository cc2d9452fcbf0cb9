//! Whose a task of OSDs is. A node makes and removes its own; what a node has begun that does not go on with it, the primary ends, or is told that it may.
//!
//! ```text
//!   the node serves ─────────────────────────────► its own
//!   it is dead, stopped, without storage ─────────► waited for; cancelled, or a removal that is forced: the primary's
//!   it is no node of the cluster any more ────────► the primary's
//! ```
//! A node that comes back has its task again, as long as that is not over. Whoever carries it out writes his name to it first, and each write is for the task
//! as it was seen: of two who take themselves for its worker one is refused.

use super::{Osds, Step, known_number};
use crate::model::{
    DaemonState, Node, StorageCommand,
    ceph::OsdId,
    osd::TasksOsd,
    task::{Task, TaskState},
};

/// What a node can be expected to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// It carries tasks out, or will in a moment.
    Serves,
    /// It does not now, for this reason, and may again.
    Away(&'static str),
    /// There is no such node.
    Gone,
}

impl Host {
    /// Of the node of that name.
    pub fn of<'n>(nodes: impl IntoIterator<Item = &'n Node>, name: &str) -> Self {
        match nodes.into_iter().find(|node| node.name.as_str() == name) {
            None => Self::Gone,
            Some(node) if node.daemon_state.value == DaemonState::Dead => Self::Away("is dead"),
            Some(node) if !node.should_speak() => Self::Away("has its daemon stopped"),
            Some(node) if node.storage == Some(false) => {
                Self::Away("does not manage storage any more (enable_storage)")
            }
            Some(_) => Self::Serves,
        }
    }
}

/// Whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// This node's.
    Mine,
    /// This node's, which is to end what another one has begun, for this reason.
    MineToEnd(String),
    /// Another's.
    Others,
    /// The node's that is back: this one was its stand-in.
    Back(String),
    /// Nobody's for now: what is to be said at it.
    Waits(String),
}

/// Whose a task is that is not over. `me`: this node, and whether it is primary.
pub fn whose<'n>(
    task: &Task,
    osds: &Osds,
    (me, is_primary): (&str, bool),
    nodes: impl IntoIterator<Item = &'n Node> + Clone,
) -> Whose {
    let host = |name: &str| if name == me { Host::Serves } else { Host::of(nodes.clone(), name) };
    match &task.command {
        StorageCommand::OsdAdd { node, .. } => {
            if node.as_str() == me {
                return Whose::Mine;
            }
            let begun = task.state != TaskState::Waiting;
            match host(node.as_str()) {
                _ if !is_primary => Whose::Others,
                Host::Away(why) if begun => ends(task, node.as_str(), why)
                    .unwrap_or_else(|| Whose::Waits(waits(task, node.as_str(), why, None))),
                Host::Away(why) => Whose::Waits(waits(task, node.as_str(), why, None)),
                Host::Gone if begun => Whose::MineToEnd(gone(node.as_str())),
                Host::Serves | Host::Gone => Whose::Others,
            }
        }
        StorageCommand::OsdRemove { id } => {
            let own = task.osd.as_ref();
            let osd = osds.all.get(id).filter(|osd| own.is_none_or(|own| own.uuid == osd.uuid));
            let home = osd.and_then(|osd| osd.host.as_deref());
            match &task.state {
                TaskState::Running { node, .. } => of_removal(task, *id, node, home, (me, is_primary), host),
                _ => match home {
                    Some(home) if home == me => Whose::Mine,
                    Some(home) if is_primary => match host(home) {
                        Host::Away(_) | Host::Gone if task.force => Whose::Mine,
                        Host::Away(why) => Whose::Waits(waits(task, home, why, Some(*id))),
                        Host::Serves | Host::Gone => Whose::Others,
                    },
                    _ => Whose::Others,
                },
            }
        }
        _ => Whose::Others,
    }
}

/// Of one that was begun. `home`: where the OSD is, as long as Ceph has it.
fn of_removal(
    task: &Task,
    id: OsdId,
    worker: &str,
    home: Option<&str>,
    (me, is_primary): (&str, bool),
    host: impl Fn(&str) -> Host,
) -> Whose {
    let stood_in = home.filter(|home| *home != worker);
    if worker == me {
        return match stood_in {
            Some(home) => match host(home) {
                Host::Serves => Whose::Back(home.to_owned()),
                Host::Away(why) => ends(task, home, why).unwrap_or(Whose::Mine),
                Host::Gone => ends(task, home, "is no node of this cluster any more").unwrap_or(Whose::Mine),
            },
            None => Whose::Mine,
        };
    }
    if !is_primary {
        return Whose::Others;
    }
    match host(worker) {
        Host::Serves => Whose::Others,
        _ if stood_in.is_some() => Whose::Mine,
        Host::Away(why) => match ends(task, worker, why) {
            Some(ends) => ends,
            None if task.force => Whose::Mine,
            None => Whose::Waits(waits(task, worker, why, Some(id))),
        },
        Host::Gone => ends(task, worker, "is no node of this cluster any more").unwrap_or(Whose::Mine),
    }
}

/// Somebody wants it to end, and its node does not go on with it.
fn ends(task: &Task, node: &str, why: &str) -> Option<Whose> {
    let cancel = task.is_to_end()?;
    Some(Whose::MineToEnd(format!("{}, while node {node} {why}", cancel.why())))
}

/// Why the primary ends what a node that is gone has begun.
fn gone(node: &str) -> String {
    format!("node {node}, which carried it out, is no node of this cluster any more")
}

/// What a task says that waits for its node; with the OSD that is removed.
fn waits(task: &Task, node: &str, why: &str, removed: Option<OsdId>) -> String {
    let number = task.id;
    let Some(osd) = removed else {
        return format!(
            "node {node} {why}: it goes on when the node is back; `pvc task cancel {number}` ends it without the node"
        );
    };
    format!(
        "node {node}, which has OSD {osd}, {why}: it goes on when the node is back; `pvc task cancel {number}`, then `pvc storage osd remove --force {osd}` removes it without the node"
    )
}

/// Ends the making of an OSD that its node does not go on with. What there is of it on the node nobody knows; Ceph keeps no number that was never heard of. `is_others`: that number is
/// another task's by now.
pub fn leave_add(why: &str, own: Option<&TasksOsd>, osds: &Osds, is_others: bool) -> Step {
    let nothing = || Step::Fail(format!("{why}. Its device may hold a part of an OSD"));
    let Some(own) = own else { return nothing() };
    match known_number(own, osds) {
        None => nothing(),
        Some((id, osd)) if osd.was_up => Step::Fail(format!(
            "{why}. Ceph has heard of OSD {id}, which was made: it stays; `pvc storage osd remove --force {id}` removes it when it is down"
        )),
        Some(_) if is_others => nothing(),
        Some((id, _)) => Step::Purge(id),
    }
}

/// Ends the removal of an OSD that its node does not go on with.
pub fn leave_removal(why: &str, id: OsdId, own: Option<&TasksOsd>, osds: &Osds) -> Step {
    let osd = osds.all.get(&id);
    match osd.filter(|osd| own.is_none_or(|own| own.uuid == osd.uuid)) {
        Some(osd) if osd.is_in => Step::Fail(format!("{why}. OSD {id} is in use as before")),
        Some(_) => {
            Step::Fail(format!("{why}. OSD {id} is out of use: `pvc storage osd in {id}` takes it in again"))
        }
        None if osd.is_none() => Step::Left(id, why.to_owned()),
        None => {
            Step::Fail(format!("OSD {id} is another one by now: the one that was meant is removed. {why}"))
        }
    }
}

#[cfg(test)]
mod tests;
