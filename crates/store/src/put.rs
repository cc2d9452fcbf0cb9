//! Small recipes on top of transactions: write whatever is there, list a subtree.

use crate::{CommitError, Op, Store, StoreError, Transaction};

/// How often two writers may cross before it is reported.
const ATTEMPTS: usize = 4;

/// Turns the operation that failed around: a set of an absent key into its creation, or back. False if the conflict was one
/// of versions, which the caller must not paper over.
pub(crate) fn set_or_create(txn: &mut Transaction, failed: usize) -> bool {
    let Some(op) = txn.ops.get_mut(failed) else { return false };
    let Op::Set { path, data, version: None } = op else { return false };
    let (path, data) = (std::mem::take(path), std::mem::take(data));
    *op = Op::Create { path, data, mode: crate::CreateMode::Persistent };
    true
}

/// Writes a key whether it exists or not. Its parent must exist.
pub(crate) async fn put(store: &dyn Store, path: &str, data: Vec<u8>) -> Result<(), CommitError> {
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        let mut txn = Transaction::default();
        txn.set(path, data.clone(), None);
        let mut done = store.commit(txn.clone()).await;
        if let Err(CommitError::Conflict { op, .. }) = &done
            && set_or_create(&mut txn, *op)
        {
            done = store.commit(txn).await;
        }
        outcome = done.map(drop);
        if !matches!(outcome, Err(CommitError::Conflict { .. })) {
            break;
        }
    }
    outcome
}

/// Deletes a key without children; absent already is success.
pub(crate) async fn remove_if_present(store: &dyn Store, path: &str) -> Result<(), CommitError> {
    let mut txn = Transaction::default();
    txn.delete(path, None);
    match store.commit(txn).await {
        Ok(_) => Ok(()),
        // Absent, or it has children: the store does not say which, so ask.
        Err(e @ CommitError::Conflict { .. }) => {
            match store.stat_many(&[path.to_owned()]).await.map_err(CommitError::Failed)?[0] {
                None => Ok(()),
                Some(_) => Err(e),
            }
        }
        Err(e) => Err(e),
    }
}

/// Everything at and below a path.
pub(crate) struct Subtree {
    /// Paths in an order in which they can be deleted.
    pub(crate) leaves_first: Vec<String>,
}

/// Lists a subtree, one level per request; `None` if there is no such key.
pub(crate) async fn subtree(store: &dyn Store, root: &str) -> Result<Option<Subtree>, StoreError> {
    let mut found = Vec::new();
    let mut level = vec![root.to_owned()];
    while !level.is_empty() {
        let lists = store.children_many(&level).await?;
        let mut next = Vec::new();
        for (path, list) in level.into_iter().zip(lists) {
            let Some(names) = list else { continue };
            next.extend(names.into_iter().map(|name| format!("{path}/{name}")));
            found.push(path);
        }
        level = next;
    }
    found.reverse();
    Ok((!found.is_empty()).then_some(Subtree { leaves_first: found }))
}
