//! A configuration like the manual's example, with directories of its own.

use std::path::Path;

use pvc_config::Config;

/// What differs between tests.
pub(crate) struct Sample<'a> {
    pub(crate) node: &'a str,
    pub(crate) coordinator: &'a str,
    pub(crate) hypervisor: bool,
    pub(crate) keepalive_interval_s: u32,
}

/// The text of a `pvcd.yaml` whose directories are below `dir`.
pub(crate) fn yaml(dir: &Path, sample: &Sample<'_>) -> String {
    let (dir, Sample { node, coordinator, .. }) = (dir.display(), sample);
    let hypervisor = if sample.hypervisor { "True" } else { "False" };
    let interval = sample.keepalive_interval_s;
    format!(
        r#"pvc:
  node: {node}
  functions:
    enable_hypervisor: {hypervisor}
    enable_networking: False
    enable_storage: False
  cluster:
    coordinators:
      - "{coordinator}"
  system:
    intervals:
      keepalive_interval: {interval}
      fence_intervals: 6
      suicide_intervals: 0
    fencing:
      actions:
        successful_fence: migrate
        failed_fence: None
      ipmi:
        host: {node}-lom
        user: admin
        pass: Passw0rd
    migration:
      target_selector: mem
    configuration:
      directories:
        dynamic_directory: "{dir}/run"
        log_directory: "{dir}/log"
        console_log_directory: "{dir}/console"
      logging:
        file_logging: True
        stdout_logging: True
        log_colours: False
        log_dates: True
        log_keepalives: True
        log_keepalive_cluster_details: True
        log_keepalive_storage_details: True
        console_log_lines: 100
"#
    )
}

/// The same, checked.
pub(crate) fn config(dir: &Path, sample: &Sample<'_>) -> Config {
    let report = pvc_config::check(&yaml(dir, sample), "pvcd.yaml");
    let headlines: Vec<String> = report.diagnostics.iter().map(pvc_config::Diagnostic::headline).collect();
    report.config.unwrap_or_else(|| panic!("the sample configuration is refused: {headlines:?}"))
}
