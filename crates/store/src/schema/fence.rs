//! `/pvc/fence/<node>` **(ours)**: the record of a node's fence, and who works on it.
//!
//! ```text
//! /pvc/fence/<node>           persistent: how far it has come, as JSON
//! /pvc/fence/<node>/fencer    ephemeral: the node whose daemon works on it; gone with that daemon's session
//! ```
//!
//! Every write names the record's version it was decided from, so that of two fencers only one goes on. Never decides.

#[cfg(test)]
mod tests;

use pvc_core::model::{DaemonState, DomainState, Entry, Fence, FenceJob, Node, NodeName, Problem};

use super::node;
use crate::{Check, CreateMode, Op, Store, StoreError, Transaction, Value};

/// The parent of all fences.
pub const ROOT: &str = "/pvc/fence";

const FENCER: &str = "fencer";

/// The record of a node's fence.
pub fn path(node: &NodeName) -> String {
    format!("{ROOT}/{node}")
}

/// Who works on it.
pub fn fencer_path(node: &NodeName) -> String {
    format!("{ROOT}/{node}/{FENCER}")
}

/// Whether a key below a fence is read by [`decode`].
pub(crate) fn is_read(key: &str) -> bool {
    key == FENCER
}

/// How many keys make a [`Fence`].
pub(crate) const READ_KEYS: usize = 2;

/// These, in the order that [`decode`] takes them.
pub(crate) fn paths(node: &NodeName) -> [String; READ_KEYS] {
    [path(node), fencer_path(node)]
}

/// A fence from the values of its record and its fencer; `None` if there is none.
pub fn decode(node: &NodeName, record: Option<&Value>, fencer: Option<&Value>) -> Option<Entry<Fence>> {
    let record = record?;
    let job = serde_json::from_slice::<FenceJob>(&record.data)
        .map_err(|e| Problem { key: path(node), what: format!("not the record of a fence: {e}") });
    let fencer = fencer.map(|value| fencer_name(node, value)).transpose();
    Some(match (job, fencer) {
        (Ok(job), Ok(fencer)) => {
            Entry::Good(Fence { node: node.clone(), job, version: record.version, fencer })
        }
        (job, fencer) => Entry::Bad(job.err().into_iter().chain(fencer.err()).collect()),
    })
}

fn fencer_name(node: &NodeName, value: &Value) -> Result<NodeName, Problem> {
    let text = String::from_utf8_lossy(&value.data);
    text.trim().parse().map_err(|e| Problem { key: fencer_path(node), what: format!("{e}") })
}

/// Reads the fence of a node as it is now.
pub async fn read(store: &dyn Store, node: &NodeName) -> Result<Option<Entry<Fence>>, StoreError> {
    let values = store.get_many(&paths(node)).await?;
    let value = |i: usize| values.get(i).and_then(Option::as_ref);
    Ok(decode(node, value(0), value(1)))
}

/// Declares a node dead and takes the job: its record, its fencer and `daemonstate` = `dead`, all or nothing. Conflicts if
/// the node's state or its keepalive moved since `seen`, or if there is a fence of it already.
pub fn begin(seen: &Node, me: &NodeName, job: &FenceJob) -> Transaction {
    let mut txn = Transaction::default();
    txn.create(path(&seen.name), json(&declared(job, seen)));
    create_fencer(&mut txn, &seen.name, me);
    txn.ops.extend(node::expect_silence(seen).ops);
    txn.ops.extend(node::declare_dead(seen).ops);
    txn
}

/// Takes over a job whose fencer is gone, or is this node in an earlier life. `job` is recorded in the same transaction (with
/// another `by`), so that whatever the earlier fencer still tries conflicts.
pub fn take_over(fence: &Fence, me: &NodeName, job: &FenceJob) -> Transaction {
    let mut txn = Transaction::default();
    txn.set(path(&fence.node), json(job), Some(fence.version));
    if fence.fencer.as_ref() == Some(me) {
        txn.delete(fencer_path(&fence.node), None);
    }
    create_fencer(&mut txn, &fence.node, me);
    txn
}

