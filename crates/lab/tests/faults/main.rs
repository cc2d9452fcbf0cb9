//! The fault menu: whole clusters of real daemons, each with something broken under it. `cargo xtask faults` plays all of it; what is
//! not marked as ignored plays in continuous integration too. Every scenario ends as `pvc_lab::scenario` says.

mod able;
mod bmc;
mod claims;
mod clock;
mod daemon;
mod disk;
mod fencer;
mod halted;
mod load;
mod machine;
mod migration;
mod network;
mod node;
mod primary;
mod shutdown;
mod strangers;
mod zookeeper;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pvc_lab::{LabOptions, Node, PATIENCE, Timings, wait_until};

/// A silence of 3 s is death; then the power-off, the start, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(30);

/// A cluster in which three seconds of silence are death.
fn fast(name: &str, nodes: u8) -> LabOptions {
    let timings = Timings { keepalive_interval_s: 1, fence_intervals: 3, ..Timings::default() };
    LabOptions::new(name, env!("CARGO_BIN_EXE_pvc-lab")).nodes(nodes).timings(timings)
}

/// The manual's usual intervals: silence of 30 s is death.
fn default(name: &str, nodes: u8) -> LabOptions {
    let timings = Timings { keepalive_interval_s: 5, fence_intervals: 6, ..Timings::default() };
    LabOptions::new(name, env!("CARGO_BIN_EXE_pvc-lab")).nodes(nodes).timings(timings)
}

/// Lets time pass where the time is what is tested: in it something must not happen.
fn pass(time: Duration) -> Result<()> {
    let began = Instant::now();
    wait_until("time to pass", time + PATIENCE, || began.elapsed() >= time)
}

/// kill -9 of a node's pvcd, which must be there.
fn kill_daemon(node: &Node) -> Result<()> {
    ensure!(node.kill_service("pvcd.service")?, "{} had no pvcd", node.name());
    Ok(())
}
