//! The configuration of simulated nodes: the manual's example, as short as it may be.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use pvc_config::Config;
use pvc_core::model::NodeName;

use crate::{
    checkers,
    options::{Options, Timing},
};

/// The name of a node, by its number.
pub(crate) fn name(number: usize) -> String {
    format!("hv{}", number + 1)
}

/// The name of the machine that has a copy of a node's disk: the cluster knows nothing of it.
pub(crate) fn clone_name(node: &NodeName) -> anyhow::Result<NodeName> {
    Ok(format!("{node}-clone").parse()?)
}

/// The configuration of a node.
pub(crate) fn of(options: &Options, number: usize) -> anyhow::Result<Config> {
    let text = text(options, number);
    let report = pvc_config::check(&text, "pvcd.yaml");
    report.config.ok_or_else(|| {
        let headlines: Vec<String> =
            report.diagnostics.iter().map(pvc_config::Diagnostic::headline).collect();
        anyhow::anyhow!("the configuration of simulated nodes is refused: {}", headlines.join("; "))
    })
}

/// How long things take in the cluster, as its checkers need to know it.
pub(crate) fn timing(options: &Options) -> anyhow::Result<checkers::Timing> {
    let config = of(options, 0)?;
    let all = (0..options.nodes).map(|number| of(options, number)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(checkers::Timing {
        keepalive: config.intervals.keepalive(),
        fence_after: config.intervals.fence_after().unwrap_or(Duration::MAX),
        session: all.iter().map(|config| config.intervals.session_timeout()).max().unwrap_or_default(),
    })
}

/// Whether a node speaks seldom, where intervals are mixed.
fn is_slow(number: usize) -> bool {
    number % 3 == 2
}

/// The addresses that move with the primary.
pub(crate) fn floating(config: &Config) -> BTreeSet<IpAddr> {
    let networks = config.networks.iter().flat_map(|networks| networks.iter().map(|(_, network)| network));
    networks.filter_map(|network| network.floating_ip).map(|ip| IpAddr::V4(ip.addr())).collect()
}

fn text(options: &Options, number: usize) -> String {
    let node = name(number);
    let coordinators: Vec<String> =
        (0..options.coordinators()).map(|n| format!("      - {}", name(n))).collect();
    let coordinators = coordinators.join("\n");
    let (keepalive, fence) = match options.timing {
        Timing::Mixed if is_slow(number) => (30, 6),
        Timing::Default | Timing::Mixed => (5, 6),
        Timing::Fast => (1, 3),
    };
    let failed = if options.suicide_intervals > 0 { "migrate" } else { "None" };
    let suicide = options.suicide_intervals;
    format!(
        r#"pvc:
  node: {node}
  functions:
    enable_hypervisor: True
    enable_networking: True
    enable_storage: False
    enable_api: True
  cluster:
    coordinators:
{coordinators}
    networks:
      upstream:
        domain: "example.net"
        network: "192.0.2.0/24"
        floating_ip: "192.0.2.254/24"
        gateway: "192.0.2.1"
      cluster:
        domain: "pvc.local"
        network: "10.255.0.0/24"
        floating_ip: "10.255.0.254/24"
      storage:
        domain: "pvc.storage"
        network: "10.254.0.0/24"
        floating_ip: None
  coordinator:
    dns:
      database:
        host: localhost
        port: 5432
        name: pvcdns
        user: pvcdns
        pass: pvcdns
  system:
    intervals:
      keepalive_interval: {keepalive}
      fence_intervals: {fence}
      suicide_intervals: {suicide}
    fencing:
      actions:
        successful_fence: migrate
        failed_fence: {failed}
      ipmi:
        host: {node}-lom
        user: admin
        pass: {SECRET}
    migration:
      target_selector: mem
    configuration:
      directories:
        dynamic_directory: "/run/pvc"
        log_directory: "/var/log/pvc"
        console_log_directory: "/var/log/libvirt"
      logging:
        file_logging: False
        stdout_logging: True
        log_colours: False
        log_dates: False
        log_keepalives: False
        log_keepalive_cluster_details: False
        log_keepalive_storage_details: False
        console_log_lines: 0
      networking:
        upstream:
          device: ens4
          mtu: 1500
          address: None
        cluster:
          device: ens4
          mtu: 1500
          address: by-id
        storage:
          device: ens4
          mtu: 1500
          address: by-id
"#
    )
}

/// The BMCs' password: it must appear nowhere but in the node's own keys.
pub const SECRET: &str = "Passw0rdOfTheBmc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_node_has_a_configuration() {
        for suicide_intervals in [0, 3] {
            for timing in [Timing::Default, Timing::Fast, Timing::Mixed] {
                let options = Options { timing, suicide_intervals, ..Options::default() };
                let config = of(&options, 4).unwrap();
                assert!(!config.is_coordinator());
                assert_eq!(floating(&config).len(), 2);
                assert!(of(&options, 0).unwrap().is_coordinator());
            }
        }
    }
}
