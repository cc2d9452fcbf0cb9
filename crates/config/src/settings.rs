//! The names of all settings, as the manual groups them: what is known where, and which known name a slip was meant for.

pub(crate) const ROOT: &[&str] = &["debug", "node", "functions", "cluster", "coordinator", "system"];
pub(crate) const FUNCTIONS: &[&str] =
    &["enable_hypervisor", "enable_networking", "enable_storage", "enable_api"];
pub(crate) const CLUSTER: &[&str] = &["coordinators", "networks"];
pub(crate) const NETWORKS: &[&str] = &["upstream", "cluster", "storage"];
pub(crate) const NETWORK: &[&str] =
    &["domain", "network", "floating_ip", "gateway", "network6", "floating_ip6"];
pub(crate) const COORDINATOR: &[&str] = &["dns"];
pub(crate) const DNS: &[&str] = &["database"];
pub(crate) const DATABASE: &[&str] = &["host", "port", "name", "user", "pass"];
pub(crate) const SYSTEM: &[&str] = &["intervals", "fencing", "migration", "configuration"];
pub(crate) const INTERVALS: &[&str] = &["keepalive_interval", "fence_intervals", "suicide_intervals"];
pub(crate) const FENCING: &[&str] = &["intervals", "actions", "ipmi"];
pub(crate) const ACTIONS: &[&str] = &["successful_fence", "failed_fence"];
pub(crate) const IPMI: &[&str] = &["host", "user", "pass", "cipher_suite"];
pub(crate) const MIGRATION: &[&str] = &["target_selector", "outgoing_limit", "incoming_limit"];
pub(crate) const CONFIGURATION: &[&str] = &["directories", "logging", "metrics", "networking"];
pub(crate) const DIRECTORIES: &[&str] = &["dynamic_directory", "log_directory", "console_log_directory"];
pub(crate) const LOGGING: &[&str] = &[
    "file_logging",
    "stdout_logging",
    "log_colours",
    "log_dates",
    "log_keepalives",
    "log_keepalive_cluster_details",
    "log_keepalive_storage_details",
    "console_log_lines",
    "console_log_vm_rate",
    "console_log_node_rate",
];
pub(crate) const METRICS: &[&str] = &["listen"];
pub(crate) const INTERFACE: &[&str] = &["device", "mtu", "address"];

/// Every section with its settings; `*` stands for the name of a network.
pub(crate) const SECTIONS: &[(&str, &[&str])] = &[
    ("", ROOT),
    ("functions", FUNCTIONS),
    ("cluster", CLUSTER),
    ("cluster.networks", NETWORKS),
    ("cluster.networks.*", NETWORK),
    ("coordinator", COORDINATOR),
    ("coordinator.dns", DNS),
    ("coordinator.dns.database", DATABASE),
    ("system", SYSTEM),
    ("system.intervals", INTERVALS),
    ("system.fencing", FENCING),
    ("system.fencing.intervals", INTERVALS),
    ("system.fencing.actions", ACTIONS),
    ("system.fencing.ipmi", IPMI),
    ("system.migration", MIGRATION),
    ("system.configuration", CONFIGURATION),
    ("system.configuration.directories", DIRECTORIES),
    ("system.configuration.logging", LOGGING),
    ("system.configuration.metrics", METRICS),
    ("system.configuration.networking", NETWORKS),
    ("system.configuration.networking.*", INTERFACE),
];

/// Longer names are nobody's slip of the pen.
const LONGEST: usize = 48;

/// The known name that `name` in `section` was probably meant for: a similar one here, or the same one elsewhere.
pub(crate) fn nearest(section: &str, name: &str, known: &[&str]) -> Option<String> {
    let plain = name.to_ascii_lowercase().replace('-', "_");
    if name.is_empty() || name.len() > LONGEST {
        return None;
    }
    let near = known.iter().map(|k| (strsim::osa_distance(&plain, k), *k)).min();
    if let Some((distance, near)) = near
        && distance <= near.len().div_ceil(3).min(3)
    {
        return Some(near.to_owned());
    }
    SECTIONS.iter().find(|(path, names)| *path != section && names.contains(&plain.as_str())).map(
        |(path, _)| {
            let path = if path.is_empty() { String::new() } else { format!("{path}.") };
            format!("{path}{plain}").replace('*', "<network>")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_describes_every_setting() {
        let manual = include_str!("../../../docs/manual/configuration.md");
        let sections: Vec<&str> = SECTIONS.iter().map(|(path, _)| *path).collect();
        for (section, names) in SECTIONS {
            for name in *names {
                let path = if section.is_empty() { (*name).to_owned() } else { format!("{section}.{name}") };
                let is_section = sections.iter().any(|s| *s == path || s.starts_with(&format!("{path}.")));
                let described =
                    if is_section || section.ends_with("networks") || section.ends_with("networking") {
                        manual.contains(name)
                    } else {
                        manual.contains(&format!("| `{name}` | "))
                            || manual.contains(&format!("### `{path}`"))
                    };
                assert!(described, "{path}");
            }
        }
    }

    #[test]
    fn a_slip_of_the_pen_finds_the_name_it_was_meant_for() {
        for (section, name, known, nearest_name) in [
            ("system.fencing.intervals", "keepalive_intervall", INTERVALS, Some("keepalive_interval")),
            ("functions", "enable-api", FUNCTIONS, Some("enable_api")),
            ("functions", "Enable_API", FUNCTIONS, Some("enable_api")),
            ("system.fencing.ipmi", "pas", IPMI, Some("pass")),
            ("system.fencing", "keepalive_interval", FENCING, Some("system.intervals.keepalive_interval")),
            ("system", "mtu", SYSTEM, Some("system.configuration.networking.<network>.mtu")),
            ("system", "node", SYSTEM, Some("node")),
            ("system", "colour_of_the_rack", SYSTEM, None),
            ("", "", ROOT, None),
        ] {
            assert_eq!(nearest(section, name, known).as_deref(), nearest_name, "{name}");
        }
    }
}
