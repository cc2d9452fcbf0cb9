//! What clients of the 0.5 generation write, through whole reconcilers.

use pvc_core::model::{DomainState, NodeReport};
use pvc_store::{CreateMode, Op, Transaction, schema::node};

use super::*;

impl World {
    async fn write(&self, n: u8, keys: &[(&str, &str)]) {
        let set = |(key, text): &(&str, &str)| Op::Set {
            path: format!("{}/{key}", schema::vm::path(id(n))),
            data: (*text).into(),
            version: None,
        };
        self.operator.commit(Transaction { ops: keys.iter().map(set).collect() }).await.unwrap();
    }

    async fn read(&self, n: u8, key: &str) -> String {
        let path = format!("{}/{key}", schema::vm::path(id(n)));
        self.operator
            .get(&path)
            .await
            .unwrap()
            .map(|v| String::from_utf8(v.data).unwrap())
            .unwrap_or_default()
    }

    /// Nodes that have memory, as their keepalives say.
    async fn with_memory() -> Self {
        let w = Self::new().await;
        let report = NodeReport { mem_total_mib: 1000, ..NodeReport::default() };
        for node in &w.nodes {
            w.operator.commit(node::report(&node.name, &report, None)).await.unwrap();
        }
        w
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_to_no_node_finds_one_and_the_guest_executes_all_the_while() {
    let w = World::with_memory().await;
    w.running(1).await;
    w.write(1, &[("state", "migrate"), ("node", "None"), ("lastnode", "a")]).await;
    w.until("it runs on b", 10, async |w| {
        assert!(w.runs(0, 1) || w.runs(1, 1), "the guest is shut down");
        w.read(1, "state").await == "start" && w.runs(1, 1)
    })
    .await;
    assert_eq!((w.read(1, "node").await, w.read(1, "lastnode").await), ("b".into(), "a".into()));
    assert_eq!(w.nodes[1].hypervisor.counts().start, 0, "it was migrated");
}

#[tokio::test(start_paused = true)]
async fn a_migration_to_no_node_that_finds_none_is_answered_where_it_is_with_the_reason() {
    let w = World::with_memory().await;
    w.running(1).await;
    let b = &w.nodes[1].name;
    w.operator.commit(node::set_domain_state(b, DomainState::Flushed, None)).await.unwrap();
    w.write(1, &[("state", "migrate"), ("node", "None"), ("lastnode", "a")]).await;
    w.until_state(1, VmState::Start, 60).await;
    assert!(w.runs(0, 1) && w.nodes[0].hypervisor.counts().start == 1);
    assert_eq!((w.read(1, "node").await, w.read(1, "lastnode").await), ("a".into(), String::new()));
    let reason = w.read(1, "failedreason").await;
    assert!(reason.starts_with("not migrated: no node can take it"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_vm_whose_node_is_none_is_stopped_and_started_again_like_any_other() {
    let w = World::with_memory().await;
    let mode = CreateMode::Persistent;
    let primary = Op::Create { path: schema::primary::HOLDER.into(), data: b"b".to_vec(), mode };
    w.operator.commit(Transaction { ops: vec![primary] }).await.unwrap();
    w.running(1).await;
    w.write(1, &[("node", "None")]).await;
    sleep(Duration::from_secs(5)).await;
    assert!(w.runs(0, 1), "what runs goes on");
    w.write(1, &[("state", "stop")]).await;
    w.until("it is off and free", 5, async |w| !w.runs(0, 1) && w.vm(1).await.claim.value.is_empty()).await;
    w.write(1, &[("state", "start")]).await;
    w.until("it runs where the primary has placed it", 70, async |w| w.runs(0, 1) || w.runs(1, 1)).await;
    assert_ne!(w.read(1, "node").await, "None");
}

#[tokio::test(start_paused = true)]
async fn a_refused_unmigrate_leaves_the_way_home_and_the_word_itself_is_understood() {
    let w = World::with_memory().await;
    w.running(1).await;
    w.write(1, &[("lastnode", "b")]).await;
    sleep(Duration::from_secs(1)).await;
    let b = &w.nodes[1].name;
    w.operator.commit(node::set_domain_state(b, DomainState::Flushed, None)).await.unwrap();
    w.write(1, &[("state", "migrate"), ("node", "b"), ("lastnode", "")]).await;
    w.until_state(1, VmState::Start, 60).await;
    assert_eq!((w.read(1, "node").await, w.read(1, "lastnode").await), ("a".into(), "b".into()));

    w.operator.commit(node::set_domain_state(b, DomainState::Ready, None)).await.unwrap();
    w.write(1, &[("state", "unmigrate")]).await;
    w.until("it is at home", 10, async |w| w.runs(1, 1) && w.read(1, "state").await == "start").await;
    assert_eq!((w.read(1, "node").await, w.read(1, "lastnode").await), ("b".into(), String::new()));
}

#[tokio::test(start_paused = true)]
async fn unreadable_values_leave_a_vm_running_and_in_the_hands_of_clients() {
    let w = World::with_memory().await;
    w.running(1).await;
    for (key, rubbish) in [
        ("state", "Stop!"),
        ("node", "a b"),
        ("lastnode", "../x"),
        ("failedreason", "\u{1b}[2J"),
        ("rbdlist", ",/,"),
    ] {
        w.write(1, &[(key, rubbish)]).await;
        sleep(Duration::from_secs(5)).await;
        assert!(w.runs(0, 1), "{key}: it goes on");
    }
    w.nodes[0].hypervisor.vanish(id(1));
    w.until("it runs again after a crash", 10, async |w| w.runs(0, 1)).await;
    w.write(1, &[("state", "shutdown")]).await;
    w.until_state(1, VmState::Stop, 100).await;
    assert!(!w.runs(0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_what_does_not_run_starts_it_and_answers_start() {
    let w = World::new().await;
    w.define(1, xml(1)).await;
    for before in ["stop", "failed"] {
        w.write(1, &[("state", before)]).await;
        sleep(Duration::from_secs(1)).await;
        w.write(1, &[("state", "restart")]).await;
        w.until_state(1, VmState::Start, 10).await;
        assert!(w.runs(0, 1), "after {before}");
        w.write(1, &[("state", "stop")]).await;
        w.until("it is off", 5, async |w| !w.runs(0, 1) && w.vm(1).await.claim.value.is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_vm_runs_by_the_name_of_its_key_whatever_its_definition_says() {
    let w = World::new().await;
    let other = xml(1).replace("<name>vm1</name>", "<name>An Older Name</name>");
    let python = format!("b'{}'", other.replace('\n', "\\n").replace('\'', "\\'"));
    for xml in [other, python] {
        let n = 1;
        w.define(n, xml).await;
        w.ask_for(n, VmState::Start).await;
        w.until("it runs", 5, async |w| w.runs(0, n)).await;
        w.ask_for(n, VmState::Stop).await;
        w.until("it is off", 5, async |w| !w.runs(0, n) && w.vm(n).await.claim.value.is_empty()).await;
        schema::vm::apply(&*w.operator, &VmChange::Remove { id: id(n), expect: vec![] }).await.unwrap();
    }
}

/// As kazoo's recursive deletion: the children in some order, then the key, and nothing may come in between.
#[tokio::test(start_paused = true)]
async fn a_deletion_key_by_key_is_never_disturbed_and_nothing_comes_back() {
    let w = World::new().await;
    let keys = ["state", "node", "lastnode", "failedreason", "consolelog", "rbdlist", "xml"];
    for turn in 0..keys.len() {
        w.running(1).await;
        w.write(1, &[("state", "stop")]).await;
        sleep(Duration::from_millis(700)).await;
        w.write(1, &[("state", "delete")]).await;
        sleep(Duration::from_millis(300)).await;
        let listed = w.operator.children(&schema::vm::path(id(1))).await.unwrap().unwrap();
        for key in keys.iter().cycle().skip(turn).take(keys.len()) {
            assert!(listed.iter().any(|listed| listed == key));
            let path = format!("{}/{key}", schema::vm::path(id(1)));
            let ops = vec![Op::Delete { path, version: None }];
            w.operator.commit(Transaction { ops }).await.unwrap();
            sleep(Duration::from_millis(500)).await;
        }
        let ops = vec![Op::Delete { path: schema::vm::path(id(1)), version: None }];
        w.operator.commit(Transaction { ops }).await.expect("nobody has created a key below it");
        w.until("it is off", 5, async |w| !w.runs(0, 1)).await;
        sleep(Duration::from_secs(2)).await;
        assert_eq!(w.operator.children(schema::vm::ROOT).await.unwrap().unwrap(), Vec::<String>::new());
    }
}

/// Each set of an old client is followed by a check of the next version: whoever writes the key in between loses its command.
#[tokio::test(start_paused = true)]
async fn a_settled_vm_is_not_written_to() {
    let w = World::new().await;
    w.running(1).await;
    sleep(Duration::from_secs(5)).await;
    let before = w.vm(1).await;
    sleep(Duration::from_mins(5)).await;
    assert_eq!(w.vm(1).await, before, "no key of it has another version");
}
