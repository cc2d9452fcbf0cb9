//! Nodes: registration, keepalives, rubbish.

use std::sync::Arc;

use proptest::{option, prelude::*};

use super::*;
use pvc_core::model::{Halt, VmId};

use crate::{
    Op, Value,
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
        boot: "some-boot".into(),
        keepalive_interval: Duration::from_secs(5),
        vtep: None,
        storage: true,
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
        Some(node) if node.problems.is_empty() => node,
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
            "boot",
            "cpuload",
            "daemonmode",
            "daemonstate",
            "domainscount",
            "domainstate",
            "guests",
            "hypervisor",
            "ipmihostname",
            "ipmipassword",
            "ipmiusername",
            "keepalive",
            "keepalive_interval",
            "memalloc",
            "memfree",
            "memtotal",
            "memused",
            "networkscount",
            "routerstate",
            "runningdomains",
            "selffence",
            "staticdata",
            "stopped",
            "storage",
            "vcpualloc",
            "vtep"
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
    assert_eq!(node.boot.as_deref(), Some("some-boot"));
    assert_eq!(node.keepalive_interval, Some(Duration::from_secs(5)));
    assert_eq!(tree.dump()["/nodes/node1"], b"coordinator");
    assert_eq!(tree.dump()["/nodes/node1/staticdata"], b"8 6.1.0-18-amd64 GNU/Linux x86_64");
}

#[tokio::test]
async fn a_known_node_keeps_what_was_desired_of_it_and_gets_what_it_lacks() {
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
        promise(&*store, &name(), told).await.unwrap();
        assert_eq!(good(&*store).await.self_fence_s, told);
    }
    register(&*store, &registration(DaemonMode::Coordinator)).await.unwrap();
    assert_eq!(good(&*store).await.self_fence_s, None, "a new daemon guards nothing yet");
}

#[tokio::test]
async fn an_answer_about_vms_never_overwrites_a_newer_desired_state() {
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
    assert_eq!(report(&name(), &first, None).ops.len(), 12);
    let second = NodeReport { mem_free_mib: 8, keepalive_unix_s: 100, ..first.clone() };
    let written: Vec<String> =
        report(&name(), &second, Some(&first)).ops.iter().map(|op| op.path().to_owned()).collect();
    assert_eq!(written, ["/nodes/node1/memfree", "/nodes/node1/keepalive"]);
}

#[tokio::test]
async fn what_keeps_a_node_from_starting_vms_is_read_as_a_line_and_silence_as_nothing() {
    let (store, _) = store().await;
    register(&*store, &registration(DaemonMode::Coordinator)).await.unwrap();
    for (told, is) in [
        ("", None),
        (" \n", None),
        ("libvirt cannot be reached", Some("libvirt cannot be reached".to_owned())),
        ("a\nb\u{9b}\tc", Some("a b c".to_owned())),
        (&"x".repeat(100_000), Some("x".repeat(300))),
    ] {
        set(&*store, "/nodes/node1/hypervisor".into(), told).await;
        let node = good(&*store).await;
        assert_eq!(node.report.cannot_start, is);
        store.commit(report(&name(), &node.report, None)).await.unwrap();
        assert_eq!(good(&*store).await.report.cannot_start, is, "as it is written");
    }
    let gone = Op::Delete { path: "/nodes/node1/hypervisor".into(), version: None };
    store.commit(Transaction { ops: vec![gone] }).await.unwrap();
    assert_eq!(good(&*store).await.report.cannot_start, None, "a daemon that does not say");
}

#[test]
fn the_password_is_in_no_debug_output() {
    assert!(!format!("{:?}", registration(DaemonMode::Coordinator)).contains("secret"));
}

type Counts = fn(&Node) -> bool;

