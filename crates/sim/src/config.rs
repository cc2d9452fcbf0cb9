//! The configuration of simulated nodes.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use pvc_config::{Config, sample::Sample};

use crate::{
    checkers,
    options::{Options, Timing},
};

/// The name of a node, by its number.
pub(crate) fn name(number: usize) -> String {
    format!("hv{}", number + 1)
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
    let (keepalive, fence) = match options.timing {
        Timing::Mixed if is_slow(number) => (30, 6),
        Timing::Default | Timing::Mixed => (5, 6),
        Timing::Fast => (1, 3),
    };
    let failed = if options.suicide_intervals > 0 { "migrate" } else { "None" };
    let node = name(number);
    let mut sample = Sample::default()
        .with("node", &node)
        .with("functions.enable_storage", if options.storage { "True" } else { "False" })
        .with_list("cluster.coordinators", (0..options.coordinators()).map(name))
        .with("cluster.networks.upstream.network", "192.0.2.0/24")
        .with("cluster.networks.upstream.floating_ip", "192.0.2.254/24")
        .with("cluster.networks.upstream.gateway", "192.0.2.1")
        .with("cluster.networks.storage.floating_ip", "None")
        .with("system.fencing.intervals.keepalive_interval", keepalive)
        .with("system.fencing.intervals.fence_intervals", fence)
        .with("system.fencing.intervals.suicide_intervals", options.suicide_intervals)
        .with("system.fencing.actions.failed_fence", failed)
        .with("system.fencing.ipmi.host", format!("{node}-lom"))
        .with("system.fencing.ipmi.pass", SECRET)
        .with("system.configuration.logging.console_log_lines", 0);
    for quiet in ["file_logging", "log_colours", "log_dates", "log_keepalives"] {
        sample = sample.with(&format!("system.configuration.logging.{quiet}"), "False");
    }
    for quiet in ["cluster", "storage"] {
        sample = sample.with(&format!("system.configuration.logging.log_keepalive_{quiet}_details"), "False");
    }
    sample.text()
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
