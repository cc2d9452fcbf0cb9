//! `/pvc/tasks/<id>` **(ours)**: what operators have asked of storage, each a JSON object; the parent's value is the last number given.

#[cfg(test)]
mod tests;

use pvc_core::model::{
    NodeName, Problem, StorageCommand,
    ceph::Changer,
    found::Found,
    storage::TreeChange,
    task::{Cancel, Task, TaskId, TaskState},
};

use super::{ceph, primary, text::Decoder};
use crate::{Check, CommitError, Store, StoreError, Transaction, Value};

/// The parent of all tasks.
pub const ROOT: &str = "/pvc/tasks";

/// So many tasks that are over are kept.
const KEPT: usize = 100;

/// More that wait are not taken.
const MOST_WAITING: usize = 100;

/// How often two who ask may cross before it is reported.
const ATTEMPTS: usize = 8;

/// A task and the version of its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The task.
    pub task: Task,
    version: i32,
}

/// Why a task is not taken.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody seems to carry them out.
    #[error("{MOST_WAITING} tasks wait already: nothing more is taken until some of them are done")]
    TooMany,
    /// The tree lacks what is needed.
    #[error("the state tree has no {ROOT}: a daemon of this version makes it when it starts")]
    NoRoot,
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A task's key.
pub fn path(id: TaskId) -> String {
    format!("{ROOT}/{id}")
}

/// All tasks, the oldest first, and what is wrong with those that cannot be read.
pub async fn read_all(store: &dyn Store) -> Result<(Vec<Seen>, Vec<Problem>), StoreError> {
    let mut d = Decoder::default();
    let names = store.children(ROOT).await?.unwrap_or_default();
    let mut ids: Vec<TaskId> = Vec::new();
    for name in &names {
        match number(name) {
            Some(id) => ids.push(id),
            None => d.problem(&format!("{ROOT}/{name}"), "not the number of a task"),
        }
    }
    ids.sort_unstable();
    // The newest: more are somebody's rubbish.
    let ids = ids.split_off(ids.len().saturating_sub(KEPT + 2 * MOST_WAITING));
    let paths: Vec<String> = ids.iter().map(|id| path(*id)).collect();
    let values = match store.get_many(&paths).await {
        Err(StoreError::Refused { .. }) => one_by_one(store, &paths, &mut d).await?,
        values => values?,
    };
    let mut tasks = Vec::new();
    for ((id, path), value) in ids.iter().zip(&paths).zip(values) {
        let Some(value) = value else { continue };
        match serde_json::from_slice::<Task>(&value.data) {
            Ok(task) if task.id == *id => tasks.push(Seen { task, version: value.version }),
            Ok(task) => d.problem(path, format_args!("it says that it is task {}", task.id)),
            Err(error) => d.problem(path, format_args!("not a task: {error}")),
        }
    }
    Ok((tasks, d.problems))
}

/// As it is written, and no other number's.
fn number(name: &str) -> Option<TaskId> {
    name.parse::<TaskId>().ok().filter(|id| id.to_string() == name)
}

/// One of them may not be read: the others are.
async fn one_by_one(
    store: &dyn Store,
    paths: &[String],
    d: &mut Decoder,
) -> Result<Vec<Option<Value>>, StoreError> {
    let mut values = Vec::new();
    for path in paths {
        values.push(match store.get(path).await {
            Err(StoreError::Refused { what, .. }) => {
                d.problem(path, what);
                None
            }
            value => value?,
        });
    }
    Ok(values)
}

/// One task; `None` if there is none, or it cannot be read.
pub async fn read(store: &dyn Store, id: TaskId) -> Result<Option<Seen>, StoreError> {
    let value = store.get(&path(id)).await?;
    Ok(value.and_then(|value| {
        let task = serde_json::from_slice(&value.data).ok()?;
        Some(Seen { task, version: value.version })
    }))
}