#[tokio::test]
async fn each_unreadable_key_is_named_and_counts_as_what_is_safe() {
    let (store, _) = store().await;
    assert_eq!(read(&*store, &name()).await.unwrap(), None);
    register(&*store, &registration(DaemonMode::Hypervisor)).await.unwrap();
    let id = "11111111-0000-4000-8000-000000000001";
    let many = vec![id; 10_001].join(" ");
    let long = format!("8 {} GNU/Linux x86_64", "k".repeat(300));
    let rows: [(&str, &str, &str, Counts); 19] = [
        ("daemonmode", "boss", "hypervisor", |n| n.mode == DaemonMode::Hypervisor),
        ("daemonstate", "", "stop", |n| n.daemon_state.value == DaemonState::Run && n.should_speak()),
        ("routerstate", "x", "client", |n| n.router_state.value == RouterState::Client),
        ("domainstate", "Ready", "ready", |n| n.domain_state.value == DomainState::Flushed),
        ("staticdata", "8 cores", "", |n| n.static_data.is_none()),
        ("staticdata", &long, "", |n| n.static_data.is_none()),
        ("memtotal", "8 GiB", "8", |n| n.report.mem_total_mib == 0),
        ("memfree", "-1", "", |n| n.report.mem_free_mib == 0),
        ("cpuload", "nan", "0.25", |n| n.report.cpu_load < 0.01),
        ("cpuload", "-0.5", "1", |n| n.report.cpu_load < 0.01),
        ("runningdomains", &format!("web {id}"), "", |n| n.report.running.len() == 1),
        ("runningdomains", &many, "", |n| n.report.running.len() == 10_000),
        ("keepalive", "now", "1", |n| n.keepalive_version.is_some()),
        ("selffence", "soon", "", |n| n.self_fence_s.is_none()),
        ("boot", "two words", "", |n| n.boot.is_none()),
        ("boot", &"x".repeat(65), "", |n| n.boot.is_none()),
        ("keepalive_interval", "often", "5", |n| n.keepalive_interval.is_none()),
        ("keepalive_interval", "0", "5", |n| n.keepalive_interval.is_none()),
        ("keepalive_interval", "3601", "5", |n| n.keepalive_interval.is_none()),
    ];
    for (key, rubbish, repaired, counts) in rows {
        set(&*store, format!("/nodes/node1/{key}"), rubbish).await;
        let node = read(&*store, &name()).await.unwrap().unwrap();
        assert_eq!(node.problems.len(), 1, "{:?}", node.problems);
        assert_eq!(node.problems[0].key, format!("/nodes/node1/{key}"));
        assert!(node.cannot_read(key) && counts(&node), "{key} {rubbish:.20}: {node:?}");
        set(&*store, format!("/nodes/node1/{key}"), repaired).await;
        good(&*store).await;
    }
}

#[tokio::test]
async fn that_a_node_has_stopped_in_order_outlives_its_unreadable_state() {
    let (store, _) = store().await;
    let counts_as = async |state| {
        let seen = read(&*store, &name()).await.unwrap().unwrap();
        assert!(seen.cannot_read("daemonstate"));
        assert_eq!(seen.daemon_state.value, state);
    };
    let spoil = || set(&*store, "/nodes/node1/daemonstate".into(), "rubbish");
    register(&*store, &registration(DaemonMode::Hypervisor)).await.unwrap();
    say_stopped(&*store, &name(), "some-boot").await.unwrap();
    store.commit(set_daemon_state(&name(), DaemonState::Stop)).await.unwrap();
    spoil().await;
    counts_as(DaemonState::Stop).await;
    set(&*store, "/nodes/node1/stopped".into(), "another-boot").await;
    counts_as(DaemonState::Run).await;
    // Neither a daemon that has begun since, nor one in another boot, has stopped.
    say_stopped(&*store, &name(), "some-boot").await.unwrap();
    register(&*store, &registration(DaemonMode::Hypervisor)).await.unwrap();
    spoil().await;
    counts_as(DaemonState::Run).await;
}

#[tokio::test]
async fn a_node_whose_mode_nobody_knows_counts_as_a_coordinator() {
    let (store, _) = store().await;
    register(&*store, &registration(DaemonMode::Hypervisor)).await.unwrap();
    set(&*store, "/nodes/node1".into(), "boss").await;
    assert_eq!(good(&*store).await.mode, DaemonMode::Hypervisor);
    set(&*store, "/nodes/node1/daemonmode".into(), "").await;
    assert_eq!(read(&*store, &name()).await.unwrap().unwrap().mode, DaemonMode::Coordinator);
}

#[tokio::test]
async fn keys_that_the_store_refuses_to_show_cost_what_they_say_and_nothing_else() {
    let (store, tree) = store().await;
    register(&*store, &registration(DaemonMode::Coordinator)).await.unwrap();
    store.commit(set_daemon_state(&name(), DaemonState::Stop)).await.unwrap();
    for key in ["daemonstate", "keepalive", "memtotal"] {
        tree.forbid(&format!("/nodes/node1/{key}"), true);
    }
    let node = read(&*store, &name()).await.unwrap().unwrap();
    let told: Vec<String> = node.problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[0], "/nodes/node1/daemonstate: the state store refuses to show it: not authorized");
    assert_eq!((node.daemon_state.value, node.daemon_state.version), (DaemonState::Run, Some(1)));
    assert_eq!((node.keepalive_version, node.boot.as_deref()), (Some(0), Some("some-boot")));
}

