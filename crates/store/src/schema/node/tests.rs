//! Nodes: registration, keepalives, rubbish.

use std::sync::Arc;

use proptest::{option, prelude::*};

use super::*;
use crate::{
    Op,
    memory::{MemoryStore, MemoryTree},
};

fn name() -> NodeName {
    "node1".parse().unwrap()
}

fn registration(mode: DaemonMode) -> Registration {
    let ipmi = Ipmi { hostname: "node1-ipmi".into(), username: "admin".into(), password: "secret".into() };
    Registration {
        name: name(),
        mode,
        static_data: "8 6.1.0-18-amd64 GNU/Linux x86_64".parse().unwrap(),
        ipmi,
    }
}

async fn store() -> (Arc<MemoryStore>, MemoryTree) {
    let tree = MemoryTree::new();
    let store = tree.client();
    crate::schema::root::init(&*store).await.unwrap();
    (store, tree)
}

async fn good(store: &dyn Store) -> Node {
    match read(store, &name()).await.unwrap() {
        Some(Entry::Good(node)) => node,
        other => panic!("{other:?}"),
    }
}

async fn set(store: &dyn Store, path: String, data: &str) {
    let op = Op::Set { path, data: data.into(), version: None };
    store.commit(Transaction { ops: vec![op] }).await.unwrap();
}

#[tokio::test]
async fn a_new_node_has_every_key_of_the_contract_and_starts_flushed() {
    let (store, tree) = store().await;
    register(&*store, &registration(DaemonMode::Coordinator)).await.unwrap();
    let mut keys = store.children("/nodes/node1").await.unwrap().unwrap();
    keys.sort();
    assert_eq!(
        keys,
        [
            "cpuload",
            "daemonmode",
            "daemonstate",
            "domainscount",
            "domainstate",
            "ipmihostname",
            "ipmipassword",
            "ipmiusername",
            "keepalive",
            "memalloc",
            "memfree",
            "memtotal",
            "memused",
            "networkscount",
            "routerstate",
            "runningdomains",
            "selffence",
            "staticdata",
            "vcpualloc"
        ]
    );
    let node = good(&*store).await;
    assert_eq!((node.mode, node.daemon_state.value), (DaemonMode::Coordinator, DaemonState::Init));
    assert_eq!(
        (node.router_state.value, node.domain_state.value),
        (RouterState::Secondary, DomainState::Flushed)
    );
    assert_eq!((node.report, node.keepalive_version), (NodeReport::default(), Some(0)));
    assert_eq!(node.self_fence_s, None, "nobody may count on what was not promised");
    assert_eq!(tree.dump()["/nodes/node1"], b"coordinator");
    assert_eq!(tree.dump()["/nodes/node1/staticdata"], b"8 6.1.0-18-amd64 GNU/Linux x86_64");
}

#[tokio::test]
async fn a_known_node_keeps_what_was_wished_of_it_and_gets_what_it_lacks() {
    let (store, tree) = store().await;
    register(&*store, &registration(DaemonMode::Coordinator)).await.unwrap();
    set(&*store, domain_state_path(&name()), "ready").await;
    set(&*store, "/nodes/node1/daemonstate".into(), "dead").await;
    let figures = NodeReport { mem_total_mib: 5, keepalive_unix_s: 9, ..NodeReport::default() };
    store.commit(report(&name(), &figures, None)).await.unwrap();
    let gone = Op::Delete { path: "/nodes/node1/ipmipassword".into(), version: None };
    store.commit(Transaction { ops: vec![gone] }).await.unwrap();

    register(&*store, &registration(DaemonMode::Hypervisor)).await.unwrap();
    let node = good(&*store).await;
    assert_eq!((node.domain_state.value, node.report), (DomainState::Ready, figures));
    assert_eq!((node.mode, node.daemon_state.value), (DaemonMode::Hypervisor, DaemonState::Init));
    assert_eq!(node.router_state.value, RouterState::Client);
    assert_eq!(tree.dump()["/nodes/node1/ipmipassword"], b"secret");
    store.commit(set_daemon_state(&name(), DaemonState::Run)).await.unwrap();
    assert_eq!(good(&*store).await.daemon_state.value, DaemonState::Run);
    for told in [Some(30), None, Some(6)] {
        store.commit(set_self_fence(&name(), told)).await.unwrap();
        assert_eq!(good(&*store).await.self_fence_s, told);
    }
    register(&*store, &registration(DaemonMode::Coordinator)).await.unwrap();
    assert_eq!(good(&*store).await.self_fence_s, None, "a new daemon guards nothing yet");
}

