//! `/pvc/audit/<slot>` **(ours)**: the last changes that were made over the API, each a JSON object; the parent's value is the last number given. A ring: what
//! is new takes the place of the oldest.

use pvc_core::model::{Problem, audit::AuditEntry};

use super::text::Decoder;
use crate::{CommitError, Store, StoreError, Transaction, Value};

/// The parent of all slots.
pub const ROOT: &str = "/pvc/audit";

/// So many changes are kept.
pub const KEPT: u64 = 512;

/// The most that are appended in one transaction.
pub const AT_ONCE: usize = 32;

fn path(id: u64) -> String {
    format!("{ROOT}/{:03}", id % KEPT)
}

/// The last changes, the newest first, at most so many, and what is wrong with those that cannot be read.
pub async fn read(store: &dyn Store, most: u64) -> Result<(Vec<AuditEntry>, Vec<Problem>), StoreError> {
    let mut d = Decoder::default();
    let last = last(store.get(ROOT).await?.as_ref());
    let first = last.saturating_sub(most.min(KEPT)).saturating_add(1);
    let ids: Vec<u64> = (first..=last).rev().collect();
    let paths: Vec<String> = ids.iter().map(|id| path(*id)).collect();
    let mut entries = Vec::new();
    for ((id, path), value) in ids.iter().zip(&paths).zip(store.get_many(&paths).await?) {
        let Some(value) = value else { continue };
        match serde_json::from_slice::<AuditEntry>(&value.data) {
            // One that is newer has come meanwhile.
            Ok(entry) if entry.id != *id => {}
            Ok(entry) => entries.push(entry),
            Err(error) => d.problem(path, format_args!("not a change: {error}")),
        }
    }
    Ok((entries, d.problems))
}

fn last(root: Option<&Value>) -> u64 {
    let text = root.and_then(|value| std::str::from_utf8(&value.data).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Changes that are being appended, at most [`AT_ONCE`], until it is known that they are written.
#[derive(Debug)]
pub struct Appending {
    entries: Vec<AuditEntry>,
    /// The number of the first in an attempt whose fate may be unknown.
    tried: Option<u64>,
}

impl Appending {
    /// These, in their order.
    pub fn new(entries: Vec<AuditEntry>) -> Self {
        Self { entries, tried: None }
    }

    /// Writes them, unless an earlier attempt has done so. Conflicts if somebody else appends at the same time. Whoever drops this in the middle may try
    /// again, as after an error.
    ///
    /// Two attempts are never both applied: each requires the root's version that it has read, and a reading that shows an earlier attempt's version shows
    /// its slots, too. One that is too old to show it conflicts.
    pub async fn attempt(&mut self, store: &dyn Store) -> Result<(), CommitError> {
        let root = store.get(ROOT).await.map_err(CommitError::Failed)?;
        // What is no number of ours begins anew.
        let first = last(root.as_ref()).checked_add(1).filter(|first| *first < u64::MAX / 2).unwrap_or(1);
        if let Some(tried) = self.tried
            && self.is_written(store, tried).await.map_err(CommitError::Failed)?
        {
            return Ok(());
        }
        let slots: Vec<(String, Vec<u8>)> = numbered(&self.entries, first)
            // Texts and numbers always have a JSON form.
            .map(|entry| (path(entry.id), serde_json::to_vec(&entry).unwrap_or_default()))
            .collect();
        let paths: Vec<String> = slots.iter().map(|(path, _)| path.clone()).collect();
        let present = store.stat_many(&paths).await.map_err(CommitError::Failed)?;
        let mut txn = Transaction::default();
        let after = first + self.entries.len() as u64 - 1;
        match root {
            Some(root) => txn.set(ROOT, after.to_string(), Some(root.version)),
            None => txn.create(ROOT, after.to_string()),
        }
        for ((path, data), present) in slots.into_iter().zip(present) {
            match present {
                Some(_) => txn.set(path, data, None),
                None => txn.create(path, data),
            }
        }
        self.tried = Some(first);
        store.commit(txn).await.map(drop)
    }

    async fn is_written(&self, store: &dyn Store, first: u64) -> Result<bool, StoreError> {
        let expected: Vec<AuditEntry> = numbered(&self.entries, first).collect();
        let paths: Vec<String> = expected.iter().map(|entry| path(entry.id)).collect();
        let values = store.get_many(&paths).await?;
        let is_this = |value: Option<Value>, entry: &AuditEntry| {
            value.is_some_and(|value| {
                serde_json::from_slice::<AuditEntry>(&value.data).is_ok_and(|seen| seen == *entry)
            })
        };
        Ok(values.into_iter().zip(&expected).all(|(value, entry)| is_this(value, entry)))
    }
}

fn numbered(entries: &[AuditEntry], first: u64) -> impl Iterator<Item = AuditEntry> {
    entries.iter().zip(first..).map(|(entry, id)| AuditEntry { id, ..entry.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory::MemoryTree, schema::root};

    fn entry(n: u64) -> AuditEntry {
        AuditEntry {
            id: 0,
            at_unix_s: n,
            by: "somebody".to_owned(),
            from: "10.0.0.1:1".to_owned(),
            what: "PUT /api/v2/maintenance".to_owned(),
            status: Some(200),
            said: "maintenance is on".to_owned(),
        }
    }

    async fn append(store: &dyn Store, entries: &[AuditEntry]) -> Result<(), CommitError> {
        Appending::new(entries.to_vec()).attempt(store).await
    }

    #[tokio::test]
    async fn the_newest_take_the_place_of_the_oldest() {
        let tree = MemoryTree::new();
        let store = tree.client();
        assert_eq!(read(&*store, 10).await.unwrap().0, []);
        root::init(&*store).await.unwrap();
        let all: Vec<AuditEntry> = (1..=KEPT + 10).map(entry).collect();
        for entries in all.chunks(AT_ONCE) {
            append(&*store, entries).await.unwrap();
        }
        let (seen, problems) = read(&*store, 3).await.unwrap();
        let times: Vec<(u64, u64)> = seen.iter().map(|entry| (entry.id, entry.at_unix_s)).collect();
        assert_eq!(times, [(KEPT + 10, KEPT + 10), (KEPT + 9, KEPT + 9), (KEPT + 8, KEPT + 8)]);
        assert_eq!(problems, []);
        let (seen, _) = read(&*store, u64::MAX).await.unwrap();
        assert_eq!((seen.len() as u64, seen.last().unwrap().id), (KEPT, 11));
        let keys = tree.dump().keys().filter(|path| path.starts_with(ROOT)).count() as u64;
        assert_eq!(keys, KEPT + 1);
    }

    #[tokio::test]
    async fn what_is_no_change_is_named_and_hides_no_other() {
        let tree = MemoryTree::new();
        let store = tree.client();
        root::init(&*store).await.unwrap();
        append(&*store, &[entry(1), entry(2)]).await.unwrap();
        crate::put::put(&*store, &path(1), b"rubbish".to_vec()).await.unwrap();
        let (seen, problems) = read(&*store, 10).await.unwrap();
        assert_eq!((seen.len(), problems.len()), (1, 1));
        crate::put::put(&*store, ROOT, b"18446744073709551615".to_vec()).await.unwrap();
        assert_eq!(read(&*store, 10).await.unwrap().0, []);
    }
}
