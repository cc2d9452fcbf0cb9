//! The measured daemon: its configuration, its start until the tree says `run`, its stop.

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use pvc_config::sample::Sample;

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
    let mut sample = Sample::default()
        .with("node", NODE)
        .with_list("cluster.coordinators", [NODE])
        .without("cluster.networks")
        .without("coordinator")
        .without("system.configuration.networking")
        .with("system.fencing.intervals.keepalive_interval", KEEPALIVE_S)
        .with("system.fencing.ipmi.host", format!("{NODE}-lom"))
        .with("system.configuration.directories.log_directory", ROOM)
        .with("system.configuration.logging.log_colours", "False");
    for function in ["networking", "storage", "api"] {
        sample = sample.with(&format!("functions.enable_{function}"), "False");
    }
    sample.text()
}