#[tokio::test]
async fn what_is_checked_of_a_node_whose_keys_are_gone_is_that_they_are_gone() {
    let (store, tree) = store().await;
    register(&*store, &registration(DaemonMode::Coordinator)).await.unwrap();
    for key in ["daemonstate", "keepalive"] {
        let gone = Op::Delete { path: format!("/nodes/node1/{key}"), version: None };
        store.commit(Transaction { ops: vec![gone] }).await.unwrap();
    }
    let seen = read(&*store, &name()).await.unwrap().unwrap();
    assert_eq!((seen.daemon_state.version, seen.keepalive_version), (None, None));
    let expect = || Transaction { ops: [expect_silence(&seen).ops, expect_daemon_state(&seen).ops].concat() };
    store.commit(expect()).await.unwrap();
    store.commit(declare_dead(&seen)).await.unwrap();
    assert_eq!(tree.dump()["/nodes/node1/daemonstate"], b"dead");
    assert!(matches!(store.commit(expect()).await, Err(CommitError::Conflict { .. })));
}

#[tokio::test]
async fn what_does_not_execute_is_told_by_nodes_that_tell_it_and_believed_only_of_a_new_report() {
    let (store, _) = store().await;
    register(&*store, &registration(DaemonMode::Coordinator)).await.unwrap();
    let id = |n: u8| VmId::from(uuid::Uuid::from_u128(n.into()));
    let figures = NodeReport {
        running: vec![id(1), id(2)],
        halted: vec![(id(2), Halt::IoError)],
        ..NodeReport::default()
    };
    let committed = store.commit(report(&name(), &figures, None)).await.unwrap();
    let before = committed.zxid - 1;
    for (vm, since, expected) in [
        (1, before, Reported::Executes),
        (2, before, Reported::Halted(Halt::IoError)),
        (3, before, Reported::Nothing),
        (2, committed.zxid, Reported::Nothing),
    ] {
        assert_eq!(reported(&*store, &name(), id(vm), since).await.unwrap(), expected);
    }
    for rubbish in [format!("{}=on fire", id(2)), "rubbish".into(), format!("{}", id(2))] {
        set(&*store, key(&name(), GUESTS), &rubbish).await;
        let node = read(&*store, &name()).await.unwrap().unwrap();
        assert!(node.cannot_read(GUESTS) && node.report.halted.is_empty(), "{rubbish}");
    }
    let mut txn = Transaction::default();
    txn.delete(key(&name(), GUESTS), None);
    store.commit(txn).await.unwrap();
    assert_eq!(good(&*store).await.report.halted, [], "a node of the 0.5 generation has no such key");
}

fn any_report() -> impl Strategy<Value = NodeReport> {
    let numbers = prop::array::uniform8(any::<u64>());
    let running =
        prop::collection::vec(any::<u128>().prop_map(|n| VmId::from(uuid::Uuid::from_u128(n))), 0..5);
    let halts = prop::collection::vec(prop::sample::select(&Halt::ALL), 0..5);
    let cannot_start = option::of(".{0,400}").prop_map(|why| why.as_deref().and_then(NodeReport::reason));
    (numbers, 0.0..1e6_f64, running, halts, cannot_start).prop_map(
        |(n, cpu_load, running, halts, cannot_start)| NodeReport {
            cannot_start,
            mem_total_mib: n[0],
            mem_used_mib: n[1],
            mem_free_mib: n[2],
            mem_alloc_mib: n[3],
            vcpu_alloc: n[4],
            cpu_load,
            networks_count: n[5],
            domains_count: n[6],
            halted: running.iter().copied().zip(halts).collect(),
            running,
            keepalive_unix_s: n[7],
        },
    )
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
        prop_assert_eq!(decode(&name(), &values).is_none(), values[0].is_none());
    }
}

#[tokio::test]
async fn whether_a_node_manages_storage_and_where_its_clients_are_is_read_back_and_outlives_a_start() {
    let (store, _tree) = store().await;
    let registration = Registration { storage: false, ..registration(DaemonMode::Coordinator) };
    register(&*store, &registration).await.unwrap();
    assert_eq!((good(&*store).await.storage, good(&*store).await.storage_host), (Some(false), None));
    let host = "10.0.0.3".parse().unwrap();
    say_storage_host(&*store, &registration.name, host).await.unwrap();
    register(&*store, &Registration { storage: true, ..registration.clone() }).await.unwrap();
    let node = good(&*store).await;
    assert_eq!((node.storage, node.storage_host), (Some(true), Some(host)));

    let mut spoil = Transaction::default();
    spoil.set(key(&registration.name, STORAGE), "perhaps", None);
    store.commit(spoil).await.unwrap();
    let spoilt = read(&*store, &registration.name).await.unwrap().unwrap();
    assert!(spoilt.storage.is_none() && spoilt.cannot_read(STORAGE));
    let written = repair(&*store, &registration, &spoilt, false).await;
    assert!(written.contains(&key(&registration.name, STORAGE)), "{written:?}");
    assert_eq!(good(&*store).await.storage, Some(false));
}