/// Records a step. Conflicts if the record has moved since, or nobody holds the job any more: then look who does.
pub fn record(fence: &Fence, job: &FenceJob) -> Transaction {
    let mut txn = Transaction::default();
    txn.check(fencer_path(&fence.node), Check::Exists);
    txn.set(path(&fence.node), json(job), Some(fence.version));
    txn
}

/// Leaves the job to whoever may do better than this fencer, which records how far it has come. Conflicts as [`record`] does.
pub fn leave(fence: &Fence, job: &FenceJob) -> Transaction {
    let mut txn = Transaction::default();
    txn.delete(fencer_path(&fence.node), None);
    txn.set(path(&fence.node), json(job), Some(fence.version));
    txn
}

/// Takes back in a record that an operator has said that its node is dead, because the node has spoken since. Anybody may; conflicts if
/// the record, or the node, is not as it was seen.
pub fn unconfirm(fence: &Fence, job: &FenceJob, seen: &Node) -> Transaction {
    let mut txn = Transaction::default();
    let job = FenceJob { confirmed_dead: None, ..job.clone() };
    txn.set(path(&fence.node), json(&job), Some(fence.version));
    txn.ops.extend(node::expect_silence(seen).ops);
    txn.ops.extend(node::expect_daemon_state(seen).ops);
    txn
}

/// Part of another transaction: it is done only while the fence's record is as it was seen, and its job is held.
pub fn expect(fence: &Fence) -> Transaction {
    let mut txn = Transaction::default();
    txn.check(fencer_path(&fence.node), Check::Exists);
    txn.check(path(&fence.node), Check::Version(fence.version));
    txn
}

/// As [`expect`], and only while the node's daemon has not said another state since it was `seen`.
pub fn expect_state(fence: &Fence, seen: &Node) -> Transaction {
    let mut txn = expect(fence);
    txn.ops.extend(node::expect_daemon_state(seen).ops);
    txn
}

/// Records that a node executes nothing any more. Conflicts, besides as [`record`] does, if the node has said anything since it
/// was `seen`, which must have been before the proof was found: what it says from now on is another life of it.
pub fn record_proof(fence: &Fence, job: &FenceJob, seen: &Node) -> Transaction {
    let mut txn = record(fence, &declared(job, seen));
    txn.ops.extend(node::expect_silence(seen).ops);
    txn.ops.extend(node::declare_dead(seen).ops);
    txn
}

/// Records that a node is shut out of the storage. Conflicts, besides as [`record`] does, if the node has said anything since it was `seen`.
pub fn record_shut_out(fence: &Fence, job: &FenceJob, seen: &Node) -> Transaction {
    let mut txn = record(fence, job);
    txn.ops.extend(node::expect_silence(seen).ops);
    txn.ops.extend(node::expect_daemon_state(seen).ops);
    txn
}

/// Records that a node's VMs have new homes: it is flushed. Conflicts as [`record_proof`] does.
pub fn record_recovered(fence: &Fence, job: &FenceJob, seen: &Node) -> Transaction {
    let mut txn = record_shut_out(fence, job, seen);
    txn.ops.extend(node::set_domain_state(&seen.name, DomainState::Flushed, seen.domain_state.version).ops);
    txn
}

/// Part of another transaction: it is done only while the fence is as it was seen, its job is held, and the dead node has said
/// nothing since it was `seen`.
pub fn expect_dead(fence: &Fence, seen: &Node) -> Transaction {
    let mut txn = expect(fence);
    txn.ops.extend(node::expect_silence(seen).ops);
    txn.ops.extend(node::expect_daemon_state(seen).ops);
    txn
}

fn declared(job: &FenceJob, seen: &Node) -> FenceJob {
    FenceJob { keepalive_version: seen.keepalive_version, boot: seen.boot.clone(), ..job.clone() }
}

/// Ends a job, done or cancelled: record and fencer are removed.
pub fn finish(fence: &Fence) -> Transaction {
    let mut txn = Transaction::default();
    if fence.fencer.is_some() {
        txn.delete(fencer_path(&fence.node), None);
    }
    txn.delete(path(&fence.node), Some(fence.version));
    txn
}

