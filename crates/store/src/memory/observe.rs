//! Who looks over the servers' shoulders: told of each transaction in the moment in which it is committed.

use std::fmt;

use super::{
    MemoryStore, MemoryTree, lock,
    tree::{Applied, Znode},
};
use crate::store::{Transaction, Value};

/// A transaction that was committed.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The session that asked for it; of one that ends, its own.
    pub session: u64,
    /// Its number.
    pub zxid: i64,
    /// What was asked for.
    pub txn: &'a Transaction,
    /// The keys whose content is different now, or that came or went.
    pub keys: Vec<SeenKey<'a>>,
}

/// A key that a transaction changed.
#[derive(Debug)]
pub struct SeenKey<'a> {
    /// Which.
    pub path: &'a str,
    /// What it was.
    pub before: Option<Value>,
    /// What it is.
    pub after: Option<Value>,
}

type Callback = Box<dyn FnMut(Seen<'_>) + Send>;

#[derive(Default)]
pub(super) struct Observer(Option<Callback>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.is_some()).finish()
    }
}

impl Observer {
    pub(super) fn tell(&mut self, txn: &Transaction, session: u64, applied: &Applied) {
        let Some(callback) = &mut self.0 else { return };
        if applied.changes.is_empty() {
            return;
        }
        // A parent that got or lost a child is not different by itself.
        let content = |node: &Option<Znode>| node.as_ref().map(Znode::value);
        let keys = applied.changes.iter().map(|changed| SeenKey {
            path: &changed.path,
            before: content(&changed.before),
            after: content(&changed.after),
        });
        let different = |key: &SeenKey<'_>| match (&key.before, &key.after) {
            (Some(before), Some(after)) => before.mzxid != after.mzxid,
            _ => true,
        };
        callback(Seen { session, zxid: applied.zxid, txn, keys: keys.filter(different).collect() });
    }
}

impl MemoryTree {
    /// Has `callback` told of each transaction that changes something. It must not use this tree.
    pub fn observe(&self, callback: impl FnMut(Seen<'_>) + Send + 'static) {
        lock(&self.world).observer = Observer(Some(Box::new(callback)));
    }
}

impl MemoryStore {
    /// The session on the servers: [`Seen`] names it. `None` between two, and after the end.
    pub fn server_session(&self) -> Option<u64> {
        let session = lock(&self.world).clients.get(&self.id)?.session;
        (session != super::faults::EXPIRED).then_some(session)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{CreateMode, Op, Store};

    #[tokio::test]
    async fn an_observer_sees_what_changed_and_who_asked_for_it() {
        let tree = MemoryTree::new();
        let log = Arc::new(Mutex::new(Vec::new()));
        let store = tree.client();
        let session = store.server_session().unwrap();
        let own = Arc::clone(&log);
        tree.observe(move |seen| {
            for key in seen.keys {
                let text = |value: Option<Value>| value.map(|v| String::from_utf8(v.data).unwrap());
                let change = (key.path.to_owned(), text(key.before), text(key.after));
                own.lock().unwrap().push((seen.session, change));
            }
        });
        let create = |path: &str, mode| Op::Create { path: path.into(), data: b"1".to_vec(), mode };
        let ops = vec![create("/a", CreateMode::Persistent), create("/a/b", CreateMode::Ephemeral)];
        store.commit(Transaction { ops }).await.unwrap();
        let set = Op::Set { path: "/a".into(), data: b"2".to_vec(), version: Some(0) };
        store.commit(Transaction { ops: vec![set] }).await.unwrap();
        store.commit(Transaction { ops: vec![create("/a", CreateMode::Persistent)] }).await.unwrap_err();
        store.expire();
        let change = |path: &str, before: Option<&str>, after: Option<&str>| {
            (session, (path.to_owned(), before.map(str::to_owned), after.map(str::to_owned)))
        };
        let expected = [
            change("/a", None, Some("1")),
            change("/a/b", None, Some("1")),
            change("/a", Some("1"), Some("2")),
            change("/a/b", Some("1"), None),
        ];
        assert_eq!(*log.lock().unwrap(), expected);
    }
}
