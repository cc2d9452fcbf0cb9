//! Initialisation: complete, repeatable, by several at once.

use std::sync::Arc;

use super::*;
use crate::schema::primary::PRIMARY_NODE;
use crate::{
    CreateMode, Op,
    memory::{MemoryStore, MemoryTree},
};

async fn set(store: &MemoryStore, path: &str, data: &str) {
    let op = Op::Set { path: path.into(), data: data.into(), version: None };
    store.commit(Transaction { ops: vec![op] }).await.unwrap();
}

#[tokio::test]
async fn a_second_initialisation_leaves_all_as_it_was() {
    let tree = MemoryTree::new();
    let store = tree.client();
    assert!(!is_initialised(&*store).await.unwrap());
    assert_eq!(init(&*store).await.unwrap().len(), KEYS.len());
    assert!(is_initialised(&*store).await.unwrap());
    assert_eq!(tree.dump()[PRIMARY_NODE], b"none");
    set(&store, PRIMARY_NODE, "node1").await;
    let (before, zxid) = (tree.dump(), tree.zxid());
    assert_eq!(init(&*store).await.unwrap(), Vec::<String>::new());
    assert_eq!((tree.dump(), tree.zxid()), (before, zxid), "nothing is written");
}

#[tokio::test]
async fn a_tree_of_the_old_generation_gets_only_what_it_lacks() {
    let store = MemoryTree::new().client();
    let old = KEYS.iter().filter(|(path, _)| !path.starts_with("/pvc"));
    let ops = old
        .map(|(path, _)| Op::Create {
            path: (*path).into(),
            data: b"old".into(),
            mode: CreateMode::Persistent,
        })
        .collect();
    store.commit(Transaction { ops }).await.unwrap();
    assert!(is_initialised(&*store).await.unwrap());
    let created = init(&*store).await.unwrap();
    assert!(!created.is_empty() && created.iter().all(|path| path.starts_with("/pvc")), "{created:?}");
    assert_eq!(store.get(PRIMARY_NODE).await.unwrap().unwrap().data, b"old");
}

#[tokio::test(start_paused = true)]
async fn several_at_once_and_lost_answers_end_in_one_tree() {
    let tree = MemoryTree::new();
    let clients: Vec<Arc<MemoryStore>> = (0..4).map(|_| tree.client()).collect();
    clients[0].lose_answers(1);
    let tasks: Vec<_> = clients
        .iter()
        .map(|c| {
            let c = Arc::clone(c);
            pvc_process::spawn(async move { init(&*c).await })
        })
        .collect();
    for (i, task) in tasks.into_iter().enumerate() {
        let outcome = task.await.unwrap();
        assert!(outcome.is_ok() || i == 0, "{outcome:?}");
    }
    assert!(init(&*clients[0]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_layout_that_is_newer_or_not_understood_is_refused_untouched() {
    for layout in ["2", "", "x", "ä".repeat(100).as_str()] {
        let tree = MemoryTree::new();
        let store = tree.client();
        init(&*store).await.unwrap();
        set(&store, SCHEMA, layout).await;
        let refused = init(&*store).await;
        assert!(matches!(&refused, Err(SchemaError::Tree(p)) if p.key == SCHEMA), "{refused:?}");
    }
}

#[test]
fn nobody_is_primary_in_three_spellings() {
    let value = |text: &str| Value { data: text.into(), version: 0, mzxid: 0, children: 0 };
    for nobody in [None, Some(value("")), Some(value("none")), Some(value("None"))] {
        assert_eq!(decode_primary(nobody.as_ref()), Ok(None));
    }
    assert_eq!(decode_primary(Some(&value("node2"))).unwrap().unwrap().as_str(), "node2");
    assert!(decode_primary(Some(&value("two words"))).is_err());
    let binary = Value { data: vec![0xff], ..value("") };
    assert!(decode_primary(Some(&binary)).is_err());
}
