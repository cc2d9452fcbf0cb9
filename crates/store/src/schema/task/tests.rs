use pvc_core::model::{
    ceph::VolumeStats,
    storage::{ObservedImage, ObservedPool},
};

use super::*;
use crate::{Op, memory::MemoryTree, schema::root};

fn me() -> NodeName {
    "node1".parse().unwrap()
}

async fn ready() -> (MemoryTree, std::sync::Arc<crate::memory::MemoryStore>) {
    let tree = MemoryTree::new();
    let store = tree.client();
    root::init(&*store).await.unwrap();
    store.commit(primary::take(&me(), false)).await.unwrap();
    (tree, store)
}

async fn ask_for(store: &dyn Store, line: &str) -> Result<TaskId, AskError> {
    ask(store, &line.parse().unwrap(), false, "root on node1", 1000).await
}

async fn only(store: &dyn Store) -> Seen {
    read_all(store).await.unwrap().0.pop().unwrap()
}

fn done() -> TaskState {
    TaskState::Done { at_unix_s: 1001 }
}

#[tokio::test]
async fn a_task_is_asked_for_begun_and_ended_by_the_primary_alone() {
    let (tree, store) = ready().await;
    assert_eq!(ask_for(&*store, "volume_add vms,web1,1048576B").await.unwrap(), 1);
    assert_eq!(ask_for(&*store, "osd_out 1").await.unwrap(), 2);
    let text = String::from_utf8(tree.dump()["/pvc/tasks/1"].clone()).unwrap();
    assert!(text.contains(r#""command":"volume_add vms,web1,1048576B""#), "{text}");
    let (tasks, problems) = read_all(&*store).await.unwrap();
    assert!(problems.is_empty() && tasks[0].task.state == TaskState::Waiting);

    let other: NodeName = "node2".parse().unwrap();
    let running = || TaskState::Running { node: "node1".into(), since_unix_s: 1000 };
    let late = store.commit(move_on(&tasks[0], running(), &other)).await;
    assert!(matches!(late, Err(CommitError::Conflict { .. })), "node2 is not primary: {late:?}");
    store.commit(move_on(&tasks[0], running(), &me())).await.unwrap();
    let cancelled = cancel(&*store, &tasks[0], "somebody", 1001).await;
    assert!(matches!(cancelled, Err(CommitError::Conflict { .. })), "it was begun: {cancelled:?}");
    let seen = read(&*store, 1).await.unwrap().unwrap();
    assert_eq!(seen.task.state, running());
    end(&*store, &seen, (done(), None), &[], &me()).await.unwrap();
    assert!(read(&*store, 1).await.unwrap().unwrap().task.is_over());
    cancel(&*store, &tasks[1], "somebody", 1001).await.unwrap();
    assert!(read(&*store, 2).await.unwrap().unwrap().task.is_over());
}

#[tokio::test]
async fn the_tree_follows_in_the_transaction_that_ends_the_task() {
    let (tree, store) = ready().await;
    let image = |name: &str| format!("vms/{name}").parse().unwrap();
    let observed = |snapshots: &[&str]| ObservedImage {
        id: None,
        stats: VolumeStats { size: 4096, ..VolumeStats::default() },
        snapshots: snapshots.iter().map(|name| (*name).to_owned()).collect(),
        mark: None,
    };
    let pool = || ObservedPool { pgs: 8, ..ObservedPool::default() };
    let finish = async |changes: &[TreeChange]| {
        ask_for(&*store, "osd_out 1").await.unwrap();
        end(&*store, &only(&*store).await, (done(), None), changes, &me()).await.unwrap();
    };
    let below_ceph = || {
        let keys = tree.dump().into_keys().filter(|key| key.starts_with("/ceph/") && key.contains("vms"));
        keys.map(|key| key["/ceph/".len()..].to_owned()).collect::<Vec<_>>()
    };
    finish(&[TreeChange::Pool("vms".parse().unwrap(), Some(pool()))]).await;
    let of_pool = ["pools/vms", "pools/vms/pgs", "pools/vms/stats", "snapshots/vms", "volumes/vms"];
    assert_eq!(below_ceph(), of_pool);
    assert_eq!(tree.dump()["/ceph/pools/vms/pgs"], b"8");
    assert!(tree.dump()["/ceph/pools/vms/stats"].starts_with(b"{\"id\":0"), "real from the start");

    for _ in 0..2 {
        // A name that no client could read is left out.
        finish(&[TreeChange::Volume(image("web1"), Some(observed(&["daily", "o'dd name"])))]).await;
    }
    let keys = below_ceph();
    assert!(keys.contains(&"snapshots/vms/web1/daily/stats".to_owned()), "{keys:?}");
    assert!(!keys.iter().any(|key| key.contains("dd name")), "{keys:?}");

    let renamed = TreeChange::Volume(image("web2"), Some(observed(&["weekly"])));
    finish(&[TreeChange::Volume(image("web1"), None), renamed]).await;
    let keys = below_ceph();
    assert!(keys.contains(&"volumes/vms/web2/stats".to_owned()), "{keys:?}");
    assert!(!keys.iter().any(|key| key.contains("web1")), "{keys:?}");

    finish(&[TreeChange::Pool("vms".parse().unwrap(), None)]).await;
    assert!(below_ceph().is_empty(), "with all that was in it: {:?}", below_ceph());
}

#[tokio::test]
async fn rubbish_is_told_and_costs_no_other_task_and_the_oldest_are_forgotten() {
    let (tree, store) = ready().await;
    let put = async |name: &str, data: &str| {
        let mode = crate::CreateMode::Persistent;
        let op = Op::Create { path: format!("{ROOT}/{name}"), data: data.into(), mode };
        store.commit(Transaction { ops: vec![op] }).await.unwrap();
    };
    put("rubbish", "").await;
    put("7", "{}").await;
    let good = ask_for(&*store, "osd_out 1").await.unwrap();
    let (tasks, problems) = read_all(&*store).await.unwrap();
    assert_eq!((tasks.len(), problems.len(), tasks[0].task.id), (1, 2, good));

    // Nobody may read one, and one cannot be deleted: the others are read, end, and are forgotten all the same.
    tree.forbid(&format!("{ROOT}/7"), true);
    put(&format!("{good}/x"), "").await;
    put("+8", "").await;
    assert_eq!(read_all(&*store).await.unwrap().1.len(), 3);

    for _ in 0..KEPT + 5 {
        end(&*store, &only(&*store).await, (done(), None), &[], &me()).await.unwrap();
        ask_for(&*store, "osd_out 1").await.unwrap();
    }
    let (tasks, _) = read_all(&*store).await.unwrap();
    assert_eq!(tasks.iter().filter(|seen| seen.task.is_over()).count(), KEPT + 1, "and the one that stays");
    for _ in 1..MOST_WAITING {
        ask_for(&*store, "osd_out 1").await.unwrap();
    }
    assert!(matches!(ask_for(&*store, "osd_out 1").await, Err(AskError::TooMany)));
}
