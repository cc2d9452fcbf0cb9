//! A store on which everything is tried and nothing done: what is read is what there is, what is written is looked at as the real store would, and forgotten. So
//! a command decides and refuses as ever, and a trial of it cannot drift from the command.
//!
//! Who waits for what it has written waits in vain.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use crate::{Check, Clash, CommitError, Committed, Layer, Op, Stat, Store, Transaction};

/// The store, without its writes.
pub struct Trial(Arc<dyn Store>);

impl Trial {
    /// Of this store.
    pub fn of(store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Self(store))
    }
}

#[async_trait]
impl Layer for Trial {
    fn below(&self) -> &dyn Store {
        &*self.0
    }

    async fn commit(&self, txn: Transaction) -> Result<Committed, CommitError> {
        txn.check_size().map_err(CommitError::Failed)?;
        let mut paths: Vec<String> = Vec::new();
        for op in &txn.ops {
            paths.push(op.path().to_owned());
            paths.extend(parent(op.path()).map(ToOwned::to_owned));
        }
        paths.sort_unstable();
        paths.dedup();
        let stats = self.0.stat_many(&paths).await.map_err(CommitError::Failed)?;
        try_all(&txn, paths.into_iter().zip(stats).collect())?;
        let created = txn.ops.into_iter().filter_map(|op| match op {
            Op::Create { path, .. } => Some(path),
            _ => None,
        });
        Ok(Committed { zxid: 0, created: created.collect() })
    }

    /// The session is the real one's.
    async fn close(&self) {}
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| if parent.is_empty() { "/" } else { parent })
}

/// Whether the operations fit what is there, each after those before it.
fn try_all(txn: &Transaction, mut keys: BTreeMap<String, Option<Stat>>) -> Result<(), CommitError> {
    for (at, op) in txn.ops.iter().enumerate() {
        let clashes = |clash| CommitError::Conflict { op: at, path: op.path().to_owned(), clash };
        let seen = keys.get(op.path()).copied().flatten();
        let (wanted, stat) = match (op, seen) {
            (Op::Create { .. }, Some(_)) => return Err(clashes(Clash::Present)),
            (Op::Create { path, .. }, None) => {
                let above = parent(path).and_then(|parent| keys.get_mut(parent)).and_then(Option::as_mut);
                above.ok_or_else(|| clashes(Clash::Missing))?.children += 1;
                keys.insert(path.clone(), Some(Stat { version: 0, mzxid: 0, children: 0 }));
                continue;
            }
            (_, None) => return Err(clashes(Clash::Missing)),
            (Op::Check { check: Check::Exists, .. }, Some(stat)) => (None, stat),
            (Op::Check { check: Check::Version(version), .. }, Some(stat)) => (Some(*version), stat),
            (Op::Set { version, .. } | Op::Delete { version, .. }, Some(stat)) => (*version, stat),
        };
        if wanted.is_some_and(|version| version != stat.version) {
            return Err(clashes(Clash::Changed));
        }
        match op {
            Op::Set { path, .. } => {
                keys.insert(path.clone(), Some(Stat { version: stat.version + 1, ..stat }));
            }
            Op::Delete { .. } if stat.children > 0 => return Err(clashes(Clash::NotEmpty)),
            Op::Delete { path, .. } => {
                keys.insert(path.clone(), None);
                let above = parent(path).and_then(|parent| keys.get_mut(parent)).and_then(Option::as_mut);
                if let Some(above) = above {
                    above.children = above.children.saturating_sub(1);
                }
            }
            Op::Check { .. } | Op::Create { .. } => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryTree;

    #[tokio::test]
    async fn a_trial_says_what_the_store_says_and_writes_nothing() {
        let txn = |fill: &dyn Fn(&mut Transaction)| {
            let mut txn = Transaction::default();
            fill(&mut txn);
            txn
        };
        let cases: Vec<Transaction> = vec![
            txn(&|t| t.create("/a", "")),
            txn(&|t| t.create("/n", "")),
            txn(&|t| {
                t.create("/n", "");
                t.create("/n/x", "");
                t.set("/n/x", "1", Some(0));
                t.delete("/n/x", Some(1));
                t.delete("/n", None);
            }),
            txn(&|t| t.create("/n/x", "")),
            txn(&|t| t.set("/n", "", None)),
            txn(&|t| t.set("/a", "", Some(0))),
            txn(&|t| t.set("/a", "", Some(1))),
            txn(&|t| {
                t.set("/a", "", Some(1));
                t.set("/a", "", Some(1));
            }),
            txn(&|t| t.delete("/a", None)),
            txn(&|t| {
                t.delete("/a/b", None);
                t.delete("/a", Some(1));
            }),
            txn(&|t| t.delete("/a/b", Some(4))),
            txn(&|t| t.check("/a", Check::Exists)),
            txn(&|t| t.check("/a", Check::Version(0))),
            txn(&|t| t.check("/n", Check::Exists)),
        ];
        for case in cases {
            let tree = MemoryTree::new();
            let store = tree.client();
            let made = txn(&|t| {
                t.create("/a", "");
                t.create("/a/b", "");
                t.set("/a", "", None);
            });
            store.commit(made).await.unwrap();
            let before = tree.dump();
            let tried = Trial::of(store.clone()).commit(case.clone()).await;
            assert_eq!(tree.dump(), before, "{case:?}");
            let done = store.commit(case.clone()).await;
            let said = |outcome: Result<Committed, CommitError>| match outcome {
                Ok(committed) => Ok(committed.created),
                Err(error) => Err(error.to_string()),
            };
            assert_eq!(said(tried), said(done), "{case:?}");
        }
    }
}