/// Asks for something. Those who ask at the same time get numbers of their own.
pub async fn ask(
    store: &dyn Store,
    command: &StorageCommand,
    force: bool,
    by: &str,
    unix_s: u64,
) -> Result<TaskId, AskError> {
    let (tasks, _) = read_all(store).await.map_err(CommitError::Failed)?;
    if tasks.iter().filter(|seen| !seen.task.is_over()).count() >= MOST_WAITING {
        return Err(AskError::TooMany);
    }
    let mut outcome = Err(AskError::NoRoot);
    for _ in 0..ATTEMPTS {
        let Some(root) = store.get(ROOT).await.map_err(CommitError::Failed)? else {
            return Err(AskError::NoRoot);
        };
        let last = std::str::from_utf8(&root.data).ok().and_then(|text| text.trim().parse::<TaskId>().ok());
        // Whatever is there, readable or not, has its number.
        let names = store.children(ROOT).await.map_err(CommitError::Failed)?.unwrap_or_default();
        let newest = names.iter().filter_map(|name| number(name)).max().unwrap_or(0);
        let id = last.unwrap_or(0).max(newest).saturating_add(1);
        let (command, by) = (command.clone(), by.to_owned());
        let task = Task {
            id,
            command,
            force,
            by,
            asked_unix_s: unix_s,
            state: TaskState::Waiting,
            trouble: None,
            progress: None,
            changer: None,
            osd: None,
            cancel: None,
            found: None,
        };
        let mut txn = Transaction::default();
        txn.set(ROOT, id.to_string(), Some(root.version));
        txn.create(path(id), json(&task));
        match store.commit(txn).await {
            Ok(_) => return Ok(id),
            Err(error @ CommitError::Conflict { .. }) => outcome = Err(error.into()),
            Err(error) => return Err(error.into()),
        }
    }
    outcome
}

/// Says how a task stands from now on, as long as that node is primary and the task is as it was seen.
pub fn move_on(seen: &Seen, state: TaskState, primary: &NodeName) -> Transaction {
    let mut txn = Transaction::default();
    primary::check(&mut txn, primary);
    let task = Task { state, trouble: None, progress: None, ..seen.task.clone() };
    txn.set(path(task.id), json(&task), Some(seen.version));
    txn
}

/// That this node is primary and the task is as it was seen.
pub fn unchanged(seen: &Seen, primary: &NodeName) -> Transaction {
    let mut txn = Transaction::default();
    primary::check(&mut txn, primary);
    txn.check(path(seen.task.id), Check::Version(seen.version));
    txn
}

/// Says what keeps a task from going on, as long as that node is primary and the task is as it was seen.
pub fn tell(seen: &Seen, trouble: Option<&str>, primary: &NodeName) -> Transaction {
    let mut txn = Transaction::default();
    primary::check(&mut txn, primary);
    let task = Task { trouble: trouble.map(str::to_owned), progress: None, ..seen.task.clone() };
    txn.set(path(task.id), json(&task), Some(seen.version));
    txn
}

/// Writes a task that its node carries out, as it was seen but for what is different now, with what the tree is to say from now on, in one. Answers the task as it
/// is then. What is over stays so: see [`Seen`].
pub async fn by_node(
    store: &dyn Store,
    seen: &Seen,
    task: Task,
    tree: &[TreeChange],
) -> Result<Seen, CommitError> {
    let mut txn = Transaction::default();
    txn.set(path(task.id), json(&task), Some(seen.version));
    for change in tree {
        ceph::change(store, &mut txn, change).await.map_err(CommitError::Failed)?;
    }
    store.commit(txn).await?;
    if task.is_over() {
        forget(store).await;
    }
    Ok(Seen { task, version: seen.version.wrapping_add(1) })
}

/// That a task is as it was seen.
pub fn as_seen(seen: &Seen) -> Transaction {
    let mut txn = Transaction::default();
    txn.check(path(seen.task.id), Check::Version(seen.version));
    txn
}

/// Says by which client of Ceph a task is changing an image from now on, or that nobody is any more, as long as that node is primary and the task is
/// as it was seen. Answers the task as it is then.
pub async fn changed_by(
    store: &dyn Store,
    seen: &Seen,
    changer: Option<Changer>,
    primary: &NodeName,
) -> Result<Seen, CommitError> {
    let task = Task { changer, ..seen.task.clone() };
    let mut txn = Transaction::default();
    primary::check(&mut txn, primary);
    txn.set(path(task.id), json(&task), Some(seen.version));
    store.commit(txn).await?;
    // As with `progress`. One that counts no further is read anew by whoever needs its version.
    Ok(Seen { task, version: seen.version.wrapping_add(1) })
}

