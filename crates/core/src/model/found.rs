//! What the primary found when it was asked to look: who holds which lock, and who is shut out.

use serde::{Deserialize, Serialize};

/// So many rows are kept with a task; more are counted.
pub const MOST_ROWS: usize = 200;

/// What a task has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// The locks of images.
    Locks(Rows<LockRow>),
    /// Who is shut out.
    ShutOut(Rows<ShutOutRow>),
}

/// Some rows, and how many there are besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words of the JSON")]
pub struct Rows<T> {
    pub rows: Vec<T>,
    /// How many are not among them.
    pub left_off: usize,
    /// What could not be looked at, and why.
    pub unknown: Vec<String>,
}

impl<T> Rows<T> {
    /// The first of them.
    pub fn first_of(mut rows: Vec<T>, mut unknown: Vec<String>) -> Self {
        let left_off = rows.len().saturating_sub(MOST_ROWS);
        rows.truncate(MOST_ROWS);
        unknown.truncate(MOST_ROWS);
        Self { rows, left_off, unknown }
    }
}

/// How the holder of a lock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// Ceph has heard it within the last half minute.
    Heard,
    /// It is not heard any more: it is frozen, cut off or dead, and may go on. The lock is stale.
    Silent,
    /// It writes nothing any more, whether it lives or not. The lock is stale.
    ShutOut,
}

/// One lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words of the JSON")]
pub struct LockRow {
    pub image: String,
    /// Where the holder is.
    pub client: String,
    /// Its name in Ceph.
    pub name: String,
    pub holder: Holder,
    /// The VM or the task that it is recorded as one of, and where that runs, or ran.
    pub whose: Option<String>,
    pub node: Option<String>,
}

/// One client that is shut out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words of the JSON")]
pub struct ShutOutRow {
    pub client: String,
    /// In seconds since 1970.
    pub until_unix_s: u64,
    /// Which VM's or task's it was, and where that ran.
    pub whose: Option<String>,
    pub node: Option<String>,
    /// Why it stays shut out; `None`: its process is proven dead, and it may be lifted.
    pub stays: Option<String>,
}
