//! Writes to the state tree who has changed what. Never in the way of a change: what is to be written waits here, no more than so much, and what does not
//! fit or cannot be written is in the log all the same, where each change has its line.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pvc_core::model::audit::AuditEntry;
use pvc_store::{
    CommitError, Store,
    schema::audit::{AT_ONCE, Appending},
};
use tokio::{
    sync::{Mutex as Turn, Notify},
    time::sleep,
};
use tracing::warn;

/// So many wait to be written; of more the oldest are left out.
const MOST_WAITING: usize = 256;

/// The pause after one that failed.
const TRY_AGAIN: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(crate) struct Audit {
    waiting: Mutex<VecDeque<AuditEntry>>,
    /// What is being written: the same until it is known to be.
    batch: Turn<Option<Appending>>,
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
        loop {
            self.write_all(store).await;
            self.more.notified().await;
        }
    }

    /// Writes all that there is.
    pub(crate) async fn write_all(&self, store: &dyn Store) {
        let (mut is_said, mut may_conflict) = (false, true);
        loop {
            match self.write_some(store).await {
                Ok(true) => (is_said, may_conflict) = (false, true),
                Ok(false) => return,
                // The service on another coordinator was faster, as at a hand-over: at once again.
                Err(CommitError::Conflict { .. }) if may_conflict => may_conflict = false,
                Err(error) => {
                    if !is_said {
                        warn!("who changes what is in this log only until the state tree takes it: {error}");
                        is_said = true;
                    }
                    sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    /// Whether there was something to write.
    async fn write_some(&self, store: &dyn Store) -> Result<bool, CommitError> {
        let mut batch = self.batch.lock().await;
        if batch.is_none() {
            let mut waiting = self.waiting();
            let most = waiting.len().min(AT_ONCE);
            let entries: Vec<AuditEntry> = waiting.drain(..most).collect();
            *batch = (!entries.is_empty()).then(|| Appending::new(entries));
        }
        let Some(appending) = batch.as_mut() else { return Ok(false) };
        appending.attempt(store).await?;
        *batch = None;
        Ok(true)
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<AuditEntry>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pvc_store::{
        memory::MemoryTree,
        schema::{audit, root},
    };

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

    async fn times(store: &dyn Store) -> Vec<u64> {
        let (written, _) = audit::read(store, u64::MAX).await.unwrap();
        written.iter().rev().map(|entry| entry.at_unix_s).collect()
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
        for n in 1..=most + 6 {
            audit.say(entry(n));
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(audit.waiting().len(), MOST_WAITING);
        tree.seal(audit::ROOT, false);
        sleep(TRY_AGAIN * 2).await;
        // The first was being written already.
        let kept = std::iter::once(1).chain(7..=most + 6);
        assert_eq!(times(&*store).await, kept.collect::<Vec<_>>());
        assert!(!writer.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_writes_nothing_twice_whatever_comes_after_it() {
        let tree = MemoryTree::new();
        let store = tree.client();
        root::init(&*store).await.unwrap();
        let audit = Audit::default();
        audit.say(entry(1));
        audit.say(entry(2));
        store.lose_answers(1);
        assert!(matches!(audit.write_some(&*store).await, Err(CommitError::Unknown(_))));
        assert_eq!(times(&*store).await, [1, 2], "it is written, and nobody knows");
        // Another failure, of another kind, and more that is to be written.
        audit.say(entry(3));
        store.refuse(1);
        assert!(audit.write_some(&*store).await.is_err());
        // The next primary writes, too.
        let other = tree.client();
        Appending::new(vec![entry(9)]).attempt(&*other).await.unwrap();
        while audit.write_some(&*store).await.unwrap() {}
        assert_eq!(times(&*store).await, [1, 2, 9, 3]);
        store.lose_requests(1);
        audit.say(entry(4));
        assert!(matches!(audit.write_some(&*store).await, Err(CommitError::Unknown(_))));
        audit.write_all(&*store).await;
        assert_eq!(times(&*store).await, [1, 2, 9, 3, 4], "what was not written is written");
    }
}
