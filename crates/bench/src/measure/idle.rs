//! What an idle daemon costs: CPU, wakes and ZooKeeper traffic a keepalive, memory, threads.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    awake::Awake,
    capsule::NODE,
    daemon::{Daemon, KEEPALIVE_S},
    probe,
    tree::Tree,
    wire,
};

/// Time for what follows a start to calm down.
const SETTLE: Duration = Duration::from_secs(8);
/// From a keepalive to the window.
const AFTER_ONE: Duration = Duration::from_secs(1);

/// What was seen over the time watched.
pub(crate) struct Idle {
    /// One sample a keepalive.
    pub(crate) cpu_ms: Vec<f64>,
    /// One sample a keepalive.
    pub(crate) wakes: Vec<f64>,
    /// Averages.
    pub(crate) requests: f64,
    pub(crate) bytes: f64,
    pub(crate) size: probe::Size,
}

/// Watches the daemon and its own connection over so many keepalives, on cores that are awake.
pub(crate) async fn measure(binaries: &Path, keepalives: u32) -> Result<Idle> {
    let key = format!("/nodes/{NODE}/keepalive");
    let tree = Tree::connect().await?;
    let (daemon, _) = Daemon::start(binaries, &tree).await?;
    tokio::time::sleep(SETTLE).await;
    let first = tree.next_version(&key).await?;
    let awake = Awake::keep()?;
    // The window begins and ends well between two keepalives.
    tokio::time::sleep(AFTER_ONE).await;

    let before = wire::of(daemon.pid())?;
    let (mut cpu_ms, mut wakes) = (Vec::new(), Vec::new());
    let mut woken = probe::wakes(daemon.pid())?;
    let mut used = probe::cpu(daemon.pid())?;
    let mut tick = tokio::time::interval(Duration::from_secs(KEEPALIVE_S));
    tick.tick().await;
    for _ in 0..keepalives {
        tick.tick().await;
        let now = probe::cpu(daemon.pid())?;
        cpu_ms.push(now.saturating_sub(used).as_secs_f64() * 1e3);
        used = now;
        let now = probe::wakes(daemon.pid())?;
        wakes.push(now - woken);
        woken = now;
    }
    let seen = wire::of(daemon.pid())? - before;
    drop(awake);

    let size = probe::size(daemon.pid())?;
    let written = tree.version(&key).await? - first;
    daemon.stop().await?;
    ensure!(written > 0, "no keepalive was written in {keepalives} intervals");
    let each = f64::from(written);
    Ok(Idle { cpu_ms, wakes, requests: seen.requests / each, bytes: seen.bytes / each, size })
}
