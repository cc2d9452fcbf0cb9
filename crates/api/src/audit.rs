//! Writes to the state tree who has changed what. Never in the way of a change: what is to be written waits here, no more than so much, and what does not
//! fit or cannot be written is in the log all the same, where each change has its line.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pvc_core::model::audit::AuditEntry;
use pvc_store::{CommitError, Store, schema::audit};
use tokio::{sync::Notify, time::sleep};
use tracing::warn;

/// So many wait to be written; of more the oldest are left out.
const MOST_WAITING: usize = 256;

/// The pause after one that failed.
const TRY_AGAIN: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(crate) struct Audit {
    waiting: Mutex<VecDeque<AuditEntry>>,
    more: Notify,
}

impl Audit {
    /// Has it written, soon.
    pub(crate) fn say(&self, entry: AuditEntry) {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST_WAITING {
            waiting.pop_front();
        }
        waiting.push_back(entry);
        drop(waiting);
        self.more.notify_one();
    }

    /// Writes what there is, for ever.
    pub(crate) async fn write(&self, store: &dyn Store) -> Infallible {
        let mut trouble: Option<CommitError> = None;
        loop {
            let entries: Vec<AuditEntry> = self.waiting().iter().take(audit::AT_ONCE).cloned().collect();
            if entries.is_empty() {
                self.more.notified().await;
                continue;
            }
            let unsure = matches!(trouble, Some(CommitError::Unknown(_)));
            match append(store, &entries, unsure).await {
                Ok(()) => {
                    trouble = None;
                    let mut waiting = self.waiting();
                    // Those that were left out meanwhile were of these.
                    for _ in 0..entries.len() {
                        if waiting.front().is_some_and(|first| entries.contains(first)) {
                            waiting.pop_front();
                        }
                    }
                }
                Err(error) => {
                    if trouble.is_none() {
                        warn!("who changes what is in this log only until the state tree takes it: {error}");
                    }
                    trouble = Some(error);
                    sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<AuditEntry>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends them; `unsure`: unless an attempt whose answer was lost has done so.
async fn append(store: &dyn Store, entries: &[AuditEntry], unsure: bool) -> Result<(), CommitError> {
    if unsure {
        let (last, _) = audit::read(store, entries.len() as u64).await.map_err(CommitError::Failed)?;
        let same =
            |(known, entry): (&AuditEntry, &AuditEntry)| AuditEntry { id: 0, ..known.clone() } == *entry;
        if last.len() == entries.len() && last.iter().rev().zip(entries).all(same) {
            return Ok(());
        }
    }
    audit::append(store, entries).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pvc_store::{memory::MemoryTree, schema::root};

    use super::*;

    fn entry(n: u64) -> AuditEntry {
        AuditEntry {
            id: 0,
            at_unix_s: n,
            by: "tests".to_owned(),
            from: "::1".to_owned(),
            what: "PUT /".to_owned(),
            status: None,
            said: String::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_written_waits_and_of_too_much_the_oldest_is_left_out() {
        let tree = MemoryTree::new();
        let store = tree.client();
        root::init(&*store).await.unwrap();
        let audit = Arc::new(Audit::default());
        let writer = tokio::spawn({
            let (audit, store) = (Arc::clone(&audit), tree.client());
            async move { audit.write(&*store).await }
        });
        tree.seal(audit::ROOT, true);
        let most = MOST_WAITING as u64;
        for n in 1..=most + 5 {
            audit.say(entry(n));
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(audit.waiting().len(), MOST_WAITING);
        tree.seal(audit::ROOT, false);
        sleep(TRY_AGAIN * 2).await;
        let (written, _) = audit::read(&*store, u64::MAX).await.unwrap();
        let times: Vec<u64> = written.iter().rev().map(|entry| entry.at_unix_s).collect();
        assert_eq!(times, (6..=most + 5).collect::<Vec<_>>());
        assert!(!writer.is_finished());
    }

    #[tokio::test]
    async fn what_an_attempt_without_an_answer_has_written_is_not_written_twice() {
        let store = MemoryTree::new().client();
        root::init(&*store).await.unwrap();
        let entries = [entry(1), entry(2)];
        for (unsure, written) in [(true, 2), (true, 2), (false, 4)] {
            append(&*store, &entries, unsure).await.unwrap();
            assert_eq!(audit::read(&*store, 10).await.unwrap().0.len(), written);
        }
    }
}
