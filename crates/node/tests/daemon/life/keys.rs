//! Its keys are deleted, overwritten, or closed to it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_node_that_was_declared_dead_and_lives_says_so() {
    let cluster = Cluster::new();
    let node = cluster.start_node("node1");
    cluster.until_state("node1", "run").await;
    cluster.write("/nodes/node1/daemonstate", "dead").await;
    let took = cluster.until_state("node1", "run").await;
    assert!(took <= INTERVAL + Duration::from_secs(1), "it took {took:?}");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_keys_were_deleted_while_it_lives_registers_again() {
    let cluster = Cluster::new();
    let node = cluster.start_node("node1");
    cluster.until_state("node1", "run").await;
    let mut keys: Vec<String> =
        cluster.tree.dump().into_keys().filter(|k| k.starts_with("/nodes/node1")).collect();
    keys.reverse();
    let ops = keys.into_iter().map(|path| Op::Delete { path, version: None }).collect();
    cluster.eye.commit(Transaction { ops }).await.unwrap();
    cluster.until_state("node1", "run").await;
    assert_eq!(cluster.node_key("node1", "memtotal"), "16384");
    node.stop().await;
}

/// An old client's `init` of a tree that has our roots: it deletes what it knows, one root after the other, and then fails.
#[tokio::test(start_paused = true)]
async fn roots_and_nodes_that_an_old_init_deleted_are_there_again_within_a_keepalive() {
    let cluster = Cluster::new();
    let nodes = [cluster.start_node("node1"), cluster.start_node("node2")];
    for name in ["node1", "node2"] {
        cluster.until_state(name, "run").await;
    }
    cluster.until("/nodes/node1/routerstate", "primary").await;
    let guest = "11111111-0000-4000-8000-000000000001".parse().unwrap();
    let seen = Seen { id: guest, name: "g".into(), activity: Activity::Running, memory_mib: 64, vcpus: 1 };
    nodes[0].hypervisor.put(seen);
    let roots: Vec<String> =
        cluster.tree.dump().into_keys().filter(|key| key.matches('/').count() == 1).collect();
    for root in ["/nodes", "/primary_node", "/domains", "/networks", "/ceph", "/cmd"] {
        let below = |key: &String| key == root || key.starts_with(&format!("{root}/"));
        let mut keys: Vec<String> = cluster.tree.dump().into_keys().filter(below).collect();
        keys.reverse();
        let ops = keys.into_iter().map(|path| Op::Delete { path, version: None }).collect();
        cluster.eye.commit(Transaction { ops }).await.unwrap();
    }
    sleep(INTERVAL + Duration::from_secs(1)).await;
    for root in roots {
        assert!(cluster.get(&root).is_some(), "{root}");
    }
    for key in ["/ceph/osds", "/ceph/pools", "/ceph/volumes", "/ceph/snapshots", "/cmd/domains", "/cmd/ceph"]
    {
        assert!(cluster.get(key).is_some(), "{key}");
    }
    for name in ["node1", "node2"] {
        assert_eq!(cluster.node_key(name, "daemonstate"), "run");
        assert_eq!(cluster.node_key(name, "memtotal"), "16384");
    }
    cluster.until("/primary_node", "node1").await;
    cluster.until("/nodes/node1/routerstate", "primary").await;
    assert_eq!(cluster.node_key("node1", "runningdomains"), guest.to_string());
    assert_eq!(nodes[0].hypervisor.running(), [guest], "what runs is not touched");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_writes_its_own_keys_again_that_say_something_else() {
    let cluster = Cluster::new();
    let node = cluster.start_node("node1");
    cluster.until_state("node1", "run").await;
    cluster.until("/nodes/node1/routerstate", "primary").await;
    for (key, rubbish) in [
        ("daemonstate", "?"),
        ("daemonmode", "hypervisor"),
        ("daemonmode", ""),
        ("routerstate", "boss"),
        ("staticdata", "none of your business"),
        ("memtotal", "many"),
        ("runningdomains", "web"),
        ("cpuload", "-1"),
        ("boot", "another one"),
        ("boot", "another"),
        ("keepalive_interval", "0"),
        ("keepalive_interval", "3600"),
    ] {
        let path = format!("/nodes/node1/{key}");
        let right = cluster.get(&path).unwrap();
        cluster.write(&path, rubbish).await;
        let took = cluster.until(&path, &right).await;
        // Its own figures are no news to it: it writes all of them once in a minute.
        let figure = ["memtotal", "runningdomains", "cpuload"].contains(&key);
        assert!(took <= INTERVAL * if figure { 13 } else { 2 }, "{key} took {took:?}");
    }
    for key in ["boot", "staticdata", "daemonstate"] {
        let path = format!("/nodes/node1/{key}");
        let right = cluster.get(&path).unwrap();
        let gone = Op::Delete { path: path.clone(), version: None };
        cluster.eye.commit(Transaction { ops: vec![gone] }).await.unwrap();
        cluster.until(&path, &right).await;
    }
    cluster.write("/nodes/node1/domainstate", "Ready").await;
    sleep(5 * INTERVAL).await;
    assert_eq!(cluster.node_key("node1", "domainstate"), "Ready", "the desired state is nobody's own word");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_may_write_costs_no_keepalive() {
    for key in ["memfree", "daemonstate", "boot", "staticdata", "selffence"] {
        let cluster = Cluster::new();
        let node = cluster.start_node("node1");
        cluster.until_state("node1", "run").await;
        let path = format!("/nodes/node1/{key}");
        cluster.write(&path, "dead").await;
        cluster.tree.seal(&path, true);
        let version = cluster.version("/nodes/node1/keepalive").await;
        sleep(30 * INTERVAL).await;
        assert!(cluster.version("/nodes/node1/keepalive").await - version >= 29, "{key}");
        cluster.tree.seal(&path, false);
        cluster.until_state("node1", "run").await;
        node.stop().await;
    }
}
