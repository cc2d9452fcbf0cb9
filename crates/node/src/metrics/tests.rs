//! What is told, without a socket; over a socket it is asked of the program itself, in `tests/daemon/program.rs`.

use pvc_core::model::{DaemonMode, DaemonState, NodeReport, VmChange, VmId, VmSet, VmState};
use pvc_store::{
    memory::MemoryTree,
    schema::{maintenance, node, root, vm},
};

use super::*;

/// The value of a series as it is told.
fn value(text: &str, series: &str) -> Option<f64> {
    let line =
        text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// One VM that runs, one that is to run, and one that is off; the first.
async fn define(store: &dyn Store, me: &NodeName) -> VmId {
    let id = |n: u8| -> VmId { format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap() };
    for n in 1..=3 {
        let (name, node) = (format!("vm{n}").parse().unwrap(), me.clone());
        let define = VmChange::Define { id: id(n), name, node, xml: String::new(), rbd_images: vec![] };
        vm::apply(store, &define).await.unwrap();
        if n < 3 {
            let set = vec![VmSet::State(VmState::Start)];
            vm::apply(store, &VmChange::Update { id: id(n), expect: vec![], set }).await.unwrap();
        }
    }
    id(1)
}

#[test]
fn of_a_ceph_that_does_not_answer_nothing_is_known() {
    let recorder = recorder().unwrap();
    let text = metrics::with_local_recorder(&recorder, || {
        storage(1, Some(&Figures { health: "HEALTH_ERR".into(), ..Figures::default() }));
        storage(1, None);
        recorder.handle().render()
    });
    assert!(text.contains("pvcd_storage_health NaN"), "{text}");
}

#[tokio::test]
async fn what_is_and_what_happened_is_told_in_the_fields_units() {
    let recorder = recorder().unwrap();
    let handle = recorder.handle();
    let store = MemoryTree::new().client();
    root::init(&*store).await.unwrap();
    let me: NodeName = "node1".parse().unwrap();
    let registration = node::Registration {
        name: me.clone(),
        mode: DaemonMode::Coordinator,
        static_data: "8 6.1 GNU/Linux x86_64".parse().unwrap(),
        boot: "boot".into(),
        keepalive_interval: std::time::Duration::from_secs(5),
        vtep: None,
        storage: true,
        ipmi: node::Ipmi { password: "Passw0rd".into(), ..node::Ipmi::default() },
    };
    node::register(&*store, &registration).await.unwrap();
    let runs = define(&*store, &me).await;
    let report =
        NodeReport { mem_total_mib: 16384, domains_count: 3, running: vec![runs], ..NodeReport::default() };
    store.commit(node::report(&me, &report, None)).await.unwrap();
    store.commit(node::set_daemon_state(&me, DaemonState::Run)).await.unwrap();
    maintenance::set(&*store, true).await.unwrap();
    let mirror = Mirror::start(store.clone());
    mirror.ready().await;
    mirror.caught_up(Duration::from_secs(10)).await.unwrap();
    let sources = Sources { me, store, mirror };

    let text = metrics::with_local_recorder(&recorder, || {
        describe();
        keepalive(Duration::from_millis(3));
        keepalive_failed();
        planned("vm", Duration::from_micros(30));
        claim_conflict();
        vm_started(Duration::from_millis(400));
        vm_start_failed();
        vm_migrated(true, Duration::from_secs(2));
        fence_step("shoot", false);
        names_behind(Some(Duration::from_secs(3)));
        names_caught_up(Duration::from_millis(4));
        pools(30, 120, 0.5);
        forwards(7, 1, 0);
        routing(Some(Counted { speaks: false, nodes_missed: 0, routers_missed: 2 }));
        rules_matched("in", 3, 252);
        dropped("guard", 2);
        let space = pvc_core::model::ceph::Space { used_bytes: 7, total_bytes: 9, ..Default::default() };
        storage(
            1_700_000_000,
            Some(&Figures { health: "HEALTH_WARN".into(), osds: [3, 2, 1], space, ..Figures::default() }),
        );
        gauges::look_up(&sources);
        handle.render()
    });
    for (series, expected) in [
        ("pvcd_keepalive_seconds_bucket{le=\"0.0025\"}", 0.0),
        ("pvcd_keepalive_seconds_bucket{le=\"0.005\"}", 1.0),
        ("pvcd_keepalive_seconds_count", 1.0),
        ("pvcd_keepalive_failures_total", 1.0),
        ("pvcd_plan_seconds_bucket{subject=\"vm\",le=\"0.0001\"}", 1.0),
        ("pvcd_claim_conflicts_total", 1.0),
        ("pvcd_vm_starts_total{outcome=\"started\"}", 1.0),
        ("pvcd_vm_starts_total{outcome=\"failed\"}", 1.0),
        ("pvcd_vm_migrations_total{outcome=\"migrated\"}", 1.0),
        ("pvcd_vm_migration_seconds_sum", 2.0),
        ("pvcd_fence_steps_total{step=\"shoot\",outcome=\"failed\"}", 1.0),
        ("pvcd_node_vms", 3.0),
        ("pvcd_node_memory_bytes{kind=\"total\"}", 17_179_869_184.0),
        ("pvcd_node_primary", 0.0),
        ("pvcd_node_self_fence_seconds", 0.0),
        ("pvcd_cluster_nodes{state=\"run\"}", 1.0),
        ("pvcd_cluster_nodes{state=\"dead\"}", 0.0),
        ("pvcd_cluster_vms{state=\"start\"}", 2.0),
        ("pvcd_cluster_maintenance", 1.0),
        ("pvcd_cluster_fences", 0.0),
        ("pvcd_names_behind", 1.0),
        ("pvcd_names_behind_seconds", 3.0),
        ("pvcd_names_lag_seconds_bucket{le=\"0.005\"}", 1.0),
        ("pvcd_network_leases", 30.0),
        ("pvcd_network_pool_addresses", 120.0),
        ("pvcd_network_pool_used_ratio", 0.5),
        ("pvcd_network_forwards{by=\"pvcd\"}", 7.0),
        ("pvcd_network_forwards{by=\"frr\"}", 0.0),
        ("pvcd_routing_missed{what=\"bgpd\"}", 1.0),
        ("pvcd_routing_missed{what=\"routers\"}", 2.0),
        ("pvcd_network_rule_packets_total{direction=\"in\"}", 3.0),
        ("pvcd_network_rule_bytes_total{direction=\"in\"}", 252.0),
        ("pvcd_network_dropped_packets_total{wall=\"guard\"}", 2.0),
        ("pvcd_cluster_vms_waiting", 1.0),
        ("pvcd_storage_health", 1.0),
        ("pvcd_storage_answered_timestamp_seconds", 1_700_000_000.0),
        ("pvcd_storage_bytes{kind=\"used\"}", 7.0),
        ("pvcd_storage_osds{state=\"up\"}", 2.0),
        ("pvcd_store_session{state=\"healthy\"}", 1.0),
        ("pvcd_store_session{state=\"suspended\"}", 0.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series} in:\n{text}");
    }
    let described = text.lines().filter(|line| line.starts_with("# HELP ")).count();
    let typed = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(described, typed, "each has its meaning beside it:\n{text}");
    assert!(!text.contains("Passw0rd"));
}

#[test]
fn every_figure_is_in_the_manual() {
    let (source, manual) = (include_str!("../metrics.rs"), include_str!("../../../../docs/manual/daemon.md"));
    let names: Vec<&str> = source.split('"').filter(|text| text.starts_with("pvcd_")).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        assert!(manual.contains(&format!("`{name}")), "{name}");
    }
}