/// Ends a job because its node has spoken. A keepalive that came while the node counted as dead may have been its last word, which was
/// on its way when its power was cut: so it counts as running again, as before the job, and its silence is measured anew. Conflicts if
/// the node's state or its keepalive moved since `seen`: whoever calls it off may have seen the record sooner than the node.
pub fn call_off(fence: &Fence, seen: &Node) -> Transaction {
    let mut txn = finish(fence);
    txn.ops.extend(node::expect_silence(seen).ops);
    txn.ops.extend(counts_as_running(seen).ops);
    txn
}

fn counts_as_running(seen: &Node) -> Transaction {
    match seen.daemon_state.value {
        DaemonState::Dead => node::declare_running(seen),
        _ => node::expect_daemon_state(seen),
    }
}

/// A record as it is, be it readable or not: enough to end it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    version: i32,
    has_fencer: bool,
}

/// What there is to end of a record that cannot be read; `None` if there is no record, or it can be read.
pub async fn read_unreadable(store: &dyn Store, name: &NodeName) -> Result<Option<Raw>, StoreError> {
    // In this order: what is read afterwards and is unreadable still is at least as new.
    let stats = store.stat_many(&paths(name)).await?;
    match read(store, name).await {
        Ok(Some(Entry::Bad(_))) | Err(StoreError::Refused { .. }) => {}
        Ok(_) => return Ok(None),
        Err(error) => return Err(error),
    }
    let record = stats.first().copied().flatten();
    let has_fencer = stats.get(1).copied().flatten().is_some();
    Ok(record.map(|record| Raw { version: record.version, has_fencer }))
}

/// An operator ends a fence that has proven nothing yet. The node counts as running again, and its silence is measured anew. Conflicts if
/// the record or the node's state moved since they were seen; a keepalive that comes meanwhile is no reason against it.
pub fn cancel(fence: &Fence, seen: &Node) -> Transaction {
    let mut txn = finish(fence);
    txn.ops.extend(counts_as_running(seen).ops);
    txn
}

/// As [`cancel`], of a record that cannot be read.
pub fn cancel_unreadable(raw: &Raw, seen: &Node) -> Transaction {
    let mut txn = Transaction::default();
    if raw.has_fencer {
        txn.delete(fencer_path(&seen.name), None);
    }
    txn.delete(path(&seen.name), Some(raw.version));
    txn.ops.extend(counts_as_running(seen).ops);
    txn
}

/// An operator asks for a fence now, be the node heard of or not: its record, which waits for a fencer, and `daemonstate` =
/// `dead`. Conflicts if the node's state moved since `seen`, or if there is a fence of it already.
pub fn ask(seen: &Node, job: &FenceJob) -> Transaction {
    let mut txn = Transaction::default();
    txn.create(path(&seen.name), json(&declared(job, seen)));
    txn.ops.extend(node::declare_dead(seen).ops);
    txn
}

/// An operator's word that a node is dead: set in the record of its fence, or in a new one that waits for a fencer. It is said of the
/// node as it was `seen`, which is declared dead in the same transaction unless its keepalive or state moved since.
pub fn confirm_dead(seen: &Node, fence: Option<&Fence>, job: &FenceJob) -> Transaction {
    let mut txn = Transaction::default();
    let job = json(&declared(job, seen));
    match fence {
        Some(fence) => txn.set(path(&fence.node), job, Some(fence.version)),
        None => txn.create(path(&seen.name), job),
    }
    txn.ops.extend(node::expect_silence(seen).ops);
    txn.ops.extend(node::declare_dead(seen).ops);
    txn
}

fn create_fencer(txn: &mut Transaction, node: &NodeName, me: &NodeName) {
    let data = me.as_str().into();
    txn.ops.push(Op::Create { path: fencer_path(node), data, mode: CreateMode::Ephemeral });
}

fn json(job: &FenceJob) -> Vec<u8> {
    // A struct of text and numbers always has a JSON form.
    serde_json::to_vec(job).unwrap_or_default()
}
