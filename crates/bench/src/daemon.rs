//! The measured daemon: its configuration, its start until the tree says `run`, its stop.

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    capsule::{NODE, ROOM},
    program::{Running, command},
    tree::Tree,
};

/// Seconds between keepalives: the usual value, and the one that the 0.5 daemon was measured with.
pub(crate) const KEEPALIVE_S: u64 = 5;

/// A running daemon.
pub(crate) struct Daemon(Running);

impl Daemon {
    /// Starts the daemon and waits until its node is in `run`; tells how long that took from the start of the process.
    pub(crate) async fn start(binaries: &Path, tree: &Tree) -> Result<(Self, Duration)> {
        let config = Path::new(ROOM).join("pvcd.yaml");
        fs::write(&config, configuration())?;
        let log = File::options().create(true).append(true).open(Path::new(ROOM).join("pvcd.log"))?;
        let mut pvcd = command(binaries.join("pvcd"));
        pvcd.env("PVCD_CONFIG_FILE", &config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let state = format!("/nodes/{NODE}/daemonstate");
        ensure!(
            tree.read(&state).await?.as_deref() != Some("run"),
            "the daemon before this one did not stop in order"
        );
        let began = Instant::now();
        let running = Running::start(&mut pvcd)?;
        let ran = tree.wait_for(&format!("/nodes/{NODE}/daemonstate"), |state| state == "run").await;
        let ran = ran.with_context(|| format!("pvcd did not come up; its log ends:\n{}", log_end()))?;
        Ok((Self(running), ran.duration_since(began)))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.pid()
    }

    /// Asks the daemon to stop and waits until it has.
    pub(crate) async fn stop(self) -> Result<Duration> {
        self.0.stop().await
    }
}

/// The last lines that the daemon wrote.
pub(crate) fn log_end() -> String {
    let text = fs::read_to_string(Path::new(ROOM).join("pvcd.log")).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn configuration() -> String {
    format!(
        "pvc:
  node: {NODE}
  functions:
    enable_hypervisor: True
    enable_networking: False
    enable_storage: False
    enable_api: False
  cluster:
    coordinators:
      - {NODE}
  system:
    fencing:
      intervals:
        keepalive_interval: {KEEPALIVE_S}
        fence_intervals: 6
        suicide_intervals: 0
      actions:
        successful_fence: migrate
        failed_fence: None
      ipmi:
        host: {NODE}-lom
        user: admin
        pass: none-here
    migration:
      target_selector: mem
    configuration:
      directories:
        dynamic_directory: /run/pvc
        log_directory: {ROOM}
        console_log_directory: /var/log/libvirt
      logging:
        file_logging: True
        stdout_logging: True
        log_colours: False
        log_dates: True
        log_keepalives: True
        log_keepalive_cluster_details: True
        log_keepalive_storage_details: True
        console_log_lines: 1000
"
    )
}
