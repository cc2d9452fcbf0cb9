//! Whether a request has written anything: what changed nothing is neither kept as a change nor remembered, and nothing else than the store can say so. A
//! command that is refused may have written before, and one that fails need not have.

use std::{cell::Cell, sync::Arc};

use async_trait::async_trait;
use pvc_store::{CommitError, Committed, Layer, Store, Transaction};
use tokio::task_local;

task_local! {
    static WRITTEN: Cell<bool>;
}

/// What comes of it, and whether something was written meanwhile, or may have been.
pub(crate) async fn during<T>(made: impl Future<Output = T>) -> (T, bool) {
    WRITTEN
        .scope(Cell::new(false), async {
            let made = made.await;
            (made, WRITTEN.with(Cell::get))
        })
        .await
}

/// A store that notes for whom it writes.
pub(crate) struct Noting(pub(crate) Arc<dyn Store>);

#[async_trait]
impl Layer for Noting {
    fn below(&self) -> &dyn Store {
        &*self.0
    }

    async fn commit(&self, txn: Transaction) -> Result<Committed, CommitError> {
        let outcome = self.0.commit(txn).await;
        if !matches!(outcome, Err(CommitError::Conflict { .. } | CommitError::Failed(_))) {
            // Nobody's: who has changed what, which is written beside the changes.
            let _ = WRITTEN.try_with(|written| written.set(true));
        }
        outcome
    }
}
