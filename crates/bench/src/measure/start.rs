//! How long the daemon takes from its process's start to `run`, and from SIGTERM to its end.

use std::path::Path;

use anyhow::Result;

use crate::{daemon::Daemon, tree::Tree, wire};

/// One sample a start.
#[derive(Default)]
pub(crate) struct Starts {
    pub(crate) seconds: Vec<f64>,
    /// The daemon's own, pings included.
    pub(crate) requests: Vec<f64>,
    pub(crate) stop_seconds: Vec<f64>,
}

pub(crate) async fn measure(binaries: &Path, tree: &Tree, repeat: usize) -> Result<Starts> {
    let mut starts = Starts::default();
    for _ in 0..repeat {
        let (daemon, took) = Daemon::start(binaries, tree).await?;
        let wire = wire::of(daemon.pid())?;
        starts.seconds.push(took.as_secs_f64());
        starts.requests.push(wire.requests);
        starts.stop_seconds.push(daemon.stop().await?.as_secs_f64());
    }
    Ok(starts)
}