/// Says how far a task is, as long as that node is primary and the task is as it was seen. Answers the task as it is then, or `None` if that cannot be told.
pub async fn progress(
    store: &dyn Store,
    seen: &Seen,
    percent: u8,
    primary: &NodeName,
) -> Result<Option<Seen>, CommitError> {
    let task = Task { trouble: None, progress: Some(percent.min(100)), ..seen.task.clone() };
    let mut txn = Transaction::default();
    primary::check(&mut txn, primary);
    txn.set(path(task.id), json(&task), Some(seen.version));
    store.commit(txn).await?;
    // Each write counts the version up by one, and nobody else can have written this one.
    Ok(seen.version.checked_add(1).map(|version| Seen { task, version }))
}

/// Ends a task, with what the tree is to say from now on, in one; forgets the oldest that are over.
pub async fn end(
    store: &dyn Store,
    seen: &Seen,
    (state, found): (TaskState, Option<Found>),
    tree: &[TreeChange],
    primary: &NodeName,
) -> Result<(), CommitError> {
    let found = Seen { task: Task { found, ..seen.task.clone() }, ..seen.clone() };
    let mut txn = move_on(&found, state, primary);
    for change in tree {
        ceph::change(store, &mut txn, change).await.map_err(CommitError::Failed)?;
    }
    store.commit(txn).await?;
    forget(store).await;
    Ok(())
}

/// Forgets the oldest that are over. One that cannot be forgotten stays: it has failed nobody.
async fn forget(store: &dyn Store) {
    let Ok((tasks, _)) = read_all(store).await else { return };
    let over: Vec<&Seen> = tasks.iter().filter(|seen| seen.task.is_over()).collect();
    for old in over.iter().take(over.len().saturating_sub(KEPT)) {
        let mut txn = Transaction::default();
        txn.delete(path(old.task.id), Some(old.version));
        let _ = store.commit(txn).await;
    }
}

/// Takes back a task that nobody has begun. Conflicts if somebody has.
pub async fn cancel(store: &dyn Store, seen: &Seen, by: &str, unix_s: u64) -> Result<(), CommitError> {
    let state = TaskState::Failed { at_unix_s: unix_s, why: format!("cancelled by {by}"), refused: false };
    ask_anew(store, seen, Task { state, ..seen.task.clone() }).await
}

/// Asks whoever carries a task out to end it before it is done. Conflicts if it was written to meanwhile.
pub async fn ask_to_end(store: &dyn Store, seen: &Seen, by: &str, unix_s: u64) -> Result<(), CommitError> {
    let cancel = Some(Cancel { by: by.to_owned(), at_unix_s: unix_s, refused: None });
    ask_anew(store, seen, Task { cancel, ..seen.task.clone() }).await
}

/// As whoever asks for something: that the number at the root is written is what the primary hears.
async fn ask_anew(store: &dyn Store, seen: &Seen, task: Task) -> Result<(), CommitError> {
    let mut txn = Transaction::default();
    txn.set(path(task.id), json(&task), Some(seen.version));
    if let Some(root) = store.get(ROOT).await.map_err(CommitError::Failed)? {
        txn.set(ROOT, root.data, Some(root.version));
    }
    store.commit(txn).await.map(drop)
}

/// Says why a task goes on that is to end, as long as that node is primary and the task is as it was seen. Answers the task as it is then.
pub async fn goes_on(
    store: &dyn Store,
    seen: &Seen,
    why: &str,
    primary: &NodeName,
) -> Result<Seen, CommitError> {
    let cancel = seen.task.cancel.clone().map(|cancel| Cancel { refused: Some(why.to_owned()), ..cancel });
    let task = Task { cancel, ..seen.task.clone() };
    let mut txn = Transaction::default();
    primary::check(&mut txn, primary);
    txn.set(path(task.id), json(&task), Some(seen.version));
    store.commit(txn).await?;
    // As with `progress`.
    Ok(Seen { task, version: seen.version.wrapping_add(1) })
}

fn json(task: &Task) -> Vec<u8> {
    // Texts and numbers always have a JSON form.
    serde_json::to_vec(task).unwrap_or_default()
}
