//! How long the daemon takes from its process's start to `run`, and from SIGTERM to its end.

use std::path::Path;

use anyhow::Result;

use crate::{daemon::Daemon, probe, tree::Tree};

/// One sample a start.
#[derive(Default)]
pub(crate) struct Starts {
    pub(crate) seconds: Vec<f64>,
    /// Our own few requests included: reading and watching one key at each of its changes.
    pub(crate) requests: Vec<f64>,
    pub(crate) stop_seconds: Vec<f64>,
}

pub(crate) async fn measure(binaries: &Path, tree: &Tree, repeat: usize) -> Result<Starts> {
    let mut starts = Starts::default();
    for _ in 0..repeat {
        let before = probe::zookeeper()?;
        let (daemon, took) = Daemon::start(binaries, tree).await?;
        let after = probe::zookeeper()?;
        starts.seconds.push(took.as_secs_f64());
        starts.requests.push(after.packets - before.packets);
        starts.stop_seconds.push(daemon.stop().await?.as_secs_f64());
    }
    Ok(starts)
}