#[tokio::test]
async fn an_answer_about_vms_never_overwrites_a_newer_wish() {
    let (store, _) = store().await;
    register(&*store, &registration(DaemonMode::Coordinator)).await.unwrap();
    let seen = good(&*store).await.domain_state.version;
    set(&*store, domain_state_path(&name()), "unflush").await;
    let late = store.commit(set_domain_state(&name(), DomainState::Flushed, seen)).await;
    assert!(matches!(late, Err(CommitError::Conflict { .. })), "{late:?}");
    assert_eq!(good(&*store).await.domain_state.value, DomainState::Unflush);
}

#[test]
fn a_keepalive_writes_what_changed_and_always_its_time() {
    let first = NodeReport { mem_free_mib: 7, keepalive_unix_s: 100, ..NodeReport::default() };
    assert_eq!(report(&name(), &first, None).ops.len(), 10);
    let second = NodeReport { mem_free_mib: 8, keepalive_unix_s: 100, ..first.clone() };
    let written: Vec<String> =
        report(&name(), &second, Some(&first)).ops.iter().map(|op| op.path().to_owned()).collect();
    assert_eq!(written, ["/nodes/node1/memfree", "/nodes/node1/keepalive"]);
}

#[test]
fn the_password_is_in_no_debug_output() {
    assert!(!format!("{:?}", registration(DaemonMode::Coordinator)).contains("secret"));
}

#[tokio::test]
async fn each_unreadable_key_is_named() {
    let (store, _) = store().await;
    assert_eq!(read(&*store, &name()).await.unwrap(), None);
    register(&*store, &registration(DaemonMode::Coordinator)).await.unwrap();
    for (key, rubbish, repaired) in [
        ("daemonmode", "boss", "hypervisor"),
        ("daemonstate", "", "run"),
        ("routerstate", "x", "client"),
        ("domainstate", "Ready", "ready"),
        ("staticdata", "8 cores", ""),
        ("memtotal", "8 GiB", "8"),
        ("memfree", "-1", ""),
        ("cpuload", "nan", "0.25"),
        ("cpuload", "-0.5", "1"),
        ("runningdomains", "web", ""),
        ("keepalive", "now", "1"),
        ("selffence", "soon", ""),
    ] {
        set(&*store, format!("/nodes/node1/{key}"), rubbish).await;
        let Some(Entry::Bad(problems)) = read(&*store, &name()).await.unwrap() else {
            panic!("{key} {rubbish:?}")
        };
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].key, format!("/nodes/node1/{key}"));
        set(&*store, format!("/nodes/node1/{key}"), repaired).await;
    }
    good(&*store).await;
}

fn any_report() -> impl Strategy<Value = NodeReport> {
    let numbers = prop::array::uniform8(any::<u64>());
    let running =
        prop::collection::vec(any::<u128>().prop_map(|n| VmId::from(uuid::Uuid::from_u128(n))), 0..5);
    (numbers, 0.0..1e6_f64, running).prop_map(|(n, cpu_load, running)| NodeReport {
        mem_total_mib: n[0],
        mem_used_mib: n[1],
        mem_free_mib: n[2],
        mem_alloc_mib: n[3],
        vcpu_alloc: n[4],
        cpu_load,
        networks_count: n[5],
        domains_count: n[6],
        running,
        keepalive_unix_s: n[7],
    })
}

proptest! {
    #[test]
    fn what_is_reported_is_read_back(first in any_report(), second in any_report(), lost in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (store, _) = store().await;
            register(&*store, &registration(DaemonMode::Coordinator)).await.unwrap();
            store.commit(report(&name(), &first, None)).await.unwrap();
            prop_assert_eq!(&good(&*store).await.report, &first);
            let acknowledged = (!lost).then_some(&first);
            store.commit(report(&name(), &second, acknowledged)).await.unwrap();
            prop_assert_eq!(good(&*store).await.report, second);
            Ok(())
        })?;
    }

    #[test]
    fn rubbish_never_panics(
        data in prop::collection::vec(option::of(prop::collection::vec(any::<u8>(), 0..30)), READ_KEYS),
    ) {
        let values: Vec<Option<Value>> = data
            .into_iter()
            .map(|d| d.map(|data| Value { data, version: 0, mzxid: 0, children: 0 }))
            .collect();
        match decode(&name(), &values) {
            None => prop_assert!(values[0].is_none()),
            Some(Entry::Bad(problems)) => prop_assert!(!problems.is_empty()),
            Some(Entry::Good(_)) => {}
        }
    }
}
