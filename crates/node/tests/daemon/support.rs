//! A configuration like the manual's example, with directories of its own.

use std::path::Path;

use pvc_config::{Config, sample::Sample};

/// What differs between tests.
pub(crate) struct Settings<'a> {
    pub(crate) node: &'a str,
    pub(crate) coordinator: &'a str,
    pub(crate) hypervisor: bool,
    pub(crate) keepalive_interval_s: u32,
}

/// The text of a `pvcd.yaml` whose directories are below `dir`.
pub(crate) fn yaml(dir: &Path, settings: &Settings<'_>) -> String {
    let Settings { node, coordinator, .. } = settings;
    let directory = |name: &str| format!("\"{}/{name}\"", dir.display());
    let sample = Sample::default()
        .with("node", node)
        .with("functions.enable_hypervisor", if settings.hypervisor { "True" } else { "False" })
        .with("functions.enable_networking", "False")
        .with("functions.enable_storage", "False")
        .with("functions.enable_api", "False")
        .with_list("cluster.coordinators", [coordinator])
        .without("cluster.networks")
        .without("coordinator")
        .without("system.configuration.networking")
        .with("system.fencing.intervals.keepalive_interval", settings.keepalive_interval_s)
        .with("system.fencing.ipmi.host", format!("{node}-lom"))
        .with("system.fencing.ipmi.pass", "Passw0rd")
        .with("system.configuration.directories.dynamic_directory", directory("run"))
        .with("system.configuration.directories.log_directory", directory("log"))
        .with("system.configuration.directories.console_log_directory", directory("console"))
        .with("system.configuration.logging.log_colours", "False")
        .with("system.configuration.logging.console_log_lines", 100);
    sample.text()
}

/// The same, checked.
pub(crate) fn config(dir: &Path, settings: &Settings<'_>) -> Config {
    let report = pvc_config::check(&yaml(dir, settings), "pvcd.yaml");
    let headlines: Vec<String> = report.diagnostics.iter().map(pvc_config::Diagnostic::headline).collect();
    report.config.unwrap_or_else(|| panic!("the sample configuration is refused: {headlines:?}"))
}
