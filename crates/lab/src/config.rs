//! The pvcd.yaml of a lab's node, in the shape of the daemon's manual.
//! Knows the manual's settings only as text; the daemon is what checks them.

use std::fmt::Write;

use crate::{
    bmc,
    layout::{Net, NodeNumber},
    options::LabOptions,
};

/// Python's spelling, as in the manual.
fn boolean(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// The text of `/etc/pvc/pvcd.yaml` on `node`.
pub fn pvcd_yaml(node: NodeNumber, options: &LabOptions) -> String {
    let coordinators: Vec<_> = options.coordinators().map(|node| format!("      - {node}")).collect();
    let coordinators = coordinators.join("\n");
    let networks: String = [Net::Upstream, Net::Cluster, Net::Storage].map(network).concat();
    let devices: String = [Net::Upstream, Net::Cluster, Net::Storage].map(device).concat();
    let timings = &options.timings;
    format!(
        "---
pvc:
  node: {node}
  functions:
    enable_hypervisor: True
    enable_networking: {networking}
    enable_storage: False
    enable_api: {api}
  cluster:
    coordinators:
{coordinators}
    networks:{networks}
  coordinator:
    dns:
      database:
        host: localhost
        port: 5432
        name: pvcdns
        user: pvcdns
        pass: pvcdns
  system:
    fencing:
      intervals:
        keepalive_interval: {keepalive}
        fence_intervals: {fence}
        suicide_intervals: {suicide}
      actions:
        successful_fence: {successful}
        failed_fence: {failed}
      ipmi:
        host: {bmc}
        user: {user}
        pass: {pass}
    migration:
      target_selector: mem
    configuration:
      directories:
        dynamic_directory: \"/run/pvc\"
        log_directory: \"/var/log/pvc\"
        console_log_directory: \"/var/log/libvirt\"
      logging:
        file_logging: True
        stdout_logging: True
        log_colours: False
        log_dates: False
        log_keepalives: True
        log_keepalive_cluster_details: True
        log_keepalive_storage_details: False
        console_log_lines: {lines}
      networking:{devices}
",
        networking = boolean(options.enable_networking),
        api = boolean(options.enable_api),
        keepalive = timings.keepalive_interval_s,
        fence = timings.fence_intervals,
        suicide = timings.suicide_intervals,
        successful = timings.successful_fence,
        failed = timings.failed_fence,
        bmc = node.bmc_address(),
        user = bmc::USER,
        pass = bmc::PASSWORD,
        lines = options.console_log_lines,
    )
}

fn network(net: Net) -> String {
    let [floating, floating6] = net.floating();
    let mut text = format!(
        "
      {name}:
        domain: \"{domain}\"
        network: \"{network}/24\"
        floating_ip: \"{floating}/24\"
        network6: \"{network6}/64\"
        floating_ip6: \"{floating6}/64\"",
        name = net.name(),
        domain = net.domain(),
        network = net.address(0),
        network6 = net.address6(0),
    );
    if net == Net::Upstream {
        let _ = write!(text, "\n        gateway: \"{}\"", net.switch());
    }
    text
}

fn device(net: Net) -> String {
    format!(
        "
        {}:
          device: {}
          mtu: 1500
          address: by-id",
        net.name(),
        net.device()
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
