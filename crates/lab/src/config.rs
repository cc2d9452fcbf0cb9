//! The pvcd.yaml of a lab's node: the packaged sample with the lab's own settings.

use pvc_config::sample::Sample;

use crate::{
    layout::{
        API_PORT, API_TOKEN, BMC_PASSWORD, BMC_USER, CEPH_KEYRING, CEPH_PORT, DATABASE_PASSWORD, Net,
        NodeNumber, SHARED_IN_NODE,
    },
    options::LabOptions,
};

/// Python's spelling, as in the manual.
fn boolean(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// The text of `/etc/pvc/pvcd.yaml` on `node`.
pub fn pvcd_yaml(node: NodeNumber, options: &LabOptions) -> String {
    let timings = &options.timings;
    let mut sample = Sample::default()
        .with("node", node)
        .with("functions.enable_networking", boolean(options.enable_networking))
        .with("functions.enable_storage", boolean(options.storage))
        .with("functions.enable_api", boolean(options.enable_api))
        .with_list("cluster.coordinators", options.coordinators())
        .with("system.fencing.intervals.keepalive_interval", timings.keepalive_interval_s)
        .with("system.fencing.intervals.fence_intervals", timings.fence_intervals)
        .with("system.fencing.intervals.suicide_intervals", timings.suicide_intervals)
        .with("system.fencing.actions.successful_fence", &timings.successful_fence)
        .with("system.fencing.actions.failed_fence", &timings.failed_fence)
        .with("system.fencing.ipmi.host", node.bmc_address())
        .with("system.fencing.ipmi.user", BMC_USER)
        .with("system.fencing.ipmi.pass", BMC_PASSWORD)
        .with("system.configuration.logging.log_colours", "False")
        .with("system.configuration.logging.log_dates", "False")
        .with("system.configuration.logging.log_keepalive_storage_details", boolean(options.storage))
        .with("system.configuration.logging.console_log_lines", options.console_log_lines);
    if options.database {
        sample = sample
            .with("coordinator.dns.database.host", NodeNumber::FIRST.address(Net::Cluster))
            .with("coordinator.dns.database.name", "postgres")
            .with("coordinator.dns.database.pass", DATABASE_PASSWORD);
    }
    for net in [Net::Upstream, Net::Cluster, Net::Storage] {
        let of_all = |setting: &str| format!("cluster.networks.{}.{setting}", net.name());
        let here = |setting: &str| format!("system.configuration.networking.{}.{setting}", net.name());
        let [floating, floating6] = net.floating();
        sample = sample
            .with(&of_all("domain"), format!("\"{}\"", net.domain()))
            .with(&of_all("network"), format!("\"{}/24\"", net.address(0)))
            .with(&of_all("floating_ip"), format!("\"{floating}/24\""))
            .with(&of_all("network6"), format!("\"{}/64\"", net.address6(0)))
            .with(&of_all("floating_ip6"), format!("\"{floating6}/64\""))
            .with(&here("device"), net.device())
            .with(&here("address"), "by-id");
    }
    sample.with("cluster.networks.upstream.gateway", format!("\"{}\"", Net::Upstream.switch())).text()
}

/// The text of `/etc/pvc/pvc-api.yaml` on every node.
pub fn pvc_api_yaml(options: &LabOptions) -> String {
    let coordinators: Vec<String> = options.coordinators().map(|node| format!("\"{node}\"")).collect();
    format!(
        "pvc:\n  coordinators: [{}]\n  api:\n    listen_address: \"::\"\n    listen_port: {API_PORT}\n    authentication:\n      \
         enabled: True\n      secret_key: \"{API_TOKEN}\"\n      tokens:\n        - description: lab\n          token: {API_TOKEN}\n",
        coordinators.join(", ")
    )
}

/// The text of `/etc/ceph/ceph.conf` on every node, which is a client of Ceph, and may get OSDs.
pub fn ceph_conf() -> String {
    let monitor = Net::Storage.switch();
    format!(
        "[global]\nmon_host = [v2:{monitor}:{CEPH_PORT}]\nkeyring = {SHARED_IN_NODE}/ceph/{CEPH_KEYRING}\nms_bind_msgr1 = false\n\
         [osd]\nkeyring = /var/lib/ceph/osd/ceph-$id/keyring\nosd_memory_target = 402653184\nosd_op_num_shards = 1\n\
         osd_op_num_threads_per_shard = 2\nosd_heartbeat_interval = 2\nosd_heartbeat_grace = 8\n\
         osd_mclock_force_run_benchmark_on_init = false\nlog_file =\nadmin_socket =\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_its_own_name_bmc_and_the_coordinators() {
        let options = LabOptions::new("x", "/x").nodes(4);
        let text = pvcd_yaml("node4".parse().unwrap(), &options);
        assert!(text.contains("\n  node: node4\n"));
        assert!(text.contains("\n        host: 10.255.0.104\n"));
        assert!(text.contains(
            "coordinators:\n      - node1\n      - node2\n      - node3\n    networks:\n      upstream:\n"
        ));
        assert!(!text.contains("- node4"), "only three nodes run ZooKeeper");
        assert!(text.contains("enable_networking: True"));
        assert!(text.contains("domain: \"cluster.lab\""));
        assert!(text.ends_with("device: eth1\n          mtu: 1500\n          address: by-id\n"));
    }
}
