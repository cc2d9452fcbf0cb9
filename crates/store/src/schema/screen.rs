//! `/pvc/screens/<hash>` **(ours)**: tickets for guests' screens, each used once. The key's name is the SHA-256 of all that the ticket is good for and of the
//! ticket itself, so that who reads the tree cannot use one: whoever deletes the key has it. The value is for people.

use pvc_core::model::{NodeName, screen::Hello, token::TokenHash};
use sha2::{Digest as _, Sha256};

use crate::{Clash, CommitError, CreateMode, Op, Store, StoreError, Transaction};

/// The parent of all tickets.
pub const ROOT: &str = "/pvc/screens";

/// So many may wait to be used.
pub const MOST_TICKETS: usize = 256;

/// How long one is good; an issuer's clock may be wrong by so much, too.
pub const GOOD_FOR_S: u64 = 120;

/// Its key.
pub fn path(node: &NodeName, hello: &Hello) -> String {
    let hash = Sha256::digest(hello.bound_to(node));
    format!("{ROOT}/{}", String::from(TokenHash(hash.into())))
}

/// Makes a ticket valid for as long as this session lives; `false`: too many wait.
pub async fn issue(store: &dyn Store, node: &NodeName, hello: &Hello) -> Result<bool, CommitError> {
    let waiting = store.children(ROOT).await.map_err(CommitError::Failed)?;
    if waiting.as_ref().is_some_and(|waiting| waiting.len() >= MOST_TICKETS) {
        return Ok(false);
    }
    if waiting.is_none() {
        let mut txn = Transaction::default();
        txn.create(ROOT, "");
        match store.commit(txn).await {
            Ok(_) | Err(CommitError::Conflict { clash: Clash::Present, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let data =
        format!("{{\"vm\":\"{}\",\"node\":\"{node}\",\"until_unix_s\":{}}}", hello.vm, hello.until_unix_s);
    let create = Op::Create { path: path(node, hello), data: data.into(), mode: CreateMode::Ephemeral };
    store.commit(Transaction { ops: vec![create] }).await.map(|_| true)
}

/// Takes a ticket; `false`: there is none like this that this client's server has seen, or it is too old. One that may have been taken is lost, too.
///
/// What is no ticket costs one answer of the nearest server, and no write: anybody may show something.
pub async fn take(
    store: &dyn Store,
    node: &NodeName,
    hello: &Hello,
    now_unix_s: u64,
) -> Result<bool, CommitError> {
    // What says that it is good for ever was not made by us.
    let left = hello.until_unix_s.checked_sub(now_unix_s);
    if left.is_none_or(|left| left == 0 || left > 2 * GOOD_FOR_S) {
        return Ok(false);
    }
    if store.get(&path(node, hello)).await.map_err(CommitError::Failed)?.is_none() {
        return Ok(false);
    }
    remove(store, node, hello).await
}

/// Removes a ticket that was not used, perhaps; `false`: there is none.
pub async fn remove(store: &dyn Store, node: &NodeName, hello: &Hello) -> Result<bool, CommitError> {
    let mut txn = Transaction::default();
    txn.delete(path(node, hello), None);
    match store.commit(txn).await {
        Err(CommitError::Conflict { clash: Clash::Missing, .. }) => Ok(false),
        other => other.map(|_| true),
    }
}

/// How many wait.
pub async fn waiting(store: &dyn Store) -> Result<usize, StoreError> {
    Ok(store.children(ROOT).await?.map_or(0, |waiting| waiting.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory::MemoryTree, schema::root};

    fn hello(ticket: u8) -> Hello {
        let vm = "5a0b0ad5-2f1c-4f3e-9a3d-6d0d6b2f8c11".parse().unwrap();
        Hello { vm, until_unix_s: 1000 + GOOD_FOR_S, ticket: [ticket; 32] }
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn a_ticket_is_good_once_where_and_for_what_it_was_made() {
        let tree = MemoryTree::new();
        let store = tree.client();
        root::init(&*store).await.unwrap();
        let (hv1, hv2, now) = (node("hv1"), node("hv2"), 1000);
        assert!(!take(&*store, &hv1, &hello(1), now).await.unwrap(), "nobody has made it");
        assert!(issue(&*store, &hv1, &hello(1)).await.unwrap());
        let shown: Vec<String> = tree.dump().keys().filter(|path| path.starts_with(ROOT)).cloned().collect();
        assert!(shown.len() == 2 && !shown[1].contains("0101"), "the ticket is not in the tree: {shown:?}");

        let of_another = Hello { vm: "5a0b0ad5-2f1c-4f3e-9a3d-6d0d6b2f8c12".parse().unwrap(), ..hello(1) };
        let longer = Hello { until_unix_s: hello(1).until_unix_s + 1, ..hello(1) };
        for (node, hello) in [(&hv2, hello(1)), (&hv1, of_another), (&hv1, longer), (&hv1, hello(2))] {
            assert!(!take(&*store, node, &hello, now).await.unwrap(), "{node} {hello:?}");
        }
        assert!(!take(&*store, &hv1, &hello(1), now + GOOD_FOR_S).await.unwrap(), "too old");
        assert!(!take(&*store, &hv1, &hello(1), now - 2 * GOOD_FOR_S).await.unwrap(), "from the future");
        assert!(take(&*store, &hv1, &hello(1), now).await.unwrap());
        assert!(!take(&*store, &hv1, &hello(1), now).await.unwrap(), "it is used");
        assert_eq!(waiting(&*store).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn tickets_are_few_and_go_with_the_session_of_who_made_them() {
        let tree = MemoryTree::new();
        let (store, maker) = (tree.client(), tree.client());
        root::init(&*store).await.unwrap();
        for until_unix_s in (0..).take(MOST_TICKETS) {
            let ticket = Hello { until_unix_s, ..hello(1) };
            assert!(issue(&*maker, &node("hv1"), &ticket).await.unwrap());
        }
        assert!(!issue(&*store, &node("hv1"), &hello(2)).await.unwrap());
        maker.close().await;
        assert_eq!(waiting(&*store).await.unwrap(), 0);
        assert!(issue(&*store, &node("hv1"), &hello(2)).await.unwrap());
    }
}
